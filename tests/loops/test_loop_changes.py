"""Loops on change: real files, real watching."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

import pytest

from selfloop.loops.changes import ChangeWatch


class Heard:
    """What was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, loop_id: str, paths: tuple[str, ...]) -> None:
        self.told.append((loop_id, paths))

    def paths(self, loop_id: str) -> set[str]:
        return {path for name, paths in self.told if name == loop_id for path in paths}

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not fact():
                await asyncio.sleep(0.02)


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[tuple[Path, ChangeWatch, Heard]]:
    """A watch that serves on a project with a few folders."""
    for folder in ("src/deep", ".git/objects", ".evo", "node_modules/x", "docs", "build"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    heard = Heard()

    async def ignored(paths: list[str]) -> Collection[str]:
        return {path for path in paths if path.startswith("build/")}

    watch = ChangeWatch(tmp_path / "project", heard, ignored=ignored, quiet_seconds=0.2)
    watch.set_globs({"all": "**", "python": "*.py", "deep": "src/deep/**"})
    task = asyncio.create_task(watch.serve())
    await asyncio.sleep(0.5)
    yield tmp_path / "project", watch, heard
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_change_is_told_to_the_loops_that_wait_for_it_and_one_burst_is_one(
    heard: tuple[Path, ChangeWatch, Heard],
) -> None:
    root, _, said = heard
    for number in range(20):
        (root / "src" / f"a{number}.py").write_text(str(number))
    (root / "src" / "deep" / "b.txt").write_text("b")
    await said.until(lambda: len(said.paths("all")) == 21 and bool(said.paths("deep")))
    await asyncio.sleep(0.6)
    assert said.paths("python") == {f"src/a{number}.py" for number in range(20)}
    assert said.paths("deep") == {"src/deep/b.txt"}
    assert sum(name == "python" for name, _ in said.told) <= 2


async def test_what_is_ours_gits_or_ignored_starts_nothing(heard: tuple[Path, ChangeWatch, Heard]) -> None:
    root, _, said = heard
    for path in (".git/HEAD", ".git/objects/x.py", ".evo/store.db", "node_modules/x/a.py", "build/out.py"):
        (root / path).write_text("x")
    (root / "docs" / "page.md").write_text("x")
    await said.until(lambda: bool(said.told))
    await asyncio.sleep(0.6)
    assert said.told == [("all", ("docs/page.md",))]


async def test_what_is_waited_for_can_change_while_it_is_watched(heard: tuple[Path, ChangeWatch, Heard]) -> None:
    root, watch, said = heard
    watch.set_globs({})
    await asyncio.sleep(0.7)
    (root / "docs" / "one.md").write_text("x")
    watch.set_globs({"late": "docs/*.md"})
    await asyncio.sleep(0.7)
    (root / "docs" / "two.md").write_text("x")
    (root / "src" / "three.md").write_text("x")
    await said.until(lambda: "docs/two.md" in said.paths("late"))
    assert said.paths("late") == {"docs/two.md"}
    assert {name for name, _ in said.told} == {"late"}
