"""What a change is: a file before and after, and the hunks between, each of which can be decided alone.

Invariant: everything is frozen, and a digest covers a canonical, length-prefixed form, so that no two different
contents can be written alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from attrs import frozen

Mode = int
"""A mode as git has it."""

REGULAR: Mode = 0o100644
EXECUTABLE: Mode = 0o100755
SYMLINK: Mode = 0o120000
BOM = "\ufeff"

HunkKind = Literal["text", "whole", "mode", "rename"]
Operation = Literal["create", "modify", "delete", "rename"]


@frozen
class Hunk:
    """The smallest thing that a user decides about."""

    id: str
    """Stable while the content is: a hash of path, kind, old, new, and the ordinal among equal ones of the file."""
    kind: HunkKind
    """`text`: some lines. `whole`: a create, a delete, or content that is no text. `mode` and `rename` say it."""
    start: int
    end: int
    """Lines [start, end) of the pre-image, zero-based; a `whole` hunk spans them all, `mode` and `rename` none."""
    old: str
    new: str
    """The texts; of a `whole` hunk empty where that side is no text; of `mode` in octal; of `rename` the paths."""
    digest: str
    """The sha256 of what the hunk does, wherever in the file it lies."""


@frozen
class FileChange:
    """One file, before and after."""

    path: str
    """Relative to the workspace, with `/`; the new path of a rename."""
    old_path: str | None
    operation: Operation
    pre: bytes | None
    """None: there was no file."""
    post: bytes | None
    """None: there is no file any more."""
    pre_mode: Mode | None
    post_mode: Mode | None
    hunks: tuple[Hunk, ...]


def decode_text(data: bytes) -> str | None:
    """Return the text of a file, a byte order mark kept as U+FEFF, or None if it is binary or not UTF-8.

    A NUL makes a file binary. What is returned encodes to the same bytes.
    """
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def split_lines(text: str) -> list[str]:
    """Split after each `\\n`, and nowhere else; the lines keep their ends and join to the same text."""
    lines = [line + "\n" for line in text.split("\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def line_ending(text: str) -> str | None:
    """Return the line ending that the whole text keeps to, or None if it has none, several, or a lone CR."""
    feeds, pairs, returns = text.count("\n"), text.count("\r\n"), text.count("\r")
    if feeds and not returns:
        return "\n"
    return "\r\n" if feeds and feeds == pairs == returns else None


def seal(*parts: str | bytes | int | None) -> str:
    """Return the sha256 over the parts in a form that keeps them apart, whatever they hold."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            data, tag = part.encode("utf-8", "surrogatepass"), b"s"
        elif isinstance(part, bytes):
            data, tag = part, b"b"
        elif part is None:
            data, tag = b"", b"n"
        else:
            data, tag = str(part).encode(), b"i"
        state.update(b"%s%d:" % (tag, len(data)))
        state.update(data)
    return state.hexdigest()


def content_digest(changes: Sequence[FileChange]) -> str:
    """Return the sha256 over every path, operation, mode, pre-image and post-image, in the order of the paths."""
    rows = [
        seal(change.path, change.old_path, change.operation, change.pre_mode, change.post_mode, change.pre, change.post)
        for change in sorted(changes, key=lambda change: change.path)
    ]
    return seal("changes", *rows)
