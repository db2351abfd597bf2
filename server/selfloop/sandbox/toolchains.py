"""Which folders outside the workspace a project's tools need: interpreters' installations, and what the user lists.

Invariant: the repository decides nothing here. A link in its `.venv` is followed only to where a real installation of
Python stands, which no repository can make outside itself; a folder that holds the user's home is never shown.
"""

# ruff: noqa: PTH110, PTH112, PTH113, PTH114 - pathlib raises where a folder may not be entered; these answer "no".

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import frozen

from selfloop.sandbox.git import absolute_path_entries, find_program

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
ENVIRONMENTS = (".venv", "venv", "env")
DEPENDENCIES = (
    *ENVIRONMENTS, ".tox", ".nox", "node_modules", "bower_components", "jspm_packages", "vendor", "Pods", ".bundle",
    ".yarn", "elm-stuff", "deps",
)  # fmt: skip
"""Folders with what a project needs to run; shown read-only where git does not track them."""

_NESTED = frozenset({"node_modules", "vendor", ".venv"})
_DEPTH = 3
_MOST_FOLDERS = 4000


@frozen
class Toolchain:
    """What a jail shows of the outside."""

    folders: tuple[tuple[Path, Path], ...]
    """Where it is, and where it is shown."""
    links: tuple[tuple[str, Path], ...]
    """Symbolic links to make: target and place."""
    path: tuple[str, ...]
    """What stands on the PATH before the system's folders."""


def find_toolchains(workspace: Path, listed: Iterable[str] = ()) -> Toolchain:
    """Find what a workspace's tools need; blocks on the disk."""
    folders: dict[Path, Path] = {}
    links: dict[Path, str] = {}
    path: list[str] = []
    for name in ENVIRONMENTS:
        programs = workspace / name / "bin"
        if os.path.isfile(workspace / name / "pyvenv.cfg") and os.path.isdir(programs):
            path.append(str(programs))
            _follow(programs / "python", workspace, folders, links)
    modules = workspace / "node_modules" / ".bin"
    if os.path.isdir(modules):
        path.append(str(modules))
    for entry in listed:
        folder = Path(entry).expanduser()
        real = Path(os.path.realpath(folder))
        if folder.is_absolute() and os.path.isdir(real) and not _holds_home(real):
            folders[folder] = real
            path += [str(inner) for inner in (folder / "bin", folder) if os.path.isdir(inner)][:1]
    for entry in absolute_path_entries():
        prefix = Path(entry).parent
        real = Path(os.path.realpath(prefix))
        if Path(entry).name == "bin" and not _of_system(real) and (_is_python(real) or _is_node(real)):
            folders[prefix] = folders[real] = real
            path.append(entry)
    if node := find_program("node"):
        real = Path(os.path.realpath(node)).parent.parent
        if not _of_system(real) and _is_node(real):
            folders[real] = real
            path.append(str(real / "bin"))
    shown = tuple((real, place) for place, real in folders.items() if not _of_system(place))
    kept = tuple((target, place) for place, target in links.items() if not any(_within(place, f) for _, f in shown))
    return Toolchain(shown, kept, tuple(dict.fromkeys(path)))


def find_dependencies(workspace: Path, worktree: Path) -> list[str]:
    """Return the dependency folders of the workspace that its worktree lacks, as relative paths; blocks on the disk."""
    found: list[str] = []
    for folder in _folders(worktree):
        relative = folder.relative_to(worktree)
        for name in DEPENDENCIES if folder == worktree else _NESTED:
            source, target = workspace / relative / name, folder / name
            if os.path.islink(source) or os.path.islink(target) or not os.path.isdir(source):
                continue
            if os.path.realpath(source) != str(Path(os.path.realpath(workspace)) / relative / name):
                continue  # Some folder above it is a link.
            if os.path.isdir(target) and any(target.iterdir()):
                continue  # git tracks it, or the agent has made its own.
            if not os.path.exists(target) or os.path.isdir(target):
                found.append((relative / name).as_posix())
    return found


def _folders(worktree: Path) -> Iterator[Path]:
    """Yield the worktree's folders a few levels down, dependency folders and hidden ones left out."""
    ahead = [(worktree, 0)]
    count = 0
    while ahead and count < _MOST_FOLDERS:
        folder, depth = ahead.pop()
        count += 1
        yield folder
        if depth >= _DEPTH:
            continue
        try:
            with os.scandir(folder) as entries:
                ahead += [
                    (Path(entry.path), depth + 1)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                    and not entry.name.startswith(".")
                    and entry.name not in DEPENDENCIES
                ]
        except OSError:
            continue


def _follow(program: Path, workspace: Path, folders: dict[Path, Path], links: dict[Path, str]) -> None:
    """Follow an interpreter's links, hop by hop, and note each installation on the way."""
    here = program
    for _ in range(16):
        prefix = here.parent.parent
        real = Path(os.path.realpath(prefix))
        if _is_python(real) and not _of_system(real) and not _within(real, workspace):
            folders[prefix] = folders[real] = real
        if not os.path.islink(here):
            return
        target = str(here.readlink())
        if not _within(here, workspace) and not _of_system(here):
            links[here] = target
        here = Path(os.path.normpath(here.parent / target))


def _is_python(prefix: Path) -> bool:
    """Tell whether a folder is an installation of Python, and not just something that has a `bin`."""
    if _holds_home(prefix) or not os.path.isdir(prefix / "bin"):
        return False
    return any(os.path.isfile(library / "os.py") for library in prefix.glob("lib/python3.*"))


def _is_node(prefix: Path) -> bool:
    return (
        not _holds_home(prefix)
        and os.path.isfile(prefix / "bin" / "node")
        and os.path.isdir(prefix / "lib/node_modules")
    )


def _holds_home(folder: Path) -> bool:
    """Tell whether a folder is, or holds, the user's home."""
    return Path(os.path.realpath(Path.home())).is_relative_to(folder)


def _of_system(path: Path) -> bool:
    return any(_within(path, Path(folder)) for folder in SYSTEM_FOLDERS)


def _within(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)
