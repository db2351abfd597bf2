"""Searching the worktree by regular expression.

Invariant: at most one page of matches is shown; all that were found lie in a file of `@outputs` that can be read by
range.
"""

from __future__ import annotations

import asyncio

from selfloop.agent.tools.text import read_text
from selfloop.agent.tools.tool import Call, Observation, Params, Tool, Workbench, refused, spill_name
from selfloop.errors import PathRefused
from selfloop.sandbox import ripgrep
from selfloop.sandbox.ripgrep import Found

SHOWN_MATCHES = 100
_SLOW_FILES = 5_000
_SLOW_BYTES = 1 << 20


class Search(Params):
    pattern: str
    path: str = "."


async def search(call: Call, params: Search) -> Observation:
    """Show where a pattern stands."""
    bench = call.bench
    if not params.pattern:
        return refused("The pattern is empty, so nothing was searched; give a regular expression.")
    said = ""
    if not ripgrep.has_ripgrep():
        found = await asyncio.to_thread(_plainly, bench, params.pattern, params.path)
        said = "ripgrep is not installed, so the pattern was searched as plain text, and slowly. "
    else:
        found = await ripgrep.search(bench.door, params.pattern, params.path, literal=False)
        if found.invalid:
            said = f"The pattern is no regular expression ({found.invalid}), so it was searched as plain text. "
            found = await ripgrep.search(bench.door, params.pattern, params.path, literal=True)
    if not found.lines:
        return Observation(f"{said}Nothing in {params.path} matches {params.pattern!r}.")
    shown = _page(found.lines, bench.window_chars)
    text = f"{said}{len(found.lines)}{' or more' if found.cut else ''} lines match."
    if len(shown) < len(found.lines):
        name = f"@outputs/{spill_name('search', call.id)}"
        data = ("\n".join(found.lines) + "\n").encode("utf-8", "replace")
        await asyncio.to_thread(bench.door.write_bytes, name, data)
        text += (
            f" The first {len(shown)} are shown; narrow the pattern or the path, or read_file {name} for the others."
        )
    return Observation(f"{text}\n{bench.fence.data(chr(10).join(shown), source=f'search in {params.path}')}")


SEARCH_TOOLS = (Tool("search", "search", Search, search, lambda p: f"Search {p.pattern!r}", deadline_seconds=90.0),)


def _page(lines: tuple[str, ...], most_chars: int) -> list[str]:
    shown: list[str] = []
    size = 0
    for line in lines[:SHOWN_MATCHES]:
        size += len(line) + 1
        if size > most_chars and shown:
            break
        shown.append(line)
    return shown


def _plainly(bench: Workbench, text: str, path: str) -> Found:
    """Search without ripgrep. Plain text only: an expression of a model's could keep this process busy for ever."""
    lines: list[str] = []
    ahead = [path]
    seen = 0
    while ahead and seen < _SLOW_FILES:
        here = ahead.pop()
        if bench.door.stat(here).kind == "folder":
            below = [
                entry for entry in bench.door.list(here) if entry.kind in ("file", "folder") and entry.name != ".git"
            ]
            ahead += [entry.name if here in ("", ".") else f"{here}/{entry.name}" for entry in reversed(below)]
            continue
        seen += 1
        try:
            content = read_text(bench.door, here, _SLOW_BYTES).text
        except PathRefused:
            continue
        if text in content:
            lines += [f"{here}:{n}:{line[:300]}" for n, line in enumerate(content.split("\n"), 1) if text in line]
    return Found(tuple(lines), cut=bool(ahead))
