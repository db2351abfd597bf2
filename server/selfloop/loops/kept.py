"""The changes of a round as rows of JSON: what a step hands to the next, also over a restart.

Invariant: the rows name images by their digests, and the images lie in the store, so that neither a lost worktree nor a
cleared cache takes from a round what its maker has made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfloop.changes import FileChange, file_change, seal
from selfloop.gates.proposals import content_key
from selfloop.storage.store import Store

Row = dict[str, Any]


def keep(changes: Sequence[FileChange], store: Store) -> list[Row]:
    """Store the images of changes, and return the rows that name them. Writes the disk."""
    return [
        {
            "path": change.path,
            "old_path": change.old_path,
            "pre": None if change.pre is None else store.put_blob(change.pre),
            "post": None if change.post is None else store.put_blob(change.post),
            "pre_mode": change.pre_mode,
            "post_mode": change.post_mode,
        }
        for change in changes
    ]


def bring(rows: Sequence[Row], store: Store) -> list[FileChange]:
    """Return the changes that `keep` was given. Reads the disk.

    Raises:
        StoreError: an image is gone or damaged.
    """
    changes = []
    for row in rows:
        images = {side: None if row[side] is None else store.blob(row[side]) for side in ("pre", "post")}
        change = file_change(
            row["path"],
            old_path=row["old_path"],
            pre=images["pre"],
            post=images["post"],
            pre_mode=row["pre_mode"],
            post_mode=row["post_mode"],
        )
        if change is not None:
            changes.append(change)
    return changes


def paths_of(rows: Sequence[Row]) -> list[str]:
    """Return every path that changes touch: of a rename both."""
    return [path for row in rows for path in (row["old_path"], row["path"]) if path is not None]


def contents_of(changes: Sequence[FileChange]) -> list[str]:
    """Return by what each hunk is known, wherever in its file it lies: as a rejection is remembered."""
    return [content_key(change, hunk) for change in changes for hunk in change.hunks]


def content_of(kind: str, changes: Sequence[FileChange]) -> str:
    """Return by what a proposal of changes is known when a later round makes it again."""
    return seal("proposal", kind, *sorted(contents_of(changes)))
