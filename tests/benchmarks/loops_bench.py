"""What loops cost beside the model: a round's own time, a look at a thousand loops, and recall among many notes.

The round runs on a repository of 10,000 files with a warm worktree; its steps, their records and the checker's
own worktree are in it, commands of the agents are not. Its baseline is as many bare calls of the same model.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.measure import Figure, ratio
from benchmarks.sandbox_bench import _build
from loop_room import open_room, write_loop
from loop_scripts import EDIT, is_checker, until
from model_server import ModelServer, Request, call, text, tools
from selfloop.loops.agenda import Agenda
from selfloop.loops.cadence import parse
from selfloop.messages import Message
from selfloop.model.budget import Budget, Limits
from selfloop.storage.memory import Memory

FILES, ROUNDS, LOOPS, TICKS, NOTES, QUERIES = 10_000, 12, 1_000, 2_000, 100_000, 200
_WORDS = (
    "build cache check deploy fix flaky gate hunk index issue loop merge patch plan queue release retry test".split()
)


def run() -> list[Figure]:
    """Measure all three."""
    folder = Path(tempfile.mkdtemp(prefix="selfloop-bench-"))
    try:
        return [*asyncio.run(_rounds(folder)), _ticks(), *asyncio.run(_recall(folder))]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _rounds(folder: Path) -> list[Figure]:
    workspace, home = folder / "workspace", folder / "home"
    await asyncio.to_thread(_build, workspace, FILES)
    (workspace / "greet.py").write_text("def greet(name):\n    return 'Hello ' + name\n")
    write_loop(home / "config" / "loops", "sweeper", level="L2-assisted", action="apply-patch")
    with ModelServer(_script) as model:
        room = open_room(workspace, home, model.url)
        await room.round("sweeper")  # What is loaded and laid out once is no round's own.
        pool, scheduler = await room.workspace.workshop.pool(), room.workspace.loops.scheduler
        whole, bare, calls = [], [], 0
        for _ in range(ROUNDS):
            await until(lambda: not scheduler.running())
            await pool.settle()
            before, started = len(model.requests), time.perf_counter()
            await room.round("sweeper")
            whole.append(1000 * (time.perf_counter() - started))
            calls = len(model.requests) - before
            client = room.workspace.workshop.model
            started = time.perf_counter()
            for _ in range(calls):
                await client.complete([Message("user", "Say it.")], [], budget=Budget(Limits()))
            bare.append(1000 * (time.perf_counter() - started))
        await room.close()
    middle = sorted(whole)[len(whole) // 2] - sorted(bare)[len(bare) // 2]
    against = f"{calls} bare calls of the model"
    return [
        Figure("own time of a round, 10,000 files", "ms", 150, middle, tuple(whole), tuple(bare), against, True),
    ]


def _script(request: Request) -> object:
    said = sum(message["role"] == "assistant" for message in request.messages)
    if is_checker(request):
        verdict = call("submit_verdict", verdict="concerns", summary="Nothing here proves it.", evidence=[])
        return [tools(verdict), text("Done.")][min(said, 1)]
    return [tools(EDIT), text("It greets by an f-string.\n\nStatus: Done")][min(said, 1)]


def _ticks() -> Figure:
    """Compare looks at many loops with looks at few, one of them due at each."""

    def looks(loops: int) -> list[float]:
        now, seconds = datetime(2026, 1, 1, tzinfo=UTC), []
        agenda = Agenda(lambda: UTC)
        for number in range(loops):
            # All but one are due in a day.
            agenda.add(f"loop-{number}", parse("every 1s" if number == 0 else "every 30d"), now)
        for entry, at in agenda.due(now):
            agenda.begin(entry, at, now)
        for _ in range(TICKS):
            now += timedelta(seconds=1)
            started = time.perf_counter()
            due = agenda.due(now)
            for entry, at in due:
                agenda.begin(entry, at, now)
            agenda.next_at()
            seconds.append(1000 * (time.perf_counter() - started))
            assert len(due) == 1, due
        return seconds

    return ratio(f"a look at {LOOPS:,} loops, one due", 1.5, looks(LOOPS), looks(10), "at 10 loops")


async def _recall(folder: Path) -> list[Figure]:
    """Compare recall among many notes with the smallest query of the same library."""
    workspace = folder / "notes"
    workspace.mkdir()
    room = open_room(workspace, folder / "home", "http://127.0.0.1:9")
    store, chance = room.workspace.store, random.Random(1)
    memory = Memory(store)
    with store.transaction():
        for number in range(NOTES):
            words = " ".join(chance.choices(_WORDS, k=6))
            memory.remember(f"{words} in module{number % 977} of part{number}", source=f"loop:l{number % 50}")
    plain = sqlite3.connect(":memory:")
    found, latest, bare = [], [], []
    for _ in range(QUERIES):
        query = f"module{chance.randrange(977)} part{chance.randrange(NOTES)}"
        for seconds, work in (
            (found, lambda query=query: memory.recall(query)),
            (latest, lambda: memory.latest("loop:l7", 5)),
            (bare, lambda: plain.execute("SELECT 1").fetchall()),
        ):
            started = time.perf_counter()
            work()
            seconds.append(1000 * (time.perf_counter() - started))
    await room.close()

    def against(name: str, seconds: list[float]) -> Figure:
        middle = sorted(seconds)[QUERIES // 2] - sorted(bare)[QUERIES // 2]
        return Figure(name, "ms", 5, middle, tuple(seconds), tuple(bare), "SELECT 1", True)

    return [
        against(f"recall among {NOTES:,} notes", found),
        against("a loop's last five states among them", latest),
    ]
