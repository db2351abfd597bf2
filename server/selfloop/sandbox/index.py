"""git's index file, read and written as data (gitformat-index(5)).

Why not by git: the user's index is to give us what it knows of files and their hashes, and nothing else of it may count
(assume-unchanged, skip-worktree, intent-to-add, merge stages, submodules, monitors, split or sparse forms).

Invariant: an entry is kept only if it can be trusted to name the raw bytes on the disk whenever its stat data fit.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from attrs import frozen

_ASSUME_VALID = 0x8000
_EXTENDED = 0x4000
_STAGE = 0x3000
_NAME_LENGTH = 0x0FFF
_PLAIN_MODES = (0o100644, 0o100755, 0o120000)
GITLINK = 0o160000


class UnreadableIndex(ValueError):
    """Raised when an index file has a form that is not understood, or is torn."""


class IndexEntry(NamedTuple):
    """One entry. A plain tuple, because fifty thousand of them are made at once."""

    path: bytes
    stat: bytes
    """The forty bytes of stat data, as they stand in the file."""
    mode: int
    size: int
    """The file's size when it was hashed, modulo 2**32."""
    object_id: bytes
    plain: bool
    """Whether no flag says that the entry stands for anything but the file as it is."""


@frozen
class IndexFile:
    """A whole index."""

    entries: list[IndexEntry]
    trees: bytes = b""
    """The cache of folders' trees, as it stands in the file; good only as long as no entry is left out."""


def read_index(data: bytes, hash_bytes: int = 20) -> IndexFile:
    """Read an index.

    Raises:
        UnreadableIndex: it is torn, of an unknown version, or split or sparse (its entries are elsewhere).
    """
    try:
        return _read(data, hash_bytes)
    except (struct.error, IndexError, ValueError) as error:
        raise UnreadableIndex(str(error)) from error


def write_index(index: IndexFile, hash_name: str = "sha1") -> bytes:
    """Return an index of version 2; its entries must be in order."""
    pieces: list[bytes] = []
    for entry in index.entries:
        length = len(entry.path)
        head = entry.stat + entry.object_id + struct.pack(">H", min(length, _NAME_LENGTH)) + entry.path
        pieces.append(head + b"\0" * (8 - len(head) % 8))
    data = struct.pack(">4sII", b"DIRC", 2, len(pieces)) + b"".join(pieces)
    if index.trees:
        data += struct.pack(">4sI", b"TREE", len(index.trees)) + index.trees
    return data + hashlib.new(hash_name, data, usedforsecurity=False).digest()


def trustworthy(
    entries: Iterable[IndexEntry], sizes: Callable[[list[IndexEntry]], list[int | None]]
) -> list[IndexEntry]:
    """Return the entries whose stat data can be trusted to speak of the raw bytes.

    A conversion at check-in (line ends, `$Id$`, LFS) leaves a blob of another size than the file had, so an entry is
    dropped where the two differ, and where the blob is not there at all (None).
    """
    plain = [entry for entry in entries if entry.plain and entry.mode in _PLAIN_MODES]
    return [entry for entry, size in zip(plain, sizes(plain), strict=True) if size is not None and size == entry.size]


def _read(data: bytes, hash_bytes: int) -> IndexFile:
    signature, version, count = struct.unpack_from(">4sII", data)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise UnreadableIndex("no index of version 2, 3 or 4")
    unpack = struct.Struct(f">24xI8xI{hash_bytes}sH").unpack_from
    fixed = 40 + hash_bytes + 2
    entries: list[IndexEntry] = []
    offset, path = 12, b""
    for _ in range(count):
        mode, size, object_id, flags = unpack(data, offset)
        start = offset + fixed
        plain = not flags & (_ASSUME_VALID | _STAGE)
        if flags & _EXTENDED:
            plain = plain and struct.unpack_from(">H", data, start)[0] == 0
            start += 2
        if version == 4:
            strip, start = _varint(data, start)
            end = data.index(0, start)
            path = path[: len(path) - strip] + data[start:end]
            after = end + 1
        else:
            length = flags & _NAME_LENGTH
            end = data.index(0, start + length) if length == _NAME_LENGTH else start + length
            path = data[start:end]
            after = offset + ((end - offset) // 8 + 1) * 8
        entries.append(IndexEntry(path, data[offset : offset + 40], mode, size, object_id, plain))
        offset = after
    last = len(data) - hash_bytes
    trees = b""
    while offset + 8 <= last:
        name, length = struct.unpack_from(">4sI", data, offset)
        if name in (b"link", b"sdir"):
            raise UnreadableIndex("a split or sparse index")
        if name == b"TREE":
            trees = data[offset + 8 : offset + 8 + length]
        offset += 8 + length
    if offset != last:
        raise UnreadableIndex("a torn index")
    return IndexFile(entries, trees)


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read a number in the variable width encoding of pack files' offset deltas."""
    byte = data[offset]
    value = byte & 0x7F
    while byte & 0x80:
        offset += 1
        byte = data[offset]
        value = ((value + 1) << 7) | (byte & 0x7F)
    return value, offset + 1
