"""Reads files as git would store them: their raw bytes and their mode, never through a link."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from selfloop.sandbox.beneath import O_PATH, open_beneath

_MOST_FILES = 1000
_MOST_BYTES = 32 << 20


class TooMuch(Exception):
    """Raised when there is more to read than is worth reading here; git does it file by file."""


def read_files(top: Path, names: Iterable[bytes]) -> dict[bytes, tuple[bytes, int] | None]:
    """Return content and git mode of each file; a link's content is its target. None: there is no such file.

    Raises:
        TooMuch: there are many, or they are large.
    """
    found: dict[bytes, tuple[bytes, int] | None] = {}
    total = 0
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            found[name] = entry = _read(root, os.fsdecode(name), _MOST_BYTES - total)
            total += len(entry[0]) if entry else 0
            if len(found) > _MOST_FILES:
                raise TooMuch
    finally:
        os.close(root)
    return found


def _read(root: int, name: str, limit: int) -> tuple[bytes, int] | None:
    try:
        descriptor = open_beneath(root, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, links=False)
    except OSError:
        return _read_link(root, name)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_size > limit:
            raise TooMuch
        data = read_all(descriptor, limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise TooMuch
    return data, 0o100755 if status.st_mode & 0o100 else 0o100644


def read_all(descriptor: int, limit: int | None = None) -> bytes:
    """Return what can be read of a descriptor, at most `limit` bytes."""
    pieces: list[bytes] = []
    left = sys.maxsize if limit is None else limit
    while left > 0 and (piece := os.read(descriptor, min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _read_link(root: int, name: str) -> tuple[bytes, int] | None:
    folder, _, last = name.rpartition("/")
    try:
        above = open_beneath(root, folder or ".", O_PATH | os.O_DIRECTORY, links=False)
    except OSError:
        return None  # It is gone, or a folder above it has become a link.
    try:
        return os.fsencode(os.readlink(last, dir_fd=above)), 0o120000
    except OSError:
        return None
    finally:
        os.close(above)
