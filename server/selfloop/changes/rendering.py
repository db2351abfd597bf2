"""A change as text to read: git's diff format, with every character that could deceive the eye written out.

Invariant: what is shown is all there is. Control, bidi, zero-width and other invisible characters appear by their code
point, so each line of a diff is one line in any editor.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import sha256

from attrs import frozen

from selfloop.changes.values import FileChange, decode_text, split_lines

_CONTEXT = 3

_INVISIBLE = re.compile(
    # Controls but tab and line feed; separators that look like line ends; format characters of every block; fillers
    # that show as nothing; variation selectors and tags, which can carry a hidden text.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


@frozen
class DiffLine:
    """One line of a diff."""

    text: str
    """Without a line ending."""
    hunk_id: str | None
    """The hunk that it belongs to: of added and removed lines, and of the header of a hunk that has no lines."""


@frozen
class Edit:
    """Lines [start, end) of a text become `new`, by the hunk of this id."""

    start: int
    end: int
    new: str
    hunk_id: str


def visible(text: str) -> str:
    """Return the text with each character that cannot be seen, but tab and line feed, written like ‹U+202E›."""
    return _INVISIBLE.sub(lambda match: f"‹U+{ord(match.group()):04X}›", text)


def hidden_characters(text: str) -> list[str]:
    """Return the names of the invisible characters in a text, each once; CRLF and a leading mark are fine."""
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found = dict.fromkeys(_INVISIBLE.findall(plain))
    return [unicodedata.name(character, f"U+{ord(character):04X}") for character in found]


def unified_diff(change: FileChange) -> str:
    """Return the change in git's diff format."""
    return "".join(line.text + "\n" for line in diff_lines(change))


def diff_lines(change: FileChange) -> list[DiffLine]:
    """Return the lines of the change's diff, each with the hunk that it comes from."""
    lines = _header(change)
    whole = next((hunk for hunk in change.hunks if hunk.kind == "whole"), None)
    edits = [Edit(hunk.start, hunk.end, hunk.new, hunk.id) for hunk in change.hunks if hunk.kind == "text"]
    old = "" if change.pre is None else decode_text(change.pre)
    new = "" if change.post is None else decode_text(change.post)
    if whole is not None and old is not None and new is not None:
        edits = [Edit(0, len(split_lines(old)), new, whole.id)] if old or new else []
    elif whole is not None:
        about = f"Binary file: {_size(change.pre)} becomes {_size(change.post)}"
        return [*lines, DiffLine(about, whole.id)]
    if not edits:
        return lines
    name_a = "/dev/null" if change.pre is None else f"a/{visible(change.old_path or change.path)}"
    name_b = "/dev/null" if change.post is None else f"b/{visible(change.path)}"
    lines += [DiffLine(f"--- {name_a}", None), DiffLine(f"+++ {name_b}", None)]
    uniform = all(text.count("\r") == text.count("\r\n") == text.count("\n") for text in (old or "", new or "") if text)
    return lines + _body(split_lines(old or ""), edits, show_returns=not uniform)


def _header(change: FileChange) -> list[DiffLine]:
    mode = next((hunk.id for hunk in change.hunks if hunk.kind == "mode"), None)
    rename = next((hunk.id for hunk in change.hunks if hunk.kind == "rename"), None)
    whole = next((hunk.id for hunk in change.hunks if hunk.kind == "whole"), None)
    path, old_path = visible(change.path), visible(change.old_path or change.path)
    lines = [DiffLine(f"diff --git a/{old_path} b/{path}", None)]
    if change.operation == "create":
        lines.append(DiffLine(f"new file mode {change.post_mode or 0o100644:o}", whole))
    elif change.operation == "delete":
        lines.append(DiffLine(f"deleted file mode {change.pre_mode or 0o100644:o}", whole))
    elif change.pre_mode is not None and change.post_mode is not None and change.pre_mode != change.post_mode:
        owner = mode or whole
        lines += [
            DiffLine(f"old mode {change.pre_mode:o}", owner),
            DiffLine(f"new mode {change.post_mode:o}", owner),
        ]
    if change.old_path is not None:
        lines += [DiffLine(f"rename from {old_path}", rename), DiffLine(f"rename to {path}", rename)]
    return lines


def _body(old: Sequence[str], edits: Sequence[Edit], *, show_returns: bool) -> list[DiffLine]:
    """Return the `@@` groups: edits whose contexts meet share one."""
    groups: list[list[Edit]] = []
    for edit in edits:
        if groups and edit.start - groups[-1][-1].end <= 2 * _CONTEXT:
            groups[-1].append(edit)
        else:
            groups.append([edit])
    lines: list[DiffLine] = []
    shift = 0
    for group in groups:
        low, high = max(0, group[0].start - _CONTEXT), min(len(old), group[-1].end + _CONTEXT)
        body: list[DiffLine] = []
        at = low
        for edit in group:
            body += _marked(" ", old[at : edit.start], None, show_returns)
            body += _marked("-", old[edit.start : edit.end], edit.hunk_id, show_returns)
            body += _marked("+", split_lines(edit.new), edit.hunk_id, show_returns)
            at = edit.end
        body += _marked(" ", old[at:high], None, show_returns)
        growth = sum(len(split_lines(edit.new)) - (edit.end - edit.start) for edit in group)
        before, after = high - low, high - low + growth
        first = group[0].hunk_id if len(group) == 1 else None
        lines.append(DiffLine(f"@@ -{_span(low, before)} +{_span(low + shift, after)} @@", first))
        lines += body
        shift += growth
    return lines


def _span(start: int, length: int) -> str:
    return f"{start + 1 if length else start},{length}"


def _marked(mark: str, lines: Sequence[str], hunk_id: str | None, show_returns: bool) -> list[DiffLine]:
    marked = []
    for line in lines:
        text = line.removesuffix("\n")
        if not show_returns:
            text = text.removesuffix("\r")
        marked.append(DiffLine(mark + visible(text), hunk_id))
        if not line.endswith("\n"):
            marked.append(DiffLine("\\ No newline at end of file", hunk_id))
    return marked


def _size(data: bytes | None) -> str:
    return "nothing" if data is None else f"{len(data):,} bytes (sha256 {sha256(data).hexdigest()[:12]})"
