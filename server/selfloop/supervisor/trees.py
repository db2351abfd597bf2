"""The git tree hash of a folder, computed without git and in slices, so that others are served in between."""

from __future__ import annotations

import os

from selfloop.supervisor.contract import VERIFY_SLICE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


def hash_tree(
    folder: str, prefix: str, blobs: dict[str, str], skip: Sequence[str] = ()
) -> Generator[None, None, str | None]:
    """Return (as a generator does) the git tree hash of a folder's content; note every file's hash by its path."""
    import hashlib

    entries: list[tuple[bytes, bytes, bytes]] = []
    read = 0
    for item in sorted(os.scandir(folder), key=lambda item: item.name):
        if item.name in skip:
            continue
        path = f"{prefix}/{item.name}" if prefix else item.name
        raw = os.fsencode(item.name)
        if item.is_symlink():
            raise OSError(0, f"{path} is a link", path)
        if item.is_dir():
            digest = yield from hash_tree(item.path, path, blobs, skip)
            if digest is not None:
                entries.append((raw + b"/", b"40000 " + raw, bytes.fromhex(digest)))
            continue
        with open(item.path, "rb") as file:
            data = file.read()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
        blobs[path] = blob.hexdigest()
        mode = b"100755 " if item.stat().st_mode & 0o100 else b"100644 "
        entries.append((raw, mode + raw, blob.digest()))
        read += len(data)
        if read > VERIFY_SLICE_BYTES:
            read = 0
            yield
    if not entries:
        return None  # Git knows no empty folders.
    yield
    content = b"".join(entry + b"\0" + digest for _, entry, digest in sorted(entries))
    return hashlib.sha1(b"tree %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
