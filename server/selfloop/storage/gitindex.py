"""Which files below a folder git put there, read from git's own index without running git.

Only storage asks this, to learn whether a `.evo/` came with a repository; running git is the sandbox's alone. The index
is another's data: every length is checked, and what cannot be read places nothing. Format: gitformat-index(5).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

INDEX_BYTES = 1 << 28
"""No index that is larger is read; it would hold two million files."""


@frozen
class Entry:
    """A tracked file as the index has it."""

    path: bytes
    mtime_ns: int
    size: int
    blob: bytes


def placed_by_git(folder: Path) -> list[str]:
    """Return the tracked files below `folder`, relative to it, that lie there as git wrote them.

    A tracked file that was rewritten since then is not among them.
    """
    real = Path(os.path.realpath(folder))
    for top in real.parents:
        if (top / ".git").exists():
            prefix = os.fsencode(real.relative_to(top).as_posix()) + b"/"
            return [
                os.fsdecode(entry.path[len(prefix) :])
                for index in _indexes(top / ".git")
                for entry in _entries(*index, prefix)
                if _unchanged(top, entry)
            ]
    return []


def _indexes(git: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the bytes of each index file and the length of its object names."""
    if git.is_file():
        # A worktree or a submodule: `gitdir: <path>`.
        match = re.fullmatch(rb"gitdir: ([^\r\n\0]+)\s*", _read(git, 4096))
        if match is None:
            return
        git = git.parent / os.fsdecode(match[1])
    common = _read(git / "commondir", 4096).strip()
    config = _read((git / os.fsdecode(common) if common else git) / "config", 1 << 20)
    name_bytes = 32 if re.search(rb"objectformat\s*=\s*sha256", config, re.IGNORECASE) else 20
    for path in (git / "index", *sorted(git.glob("sharedindex.*"))):
        yield _read(path, INDEX_BYTES), name_bytes


def _entries(data: bytes, name_bytes: int, prefix: bytes) -> Iterator[Entry]:
    """Yield the entries whose path begins with `prefix`, whatever its case."""
    wanted = prefix.lower()
    if len(data) < 12 or data[:4] != b"DIRC":
        return
    version, count = struct.unpack_from(">II", data, 4)
    # Version 4 shortens the names, so only in the older ones can the name itself be looked for.
    if version not in (2, 3, 4) or (version < 4 and wanted not in data.lower()):
        return
    at, name = 12, b""
    flags_at = 40 + name_bytes
    for _ in range(count):
        if at + flags_at + 2 > len(data):
            return
        seconds, nanoseconds = struct.unpack_from(">II", data, at + 8)
        (size,) = struct.unpack_from(">I", data, at + 36)
        blob = data[at + 40 : at + flags_at]
        (flags,) = struct.unpack_from(">H", data, at + flags_at)
        start = at + flags_at + (4 if flags & 0x4000 else 2)
        strip = 0
        if version == 4:
            strip, start = _varint(data, start)
        end = data.find(b"\0", start)
        if end < 0 or strip > len(name):
            return
        name = name[: len(name) - strip] + data[start:end] if version == 4 else data[start:end]
        at = end + 1 if version == 4 else at + ((end - at) // 8 + 1) * 8
        if name.lower().startswith(wanted):
            yield Entry(name, seconds * 1_000_000_000 + nanoseconds, size, blob)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read an offset-encoded number; return it and where it ends."""
    value = 0
    for place in range(at, min(at + 5, len(data))):
        value = (value << 7) | (data[place] & 0x7F)
        if not data[place] & 0x80:
            return value, place + 1
        value += 1
    return 1 << 62, len(data)


def _unchanged(top: Path, entry: Entry) -> bool:
    """Tell whether the file on disk is the one that git wrote: by its stat data, or by its content."""
    path = top / os.fsdecode(entry.path)
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        elif not stat.S_ISREG(status.st_mode):
            return False
        elif status.st_mtime_ns == entry.mtime_ns and status.st_size & 0xFFFFFFFF == entry.size:
            # Filters and line endings can make a file differ from its blob, but git noted what it wrote.
            return True
        else:
            content = path.read_bytes()
    except OSError:
        return False
    digest = hashlib.sha1(usedforsecurity=False) if len(entry.blob) == 20 else hashlib.sha256()
    digest.update(b"blob %d\0" % len(content) + content)
    return digest.digest() == entry.blob


def _read(path: Path, limit: int) -> bytes:
    """Return a regular file's content; nothing where it is none, is larger than `limit`, or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return b""
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        return file.read() if stat.S_ISREG(status.st_mode) and status.st_size <= limit else b""
