"""An append-only file of lines, one JSON value each: what trajectories and journals are made of.

Invariant: the file is a row of whole lines up to its last newline. What stands behind it is the torn tail of a writer
that was killed; it was never acknowledged, and it is cut off before the next append, which would otherwise grow onto it
and destroy itself. A record is one `write`, its length is checked, and a short one is taken back.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from selfloop.errors import StoreError
from selfloop.storage.disk import PRIVATE_FILE, PRIVATE_FOLDER, failure, saying, sync_folder

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20


class AppendLog:
    """A log that is open for appending. One process at a time appends to it; any number may read."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.repaired: str | None = None
        """A plain sentence if a torn tail was found."""
        self._descriptor = descriptor
        self._end = -1
        self._named = False

    @classmethod
    def open(cls, path: Path) -> AppendLog:
        """Open or create the file and its folder, and repair a torn tail.

        Raises:
            StoreError: it cannot be opened, or something that is not a regular file has its name.
        """
        with saying(f"The record {path} could not be opened"):
            path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            opened = cls(path, os.open(path, flags, PRIVATE_FILE))
            try:
                if not stat.S_ISREG(os.fstat(opened._descriptor).st_mode):
                    raise StoreError(f"{path} is no regular file, so nothing was recorded there; move it away.")
                opened.end()
            except BaseException:
                opened.close()
                raise
        return opened

    def end(self) -> int:
        """Return where the next line will begin; a torn tail is cut off first."""
        size = os.fstat(self._descriptor).st_size
        if size != self._end:
            self._end = self._repair(size)
        return self._end

    def append(self, line: bytes, *, durable: bool = False) -> int:
        """Append one line, given with its newline, and return where it begins.

        Args:
            durable: also wait until it would survive a power cut.

        Raises:
            StoreError: nothing was appended (the disk is full, the file cannot be written).
        """
        try:
            start = self.end()
            written = os.write(self._descriptor, line)
            if written != len(line):
                # The rest would not fit either: writing it again is how the reason is learned.
                os.write(self._descriptor, line[written:])
                raise OSError(f"only {written} of {len(line)} bytes were taken")
            if durable:
                os.fsync(self._descriptor)
                if not self._named:
                    sync_folder(self.path.parent)
                    self._named = True
        except OSError as error:
            if self._end >= 0:
                # If even this fails, the next append finds a size it does not expect and repairs the tail itself.
                with suppress(OSError):
                    os.ftruncate(self._descriptor, self._end)
            raise failure(error, f"A record could not be written to {self.path}") from error
        self._end = start + written
        return start

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes of a range."""
        with saying(f"The record {self.path} could not be read"):
            return os.pread(self._descriptor, end - start, start)

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        """Read on from `start` to the end, block by block."""
        while start < self._end:
            block = self.read(start, min(start + BLOCK_BYTES, self._end))
            if not block:
                return
            yield block
            start += len(block)

    def close(self) -> None:
        """Close the file. Closing twice is no error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _repair(self, size: int) -> int:
        """Bring the file to whole lines, and return its size."""
        kept, tail = size, b""
        while kept > 0:
            step = min(BLOCK_BYTES, kept)
            block = os.pread(self._descriptor, step, kept - step)
            newline = block.rfind(b"\n")
            tail = block[newline + 1 :] + tail
            kept -= len(block) - newline - 1
            if newline >= 0 or not block:
                break
        if not tail:
            return size
        if _whole(tail):
            # Only the newline is missing. The record was not acknowledged, but nothing of it is lost either.
            os.write(self._descriptor, b"\n")
            self.repaired = f"The last line of {self.path.name} lacked its end after a crash; it was completed."
            size += 1
        else:
            os.ftruncate(self._descriptor, kept)
            self.repaired = (
                f"The last line of {self.path.name} was torn by a crash: {len(tail)} bytes that were never confirmed "
                "were cut off, everything before them is kept."
            )
            size = kept
        log.warning("%s: %s", self.path, self.repaired)
        return size


def encode_line(value: Any, encoder: msgspec.json.Encoder) -> bytes:
    """Encode a value as one line of JSON, newline included."""
    try:
        return encoder.encode(value) + b"\n"
    except (UnicodeEncodeError, OverflowError):
        # A model can send half a surrogate pair or a number of any length; neither may lose the record.
        import json

        plain = msgspec.to_builtins(value)
        return json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _whole(tail: bytes) -> bool:
    try:
        msgspec.json.decode(tail)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
