"""Whose `.evo/` this is: the user's own, or one that came with the repository.

A repository that ships its own `.evo/` could bring approved gates, remembered conversations and a database of its
choice. So the folder counts only if it proves that this user's Selfloop made it, for this place: `.evo/owner` holds a
random id and its HMAC, over the workspace's real path, under a secret of the user's data folder. That proof alone could
be brought back by a later `git pull`, so nothing in the folder may be a file that git put there, and no part of it may
be a link. Whatever fails is moved to `.evo.foreign-<time>`; only `loops/` and `prompts/` stay, as untrusted text.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from selfloop.config import Folders
from selfloop.errors import StoreError
from selfloop.storage.disk import PRIVATE_FILE, PRIVATE_FOLDER, saying, stamp, write_file
from selfloop.storage.gitindex import placed_by_git

STATE_FOLDER = ".evo"
SHIPPED = ("loops", "prompts")
"""What a repository may bring; read as untrusted text."""
SECRET_BYTES = 32
GITIGNORE = b"*\n!loops/\n!loops/**\n!prompts/\n!prompts/**\n"


class Owner(msgspec.Struct, frozen=True):
    """The content of `.evo/owner`."""

    id: str
    """Random; the store carries it too, so that another store cannot be put in its place."""
    mac: str


@contextmanager
def claimed(workspace: Path, folders: Folders) -> Iterator[tuple[Path, Owner, list[str]]]:
    """Make sure that `.evo/` is there and is this user's.

    No other process of this user claims anything until the block ends.

    Yields:
        The folder, its owner, and plain sentences about what was set aside.

    Raises:
        StoreError: the workspace is no folder, `.evo` is a link or a file, or it cannot be made; nothing was changed.
    """
    if not workspace.is_dir():
        raise StoreError(f"{workspace} is no folder, so no session can live there; open a folder instead.")
    root = workspace / STATE_FOLDER
    _refuse_what_is_no_folder(root)
    secret, lock = _secret(folders.data)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _claim(workspace, root, secret)
    finally:
        os.close(lock)


def _claim(workspace: Path, root: Path, secret: bytes) -> tuple[Path, Owner, list[str]]:
    with saying(f"The state folder {root} could not be made, so nothing was started in this workspace"):
        root.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        owner = _proven(root, workspace, secret)
        notices = []
        if owner is None:
            notices = _set_aside(root)
        ignore = root / ".gitignore"
        if ignore.is_symlink() or not ignore.is_file() or ignore.read_bytes() != GITIGNORE:
            write_file(ignore, GITIGNORE)
        if owner is None:
            # Written last: a folder without it is claimed anew, so a kill in between leaves nothing half owned.
            identity = secrets.token_hex(16)
            owner = Owner(identity, _mac(secret, workspace, identity))
            write_file(root / "owner", msgspec.json.encode(owner), durable=True)
    return root, owner, notices


def _refuse_what_is_no_folder(root: Path) -> None:
    try:
        mode = root.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{root} could not be looked at ({error.strerror}), so nothing was started.") from error
    kind = "a link" if stat.S_ISLNK(mode) else "no folder"
    if not stat.S_ISDIR(mode):
        raise StoreError(
            f"{root} is {kind}, but Selfloop keeps its state in a folder of that name, so nothing was started or "
            "changed; move it away and open the workspace again."
        )


def _proven(root: Path, workspace: Path, secret: bytes) -> Owner | None:
    """Return the owner if the folder is this user's, and nothing in it came from elsewhere."""
    try:
        owner = msgspec.json.decode((root / "owner").read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not hmac.compare_digest(owner.mac.encode(), _mac(secret, workspace, owner.id).encode()):
        return None
    with os.scandir(root) as entries:
        if any(entry.is_symlink() for entry in entries):
            return None
    if any(path.split("/", 1)[0] not in (*SHIPPED, ".gitignore") for path in placed_by_git(root)):
        return None
    return owner


def _mac(secret: bytes, workspace: Path, identity: str) -> str:
    place = os.fsencode(os.path.realpath(workspace))
    return hmac.new(secret, place + b"\0" + identity.encode(), hashlib.sha256).hexdigest()


def _set_aside(root: Path) -> list[str]:
    """Move everything foreign out of the folder, entry by entry, so that a kill in between is simply gone on from."""
    foreign = [
        entry.name
        for entry in os.scandir(root)
        if not (entry.name in SHIPPED and entry.is_dir(follow_symlinks=False))
        and not (entry.name == ".gitignore" and entry.is_file(follow_symlinks=False))
    ]
    if not foreign:
        return []
    aside = root.with_name(f"{STATE_FOLDER}.foreign-{stamp()}")
    aside.mkdir(mode=PRIVATE_FOLDER)
    for name in foreign:
        (root / name).rename(aside / name)
    # Neither the user's git nor the agent's snapshot shall take it for a part of the project.
    write_file(aside / ".gitignore", b"*\n")
    return [
        f"The folder {STATE_FOLDER} was not made by this user's Selfloop in this place, or git tracks its files. Its "
        f"state was not used and was moved to {aside.name}; only loops and prompts were kept. If git tracks "
        f"{STATE_FOLDER}, end that with `git rm -r --cached {STATE_FOLDER}`."
    ]


def _secret(data: Path) -> tuple[bytes, int]:
    """Return the user's owner secret and a descriptor to lock by; it is made once, also if two want it at once."""
    path = data / "owner.key"
    with saying(f"The user's data folder {data} could not be used, so nothing was started"):
        data.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            key = os.pread(descriptor, SECRET_BYTES, 0)
            if len(key) < SECRET_BYTES:
                # New, or cut off by a kill or a power cut: such a rest must never prove anything.
                key = secrets.token_bytes(SECRET_BYTES)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, key, 0)
                os.fsync(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        except BaseException:
            os.close(descriptor)
            raise
    return key, descriptor
