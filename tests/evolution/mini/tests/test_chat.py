"""Titles, context, turns and the light bulb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfloop.agent import context, prompts
from selfloop.agent.replay import messages_of
from selfloop.agent.stuck import is_stuck
from selfloop.agent.titles import title_of
from selfloop.agent.turn import run_turn
from selfloop.errors import BudgetExceeded
from selfloop.lsp.chat_text import as_markdown
from selfloop.lsp.code_actions import actions
from selfloop.model.budget import Budget
from selfloop.sandbox.paths import Door


class Script:
    """A model that says what a test wants."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.sent: list[list[dict[str, Any]]] = []

    def __call__(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        self.sent.append(list(messages))
        return iter(self.answers.pop(0))


def call(name: str, **arguments: Any) -> list[dict[str, Any]]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return [{"tool_calls": [{"index": 0, "id": "c", "function": function}]}]


def say(text: str) -> list[dict[str, Any]]:
    return [{"content": letter} for letter in text]


def turn(script: Script, root: Path, budget: int = 100_000) -> tuple[str, list[dict[str, Any]], Door]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
    door = Door(root)
    told: list[str] = []
    reason = run_turn(messages, script, door, Budget(budget), "L2", told.append)
    return reason, messages, door


def test_a_title_is_the_first_line() -> None:
    assert title_of("Mend it\nplease") == "Mend it"


def test_a_long_title_is_cut() -> None:
    assert title_of("x" * 100) == "x" * 39 + "…"


def test_a_title_of_nothing_is_nothing() -> None:
    assert title_of("  ") == ""


def test_three_equal_calls_are_stuck() -> None:
    assert is_stuck(["a", "a", "a"]) and not is_stuck(["a", "a"]) and not is_stuck(["a", "b", "a"])


def test_a_plain_answer_ends_the_turn(tmp_path: Path) -> None:
    reason, messages, _ = turn(Script(say("Hello.")), tmp_path)
    assert reason == "end_turn" and messages[-1] == {"role": "assistant", "content": "Hello."}


def test_a_call_is_answered_before_the_model_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    script = Script(call("read_file", path="a.txt"), say("Done."))
    reason, messages, _ = turn(script, tmp_path)
    assert reason == "end_turn"
    assert script.sent[1][-1] == {"role": "tool", "tool_call_id": "c", "content": "one"}
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant"]


def test_what_is_written_is_only_proposed(tmp_path: Path) -> None:
    _, messages, door = turn(Script(call("write_file", path="a.txt", content="x"), say("Done.")), tmp_path)
    assert door.writes == {"a.txt": "x"} and not (tmp_path / "a.txt").exists()
    assert messages[2]["content"] == "Wrote a.txt."


def test_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    _, messages, door = turn(Script(call("write_file", path="../a", content="x"), say("Done.")), tmp_path)
    assert "leads out" in messages[2]["content"] and not door.writes


def test_an_unknown_tool_is_answered(tmp_path: Path) -> None:
    _, messages, _ = turn(Script(call("fly"), say("Done.")), tmp_path)
    assert "There is no tool" in messages[2]["content"]


def test_the_budget_ends_a_turn(tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded):
        turn(Script(say("Hello.")), tmp_path, budget=3)


def test_a_turn_that_goes_round_in_circles_ends(tmp_path: Path) -> None:
    reason, _, _ = turn(Script(*[call("list_files")] * 5), tmp_path)
    assert reason == "stuck"


def test_a_turn_has_an_end(tmp_path: Path) -> None:
    calls = [call("search", text=str(number)) for number in range(20)]
    assert turn(Script(*calls), tmp_path)[0] == "max_calls"


def test_the_newest_messages_are_shown_and_the_first() -> None:
    messages = [{"role": "user", "content": str(number)} for number in range(100)]
    shown = context.shown(messages)
    assert len(shown) == 40 and shown[0]["content"] == "0" and shown[-1]["content"] == "99"


def test_tokens_are_counted_with_care() -> None:
    assert context.tokens([{"role": "user", "content": "x" * 3000}]) >= 1000


def test_every_offered_tool_is_described() -> None:
    tools = context.offered("L2")
    assert [tool["function"]["name"] for tool in tools] == ["list_files", "read_file", "search", "write_file"]
    assert all(tool["function"]["description"] for tool in tools)
    assert context.names("L1") == ["list_files", "read_file", "search"]


def test_the_system_prompt_is_filled() -> None:
    text = context.system("project")["content"]
    assert "{{" not in text and "project" in text and "<!--" not in text


def test_a_prompt_with_a_missing_name_is_an_error() -> None:
    with pytest.raises(ValueError):
        prompts.render("chat")


def test_what_is_no_message_is_left_out() -> None:
    assert messages_of([{"message": {"role": "user"}}, {"x": 1}, {"message": 3}]) == [{"role": "user"}]


def test_a_session_is_written_as_markdown() -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "tool", "content": "x"}, {"role": "assistant", "content": "Yo"}]
    assert as_markdown(said) == "**user**\n\nHi\n\n**assistant**\n\nYo"


def test_the_light_bulb_asks_about_the_place() -> None:
    (action,) = actions("file:///a", {"start": 1})
    assert action["command"]["arguments"] == [{"uri": "file:///a", "range": {"start": 1}}]


def test_searching_and_listing(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("x\nneedle\n")
    (tmp_path / "a.txt").write_text("needle")
    (tmp_path / ".env").write_text("needle")
    _, messages, _ = turn(Script(call("search", text="needle"), call("list_files"), say("Done.")), tmp_path)
    assert messages[2]["content"] == "a.txt:1\nb.txt:2" and messages[4]["content"] == "a.txt\nb.txt"


def test_a_long_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 30_000)
    _, messages, _ = turn(Script(call("read_file", path="a.txt"), say("Done.")), tmp_path)
    assert len(messages[2]["content"]) == 20_006
