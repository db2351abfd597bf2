"""The extension in the real workbench: it is there, and its window finds the server."""

from __future__ import annotations

from workbench import Workbench


async def test_the_palette_lists_the_commands(bench: Workbench) -> None:
    titles = await bench.commands("Selfloop: Open")
    assert any("Open Chat" in title for title in titles), titles
    await bench.screenshot("palette")
