"""A file as text that a model can read and write: one door in, one door out, bytes kept.

Invariant: what is not changed stays byte for byte. The byte order mark is not shown and not counted, and comes back
when the file is written; a file that is not UTF-8 is never written as text.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from attrs import frozen

from selfloop.agent.tools.edits import to_crlf
from selfloop.errors import PathRefused

if TYPE_CHECKING:
    from selfloop.sandbox.paths import Door

LARGEST_BYTES = 64 * 1024 * 1024
"""As large as the longest output that is kept for reading by range."""
EDITABLE_BYTES = 8 * 1024 * 1024


@frozen
class TextFile:
    """A file's text, and what its bytes need besides."""

    text: str
    bom: bool = False

    @property
    def crlf(self) -> bool:
        """Whether every line ends with CRLF."""
        breaks = self.text.count("\n")
        return breaks > 0 and self.text.count("\r\n") == breaks

    def with_text(self, text: str) -> bytes:
        """Return the bytes of this file with another text.

        Raises:
            PathRefused: the text holds half a surrogate pair, which no file can.
        """
        try:
            return (codecs.BOM_UTF8 if self.bom else b"") + text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PathRefused(
                "The new text holds half of a surrogate pair, which is no character, so nothing was written; "
                "send the whole character."
            ) from error

    def like(self, text: str) -> str:
        """Return a new text with this file's line endings."""
        return to_crlf(text) if self.crlf and "\r" not in text else text


def read_text(door: Door, path: str, limit: int = LARGEST_BYTES) -> TextFile:
    """Read a file through the door.

    Raises:
        PathRefused: it is not reachable, too large, binary, or not UTF-8; the sentence says which.
    """
    there = door.stat(path)
    data = door.read_bytes(path, limit=limit + 1) if there.size <= limit or there.kind != "file" else None
    if data is None or len(data) > limit:
        raise PathRefused(
            f"{path} has more than {limit // 1024 // 1024} MiB, so it was not opened as text; "
            "use `search`, or `shell` with head, sed or cut."
        )
    if b"\0" in data:
        raise PathRefused(f"{path} is a binary file of {len(data)} bytes, so it was not opened as text.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PathRefused(
            f"{path} is not UTF-8 (byte {error.start}), so it was not opened as text; use `shell` with iconv."
        ) from error
    return TextFile(text.removeprefix("\ufeff"), text.startswith("\ufeff"))
