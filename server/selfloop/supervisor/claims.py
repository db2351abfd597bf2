"""Who serves a workspace: one lock and one socket for each folder, in the user's data folder.

    <data>/run/<key>.lock    held by the supervisor that serves the folder, and by its worker
    <data>/run/<key>.sock    where other windows of the same user reach it

Invariant: a socket's file is made and removed only under its lock, so a file that is there without a holder is stale.
Only the same user gets through: the folder is 0700, and on Linux the peer's uid is asked for.
"""

from __future__ import annotations

import os
import re
import sys

# `fcntl`, `hashlib`, `socket` and `struct` are imported where they are used: the editor's first answer needs none.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

SOCKET_PATH_BYTES = 103
"""The longest path of a socket everywhere (unix(7): 107 bytes and a zero; macOS: 103)."""


def data_folder() -> str:
    """Return the user's data folder: the same as `config.Folders.of_user().data`, without its imports."""
    home = os.environ.get("SELFLOOP_HOME")
    if home:
        return os.path.join(os.path.abspath(os.path.expanduser(home)), "data")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support/selfloop")
    base = os.environ.get("XDG_DATA_HOME", "").strip() or os.path.expanduser("~/.local/share")
    return os.path.join(base, "selfloop")


def workspace_key(folder: str) -> str:
    """Return the short stable name of a folder, as `config.workspace_key` does."""
    import hashlib

    return hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]


def uri_path(uri: str) -> str | None:
    """Return the path of a `file:` URI, None for any other."""
    match = re.fullmatch(r"file:(?://(?:localhost)?(?=/)|(?!//))(/[^?#]*)(?:[?#].*)?", uri, re.IGNORECASE | re.DOTALL)
    if match is None:
        return None
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda code: bytes([int(code[1], 16)]), match[1].encode("utf-8", "replace"))
    return None if b"\0" in raw else os.fsdecode(raw)


class Claim:
    """One folder that we hold."""

    def __init__(self, lock: int, listener: socket.socket | None, address: str) -> None:
        self.lock = lock
        self.listener = listener
        """None: no socket could be made, so that no other window can join."""
        self._address = address

    def close(self) -> None:
        """Take nobody in any more, but hold the folder."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None
            try:
                os.unlink(self._address)
            except FileNotFoundError:
                pass

    def release(self) -> None:
        """Let go of the folder, the socket first."""
        self.close()
        os.close(self.lock)


class Claims:
    """The folders that this supervisor serves."""

    def __init__(self, data: str) -> None:
        self._folder = os.path.join(data, "run")
        self._held: dict[str, Claim] = {}

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._held.values())

    @property
    def locks(self) -> list[int]:
        """The descriptors that a worker must hold too."""
        return [claim.lock for claim in self._held.values()]

    def holds(self, path: str) -> bool:
        """Tell whether we serve a folder."""
        return workspace_key(path) in self._held

    def take(self, path: str) -> Claim | None:
        """Take a folder; return the new claim, None where another process holds it, or we do already.

        Raises:
            OSError: the data folder cannot be used.
        """
        import fcntl

        key = workspace_key(path)
        if key in self._held:
            return None
        _private_folder(self._folder)
        lock = os.open(os.path.join(self._folder, f"{key}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)  # For people who look; nothing reads it back.
        address, listener = "", None
        try:
            address = self._address(key)
            listener = _listen(address)
        except OSError:
            pass  # Holding the folder matters more than company; the caller sees that there is no listener.
        claim = self._held[key] = Claim(lock, listener, address)
        return claim

    def join(self, path: str) -> socket.socket | None:
        """Connect to whoever serves a folder; None where nobody answers, or not yet."""
        import socket

        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.setblocking(False)
        try:
            peer.connect(self._address(workspace_key(path)))
        except OSError:
            peer.close()
            return None
        if not same_user(peer):
            peer.close()
            return None
        return peer

    def release(self) -> None:
        """Let go of every folder."""
        for claim in self._held.values():
            claim.release()
        self._held.clear()

    def _address(self, key: str) -> str:
        address = os.path.join(self._folder, f"{key}.sock")
        if len(os.fsencode(address)) <= SOCKET_PATH_BYTES:
            return address
        short = f"/tmp/selfloop-{os.getuid()}"  # noqa: S108 - checked below to be ours alone
        _private_folder(short)
        return os.path.join(short, f"{workspace_key(self._folder)[:8]}-{key}.sock")


def same_user(peer: socket.socket) -> bool:
    """Tell whether the process at the other end runs as our user; where that cannot be asked, the folder vouches."""
    import socket
    import struct

    if not hasattr(socket, "SO_PEERCRED"):
        return True
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid == os.getuid()


def _listen(address: str) -> socket.socket:
    import socket

    try:
        os.unlink(address)  # We hold the lock, so whoever made it is gone.
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o077)
    try:
        listener.bind(address)
        listener.listen(64)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _private_folder(path: str) -> None:
    """Make a folder that only we can enter, or make sure that it is one.

    Raises:
        PermissionError: it belongs to somebody else, or is no folder.
    """
    os.makedirs(path, mode=0o700, exist_ok=True)
    status = os.lstat(path)
    if status.st_uid != os.getuid() or not os.path.isdir(path) or os.path.islink(path):
        raise PermissionError(f"{path} is not a folder of this user")
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)
