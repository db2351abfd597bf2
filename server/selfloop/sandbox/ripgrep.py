"""Searches the worktree with ripgrep: our own command line, outside the jail, over a folder that the door has opened.

Invariant: ripgrep is started *in* the folder that the door opened, by its descriptor, and follows no link; so what a
running command does to the path meanwhile cannot lead it out. A file is handed to it as its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import IO

from attrs import frozen

from selfloop.errors import SandboxError
from selfloop.sandbox import children
from selfloop.sandbox.beneath import open_beneath
from selfloop.sandbox.git import find_program
from selfloop.sandbox.paths import Door

MOST_BYTES = 1 << 20
_FLAGS = (
    "--no-config", "--line-number", "--no-heading", "--color=never", "--max-columns=300", "--max-columns-preview",
    "--max-filesize=8M", "--hidden", "--glob=!.git", "--glob=!.selfloop-*", "--no-require-git", "--no-ignore-dot",
    "--no-ignore-exclude", "--no-ignore-global", "--no-ignore-parent", "--sort=path",
)  # fmt: skip


@frozen
class Found:
    """What a search came to."""

    lines: tuple[str, ...]
    """`path:line:text` each, sorted by path."""
    cut: bool
    """There was more than `MOST_BYTES`."""
    invalid: str = ""
    """Why the pattern is no regular expression; then nothing was searched."""


def has_ripgrep() -> bool:
    """Tell whether ripgrep is installed."""
    return find_program("rg") is not None


async def search(door: Door, pattern: str, path: str, *, literal: bool, timeout_seconds: float = 30.0) -> Found:
    """Search a file or a folder below the door.

    Args:
        door: what the path is relative to.
        pattern: a regular expression of ripgrep's kind, or any text if `literal`.
        path: a file or a folder.
        literal: whether the pattern is plain text.
        timeout_seconds: after which the search is ended.

    Raises:
        PathRefused: the path leads nowhere, or out.
        SandboxError: it took too long, or ripgrep failed.
    """
    kind, descriptor = await asyncio.to_thread(_opened, door, path)
    arguments = [*_FLAGS, *(["--fixed-strings"] if literal else []), f"--regexp={pattern}"]
    try:
        if kind == "folder":
            arguments += ["--with-filename", "--", "."]
            found = await _run(arguments, _folder(descriptor), None, timeout_seconds)
            prefix = "" if path in ("", ".") else path.rstrip("/") + "/"
        else:
            arguments += ["--no-filename", "--", "-"]
            found = await _run(arguments, None, descriptor, timeout_seconds)
            prefix = f"{path}:"
    finally:
        os.close(descriptor)
    return Found(tuple(prefix + line.removeprefix("./") for line in found.lines), found.cut, found.invalid)


def _opened(door: Door, path: str) -> tuple[str, int]:
    """Open a file or a folder through the door; the caller closes it."""
    kind = door.stat(path).kind
    flags = os.O_RDONLY | (os.O_DIRECTORY if kind == "folder" else os.O_NONBLOCK)
    with door._root(path, empty=True) as (root, name):
        return kind, open_beneath(root, name or ".", flags)


def _folder(descriptor: int) -> str:
    """Return the opened folder as something that a child can be started in."""
    if sys.platform.startswith("linux"):
        return f"/proc/self/fd/{descriptor}"
    import fcntl

    # F_GETPATH of macOS: the name may be moved meanwhile, but it is the one that the door has checked.
    return os.fsdecode(fcntl.fcntl(descriptor, getattr(fcntl, "F_GETPATH", 50), bytes(1024)).rstrip(b"\0"))


async def _run(
    arguments: list[str], folder: str | None, source: int | IO[bytes] | None, timeout_seconds: float
) -> Found:
    program = find_program("rg")
    if program is None:
        raise SandboxError("ripgrep (rg) was not found on the PATH, so nothing was searched; install it.")
    process = await children.start(
        program,
        *arguments,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL if source is None else source,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
    )
    assert process.stdout is not None and process.stderr is not None  # noqa: S101  Both are pipes.
    try:
        async with asyncio.timeout(timeout_seconds):
            # Its messages are short, but a pipe that nobody reads would stop it.
            complaint, output = await asyncio.gather(_read(process.stderr, 1 << 16), _read(process.stdout, MOST_BYTES))
            cut = len(output) >= MOST_BYTES
            code = 0 if cut else await process.wait()
    except TimeoutError as error:
        raise SandboxError(
            f"The search took more than {timeout_seconds:.0f} seconds and was ended; search a smaller folder."
        ) from error
    finally:
        await children.end(process)
    said = complaint.decode("utf-8", "replace").strip()
    if code == 2 and not output:
        if "regex" in said or "pattern" in said:
            return Found((), False, invalid=said.splitlines()[-1] if said else "it does not parse")
        raise SandboxError(f"The search failed ({said.splitlines()[0] if said else 'ripgrep gave no reason'}).")
    lines = output.decode("utf-8", "replace").split("\n")
    # The last piece is empty, or a line that the cap has torn.
    return Found(tuple(lines[:-1]), cut)


async def _read(stream: asyncio.StreamReader, most: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while size < most and (piece := await stream.read(1 << 16)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)[:most]
