"""What the user does while a turn runs: steer it, queue after it, cancel it, decide at its gates."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

from agent_chat import NoEditor, assert_well_formed
from model_server import Hold, call, chunk, raw, stall, text, tools
from selfloop.sandbox.isolation import Isolation
from selfloop.updates import MessageUpdate

CHANGES_ONLY = Isolation("changes", "for this test")


async def test_what_is_queued_begins_after_the_turn(chat: Any) -> None:
    hold = Hold()
    chat.server.extend(raw(hold, *text("One.").pieces), text("CONTINUE"), text("Two."))
    first = chat.say("First.")
    await asyncio.to_thread(chat.server.wait, 1)
    second = chat.say("Second.")
    assert (first.delivery, second.delivery) == ("start", "queue") and first.turn_id != second.turn_id
    hold.event.set()
    await chat.idle()
    assert [(s.state, s.turn_id) for s in chat.states()] == [
        ("running", first.turn_id),
        ("idle", first.turn_id),
        ("running", second.turn_id),
        ("idle", second.turn_id),
    ]
    assert chat.answers() == ["One.", "Two."]


async def test_steering_enters_after_the_running_tools(chat: Any) -> None:
    chat.server.extend(
        tools(call("shell", command="sleep 1; echo one"), call("list_files")), text("I see the steering.")
    )
    chat.say("Go.")
    await chat.until(lambda: chat.events("tool_call"))
    ack = chat.say("Use the other file!", delivery="steer")
    assert ack.delivery == "steer" and ack.turn_id == chat.states()[0].turn_id
    await chat.idle()
    roles = [m["role"] for m in chat.server.requests[1].messages]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    assert "Use the other file!" in chat.server.requests[1].messages[-1]["content"]
    assert len([s for s in chat.states() if s.state == "idle"]) == 1


async def test_steering_that_comes_with_the_last_words_goes_on_with_the_turn(chat: Any) -> None:
    hold = Hold()
    chat.server.extend(raw(hold, *text("Done.").pieces), text("And that too."))
    chat.say("Go.")
    await asyncio.to_thread(chat.server.wait, 1)
    chat.say("One more thing.", delivery="steer")
    hold.event.set()
    state = await chat.idle()
    assert state.stop_reason == "end_turn" and chat.answers() == ["Done.", "And that too."]
    assert_well_formed(chat.server.requests[1].messages)


async def test_steering_an_idle_session_starts_a_turn(chat: Any) -> None:
    chat.server.extend(text("ok"))
    assert chat.say("Go.", delivery="steer").delivery == "start"
    assert (await chat.idle()).stop_reason == "end_turn"


async def test_cancel_while_the_model_is_silent(chat: Any) -> None:
    chat.server.extend(stall(), text("CONTINUE"), text("Now."))
    chat.say("Go.")
    await asyncio.to_thread(chat.server.wait, 1)
    started = time.monotonic()
    await chat.conversation.cancel()
    assert time.monotonic() - started < 2
    assert chat.states()[-1].stop_reason == "cancelled" and not chat.conversation.running
    await asyncio.to_thread(chat.server.requests[0].gone.wait, 5)
    assert chat.server.requests[0].gone.is_set()
    assert (await chat.ask("Again.")).stop_reason == "end_turn"
    assert_well_formed(chat.server.requests[-1].messages)
    assert "Go." in chat.server.requests[-1].messages[1]["content"]


async def test_cancel_keeps_what_the_model_had_said(chat: Any) -> None:
    chat.server.extend(
        raw(chunk({"role": "assistant", "content": ""}), chunk({"content": "I think that "}), *stall().pieces),
        text("CONTINUE"),
        text("ok"),
    )
    chat.say("Go.")
    await chat.until(lambda: len(chat.updates) > 3)
    await chat.conversation.cancel()
    (said,) = [m for m in chat.of(MessageUpdate) if m.role == "assistant"]
    assert said.status == "interrupted" and said.text == "I think that "
    await chat.ask("Go on.")
    assert "I think that " in [m["content"] for m in chat.server.requests[-1].messages]


async def test_cancel_kills_a_command_and_answers_its_call(chat: Any, workspace: Path) -> None:
    chat.server.extend(
        tools(call("shell", command="echo x > started; sleep 61.5"), call("list_files")), text("CONTINUE"), text("ok")
    )
    chat.say("Go.")
    await chat.until(lambda: list(chat.folders.cache.rglob("started")))
    started = time.monotonic()
    await chat.conversation.cancel()
    assert time.monotonic() - started < 2
    assert chat.states()[-1].stop_reason == "cancelled"
    assert not _processes_with("sleep 61.5")
    await chat.ask("Again.")
    request = chat.server.requests[-1]
    assert_well_formed(request.messages)
    assert "cancelled the turn while this ran" in chat.results()[0]
    assert "before this was carried out" in chat.results()[1]


async def test_cancel_ends_one_turn_and_what_waits_goes_on(chat: Any) -> None:
    chat.server.extend(stall(), text("CONTINUE"), text("Second answer."))
    chat.say("First.")
    await asyncio.to_thread(chat.server.wait, 1)
    chat.say("Second.")
    await chat.conversation.cancel()
    assert (await chat.idle()).stop_reason == "end_turn"
    assert chat.answers() == ["Second answer."]


async def test_cancel_right_after_a_prompt_ends_that_turn_and_keeps_the_words(chat: Any) -> None:
    chat.server.extend(text("CONTINUE"), text("ok"), text("CONTINUE"), text("ok"))
    chat.say("Do the first thing.")
    await chat.conversation.cancel()
    assert chat.states()[-1].stop_reason == "cancelled" and not chat.server.requests
    await chat.ask("Do the second thing.")
    asked = chat.server.requests[-1].messages[-1]["content"]
    assert "Do the second thing." in asked and "Do the first thing." in asked


async def test_cancelling_nothing_does_nothing(chat: Any) -> None:
    await chat.conversation.cancel()
    assert chat.updates == []


async def test_a_cancelled_turn_still_proposes_what_it_has_changed(chat: Any) -> None:
    chat.server.extend(tools(call("write_file", path="new.txt", content="x")), stall())
    chat.say("Go.")
    await asyncio.to_thread(chat.server.wait, 2)
    await chat.conversation.cancel()
    assert [gate.state for gate in chat.gates.list()] == ["open"]


async def test_a_rejected_change_leaves_the_worktree_and_the_model_is_told(chat: Any, workspace: Path) -> None:
    chat.server.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello '", new="'Hi '"),
            call("write_file", path="new.txt", content="keep me\n"),
        ),
        text("Done."),
        text("CONTINUE"),
        text("I see."),
    )
    await chat.ask("Go.")
    (gate,) = chat.gates.list("open")
    view = await chat.gates.read(gate.gate_id, NoEditor())
    hunks = {file.path: [(hunk.hunk_id, hunk.digest) for hunk in file.hunks] for file in view.files}
    await chat.gates.resolve(
        gate.gate_id, "reject", digest=None, hunks=hunks["greet.py"], comment="Keep Hello.", editor=NoEditor()
    )
    await chat.gates.resolve(gate.gate_id, "approve", digest=None, hunks=hunks["new.txt"], editor=NoEditor())
    assert (workspace / "new.txt").read_text() == "keep me\n" and "Hello" in (workspace / "greet.py").read_text()
    await chat.ask("And now?")
    asked = chat.server.requests[-1].messages[-1]["content"]
    assert "rejected these changes" in asked and "Keep Hello." in asked and "+    return 'Hi ' + name" in asked
    assert "approved your changes to new.txt" in asked
    assert await chat.conversation.changes() == []
    assert [event.data["option_id"] for event in chat.events("gate_resolved")] == ["reject", "approve"]
    assert any(pin.label == "The user's rejection" for pin in chat.conversation.state.history.pins(99))


async def test_a_decision_in_a_running_turn_reaches_the_model_at_once(chat: Any) -> None:
    hold = Hold()
    chat.server.extend(
        tools(call("edit_file", path="greet.py", old="'Hello '", new="'Hi '")),
        text("Done."),
        text("CONTINUE"),
        raw(hold, *tools(call("read_file", path="greet.py")).pieces),
        text("Ah."),
    )
    await chat.ask("Go.")
    chat.say("More.")
    await asyncio.to_thread(chat.server.wait, 4)
    (gate,) = chat.gates.list("open")
    record = (await chat.gates.read(gate.gate_id, NoEditor())).gate
    await chat.gates.resolve(gate.gate_id, "reject", digest=record.digest, editor=NoEditor())
    hold.event.set()
    await chat.idle()
    assert "rejected these changes" in chat.server.requests[-1].messages[-1]["content"]
    assert await chat.conversation.changes() == []


async def test_a_command_waits_at_a_gate_and_runs_when_it_is_allowed(new_chat: Any) -> None:
    chat = new_chat(isolated=CHANGES_ONLY)
    chat.server.extend(tools(call("shell", command="echo out > made.txt; echo done")), text("ok"))
    chat.say("Go.")
    (gate,) = await chat.until(lambda: chat.gates.list("open"))
    assert gate.subject["command"] == "echo out > made.txt; echo done" and gate.subject_type == "command"
    assert not list(chat.folders.cache.rglob("made.txt"))
    await chat.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=NoEditor())
    await chat.idle()
    assert "Exit code 0" in chat.results()[0] and "done" in chat.results()[0]
    (changes,) = chat.gates.list("open")
    assert changes.subject_type == "changes"


async def test_a_refused_command_does_not_run_and_the_model_hears_the_users_words(new_chat: Any) -> None:
    chat = new_chat(isolated=CHANGES_ONLY)
    chat.server.extend(tools(call("shell", command="touch made.txt")), text("ok"))
    chat.say("Go.")
    (gate,) = await chat.until(lambda: chat.gates.list("open"))
    await chat.gates.resolve(gate.gate_id, "reject", digest=None, comment="Use make.", editor=NoEditor())
    await chat.idle()
    assert "did not allow" in chat.results()[0] and "Use make." in chat.results()[0]
    assert not list(chat.folders.cache.rglob("made.txt"))


async def test_cancel_at_a_gate_cancels_the_gate(new_chat: Any) -> None:
    chat = new_chat(isolated=CHANGES_ONLY)
    chat.server.extend(tools(call("shell", command="touch made.txt")))
    chat.say("Go.")
    await chat.until(lambda: chat.gates.list("open"))
    await chat.conversation.cancel()
    assert [gate.state for gate in chat.gates.list()] == ["cancelled"]


async def test_network_is_always_asked_about(chat: Any) -> None:
    chat.server.extend(tools(call("shell", command="true", network=True)), text("ok"))
    chat.say("Go.")
    (gate,) = await chat.until(lambda: chat.gates.list("open"))
    assert gate.subject["network"] is True
    await chat.gates.resolve(gate.gate_id, "reject", digest=None, editor=NoEditor())
    await chat.idle()


async def test_plain_reading_commands_run_unasked_without_a_jail(new_chat: Any) -> None:
    chat = new_chat(isolated=CHANGES_ONLY)
    chat.server.extend(tools(call("shell", command="ls")), text("ok"))
    await chat.ask("Go.")
    assert "greet.py" in chat.results()[0] and chat.gates.list() == []


async def test_without_a_place_to_work_the_user_is_told_and_the_words_are_kept(new_chat: Any, tmp_path: Path) -> None:
    chat = new_chat()
    folder = chat.folders.cache
    folder.mkdir(parents=True)
    if os.geteuid() == 0:
        folder.rmdir()
        folder.write_text("no folder")
    else:
        folder.chmod(0o500)
    state = await chat.ask("Go.")
    assert state.stop_reason == "error" and len(chat.notices()) == 1 and not chat.server.requests
    folder.unlink() if folder.is_file() else folder.chmod(0o700)
    chat.open()
    chat.server.extend(text("ok"))
    assert (await chat.ask("Again.")).stop_reason == "end_turn"
    assert "Go." in chat.server.requests[0].messages[1]["content"]


def _processes_with(words: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if words in line:
                found.append(line)
    return found


async def test_what_waits_at_a_gate_outlives_the_cache(chat: Any) -> None:
    chat.server.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello '", new="'Hi '"),
            call("write_file", path="new.txt", content="one\n"),
        ),
        text("Done."),
        text("CONTINUE"),
        tools(call("read_file", path="greet.py")),
        text("Still there."),
    )
    await chat.ask("Go.")
    (gate,) = chat.gates.list("open")
    await chat.conversation.close()
    for pool in chat.pools:
        await pool.close()
    shutil.rmtree(chat.folders.cache)
    chat.open()
    await chat.ask("And now?")
    assert "return 'Hi ' + name" in chat.results()[-1]
    (again,) = chat.gates.list("open")
    assert again.gate_id == gate.gate_id
    assert sorted(change.path for change in await chat.conversation.changes()) == ["greet.py", "new.txt"]


async def test_a_change_that_was_rejected_before_is_not_proposed_again_and_the_user_is_told(chat: Any) -> None:
    edit = tools(call("edit_file", path="greet.py", old="'Hello '", new="'Hi '"))
    chat.server.extend(edit, text("Done."), text("CONTINUE"), edit, text("Again."))
    await chat.ask("Go.")
    (gate,) = chat.gates.list("open")
    record = (await chat.gates.read(gate.gate_id, NoEditor())).gate
    await chat.gates.resolve(gate.gate_id, "reject", digest=record.digest, editor=NoEditor())
    await chat.ask("Do it all the same.")
    assert chat.gates.list("open") == [] and "rejected before" in chat.notices()[-1]


async def test_an_approval_does_not_prolong_a_turn_that_is_done(chat: Any) -> None:
    hold = Hold()
    chat.server.extend(
        tools(call("write_file", path="new.txt", content="one\n")),
        text("Done."),
        text("CONTINUE"),
        raw(hold, *text("An answer.").pieces),
        text("CONTINUE"),
        text("ok"),
    )
    await chat.ask("Go.")
    chat.say("A question.")
    await asyncio.to_thread(chat.server.wait, 4)
    (gate,) = chat.gates.list("open")
    record = (await chat.gates.read(gate.gate_id, NoEditor())).gate
    await chat.gates.resolve(gate.gate_id, "approve", digest=record.digest, editor=NoEditor())
    hold.event.set()
    assert (await chat.idle()).stop_reason == "end_turn" and len(chat.server.requests) == 4
    await chat.ask("And?")
    assert "approved your changes to new.txt" in chat.server.requests[-1].messages[-1]["content"]
