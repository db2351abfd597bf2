"""Compaction: room is made, nothing that matters is lost, and no pair is torn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_chat import assert_well_formed
from model_server import Answer, Request, call, status, text, tools
from selfloop.agent.history import Entry, History, Pin, shortened
from selfloop.agent.replay import read
from selfloop.messages import Message, ToolCall
from selfloop.storage.trajectories import read_events

TASK = "Rename `alpha` to `beta`, but leave — word for word — the string 'alpha 🙂' in docs/ as it is.\nSecond line."
RULES = "Rule 1: never touch generated/.\nRule 2: tabs, not spaces.\n"


class LongWork:
    """A model that reads on and on, and whose summaries are numbered."""

    def __init__(self, summaries: int) -> None:
        self.summaries: list[Request] = []
        self.wanted = summaries
        self.reads = 0

    def __call__(self, request: Request) -> Answer:
        if request.tools:
            if len(self.summaries) >= self.wanted and self.reads % 2:
                return text("Done.")
            self.reads += 1
            return tools(call("read_file", path="big.txt", start=self.reads * 100), text=f"Reading part {self.reads}.")
        if "NEW or CONTINUE" in request.messages[-1]["content"]:
            return text("CONTINUE")
        self.summaries.append(request)
        return text(f"## State\nSummary number {len(self.summaries)}.")


@pytest.fixture
def long_work(workspace: Path) -> Path:
    (workspace / "AGENTS.md").write_text(RULES)
    (workspace / "big.txt").write_text("".join(f"line {n} of a long file\n" for n in range(8_000)))
    return workspace


async def test_after_three_compactions_the_task_and_the_rules_stand_word_for_word(
    new_chat: Any, long_work: Path
) -> None:
    chat = new_chat(context_tokens=16_000)
    model = LongWork(3)
    chat.server._script = model
    state = await chat.ask(TASK)
    assert state.stop_reason == "end_turn" and len(model.summaries) == 3
    last = [request for request in chat.server.requests if request.tools][-1]
    whole = "\n".join(str(m["content"]) for m in last.messages)
    assert TASK in whole and RULES in whole and "Summary number 3." in whole
    assert "Summary number 1." not in whole
    for request in chat.server.requests:
        assert_well_formed(request.messages)
        assert len(json.dumps(request.body)) < 16_000 * 3.2
    for request in model.summaries:
        # What must stay word for word does not depend on the summariser.
        assert RULES not in "\n".join(str(m["content"]) for m in request.messages)
    systems = {request.messages[0]["content"] for request in chat.server.requests if request.tools}
    assert len(systems) == 1


async def test_steering_and_rejections_survive_three_compactions(new_chat: Any, long_work: Path) -> None:
    chat = new_chat(context_tokens=16_000)
    model = LongWork(3)
    chat.server._script = model
    chat.say(TASK)
    await chat.until(lambda: chat.events("tool_result"))
    chat.say("And keep the CHANGELOG short!", delivery="steer")
    chat.conversation.desk.record(
        "told",
        {
            "text": "The user rejected these changes: -a +b",
            "pins": [{"label": "The user's rejection", "text": "The user rejected these changes: -a +b", "task": 1}],
        },
    )
    await chat.idle()
    assert len(model.summaries) == 3
    whole = "\n".join(str(m["content"]) for m in chat.server.requests[-1].messages)
    for words in (TASK, RULES, "And keep the CHANGELOG short!", "The user rejected these changes: -a +b"):
        assert words in whole


async def test_a_compacted_history_is_read_back_as_it_was(new_chat: Any, long_work: Path) -> None:
    chat = new_chat(context_tokens=16_000)
    chat.server._script = LongWork(2)
    await chat.ask(TASK)
    path = chat.sessions.folder(chat.session_id) / "traj.jsonl"
    again = read(read_events(path)).history
    assert [m.to_wire() for m in again.wire()] == [m.to_wire() for m in chat.conversation.state.history.wire()]


async def test_old_output_is_dropped_before_anything_is_summarised(new_chat: Any, long_work: Path) -> None:
    chat = new_chat(context_tokens=24_000)
    model = LongWork(99)
    chat.server._script = lambda request: text("Done.") if model.reads >= 6 else model(request)
    await chat.ask(TASK)
    first = chat.events("compaction")[0]
    assert first.data["dropped"] and "folded" not in first.data
    dropped = [m for m in chat.server.requests[-1].messages if m["role"] == "tool" and "was dropped" in m["content"]]
    assert dropped and TASK in chat.server.requests[-1].messages[1]["content"]


async def test_a_provider_that_counts_otherwise_is_believed(new_chat: Any, long_work: Path) -> None:
    chat = new_chat(context_tokens=100_000)
    model = LongWork(99)
    refused: list[Request] = []

    def play(request: Request) -> Answer:
        if request.tools and len(json.dumps(request.body)) > 50_000:
            refused.append(request)
            return status(400, "maximum context length is 12000 tokens", error_code="context_length_exceeded")
        return text("Done.") if model.reads >= 8 else model(request)

    chat.server._script = play
    state = await chat.ask(TASK)
    assert state.stop_reason == "end_turn" and refused, chat.notices()
    assert_well_formed(chat.server.requests[-1].messages)


async def test_words_that_do_not_fit_at_all_end_with_a_sentence(new_chat: Any) -> None:
    chat = new_chat(context_tokens=12_000)
    chat.server._script = lambda request: text("## State\nnone") if not request.tools else text("ok")
    state = await chat.ask("word " * 20_000)
    assert state.stop_reason == "error" and "does not fit" in chat.notices()[0]
    assert not [request for request in chat.server.requests if request.tools]


async def test_a_summariser_that_fails_does_not_end_the_turn(new_chat: Any, long_work: Path) -> None:
    chat = new_chat(context_tokens=16_000)
    model = LongWork(1)

    def play(request: Request) -> Answer:
        answer = model(request)
        return answer if request.tools else status(400, "no")

    chat.server._script = play
    assert (await chat.ask(TASK)).stop_reason == "end_turn"
    whole = "\n".join(str(m["content"]) for m in chat.server.requests[-1].messages)
    assert "No summary could be written" in whole and TASK in whole


_CALLS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900)), min_size=1, max_size=12)


@pytest.mark.unit
@given(_CALLS, st.integers(0, 4_000), st.booleans())
def test_no_cut_tears_a_call_from_its_result(turns: list[tuple[int, int]], keep: int, ends_with_input: bool) -> None:
    history = History([Entry(Message("system", "s"), "system"), Entry(Message("user", "p"), "project")])
    history.add(Entry(Message("user", "task"), "input", (Pin("The user", "task", 1),)))
    for number, (calls, size) in enumerate(turns):
        made = tuple(ToolCall(f"c{number}-{i}", "read_file", '{"path": "x"}') for i in range(calls))
        history.add(Entry(Message("assistant", "r", made), "reply"))
        for one in made:
            history.add(Entry(Message("tool", "x" * size, tool_call_id=one.id), "result"))
    if ends_with_input:
        history.add(Entry(Message("user", "more"), "input", (Pin("The user", "more", 1),)))
    history.drop(history.droppable(keep))
    end = history.cut_before([len(entry.message.content) for entry in history.entries], keep)
    assert history.head() <= end < len(history.entries)
    pins = history.pins(end)
    history.fold(end, Entry(Message("user", "summary"), "summary", tuple(pins)))
    assert_well_formed([message.to_wire() for message in history.wire()])
    words = [pin.text for pin in history.pins(len(history.entries))]
    assert words == ["task", *(["more"] if ends_with_input else [])]


@pytest.mark.unit
def test_shortened_arguments_stay_json_and_keep_what_is_short() -> None:
    long = json.dumps({"path": "a.py", "content": "x" * 5_000})
    assert json.loads(shortened(long)) == {"path": "a.py", "content": "(5000 characters, dropped)"}
    assert json.loads(shortened("{broken" * 100)) == {"dropped": "700 characters"}
    assert len(shortened(json.dumps({str(n): "y" * 300 for n in range(900)}))) < 200
