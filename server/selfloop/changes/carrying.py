"""Where the hunks of a change lie in a text that the user has typed on.

The user's edits are the blocks between the pre-image and the text as it is now. A hunk whose lines no block touches is
placed, shifted by the blocks above it; otherwise it clashes. Nothing is placed by likeness: where equal lines leave two
readings of what the user did, and the hunk's place hangs on which one is meant, it clashes.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate

from attrs import evolve, frozen

from selfloop.changes.diffing import Block, changed_blocks
from selfloop.changes.values import BOM, SYMLINK, FileChange, Hunk, Mode, decode_text, line_ending, split_lines


@frozen
class Placed:
    """A hunk in the current text."""

    hunk: Hunk
    start: int
    end: int
    """Lines [start, end) of the current text: those that the hunk replaces, or where its new text already stands."""
    new: str
    """What stands there afterwards: the hunk's new text, in the line endings of the current text."""
    already: bool = False
    """The new text is there, by the user's hand or by an approval; to apply the hunk changes nothing."""


@frozen
class Clash:
    """A hunk that no longer fits the current text."""

    hunk: Hunk
    reason: str
    """One plain sentence."""


@frozen
class _Piece:
    """A text hunk, in the base that the current text is compared with."""

    hunk: Hunk
    start: int
    end: int
    new: str
    applied: bool


def carry(
    change: FileChange,
    current: bytes | None,
    current_mode: Mode | None = None,
    *,
    applied: Collection[str] = (),
) -> dict[str, Placed | Clash]:
    """Tell for each hunk where it lies in the file as it is now, or why it fits no longer.

    Args:
        change: the change as it was proposed.
        current: the file now, at the path where it now is; None: there is none.
        current_mode: its mode; None where that is not known, and then taken to be the one before.
        applied: ids of the hunks that were applied since: their new text is expected, and they come back as `already`.

    A byte order mark that the current text lacks (editors hide it) and line endings that were changed throughout are
    not taken for edits.
    """
    answer: dict[str, Placed | Clash] = {}
    pieces: list[Hunk] = []
    for hunk in change.hunks:
        if hunk.kind == "whole":
            answer[hunk.id] = _carry_whole(change, hunk, current, current_mode, hunk.id in applied)
        elif hunk.kind == "mode":
            answer[hunk.id] = _carry_mode(hunk, current, current_mode, hunk.id in applied)
        elif hunk.kind == "rename":
            gone = current is None
            reason = f"{hunk.old} no longer exists, so it cannot be renamed."
            answer[hunk.id] = Clash(hunk, reason) if gone else Placed(hunk, 0, 0, hunk.new, hunk.id in applied)
        else:
            pieces.append(hunk)
    if pieces:
        text = None if current is None else decode_text(current)
        if text is None or current_mode == SYMLINK:
            lost = "no longer exists" if current is None else "is no longer a text file"
            answer.update({hunk.id: Clash(hunk, f"{change.path} {lost}.") for hunk in pieces})
        else:
            answer.update(_carry_text(change, pieces, text, applied))
    return {hunk.id: answer[hunk.id] for hunk in change.hunks}


def taken_back(
    change: FileChange, current: bytes | None, current_mode: Mode | None = None, *, applied: Collection[str]
) -> set[str]:
    """Return which of the applied hunks are no longer in the file, with what they had replaced in their place again.

    A hunk whose lines were edited into something else is not among them.
    """
    expected = carry(change, current, current_mode, applied=applied)
    gone = {hunk_id for hunk_id in applied if isinstance(expected.get(hunk_id), Clash)}
    if not gone:
        return gone
    places = carry(change, current, current_mode, applied=set(applied) - gone)
    return {hunk_id for hunk_id in gone if isinstance(place := places[hunk_id], Placed) and not place.already}


def _carry_whole(
    change: FileChange, hunk: Hunk, current: bytes | None, mode: Mode | None, applied: bool
) -> Placed | Clash:
    text = decode_text(current) if current is not None else None
    end = len(split_lines(text)) if text else 0
    if _same(current, change.post) and mode in (None, change.post_mode):
        return Placed(hunk, 0, end, hunk.new, already=True)
    if not applied and _same(current, change.pre) and mode in (None, change.pre_mode):
        return Placed(hunk, 0, end, hunk.new)
    if current is None:
        return Clash(hunk, f"{change.path} no longer exists.")
    if change.pre is None:
        return Clash(hunk, f"There is a file {change.path} by now, with other content.")
    return Clash(hunk, f"{change.path} has changed since this was proposed.")


def _carry_mode(hunk: Hunk, current: bytes | None, mode: Mode | None, applied: bool) -> Placed | Clash:
    if current is None:
        return Clash(hunk, "The file no longer exists.")
    now = f"{mode:o}" if mode is not None else (hunk.new if applied else hunk.old)
    if now == hunk.new:
        return Placed(hunk, 0, 0, hunk.new, already=True)
    if now == hunk.old and not applied:
        return Placed(hunk, 0, 0, hunk.new)
    return Clash(hunk, f"The file's mode is {now} by now.")


def _same(one: bytes | None, other: bytes | None) -> bool:
    """Tell whether two contents are equal but for a hidden byte order mark and uniform line endings."""
    if one is None or other is None or one == other:
        return one is other or one == other
    text, wanted = decode_text(one), decode_text(other)
    if text is None or wanted is None:
        return False
    ending = line_ending(text)
    if ending is not None:
        wanted = _in_endings(wanted, ending)
    return text.removeprefix(BOM) == wanted.removeprefix(BOM)


def _carry_text(
    change: FileChange, hunks: Sequence[Hunk], text: str, applied: Collection[str]
) -> dict[str, Placed | Clash]:
    pre = split_lines(decode_text(change.pre or b"") or "")
    # An editor hides the byte order mark; what is placed then comes without it as well.
    hidden = (change.pre or b"").startswith(BOM.encode()) and not text.startswith(BOM)
    marked = BOM + text if hidden else text
    current = split_lines(marked)
    ending = line_ending(text)
    base, pieces = _base(pre, hunks, applied, None)
    expected = "".join(base)
    if ending is not None and ("\n" in expected or "\r" in expected) and line_ending(expected) != ending:
        base, pieces = _base(pre, hunks, applied, ending)
    edits = changed_blocks(base, current)
    starts, ends = [edit.old_start for edit in edits], [edit.old_end for edit in edits]
    shifts = [0, *accumulate(_growth([edit]) for edit in edits)]
    answer: dict[str, Placed | Clash] = {}
    for piece in pieces:
        # Of the edits only the neighbours matter, and of the rest how many lines they brought.
        first = max(0, bisect_left(ends, piece.start) - 1)
        near = edits[first : bisect_right(starts, piece.end) + 1]
        place = _place(piece, base, current, near, shifts[first], change.path)
        if marked != text and isinstance(place, Placed):
            count = len(current) if text else 0
            place = evolve(place, end=min(place.end, count), new=place.new.removeprefix(BOM))
        answer[piece.hunk.id] = place
    return answer


def _base(
    pre: list[str], hunks: Sequence[Hunk], applied: Collection[str], ending: str | None
) -> tuple[list[str], list[_Piece]]:
    """Return the pre-image with the applied hunks in it, each line in `ending` if one is given, and where hunks lie."""

    def lines_of(text: str) -> list[str]:
        return split_lines(text if ending is None else _in_endings(text, ending))

    base: list[str] = []
    pieces, done = [], 0
    for hunk in hunks:
        base.extend(lines_of("".join(pre[done : hunk.start])))
        is_applied = hunk.id in applied
        own = lines_of(hunk.new if is_applied else hunk.old)
        new = hunk.new if ending is None else _in_endings(hunk.new, ending)
        pieces.append(_Piece(hunk, len(base), len(base) + len(own), new, is_applied))
        base.extend(own)
        done = hunk.end
    base.extend(lines_of("".join(pre[done:])))
    return base, pieces


def _in_endings(text: str, ending: str) -> str:
    return re.sub(r"\r\n|\r|\n", lambda _: ending, text)


def _place(
    piece: _Piece, base: list[str], current: list[str], edits: list[Block], shift: int, path: str
) -> Placed | Clash:
    start, end = piece.start, piece.end
    around = [edit for edit in edits if _touches(edit, start, end)] or _crossing(start, end, edits, base, current)
    if around:
        # What the user typed may be this very hunk, alone or within a larger edit.
        low, high = min(start, around[0].old_start), max(end, around[-1].old_end)
        above = shift + _growth(edits[: edits.index(around[0])])
        wanted = split_lines("".join([*base[low:start], piece.new, *base[end:high]]))
        if not piece.applied and current[low + above : high + above + _growth(around)] == wanted:
            return Placed(
                piece.hunk, start + above, start + above + len(split_lines(piece.new)), piece.new, already=True
            )
        return Clash(piece.hunk, f"The lines that it changes in {path} have been edited since.")
    shift += _growth(edit for edit in edits if edit.old_end <= start)
    placed = Placed(piece.hunk, start + shift, end + shift, piece.new, already=piece.applied)
    if piece.applied:
        return placed
    if "".join(base[start:end]) == piece.new:  # Equal only by the line endings that both have taken on.
        if piece.new == piece.hunk.new:
            return evolve(placed, already=True)
        return Clash(piece.hunk, f"It only changes line endings, and those of {path} have changed by now.")
    above_is_open = placed.start > 0 and not current[placed.start - 1].endswith("\n")
    would_swallow = not piece.new.endswith("\n") and placed.end < len(current)
    if piece.new and (above_is_open or would_swallow):
        return Clash(piece.hunk, f"The end of {path}, where it belongs, has been edited since.")
    return placed


def _growth(edits: Iterable[Block]) -> int:
    return sum((edit.new_end - edit.new_start) - (edit.old_end - edit.old_start) for edit in edits)


def _touches(edit: Block, start: int, end: int) -> bool:
    """Tell whether a user's edit leaves a hunk at [start, end) of the base no place of its own.

    Edits right above or below a hunk that replaces lines leave those lines alone. A hunk that only inserts lies between
    two lines: an edit that adds lines at that very place leaves open which come first.
    """
    if start < end:
        return edit.old_start < end and edit.old_end > start
    if edit.old_start < start < edit.old_end:
        return True
    return edit.old_start <= start <= edit.old_end and _growth([edit]) > 0


def _crossing(start: int, end: int, edits: list[Block], base: list[str], current: list[str]) -> list[Block]:
    """Return the edits next to [start, end) that could as well, by equal lines, be read as lying in it or beyond.

    Lines added to (or taken from) a run of equal ones can be any of them. Such an edit is slid towards the hunk as far
    as the text stays the same.
    """
    above = next((edit for edit in reversed(edits) if edit.old_end <= start), None)
    below = next((edit for edit in edits if edit.old_start >= end and edit is not above), None)
    crossing = []
    for edit, step in ((above, 1), (below, -1)):
        if edit is None or (edit.old_start < edit.old_end and edit.new_start < edit.new_end):
            continue
        is_added = edit.old_start == edit.old_end
        lines = current if is_added else base
        first, last = (edit.new_start, edit.new_end) if is_added else (edit.old_start, edit.old_end)
        room = start - edit.old_end if step == 1 else edit.old_start - end
        # Lines added right where a hunk inserts already touch it; all else must pass the hunk's edge.
        needed = room if is_added and start == end else room + 1
        ahead, behind = (first, last) if step == 1 else (last - 1, first - 1)
        if all(
            0 <= min(ahead, behind) + step * k
            and max(ahead, behind) + step * k < len(lines)
            and lines[ahead + step * k] == lines[behind + step * k]
            for k in range(needed)
        ):
            crossing.append(edit)
    return crossing
