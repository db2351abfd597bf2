"""Where our selves live: `<data>/self`, a bare repository of ours and an immutable folder for each generation.

    files ─▶ take_in ─▶ tree ─▶ amend (changes) ─▶ commit ─▶ refs/attempts/<run> ─▶ export ─▶ generations/<tree>/

Invariant: a folder is named by the tree of exactly its content, is made whole or not at all, and is looked through
before it is used: one that was edited by hand is found out. An attempt that was rejected keeps its ref, so nothing that
was ever tried is lost. One evolution at a time for a user, whichever window asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from selfloop.changes import FileChange
from selfloop.errors import RequestFailed, StoreError
from selfloop.evolution.source import files_below, store_tree, tree_of
from selfloop.sandbox.git import git
from selfloop.sandbox.objects import Objects
from selfloop.sandbox.trees import Entry
from selfloop.storage.disk import PRIVATE_FOLDER, saying, sync_folder, write_file

_ATTRIBUTES = "* -text -eol -crlf -filter -ident -working-tree-encoding\n"
_FILE, _PROGRAM, _FOLDER = 0o444, 0o555, 0o555


class Home:
    """The selves of one user."""

    def __init__(self, data: Path) -> None:
        """Name the places; nothing is read or made before `open`."""
        self.root = data / "self"
        self.git_dir = self.root / "repo.git"
        self.generations = self.root / "generations"
        self.evidence = self.root / "evidence"
        self.objects = Objects(self.git_dir, "sha1")

    async def open(self) -> None:
        """Make the repository and the folders where they are missing.

        Raises:
            StoreError, SandboxError: they cannot be made; nothing evolves then.
        """

        def folders() -> bool:
            with saying(f"Selfloop's home {self.root} could not be made, so nothing evolves"):
                for folder in (self.git_dir, self.generations, self.evidence):
                    folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
                # Said here and not in the middle of an evolution: the first thing that is written is this.
                write_file(self.root / "opened", f"{time.time():.0f}\n".encode())
                for left in self.generations.glob(".tmp-*"):
                    delete_folder(left)
                return (self.git_dir / "HEAD").is_file()

        if not await asyncio.to_thread(folders):
            await git(
                "init", "--bare", "--quiet", "--template=", "--object-format=sha1",
                git_dir=self.git_dir, config={"core.bare": "true"},
            )  # fmt: skip

        def furnish() -> None:
            with saying(f"Selfloop's home {self.root} could not be made, so nothing evolves"):
                info = self.git_dir / "info"
                for folder in (info, self.git_dir / "objects" / "pack"):
                    folder.mkdir(parents=True, exist_ok=True)
                write_file(info / "attributes", _ATTRIBUTES.encode())

        await asyncio.to_thread(furnish)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the user's one evolution for as long as the block runs.

        Raises:
            RequestFailed: another one is under way, here or in another window; nothing was begun.
        """
        from filelock import FileLock, Timeout

        with saying(f"Selfloop's home {self.root} could not be made, so nothing evolves"):
            self.root.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            # The system lets go of it when the process dies, so a kill leaves nothing to clear away.
            held = FileLock(str(self.root / "evolving.lock"), timeout=0, thread_local=False)
            try:
                held.acquire()
            except Timeout as error:
                raise RequestFailed(
                    "Another evolution is under way for this user, so none was begun; wait for its end, or cancel it."
                ) from error
        try:
            yield
        finally:
            held.release()

    # The repository

    async def take_in(self, files: Mapping[str, Path]) -> str:
        """Store files, and return their tree.

        Raises:
            StoreError, SandboxError: they cannot be read or stored.
        """
        batch = self.objects.batch()
        tree = await asyncio.to_thread(store_tree, files, batch)
        await self.objects.store(batch)
        return tree

    async def amend(self, tree: str, changes: Sequence[FileChange]) -> str:
        """Return the tree with changes carried out on it."""
        entries: dict[str, Entry] = {}
        batch = self.objects.batch()
        for change in changes:
            if change.old_path is not None and change.old_path != change.path:
                entries[change.old_path] = None
            entries[change.path] = None
            if change.post is not None:
                entries[change.path] = (batch.add(change.post), change.post_mode or 0o100644)
        amended = await self.objects.amend(tree, entries, batch)
        await self.objects.store(batch)
        return amended

    async def commit(self, tree: str, parents: Sequence[str], message: str) -> str:
        """Make a commit of a tree, and return its id; it is reachable once a ref names it."""
        who = f"Selfloop <selfloop@localhost> {time.time():.0f} +0000"
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
        text = "\n".join([*lines, "", message.strip(), ""])
        batch = self.objects.batch()
        name = batch.add(text.encode("utf-8", "replace"), "commit")
        await self.objects.store(batch)
        await asyncio.to_thread(self._sync)
        return name

    def set_ref(self, name: str, commit: str) -> None:
        """Have a ref such as `attempts/<run>` name a commit."""
        file = self.git_dir / "refs" / name
        with saying(f"The ref {name} of Selfloop's own repository could not be written"):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, f"{commit}\n".encode(), durable=True)

    def ref(self, name: str) -> str | None:
        """Return the commit that a ref names; None where there is none. Reads the disk."""
        with saying(f"The ref {name} of Selfloop's own repository could not be read"):
            try:
                return (self.git_dir / "refs" / name).read_text(encoding="ascii").strip()
            except FileNotFoundError:
                return None

    async def tree_of_commit(self, commit: str) -> str:
        """Return the tree of a commit.

        Raises:
            SandboxError: it is not there.
        """
        return (await git("rev-parse", "--verify", f"{commit}^{{tree}}", git_dir=self.git_dir)).decode().strip()

    async def diff(self, old: str, new: str) -> str:
        """Return what differs between two trees as a unified diff."""
        options = ("-r", "-p", "-M", "--no-color", "--no-ext-diff", "--no-textconv")
        return (await git("diff-tree", *options, old, new, git_dir=self.git_dir)).decode("utf-8", "replace")

    async def changed_paths(self, old: str, new: str) -> list[str]:
        """Return the paths that differ between two trees; of a rename both."""
        output = await git("diff-tree", "-r", "-z", "--name-only", "--no-renames", old, new, git_dir=self.git_dir)
        return [os.fsdecode(name) for name in output.split(b"\0") if name]

    async def read(self, tree: str) -> dict[str, tuple[bytes, int]]:
        """Return content and mode of every file of a tree, by path."""
        entries = await self.objects.list_tree(tree)
        contents = await self.objects.read(name for name, _ in entries.values())
        return {path: (contents[name], mode) for path, (name, mode) in entries.items()}

    def _sync(self) -> None:
        """Have what was stored survive a power cut: a ref must never name what is not there."""
        with saying("Selfloop's own repository could not be written"):
            packs = self.git_dir / "objects" / "pack"
            for file in packs.iterdir():
                if file.stat().st_mtime > time.time() - 600:
                    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        os.fsync(descriptor)
                    finally:
                        os.close(descriptor)
            sync_folder(packs)

    # Folders

    def folder(self, tree: str) -> Path:
        """Return where the folder of a tree lies, whether it is there or not."""
        return self.generations / tree

    async def export(self, tree: str) -> Path:
        """Return the folder of a tree, made where it is missing, and make sure that it holds exactly that tree.

        Raises:
            StoreError: it was edited by hand, or cannot be made.
            SandboxError: the repository does not hold the tree.
        """
        target = self.folder(tree)
        if await asyncio.to_thread(target.is_dir):
            await asyncio.to_thread(require_tree, target, tree)
            return target
        return await self.lay_out(tree, target)

    async def lay_out(self, tree: str, target: Path) -> Path:
        """Make a read-only folder of exactly a tree, whole or not at all, in the place of one that is there; return it.

        Raises:
            StoreError: it cannot be made.
            SandboxError: the repository does not hold the tree.
        """
        content = await self.read(tree)

        def write() -> None:
            temporary = target.with_name(f".tmp-{secrets.token_hex(8)}")
            try:
                with saying(f"The folder {target} could not be made"):
                    target.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
                    _lay_out(temporary, content)
                    require_tree(temporary, tree)
                    if target.exists():
                        delete_folder(target)
                    # Read-only before it gets its name, so that nobody ever finds it otherwise.
                    temporary.replace(target)
                    sync_folder(target.parent)
            except BaseException:
                delete_folder(temporary)
                raise

        await asyncio.to_thread(write)
        return target

    # Evidence

    def keep_evidence(self, parent: str, tree: str, evidence: Mapping[str, Any]) -> None:
        """Keep what the judge has found of a tree: it is never judged twice against the same parent."""
        with saying("The evidence of the judge could not be kept"):
            data = msgspec.json.format(msgspec.json.encode(dict(evidence)), indent=1)
            write_file(self._evidence(parent, tree), data, durable=True)

    def evidence_of(self, parent: str, tree: str) -> dict[str, Any] | None:
        """Return what the judge has found of a tree; None where it was not judged. Reads the disk.

        Raises:
            StoreError: it cannot be read.
        """
        with saying("The evidence of the judge could not be read"):
            try:
                found = msgspec.json.decode(self._evidence(parent, tree).read_bytes())
            except FileNotFoundError:
                return None
            except msgspec.DecodeError as error:
                raise StoreError(
                    "The evidence of the judge was changed by hand or damaged, so it does not count; evolve again."
                ) from error
        return found if isinstance(found, dict) else None

    def _evidence(self, parent: str, tree: str) -> Path:
        return self.evidence / f"{parent}-{tree}.json"


def require_tree(folder: Path, tree: str) -> None:
    """Make sure that a folder holds exactly a tree. Reads the disk.

    Raises:
        StoreError: it does not.
    """
    if tree_of(files_below(folder)) != tree:
        raise StoreError(
            f"{folder} was changed by hand, so this generation is not used; delete the folder, and it is made again."
        )


def _lay_out(folder: Path, content: Mapping[str, tuple[bytes, int]]) -> None:
    made = {folder}
    folder.mkdir(mode=0o755)
    for path, (data, mode) in content.items():
        if mode not in (0o100644, 0o100755) or path.startswith("/") or ".." in path.split("/"):
            raise StoreError(f"{path} of a generation is no plain file, so its folder was not made.")
        file = folder / path
        for above in reversed(file.relative_to(folder).parents[:-1]):
            if folder / above not in made:
                (folder / above).mkdir(mode=0o755)
                made.add(folder / above)
        file.write_bytes(data)
        file.chmod(_PROGRAM if mode == 0o100755 else _FILE)
    for place in sorted(made, reverse=True):
        place.chmod(_FOLDER)


def delete_folder(folder: Path) -> None:
    """Delete a folder that was made read-only, as far as that is possible."""
    with contextlib.suppress(OSError):
        for above, _, _ in os.walk(folder):
            Path(above).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
