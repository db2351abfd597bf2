"""A workspace with loops on real parts, and no editor: store, worktrees, jail, scheduler, a model on loopback.

As a program (`python loop_room.py FOLDER HOME LOOP [STEP]`) it runs one round, or takes up those that were cut off, and
kills itself with SIGKILL once the step has begun, or `STEP:done` once its result is stored.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from attrs import define, field

from selfloop.agent.context import EditorSnapshot, OpenDocument
from selfloop.config import Folders, Settings
from selfloop.gates.editor import ApplyOutcome, OpenText
from selfloop.lsp.convert import uri_of_path
from selfloop.reports import RoundReport
from selfloop.session import Workspace
from selfloop.storage.rounds import Rounds
from selfloop.storage.rules import Rules
from selfloop.updates import Notice, RunUpdate, UpdateEnvelope


class NoEditor:
    """A user whose editor has no file open, so everything approved goes to the disk."""

    def open_text(self, path: str) -> OpenText | None:
        return None

    async def apply(self, edits: Any, *, label: str, prefer: int | None) -> ApplyOutcome:
        raise AssertionError(f"no document is open, yet {[edit.path for edit in edits]} were to be edited")


@define
class Room:
    """A host without an editor, and the workspace that it serves."""

    path: Path
    folders: Folders
    settings: Settings
    rules: Rules = field(init=False)
    workspace: Workspace = field(init=False)
    told: list[UpdateEnvelope] = field(factory=list)
    unsaved: dict[str, str] = field(factory=dict)
    tasks: set[asyncio.Task[Any]] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        self.rules = Rules(self.folders.data)
        self.workspace = Workspace(self.path, uri=uri_of_path(self.path), host=self, settings=self.settings)

    # What a host does

    def publish(self, envelope: UpdateEnvelope) -> None:
        self.told.append(envelope)

    def gates_changed(self, folder: Path) -> None:
        """Nobody shows gates."""

    def editor(self, folder: Path) -> NoEditor:
        return NoEditor()

    def snapshot(self, folder: Path) -> EditorSnapshot:
        documents = (OpenDocument(path, text, 1, True, "plaintext") for path, text in self.unsaved.items())
        return EditorSnapshot(0, tuple(documents))

    def key(self, origin: str) -> str | None:
        return None

    def secrets(self) -> tuple[str, ...]:
        return ()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # What tests do

    async def round(self, loop_id: str, **more: Any) -> RoundReport:
        """Run one round of a loop, and return its report."""
        service = await self.workspace.governed()
        async with asyncio.timeout(30):
            while loop_id in service.scheduler.running():  # A report is told a moment before its round has ended.
                await asyncio.sleep(0.005)
        return await self.report(service.start(loop_id, **more))

    async def report(self, run_id: str) -> RoundReport:
        """Wait for a round's report."""
        async with asyncio.timeout(90):
            while True:
                for envelope in self.told:
                    update = envelope.update
                    if isinstance(update, RunUpdate) and update.run_id == run_id and update.report is not None:
                        return update.report
                await asyncio.sleep(0.01)

    def phases(self, run_id: str) -> list[str]:
        """Return the phases that were told of a round."""
        updates = [one.update for one in self.told if isinstance(one.update, RunUpdate)]
        return [update.phase for update in updates if update.run_id == run_id]

    def notices(self) -> list[str]:
        return [one.update.text for one in self.told if isinstance(one.update, Notice)]

    async def close(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.workspace.close()


def write_loop(folder: Path, name: str, maker: str = "Do it.", checker: str = "Look.", **matter: Any) -> Path:
    """Write a loop's file, with these values in its front matter."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {"intent": "Keep the project in order.", "cadence": "manual", **matter}
    head = "\n".join(f"{key}: {value}" for key, value in lines.items())
    file = folder / f"{name}.md"
    file.write_text(f"---\n{head}\n---\n\n# Maker\n\n{maker}\n\n# Checker\n\n{checker}\n")
    return file


def open_room(workspace: Path, home: Path, base_url: str, **settings: Any) -> Room:
    """Open a workspace, as a server that starts does."""
    folders = Folders(home / "data", home / "cache", home / "config")
    given = {"model": "scripted", "base_url": base_url, "context_tokens": 60_000, **settings}
    return Room(workspace, folders, Settings(**given))


async def main() -> None:
    """See the module."""
    workspace, home, url, loop_id, *rest = sys.argv[1:]
    where = rest[0] if rest else ""
    room = open_room(Path(workspace), Path(home), url)
    rounds = room.workspace.loops.rounds
    if where:
        step, _, done = where.partition(":")
        _kill_at(rounds, step, done == "done")
    left = rounds.unfinished()
    service = await room.workspace.governed()
    run_id = left[0].run_id if left else service.start(loop_id)
    report = await room.report(run_id)
    sys.stdout.write(report.render())
    await room.close()


def _kill_at(rounds: Rounds, step: str, done: bool) -> None:
    """Have the store's own statement trace kill this process: when the step begins, or right after its result."""
    count = {"seen": 0}

    def begins(statement: str) -> bool:
        if step == "record":  # It has no row of its own: the round's end is its result.
            return "UPDATE rounds SET ended_at" in statement
        row = "INSERT INTO round_steps" if done else "INSERT OR IGNORE INTO round_steps"
        return row in statement and f"'{step}'" in statement

    def traced(statement: str) -> None:
        if begins(statement):
            count["seen"] = 1
            if step == "record" and not done:
                os.kill(os.getpid(), signal.SIGKILL)
        elif count["seen"] and statement.startswith(("COMMIT", "BEGIN")):
            count["seen"] += 1
            if count["seen"] == 3:  # The step's own transaction is committed, and another one begins.
                os.kill(os.getpid(), signal.SIGKILL)

    connection = rounds.store._connection
    assert connection is not None
    connection.set_trace_callback(traced)


if __name__ == "__main__":
    asyncio.run(main())
