"""The shadow repository: our own bare repository of what the user sees.

    the user's files ──scan──▶ an index of ours ──write-tree──▶ a tree   (raw bytes: no conversion, no filter)
    unsaved buffers ─────────▶ laid over it in a copy of the index ──▶ another tree

Objects that the user's repository has already are borrowed by `alternates`; what worktrees stand on is packed into the
shadow as well, so that the user's own `git gc` cannot take it away. The index keeps the stat cache, so that a snapshot
costs what changed. Invariant: the user's `.git` is only read, and all of the shadow may be deleted at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from selfloop.errors import SandboxError
from selfloop.sandbox.area import Area, is_state_folder
from selfloop.sandbox.git import GitError, git, split_nul
from selfloop.sandbox.ignores import IgnoreRules, Rules
from selfloop.sandbox.index import IndexFile, write_index
from selfloop.sandbox.objects import Objects
from selfloop.sandbox.origin import Origin, find_origin
from selfloop.sandbox.packs import Batch
from selfloop.sandbox.reading import TooMuch, read_files
from selfloop.sandbox.tracked import TrackedFiles
from selfloop.sandbox.trees import Entry

# It outranks every `.gitattributes`, so that bytes stay bytes.
_ATTRIBUTES = "* -text -eol -crlf -filter -ident -working-tree-encoding\n"
_FORMAT = 1
_MAX_NOTICES = 20
_OUTGROWN_BYTES = 2 << 30
_PATIENCE_SECONDS = (0.1, 0.3, 1.0)
"""How long to wait, again and again, for a git that a killed server has left behind."""

log = logging.getLogger(__name__)


@frozen
class Found:
    """What differs from an index."""

    take: tuple[bytes, ...]
    """Files to take in as they are now, or out if they are gone."""
    gone: tuple[bytes, ...]
    """Files to take out, whatever is on the disk."""
    rules: Rules


@define(eq=False)
class Shadow:
    """The shadow of one workspace, shared by its sessions. Open it with `Shadow.open`."""

    workspace: Path
    """The workspace's real path."""
    cache: Path
    origin: Origin
    objects: Objects
    area: Area
    ignores: IgnoreRules
    _tracked: TrackedFiles
    _notices: dict[str, None]
    _tree: str | None = None
    """The tree that the index stands for."""
    _lock: asyncio.Lock = field(factory=asyncio.Lock)

    @classmethod
    async def open(cls, workspace: Path, cache: Path) -> Shadow:
        """Open the shadow of a workspace below `cache`; make it where there is none.

        Raises:
            SandboxError: the workspace is no folder, or the inside of a repository; there is no git; no space is left.
        """
        workspace = Path(await asyncio.to_thread(os.path.realpath, workspace))
        cache = Path(await asyncio.to_thread(os.path.realpath, cache))
        origin = await asyncio.to_thread(find_origin, workspace)
        try:
            objects = await _prepare(cache, origin)
        except OSError as error:
            raise SandboxError(
                f"The sandbox's folder {cache} could not be made ({error.strerror}), so nothing was started; make room "
                "or mend its permissions."
            ) from error
        notices = dict.fromkeys(origin.notices)
        prefix = _prefix(workspace, origin.top)
        ignores = IgnoreRules(objects.git_dir, origin, cache, prefix)
        if prefix and await ignores.covers_folder(origin.top, prefix):
            # A workspace that the repository above ignores (one under a home folder in git, say) stands for itself.
            origin, prefix = Origin(workspace, None, None), ""
            ignores = IgnoreRules(objects.git_dir, origin, cache, prefix)
        area = Area(origin.top if prefix else workspace, prefix, objects.git_dir / "workspace.index")

        def notice(sentence: str) -> None:
            if len(notices) < _MAX_NOTICES:
                notices[sentence] = None

        tracked = TrackedFiles(origin, objects, ignores, notice)
        return cls(workspace, cache, origin, objects, area, ignores, tracked, notices)

    @property
    def git_dir(self) -> Path:
        """The bare repository."""
        return self.objects.git_dir

    @property
    def notices(self) -> list[str]:
        """What was left out and why: plain sentences for the user, each once."""
        return list(self._notices)

    async def snapshot(self, overlay: Mapping[str, bytes] | None = None) -> str:
        """Return the tree of the user's files as they are on the disk, with unsaved buffers laid over them.

        Left out are: what git ignores and does not track, `.git`, `.evo`, other repositories inside, special, huge and
        unreadable files, and names that are not UTF-8. What a user may wonder about leaves a sentence in `notices`.

        Args:
            overlay: unsaved texts by path; a file need not be on the disk yet.
        """
        async with self._lock:
            for wait_seconds in _PATIENCE_SECONDS:
                try:
                    return await self._snapshot(overlay or {})
                except GitError as error:
                    if error.index_is_locked:
                        await asyncio.sleep(wait_seconds)
                        continue
                    # Borrowed objects that the user's own `git gc` removed, an index torn by a crash, or a file that
                    # was replaced while git read it: the index is only a cache, so all is hashed anew, once.
                    log.warning("the shadow's index is made anew: %s", error.complaint)
                    await asyncio.to_thread(self._forget)
                    break
            return await self._snapshot(overlay or {})

    async def rebuild(self) -> None:
        """Forget what is known of the files, so that the next snapshot stores all of them in the shadow itself."""
        async with self._lock:
            await asyncio.to_thread(self._forget)

    async def scan(self, area: Area, *, extra: Collection[bytes] = ()) -> str:
        """Bring an area's index up to what is on the disk, and return its tree. The caller holds the area's lock.

        `extra` are files that count although they may be ignored.
        """
        for wait_seconds in _PATIENCE_SECONDS:
            try:
                return await self._scan(area, extra)
            except GitError as error:
                if not error.index_is_locked:
                    raise
                await asyncio.sleep(wait_seconds)
        return await self._scan(area, extra)

    async def read_blob(self, tree: str, path: str) -> bytes | None:
        """Return a file of a tree, None where the tree has none."""
        entry = (await self.objects.list_tree(tree, path)).get(path)
        return (await self.objects.read([entry[0]]))[entry[0]] if entry else None

    async def settle(self) -> None:
        """Bring the index up to date, so that the next snapshot has less to read. It may wait, and be left out."""
        async with self._lock:
            with contextlib.suppress(GitError):
                self._tree = await self.scan(self.area)
                await self.objects.tidy()

    async def _scan(self, area: Area, extra: Collection[bytes]) -> str:
        await asyncio.to_thread(area.unlock)
        await self._bring_up(area, await self._look(area, extra))
        return await self.objects.write_tree(area.index, area.prefix)

    async def _snapshot(self, overlay: Mapping[str, bytes]) -> str:
        area = self.area
        await asyncio.to_thread(area.unlock)
        missing, lost = await self._tracked.refresh(area)
        batch = self.objects.batch()
        if self._tree is None:
            self._tree = await self.objects.write_tree(area.index, area.prefix)
        found, entries = await asyncio.gather(
            self._look(area, missing, lost), self._overlay_entries(overlay, self._tree, batch)
        )
        try:
            # What changed since the index was brought up to date is usually little: it is read here and now.
            changed = await asyncio.to_thread(self._read_changed, area, found, batch)
        except TooMuch:
            batch = self.objects.batch()
            self._tree, changed = None, {}
            await self._bring_up(area, found)
            self._tree = await self.objects.write_tree(area.index, area.prefix)
            entries = await self._overlay_entries(overlay, self._tree, batch)
        tree = await self.objects.amend(self._tree, {**changed, **entries}, batch)
        await self.objects.store(batch)
        return tree

    async def _look(self, area: Area, extra: Collection[bytes] = (), recheck: bool = False) -> Found:
        """Find out what differs from an area's index.

        Args:
            area: the files and their index.
            extra: files to take in although they may be ignored.
            recheck: whether the index may hold what is ignored by now.
        """
        rules = await self.ignores.current(area)
        changed, new = await asyncio.gather(
            self._list(area, "diff-files", "--name-only", "--ignore-submodules=all"),
            self._list(
                area,
                "ls-files",
                "--others",
                *rules.options,
                *(("--", f":(literal){area.prefix}") if area.prefix else ()),
            ),
        )
        gone: list[bytes] = []
        if recheck or rules.changed or any(name.endswith(b".gitignore") for name in (*changed, *new)):
            ignored = await self._list(area, "ls-files", "--cached", "--ignored", *rules.options)
            kept = {*self._tracked.names, *extra}
            gone = [name for name in ignored if name not in kept]
        dropped = set(gone)
        names = [name for name in dict.fromkeys((*changed, *new, *extra)) if name not in dropped]
        take, leave = await asyncio.to_thread(self._judge, area, names)
        known = set(changed)
        return Found(tuple(take), (*gone, *(name for name in leave if name in known)), rules)

    async def _bring_up(self, area: Area, found: Found) -> None:
        """Bring an area's index up to date."""
        await self._list(area, "update-index", "--force-remove", "--stdin", names=found.gone)
        await self._list(area, "update-index", "--add", "--remove", "--replace", "--stdin", names=found.take)
        self.ignores.settle(area, found.rules)

    def _read_changed(self, area: Area, found: Found, batch: Batch) -> dict[str, Entry]:
        """Read the files that have changed, and return their entries; blocks on the disk."""
        entries: dict[str, Entry] = {}
        for name, entry in read_files(area.top, found.take).items():
            path = os.fsdecode(name).removeprefix(area.prefix)
            entries[path] = (batch.add(entry[0]), entry[1]) if entry else None
        for name in found.gone:
            entries[os.fsdecode(name).removeprefix(area.prefix)] = None
        return entries

    async def _list(self, area: Area, *arguments: str, names: Sequence[bytes] | None = None) -> list[bytes]:
        """Run git on an area, with names to work on (nothing is run for none), and return the names it lists."""
        if names is not None and not names:
            return []
        command, *options = arguments
        stdin = None if names is None else b"".join(name + b"\0" for name in names)
        where = {"git_dir": self.git_dir, "work_tree": area.top, "index": area.index}
        return split_nul(await git(command, "-z", *options, stdin=stdin, **where))

    def _judge(self, area: Area, names: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Tell which names to bring up to date, and which must not be in the index."""
        take: list[bytes] = []
        leave: list[bytes] = []
        for name in names:
            # What git tracks is the repository's anyway, and what the agent links in a worktree is its own.
            why = area.why_left_out(name, single=area is self.area and name not in self._tracked.names)
            (take if why is None else leave).append(name)
            if why and len(self._notices) < _MAX_NOTICES:
                self._notices[why] = None
        return take, leave

    async def _overlay_entries(self, overlay: Mapping[str, bytes], tree: str, batch: Batch) -> dict[str, Entry]:
        """Return the entries of unsaved buffers, without those that git ignores and the tree does not have."""
        if not overlay:
            return {}
        placed = await asyncio.to_thread(self._place, overlay)
        ignored = await self.ignores.which(self.area, await self.objects.lacks(tree, placed))
        return {name: (batch.add(data), mode) for name, (data, mode) in placed.items() if name not in ignored}

    def _place(self, overlay: Mapping[str, bytes]) -> dict[str, tuple[bytes, int]]:
        """Return content and mode by real path: a buffer opened through a link belongs to the file behind it."""
        placed: dict[str, tuple[bytes, int]] = {}
        for path, data in overlay.items():
            with contextlib.suppress(OSError, ValueError):  # A name that cannot be on the disk at all.
                real = Path(os.path.realpath(self.workspace / path))
                if real == self.workspace or not real.is_relative_to(self.workspace) or real.is_dir():
                    continue
                name = real.relative_to(self.workspace).as_posix()
                if is_state_folder(name.encode()) or ".git" in name.casefold().split("/"):
                    continue
                executable = real.is_file() and bool(real.stat().st_mode & 0o100)
                placed[name] = (data, 0o100755 if executable else 0o100644)
        return placed

    def _forget(self) -> None:
        temporary = self.objects.temporary_name()
        temporary.write_bytes(write_index(IndexFile([]), self.objects.object_format))
        temporary.replace(self.area.index)
        self._tree = None
        self._tracked.forget()
        self.objects.forget()


async def _prepare(cache: Path, origin: Origin) -> Objects:
    """Make or mend the bare repository."""
    objects = Objects(cache / "shadow.git", origin.object_format)
    git_dir = objects.git_dir
    marker, expected = git_dir / "selfloop-format", f"{_FORMAT} {origin.object_format}\n"

    def tidy() -> bool:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        sound = marker.is_file() and marker.read_text(encoding="utf-8") == expected
        if git_dir.exists() and (not sound or _has_outgrown(cache, git_dir)):
            shutil.rmtree(git_dir)
        git_dir.mkdir(exist_ok=True)
        for left in git_dir.glob("tmp-*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
        return marker.is_file()

    if not await asyncio.to_thread(tidy):
        arguments = ("init", "--bare", "--quiet", "--template=", f"--object-format={origin.object_format}")
        await git(*arguments, git_dir=git_dir, config={"core.bare": "true"})

    def furnish() -> None:
        info, objects_info = git_dir / "info", git_dir / "objects" / "info"
        for folder in (info, objects_info, git_dir / "objects" / "pack"):
            folder.mkdir(parents=True, exist_ok=True)
        (info / "attributes").write_text(_ATTRIBUTES, encoding="utf-8")
        borrowed = str(origin.objects) if origin.objects else ""
        # A line break in the path cannot be written there: then nothing is borrowed, and everything is hashed.
        (objects_info / "alternates").write_bytes(os.fsencode(borrowed) + b"\n" if "\n" not in borrowed else b"")
        marker.write_text(expected, encoding="utf-8")

    await asyncio.to_thread(furnish)
    return objects


def _has_outgrown(cache: Path, git_dir: Path) -> bool:
    """Tell whether the shadow has become large and nothing stands on it: then it is quicker made than pruned."""
    worktrees = cache / "worktrees"
    if worktrees.is_dir() and any(worktrees.iterdir()):
        return False
    return sum(file.stat().st_size for file in (git_dir / "objects" / "pack").glob("*.pack")) > _OUTGROWN_BYTES


def _prefix(workspace: Path, top: Path) -> str:
    inner = workspace.relative_to(top).as_posix()
    return "" if inner == "." else f"{inner}/"
