"""A small model on a server like Ollama's, which knows no tool calls, evolves by the text protocol."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loop_scripts import until
from model_server import Answer, Call, ModelServer, Request, call, status, text
from self_room import FILE, SUGGEST, SelfRoom, is_reflection

EDIT = call("edit_file", path=FILE, old='"Hello " + name', new='"Hello, " + name')
NO_TOOLS = status(400, "registry.ollama.ai/library/small does not support tools")


def said(*calls: Call, words: str = "") -> Answer:
    """Return calls as such a model writes them."""
    return text("\n".join([words, *(f'<tool name="{one.name}">{one.arguments}</tool>' for one in calls)]))


def plays(reflection: list[Answer], maker: list[Answer]) -> Callable[[Request], Answer]:
    """Play reflection and maker; a request that offers tools is refused, as Ollama does it."""

    def answer(request: Request) -> Answer:
        if request.tools:
            return NO_TOOLS
        script = reflection if is_reflection(request) else maker
        turns = sum(message["role"] == "assistant" for message in request.messages)
        return script[min(turns, len(script) - 1)]

    return answer


async def test_the_whole_way_without_tool_calls(room: SelfRoom, model: ModelServer) -> None:
    room.say("Greet with a comma, please.")
    model._script = plays(
        [said(SUGGEST, words="The greeting lacks a comma."), text("One finding.")],
        [said(EDIT, words="I add it."), text("The comma is there."), text("SKIP"), text("The documents say nothing.")],
    )
    report = await room.round()
    assert report.outcome.type == "escalated", report.render()
    gate = room.workspace.gates.get(report.gate_id or "")
    assert '+    return "Hello, " + name' in gate.subject["diff"]
    await room.workspace.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=room.editor(room.path))
    await until(lambda: room.swapped)
    assert [number for number, _, _ in room.swapped] == [1]
    asked = [request for request in model.requests if not request.tools]
    assert len(asked) >= 6 and all("<tool" in str(request.messages[0]) for request in asked)


@pytest.mark.parametrize(
    "reply", ["", "<tool name=", '<tool name="suggest_improvement">{"file": 5}</tool>', "I would."]
)
async def test_a_model_that_cannot_write_a_call_ends_in_one_sentence(
    room: SelfRoom, model: ModelServer, reply: str
) -> None:
    room.say("Greet with a comma, please.")
    model._script = plays([text(reply)], [text("SKIP")])
    report = await room.round()
    assert report.outcome.type in ("reported", "failed", "budget-exhausted"), report.render()
    assert "Traceback" not in report.render() and room.swapped == []
