"""The files of a self: listed, hashed as git does, and laid out for the judge's jail.

    stage = the parent's folder, with exactly those files of the candidate that may evolve

Invariant: whatever else the candidate's folder holds never reaches a stage. Tests, configuration, policy and supervisor
are the parent's, even if the layer that compares them were switched off.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from attrs import frozen

from selfloop.evolution.source import plant
from selfloop.sandbox.packs import Batch
from selfloop.supervisor.contract import may_evolve

_NOT_OURS = frozenset(
    {
        ".git", ".venv", "venv", ".evo", ".editors", ".hypothesis", ".pytest_cache", ".ruff_cache", ".pyrefly_cache",
        ".mypy_cache", "dist", "build", "node_modules",
    }
)  # fmt: skip
"""What tools and editors make in a checkout, anywhere but where code and prompts stand."""


@frozen
class Entry:
    """One file of a self."""

    mode: int
    """git's: 0o100644, 0o100755, 0o120000; 0 for what git could not hold."""
    path: Path
    """Where it stands."""

    def read(self) -> bytes:
        """Return its bytes; of a link, its target."""
        return os.fsencode(self.path.readlink()) if self.mode == 0o120000 else self.path.read_bytes()


def entries(folder: Path, left_out: Collection[str] = (), *, export: bool = False) -> dict[str, Entry]:
    """Return every file below a folder by its POSIX path; blocks on the disk.

    Args:
        folder: of a self.
        left_out: paths that are not part of it.
        export: it is a clean export, so everything counts but `.git`. Else it may be a checkout, where bytecode and
            what tools make is left out.
    """
    found: dict[str, Entry] = {}
    for path in _walk(folder, folder, frozenset(left_out), export):
        status = path.lstat()
        mode = 0
        if stat.S_ISLNK(status.st_mode):
            mode = 0o120000
        elif stat.S_ISREG(status.st_mode):
            mode = 0o100755 if status.st_mode & 0o100 else 0o100644
        found[path.relative_to(folder).as_posix()] = Entry(mode, path)
    return dict(sorted(found.items()))


def _walk(root: Path, folder: Path, left_out: frozenset[str], export: bool) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        relative = path.relative_to(root)
        made = path.name in _NOT_OURS and relative.parts[0] not in ("server", "prompts")
        skipped = relative.as_posix() == ".git" if export else made or path.name == "__pycache__"
        if skipped or relative.as_posix() in left_out:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(root, path, left_out, export)
        else:
            yield path


def tree_hash(files: dict[str, Entry]) -> str:
    """Return the hash that git would give a tree of exactly these files; blocks on the disk."""
    batch = Batch("sha1")
    blobs = {path: (batch.add(one.read() if one.mode else b""), one.mode) for path, one in files.items()}
    return plant(blobs, batch)


def make_stage(parent: dict[str, Entry], child: dict[str, Entry], into: Path) -> None:
    """Lay out the parent with the candidate's evolvable files; blocks on the disk."""
    tests = {path: entry for path, entry in parent.items() if path.startswith("tests/")}
    kept = {path: entry for path, entry in parent.items() if not may_evolve(path)}
    evolved = {path: entry for path, entry in child.items() if may_evolve(path) and not path.startswith("tests/")}
    for path, entry in {**kept, **evolved, **tests}.items():
        if entry.mode in (0o100644, 0o100755):
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(entry.path, target)
            target.chmod(0o755 if entry.mode == 0o100755 else 0o644)
