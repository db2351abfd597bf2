"""What a synchronisation does with each file: take the user's, keep the agent's, merge the two, or call it a clash."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from attrs import frozen

from selfloop.sandbox.git import GitError, git
from selfloop.sandbox.trees import Entry

Differences = Mapping[str, tuple[Entry, Entry]]
"""By path, what a file was and what it has become."""


@frozen
class Plan:
    """What both sides have done since the base, and what follows for each path."""

    user: Differences
    mine: Differences
    taken: dict[str, Entry]
    """The user's files that the worktree takes over as they are."""
    both: tuple[str, ...]
    """Files to be merged."""
    clashes: tuple[str, ...]
    """The user's files that cannot stand where the agent has put something: a folder for a file, or a file for one."""

    @staticmethod
    def of(user: Differences, mine: Differences) -> Plan:
        """Make the plan."""
        my_files = {path for path, (_, now) in mine.items() if now}
        my_folders = {folder for path in my_files for folder in _folders(path)}
        taken: dict[str, Entry] = {}
        both: list[str] = []
        clashes: list[str] = []
        for path, (_, now) in user.items():
            if path in mine:
                if mine[path][1] != now:
                    both.append(path)
            elif now and (path in my_folders or any(folder in my_files for folder in _folders(path))):
                clashes.append(path)
            else:
                taken[path] = now
        return Plan(user, mine, taken, tuple(both), tuple(clashes))

    def sides(self, path: str) -> tuple[Entry, Entry, Entry]:
        """Return what the base, the user and the agent have at a path that both have changed."""
        return self.user[path][0], self.user[path][1], self.mine[path][1]


def compare(records: Iterator[bytes]) -> dict[str, tuple[Entry, Entry]]:
    """Read the raw output of `git diff-tree -z --no-renames`."""
    found: dict[str, tuple[Entry, Entry]] = {}
    for head in records:
        old_mode, new_mode, old_id, new_id, _ = head[1:].decode().split(" ")
        old = (old_id, int(old_mode, 8)) if int(old_mode, 8) else None
        new = (new_id, int(new_mode, 8)) if int(new_mode, 8) else None
        found[os.fsdecode(next(records))] = (old, new)
    return found


async def merge_texts(base: bytes, user: bytes, mine: bytes, *, git_dir: Path, user_wins: bool = False) -> bytes | None:
    """Merge two versions of a text over their common base; None where they clash (unless one wins) or are no text."""
    if base in (user, mine) or user == mine:
        return mine if base == user else user
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=git_dir, prefix="tmp-"))

    def lay_out() -> None:
        for name, data in (("mine", mine), ("base", base), ("user", user)):
            (folder / name).write_bytes(data)

    try:
        await asyncio.to_thread(lay_out)
        files = [str(folder / name) for name in ("mine", "base", "user")]
        favour = ("--theirs",) if user_wins else ()
        return await git("merge-file", "-p", "-q", *favour, *files, git_dir=git_dir)
    except GitError as error:
        # The exit code is the number of clashes, and 255 for what is no text.
        if error.exit_code > 0:
            return None
        raise
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


def _folders(path: str) -> Iterator[str]:
    return (str(folder) for folder in PurePosixPath(path).parents if str(folder) != ".")
