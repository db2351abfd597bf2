"""The open documents of one window, kept up to date so that a new worker can be told of them.

Positions are LSP's: zero-based lines, UTF-16 code units. A line ends with LF, CRLF or CR and with nothing else
(LSP 3.17, "Text Documents"): U+2028 and its kin are characters like others.

Invariant: a change takes effect whole or, when it is malformed, not at all; nothing here ever raises on what a client
sends.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Position = tuple[int, int]

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)")
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)


class Documents:
    """The journal of a window's `textDocument/didOpen`, `didChange` and `didClose`."""

    def __init__(self) -> None:
        self._open: dict[str, Document] = {}

    def __contains__(self, uri: object) -> bool:
        return isinstance(uri, str) and uri in self._open

    def opened(self, params: Any) -> None:
        """Note a `textDocument/didOpen`."""
        try:
            item = params["textDocument"]
            self._open[_string(item["uri"])] = Document(item, _string(item["text"]))
        except _MALFORMED:
            return

    def changed(self, params: Any) -> str | None:
        """Note a `textDocument/didChange`; return the document's URI, None where nothing could be changed."""
        try:
            identifier = params["textDocument"]
            uri = identifier["uri"]
            document = self._open[uri]
            changes = [(_edit(change), _string(change["text"])) for change in params["contentChanges"]]
        except _MALFORMED:
            return None
        for edit, text in changes:
            if edit is None:
                document.replace(text)
            else:
                document.change(*edit, text)
        document.item["version"] = identifier.get("version")
        return uri

    def closed(self, params: Any) -> None:
        """Note a `textDocument/didClose`."""
        try:
            self._open.pop(params["textDocument"]["uri"], None)
        except _MALFORMED:
            return

    def items(self) -> Iterator[dict[str, Any]]:
        """Return every open document as a `TextDocumentItem`, with its text as it is now, oldest first."""
        for document in self._open.values():
            yield {**document.item, "text": document.text}

    def versions(self) -> dict[str, Any]:
        """Return the version of every open document, by URI."""
        return {uri: document.item["version"] for uri, document in self._open.items()}

    def whole(self, uri: str) -> dict[str, Any]:
        """Return the params of one `textDocument/didChange` that brings a document to its present text."""
        document = self._open[uri]
        return {
            "textDocument": {"uri": uri, "version": document.item["version"]},
            "contentChanges": [{"text": document.text}],
        }


class Document:
    """One text. It is cut into lines only once a change needs them, and joined only once somebody reads it."""

    __slots__ = ("_lines", "_text", "item")

    def __init__(self, item: dict[str, Any], text: str) -> None:
        self.item = {key: value for key, value in item.items() if key != "text"}
        """The `TextDocumentItem` without its text."""
        self.item.setdefault("version", 0)
        self._text: str | None = text
        self._lines: list[str] | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        if self._text is None:
            self._text = "".join(self._lines or ())
        return self._text

    def replace(self, text: str) -> None:
        """Take another text."""
        self._text, self._lines = text, None

    def change(self, start: Position, end: Position, text: str) -> None:
        """Put `text` where `start` to `end` is. Positions beyond a line or the text mean its end."""
        if self._lines is None:
            self._lines = _split(self.text)
        self._text = None
        lines = self._lines
        if end < start:
            start, end = end, start
        (first, head), (last, tail) = (_clip(lines, position) for position in (start, end))
        piece = lines[first][:head] + text + lines[last][tail:]
        if first and piece.startswith("\n") and lines[first - 1].endswith("\r"):
            first -= 1  # The two characters are one line end from now on.
            piece = lines[first] + piece
        cut = _split(piece)
        if last < len(lines) - 1:
            cut.pop()  # The piece ends with the end of its last line, so what is behind that is empty.
        lines[first : last + 1] = cut


def _split(text: str) -> list[str]:
    """Return the lines with their ends; the last one has none and may be empty."""
    if "\r" not in text:
        lines = text.split("\n")
        return [*(line + "\n" for line in lines[:-1]), lines[-1]]
    lines = _LINE.findall(text)
    return [*lines, text[sum(map(len, lines)) :]]


def _clip(lines: list[str], position: Position) -> Position:
    """Return a position as line and index into that line's string."""
    line, character = position
    if line >= len(lines):
        return len(lines) - 1, len(lines[-1])
    text = lines[line].rstrip("\r\n")
    if not text.isascii():
        units = text.encode("utf-16-le", "surrogatepass")[: 2 * character]
        return line, len(units.decode("utf-16-le", "surrogatepass"))
    return line, min(character, len(text))


def _edit(change: dict[str, Any]) -> tuple[Position, Position] | None:
    """Return what range a content change replaces; None means the whole text."""
    bounds = change.get("range")
    return None if bounds is None else (_position(bounds["start"]), _position(bounds["end"]))


def _position(value: dict[str, Any]) -> Position:
    line, character = value["line"], value["character"]
    if type(line) is not int or type(character) is not int or line < 0 or character < 0:
        raise ValueError("not a position")
    return line, character


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value
