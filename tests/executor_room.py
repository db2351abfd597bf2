"""A repository with a bare remote, a forge that is played, and the executors on it.

As a program (`python executor_room.py HOME KIND`) it carries out one action as a server would that is started again
after a kill, and prints the receipt.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from attrs import define

from repositories import PERSON, git, make_repository
from selfloop.changes import FileChange, file_change
from selfloop.loops.actions import Action, Receipt
from selfloop.loops.executors import Executors
from selfloop.sandbox.shadow import Shadow
from selfloop.storage.secrets import redact

FILES: dict[str, str | bytes] = {"src/app.py": "one = 1\ntwo = 2\nthree = 3\nfour = 4\n", "README.md": "# App\n"}
FORGE_URL = "https://forge.example/team/app.git"


@define
class Notes:
    """What an engine's store keeps of actions: lines of a file, so that it outlives a kill."""

    file: Path

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def intend(self, key: str, data: dict[str, Any]) -> bool:
        again = any(row["key"] == key for row in self.rows())
        self._add({"key": key, "intent": data})
        return again

    def settled(self, key: str, receipt: dict[str, Any]) -> None:
        self._add({"key": key, "receipt": receipt})

    def known(self, key: str) -> dict[str, Any] | None:
        return next((row["receipt"] for row in self.rows() if row["key"] == key and "receipt" in row), None)

    def _add(self, row: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


@define
class Yard:
    """The folders of one test, and the executors."""

    home: Path
    shadow: Shadow
    executors: Executors
    notes: Notes

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def bare(self) -> Path:
        return self.home / "remote.git"

    def branches(self, where: Path) -> list[str]:
        return git(where, "branch", "--list", "--format=%(refname:short)").split()

    def hook(self, name: str, script: str) -> None:
        hook = self.work / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{script}\n")
        hook.chmod(0o755)

    async def do(self, action: Action, changes: list[FileChange] | None = None) -> Receipt:
        changes = changes or []
        return await self.executors.act(await self.executors.prepare(action, changes), changes)


def change(path: str, pre: str | None, post: str | None, **modes: Any) -> FileChange:
    """Return a change of a file."""
    mode = {"pre_mode": None if pre is None else 0o100644, "post_mode": None if post is None else 0o100644, **modes}
    made = file_change(path, pre=pre and pre.encode(), post=post and post.encode(), **mode)
    assert made is not None
    return made


def some_changes() -> list[FileChange]:
    """Return an edit, a new file and a deletion."""
    old = str(FILES["src/app.py"])
    return [
        change("src/app.py", old, old.replace("two = 2", "two = 22")),
        change("src/new.py", None, "new = True\n"),
        change("README.md", "# App\n", None),
    ]


def an_action(kind: Any, **more: Any) -> Action:
    """Return an action of a round."""
    usual = {"run_id": "run-0001", "title": "Count better", "body": "Two is twenty-two now.\n# not a comment\n"}
    return Action(kind=kind, loop_id="ci-sweeper", **{**usual, **more})


def build(home: Path) -> None:
    """Make the repository and its bare remote."""
    make_repository(home / "work", FILES)
    work = home / "work"
    git(home, "init", "-q", "--bare", "-b", "main", str(home / "remote.git"))
    git(work, "config", "user.name", "Una User")
    git(work, "config", "user.email", "una@example.com")
    git(work, "remote", "add", "origin", FORGE_URL)
    git(work, "config", "remote.origin.pushurl", str(home / "remote.git"))
    git(work, "push", "-q", "origin", "main")
    git(work, "update-ref", "refs/remotes/origin/main", "main")
    git(work, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")


async def open_yard(home: Path, workspace: Path | None = None) -> Yard:
    """Open the executors, as a new server does."""
    shadow = await Shadow.open(workspace or home / "work", home / "cache")
    notes = Notes(home / "notes.jsonl")

    async def the_shadow() -> Shadow:
        return shadow

    executors = Executors(
        the_shadow, home / "cache" / "user", home / "outputs", redact, notes.intend, notes.settled, notes.known
    )
    return Yard(home, shadow, executors, notes)


async def main() -> None:
    """Carry out one action."""
    home, kind = Path(sys.argv[1]), sys.argv[2]
    (home / "driver.pid").write_text(str(os.getpid()))
    yard = await open_yard(home)
    more = {"about": "issue", "number": 7} if kind == "comment" else {}
    changes = some_changes() if kind in ("commit", "open-pr") else []
    receipt = await yard.do(an_action(kind, **more), changes)
    sys.stdout.write(json.dumps(receipt.to_json()))


if __name__ == "__main__":
    os.environ |= {name: value for name, value in PERSON.items() if name.startswith("GIT_CONFIG")}
    asyncio.run(main())
