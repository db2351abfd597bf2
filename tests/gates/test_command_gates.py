"""Gates on commands."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from gate_room import Room
from selfloop import errors
from selfloop.gates.gate import CommandRequest, GateRecord

pytestmark = pytest.mark.unit

REQUEST = CommandRequest("s", "call-1", "curl example.org", ".", True, "process", "It asks for the network.")


async def asked(room: Room, request: CommandRequest = REQUEST) -> tuple[asyncio.Task, GateRecord]:
    before = {record.gate_id for record in room.gates.list("open")}
    task = asyncio.create_task(room.gates.ask_command(request))
    for _ in range(200):
        opened = [record for record in room.gates.list("open") if record.gate_id not in before]
        if opened or task.done():
            break
        await asyncio.sleep(0.005)
    return task, opened[0]


async def answer(room: Room, gate: GateRecord, option: str) -> None:
    await room.gates.resolve(gate.gate_id, option, digest=gate.digest, editor=room.editor)


async def test_a_command_waits_for_exactly_its_answer(room: Room) -> None:
    task, gate = await asked(room)
    assert gate.subject["command"] == "curl example.org"
    assert gate.subject["network"] is True
    assert not task.done()
    with pytest.raises(errors.Stale):
        await room.gates.resolve(gate.gate_id, "approve", digest="0" * 64, editor=room.editor)
    with pytest.raises(errors.InvalidInput):
        await room.gates.resolve(gate.gate_id, "approve", digest=None, editor=room.editor)
    await answer(room, gate, "approve")
    decision = await task
    assert (decision.allowed, decision.gate_id) == (True, gate.gate_id)


async def test_a_rejected_command_is_not_allowed(room: Room) -> None:
    task, gate = await asked(room)
    await room.gates.resolve(gate.gate_id, "reject", digest=None, comment="not now", editor=room.editor)
    decision = await task
    assert (decision.allowed, decision.comment) == (False, "not now")
    with pytest.raises(errors.Decided):
        await answer(room, gate, "approve")
    await answer(room, gate, "reject")


async def test_an_approval_holds_for_one_run(room: Room) -> None:
    task, gate = await asked(room)
    await answer(room, gate, "approve")
    assert (await task).allowed
    again, second = await asked(room)
    assert second.gate_id != gate.gate_id
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


async def test_always_stores_an_exact_rule(room: Room) -> None:
    task, gate = await asked(room)
    (always,) = [option for option in gate.options if option.kind == "allow_always"]
    assert "curl example.org" in (always.rule or "")
    await answer(room, gate, "always")
    assert (await task).allowed
    assert (await room.gates.ask_command(evolve(REQUEST, tool_call_id="call-2"))).gate_id is None
    for other in (evolve(REQUEST, command="curl example.org "), evolve(REQUEST, network=False)):
        waiting, _ = await asked(room, other)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_cancelled_turn_cancels_its_gate(room: Room) -> None:
    task, gate = await asked(room)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert room.gates.get(gate.gate_id).state == "cancelled"
    with pytest.raises(errors.Decided):
        await answer(room, gate, "approve")


async def test_a_gate_survives_the_worker_and_its_answer_finds_the_same_call(room: Room) -> None:
    task, gate = await asked(room)
    await room.gates.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert room.gates.get(gate.gate_id).state == "open"
    room.gates = room.opened()
    await answer(room, gate, "approve")
    decision = await room.gates.ask_command(REQUEST)
    assert (decision.allowed, decision.gate_id) == (True, gate.gate_id)


async def test_a_new_call_takes_over_the_open_gate_that_nobody_waits_at(room: Room) -> None:
    task, gate = await asked(room)
    await room.gates.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    room.gates = room.opened()
    taken = asyncio.create_task(room.gates.ask_command(evolve(REQUEST, tool_call_id="call-9")))
    await asyncio.sleep(0.05)
    assert [record.gate_id for record in room.gates.list("open")] == [gate.gate_id]
    await answer(room, gate, "approve")
    assert (await taken).allowed


async def test_two_equal_calls_have_a_gate_each(room: Room) -> None:
    first, one = await asked(room)
    second, two = await asked(room, evolve(REQUEST, tool_call_id="call-2"))
    assert one.gate_id != two.gate_id
    await answer(room, one, "approve")
    assert (await first).allowed
    assert not second.done()
    room.gates.cancel_session("s")
    assert not (await second).allowed


async def test_hidden_characters_of_a_command_are_shown_and_are_high_risk(room: Room) -> None:
    task, gate = await asked(room, evolve(REQUEST, command="echo a\u202eb"))
    assert gate.risk == "high"
    assert "‹U+202E›" in gate.subject["shown"]
    assert "‹U+202E›" in gate.title
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_command_gate_can_be_read_and_shown(room: Room) -> None:
    task, gate = await asked(room)
    view = await room.view(gate)
    assert (view.gate.gate_id, view.files) == (gate.gate_id, ())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
