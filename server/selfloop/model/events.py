"""The body of an answer, byte for byte → decoded chunks. Server-sent events as servers really send them.

Why not litellm's or the SDK's own decoder: both lose or invent what we must see. A stream that was cut looks to them
like one that ended, a doubled or missing id is repaired by guessing, a plain JSON answer or a web page is an exception
without its text, and each chunk costs twenty times as much.

Accepted beyond the standard: `data:` lines without the empty line between events, lines that end in \\r, \\n or both,
comments, a byte order mark, one JSON document instead of a stream, and JSON lines without `data:`. A character that is
split over two reads is never torn, since only whole lines are decoded.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from selfloop.errors import ProviderError

MAX_LINE_BYTES = 32 * 1024 * 1024
"""No chunk is anywhere near this; a server that never ends its line must not fill the memory."""


class EventDecoder:
    """Feed it bytes as they come; it returns the chunks that are whole."""

    def __init__(self) -> None:
        self.done = False
        """`[DONE]` was seen."""
        self.text = bytearray()
        """The start of a body that is no stream at all: what to show the user of it."""
        self._tail: list[bytes] = []
        self._tail_bytes = 0
        self._pending = b""
        self._failed = False
        self._kind = ""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the chunks that these bytes complete.

        Raises:
            ProviderError: an event is no JSON, or a line has no end.
        """
        if not self._kind:
            data = self._sniff(data)
        if self._kind != "events" or (b"\n" not in data and b"\r" not in data):
            self._keep(data)
            return []
        lines = (b"".join(self._tail) + data).splitlines(keepends=True)
        self._tail, self._tail_bytes = [], 0
        # A final \r may be the first half of \r\n, so it waits for the next read.
        if not lines[-1].endswith(b"\n"):
            self._keep(lines.pop())
        chunks: list[dict[str, Any]] = []
        for line in lines:
            self._line(line.rstrip(b"\r\n"), chunks)
        return chunks

    def close(self) -> list[dict[str, Any]]:
        """Return what the end of the body completes: a last line without its newline, or a whole JSON document."""
        rest = b"".join(self._tail)
        self._tail, self._tail_bytes = [], 0
        chunks: list[dict[str, Any]] = []
        if self._kind == "events":
            # A line that the connection's end has torn is not an event: the caller sees that the end is missing.
            for line in rest.splitlines():
                self._line(line, chunks, torn=True)
        elif self._kind == "json":
            value = _decode(rest)
            values = [_decode(line) for line in rest.splitlines()] if value is _NOT_JSON else [value]
            chunks = [value for value in values if isinstance(value, dict)]
            # A whole document is a whole answer, whatever it says about its end.
            self.done = value is not _NOT_JSON and any(chunk.get("choices") for chunk in chunks)
        if self._kind != "events":
            self.text += rest[:2_000]
        return chunks

    def _sniff(self, data: bytes) -> bytes:
        """Tell from the first visible byte what the body is."""
        data = b"".join(self._tail) + data
        self._tail, self._tail_bytes = [], 0
        start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
        if start:
            self._kind = "json" if start[:1] in b"{[" else "markup" if start[:1] == b"<" else "events"
            return start
        return data

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_bytes += len(data)
        if self._tail_bytes > MAX_LINE_BYTES:
            raise ProviderError(
                "The model's endpoint sent a line without end, so its answer was given up; try again, or choose "
                "another endpoint.",
                kind="stream",
            )

    def _line(self, line: bytes, chunks: list[dict[str, Any]], *, torn: bool = False) -> None:
        if self.done:
            return
        if not line:
            if self._pending:
                raise _garbage(self._pending)
            self._failed = False
        elif line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                self.done = True
            elif data:
                self._data(data, chunks, torn=torn)
        elif line.startswith(b"event:"):
            self._failed = line[6:].strip() == b"error"
        elif line.startswith(b"{"):
            self._data(line, chunks, torn=torn)
        elif not line.startswith((b":", b"id:", b"retry:")) and len(self.text) < 2_000:
            self.text += line + b"\n"

    def _data(self, data: bytes, chunks: list[dict[str, Any]], *, torn: bool) -> None:
        # One JSON value may be spread over several data lines; it is taken as soon as it is whole, because some
        # servers send no empty line after it.
        whole = self._pending + b"\n" + data if self._pending else data
        value = _decode(whole)
        if value is _NOT_JSON:
            self._pending = b"" if torn else whole
            if len(whole) > MAX_LINE_BYTES:
                raise _garbage(whole)
            return
        self._pending = b""
        if isinstance(value, dict):
            chunks.append({"error": value} if self._failed and "error" not in value else value)


_NOT_JSON: Final = object()


def _decode(data: bytes) -> Any:
    """Return the decoded value, or `_NOT_JSON`."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    # The fast decoder refuses half of a surrogate pair and bytes that are not UTF-8; both are seen in the wild, where
    # a server splits its answer between two halves of one character.
    try:
        return json.loads(data.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return _NOT_JSON


def _garbage(data: bytes) -> ProviderError:
    start = " ".join(data[:120].decode("utf-8", errors="replace").split())
    return ProviderError(
        f"The model's endpoint sent an event that is no JSON ({start!r}), so its answer was given up; try again, or "
        "choose another endpoint.",
        kind="stream",
    )
