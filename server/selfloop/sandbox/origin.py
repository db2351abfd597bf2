"""The user's own repository, read as data.

Invariant: no git program ever runs on it, nothing is written to it, and nothing it says leads to another repository: a
`.git` file counts only if the folder that it names says in turn that it belongs to this work tree.
"""

# ruff: noqa: PTH110, PTH112, PTH113, PTH114 - pathlib raises where a folder may not be entered; these answer "no".

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from attrs import frozen

from selfloop.errors import SandboxError

_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCH = re.compile(r"refs/(?!.*(?:\.\.|//|/\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]+")


@frozen
class Origin:
    """Where the user's repository lies, and what was found wrong with it."""

    top: Path
    """The top of the user's work tree: the workspace itself, or a folder above it."""
    git_dir: Path | None
    """None where there is no repository that can be believed."""
    common_dir: Path | None
    """Where objects and branches are; another folder than `git_dir` for a linked worktree."""
    notices: tuple[str, ...] = ()

    @property
    def index(self) -> Path | None:
        """The user's index file, if there is one."""
        return self.git_dir / "index" if self.git_dir else None

    @property
    def objects(self) -> Path | None:
        """The folder of the user's objects, if it can be borrowed from."""
        if self.common_dir is None:
            return None
        folder = self.common_dir / "objects"
        return folder if os.path.isdir(folder) and not os.path.islink(folder) else None

    @property
    def object_format(self) -> str:
        """`sha1` or `sha256`."""
        config = read_small(self.common_dir / "config") if self.common_dir else None
        found = re.search(rb"^\s*objectformat\s*=\s*\"?sha256", config or b"", re.IGNORECASE | re.MULTILINE)
        return "sha256" if found else "sha1"

    def head(self) -> tuple[str | None, str | None]:
        """Return the branch (`refs/heads/…`, None if detached) and the commit (None before the first) of HEAD."""
        if self.git_dir is None or self.common_dir is None:
            return None, None
        text = (read_small(self.git_dir / "HEAD") or b"").decode("utf-8", "replace").strip()
        if _OBJECT_ID.fullmatch(text):
            return None, text
        branch = text.removeprefix("ref:").strip()
        if not text.startswith("ref:") or not _BRANCH.fullmatch(branch):
            return None, None
        loose = (read_small(self.common_dir / branch) or b"").decode("ascii", "replace").strip()
        if _OBJECT_ID.fullmatch(loose):
            return branch, loose
        packed = read_small(self.common_dir / "packed-refs", limit=1 << 28) or b""
        found = re.search(rb"^([0-9a-f]{40,64}) " + re.escape(branch.encode()) + rb"$", packed, re.MULTILINE)
        return branch, found.group(1).decode() if found else None


def find_origin(workspace: Path) -> Origin:
    """Find the repository that a workspace belongs to.

    Raises:
        SandboxError: the workspace is no folder, or is itself a repository's inside.
    """
    if not os.path.isdir(workspace):
        raise SandboxError(f"{workspace} is no folder, so no sandbox was opened; open a folder and try again.")
    if ".git" in workspace.parts or (_is_repository(workspace) and not os.path.exists(workspace / ".git")):
        raise SandboxError(
            f"{workspace} is the inside of a git repository (a bare one has no files to work on), so no sandbox was "
            "opened; open a folder with the files checked out."
        )
    for top in (workspace, *workspace.parents):
        dot_git = top / ".git"
        if os.path.lexists(dot_git):
            return _judge(top, dot_git)
    return Origin(workspace, None, None)


def read_small(path: Path, limit: int = 1 << 20) -> bytes | None:
    """Return a regular file's bytes; None if it is none, cannot be read, or is larger than `limit`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            return None
        try:
            return file.read(limit)
        except OSError:
            return None


def user_configuration_files() -> list[Path]:
    """Return the user's own git configuration files, those that exist."""
    home = Path.home()
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return [file for file in (home / ".gitconfig", folder / "git" / "config") if file.is_file()]


def _judge(top: Path, dot_git: Path) -> Origin:
    none = Origin(top, None, None)
    if os.path.islink(dot_git):
        return _unbelieved(none, "is a symbolic link")
    if os.path.isdir(dot_git):
        if not _is_repository(dot_git):
            return none
        return Origin(top, dot_git, dot_git)
    text = (read_small(dot_git) or b"").decode("utf-8", "surrogateescape")
    if not text.startswith("gitdir:") or "\0" in text:
        return _unbelieved(none, "is neither a repository nor the name of one")
    named = Path(os.path.realpath(top / text.removeprefix("gitdir:").strip()))
    back = read_small(named / "gitdir")
    if back is not None:
        common = named.parent.parent
        belongs = os.path.realpath(os.fsdecode(back).strip()) == os.path.realpath(dot_git)
        if belongs and named.parent.name == "worktrees" and _is_repository(common):
            return Origin(top, named, common)
    elif _is_repository(named) and _names_work_tree(named, top):
        return Origin(top, named, named)
    return _unbelieved(none, "names a repository that does not say it belongs here")


def _unbelieved(origin: Origin, why: str) -> Origin:
    return Origin(
        origin.top,
        None,
        None,
        (f"{origin.top / '.git'} {why}, so its history is left aside; the files themselves are worked on as usual.",),
    )


def _is_repository(folder: Path) -> bool:
    return os.path.isfile(folder / "HEAD") and os.path.isdir(folder / "objects") and os.path.isdir(folder / "refs")


def _names_work_tree(git_dir: Path, top: Path) -> bool:
    """Tell whether a repository's own configuration names this work tree, as a submodule's does."""
    config = (read_small(git_dir / "config") or b"").decode("utf-8", "surrogateescape")
    found = re.search(r"^\s*worktree\s*=\s*\"?(.*?)\"?\s*$", config, re.IGNORECASE | re.MULTILINE)
    return bool(found) and os.path.realpath(git_dir / found.group(1)) == os.path.realpath(top)
