"""Worktrees kept ready, so that a session starts with what changed and not with a checkout.

Invariants: what waits in the pool has been seen to be unchanged since it was reset; whatever cannot be reset is thrown
away. A folder is somebody's or waits here, never both: whoever works on one has it in `_held` before the first wait.
Background work is held here and ended by `close`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Coroutine, Mapping
from pathlib import Path
from typing import Any

from selfloop.errors import SandboxError
from selfloop.sandbox.git import GitError
from selfloop.sandbox.shadow import Shadow
from selfloop.sandbox.worktree import Worktree, delete_folder, new_id

_ID = re.compile(r"[0-9a-f]{16}")
_AFTER_SECONDS = 0.5
"""How long after a worktree was handed out the housekeeping begins: it would only slow down what it is for."""

log = logging.getLogger(__name__)


class Pool:
    """The worktrees of one shadow: `size` are made ready ahead of time, and as many again kept when they come back.

    A round of a loop takes two, one after the other.
    """

    def __init__(self, shadow: Shadow, cache: Path, size: int = 1) -> None:
        self._shadow = shadow
        self._folder = cache / "worktrees"
        self._size = size
        self._ready: list[Worktree] = []
        self._held: set[str] = set()
        self._kept: str | None = None
        self._keeping = asyncio.Lock()
        self._filling = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def acquire(self, overlay: Mapping[str, bytes] | None = None) -> Worktree:
        """Return a worktree of the user's files as they are now, unsaved buffers included.

        Raises:
            SandboxError: the files could not be read, or there is no room for a copy.
        """
        try:
            worktree = await self._acquire(await self._shadow.snapshot(overlay))
        except GitError as error:
            if not error.objects_are_missing:
                raise
            # What was borrowed is gone from the user's repository: everything is stored anew, and tried once more.
            await self._shadow.rebuild()
            worktree = await self._acquire(await self._shadow.snapshot(overlay))
        self._afterwards(lambda: self._keep(worktree))
        self._afterwards(self.refill)
        return worktree

    async def acquire_tree(self, tree: str) -> Worktree:
        """Return a clean worktree of a tree that another one stands for (`Worktree.tree`).

        Raises:
            SandboxError: there is no room for a copy.
        """
        worktree = await self._acquire(tree)
        self._afterwards(self.refill)
        return worktree

    async def reopen(self, worktree_id: str) -> Worktree | None:
        """Open the worktree of an earlier run again; None if nothing of it is left."""
        if not _ID.fullmatch(worktree_id) or worktree_id in self._held:
            return None
        self._held.add(worktree_id)
        worktree = None
        try:
            worktree = await Worktree.load(self._shadow, self._folder / worktree_id)
        finally:
            if worktree is None or worktree.ready:
                self._held.discard(worktree_id)
        return None if worktree is None or worktree.ready else worktree

    async def release(self, worktree: Worktree) -> None:
        """Take a worktree back: it is reset and kept, or deleted."""
        try:
            if len(self._ready) < 2 * self._size and not self._closed:
                try:
                    await worktree.reset()
                    if await worktree.is_unchanged():
                        await worktree.mark(ready=True)
                        self._ready.append(worktree)
                        return
                except SandboxError as error:
                    log.info("worktree %s could not be reset and is deleted: %s", worktree.id, error)
            await worktree.delete()
        finally:
            self._held.discard(worktree.id)

    async def refill(self) -> None:
        """Bring the pool to its size: with what an earlier run has left ready, then with new worktrees."""
        async with self._filling:
            if not self._closed and len(self._ready) < self._size:
                for folder in await asyncio.to_thread(self._folders):
                    await self._adopt(folder)
            while not self._closed and len(self._ready) < self._size:
                tree = await self._shadow.snapshot()
                folder = self._folder / new_id()
                self._held.add(folder.name)
                try:
                    worktree = await Worktree.create(self._shadow, folder, tree)
                    await worktree.mark(ready=True)
                    self._ready.append(worktree)
                finally:
                    self._held.discard(folder.name)

    async def prune(self, keep: Collection[str]) -> None:
        """Delete the worktrees of earlier runs that no session needs any more."""
        for folder in await asyncio.to_thread(self._folders):
            known = folder.name in keep or folder.name in self._held
            if not known and all(worktree.folder != folder for worktree in self._ready):
                await asyncio.to_thread(delete_folder, folder)

    async def settle(self) -> None:
        """Wait until the work in the background is done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """End the work in the background. Worktrees stay where they are, for the next run."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _acquire(self, tree: str) -> Worktree:
        while self._ready:
            worktree = self._ready.pop()
            self._held.add(worktree.id)  # From now on: on the disk it is still marked as ready.
            try:
                await worktree.advance(tree)
            except SandboxError as error:
                log.info("ready worktree %s is of no use: %s", worktree.id, error)
                await worktree.delete()
                self._held.discard(worktree.id)
                continue
            except BaseException:
                self._held.discard(worktree.id)
                raise
            return worktree
        folder = self._folder / new_id()
        self._held.add(folder.name)
        try:
            return await Worktree.create(self._shadow, folder, tree)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(delete_folder, folder))
            self._held.discard(folder.name)
            if isinstance(error, OSError):
                raise SandboxError(
                    f"The agent's copy of the files could not be made ({error.strerror}), so nothing was started; make "
                    "room and try again."
                ) from error
            raise

    async def _adopt(self, folder: Path) -> None:
        """Take a worktree of an earlier run into the pool, if it is still what it was."""
        if len(self._ready) >= self._size or folder.name in self._held:
            return
        if any(worktree.folder == folder for worktree in self._ready):
            return
        self._held.add(folder.name)
        try:
            worktree = await Worktree.load(self._shadow, folder)
            if worktree is None or not worktree.ready:
                return
            try:
                if not await worktree.is_unchanged():
                    await worktree.reset()
            except SandboxError:
                await worktree.delete()
                return
            self._ready.append(worktree)
        finally:
            self._held.discard(folder.name)

    def _folders(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(folder for folder in self._folder.iterdir() if _ID.fullmatch(folder.name))

    def _afterwards(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def later() -> None:
            await asyncio.sleep(_AFTER_SECONDS)
            await work()

        self._start(later())

    async def _keep(self, worktree: Worktree) -> None:
        """Do what a session need not wait for: make its base our own, and bring the indexes up to date."""
        tree = worktree.base
        async with self._keeping:
            await self._shadow.settle()
            if worktree.id in self._held:  # Else it has come back already, and may be gone.
                await worktree.git_view()
            await self._shadow.objects.keep([tree], known=[self._kept] if self._kept else [])
            self._kept = tree

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("work in the background of the pool failed: %s", error)
