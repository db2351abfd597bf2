"""Writes many objects as one pack with its index (gitformat-pack(5)): two files instead of hundreds.

Invariant: a pack is renamed to its name before its index is, and git looks for the index, so it never sees half of one.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

_KINDS = {"commit": 1, "tree": 2, "blob": 3}


class Batch:
    """Objects that are to be stored together."""

    def __init__(self, object_format: str) -> None:
        self.objects: dict[str, tuple[str, bytes]] = {}
        self._format = object_format

    def add(self, data: bytes, kind: str = "blob") -> str:
        """Take an object in, and return its id."""
        state = hashlib.new(self._format, f"{kind} {len(data)}\0".encode(), usedforsecurity=False)
        state.update(data)
        name = state.hexdigest()
        self.objects.setdefault(name, (kind, data))
        return name


def write_pack(folder: Path, objects: Mapping[str, tuple[str, bytes]], object_format: str) -> None:
    """Write objects (kind and content by id) as a pack into a `pack` folder."""
    if not objects:
        return
    pieces = [struct.pack(">4sII", b"PACK", 2, len(objects))]
    offset = 12
    entries: list[tuple[bytes, int, int]] = []
    for name, (kind, data) in objects.items():
        record = _header(_KINDS[kind], len(data)) + zlib.compress(data, 1)
        entries.append((bytes.fromhex(name), zlib.crc32(record), offset))
        pieces.append(record)
        offset += len(record)
    pack = b"".join(pieces)
    checksum = hashlib.new(object_format, pack, usedforsecurity=False).digest()
    entries.sort()
    index = _index(entries, checksum, object_format)
    stem = (
        f"pack-{hashlib.new(object_format, b''.join(entry[0] for entry in entries), usedforsecurity=False).hexdigest()}"
    )
    _place(folder, f"{stem}.pack", (pack, checksum))
    _place(folder, f"{stem}.idx", (index,))


def _header(kind: int, size: int) -> bytes:
    byte = kind << 4 | size & 0x0F
    size >>= 4
    header = bytearray()
    while size:
        header.append(byte | 0x80)
        byte = size & 0x7F
        size >>= 7
    header.append(byte)
    return bytes(header)


def _index(entries: list[tuple[bytes, int, int]], checksum: bytes, object_format: str) -> bytes:
    """Return the index, version 2, of sorted entries: id, checksum of the record, offset."""
    counts = [0] * 256
    for name, _, _ in entries:
        counts[name[0]] += 1
    total = 0
    fanout: list[int] = []
    for count in counts:
        total += count
        fanout.append(total)
    large = [offset for _, _, offset in entries if offset >= 1 << 31]
    offsets: list[int] = []
    for _, _, offset in entries:
        offsets.append(offset if offset < 1 << 31 else 1 << 31 | large.index(offset))
    number = len(entries)
    data = b"".join(
        (
            b"\xfftOc\0\0\0\2",
            struct.pack(">256I", *fanout),
            *(name for name, _, _ in entries),
            struct.pack(f">{number}I", *(crc for _, crc, _ in entries)),
            struct.pack(f">{number}I", *offsets),
            struct.pack(f">{len(large)}Q", *large),
            checksum,
        )
    )
    return data + hashlib.new(object_format, data, usedforsecurity=False).digest()


def _place(folder: Path, name: str, pieces: Iterable[bytes]) -> None:
    target = folder / name
    temporary = folder / f"tmp_{name}.{os.urandom(4).hex()}"
    try:
        with temporary.open("xb") as file:
            file.writelines(pieces)
        temporary.chmod(0o444)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
