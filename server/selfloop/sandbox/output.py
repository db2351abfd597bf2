"""What a command prints: its beginning and end kept for the model, all of it (up to a cap) in a file.

Invariant: memory is bounded however much is printed, and nothing is written unless the output is too long to be shown.
"""

from __future__ import annotations

import codecs
import logging
import os
from pathlib import Path
from typing import BinaryIO

SHOWN_CHARS = 10_000
SPILL_BYTES = 64 << 20
_HELD_BYTES = 4 * SHOWN_CHARS
"""As many bytes as the shown characters can have."""

log = logging.getLogger(__name__)


class Output:
    """Collects bytes as they come."""

    def __init__(self, spill: Path) -> None:
        self.total_bytes = 0
        self.truncated = False
        self.spilled: Path | None = None
        self._spill = spill
        self._held = bytearray()
        self._tail = bytearray()
        self._file: BinaryIO | None = None
        self._written = 0

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self.total_bytes += len(piece)
        if self._file is None and not self.truncated:
            self._held += piece
            if len(self._held) > _HELD_BYTES:
                self._overflow()
            return
        self._store(piece)
        self._tail += piece
        if len(self._tail) > 2 * _HELD_BYTES:
            del self._tail[:-_HELD_BYTES]

    def finish(self) -> str:
        """Close the file and return what is shown: all of it, or its beginning and its end."""
        text = _decode(bytes(self._held))
        if not self.truncated and len(text) <= SHOWN_CHARS:
            return text
        if not self.truncated:
            self._overflow()
        self._close()
        half = SHOWN_CHARS // 2
        head = _decode(bytes(self._held), last=False)[:half]
        tail = _decode(bytes(self._tail[-_HELD_BYTES:]))[-half:]
        left = self.total_bytes - len(head.encode()) - len(tail.encode())
        return f"{head}\n[… {max(left, 0):,} bytes left out here …]\n{tail}"

    def _overflow(self) -> None:
        """Begin the file with what was held so far."""
        self.truncated = True
        self._tail = bytearray(self._held)
        try:
            self._spill.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.fdopen(os.open(self._spill, flags, 0o600), "wb")
            self.spilled = self._spill
        except OSError as error:
            log.warning("output is not kept in full: %s", error)
            return
        self._store(bytes(self._held))

    def _store(self, piece: bytes) -> None:
        if self._file is None or self._written >= SPILL_BYTES:
            return
        kept = piece[: SPILL_BYTES - self._written]
        try:
            self._file.write(kept)
            self._written += len(kept)
        except OSError as error:
            log.warning("output is not kept in full: %s", error)
            self._written = SPILL_BYTES

    def _close(self) -> None:
        if self._file is None:
            return
        try:
            if self.total_bytes > self._written:
                left = self.total_bytes - self._written
                self._file.write(f"\n[… the last {left:,} bytes were not kept …]\n".encode())
            self._file.close()
        except OSError as error:
            log.warning("output is not kept in full: %s", error)
        self._file = None


def _decode(data: bytes, *, last: bool = True) -> str:
    """Decode UTF-8, what is none replaced; a character cut at the end is dropped unless the end is meant."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, last)
