"""Messages out of a stream of bytes, and back: the base protocol of LSP, read with patience and written with care.

Invariant: whatever comes in, the next well-formed frame is found. A frame that is broken (no usable length, a wrong
length, no JSON) costs one `Fault`, then reading goes on at the next line that is a `Content-Length` header. Such a line
ends in a raw line feed, which valid JSON has nowhere inside a string: a document's text cannot forge a frame. The body
of a frame whose length fits is never searched, for the same reason.
"""

from __future__ import annotations

import json
import re

from selfloop.supervisor.jsonrpc import INVALID_REQUEST, PARSE_ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER_BYTES = 8 * 1024
"""The longest block of headers."""

# What nearly every frame looks like, read in one step; anything else goes through `_headers`.
_USUAL = re.compile(
    rb"Content-Length: (\d{1,9})\r\n(?:Selfloop-Window: (\d{1,9})\r\n)?(?:Selfloop-Key: ([\w.-]{1,100})\r\n)?\r\n"
)
_BLANK = re.compile(rb"\r?\n\r?\n")
_FIELD = re.compile(rb"([\w!#$%&'*+.^`|~-]+)[ \t]*:[ \t]*(.*?)[ \t]*")
_KEY = re.compile(rb"[\w.-]{1,100}")
_DIGITS = re.compile(rb"\d{1,9}")
_LENGTH_LINE = re.compile(rb"content-length[ \t]*:[ \t]*\d{1,9}[ \t]*\r?\n", re.IGNORECASE)
_NAME = b"content-length"
_LENGTH_LINE_BYTES = 64
"""No line that `_LENGTH_LINE` should find in two pieces is longer."""


class Message:
    """A frame whose body is JSON."""

    __slots__ = ("body", "key", "value", "window")

    def __init__(self, body: bytes, value: Any, window: int, key: str | None) -> None:
        self.body = body
        """The body as it came."""
        self.value = value
        """What it says; any JSON value."""
        self.window = window
        """The `Selfloop-Window` header, 0 where there is none."""
        self.key = key
        """The `Selfloop-Key` header."""


class Fault:
    """What could not be read, as an error to answer."""

    __slots__ = ("code", "text")

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text


def frame(body: bytes, window: int | None = None, key: str | None = None) -> bytes:
    """Return a body as a frame."""
    head = b"Content-Length: %d\r\n" % len(body)
    if window is not None:
        head += b"Selfloop-Window: %d\r\n" % window
    if key is not None:
        head += b"Selfloop-Key: %s\r\n" % key.encode("ascii")
    return head + b"\r\n" + body


class Framer:
    """Cuts a stream into messages. Memory stays below one frame of the greatest size and one piece read."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._head: tuple[int, int, str | None] | None = None
        """Length, window and key of the frame whose body is awaited; the buffer then begins with that body."""
        self._lost = False
        """Between frames after a fault: looking for a header."""
        self._told = False
        """The garbage that is read now belongs to a fault that was already returned."""

    def feed(self, data: bytes) -> list[Message | Fault]:
        """Take in the next bytes; return what is complete, in order."""
        buffer = self._buffer
        buffer += data
        found: list[Message | Fault] = []
        position = 0
        while True:
            if self._head is None:
                position = self._find_head(position, found)
                if self._head is None:
                    break
            length, window, key = self._head
            end = position + length
            if len(buffer) < end:
                break
            self._head = None
            body = bytes(memoryview(buffer)[position:end])
            value, rest = _parse(body)
            if rest is None:
                found.append(Message(body, value, window, key))
                self._told = False
                position = end
                continue
            found.append(Fault(PARSE_ERROR, "The message is not valid JSON in UTF-8, so it was not carried out."))
            self._told = True
            if (rest and _may_be_header(rest)) or not _may_be_header(bytes(buffer[end : end + 64])):
                self._lost = True  # The length was wrong: the next frame begins inside this body, or further on.
            else:
                position = end
        del buffer[:position]
        return found

    def _find_head(self, position: int, found: list[Message | Fault]) -> int:
        """Read one block of headers from `position` on; return where its body begins, or where to go on later."""
        buffer = self._buffer
        while True:
            if self._lost:
                line = _LENGTH_LINE.search(buffer, position)
                if line is None:
                    return max(position, len(buffer) - _LENGTH_LINE_BYTES)
                position = line.start()
                self._lost = False
            usual = _USUAL.match(buffer, position)
            if usual is not None:
                length, window, key = usual.groups()
                after = usual.end()
                head = (int(length), int(window or 0), key.decode("ascii") if key else None)
            else:
                while position < len(buffer) and buffer[position] in b"\r\n \t":
                    position += 1  # Empty lines between frames harm nobody.
                blank = _BLANK.search(buffer, position, position + HEADER_BYTES)
                if blank is None and len(buffer) - position < HEADER_BYTES:
                    return position
                head, after = None, position + 1
                if blank is not None:
                    block = bytes(buffer[position : blank.start()])
                    head = _headers(block)
                    if head is not None or block[: len(_NAME)].lower() == _NAME:
                        after = blank.end()
                        self._told = False  # It was meant as a header, so it is not the rest of an earlier fault.
            if head is not None and head[0] <= self._limit_bytes:
                self._head = head
                return after
            if not self._told:
                found.append(self._no_frame(head))
                self._told = True
            position = after
            self._lost = True

    def _no_frame(self, head: tuple[int, int, str | None] | None) -> Fault:
        if head is None:
            return Fault(PARSE_ERROR, "What was sent has no usable Content-Length header, so it was skipped.")
        limit = f"{self._limit_bytes >> 20} MiB"
        return Fault(INVALID_REQUEST, f"The message is longer than {limit}, so it was skipped; send less at a time.")


def _headers(block: bytes) -> tuple[int, int, str | None] | None:
    """Return length, window and key of a block of headers; None where there is no single usable length."""
    length: int | None = None
    window, key = 0, None
    for line in block.split(b"\n"):
        field = _FIELD.fullmatch(line.removesuffix(b"\r"))
        if field is None:
            return None
        name, text = field[1].lower(), field[2]
        if name == _NAME:
            if not text.isdigit() or (length is not None and int(text[:18]) != length):
                return None
            length = int(text[:18])  # More digits than these are too many bytes in any case.
        elif name == b"selfloop-window" and _DIGITS.fullmatch(text):
            window = int(text)
        elif name == b"selfloop-key" and _KEY.fullmatch(text):
            key = text.decode("ascii")
    return None if length is None else (length, window, key)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse(body: bytes) -> tuple[Any, bytes | None]:
    """Return a body's value and None; where it is not exactly one JSON value, what stands behind the first one."""
    try:
        text = body.decode()
        start = len(text) - len(text.lstrip(" \t\r\n"))
        value, end = _decoder.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, b""
    rest = text[end:].strip(" \t\r\n")
    return (value, None) if not rest else (None, rest[:64].encode("utf-8", "replace"))


def _may_be_header(data: bytes) -> bool:
    """Tell whether a frame can begin here: with our header's name, or as much of it as has come."""
    start = data.lstrip(b"\r\n \t")[: len(_NAME)].lower()
    return start == _NAME[: len(start)]
