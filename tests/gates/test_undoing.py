"""What a gate applied is taken back."""

from __future__ import annotations

import pytest

from gate_room import Room
from selfloop.changes import EXECUTABLE
from selfloop.gates.gate import GateRecord
from selfloop.gates.review import Resolution

pytestmark = pytest.mark.unit

TEXT = b"one\ntwo\nthree\nfour\nfive\n"
BOTH = b"ONE\ntwo\nthree\nfour\nFIVE\n"


async def approve(room: Room, gate: GateRecord) -> Resolution:
    digest = (await room.view(gate)).gate.digest
    result = await room.gates.resolve(gate.gate_id, "approve", digest=digest, editor=room.editor)
    assert result.conflicts == ()
    return result


async def test_undo_takes_back_every_kind_of_change(room: Room) -> None:
    room.write("open", TEXT)
    room.editor.open("open")
    room.write("gone", TEXT, EXECUTABLE)
    room.write("old", TEXT)
    room.write("run", b"#!\n")
    room.write("image", b"\0\1")
    gate = room.propose(
        room.change("open", BOTH),
        room.change("made/here", b"new\n"),
        room.change("gone", None),
        room.change("new", BOTH, old_path="old"),
        room.change("run", b"#!\n", post_mode=EXECUTABLE),
        room.change("image", b"\0\2"),
    )
    await approve(room, gate)
    result = await room.gates.undo(gate.gate_id, editor=room.editor, key="k")
    assert result.conflicts == ()
    assert set(result.applied) == {"open", "made/here", "gone", "old", "run", "image"}
    assert room.editor.text("open") == TEXT.decode()
    assert room.read("made/here") is None
    assert room.read("gone") == TEXT
    assert (room.path / "gone").stat().st_mode & 0o100
    assert (room.read("old"), room.read("new")) == (TEXT, None)
    assert not (room.path / "run").stat().st_mode & 0o100
    assert room.read("image") == b"\0\1"
    assert room.store.outcomes(["k"]) == {"k"}
    again = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert (again.applied, again.conflicts) == ((), ())


async def test_undo_is_carried_over_edits_elsewhere(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    await approve(room, gate)
    room.write("a", b"zero\n" + BOTH.replace(b"three", b"3"))
    result = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert result.conflicts == ()
    assert room.read("a") == b"zero\none\ntwo\n3\nfour\nfive\n"


async def test_one_file_whose_lines_were_edited_since_keeps_all_of_them(room: Room) -> None:
    room.write("a", TEXT)
    room.write("b", TEXT)
    gate = room.propose(room.change("a", BOTH), room.change("b", BOTH))
    await approve(room, gate)
    mine = BOTH.replace(b"FIVE", b"mine")
    room.write("a", mine)
    result = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert result.applied == ()
    assert [path for path, _ in result.conflicts] == ["a"]
    assert "Nothing was taken back" in result.conflicts[0][1]
    assert (room.read("a"), room.read("b")) == (mine, BOTH)
    room.write("a", BOTH)
    assert set((await room.gates.undo(gate.gate_id, editor=room.editor)).applied) == {"a", "b"}
    assert (room.read("a"), room.read("b")) == (TEXT, TEXT)


async def test_hunks_approved_one_by_one_go_back_together(room: Room) -> None:
    room.write("old", TEXT)
    gate = room.propose(room.change("new", BOTH, old_path="old"))
    for hunk in await room.hunks(gate):
        await room.gates.resolve(gate.gate_id, "approve", digest=None, hunks=[hunk], editor=room.editor)
    assert room.read("new") == BOTH
    result = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert (result.applied, result.conflicts) == (("old",), ())
    assert (room.read("old"), room.read("new")) == (TEXT, None)


async def test_undo_of_a_part_leaves_the_rest_pending_and_decidable(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    first, second = await room.hunks(gate)
    await room.gates.resolve(gate.gate_id, "approve", digest=None, hunks=[first], editor=room.editor)
    await room.gates.undo(gate.gate_id, editor=room.editor)
    assert room.read("a") == TEXT
    await room.gates.resolve(gate.gate_id, "approve", digest=None, hunks=[second], editor=room.editor)
    assert room.read("a") == b"one\ntwo\nthree\nfour\nFIVE\n"


async def test_an_undo_that_the_editor_refuses_changes_nothing(room: Room) -> None:
    room.write("a", TEXT)
    room.write("b", TEXT)
    room.editor.open("a")
    gate = room.propose(room.change("a", BOTH), room.change("b", BOTH))
    await approve(room, gate)
    room.editor.refuse = "no"
    result = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert result.applied == ()
    assert result.conflicts
    assert (room.editor.text("a"), room.read("b")) == (BOTH.decode(), BOTH)


async def test_a_deleted_file_is_not_brought_back_over_a_new_one(room: Room) -> None:
    room.write("gone", TEXT)
    room.write("old", TEXT)
    gate = room.propose(room.change("gone", None), room.change("new", TEXT, old_path="old"))
    await approve(room, gate)
    room.write("gone", b"mine")
    room.write("old", b"mine")
    result = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert {path for path, _ in result.conflicts} == {"gone", "new"}
    assert (room.read("gone"), room.read("old"), room.read("new")) == (b"mine", b"mine", TEXT)


async def test_what_was_applied_to_a_file_then_opened_goes_back_by_the_editor(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    await approve(room, gate)
    room.editor.open("a")
    room.editor.type("a", BOTH.decode() + "mine\n")
    result = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert result.applied == ("a",)
    assert room.editor.text("a") == TEXT.decode() + "mine\n"
    assert room.read("a") == BOTH
