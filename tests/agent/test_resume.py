"""A worker that dies anywhere: the next one goes on from what is recorded, with the same history."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent_chat import NoEditor, assert_well_formed
from model_server import Answer, Request, call, chunk, raw, stall, text, tools
from selfloop.agent.replay import read
from selfloop.sandbox.isolation import Isolation
from selfloop.storage.trajectories import Event, read_events
from selfloop.updates import MessageUpdate


def play(request: Request) -> Answer:
    """Play a model that needs no memory: what it does next follows from the messages alone."""
    if not request.tools:
        return text("CONTINUE")
    results = [m for m in request.messages if m["role"] == "tool"]
    inputs = [m for m in request.messages if m["role"] == "user"]
    if len(inputs) == 1:
        if not results:
            return tools(
                call("read_file", path="greet.py"), call("shell", command="echo x >> log.txt"), text="Looking."
            )
        if len(results) == 2:
            return tools(call("edit_file", path="greet.py", old="'Hello '", new="'Hi '"))
        return text("First done.")
    if request.messages[-1]["role"] == "tool":
        return text("Second done.")
    return tools(call("list_files"))


@pytest.fixture
async def story(new_chat: Any, model: Any) -> Any:
    """A session of two turns, all of it recorded."""
    model._script = play
    chat = new_chat()
    await chat.ask("Greet more briefly, please.")
    await chat.ask("And list the files.")
    await chat.conversation.close()
    return chat


def boundaries(chat: Any) -> list[list[bytes]]:
    lines = (chat.sessions.folder(chat.session_id) / "traj.jsonl").read_bytes().splitlines(keepends=True)
    return [lines[:count] for count in range(1, len(lines))]


def wire(events: list[Event]) -> list[dict[str, Any]]:
    return [message.to_wire() for message in read(events).history.wire()]


AGAIN = {"read_file", "write_file", "edit_file", "delete_file", "list_files", "search", "recall", "plan"}


async def test_a_session_cut_at_any_record_goes_on_with_the_same_history(story: Any) -> None:
    path: Path = story.sessions.folder(story.session_id) / "traj.jsonl"
    recorded = list(read_events(path))
    whole = wire(recorded)
    cuts = boundaries(story)
    assert len(cuts) > 25
    for lines in cuts:
        path.write_bytes(b"".join(lines))
        before = list(read_events(path))
        story.updates.clear()
        story.server.requests.clear()
        conversation = story.open()
        said = {event.data["message_id"] for event in before if event.kind == "user_input"}
        ended = [event for event in before if event.kind == "turn_end"]
        conversation.resume()
        waiting = len(said) > len(ended)
        assert conversation.running == waiting
        state = await story.idle() if waiting else None
        assert state is None or state.stop_reason == "end_turn"
        after = list(read_events(path))
        assert [event.data for event in after[: len(before)]] == [event.data for event in before]
        # What was on the wire before is there again, message for message.
        kept = wire(before)
        for request in story.server.requests:
            assert_well_formed(request.messages)
            if request.tools and kept:
                # The last message may have grown by the results of calls that had none.
                same = len(kept) - 1 if kept[-1]["role"] == "user" and len(kept) == 2 else len(kept)
                assert request.messages[:same] == kept[:same]
        done = [event.data["tool_call_id"] for event in after if event.kind == "tool_result"]
        assert len(done) == len(set(done))
        begun = {event.data["tool_call_id"] for event in before if event.kind == "tool_call"}
        finished = {event.data["tool_call_id"] for event in before if event.kind == "tool_result"}
        results = {event.data["tool_call_id"]: event.data["content"] for event in after if event.kind == "tool_result"}
        for call_id in begun - finished:
            # What is the same twice is made again; of the rest it is said that it may have taken effect.
            names = {event.data["tool_call_id"]: event.data["name"] for event in before if event.kind == "tool_call"}
            again = names[call_id] in AGAIN
            assert ("may or may not have taken effect" in results[call_id]) is not again
        judged = [request for request in story.server.requests if not request.tools]
        assert len(judged) <= (len(said) == 2)
        if len(said) == 2:
            assert [m["content"] for m in wire(after)][-1] == "Second done."
        assert len({event.data["message_id"] for event in after if event.kind == "user_input"}) == len(said)
        await conversation.close()
    assert whole


async def test_the_history_read_back_is_the_one_that_was_sent(story: Any) -> None:
    path: Path = story.sessions.folder(story.session_id) / "traj.jsonl"
    last = [request for request in story.server.requests if request.tools][-1]
    assert wire(list(read_events(path)))[: len(last.messages)] == last.messages


async def test_a_torn_last_line_is_repaired_and_the_session_goes_on(story: Any) -> None:
    path: Path = story.sessions.folder(story.session_id) / "traj.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"kind":"tool_result"' in line)
    path.write_bytes(b"".join(lines[:at]) + lines[at][:40])
    conversation = story.open()
    assert conversation.parts.trajectory.repaired
    conversation.resume()
    assert (await story.idle()).stop_reason == "end_turn"


async def test_a_call_that_waited_at_a_gate_is_asked_again_and_runs_once(new_chat: Any) -> None:
    chat = new_chat(isolated=Isolation("changes", "for this test"))
    chat.server.extend(tools(call("shell", command="echo x >> log.txt; true")), text("Done."))
    chat.say("Go.")
    (gate,) = await chat.until(lambda: chat.gates.list("open"))
    await chat.gates.close()
    await chat.conversation.close()
    assert chat.gates.get(gate.gate_id).state == "open"
    chat.open().resume()
    await chat.until(lambda: chat.conversation.state.asked)
    await asyncio.sleep(0.1)
    (again,) = chat.gates.list("open")
    assert again.gate_id == gate.gate_id
    await chat.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=NoEditor())
    assert (await chat.idle()).stop_reason == "end_turn"
    (log,) = [change for change in await chat.conversation.changes() if change.path == "log.txt"]
    assert log.post == b"x\n"


async def test_closing_in_the_middle_of_an_answer_asks_for_it_anew(chat: Any) -> None:

    chat.server.extend(
        raw(chunk({"role": "assistant", "content": ""}), chunk({"content": "Half of "}), *stall().pieces),
        text("The whole."),
    )
    chat.say("Go.")
    await chat.until(lambda: any("Half" in str(update) for update in chat.updates))
    await chat.conversation.close()
    assert [m.status for m in chat.of(MessageUpdate) if m.role == "assistant"] == ["interrupted"]
    chat.open().resume()
    assert (await chat.idle()).stop_reason == "end_turn"
    assert chat.answers()[-1] == "The whole."
    assert [m["role"] for m in chat.server.requests[-1].messages] == ["system", "user"]
    ids = [m.message_id for m in chat.of(MessageUpdate) if m.role == "assistant"]
    assert len(set(ids)) == 2


async def test_what_waits_in_the_queue_survives(chat: Any) -> None:

    chat.server.extend(stall(), text("One."), text("CONTINUE"), text("Two."))
    chat.say("First.")
    await asyncio.to_thread(chat.server.wait, 1)
    chat.say("Second.")
    await chat.conversation.close()
    chat.open().resume()
    await chat.idle()
    assert chat.answers() == ["One.", "Two."]


async def test_a_turn_that_the_user_had_cancelled_is_not_taken_up(chat: Any) -> None:
    chat.server.extend(tools(call("list_files")), text("Done."), text("CONTINUE"), text("ok"))
    await chat.ask("Go.")
    path = chat.sessions.folder(chat.session_id) / "traj.jsonl"
    await chat.conversation.close()
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"kind":"tool_call"' in line)
    turn_id = chat.states()[0].turn_id.encode()
    cancel = b'{"ts":"2026-01-01T00:00:00.000Z","kind":"cancel","data":{"turn_id":"' + turn_id + b'"}}\n'
    path.write_bytes(b"".join(lines[: at + 1]) + cancel)
    asked = len(chat.server.requests)
    chat.open().resume()
    assert (await chat.idle()).stop_reason == "cancelled"
    assert len(chat.server.requests) == asked


async def test_resuming_a_session_at_rest_does_nothing(story: Any) -> None:
    story.updates.clear()
    story.open().resume()
    assert not story.conversation.running and story.updates == []
    assert story.sessions.state(story.session_id).get("running") is None


async def test_a_budget_is_not_given_anew_by_a_restart(new_chat: Any) -> None:

    chat = new_chat(turn_iterations=2)
    chat.server.extend(tools(call("list_files")), stall(), text("never"))
    chat.say("Go.")
    await asyncio.to_thread(chat.server.wait, 2)
    await chat.conversation.close()
    chat.server._script = lambda request: tools(call("read_file", path="greet.py"))
    chat.open().resume()
    assert (await chat.idle()).stop_reason == "budget"
    assert len(chat.server.requests) <= 3
