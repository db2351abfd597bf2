"""Changes of files as values: their hunks, where those lie in a text that has moved on, and what applying them gives.

Invariant: pure functions over bytes and text. Nothing here reads a file, runs git or knows an editor. Lines end at
`\\n` and nowhere else, so that CRLF, lone CR, U+2028 and a missing last newline come out exactly as they went in.
"""

from __future__ import annotations

from selfloop.changes.applying import FileResult, apply_hunks, reverse
from selfloop.changes.carrying import Clash, Placed, carry, taken_back
from selfloop.changes.diffing import file_change
from selfloop.changes.rendering import DiffLine, diff_lines, hidden_characters, unified_diff, visible
from selfloop.changes.values import (
    BOM,
    EXECUTABLE,
    REGULAR,
    SYMLINK,
    FileChange,
    Hunk,
    HunkKind,
    Mode,
    Operation,
    content_digest,
    decode_text,
    line_ending,
    seal,
    split_lines,
)

__all__ = [
    "BOM",
    "EXECUTABLE",
    "REGULAR",
    "SYMLINK",
    "Clash",
    "DiffLine",
    "FileChange",
    "FileResult",
    "Hunk",
    "HunkKind",
    "Mode",
    "Operation",
    "Placed",
    "apply_hunks",
    "carry",
    "content_digest",
    "decode_text",
    "diff_lines",
    "file_change",
    "hidden_characters",
    "line_ending",
    "reverse",
    "seal",
    "split_lines",
    "taken_back",
    "unified_diff",
    "visible",
]
