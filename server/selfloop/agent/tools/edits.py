"""Finds the one place that an edit means. Pure functions over text.

Invariant: an edit is never guessed. It is carried out where `old` stands exactly once, or once but for line endings
or one uniform indentation; otherwise nothing is changed, and the answer shows the real lines that come nearest.
"""

from __future__ import annotations

import heapq

from attrs import frozen

NEAREST_LINES = 60
"""A longer hint would cost more than reading the file again."""
_ANCHORS = 8


@frozen
class Edited:
    """The text after the edit."""

    text: str
    line: int
    """One-based line where it begins."""
    how: str = ""
    """What was forgiven, as a sentence for the model; "" when `old` stood there exactly."""


@frozen
class NotEdited:
    """Why nothing was changed."""

    reason: str
    nearest: str = ""
    """The real text that comes nearest to `old`."""
    line: int = 0
    """One-based line of `nearest`."""


def edit(text: str, old: str, new: str) -> Edited | NotEdited:
    """Replace `old` by `new` in `text`, where there is exactly one place for it."""
    if old == new:
        return NotEdited("`old` and `new` are the same, so nothing was changed.")
    exact = _places(text, old)
    if len(exact) == 1:
        if "\n" in new and "\r" not in new + old and 0 < text.count("\n") == text.count("\r\n"):
            forgiven = "The file's lines end with CRLF; so do the new ones."
            return _replaced(text, exact[0], exact[0] + len(old), to_crlf(new), forgiven)
        return _replaced(text, exact[0], exact[0] + len(old), new)
    if exact:
        return _several([_line_of(text, place) for place in exact])
    if "\r\n" in text and "\r" not in old:
        crlf = old.replace("\n", "\r\n")
        places = _places(text, crlf)
        if len(places) > 1:
            return _several([_line_of(text, place) for place in places])
        if places:
            forgiven = "The file's lines end with CRLF; so do the new ones."
            return _replaced(text, places[0], places[0] + len(crlf), to_crlf(new), forgiven)
    shifted = _shifted(text, old, new)
    if shifted is not None:
        return shifted
    if new.strip() and len(_places(text, new)) >= 1:
        line = _line_of(text, _places(text, new)[0])
        return NotEdited(
            f"`old` is not in the file, but `new` is already there, in line {line}; nothing was changed. "
            "If that is what you meant, go on."
        )
    return _nearest(text, old)


def to_crlf(text: str) -> str:
    """Return the text with CRLF at the end of every line."""
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def _places(text: str, part: str) -> list[int]:
    """Return where `part` stands in `text`, without overlaps."""
    places: list[int] = []
    at = text.find(part) if part else -1
    while at >= 0:
        places.append(at)
        at = text.find(part, at + len(part))
    return places


def _replaced(text: str, start: int, end: int, new: str, how: str = "") -> Edited:
    return Edited(text[:start] + new + text[end:], _line_of(text, start), how)


def _several(lines: list[int]) -> NotEdited:
    shown = ", ".join(str(line) for line in lines[:10]) + (" …" if len(lines) > 10 else "")
    return NotEdited(
        f"`old` stands {len(lines)} times in the file (lines {shown}), so nothing was changed. "
        "Give more of the lines around the one that you mean."
    )


def _line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _shifted(text: str, old: str, new: str) -> Edited | NotEdited | None:
    """Match whole lines that differ from `old` by one indentation, the same on every line; shift `new` with them."""
    if old.endswith("\n"):
        old, new = old[:-1], new.removesuffix("\n")
    wanted = old.split("\n")
    if not any(line.strip() for line in wanted):
        return None
    lines = text.split("\n")
    found: list[tuple[int, str, str]] = []
    for at in range(len(lines) - len(wanted) + 1):
        shift = _shift(lines[at : at + len(wanted)], wanted)
        if shift is not None:
            found.append((at, *shift))
    if not found:
        return None
    if len(found) > 1:
        return _several([at + 1 for at, _, _ in found])
    at, add, remove = found[0]
    crlf = lines[at].endswith("\r")
    replacement: list[str] = []
    body = new.replace("\r\n", "\n")
    for line in body.split("\n") if body else []:
        if not line.strip():
            replacement.append(line.strip(" \t"))
        elif line.startswith(remove):
            replacement.append(add + line[len(remove) :])
        else:
            return None
    if crlf:
        replacement = [line + "\r" for line in replacement]
    lines[at : at + len(wanted)] = replacement
    how = "`old` stands there with another indentation; `new` was indented like it." if add or remove else ""
    return Edited("\n".join(lines), at + 1, how)


def _shift(real: list[str], wanted: list[str]) -> tuple[str, str] | None:
    """Return what to put before each wanted line, and what to take away from it, so that it becomes the real one."""
    shift: tuple[str, str] | None = None
    for have, want in zip(real, wanted, strict=True):
        have, want = have.removesuffix("\r"), want.removesuffix("\r")
        if not have.strip() and not want.strip():
            continue
        if have.endswith(want) and not have[: len(have) - len(want)].strip():
            here = (have[: len(have) - len(want)], "")
        elif want.endswith(have) and not want[: len(want) - len(have)].strip():
            here = ("", want[: len(want) - len(have)])
        else:
            return None
        if shift is not None and here != shift:
            return None
        shift = here
    return shift


def _nearest(text: str, old: str) -> NotEdited:
    """Show the real lines that come nearest to `old`, so that the next call can be right."""
    from rapidfuzz import fuzz

    reason = "`old` is not in the file, so nothing was changed."
    lines = text.split("\n")
    wanted = [line.strip() for line in old.strip("\n").split("\n")]
    anchor = max(range(len(wanted)), key=lambda index: len(wanted[index]))
    if not wanted[anchor] or not text.strip():
        return NotEdited(reason + " Read the file and copy the lines from it.")
    bare = [line.strip() for line in lines]
    close = heapq.nlargest(_ANCHORS, range(len(bare)), key=lambda index: fuzz.ratio(wanted[anchor], bare[index]))
    sought = "\n".join(wanted)
    best, where = 0.0, 0
    for index in close:
        start = max(0, index - anchor)
        likeness = fuzz.ratio(sought, "\n".join(bare[start : start + len(wanted)]))
        if likeness > best:
            best, where = likeness, start
    if best < 50:
        return NotEdited(reason + " Nothing in it comes near; read the file, or search for the place.")
    end = min(len(lines), where + min(len(wanted), NEAREST_LINES))
    return NotEdited(
        f"{reason} The nearest text begins in line {where + 1}; copy from it exactly, and call again.",
        "\n".join(lines[where:end]),
        where + 1,
    )
