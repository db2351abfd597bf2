"""A folder of files with the index that follows it, and the files of it that must never be followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from attrs import frozen

MAX_FILE_BYTES = 64 << 20
"""A larger file is left out, unless git knows it already and it has not changed."""


@frozen
class Area:
    """A folder of files, and the index that follows it."""

    top: Path
    """What git takes for the top of the work tree."""
    prefix: str
    """The part below the top that counts: empty, or `sub/` where the workspace is a folder of a repository."""
    index: Path

    @property
    def folder(self) -> Path:
        """The folder whose files are meant."""
        return self.top / self.prefix if self.prefix else self.top

    def unlock(self) -> None:
        """Remove the lock that a killed git left; whoever calls this is the only one to work on the index."""
        self.index.with_name(f"{self.index.name}.lock").unlink(missing_ok=True)

    def why_left_out(self, name: bytes, *, single: bool = False) -> str | None:
        """Tell why a file must not be in the index: a sentence, empty where no one asks; None if it may be there.

        With `single`, a file that has another name is left out: the other may lie outside, and so would its content.
        """
        shown = name[len(self.prefix.encode()) :]
        if not is_utf8(name):
            return f"{os.fsdecode(shown)!a} is not UTF-8, so this file is left out."
        if name.endswith(b"/"):
            return f"{shown.decode()!r} is another repository, so the agent neither sees nor changes what is in it."
        if is_state_folder(shown):
            return ""
        path = os.path.join(os.fsencode(self.top), name)  # noqa: PTH118 - bytes, and perhaps fifty thousand of them
        try:
            status = os.lstat(path)
        except OSError:
            return None  # It is gone, and git takes it out by itself.
        if stat.S_ISLNK(status.st_mode) or stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            return ""
        if single and status.st_nlink > 1:
            return f"{shown.decode()!r} has another name (a hard link) elsewhere, so this file is left out."
        if status.st_size > MAX_FILE_BYTES:
            return f"{shown.decode()!r} is larger than {MAX_FILE_BYTES >> 20} MiB, so this file is left out."
        if not os.access(path, os.R_OK):
            return f"{shown.decode()!r} cannot be read, so this file is left out."
        return None


def is_utf8(name: bytes) -> bool:
    """Tell whether a file's name can go over the wire."""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_state_folder(path: bytes) -> bool:
    """Tell whether a path lies in `.evo`, our own state folder, or in one that was set aside."""
    first = path.split(b"/", 1)[0].lower()
    return first == b".evo" or first.startswith(b".evo.foreign")
