"""The one door for paths that a model names: everything below one folder, and nothing else.

Invariant: what is opened lies beneath the root *when it is opened*. The kernel decides that (`openat2` with
RESOLVE_BENEATH), or a walk from descriptor to descriptor where it cannot; no path is normalised, decoded or resolved
first and opened later. Only regular files with a single name are read or replaced, and a write appears whole or not at
all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat as stat_module
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from attrs import frozen

from selfloop.errors import PathRefused
from selfloop.sandbox.beneath import MAX_LINKS, O_PATH, has_openat2, link_target, open_beneath
from selfloop.sandbox.protected import is_protected, plain_name
from selfloop.sandbox.reading import read_all

__all__ = ["Door", "Entry", "EntryKind", "Stat", "has_openat2", "is_protected"]

EntryKind = Literal["file", "folder", "link", "other"]

_WINDOWS_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{name}{digit}" for name in ("com", "lpt") for digit in "0123456789"),
}


@frozen
class Entry:
    """One name in a folder."""

    name: str
    kind: EntryKind
    size: int
    """Bytes, 0 for what is not a regular file."""


@frozen
class Stat:
    """What is at a path, links followed."""

    kind: EntryKind
    size: int
    mode: int
    """git's mode: 0o100644, 0o100755, 0o120000, or 0o040000 for a folder."""


class Door:
    """Reads and writes beneath `root`, and beneath the roots that have a name.

    Paths are relative and POSIX. `@name/…` goes to the root of that name; all others to the workspace's own.
    A root in `read_only` is never written to, and `on_write` is told of files written in the workspace's own root.
    The methods block: call them in a thread where files may be large.
    """

    def __init__(
        self,
        root: Path,
        named: Mapping[str, Path] | None = None,
        *,
        read_only: frozenset[str] = frozenset(),
        on_write: Callable[[str], None] | None = None,
    ) -> None:
        self.root = root
        self._on_write = on_write
        self._named = {name.removeprefix("@"): folder for name, folder in (named or {}).items()}
        self._read_only = {name.removeprefix("@") for name in read_only}

    def with_roots(self, named: Mapping[str, Path]) -> Door:
        """Return the same door with more roots by name."""
        return Door(self.root, {**self._named, **named}, read_only=frozenset(self._read_only), on_write=self._on_write)

    def read_bytes(self, path: str, limit: int | None = None) -> bytes:
        """Return a file's bytes, at most `limit` of them. Links are followed while they stay inside."""
        with self._root(path) as (root, name):
            descriptor = open_beneath(root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                _require_plain(os.fstat(descriptor), path, "read")
                return read_all(descriptor, limit)
            finally:
                os.close(descriptor)

    def write_bytes(self, path: str, data: bytes, mode: int | None = None) -> None:
        """Write a whole file by a temporary name and a rename; folders on the way are made.

        Args:
            path: where to. A link that stays inside is followed, unless a link is what is written.
            data: the content, or a link's target.
            mode: git's mode; None keeps that of the file that is there. 0o120000 makes a symbolic link.
        """
        with self._parent(path, make=True, follow=mode is None, write=True) as (folder, name):
            there = _status(folder, name)
            if there is not None and not (stat_module.S_ISLNK(there.st_mode) and mode is not None):
                _require_plain(there, path, "written")
            if mode is None:
                mode = 0o100755 if there is not None and there.st_mode & 0o100 else 0o100644
            _replace(folder, name, data, mode, there)
        self._written(path)

    def read_entry(self, path: str) -> tuple[bytes, int] | None:
        """Return the bytes and the git mode of what stands at `path` itself, None where there is nothing.

        A link is not followed: its bytes are its target, its mode 0o120000.
        """
        try:
            with self._parent(path, make=False, follow=False) as (folder, name):
                there = _status(folder, name)
                if there is None:
                    return None
                if stat_module.S_ISLNK(there.st_mode):
                    return os.fsencode(os.readlink(name, dir_fd=folder)), 0o120000
                descriptor = open_beneath(folder, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW)
                try:
                    there = os.fstat(descriptor)
                    _require_plain(there, path, "read")
                    return read_all(descriptor), _git_mode(there)
                finally:
                    os.close(descriptor)
        except _Missing:
            return None

    def delete(self, path: str, *, link: bool = False) -> None:
        """Delete a file. A link that leads outside is refused, unless `link` says that it is meant itself."""
        with self._parent(path, make=False, follow=False, write=True) as (folder, name):
            there = _status(folder, name)
            if there is None:
                raise _missing(path)
            if stat_module.S_ISLNK(there.st_mode):
                if not link:
                    self.stat(path)  # Refuses a link whose end lies outside.
            else:
                _require_plain(there, path, "deleted")
            os.unlink(name, dir_fd=folder)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in another folder too. What has the new name already must be a plain file."""
        with (
            self._parent(old, make=False, follow=False, write=True) as (source, source_name),
            self._parent(new, make=True, follow=False, write=True) as (target, target_name),
        ):
            there = _status(source, source_name)
            if there is None:
                raise _missing(old)
            _require_plain(there, old, "renamed")
            taken = _status(target, target_name)
            if taken is not None:
                _require_plain(taken, new, "replaced")
            os.rename(source_name, target_name, src_dir_fd=source, dst_dir_fd=target)
        self._written(new)

    def list(self, path: str = "") -> list[Entry]:
        """Return a folder's entries by name. Empty and `.` are the root."""
        with self._root(path, empty=True) as (root, name):
            descriptor = open_beneath(root, name or ".", os.O_RDONLY | os.O_DIRECTORY)
            try:
                with os.scandir(descriptor) as entries:
                    found = [_entry(entry) for entry in entries]
            finally:
                os.close(descriptor)
        return sorted(found, key=lambda entry: entry.name)

    def stat(self, path: str) -> Stat:
        """Return what is at a path; a link is followed while it stays inside."""
        with self._root(path, empty=True) as (root, name):
            descriptor = open_beneath(root, name or ".", O_PATH)
            try:
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        return Stat(_kind(status.st_mode), status.st_size, _git_mode(status))

    def exists(self, path: str) -> bool:
        """Tell whether a path leads to something inside. A refused path is refused, not answered."""
        try:
            self.stat(path)
        except _Missing:
            return False
        return True

    def require_plain(self, path: str) -> None:
        """Refuse a path at which there is something else than a regular file with a single name; nothing is fine."""
        try:
            with self._root(path) as (root, name):
                descriptor = open_beneath(root, name, O_PATH)
                try:
                    _require_plain(os.fstat(descriptor), path, "written")
                finally:
                    os.close(descriptor)
        except _Missing:
            return

    def _written(self, path: str) -> None:
        """Tell who listens which file of the root itself was written, under its plain name."""
        named = path.startswith("@") and path[1:].partition("/")[0] in self._named
        if self._on_write is not None and not named and ".." not in path:
            self._on_write("/".join(part for part in path.split("/") if part not in ("", ".")))

    @contextlib.contextmanager
    def _root(self, path: str, *, empty: bool = False, write: bool = False) -> Iterator[tuple[int, str]]:
        """Yield the descriptor of the root that a path means, and the path below it."""
        name = _checked(path, empty=empty)
        folder = self.root
        if name.startswith("@"):
            label, _, rest = name[1:].partition("/")
            if label in self._named:
                folder, name = self._named[label], rest
                if not rest and not empty:
                    raise PathRefused(f"{_shown(path)} is a folder, so it was not opened as a file.")
                if write and label in self._read_only:
                    raise PathRefused(f"{_shown(path)} is read-only, so it was not written.")
        try:
            root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _Missing(f"The folder that {_shown(path)} lies in cannot be opened ({error.strerror}).") from error
        try:
            yield root, name
        except OSError as error:
            raise _refused(error, path) from error
        finally:
            os.close(root)

    @contextlib.contextmanager
    def _parent(self, path: str, *, make: bool, follow: bool, write: bool = False) -> Iterator[tuple[int, str]]:
        """Yield the descriptor of the folder that a path's last name stands in, and that name."""
        with self._root(path, write=write) as (root, relative):
            for _ in range(MAX_LINKS):
                above, _, name = relative.rstrip("/").rpartition("/")
                if relative.endswith("/") or name in ("", ".", ".."):
                    raise PathRefused(f"{_shown(path)} names a folder, not a file, so nothing was done.")
                if _is_git(name) or any(_is_git(part) for part in above.split("/")):
                    raise PathRefused(f"{_shown(path)} belongs to git itself, so it was not opened.")
                if write and len(os.fsencode(name)) > 255:
                    raise PathRefused(f"A name in {_shown(path)} is longer than 255 bytes, so nothing was done.")
                folder = _open_folder(root, above, path, make=make)
                try:
                    target = link_target(folder, name) if follow else None
                    if target is None:
                        yield folder, name
                        return
                finally:
                    os.close(folder)
                if target.startswith("/"):
                    raise _outside(path)
                relative = f"{above}/{target}" if above else target
            raise PathRefused(f"{_shown(path)} goes round in a circle of links, so nothing was done.")


class _Missing(PathRefused):
    """Raised when nothing is at the path."""


def _checked(path: str, *, empty: bool) -> str:
    """Return the path as given, or refuse what could never be a name below the root. Nothing is normalised."""
    if path in ("", "."):
        if empty:
            return "."
        raise PathRefused("The path is empty, so nothing was done; give a path relative to the workspace.")
    if "\0" in path:
        raise PathRefused("The path holds a NUL character, so nothing was done.")
    try:
        os.fsencode(path)
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PathRefused("The path is no valid text (a lone surrogate), so nothing was done.") from error
    if path.startswith("/"):
        raise PathRefused(f"{_shown(path)} is absolute, so nothing was done; give it relative to the workspace's root.")
    if len(path) > 4096:
        raise PathRefused("The path is longer than 4,096 characters, so nothing was done.")
    if sys.platform == "win32":
        for part in path.replace("\\", "/").split("/"):
            device = part.split(".", 1)[0].rstrip(" ").casefold() in _WINDOWS_DEVICES
            ending = part not in ("", ".", "..") and part[-1:] in (" ", ".")
            if device or ending or any(letter in part for letter in ':<>"|?*'):
                raise PathRefused(f"{_shown(path)} is no file name on Windows, so nothing was done.")
    return path


def _open_folder(root: int, path: str, shown: str, *, make: bool) -> int:
    """Open the folder `path`, making what is missing of it, step by step from the root."""
    try:
        return open_beneath(root, path or ".", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        if not make or ".." in path.split("/"):
            raise
    above, _, name = path.rstrip("/").rpartition("/")
    if len(os.fsencode(name)) > 255:
        raise PathRefused(f"A name in {_shown(shown)} is longer than 255 bytes, so nothing was done.")
    parent = _open_folder(root, above, shown, make=True)
    try:
        with contextlib.suppress(FileExistsError):
            if name not in ("", "."):
                os.mkdir(name, 0o777, dir_fd=parent)
        return open_beneath(parent, name or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    finally:
        os.close(parent)


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _replace(folder: int, name: str, data: bytes, mode: int, there: os.stat_result | None) -> None:
    """Write under a temporary name beside the target, and rename."""
    temporary = f".selfloop-{secrets.token_hex(8)}"
    try:
        if mode == 0o120000:
            os.symlink(os.fsdecode(data), temporary, dir_fd=folder)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o777 if mode & 0o100 else 0o666, dir_fd=folder), "wb") as file:
                file.write(data)
                file.flush()
                if there is not None and stat_module.S_ISREG(there.st_mode):
                    bits = stat_module.S_IMODE(there.st_mode) & ~0o111
                    # Who may read may execute, as git has it.
                    os.fchmod(file.fileno(), bits | (bits >> 2 & 0o111) if mode & 0o100 else bits)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def _require_plain(status: os.stat_result, path: str, done: str) -> None:
    if stat_module.S_ISDIR(status.st_mode):
        raise PathRefused(f"{_shown(path)} is a folder, so it was not {done} as a file.")
    if not stat_module.S_ISREG(status.st_mode):
        raise PathRefused(f"{_shown(path)} is no regular file (a link, pipe, socket or device), so it was not {done}.")
    if status.st_nlink > 1:
        raise PathRefused(
            f"{_shown(path)} has another name (a hard link) that may lie outside the workspace, so it was not {done}."
        )


def _is_git(part: str) -> bool:
    """Tell whether some file system would take a name for `.git`."""
    return plain_name(part) in (".git", "git~1", "git~2", "git~3", "git~4")


def _kind(mode: int) -> EntryKind:
    if stat_module.S_ISREG(mode):
        return "file"
    if stat_module.S_ISDIR(mode):
        return "folder"
    return "link" if stat_module.S_ISLNK(mode) else "other"


def _git_mode(status: os.stat_result) -> int:
    if stat_module.S_ISDIR(status.st_mode):
        return 0o040000
    if stat_module.S_ISLNK(status.st_mode):
        return 0o120000
    return 0o100755 if status.st_mode & 0o100 else 0o100644


def _entry(entry: os.DirEntry[str]) -> Entry:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return Entry(entry.name, "other", 0)
    kind = _kind(status.st_mode)
    return Entry(entry.name, kind, status.st_size if kind == "file" else 0)


def _refused(error: OSError, path: str) -> PathRefused:
    if error.errno == errno.ENOENT:
        return _missing(path)
    if error.errno in (errno.EXDEV, errno.ELOOP):
        return _outside(path)
    if error.errno == errno.ENOTDIR:
        return _Missing(f"{_shown(path)} goes through a file as if it were a folder, so nothing was done.")
    return PathRefused(f"{_shown(path)} could not be opened or written ({error.strerror}), so nothing was done.")


def _missing(path: str) -> PathRefused:
    return _Missing(f"There is nothing at {_shown(path)}, so nothing was done; list_files shows what there is.")


def _outside(path: str) -> PathRefused:
    return PathRefused(f"{_shown(path)} leads out of the workspace, so it was not opened; use a path inside it.")


def _shown(path: str) -> str:
    """Return a path as it may stand in a sentence: control and direction characters made visible, not too long."""
    text = ascii(path) if not path.isprintable() else repr(path)
    return text if len(text) <= 120 else f"{text[:80]}…{text[-30:]}"
