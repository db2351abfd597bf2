"""The form of a chat file: its head, the lines that are the server's, and where the user's next words stand.

    # Chat with Selfloop …                            the head
    <!-- selfloop: session 2026…-1f… -->              which session the file belongs to
    the user's words
    <!-- selfloop: answer turn-… -->
    what the agent says
    <!-- selfloop: writing turn-… 17 -->              the answer's place; 17: the newest update that is written
    or <!-- selfloop: end turn-… -->

Invariant: the user's next words are what stands below the last of these marks, and nothing else is ever sent. No text
of a model contains a mark, because each is broken before it is written. An edit touches marks and nothing besides them,
so it cannot touch the user's text. Pure functions: texts and offsets in, edits out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

OPENING = "<!-- selfloop:"
_NEW = "<!-- selfloop: new chat -->"
_MARK = re.compile(
    r"<!-- selfloop: (?:new chat|(?P<kind>session|answer|end) (?P<id>[\w.-]{1,200})|writing [\w.-]{1,200} \d{1,15}) -->"
)
_LINE_END = re.compile(r"\r\n|\n|\r")

HEAD = f"""# Chat with Selfloop

> Write below, then send it: by the code action or code lens *Send to Selfloop*, or by the command `selfloop.chat.send`.
> The answer comes right below what you sent. You may go on writing meanwhile, and send that too.
> Only what stands below the last line of the form `{OPENING} …` is sent; leave those lines as they are.

{_NEW}

"""


@frozen
class Edit:
    """The characters [start, end) of a text become `new`."""

    start: int
    end: int
    new: str


@frozen
class Words:
    """What the user wrote and did not send: the characters [start, end) of the text, without white space around."""

    start: int
    end: int
    text: str


def waiting(text: str) -> Words | None:
    """Return what stands below the last mark; None when that is nothing but white space."""
    begin = _below(text)
    rest = text[begin:]
    words = rest.strip()
    if not words:
        return None
    start = begin + len(rest) - len(rest.lstrip())
    return Words(start, start + len(words), words)


def chosen(text: str, start: int, end: int) -> Words | None:
    """Return the words of a selection; None when it is not wholly below the last mark, or empty."""
    part = text[start:end]
    words = part.strip()
    if start < _below(text) or not words:
        return None
    start += len(part) - len(part.lstrip())
    return Words(start, start + len(words), words)


def session_of(text: str) -> str | None:
    """Return the id of the session that the file names; None when it names none."""
    return next((mark["id"] for mark in _MARK.finditer(text) if mark["kind"] == "session"), None)


def bind(text: str, session_id: str) -> Edit | None:
    """Return the edit that binds the file to a session; None when it is bound to it already."""
    line = f"<!-- selfloop: session {session_id} -->"
    marks = list(_MARK.finditer(text))
    for mark in marks:
        if mark["kind"] == "session":
            return None if mark["id"] == session_id else Edit(mark.start(), mark.end(), line)
    fresh = next((mark for mark in marks if mark[0] == _NEW), None)
    if fresh is not None:
        return Edit(fresh.start(), fresh.end(), line)
    return Edit(0, 0, line + 2 * _break(text))


def place(text: str, turn_id: str, words: str, seq: int) -> Edit:
    """Return the edit that makes a place for an answer right behind the words that were sent.

    What was typed behind them meanwhile comes to stand below the place. Words that cannot be found any more, because
    they were edited at once, end where the text ends.
    """
    begin, line = _below(text), _break(text)
    found = text.find(words, begin)
    at = found + len(words) if found >= 0 else max(begin, len(text.rstrip()))
    return Edit(at, at, f"{line}{line}<!-- selfloop: answer {turn_id} -->{line}{_writing(turn_id, seq)}{line}")


def position(text: str, turn_id: str) -> tuple[int, int] | None:
    """Return the offset of an answer's place, and the newest `seq` that is written; None when there is no place."""
    mark = _writing_mark(text, turn_id)
    return None if mark is None else (mark.start(), int(mark[1]))


def ended(text: str, turn_id: str) -> bool:
    """Tell whether the answer stands there to its end."""
    return _end(turn_id) in text


def grow(text: str, turn_id: str, more: str, seq: int, *, last: bool) -> Edit | None:
    """Return the edit that writes more of an answer before its place; None when there is no place.

    Args:
        text: the file's text as it is now.
        turn_id: whose answer.
        more: what comes next, with its marks broken (`tame`), line feeds as line ends.
        seq: the newest update that is written with it.
        last: the answer ends with it.
    """
    mark = _writing_mark(text, turn_id)
    if mark is None:
        return None
    line = _break(text)
    start = mark.start()
    for end in ("\r\n", "\n", "\r"):
        if text.endswith(end, 0, start):
            start -= len(end)  # The answer's last line may be written on, so its line end comes after what is new.
            break
    closing = f"{line}{_end(turn_id)}" if last else _writing(turn_id, seq)
    return Edit(start, mark.end(), f"{more.replace(chr(10), line)}{line}{closing}")


def apply(text: str, edits: Sequence[Edit]) -> str:
    """Return the text after edits that do not overlap."""
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        text = text[: edit.start] + edit.new + text[edit.end :]
    return text


def tame(text: str) -> str:
    """Return a text with whatever could be taken for a mark broken; Markdown shows it as it was."""
    return text.replace(OPENING, "<\\!-- selfloop:")


def offset_of(text: str, line: int, character: int) -> int:
    """Return the offset of an LSP position (UTF-16); a place beyond a line or the text means its end."""
    start = 0
    for _ in range(line):
        found = _LINE_END.search(text, start)
        if found is None:
            return len(text)
        start = found.end()
    found = _LINE_END.search(text, start)
    content = text[start : found.start() if found else len(text)]
    before = content.encode("utf-16-le", "surrogatepass")[: 2 * character]
    return start + len(before.decode("utf-16-le", "ignore"))


def position_of(text: str, offset: int) -> tuple[int, int]:
    """Return the LSP position (line, UTF-16 unit) of an offset."""
    line, start = 0, 0
    for found in _LINE_END.finditer(text, 0, offset):
        line, start = line + 1, found.end()
    return line, len(text[start:offset].encode("utf-16-le", "surrogatepass")) // 2


def _below(text: str) -> int:
    last = 0
    for mark in _MARK.finditer(text):
        last = mark.end()
    return last


def _break(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _writing(turn_id: str, seq: int) -> str:
    return f"<!-- selfloop: writing {turn_id} {seq} -->"


def _end(turn_id: str) -> str:
    return f"<!-- selfloop: end {turn_id} -->"


def _writing_mark(text: str, turn_id: str) -> re.Match[str] | None:
    return re.search(rf"<!-- selfloop: writing {re.escape(turn_id)} (\d{{1,15}}) -->", text)
