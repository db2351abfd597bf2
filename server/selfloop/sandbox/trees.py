"""git's tree objects, read, changed and written as data (gitformat: `mode name NUL id`, sorted).

A snapshot changes a few files of a large tree: only the folders on the way to them are read and written again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

Entry = tuple[str, int] | None
"""A file in a tree: object id and git mode; None where there is none."""
Listing = dict[bytes, tuple[str, int]]
"""What stands directly in one folder."""

FOLDER_MODE = 0o040000


def parse_tree(data: bytes, hash_bytes: int) -> Listing:
    """Read a tree object."""
    listing: Listing = {}
    offset = 0
    while offset < len(data):
        space = data.index(b" ", offset)
        end = data.index(b"\0", space)
        after = end + 1 + hash_bytes
        listing[data[space + 1 : end]] = (data[end + 1 : after].hex(), int(data[offset:space], 8))
        offset = after
    return listing


def format_tree(listing: Listing) -> bytes:
    """Write a tree object. git sorts a folder as if its name ended with a slash."""
    ordered = sorted(listing.items(), key=lambda item: item[0] + b"/" if item[1][1] == FOLDER_MODE else item[0])
    return b"".join(b"%o %s\0%s" % (mode, name, bytes.fromhex(object_id)) for name, (object_id, mode) in ordered)


class TreeChange:
    """Entries to be replaced or removed, by folder."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.files: dict[str, dict[bytes, Entry]] = {"": {}}
        self.folders: dict[str, set[str]] = {"": set()}
        for path, entry in entries.items():
            folder, _, name = path.rpartition("/")
            self._reach(folder)
            self.files[folder][os.fsencode(name)] = entry

    def paths(self) -> Iterable[str]:
        """Return the paths of all entries."""
        return [f"{folder}/{os.fsdecode(name)}".lstrip("/") for folder, names in self.files.items() for name in names]

    def below(self, folder: str, listing: Listing) -> Iterable[tuple[str, str]]:
        """Return the folders directly in one that the change reaches into, with their trees' ids."""
        for name in self.folders[folder]:
            object_id, mode = listing.get(os.fsencode(name.rpartition("/")[2]), ("", 0))
            if mode == FOLDER_MODE:
                yield name, object_id

    def apply(self, folder: str, before: Mapping[str, Listing], write: Callable[[bytes], str]) -> str | None:
        """Write the folder's tree as it is after the change; None if nothing is left in it."""
        listing = dict(before.get(folder, {}))
        for inner in self.folders[folder]:
            name = os.fsencode(inner.rpartition("/")[2])
            tree = self.apply(inner, before, write)
            if tree is not None:
                listing[name] = (tree, FOLDER_MODE)
            elif listing.get(name, ("", 0))[1] == FOLDER_MODE:
                del listing[name]
        for name, entry in self.files[folder].items():
            if entry is not None:
                listing[name] = entry
            elif listing.get(name, ("", 0))[1] != FOLDER_MODE:  # Where a folder stands now, the file is gone already.
                listing.pop(name, None)
        return write(format_tree(listing)) if listing else None

    def _reach(self, folder: str) -> None:
        """Make sure that a folder is known, and known to the folders above it."""
        while folder not in self.files:
            self.files[folder], self.folders[folder] = {}, set()
            above = folder.rpartition("/")[0]
            known = above in self.files
            if not known:
                self._reach(above)
            self.folders[above].add(folder)
            folder = above
