"""How text from outside the workspace is shown: other people's words, logs and names.

Invariant: it is redacted, its terminal colours are gone and its invisible characters are written out, it is cut to one
page with the rest in a file of `@outputs`, and it stands inside a fence as data.
"""

from __future__ import annotations

import asyncio
import re

from selfloop.agent.tools.tool import Call, Observation, refused, spill_name
from selfloop.changes import visible
from selfloop.errors import PathRefused

_COLOURS = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


async def shown(call: Call, tool: str, head: str, text: str, *, source: str) -> Observation:
    """Return the observation that shows a text from outside.

    Args:
        call: the call that is answered.
        tool: its name; the file of a long text is called after it.
        head: our own words: what it is, and what is missing.
        text: theirs.
        source: where it comes from, for the fence.
    """
    bench = call.bench
    clean = await asyncio.to_thread(lambda: bench.redact(plain(text)).rstrip("\n"))
    if not clean.strip():
        return Observation(head)
    most = bench.window_chars
    if len(clean) > most:
        name = f"@outputs/{spill_name(tool, call.id)}"
        try:
            await asyncio.to_thread(bench.door.write_bytes, name, f"{clean}\n".encode("utf-8", "replace"))
            head += f" The first {most:,} of {len(clean):,} characters are shown; read_file {name} shows all of it."
        except PathRefused:
            head += f" The first {most:,} of {len(clean):,} characters are shown; ask for less to see the rest."
        clean = clean[:most]
    return Observation(f"{head}\n{bench.fence.data(clean, source=source)}")


def plain(text: str) -> str:
    """Return a text without terminal colours, its line ends plain, and with what cannot be seen written out."""
    return visible(_COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n"))


def brief(text: str | None, most: int) -> str:
    """Return a text of somebody's, cut at `most` characters with a word on what is missing."""
    text = (text or "").strip()
    return text if len(text) <= most else f"{text[:most]}\n[… {len(text) - most:,} more characters]"


def one_line(text: object, most: int = 200) -> str:
    """Return a title or a name as one line."""
    line = " ".join(str(text or "").split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def not_a_number(name: str, value: int | None, most: int) -> Observation | None:
    """Return the refusal of a number that is none; None where it is fine."""
    if value is None or 1 <= value <= most:
        return None
    return refused(f"`{name}` must be from 1 to {most:,}, so nothing was read.")
