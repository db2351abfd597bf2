"""Tells which loops wait for the files that have changed: `on change <glob>`, through watchfiles.

Invariant: nothing below `.git` or `.evo`, and nothing that the workspace ignores, starts a loop. Changes are told when
they have come to rest, so that one save, one checkout or one build is one cause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from selfloop.loops.cadence import glob_pattern

logger = logging.getLogger(__name__)

QUIET_SECONDS = 0.5
"""So long nothing may have changed before changes are told."""
LONGEST_SECONDS = 10.0
"""Changes that never come to rest are told this often."""
OWN_FOLDERS = (".git", ".evo", ".hg", ".svn", ".jj")


class ChangeWatch:
    """Watches one workspace for the loops that run on change."""

    def __init__(
        self,
        root: Path,
        changed: Callable[[str, tuple[str, ...]], None],
        *,
        ignored: Callable[[list[str]], Awaitable[Collection[str]]] | None = None,
        notice: Callable[[str], None] = lambda sentence: None,
        quiet_seconds: float = QUIET_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        """Make a watch that waits for nothing yet.

        Args:
            root: the workspace.
            changed: takes a loop and the paths that it waited for, relative to the root, sorted.
            ignored: returns which of these paths git ignores; None: only the folders that no project tracks.
            notice: takes one plain sentence for the user.
            quiet_seconds: how long nothing may have changed.
            longest_seconds: after which time changes are told that never come to rest.
        """
        self._root = root.resolve()
        self._changed = changed
        self._ignored = ignored
        self._notice = notice
        self._quiet_seconds = quiet_seconds
        self._longest_seconds = longest_seconds
        self._globs: dict[str, str] = {}
        self._again = asyncio.Event()

    def set_globs(self, globs: Mapping[str, str]) -> None:
        """Say which loops wait for what."""
        if dict(globs) != self._globs:
            self._globs = dict(globs)
            self._again.set()

    async def serve(self) -> None:
        """Tell changes until cancelled."""
        while True:
            self._again.clear()
            folders = sorted({self._folder(glob) for glob in self._globs.values()})
            if not folders:
                await self._again.wait()
                continue
            try:
                await self._watch([folder for folder in folders if not _below(folder, folders)])
            except OSError as error:
                # Most often the system's limit of watched folders. Everything but these loops goes on.
                self._notice(
                    f"Files cannot be watched ({error.strerror or error}), so loops on change do not start by "
                    "themselves; run them by hand, or raise the system's limit and restart Selfloop."
                )
                await self._again.wait()

    async def _watch(self, folders: list[Path]) -> None:
        """Tell changes below these folders until they are others."""
        from watchfiles import Change, DefaultFilter, awatch

        usual = DefaultFilter(ignore_dirs=(*DefaultFilter.ignore_dirs, *OWN_FOLDERS))

        def wanted(change: Change, path: str) -> bool:
            return usual(change, path) and self._loops(self._relative(path)) != []

        async for changes in awatch(
            *folders,
            watch_filter=wanted,
            debounce=round(self._longest_seconds * 1000),
            step=round(self._quiet_seconds * 1000),
            stop_event=self._again,
            ignore_permission_denied=True,
        ):
            await self._tell(sorted({self._relative(path) for _, path in changes}))

    async def _tell(self, paths: list[str]) -> None:
        if self._ignored is not None:
            ignored = await self._ignored(paths)
            paths = [path for path in paths if path not in ignored]
        by_loop: dict[str, list[str]] = {}
        for path in paths:
            for loop_id in self._loops(path):
                by_loop.setdefault(loop_id, []).append(path)
        for loop_id, found in by_loop.items():
            self._changed(loop_id, tuple(found))

    def _loops(self, path: str) -> list[str]:
        return [loop_id for loop_id, glob in self._globs.items() if path and glob_pattern(glob).fullmatch(path)]

    def _relative(self, path: str) -> str:
        try:
            return Path(path).relative_to(self._root).as_posix()
        except ValueError:
            return ""

    def _folder(self, glob: str) -> Path:
        """Return the deepest folder that holds all that a glob can mean; watching what lies beside it would cost."""
        folder = self._root
        if "/" in glob:
            for part in glob.split("/")[:-1]:
                inner = folder / part
                if set(part) & set("*?[{") or inner.is_symlink() or not inner.is_dir():
                    break
                folder = inner
        return folder


def _below(folder: Path, folders: list[Path]) -> bool:
    return any(other in folder.parents for other in folders)
