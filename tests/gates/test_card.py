"""The trust card says what is forthcoming, and what to look at twice."""

from __future__ import annotations

import os

import pytest

from gate_room import Room
from selfloop.changes import EXECUTABLE, SYMLINK
from selfloop.gates.card import REQUEST_CHARACTERS, Card, card_of, is_ci, is_dependency, request_of
from selfloop.gates.gate import GateRecord

pytestmark = pytest.mark.unit

TEXT = b"one\ntwo\nthree\nfour\nfive\n"


async def card(room: Room, gate: GateRecord) -> Card:
    view = await room.view(gate)
    return card_of(view.reviews, view.gate.words)


async def test_only_what_is_pending_counts(room: Room) -> None:
    room.write("a", TEXT)
    room.write("b", TEXT)
    gate = room.propose(
        room.change("a", b"ONE\nand\ntwo\nthree\nfour\n"), room.change("b", TEXT + b"six\n"), room.change("c", b"new\n")
    )
    assert await card(room, gate) == Card("", 3, 4, 2, ())
    (first, last), (added,), _ = [
        [(hunk.hunk_id, hunk.digest) for hunk in file.hunks] for file in (await room.view(gate)).files
    ]
    await room.gates.resolve(gate.gate_id, "approve", digest=None, hunks=[first], editor=room.editor)
    await room.gates.resolve(gate.gate_id, "reject", digest=None, hunks=[added], editor=room.editor)
    assert await card(room, gate) == Card("", 2, 1, 1, ())
    room.write("a", b"ONE\nand\ntwo\nthree\nfour\nmine\n")
    assert await card(room, gate) == Card("", 1, 1, 0, ()), "what is stale is not forthcoming"
    assert last[0]


async def test_flags_name_what_to_look_at_twice(room: Room) -> None:
    room.write("gone.py", TEXT)
    room.write("run", b"#!\n")
    room.write("image", b"\0\1")
    os.symlink("image", room.path / "pointer")
    link = room.change("link", b"run", post_mode=SYMLINK)
    gate = room.propose(
        room.change("gone.py", None),
        room.change("package.json", b"{}\n"),
        room.change(".github/workflows/ci.yml", b"on: push\n"),
        room.change(".env", b"A=1\n"),
        room.change("deceiving.py", "a = 1 # \u202e\n".encode()),
        room.change("image", b"\0\2"),
        room.change("run", b"#!\n", post_mode=EXECUTABLE),
        link,
        room.change("plain.py", b"x\n"),
    )
    flags = [(flag.kind, flag.path) for flag in (await card(room, gate)).flags]
    assert flags == [
        ("protected", ".env"),
        ("ci", ".github/workflows/ci.yml"),
        ("hidden", "deceiving.py"),
        ("deletion", "gone.py"),
        ("binary", "image"),
        ("link", "link"),
        ("dependency", "package.json"),
        ("executable", "run"),
    ]
    texts = {flag.kind: flag.text for flag in (await card(room, gate)).flags}
    assert texts["deletion"] == "gone.py is deleted, all 5 lines of it."
    assert "RIGHT-TO-LEFT OVERRIDE" in texts["hidden"]


async def test_hidden_characters_that_were_there_are_no_flag(room: Room) -> None:
    room.write("a", "x\u200b\ny\n".encode())
    gate = room.propose(room.change("a", "X\u200b\ny\n".encode()))
    assert (await card(room, gate)).flags == ()


async def test_the_request_is_that_of_the_turns_behind_the_gate(room: Room) -> None:
    room.write("a", TEXT)
    one = room.change("a", TEXT + b"six\n")
    room.gates.propose("s", [one], title="t", words=["Add six."])
    room.gates.propose("s", [one], title="t", words=["What does it do?"])
    gate = room.gates.propose("s", [room.change("a", TEXT + b"SIX\n")], title="t", words=["In capitals.", "Now!"])
    assert gate is not None
    assert (await card(room, gate)).request == "Add six.\n\nIn capitals.\n\nNow!", (
        "a mere question stands not behind it"
    )
    room.gates = room.opened()
    assert (await card(room, gate)).request.startswith("Add six.")


def test_a_long_request_keeps_what_was_said_last() -> None:
    assert request_of(["a" * 1_500, "b" * 1_500]) == "b" * 1_500
    cut = request_of(["a" * 5_000])
    assert len(cut) == REQUEST_CHARACTERS and cut.endswith("…")
    assert request_of(["  ", "x "]) == "x"


@pytest.mark.parametrize("path", ["Cargo.toml", "sub/go.mod", "requirements-dev.txt", "a/B.csproj", "uv.lock"])
def test_manifests_and_lock_files_are_dependencies(path: str) -> None:
    assert is_dependency(path) and not is_ci(path)


@pytest.mark.parametrize(
    "path", [".github/workflows/a.yml", ".GitLab-CI.yml", "sub/Jenkinsfile", ".circleci/config.yml"]
)
def test_what_runs_by_itself_is_ci(path: str) -> None:
    assert is_ci(path) and not is_dependency(path)


@pytest.mark.parametrize("path", ["src/package.py", "requirements.md", "github/workflows/a.yml", "go.mod.py"])
def test_other_files_are_neither(path: str) -> None:
    assert not is_ci(path) and not is_dependency(path)
