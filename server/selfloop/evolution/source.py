"""What the installed package consists of, laid out like the repository: generation 0.

    checkout   server/selfloop  prompts  tests  pyproject.toml …            as they stand
    wheel      selfloop/**  selfloop/_prompts  selfloop/_self/{tests,…}     put back to where they came from

Invariant: the same release gives the same tree, installed or checked out, but for what tools leave behind. Nothing is
followed through a link, and nothing but regular files belongs to a self.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from selfloop.errors import StoreError
from selfloop.sandbox.packs import Batch
from selfloop.sandbox.trees import FOLDER_MODE, Listing, format_tree
from selfloop.storage.disk import saying

PACKAGE = Path(__file__).resolve().parents[1]
"""The package that runs: installed, in a checkout, or in a generation's folder."""
BESIDE = (
    "tests",
    "pyproject.toml",
    "README.md",
    "AGENTS.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "server/ARCHITECTURE.md",
)
"""What belongs to a self and lies outside the package; in a wheel below `_self`."""
LEFT_BEHIND = frozenset({"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", ".git", ".evo"})
"""Folders that tools make; they belong to no self."""
_PLAIN, _PROGRAM = 0o100644, 0o100755


def self_files(folder: Path | None = None, package: Path = PACKAGE) -> dict[str, Path]:
    """Return the files of generation 0 by their paths in the repository's layout. Reads the disk.

    Args:
        folder: a checkout that the user has named as the self; None: the package that runs.
        package: that package.

    Raises:
        StoreError: they cannot be read, or something that every self has is missing.
    """
    with saying("Selfloop's own source could not be read"):
        if folder is None and not (package / "_self").is_dir():
            folder = package.parents[1]
        found = _checkout(folder) if folder is not None else _wheel(package)
    if not {"pyproject.toml", "server/selfloop/__init__.py"} <= set(found):
        raise StoreError(
            f"{folder or package} holds no whole source of Selfloop, so nothing evolves; install Selfloop again, or "
            "name a checkout by `self_folder` in your settings."
        )
    return found


def is_litter(path: str) -> bool:
    """Tell whether a file was left behind by a tool, and so is no part of a self."""
    parts = path.split("/")
    return bool(LEFT_BEHIND & set(parts)) or path.endswith((".pyc", ".pyo")) or any(".egg-info" in one for one in parts)


def store_tree(files: Mapping[str, Path], batch: Batch) -> str:
    """Put files and their folders into a batch, and return the id of the tree. Reads the disk.

    Raises:
        StoreError: a file cannot be read, or is no regular file.
    """
    entries: dict[str, tuple[str, int]] = {}
    with saying("A file of Selfloop's own source could not be read"):
        for path, file in files.items():
            status = file.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{file} is no plain file, so nothing was taken in; mend the installation.")
            mode = _PROGRAM if status.st_mode & 0o100 else _PLAIN
            entries[path] = (batch.add(file.read_bytes()), mode)
    return plant(entries, batch)


def plant(entries: Mapping[str, tuple[str, int]], batch: Batch) -> str:
    """Put the folders of some files into a batch, and return the id of the tree.

    Args:
        entries: of each file its blob's id and its mode, by its path.
        batch: where the trees go.
    """
    folders: dict[str, Listing] = {"": {}}
    for path, entry in entries.items():
        for folder in _above(path):
            folders.setdefault(folder, {})
        above, _, name = path.rpartition("/")
        folders[above][os.fsencode(name)] = entry
    tree = ""
    for folder in sorted(folders, key=lambda one: (-one.count("/") - (one != ""), one)):
        tree = batch.add(format_tree(folders[folder]), "tree")
        if folder:
            above, _, name = folder.rpartition("/")
            folders[above][os.fsencode(name)] = (tree, FOLDER_MODE)
    return tree


def tree_of(files: Mapping[str, Path]) -> str:
    """Return the id of the tree that files make: git's sha1, found without git. Reads the disk."""
    return store_tree(files, Batch("sha1"))


def files_below(folder: Path) -> dict[str, Path]:
    """Return everything below a folder that is no folder, by its relative path: links and special files too."""
    found = {}
    for path in _walk(folder):
        found[path.relative_to(folder).as_posix()] = path
    return found


def _above(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[:length]) for length in range(len(parts) + 1))


def _checkout(root: Path) -> dict[str, Path]:
    return dict(_collect(root, ("server/selfloop", "prompts", *BESIDE)))


def _wheel(package: Path) -> dict[str, Path]:
    inside = {
        f"server/selfloop/{path}": file
        for path, file in _collect(package, ("",))
        if not path.startswith(("_self/", "_prompts/"))
    }
    prompts = {f"prompts/{path}": file for path, file in _collect(package / "_prompts", ("",))}
    return {**inside, **prompts, **dict(_collect(package / "_self", BESIDE))}


def _collect(root: Path, places: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yield the regular files at some places below a folder, with their paths relative to it."""
    for place in places:
        start = root / place if place else root
        for file in [start] if start.is_file() else _walk(start):
            path = file.relative_to(root).as_posix()
            if not is_litter(path) and file.is_file() and not file.is_symlink():
                yield path, file


def _walk(folder: Path) -> Iterator[Path]:
    for above, folders, names in os.walk(folder):
        here = Path(above)
        # A link to a folder is not gone into, and must not be overlooked where files are counted.
        names += [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if not (here / name).is_symlink())
        yield from (here / name for name in sorted(names))
