"""Reading, writing, editing, deleting and listing files of the worktree, and reading the task's `@outputs`.

Invariant: "written" is said only after the door has written. An edit that would break a file which parsed before is
refused, and the refusal says that nothing changed.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections import deque
from collections.abc import Collection
from pathlib import PurePosixPath

from selfloop.agent.tools import edits, syntax
from selfloop.agent.tools.text import EDITABLE_BYTES, TextFile, read_text
from selfloop.agent.tools.tool import Call, Observation, Params, Tool, Workbench, refused
from selfloop.errors import PathRefused
from selfloop.sandbox.paths import Door
from selfloop.storage.secrets import PLACEHOLDER, replace_spans, secret_spans

LISTED_PATHS = 300
LONGEST_SECRET = 4_096
"""Characters on either side of a window in which the rest of a secret is looked for: a private key has that many."""
_OURS = {".git", ".evo"}
_NOT_LISTED = {"node_modules", "__pycache__", ".venv", "venv"}
"""What tools make; shown as a folder, never gone into."""


class ReadFile(Params):
    path: str
    start: int | None = None
    end: int | None = None


class WriteFile(Params):
    path: str
    content: str
    start: int | None = None
    end: int | None = None


class EditFile(Params):
    path: str
    old: str
    new: str


class DeleteFile(Params):
    path: str


class ListFiles(Params):
    path: str = "."


async def read_file(call: Call, params: ReadFile) -> Observation:
    """Show a window of a file, its range, and where the next window starts."""
    bench = call.bench
    file = await asyncio.to_thread(read_text, bench.door, params.path)
    text = file.text
    start = params.start or 0
    wanted = len(text) if params.end is None else params.end
    if not 0 <= start <= len(text) or wanted < start:
        return refused(
            f"{params.path} has {len(text)} characters, so there is no range {start} to {wanted}; nothing was read."
        )
    end = min(wanted, len(text), start + bench.window_chars)
    if end < min(wanted, len(text)):
        # A window that was cut ends with a whole line, if there is one in it.
        end = text.rfind("\n", start, end) + 1 or end
    part = text[start:end]
    first = text.count("\n", 0, start) + 1
    last = first + part.count("\n") - (1 if part.endswith("\n") else 0)
    header = f"{params.path}: characters {start} to {end} of {len(text)}, lines {first} to {max(first, last)}."
    if not text:
        return Observation(f"{params.path} is empty.")
    if end < len(text):
        header += f" Next: start={end}."
    elif not text.endswith("\n"):
        header += " The file does not end with a line feed."
    if file.crlf:
        header += " Its lines end with CRLF."
    shown = _without_secrets(text, start, end, bench.known_secrets())
    return Observation(f"{header}\n{bench.fence.data(shown, source=params.path)}")


async def write_file(call: Call, params: WriteFile) -> Observation:
    """Write a whole file, or replace a range of it."""
    bench = call.bench
    if (reason := _not_to_write(params.path)) is not None:
        return refused(reason)
    async with bench.editing:
        there = await asyncio.to_thread(bench.door.exists, params.path)
        if not there:
            if params.start or params.end:
                return refused(f"{params.path} does not exist, so it has no range to replace; nothing was written.")
            return await _create(bench, params.path, params.content)
        if params.start is None and params.end is None:
            return await _overwrite(bench, params.path, params.content)
        file = await asyncio.to_thread(read_text, bench.door, params.path, EDITABLE_BYTES)
        size = len(file.text)
        start = 0 if params.start is None else params.start
        end = size if params.end is None else params.end
        if not 0 <= start <= end <= size:
            return refused(
                f"{params.path} has {size} characters, so there is no range {start} to {end}; nothing was written."
            )
        content = file.like(params.content)
        after = file.text[:start] + content + file.text[end:]
        said = f"Replaced characters {start} to {end} of {params.path} by {len(content)} new ones"
        return await _replace(bench, params.path, file, after, said)


async def edit_file(call: Call, params: EditFile) -> Observation:
    """Replace the one place where `old` stands."""
    bench = call.bench
    if (reason := _not_to_write(params.path)) is not None:
        return refused(reason)
    if not params.old:
        return refused("`old` is empty, so there is no place to edit; nothing was changed. Use write_file to add text.")
    async with bench.editing:
        file = await asyncio.to_thread(read_text, bench.door, params.path, EDITABLE_BYTES)
        result = await asyncio.to_thread(edits.edit, file.text, params.old, params.new)
        if isinstance(result, edits.NotEdited):
            if PLACEHOLDER in params.old:
                return refused(
                    f"{params.path}: `old` holds {PLACEHOLDER}, which stands for a secret that you are not shown, so "
                    "nothing was changed. Leave its line out of `old`; only the other lines can be edited."
                )
            text = f"{params.path}: {result.reason}"
            if result.nearest:
                text += "\n" + bench.fence.data(result.nearest, source=f"{params.path}, from line {result.line}")
            return refused(text)
        said = f"Edited {params.path}, line {result.line}"
        observation = await _replace(bench, params.path, file, result.text, said)
        return Observation(f"{observation.text} {result.how}".strip(), observation.failed, observation.changed)


async def delete_file(call: Call, params: DeleteFile) -> Observation:
    """Delete one file."""
    if (reason := _not_to_write(params.path)) is not None:
        return refused(reason)
    async with call.bench.editing:
        await asyncio.to_thread(call.bench.door.delete, params.path)
    return Observation(f"Deleted {params.path}.", changed=True)


async def list_files(call: Call, params: ListFiles) -> Observation:
    """List the files below a folder; where there are too many, folders stand for what is in them."""
    if (await asyncio.to_thread(call.bench.door.stat, params.path)).kind == "file":
        return refused(f"{params.path} is a file, so it was not listed; read_file shows it.")
    lines, more = await asyncio.to_thread(_tree, call.bench, params.path)
    if not lines:
        return Observation(f"{params.path} is an empty folder.")
    listing = call.bench.fence.data("\n".join(lines), source=f"the files of {params.path}")
    return Observation(f"Below {params.path}:{more}\n{listing}")


FILE_TOOLS = (
    Tool("read_file", "read", ReadFile, read_file, lambda p: f"Read {p.path}", lambda p: p.path),
    Tool("write_file", "edit", WriteFile, write_file, lambda p: f"Write {p.path}", lambda p: p.path),
    Tool("edit_file", "edit", EditFile, edit_file, lambda p: f"Edit {p.path}", lambda p: p.path),
    Tool("delete_file", "delete", DeleteFile, delete_file, lambda p: f"Delete {p.path}", lambda p: p.path),
    Tool("list_files", "read", ListFiles, list_files, lambda p: f"List {p.path}"),
)


def _without_secrets(text: str, start: int, end: int, known: Collection[str]) -> str:
    """Return a window of a text without the secrets that reach into it: half a secret is recognised by its whole."""
    first = max(0, start - LONGEST_SECRET)
    spans = secret_spans(text[first : end + LONGEST_SECRET], known)
    inside = [(max(a + first, start) - start, min(b + first, end) - start) for a, b in spans]
    return replace_spans(text[start:end], [(a, b) for a, b in inside if a < b])


def _not_to_write(path: str) -> str | None:
    """Return why a path is never written; None: the door decides."""
    folded = {unicodedata.normalize("NFKC", part).casefold() for part in PurePosixPath(path).parts}
    if named := sorted(folded & _OURS):
        return f"{path} lies in {named[0]}, which is not the agent's to write, so nothing was changed."
    return None


async def _create(bench: Workbench, path: str, content: str) -> Observation:
    # What the user has there may be left out of the agent's copy: a pipe, a file with a second name elsewhere.
    await asyncio.to_thread(Door(bench.workspace).require_plain, path)
    file = TextFile(content)
    await asyncio.to_thread(bench.door.write_bytes, path, file.with_text(content))
    fault = await asyncio.to_thread(syntax.fault_in, path, content)
    warning = f" It does not parse ({fault}): mend it." if fault else ""
    return Observation(f"Created {path}, {len(content)} characters.{warning}", changed=True)


async def _overwrite(bench: Workbench, path: str, content: str) -> Observation:
    """Replace a whole file. What was there may be no text at all; then there is nothing to keep of it."""
    try:
        before = await asyncio.to_thread(read_text, bench.door, path, EDITABLE_BYTES)
    except PathRefused:
        await asyncio.to_thread(bench.door.write_bytes, path, TextFile(content).with_text(content))
        return Observation(f"Wrote {path}, {len(content)} characters; before, it was no text.", changed=True)
    after = before.like(content.removeprefix("\ufeff") if before.bom else content)
    said = f"Wrote {path}, {len(after)} characters"
    if before.crlf and after != content:
        said += "; its lines end with CRLF as before"
    return await _replace(bench, path, before, after, said, whole=True)


def _hides_a_secret(before: str, after: str) -> bool:
    """Tell whether a new text puts the mark of a redacted secret where it was not: the secret itself would be lost."""
    return after.count(PLACEHOLDER) > before.count(PLACEHOLDER)


async def _replace(
    bench: Workbench, path: str, before: TextFile, after: str, said: str, *, whole: bool = False
) -> Observation:
    """Write a file's new text, unless a change of a part breaks what parsed before; who writes it whole is told."""
    if after == before.text:
        return Observation(f"{path} already has exactly this text, so nothing was changed.")
    if _hides_a_secret(before.text, after):
        return refused(
            f"{PLACEHOLDER} stands for a secret that you were not shown; writing it would destroy the secret, so "
            f"nothing was changed. Use edit_file on the other lines of {path}."
        )
    fault = await asyncio.to_thread(syntax.breaks, path, before.text, after)
    if fault is not None and not whole:
        return refused(
            f"This would break the syntax of {path} ({fault}), so nothing was changed: the file is as it was. "
            "Send a change after which the file parses."
        )
    await asyncio.to_thread(bench.door.write_bytes, path, before.with_text(after))
    warning = f" It no longer parses ({fault}): mend it." if fault else ""
    return Observation(f"{said}.{warning}", changed=True)


def _tree(bench: Workbench, path: str) -> tuple[list[str], str]:
    """Return the paths below a folder, and a sentence if they are not all there are.

    Goes down level by level, and stops where the next level would not fit: what is there is then shown by its folders.
    """
    shown: list[str] = []
    level = deque([path])
    while level:
        below: list[str] = []
        found: list[str] = []
        for folder in level:
            entries = bench.door.list(folder)
            for entry in entries:
                name = str(PurePosixPath(folder) / entry.name)
                if entry.name in _OURS:
                    continue
                if entry.kind == "folder":
                    if entry.name in _NOT_LISTED:
                        found.append(f"{name}/ (not listed)")
                    else:
                        below.append(name)
                else:
                    found.append(name + (" (a link)" if entry.kind == "link" else ""))
            if len(shown) + len(found) + len(below) > LISTED_PATHS:
                if level[0] != path:
                    more = " Folders that end with `/` are not gone into; list one of them to see more."
                    return sorted([*shown, *(f"{name}/" for name in level)]), more
                whole = sorted([*found, *(f"{name}/" for name in below)])
                return whole[:LISTED_PATHS], f" The first {LISTED_PATHS} of {len(whole)} entries are shown."
        shown += found
        level = deque(below)
    return sorted(shown), ""
