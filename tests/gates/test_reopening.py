"""What was approved and then taken back is asked about again; what is redone counts as approved."""

from __future__ import annotations

import pytest

from gate_room import Room
from selfloop.gates.gate import GateRecord

pytestmark = pytest.mark.unit

TEXT = b"one\ntwo\nthree\nfour\nfive\n"
BOTH = b"ONE\ntwo\nthree\nfour\nFIVE\n"
LAST = b"one\ntwo\nthree\nfour\nFIVE\n"
FIRST = b"ONE\ntwo\nthree\nfour\nfive\n"


def proposed(room: Room) -> GateRecord:
    """Return a gate of two hunks on a document that is open and was not edited."""
    room.write("a", TEXT)
    room.editor.open("a")
    return room.propose(room.change("a", BOTH))


async def approve(room: Room, gate: GateRecord, *numbers: int) -> None:
    """Approve some hunks by their place in the gate; none: all."""
    hunks = await room.hunks(gate)
    chosen = [hunks[number] for number in numbers] or hunks
    result = await room.gates.resolve(gate.gate_id, "approve", digest=None, hunks=chosen, editor=room.editor)
    assert result.conflicts == ()


async def typed(room: Room, text: bytes, *, saved: bool = False) -> None:
    """Let the document become another text, and the gates look at it."""
    room.editor.type("a", text.decode())
    if saved:
        room.editor.save("a")
    await room.gates.noticed("a", room.editor, saved=saved)


async def statuses(room: Room, gate: GateRecord) -> list[str]:
    return [hunk.status for file in (await room.view(gate)).files for hunk in file.hunks]


async def open_gate(room: Room) -> GateRecord:
    (gate,) = room.gates.list("open")
    return gate


async def test_the_editors_undo_makes_a_hunk_pending_again_in_its_open_gate(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate, 0)
    digest = room.gates.get(gate.gate_id).digest
    await typed(room, TEXT)
    assert await statuses(room, gate) == ["pending", "pending"]
    assert room.gates.get(gate.gate_id).digest != digest, "what would be approved is another thing now"
    (back,) = room.decided[-1].taken_back
    assert (room.decided[-1].option_id, back.pre, back.post) == ("undo", TEXT, FIRST)
    assert room.published[-1].gate_id == gate.gate_id
    await approve(room, gate)
    assert room.editor.text("a").encode() == BOTH


async def test_a_redo_counts_as_approved_again(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate, 0)
    for _ in range(2):
        await typed(room, TEXT)
        assert await statuses(room, gate) == ["pending", "pending"]
        await typed(room, FIRST)
        assert await statuses(room, gate) == ["approved", "pending"]
        assert (room.decided[-1].option_id, len(room.decided[-1].approved)) == ("approve", 1)
    result = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert (result.applied, room.editor.text("a").encode()) == (("a",), TEXT)


async def test_an_undo_after_the_gate_is_resolved_opens_the_sessions_next_one(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    assert room.gates.get(gate.gate_id).state == "resolved"
    await typed(room, LAST)
    again = await open_gate(room)
    assert again.gate_id != gate.gate_id and again.session_id == gate.session_id
    assert await statuses(room, again) == ["pending"]
    assert room.gates.get(gate.gate_id).state == "resolved"
    await typed(room, TEXT)
    assert [record.gate_id for record in room.gates.list("open")] == [again.gate_id]
    assert await statuses(room, again) == ["pending", "pending"]
    await approve(room, again)
    assert room.editor.text("a").encode() == BOTH and room.gates.list("open") == []


async def test_undo_and_redo_of_a_resolved_gate_may_go_on_for_ever(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    for _ in range(3):
        await typed(room, TEXT)
        again = await open_gate(room)
        assert await statuses(room, again) == ["pending", "pending"]
        await typed(room, BOTH)
        assert room.gates.list("open") == [] and room.gates.get(again.gate_id).resolved_by == "approve"


async def test_what_waits_again_joins_what_waits_already_in_the_same_file(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    room.editor.save("a")
    more = BOTH.replace(b"three", b"THREE")
    second = room.propose(room.change("a", more))
    await typed(room, LAST)
    assert await statuses(room, second) == ["pending", "pending"]
    await approve(room, second)
    assert room.editor.text("a").encode() == more


async def test_an_edit_of_another_kind_decides_nothing(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    decided = len(room.decided)
    for text in (BOTH.replace(b"FIVE", b"Five"), BOTH + b"six\n", BOTH.replace(b"ONE\n", b""), b"", BOTH):
        await typed(room, text)
    assert room.gates.list("open") == [] and len(room.decided) == decided


async def test_an_undo_is_known_among_other_edits(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    await typed(room, b"zero\n" + LAST.replace(b"three\n", b""))
    again = await open_gate(room)
    (file,) = (await room.view(again)).files
    assert [(hunk.start, hunk.new_text) for hunk in file.hunks] == [(1, "ONE\n")]


async def test_what_a_later_approval_has_replaced_is_not_taken_back_by_it(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    room.editor.save("a")
    await room.gates.noticed("a", room.editor, saved=True)
    await approve(room, room.propose(room.change("a", LAST)))
    await room.gates.noticed("a", room.editor)
    assert room.editor.text("a").encode() == LAST and room.gates.list("open") == []
    await typed(room, BOTH)
    again = await open_gate(room)
    (file,) = (await room.view(again)).files
    assert [hunk.new_text for hunk in file.hunks] == ["one\n"], "of the two, the newer one was taken back"


async def test_another_branch_on_the_disk_is_nobodys_undo(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    room.editor.save("a")
    await room.gates.noticed("a", room.editor, saved=True)
    room.write("a", TEXT)
    room.editor.open("a")  # An editor loads a clean document anew.
    await room.gates.noticed("a", room.editor)
    assert room.gates.list("open") == []
    await typed(room, b"zero\n" + TEXT)
    assert room.gates.list("open") == [], "nor does the next key make it one"


async def test_an_undo_that_is_saved_at_once_is_one(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    room.editor.save("a")
    await room.gates.noticed("a", room.editor, saved=True)
    await typed(room, TEXT, saved=True)
    assert await statuses(room, await open_gate(room)) == ["pending", "pending"]


async def test_a_new_worker_knows_an_undo_too(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    room.gates = room.opened()
    assert room.gates.watches("a") and not room.gates.watches("b")
    await room.gates.noticed("a", room.editor)
    await typed(room, TEXT)
    assert await statuses(room, await open_gate(room)) == ["pending", "pending"]


async def test_a_deleted_session_asks_nothing_more(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate)
    room.gates._decisions._reopening._lives = lambda session_id: False
    await typed(room, TEXT)
    assert room.gates.list("open") == []


async def test_undo_of_a_resolved_gate_asks_again_in_the_next_one(room: Room) -> None:
    room.write("gone", TEXT)
    room.write("old", TEXT)
    gate = proposed(room)
    gate = room.propose(
        room.change("a", BOTH),
        room.change("gone", None),
        room.change("new", BOTH, old_path="old"),
        room.change("b", b""),
    )
    await approve(room, gate)
    assert room.gates.get(gate.gate_id).state == "resolved"
    result = await room.gates.undo(gate.gate_id, editor=room.editor)
    assert set(result.applied) == {"a", "gone", "old", "b"}
    again = await open_gate(room)
    assert again.gate_id != gate.gate_id
    assert {file.path for file in (await room.view(again)).files} == {"a", "gone", "new", "b"}
    assert set(await statuses(room, again)) == {"pending"}
    await approve(room, again)
    assert room.editor.text("a").encode() == BOTH
    assert (room.read("gone"), room.read("old"), room.read("new"), room.read("b")) == (None, None, BOTH, b"")
    await room.gates.undo(again.gate_id, editor=room.editor)
    assert (room.read("gone"), room.read("old"), room.read("b")) == (TEXT, TEXT, None)


async def test_undo_of_an_open_gate_makes_its_hunks_pending_in_it(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate, 1)
    await room.gates.undo(gate.gate_id, editor=room.editor)
    assert await statuses(room, gate) == ["pending", "pending"]
    assert [record.gate_id for record in room.gates.list("open")] == [gate.gate_id]
    assert room.decided[-1].option_id == "undo"


async def test_hunks_of_an_earlier_turn_wait_again_in_the_gate_that_is_still_open(room: Room) -> None:
    gate = proposed(room)
    await approve(room, gate, 0)
    room.editor.save("a")
    await room.gates.noticed("a", room.editor, saved=True)
    # The next turn proposes what the user does not have: the approved hunk is no part of it.
    assert room.propose(room.change("a", BOTH)).gate_id == gate.gate_id
    assert await statuses(room, gate) == ["pending"]
    await typed(room, TEXT)
    assert [record.gate_id for record in room.gates.list("open")] == [gate.gate_id]
    assert await statuses(room, gate) == ["pending", "pending"]
    await approve(room, gate)
    assert room.editor.text("a").encode() == BOTH
