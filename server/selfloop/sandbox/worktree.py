"""A worktree: the agent's own copy of what the user sees, and the tree that it stands on.

    base ── the user's text as the agent was last given it ──▶ sync() brings in what the user has typed since
      └──── changes(): base → the files as the agent has left them

Invariant: the user's files are never written here, and the state beside the files (`state.json`) is replaced whole, so
that a kill at any moment leaves a worktree that can be opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from selfloop.changes import FileChange, file_change
from selfloop.errors import PathRefused, SandboxError
from selfloop.sandbox.area import Area
from selfloop.sandbox.git import GitError, git, split_nul
from selfloop.sandbox.gitview import GitView
from selfloop.sandbox.merge import Plan, compare, merge_texts
from selfloop.sandbox.paths import Door
from selfloop.sandbox.protected import protected_among
from selfloop.sandbox.shadow import Shadow
from selfloop.sandbox.trees import Entry

_RENAME_LIMIT = "400"
_MOST_FILES = 800
_MOST_BYTES = 64 << 20


@define(eq=False)
class Worktree:
    """One worktree. A `Pool` makes it; `path` is its folder, `door` the way to its files."""

    id: str
    folder: Path
    """Where everything of it lies; the files are in `path`."""
    shadow: Shadow
    area: Area
    base: str
    """The tree that the agent's changes are counted from."""
    door: Door = field(init=False)
    """The way of the agent's tools to the files."""
    _hands: Door = field(init=False)
    """Our own way: what goes by it is no change of the agent's."""
    _indexed: str | None = None
    """The tree that the index is known to stand for."""
    ready: bool = False
    """Whether it waits in the pool, unchanged since it was last reset to `base`."""
    written: set[str] = field(factory=set)
    """What was written through the door: it counts as changed even where git would ignore it."""
    view: GitView = field(init=False)
    _viewed: str | None = None
    _protected: tuple[str, tuple[str, ...]] | None = None
    _lock: asyncio.Lock = field(factory=asyncio.Lock)
    _saving: threading.Lock = field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self.door = Door(self.area.folder, on_write=self._note_written)
        self._hands = Door(self.area.folder)
        self.view = GitView(self.folder / "git", self.shadow)

    @property
    def path(self) -> Path:
        """The folder that stands for the workspace."""
        return self.area.folder

    @classmethod
    async def create(cls, shadow: Shadow, folder: Path, tree: str) -> Worktree:
        """Make a worktree of a tree."""
        area = _area(shadow, folder)
        worktree = cls(folder.name, folder, shadow, area, tree)

        def lay_out() -> None:
            area.folder.mkdir(parents=True)
            # The folders above the workspace may say what is ignored in it.
            above = shadow.area.top
            for part in ("", *Path(area.prefix).parts[:-1]):
                above = above / part
                rules = above / ".gitignore"
                if area.prefix and rules.is_file() and not rules.is_symlink():
                    target = area.top / above.relative_to(shadow.area.top) / ".gitignore"
                    shutil.copyfile(rules, target)

        await asyncio.to_thread(lay_out)
        await worktree._read_tree(await shadow.objects.rooted(tree, area.prefix))
        await worktree._save()
        return worktree

    @classmethod
    async def load(cls, shadow: Shadow, folder: Path) -> Worktree | None:
        """Open a worktree again; None if it is not there, or nothing is left of what it stood on."""

        def read() -> dict[str, Any] | None:
            try:
                state = json.loads((folder / "state.json").read_bytes())
            except (OSError, ValueError):
                return None
            return state if isinstance(state, dict) and isinstance(state.get("base"), str) else None

        state = await asyncio.to_thread(read)
        area = _area(shadow, folder)
        if state is None or not await asyncio.to_thread(area.folder.is_dir):
            return None
        try:
            await shadow.objects.require_tree(state["base"])
        except SandboxError:
            return None
        written = {path for path in state.get("written", ()) if isinstance(path, str)}
        return cls(folder.name, folder, shadow, area, state["base"], ready=state.get("ready") is True, written=written)

    async def changes(self) -> list[FileChange]:
        """Return what the agent has changed since `base`: renames found, modes, links and binary files included."""
        return (await self.compared())[1]

    async def compared(self) -> tuple[str, list[FileChange]]:
        """Return the tree that the files stand for now, and what the agent has changed in it, as `changes` does."""
        async with self._lock:
            tree = await self._scan()
            return tree, await self._compare(self.base, tree)

    async def sync(self, overlay: Mapping[str, bytes] | None = None, *, yielding: bool = False) -> list[str]:
        """Bring the user's text as it is now into the worktree.

        Where the agent has changed the same file, the two are merged; `base` becomes the user's text.

        Returns:
            The paths that could not be merged: they and their base stay as they were, or, yielding, the user's lines
            have replaced the agent's where they clash.
        """
        async with self._lock:
            user = await self._user_tree(overlay)
            if user == self.base:
                return []
            mine = await self._scan()
            if mine == self.base:
                await self._move(mine, user)
                await self._set_base(user)
                return []
            plan = Plan.of(await self._differences(self.base, user), await self._differences(self.base, mine))
            target = await self.shadow.objects.amend(mine, plan.taken)
            await self._move(mine, target)
            unmerged = await self._merge(plan, yielding)
            kept = {path: plan.user[path][0] for path in (*plan.clashes, *([] if yielding else unmerged))}
            await self._set_base(await self.shadow.objects.amend(user, kept))
            return sorted([*plan.clashes, *unmerged])

    async def restore(self, path: str, data: bytes | None, mode: int | None) -> None:
        """Put a file back to the given bytes and mode; None: it is deleted if it is there."""
        async with self._lock:
            await asyncio.to_thread(self._put, path, data, mode)

    async def advance(self, tree: str) -> None:
        """Turn an unchanged worktree into one of another tree."""
        async with self._lock:
            await self._move(self.base, tree)
            self.ready = False
            await self._set_base(tree)

    async def reset(self) -> None:
        """Throw away every change, ignored files included."""
        async with self._lock:
            await asyncio.to_thread(self.area.unlock)
            where = {"git_dir": self.shadow.git_dir, "work_tree": self.area.top, "index": self.area.index}
            self._indexed = None
            root = await self.shadow.objects.rooted(self.base, self.area.prefix)
            await git("read-tree", "--reset", "-u", root, **where)
            within = (f":(literal){self.area.prefix}",) if self.area.prefix else ()
            await git("clean", "-ffdxq", "--", *within, **where)
            self.written.clear()

    async def git_view(self) -> Path:
        """Return the folder that stands for `.git` in the jail."""
        async with self._lock:
            if self._viewed != self.base:
                mine = await self._scan()
                changed = await self._differences(self.base, mine)
                await self.view.refresh(self.area, {path: entry for path, (entry, _) in changed.items()})
                self._viewed = self.base
            return self.view.folder

    async def protected_places(self) -> tuple[str, ...]:
        """Return the protected files and folders of the base, outermost first."""
        async with self._lock:
            if self._protected is None or self._protected[0] != self.base:
                paths = await self.shadow.objects.list_tree(self.base)
                self._protected = (self.base, await asyncio.to_thread(protected_among, paths))
            return self._protected[1]

    async def mark(self, *, ready: bool) -> None:
        """Note whether it waits in the pool."""
        self.ready = ready
        await self._save()

    async def is_unchanged(self) -> bool:
        """Tell whether the files are those of `base`, as a pool's must be."""
        async with self._lock:
            return await self._scan() == self.base

    async def delete(self) -> None:
        """Delete the worktree with all that is in it."""
        await asyncio.to_thread(delete_folder, self.folder)

    async def _user_tree(self, overlay: Mapping[str, bytes] | None) -> str:
        """Return the user's files, with those that git ignores but the agent has written itself."""
        tree = await self.shadow.snapshot(overlay)
        if not self.written:
            return tree
        known = await self.shadow.objects.list_tree(tree, *self.written)
        batch = self.shadow.objects.batch()

        def look() -> dict[str, Entry]:
            found: dict[str, Entry] = {}
            door = Door(self.shadow.workspace)
            for path in self.written - known.keys():
                with contextlib.suppress(PathRefused):
                    if (entry := door.read_entry(path)) is not None:
                        found[path] = (batch.add(entry[0]), entry[1])
            return found

        tree = await self.shadow.objects.amend(tree, await asyncio.to_thread(look), batch)
        await self.shadow.objects.store(batch)
        return tree

    async def _scan(self) -> str:
        self._indexed = None
        try:
            tree = await self.shadow.scan(self.area, extra=self._written_names())
        except GitError as error:
            if not error.objects_are_missing:
                raise
            # The user's own `git gc` took objects that were only borrowed: all files are stored anew.
            await asyncio.to_thread(self.area.index.unlink, True)
            tree = await self.shadow.scan(self.area, extra=self._written_names())
        self._indexed = tree
        return tree

    def _written_names(self) -> list[bytes]:
        return [os.fsencode(self.area.prefix + path) for path in self.written]

    async def _compare(self, old: str, new: str) -> list[FileChange]:
        """Return the changes from one tree to another."""
        if old == new:
            return []
        arguments = ("diff-tree", "-r", "-z", "--raw", "-M", f"-l{_RENAME_LIMIT}", old, new)
        records = iter(split_nul(await git(*arguments, git_dir=self.shadow.git_dir)))
        found: list[tuple[Entry, Entry, str, str | None]] = []
        for head in records:
            old_mode, new_mode, old_id, new_id, status = head[1:].decode().split(" ")
            path = os.fsdecode(next(records))
            old_path = None
            if status.startswith("R"):
                old_path, path = path, os.fsdecode(next(records))
            found.append((_entry(old_id, old_mode), _entry(new_id, new_mode), path, old_path))
        sides = [entry for old_entry, new_entry, _, _ in found for entry in (old_entry, new_entry) if entry]
        contents = await self.shadow.objects.read(name for name, _ in sides)

        def build() -> list[FileChange]:
            changes = []
            for old_entry, new_entry, path, old_path in found:
                change = file_change(
                    path,
                    pre=contents[old_entry[0]] if old_entry else None,
                    post=contents[new_entry[0]] if new_entry else None,
                    pre_mode=old_entry[1] if old_entry else None,
                    post_mode=new_entry[1] if new_entry else None,
                    old_path=old_path,
                )
                if change is not None:
                    changes.append(change)
            return changes

        return await asyncio.to_thread(build)

    async def _differences(self, old: str, new: str) -> dict[str, tuple[Entry, Entry]]:
        """Return the files that differ between two trees, without looking for renames."""
        output = await git("diff-tree", "-r", "-z", "--raw", "--no-renames", old, new, git_dir=self.shadow.git_dir)
        records = iter(split_nul(output))
        return await asyncio.to_thread(lambda: compare(records))

    async def _merge(self, plan: Plan, yielding: bool) -> list[str]:
        """Merge the files that both have changed; return those that could not be. Yielding, the user's lines win."""
        wanted = [entry[0] for path in plan.both for entry in plan.sides(path) if entry]
        contents = await self.shadow.objects.read(wanted)
        conflicts: list[str] = []
        for path in plan.both:
            base, user, mine = plan.sides(path)
            merged = None
            if base and user and mine and 0o120000 not in (base[1], user[1], mine[1]):
                texts = (contents[base[0]], contents[user[0]], contents[mine[0]])
                merged = await merge_texts(*texts, git_dir=self.shadow.git_dir)
                if merged is None:
                    conflicts.append(path)
                    if yielding:
                        merged = await merge_texts(*texts, git_dir=self.shadow.git_dir, user_wins=True)
            else:
                conflicts.append(path)
            if merged is None or not (base and user and mine):
                if yielding:
                    data, kind = (contents[user[0]], user[1]) if user else (None, None)
                    await asyncio.to_thread(self._put, path, data, kind)
                continue
            mode = user[1] if user[1] != base[1] else mine[1]
            await asyncio.to_thread(self._hands.write_bytes, path, merged, mode)
        return conflicts

    async def _move(self, old: str, new: str) -> None:
        """Bring the files from one tree to another; only what differs between them is touched."""
        if old == new:
            return
        differences = await self._differences(old, new)
        names = [now[0] for _, now in differences.values() if now]
        sizes = await self.shadow.objects.sizes(names) if len(names) <= _MOST_FILES else {}
        if len(names) <= _MOST_FILES and sum(size or 0 for size in sizes.values()) <= _MOST_BYTES:
            # Few files: quicker by hand. The index notices at the next look that they have changed.
            contents = await self.shadow.objects.read(names)
            await asyncio.to_thread(self._lay_down, differences, contents)
            return
        if self._indexed != old:
            await self._scan()
        rooted = self.shadow.objects.rooted
        await self._read_tree(await rooted(old, self.area.prefix), await rooted(new, self.area.prefix))

    def _lay_down(self, differences: Mapping[str, tuple[Entry, Entry]], contents: Mapping[str, bytes]) -> None:
        """Write and delete files by hand; what makes room goes first."""
        for path, (before, now) in differences.items():
            if before and not now:
                self._put(path, None, None)
        for path, (_, now) in differences.items():
            if now:
                self._put(path, contents[now[0]], now[1])

    async def _read_tree(self, *trees: str) -> None:
        await asyncio.to_thread(self.area.unlock)
        where = {"git_dir": self.shadow.git_dir, "work_tree": self.area.top, "index": self.area.index}
        self._indexed = None
        await git("read-tree", "--reset" if len(trees) > 1 else "-m", "-u", *trees, **where)

    def _put(self, path: str, data: bytes | None, mode: int | None) -> None:
        if data is None:
            with contextlib.suppress(PathRefused):
                self._hands.delete(path, link=True)
                self._remove_empty_folders(path)
            return
        self._hands.write_bytes(path, data, mode or 0o100644)

    def _remove_empty_folders(self, path: str) -> None:
        """Remove the folders that a deletion has left empty, as git would."""
        with contextlib.suppress(OSError, PathRefused):
            for above in list(Path(path).parents)[:-1]:
                if self.door.stat(above.as_posix()).kind == "folder" and not (self.path / above).is_symlink():
                    (self.path / above).rmdir()

    async def _set_base(self, tree: str) -> None:
        self.base = tree
        await self._save()

    async def _save(self) -> None:
        await asyncio.to_thread(self._save_now)

    def _save_now(self) -> None:
        with self._saving:
            state = {"base": self.base, "ready": self.ready, "written": sorted(self.written)}
            temporary = self.folder / "state.new"
            temporary.write_text(json.dumps(state), encoding="utf-8")
            temporary.replace(self.folder / "state.json")

    def _note_written(self, path: str) -> None:
        if path not in self.written:
            self.written.add(path)
            self._save_now()


def new_id() -> str:
    """Return a worktree's name."""
    return secrets.token_hex(8)


def delete_folder(folder: Path) -> None:
    """Delete a folder in which commands may have taken away their own permissions."""

    def allow(_function: object, path: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            for again in (Path(path).parent, Path(path)):
                if not again.is_symlink():
                    again.chmod(0o700)
            if Path(path).is_dir() and not Path(path).is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                Path(path).unlink()

    shutil.rmtree(folder, onerror=allow)


def _area(shadow: Shadow, folder: Path) -> Area:
    return Area(folder / "root", shadow.area.prefix, folder / "index")


def _entry(name: str, mode: str) -> Entry:
    return (name, int(mode, 8)) if int(mode, 8) else None
