"""How whole files reach the disk, and how a failure of the disk is said.

A file is replaced by temporary name and rename: a reader, or a process that starts after a kill, finds the old content
or the new one, never a mixture.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from selfloop.errors import StoreError

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600
TEMPORARY = ".tmp-"


def now() -> str:
    """Return the present time as ISO 8601 in UTC with milliseconds, such as `2026-01-31T09:30:00.250Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stamp() -> str:
    """Return the present time as it stands in the names of files and folders: sortable, without separators."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]


def failure(error: OSError, what: str) -> StoreError:
    """Say an error of the operating system as one plain sentence.

    Args:
        error: what the system answered.
        what: the subject and its failed verb, such as `The record could not be written to /a/b`.
    """
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return StoreError(f"{what} because the disk is full; free some space and try again.")
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return StoreError(f"{what} because it is read-only for this user; make it writable and try again.")
    return StoreError(f"{what} ({error.strerror or error}); nothing else was changed. Mend this and try again.")


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StoreError` that begins with `what`."""
    try:
        yield
    except OSError as error:
        raise failure(error, what) from error


def write_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replace a file's content as one step; its folder must exist.

    Raises:
        OSError: nothing was changed, and no temporary file is left.
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        try:
            write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, or raise `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def printable(text: str) -> str:
    """Return the text without lone surrogates, which no file and no database takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
