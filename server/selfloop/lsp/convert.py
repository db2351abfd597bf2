"""Between what LSP says and what the agent knows: URIs and paths, UTF-16 positions, snapshots and edits. No state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote_to_bytes, urlsplit

from selfloop.updates import Position, Range


def path_of_uri(uri: str) -> Path | None:
    """Return the local path of a `file:` URI; None for every other scheme or host."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    path = os.fsdecode(unquote_to_bytes(parts.path))
    if os.name == "nt" and path.startswith("/"):
        path = path[1:]
    return Path(path) if path else None


def uri_of_path(path: Path | str) -> str:
    """Return the `file:` URI of an absolute path, encoded as VS Code does it."""
    text = os.fspath(path).replace("\\", "/") if os.name == "nt" else os.fspath(path)
    return "file://" + ("" if text.startswith("/") else "/") + quote(os.fsencode(text), safe="/-._~")


def relative(root: Path, path: Path) -> str | None:
    """Return a path below a root as POSIX text, without resolving links; None when it is not below it."""
    try:
        inside = PurePosixPath(path.relative_to(root).as_posix())
    except ValueError:
        return None
    return None if inside.parts == () or ".." in inside.parts else inside.as_posix()


def utf16_length(text: str) -> int:
    """Return the number of UTF-16 code units of a text."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def line_range(lines: Sequence[str], start: int, end: int, *, has_returns: bool = True) -> Range:
    """Return the LSP range of whole lines [start, end) of a text split at line feeds, ends kept.

    The end of a file without a final line feed is the end of its last line, since there is no line after it. LSP breaks
    lines at lone carriage returns too; those before a line are counted. Without `has_returns` the text is known to have
    no carriage return at all, and none is looked for.
    """
    return Range(start=_line_start(lines, start, has_returns), end=_line_start(lines, end, has_returns))


def _line_start(lines: Sequence[str], line: int, has_returns: bool) -> Position:
    breaks = line + (sum(_lone_returns(one) for one in lines[:line]) if has_returns else 0)
    if line < len(lines) or not lines or lines[-1].endswith("\n"):
        return Position(line=breaks, character=0)
    return Position(line=breaks - 1, character=utf16_length(lines[-1].rpartition("\r")[2]))


def _lone_returns(line: str) -> int:
    return line.count("\r") - line.endswith("\r\n") if "\r" in line else 0
