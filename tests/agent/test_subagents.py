"""Sub-agents: at work in the background, bounded, with results of their own, and gone with their turn."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from agent_chat import assert_well_formed
from model_server import Answer, Request, call, stall, status, text, tools


def is_agent(request: Request) -> bool:
    return request.messages[0]["content"].startswith("You are a sub-agent")


def brief(request: Request) -> str:
    return str(request.messages[1]["content"])


def told(chat: Any) -> list[str]:
    """Return what the parent's calls came to."""
    return [event.data["content"] for event in chat.events("tool_result")]


async def test_two_agents_work_side_by_side_and_leave_their_results(chat: Any) -> None:
    both = threading.Barrier(2, timeout=10)

    def play(request: Request) -> Answer:
        if is_agent(request):
            assert "spawn_agent" not in request.tools and "wait_agent" not in request.tools
            if request.messages[-1]["role"] == "user":
                both.wait()
                return tools(call("read_file", path="greet.py"))
            return text(f"Found by {'one' if 'Task one' in brief(request) else 'two'}: two functions.")
        results = [m["content"] for m in request.messages if m["role"] == "tool"]
        if not results:
            return tools(
                call("spawn_agent", output="one.md", task="Task one: count the functions."),
                call("spawn_agent", output="two.md", task="Task two: count them too."),
            )
        if len(results) == 2:
            return tools(call("wait_agent", agent_id="agent-1"), call("wait_agent", agent_id="agent-2"))
        return text("Both agree.")

    chat.server._script = play
    assert (await chat.ask("Go.")).stop_reason == "end_turn"
    folder = chat.sessions.outputs(chat.session_id) / "task_1"
    assert (folder / "one.md").read_text() == "Found by one: two functions."
    assert (folder / "two.md").read_text() == "Found by two: two functions."
    results = chat.results()
    assert "Found by one" in results[2] and "@outputs/two.md" in results[3]
    assert [event.data["agent_id"] for event in chat.events("sub_agent_start")] == ["agent-1", "agent-2"]
    assert {event.data["status"] for event in chat.events("sub_agent_end")} == {"done"}
    assert len(chat.events("sub_agent_turn")) == 6
    assert any(c.title == "agent-1: Read greet.py" for c in chat.calls())
    for request in chat.server.requests:
        assert_well_formed(request.messages)
    assert chat.states()[-1].usage.input_tokens == 100 * len(chat.server.requests)


async def test_an_agent_edits_the_same_worktree(chat: Any) -> None:
    def play(request: Request) -> Answer:
        if is_agent(request):
            done = request.messages[-1]["role"] == "tool"
            return text("Written.") if done else tools(call("write_file", path="by_agent.txt", content="x\n"))
        results = [m for m in request.messages if m["role"] == "tool"]
        if not results:
            return tools(call("spawn_agent", output="r.md", task="Write by_agent.txt."))
        return tools(call("wait_agent", agent_id="agent-1")) if len(results) == 1 else text("Done.")

    chat.server._script = play
    await chat.ask("Go.")
    assert [change.path for change in await chat.conversation.changes()] == ["by_agent.txt"]


async def test_agents_are_bounded_and_their_names_unique(chat: Any) -> None:
    release = threading.Event()

    def play(request: Request) -> Answer:
        if is_agent(request):
            release.wait(10)
            return text("ok")
        if request.messages[-1]["role"] == "tool":
            release.set()
            return text("Done.")
        names = ["a.md", "a.md", "../b.md", "c.md", "d.md", "e.md", "f.md"]
        return tools(*(call("spawn_agent", output=name, task="Wait.") for name in names))

    chat.server._script = play
    await chat.ask("Go.")
    first, taken, bad, second, third, fourth, beyond = told(chat)
    assert "agent-1" in first and "is taken" in taken and "no plain file name" in bad
    assert "agent-2" in second and "agent-3" in third and "agent-4" in fourth and "none was started" in beyond


async def test_ids_are_unique_over_the_turns_of_a_session(chat: Any) -> None:
    def play(request: Request) -> Answer:
        if not request.tools:
            return text("CONTINUE")
        if is_agent(request):
            return text("ok")
        last = request.messages[-1]
        if last["role"] == "user":
            number = sum(m["role"] == "user" for m in request.messages)
            return tools(call("spawn_agent", output=f"{number}.md", task="x"), call("wait_agent", agent_id="agent-1"))
        return text("Done.")

    chat.server._script = play
    await chat.ask("One.")
    await chat.ask("Two.")
    assert [event.data["agent_id"] for event in chat.events("sub_agent_start")] == ["agent-1", "agent-2"]
    assert "No agent 'agent-1' runs in this turn" in told(chat)[3]


async def test_agents_end_with_their_turn(chat: Any) -> None:
    def play(request: Request) -> Answer:
        if is_agent(request):
            return tools(call("shell", command="sleep 62.5"))
        if request.messages[-1]["role"] == "user":
            return tools(call("spawn_agent", output="a.md", task="Sleep."))
        return stall()

    chat.server._script = play
    chat.say("Go.")
    await chat.until(lambda: any(c.title.startswith("agent-1: Run sleep") for c in chat.updates if hasattr(c, "title")))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await chat.conversation.cancel()
    assert time.monotonic() - started < 2
    assert [event.data["status"] for event in chat.events("sub_agent_end")] == ["cancelled"]
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "agent-1"]) == 0


async def test_an_agent_spends_its_parents_budget(new_chat: Any) -> None:
    chat = new_chat(turn_iterations=4)

    def play(request: Request) -> Answer:
        if is_agent(request):
            return tools(call("read_file", path=f"f{len(request.messages)}"))
        if request.messages[-1]["role"] == "user":
            return tools(
                call("spawn_agent", output="a.md", task="Read for ever."), call("wait_agent", agent_id="agent-1")
            )
        return text("Never reached.")

    chat.server._script = play
    state = await chat.ask("Go.")
    assert state.stop_reason == "budget" and len(chat.server.requests) == 4
    (end,) = chat.events("sub_agent_end")
    assert end.data["status"] == "stopped: budget"


async def test_a_failing_agent_is_reported_with_its_reason(chat: Any) -> None:

    def play(request: Request) -> Answer:
        if is_agent(request):
            return status(400, "no such thing")
        results = [m for m in request.messages if m["role"] == "tool"]
        if not results:
            return tools(call("spawn_agent", output="a.md", task="x"), call("wait_agent", agent_id="agent-1"))
        return text("It failed.")

    chat.server._script = play
    assert (await chat.ask("Go.")).stop_reason == "end_turn"
    assert "has ended (failed)" in told(chat)[1]
    assert (chat.sessions.outputs(chat.session_id) / "task_1" / "a.md").is_file()
