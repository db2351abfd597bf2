"""What the user's own index knows: which files are tracked although ignored, and hashes that need not be made again.

Invariant: the index is parsed by us or joined in a copy; git never runs where it lies.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from selfloop.sandbox.area import Area, is_state_folder, is_utf8
from selfloop.sandbox.git import GitError, git
from selfloop.sandbox.ignores import IgnoreRules
from selfloop.sandbox.index import GITLINK, IndexEntry, IndexFile, UnreadableIndex, read_index, trustworthy, write_index
from selfloop.sandbox.objects import Objects
from selfloop.sandbox.origin import Origin, read_small

MAX_INDEX_BYTES = 1 << 30


class TrackedFiles:
    """The files that the user's repository tracks, read again when its index file has changed."""

    def __init__(self, origin: Origin, objects: Objects, ignores: IgnoreRules, notice: Callable[[str], None]) -> None:
        self.names: frozenset[bytes] = frozenset()
        self._origin = origin
        self._objects = objects
        self._ignores = ignores
        self._notice = notice
        self._signature: tuple[int, int, int] | None = None

    def forget(self) -> None:
        """Read the user's index again next time."""
        self._signature = None

    async def refresh(self, area: Area) -> tuple[Collection[bytes], bool]:
        """Look at the user's index, if it has changed.

        Where `area` has no index yet, the trustworthy part of the user's becomes it.

        Returns:
            The tracked files that the area's index lacks, and whether it may hold files that are tracked no longer.
        """
        index = self._origin.index
        if index is None:
            return (), False
        try:
            status = await asyncio.to_thread(index.stat)
        except OSError:
            return (), False
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        fresh = not await asyncio.to_thread(area.index.exists)
        if self._signature == signature and not fresh:
            return (), False
        prefix = area.prefix.encode()
        theirs = await self._read(index)
        entries = [entry for entry in theirs.entries if entry.path.startswith(prefix)]
        for entry in entries:
            if entry.mode == GITLINK and is_utf8(entry.path):
                name = entry.path[len(prefix) :].decode()
                self._notice(f"{name!r} is a submodule, so the agent neither sees nor changes what is in it.")
        before, first = self.names, self._signature is None
        self.names = frozenset(entry.path for entry in entries if entry.mode != GITLINK)
        self._signature = signature
        if fresh:
            return self.names - await self._adopt(area, theirs, entries, status.st_mtime_ns), False
        known = await asyncio.to_thread(self._known, area)
        return self.names - known, first or not before <= self.names

    async def _read(self, index: Path) -> IndexFile:
        """Return the user's index; where it is split or sparse, git joins a copy of it first."""
        data = await asyncio.to_thread(read_small, index, MAX_INDEX_BYTES) or b""
        try:
            return await asyncio.to_thread(read_index, data, self._objects.hash_bytes)
        except UnreadableIndex:
            pass
        git_dir = self._objects.git_dir
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=git_dir, prefix="tmp-"))
        copy = folder / "index"

        def lay_out() -> None:
            copy.write_bytes(data)
            for file in index.parent.glob("sharedindex.*"):
                if (content := read_small(file, MAX_INDEX_BYTES)) is not None:
                    (git_dir / file.name).write_bytes(content)

        def clear() -> None:
            for file in git_dir.glob("sharedindex.*"):
                file.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)

        try:
            await asyncio.to_thread(lay_out)
            await git("update-index", "--no-split-index", "--force-write-index", git_dir=git_dir, index=copy)
            return await asyncio.to_thread(lambda: read_index(copy.read_bytes(), self._objects.hash_bytes))
        except (GitError, UnreadableIndex, OSError):
            self._notice("The repository's index could not be read, so files that it tracks but ignores are left out.")
            return IndexFile([])
        finally:
            await asyncio.to_thread(clear)

    async def _adopt(
        self, area: Area, theirs: IndexFile, entries: list[IndexEntry], modified_ns: int
    ) -> frozenset[bytes]:
        """Make the trustworthy part of the user's index the area's own, and return the names that it holds."""
        if await asyncio.to_thread(self._ignores.may_convert, [entry.path for entry in entries]):
            return frozenset()
        length = len(area.prefix)
        entries = [entry for entry in entries if is_utf8(entry.path) and not is_state_folder(entry.path[length:])]
        sizes = await self._objects.sizes([entry.object_id.hex() for entry in entries])
        kept = trustworthy(entries, lambda some: [sizes[entry.object_id.hex()] for entry in some])

        def write() -> None:
            temporary = self._objects.temporary_name()
            whole = IndexFile(kept, theirs.trees if len(kept) == len(theirs.entries) else b"")
            temporary.write_bytes(write_index(whole, self._objects.object_format))
            # git looks again at a file that was changed when the index was, or later: this keeps its eyes open.
            os.utime(temporary, ns=(modified_ns, modified_ns))
            temporary.replace(area.index)

        await asyncio.to_thread(write)
        return frozenset(entry.path for entry in kept)

    def _known(self, area: Area) -> frozenset[bytes]:
        try:
            entries = read_index(area.index.read_bytes(), self._objects.hash_bytes).entries
        except (OSError, UnreadableIndex):
            return frozenset()
        return frozenset(entry.path for entry in entries)
