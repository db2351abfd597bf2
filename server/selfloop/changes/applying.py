"""What a file becomes when some hunks are applied to it as it is now, and how that is taken back.

Invariant: the lines outside the chosen hunks come out byte for byte as they went in.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from selfloop.changes.carrying import Clash, Placed, carry
from selfloop.changes.diffing import file_change
from selfloop.changes.values import FileChange, Mode, decode_text, split_lines
from selfloop.errors import Stale


@frozen
class FileResult:
    """A file after the chosen hunks."""

    path: str
    content: bytes | None
    """None: there is no file any more."""
    mode: Mode | None
    removed: str | None = None
    """The path that it left, if it was renamed."""


def apply_hunks(
    change: FileChange,
    hunk_ids: Collection[str],
    current: bytes | None,
    current_mode: Mode | None = None,
    *,
    applied: Collection[str] = (),
) -> FileResult:
    """Return the file with the chosen hunks in it; ids that the change does not have are left out of account.

    `current` and `applied` are those of `carry`. A text that came without the byte order mark of the pre-image goes
    back without it.

    Raises:
        Stale: a chosen hunk no longer fits; the message says why.
    """
    places = carry(change, current, current_mode, applied=applied)
    chosen: list[Placed] = []
    for hunk in change.hunks:
        place = places[hunk.id]
        if hunk.id not in hunk_ids:
            continue
        if isinstance(place, Clash):
            raise Stale(f"{place.reason} Hunk {hunk.id} was not applied; look at the gate again and decide anew.")
        if not place.already:
            chosen.append(place)
    is_renamed = any(hunk.kind == "rename" and (hunk.id in applied or hunk.id in hunk_ids) for hunk in change.hunks)
    path = change.path if is_renamed or change.old_path is None else change.old_path
    content, mode, removed = current, current_mode if current_mode is not None else change.pre_mode, None
    edits = [place for place in chosen if place.hunk.kind == "text"]
    for place in chosen:
        if place.hunk.kind == "whole":
            content, mode = change.post, change.post_mode
        elif place.hunk.kind == "mode":
            mode = change.post_mode
        elif place.hunk.kind == "rename":
            removed = change.old_path
    if edits:
        content = _edited(current or b"", edits)
    return FileResult(path, content, mode if content is not None else None, removed)


def reverse(change: FileChange) -> FileChange | None:
    """Return the change that takes this one back."""
    return file_change(
        change.old_path or change.path,
        pre=change.post,
        post=change.pre,
        pre_mode=change.post_mode,
        post_mode=change.pre_mode,
        old_path=change.path if change.old_path is not None else None,
    )


def _edited(current: bytes, edits: list[Placed]) -> bytes:
    lines = split_lines(decode_text(current) or "")
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        lines[edit.start : edit.end] = [edit.new] if edit.new else []
    return "".join(lines).encode("utf-8")
