"""Where an evolution works: the present self's folder, a worktree of it, and the jail around every command.

Invariant: the folder itself is only read. What an agent's tools may write is what may evolve, refused at the door; what
a command has written elsewhere is taken back before anything is committed. Every command, the VERIFY of a suggestion
too, runs in the jail.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, evolve, field, frozen

from selfloop.changes import FileChange
from selfloop.config import Settings
from selfloop.errors import PathRefused
from selfloop.evolution.home import Home
from selfloop.evolution.source import is_litter
from selfloop.sandbox import jail
from selfloop.sandbox.isolation import Isolation
from selfloop.sandbox.jail import CommandResult
from selfloop.sandbox.paths import Door
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow
from selfloop.sandbox.worktree import Worktree
from selfloop.supervisor.contract import may_evolve

VERIFY_SECONDS = 180.0
"""Of a VERIFY command; what takes longer never ends, as far as we are concerned."""


class FencedDoor(Door):
    """The door of a worktree of our own source: everything can be read, what may evolve can be written."""

    def __init__(self, inner: Door, named: Mapping[str, Path], read_only: frozenset[str] = frozenset()) -> None:
        super().__init__(inner.root, named, read_only=read_only)
        self._inner = inner

    def write_bytes(self, path: str, data: bytes, mode: int | None = None) -> None:
        """Write a whole file, if it may evolve; see `Door.write_bytes`."""
        if path.startswith("@"):
            super().write_bytes(path, data, mode)
        else:
            self._inner.write_bytes(_allowed(path), data, mode)

    def delete(self, path: str, *, link: bool = False) -> None:
        """Delete a file, if it may evolve; see `Door.delete`."""
        if path.startswith("@"):
            super().delete(path, link=link)
        else:
            self._inner.delete(_allowed(path), link=link)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, if both may evolve; see `Door.rename`."""
        self._inner.rename(_allowed(old), _allowed(new))

    def with_roots(self, named: Mapping[str, Path]) -> Door:
        """Return the same door with more roots by name."""
        return FencedDoor(self._inner, {**self._named, **named}, frozenset(self._read_only))


@frozen
class Taken:
    """What a worktree's changes came to."""

    changes: tuple[FileChange, ...]
    """What may evolve."""
    taken_back: tuple[str, ...]
    """Paths that may not, and are as they were again."""


@define
class Bench:
    """The workbench of one evolution."""

    folder: Path
    """The present self's."""
    cache: Path
    isolation: Isolation
    settings: Settings
    _pool: Pool | None = field(default=None, init=False)

    @property
    def tool_settings(self) -> Settings:
        """The user's settings, with the interpreter that runs us among the toolchains: it has what judges need."""
        own = tuple(dict.fromkeys((sys.prefix, sys.base_prefix)))
        return evolve(self.settings, toolchains=(*self.settings.toolchains, *own))

    async def pool(self) -> Pool:
        """Return the pool of worktrees of the folder; nothing is kept ready in it."""
        if self._pool is None:
            shadow = await Shadow.open(self.folder, self.cache)
            self._pool = Pool(shadow, self.cache, size=0)
        return self._pool

    async def fresh(self) -> Worktree:
        """Return a clean worktree of the present self.

        Raises:
            SandboxError: there is no room for one.
        """
        return await (await self.pool()).acquire()

    async def reopen(self, worktree_id: str | None) -> Worktree | None:
        """Return the worktree of an earlier run; None where nothing of it is left."""
        return None if worktree_id is None else await (await self.pool()).reopen(worktree_id)

    async def release(self, worktree: Worktree) -> None:
        """Throw a worktree away."""
        pool = await self.pool()
        await pool.settle()  # What still looks at it in the background would find it gone.
        await pool.release(worktree)

    async def bring(self, worktree: Worktree, home: Home, parent: str, tree: str) -> None:
        """Bring a worktree of the present self to a tree that descends from it."""
        before, after = await home.read(parent), await home.read(tree)
        for path in sorted(set(before) | set(after)):
            if before.get(path) != after.get(path):
                data, mode = after.get(path, (None, None))
                await worktree.restore(path, data, mode)

    async def take(self, worktree: Worktree) -> Taken:
        """Return what a worktree has changed of what may evolve, and take back everything else."""
        kept, back = [], []
        for change in await worktree.changes():
            paths = [path for path in (change.old_path, change.path) if path is not None]
            plain = change.post is None or change.post_mode in (0o100644, 0o100755)
            if plain and all(may_evolve(path) for path in paths):
                kept.append(change)
                continue
            if change.path != (change.old_path or change.path):
                await worktree.restore(change.path, None, None)
            await worktree.restore(change.old_path or change.path, change.pre, change.pre_mode)
            back += [path for path in paths if not is_litter(path)]
        return Taken(tuple(kept), tuple(dict.fromkeys(back)))

    async def run(self, command: str, worktree: Worktree, spill: Path) -> CommandResult:
        """Run a command of a suggestion in the jail, on a worktree.

        Raises:
            SandboxError: it could not be started.
        """
        # What is installed must not be found in the place of what is being changed.
        said = f'export PYTHONPATH="$PWD/server:$PWD/tests"\n{command}'
        return await jail.run(
            said,
            worktree=worktree,
            workspace=self.folder,
            isolation=self.isolation,
            timeout_seconds=VERIFY_SECONDS,
            spill=spill,
            toolchains=self.tool_settings.toolchains,
        )

    async def close(self) -> None:
        """End what goes on in the background; worktrees stay for whoever takes the evolution up."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None


def _allowed(path: str) -> str:
    plain = "/".join(part for part in path.split("/") if part not in ("", "."))
    if not may_evolve(plain):
        raise PathRefused(
            f"{path[:200]} is not what may evolve, so nothing was written; choose a file of the map that is not "
            "sealed, or put a new test below tests/evolved/."
        )
    return path


def refused_paths(paths: Sequence[str]) -> str:
    """Return the sentence for paths that a command has changed and that were taken back."""
    shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return f"These files may not evolve and are as they were again: {shown}."


def last_line(output: str) -> str:
    """Return the last line that a command has printed, shortened; where it printed nothing, that."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"
