"""A worker is killed at any line of its code: what was approved is finished, once, and nothing else happens.

The child counts the lines that it executes in our package and kills itself at one of them; the editor's buffers and the
disk outlive it, as a real editor's do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from gate_room import Room, open_room
from selfloop.changes import EXECUTABLE

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

TEXT = b"one\ntwo\nthree\nfour\nfive\n"
MORE = b"one\nnew\ntwo\nthree\nfour\nfive\nlast\n"
PACKAGE = str(Path(sys.modules["selfloop"].__path__[0]))

Scenario = Callable[[Room], Awaitable[None]]


def prepare(home: Path) -> str:
    """Make the user's files, one of them open, and a gate on all of them; return its id."""
    room = open_room(home, state=home / "editor.json")
    room.write("open", TEXT)
    room.write("closed", TEXT)
    room.write("gone", TEXT)
    room.write("old", TEXT)
    room.write("never", TEXT)
    room.editor.open("open")
    gate = room.propose(
        room.change("open", MORE),
        room.change("closed", MORE, post_mode=EXECUTABLE),
        room.change("gone", None),
        room.change("new", MORE, old_path="old"),
        room.change("made/here", b"x"),
        room.change("never", MORE),
    )
    room.store.close()
    return gate.gate_id


async def chosen(room: Room, gate_id: str) -> list[tuple[str, str]]:
    view = await room.gates.read(gate_id, room.editor)
    return [(hunk.hunk_id, hunk.digest) for file in view.files for hunk in file.hunks if file.path != "never"]


def approving(gate_id: str) -> Scenario:
    async def run(room: Room) -> None:
        hunks = await chosen(room, gate_id)
        await room.gates.resolve(gate_id, "approve", digest=None, hunks=hunks, editor=room.editor, key="key")

    return run


def undoing(gate_id: str) -> Scenario:
    async def run(room: Room) -> None:
        await room.gates.undo(gate_id, editor=room.editor, key="undo")

    return run


def killed_at(home: Path, scenario: Scenario, line: int | None) -> int:
    """Run a scenario in a child that kills itself at its n-th line; None: run it through. Return how many lines ran."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            count = _run(home, scenario, line)
            os.write(writing, str(count).encode())
            os._exit(0)
        except BaseException:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if line is None:
        assert status == 0
        return int(told)
    assert os.WIFSIGNALED(status) or status == 0, status
    return 0


def _run(home: Path, scenario: Scenario, line: int | None) -> int:
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            count += 1
            if count == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    room = open_room(home, state=home / "editor.json")
    threading.settrace(trace)
    sys.settrace(trace)
    asyncio.run(scenario(room))
    sys.settrace(None)
    return count


def state(room: Room) -> tuple[str, ...]:
    """Tell for each file whether it is as before, as after, or else what it is."""
    open_text = room.editor.text("open").encode()
    facts = [
        {TEXT: "before", MORE: "after"}.get(open_text, repr(open_text)),
        {TEXT: "before", MORE: "after"}.get(room.read("closed") or b"", repr(room.read("closed"))),
        "before" if room.read("gone") == TEXT else "after" if room.read("gone") is None else "?",
        {(TEXT, None): "before", (None, MORE): "after"}.get((room.read("old"), room.read("new")), "?"),
        "before" if room.read("made/here") is None else "after" if room.read("made/here") == b"x" else "?",
    ]
    if facts[1] == "after" and not (room.path / "closed").stat().st_mode & 0o100:
        facts[1] = "mode lost"
    assert room.read("never") == room.read("open") == TEXT
    left = [file.name for file in room.path.rglob("*") if file.name.startswith(".selfloop")]
    return (*facts, *left)


def points(total: int, wanted: int) -> list[int]:
    return sorted({1 + number * (total - 1) // (wanted - 1) for number in range(wanted)})


@pytest.mark.slow
def test_a_kill_at_any_line_of_an_approval_loses_nothing_and_applies_nothing_twice(tmp_path: Path) -> None:
    first = tmp_path / "whole"
    first.mkdir()
    total = killed_at(first, approving(prepare(first)), None)
    outcomes = set()
    for line in points(total, 100):
        home = tmp_path / str(line)
        home.mkdir()
        gate_id = prepare(home)
        killed_at(home, approving(gate_id), line)
        room = open_room(home, state=home / "editor.json")
        asyncio.run(_after_approval(room, gate_id, outcomes, line))
        room.store.close()
    assert outcomes == {"before", "after"}


async def _after_approval(room: Room, gate_id: str, outcomes: set[str], line: int) -> None:
    await room.gates.recover(room.editor)
    (outcome, *others) = set(state(room))
    assert not others, (line, state(room))
    outcomes.add(outcome)
    assert (room.store.outcomes(["key"]) == {"key"}) == (outcome == "after"), line
    hunks = await chosen(room, gate_id)
    view = await room.gates.read(gate_id, room.editor)
    expected = {"before": "pending", "after": "approved"}[outcome]
    assert {hunk.status for file in view.files for hunk in file.hunks if file.path != "never"} == {expected}
    assert {hunk.status for file in view.files for hunk in file.hunks if file.path == "never"} == {"pending"}
    assert await room.gates.recover(room.editor) == []
    # The client sends its request again.
    again = await room.gates.resolve(gate_id, "approve", digest=None, hunks=hunks, editor=room.editor)
    assert again.conflicts == (), line
    assert set(state(room)) == {"after"}
    await room.gates.undo(gate_id, editor=room.editor)
    assert set(state(room)) == {"before"}, line


@pytest.mark.slow
def test_a_kill_at_any_line_of_an_undo_loses_nothing_and_takes_nothing_back_twice(tmp_path: Path) -> None:
    def made(name: str) -> tuple[Path, str]:
        home = tmp_path / name
        home.mkdir()
        gate_id = prepare(home)
        room = open_room(home, state=home / "editor.json")
        asyncio.run(approving(gate_id)(room))  # type: ignore[arg-type]
        room.store.close()
        return home, gate_id

    home, gate_id = made("whole")
    total = killed_at(home, undoing(gate_id), None)
    outcomes = set()
    for line in points(total, 50):
        home, gate_id = made(str(line))
        killed_at(home, undoing(gate_id), line)
        room = open_room(home, state=home / "editor.json")

        async def check(room: Room = room, gate_id: str = gate_id, line: int = line) -> None:
            await room.gates.recover(room.editor)
            (outcome, *others) = set(state(room))
            assert not others, (line, state(room))
            outcomes.add(outcome)
            assert (room.store.outcomes(["undo"]) == {"undo"}) == (outcome == "before"), line
            await room.gates.undo(gate_id, editor=room.editor)
            assert set(state(room)) == {"before"}, line

        asyncio.run(check())
        room.store.close()
    assert outcomes == {"before", "after"}


def cut_off(home: Path) -> tuple[Room, str]:
    """Return a room in which an approval was journaled, and its worker killed before it touched anything."""
    gate_id = prepare(home)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:

        class Killed(Exception):
            pass

        async def run() -> None:
            room = open_room(home, state=home / "editor.json")
            real = room.editor.apply

            async def apply(*args: Any, **kwargs: Any) -> Any:
                os.kill(os.getpid(), signal.SIGKILL)
                return await real(*args, **kwargs)

            room.editor.apply = apply  # type: ignore[method-assign]
            await approving(gate_id)(room)

        asyncio.run(run())
        os._exit(0)
    os.close(writing)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    return open_room(home, state=home / "editor.json"), gate_id


async def test_a_file_that_changed_after_the_crash_is_left_alone_and_named(tmp_path: Path) -> None:
    room, gate_id = cut_off(tmp_path)
    room.write("closed", b"mine\n")
    sentences = await room.gates.recover(room.editor)
    assert any("closed" in sentence and "changed" in sentence for sentence in sentences)
    assert room.read("closed") == b"mine\n"
    assert room.editor.text("open").encode() == MORE
    view = await room.gates.read(gate_id, room.editor)
    by_path = {file.path: {hunk.status for hunk in file.hunks} for file in view.files}
    assert by_path["open"] == {"approved"}
    assert by_path["closed"] <= {"stale", "pending"}
    room.store.close()


async def test_a_document_that_was_closed_by_the_crash_is_finished_on_the_disk(tmp_path: Path) -> None:
    room, gate_id = cut_off(tmp_path)
    room.editor.close("open")
    sentences = await room.gates.recover(room.editor)
    assert any("finished" in sentence for sentence in sentences)
    assert room.read("open") == MORE
    assert room.gates.get(gate_id).state == "open"
    room.store.close()
