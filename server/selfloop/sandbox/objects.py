"""Objects and trees of the shadow: written, read, amended, and kept from the user's own `git gc`.

Invariant: nothing here looks at a folder of files; objects never change, and a tree is stored after all that it names.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import define, field

from selfloop.errors import SandboxError
from selfloop.sandbox.git import GitError, git, split_nul
from selfloop.sandbox.packs import Batch, write_pack
from selfloop.sandbox.trees import FOLDER_MODE, Entry, Listing, TreeChange, format_tree, parse_tree

_MOST_PACKS = 40


@define(eq=False)
class Objects:
    """The object store of a shadow."""

    git_dir: Path
    object_format: str
    """`sha1` or `sha256`."""
    _stored: set[str] = field(factory=set)

    @property
    def hash_bytes(self) -> int:
        """The length of an object id in bytes."""
        return 32 if self.object_format == "sha256" else 20

    async def write_tree(self, index: Path, prefix: str = "") -> str:
        """Return the tree that an index stands for."""
        arguments = ["write-tree", *([f"--prefix={prefix}"] if prefix else [])]
        try:
            return (await git(*arguments, git_dir=self.git_dir, index=index)).decode().strip()
        except GitError as error:
            if prefix and "not found" in error.complaint:
                return await self.empty_tree()
            raise

    async def amend(self, tree: str, entries: Mapping[str, Entry], batch: Batch | None = None) -> str:
        """Return a tree with some files replaced, added or removed.

        With `batch` the new trees are added to it, and are there only when the caller has stored it.
        """
        if not entries:
            return tree
        change = TreeChange(entries)
        before = await self._listings(tree, change)
        own = self.batch() if batch is None else batch
        changed = change.apply("", before, lambda data: own.add(data, "tree")) or own.add(b"", "tree")
        if batch is None:
            await self.store(own)
        return changed

    async def lacks(self, tree: str, paths: Iterable[str]) -> list[str]:
        """Return the paths at which a tree has no file."""
        change = TreeChange(dict.fromkeys(paths))
        before = await self._listings(tree, change)
        return [
            path
            for path in change.paths()
            if os.fsencode(path.rpartition("/")[2]) not in before.get(path.rpartition("/")[0], {})
        ]

    async def _listings(self, tree: str, change: TreeChange) -> dict[str, Listing]:
        """Return the folders of a tree that a change reaches into, level by level."""
        found: dict[str, Listing] = {}
        ahead = {"": tree}
        while ahead:
            data = await self.read(ahead.values())
            level = {folder: parse_tree(data[name], self.hash_bytes) for folder, name in ahead.items()}
            found |= level
            ahead = dict(below for folder, listing in level.items() for below in change.below(folder, listing))
        return found

    def batch(self) -> Batch:
        """Return an empty batch of objects."""
        return Batch(self.object_format)

    async def store(self, batch: Batch) -> None:
        """Store a batch; what was stored before is left out."""
        fresh = {name: item for name, item in batch.objects.items() if name not in self._stored}
        folder = self.git_dir / "objects" / "pack"
        try:
            await asyncio.to_thread(write_pack, folder, fresh, self.object_format)
        except OSError as error:
            raise SandboxError(
                f"The sandbox could not store the files ({error.strerror}); make room and try again."
            ) from error
        self._stored.update(fresh)

    def forget(self) -> None:
        """Believe no longer that anything is stored."""
        self._stored.clear()

    async def tidy(self) -> None:
        """Join the packs once there are many, in use or not."""
        packs = await asyncio.to_thread(lambda: len(list((self.git_dir / "objects" / "pack").glob("*.pack"))))
        if packs > _MOST_PACKS:
            for arguments in (("write",), ("repack", "--batch-size=0"), ("expire",)):
                await git("multi-pack-index", *arguments, git_dir=self.git_dir)

    async def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the contents of objects by id."""
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return {}
        output = await git("cat-file", "--batch", git_dir=self.git_dir, stdin="\n".join(wanted).encode() + b"\n")
        found: dict[str, bytes] = {}
        offset = 0
        for name in wanted:
            end = output.index(b"\n", offset)
            words = output[offset:end].split()
            if len(words) != 3:
                raise GitError(
                    "A file that the sandbox stood on is gone from the user's repository and could not be found again; "
                    "start a new session.",
                    exit_code=128,
                    output=b"",
                    complaint=f"missing object {name}",
                )
            size = int(words[2])
            found[name] = output[end + 1 : end + 1 + size]
            offset = end + size + 2
        return found

    async def sizes(self, names: Sequence[str]) -> dict[str, int | None]:
        """Return how large objects are, None for those that are not there."""
        if not names:
            return {}
        stdin = "".join(f"{name}\n" for name in names).encode()
        output = await git("cat-file", "--batch-check=%(objectsize)", "--buffer", git_dir=self.git_dir, stdin=stdin)
        lines = output.splitlines()
        return {name: int(line) if line.isdigit() else None for name, line in zip(names, lines, strict=True)}

    async def list_tree(self, tree: str, *paths: str) -> dict[str, tuple[str, int]]:
        """Return the files of a tree (all, or those of some paths): path to object id and mode."""
        output = await git(
            "ls-tree",
            "-r",
            "-z",
            "--full-tree",
            tree,
            "--",
            *(f":(literal){path}" for path in paths),
            git_dir=self.git_dir,
        )
        entries: dict[str, tuple[str, int]] = {}
        for record in split_nul(output):
            head, _, path = record.partition(b"\t")
            mode, _, name = head.split(b" ")
            entries[os.fsdecode(path)] = (name.decode(), int(mode, 8))
        return entries

    async def require_tree(self, tree: str) -> None:
        """Make sure that a tree is there.

        Raises:
            SandboxError: it is not.
        """
        await git("cat-file", "-e", f"{tree}^{{tree}}", git_dir=self.git_dir)

    async def empty_tree(self) -> str:
        """Return the tree of no files."""
        batch = self.batch()
        name = batch.add(b"", "tree")
        await self.store(batch)
        return name

    async def rooted(self, tree: str, prefix: str) -> str:
        """Return the tree that holds another at the folder `prefix`, which ends with a slash or is empty."""
        batch = self.batch()
        for part in reversed(prefix.split("/")[:-1]):
            tree = batch.add(format_tree({os.fsencode(part): (tree, FOLDER_MODE)}), "tree")
        await self.store(batch)
        return tree

    async def keep(self, trees: Sequence[str], *, known: Sequence[str] = ()) -> None:
        """Pack what trees consist of, so that nothing of it is only borrowed; `known` trees are kept already."""
        wanted = "\n".join([*trees, *(f"^{tree}" for tree in known)]) + "\n"
        packs = self.git_dir / "objects" / "pack"
        await asyncio.to_thread(packs.mkdir, exist_ok=True)
        arguments = ("pack-objects", "--revs", "--quiet", "--window=0", "--threads=1", str(packs / "pack"))
        await git(*arguments, git_dir=self.git_dir, stdin=wanted.encode())

    def temporary_name(self) -> Path:
        """Return a name for an index that is soon deleted; what a crash leaves is swept when the shadow opens."""
        return self.git_dir / f"tmp-{os.urandom(8).hex()}.index"

    async def set_entries(self, index: Path, entries: Mapping[str, Entry]) -> None:
        """Replace or remove entries of an index file."""
        lines: list[bytes] = []
        zero = "0" * self.hash_bytes * 2
        for path, entry in entries.items():
            name, mode = entry or (zero, 0)
            lines.append(f"{mode:o} {name}\t".encode() + os.fsencode(path) + b"\0")
        arguments = ("update-index", "--add", "--replace", "-z", "--index-info")
        await git(*arguments, git_dir=self.git_dir, index=index, stdin=b"".join(lines))
