"""The prompts: every name is filled, every parameter is described, and no reason for a rule reaches a model."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from selfloop.agent.chat_turn import AGENT_SIDE_TOOLS, CHAT_TOOLS
from selfloop.agent.prompts import Prompts
from selfloop.agent.tools.toolbox import Toolbox
from selfloop.agent.tools.verdicts import CHECKER_TOOLS, REFLECTION_TOOLS
from selfloop.errors import RequestFailed

pytestmark = pytest.mark.unit

CONTRACT = {
    "read_file": ["path", "start", "end"],
    "write_file": ["path", "content", "start", "end"],
    "edit_file": ["path", "old", "new"],
    "delete_file": ["path"],
    "list_files": ["path"],
    "search": ["pattern", "path"],
    "shell": ["command", "timeout_seconds", "network"],
    "spawn_agent": ["output", "task"],
    "wait_agent": ["agent_id"],
    "remember": ["text"],
    "recall": ["query"],
    "plan": ["entries"],
    "submit_verdict": ["verdict", "summary", "evidence"],
    "suggest_improvement": ["file", "improvement", "verify"],
}


@pytest.fixture
def prompts() -> Prompts:
    return Prompts.load()


def test_each_prompt_renders_without_a_gap_or_a_comment(prompts: Prompts) -> None:
    texts = {
        "chat": prompts.render("chat", marker="m1", platform="Linux", commands="S"),
        "subagent": prompts.render("subagent", marker="m1", commands="S"),
        "project": prompts.render("project", folder="f", rules="R", map="M"),
        "compacted": prompts.render("compacted", words="W", summary="S"),
        **{name: prompts.render(name) for name in ("compact", "judge_task", "shell_process", "shell_changes")},
        "shell_none": prompts.render("shell_none"),
    }
    for name, text in texts.items():
        assert "{{" not in text and "<!--" not in text and "-->" not in text, name
        assert "\n\n\n" not in text and text == text.strip(), name


def test_every_rule_of_the_system_text_has_its_reason_beside_it() -> None:
    source = (Prompts.load().folder / "chat.md").read_text(encoding="utf-8")
    rules = source.partition("## Rules")[2].partition("## Where you are")[0]
    assert rules.count("<!--") == sum(line.startswith("- ") for line in rules.splitlines()) >= 8


def test_the_tools_have_the_names_and_parameters_of_the_contract(prompts: Prompts) -> None:
    box = Toolbox((*CHAT_TOOLS, *CHECKER_TOOLS, *REFLECTION_TOOLS), prompts)
    assert {spec.name: list(spec.parameters["properties"]) for spec in box.specs} == CONTRACT


def test_each_tool_shows_one_real_call_that_its_parameters_take(prompts: Prompts) -> None:
    for tool in (*CHAT_TOOLS, *CHECKER_TOOLS, *REFLECTION_TOOLS):
        spec = Toolbox((tool,), prompts).specs[0]
        _, _, example = spec.description.partition("Example: ")
        msgspec.convert(msgspec.json.decode(example), tool.params)
        assert all(shown["description"] for shown in spec.parameters["properties"].values())


def test_a_sub_agent_holds_no_tool_that_its_parent_does_not_hold() -> None:
    assert set(AGENT_SIDE_TOOLS) < set(CHAT_TOOLS)
    assert not {"spawn_agent", "wait_agent", "remember"} & {tool.name for tool in AGENT_SIDE_TOOLS}


def test_a_name_that_nothing_fills_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Hello {{name}}, {{other}}.")
    with pytest.raises(RequestFailed, match=r"a\.md.*other"):
        Prompts(tmp_path).render("a", name="you")
    with pytest.raises(RequestFailed, match="extra"):
        Prompts(tmp_path).render("a", name="you", other="me", extra="x")


def test_what_is_filled_in_is_not_searched_for_names(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("{{one}} {{two}}")
    assert Prompts(tmp_path).render("a", one="{{two}}", two="<!-- 2 -->") == "{{two}} <!-- 2 -->"


def test_a_parameter_without_a_description_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tools.md").write_text("## read_file\nReads.\n\n- `path`: Where.\n")
    with pytest.raises(RequestFailed, match="start"):
        Prompts(tmp_path).tool("read_file", ["path", "start"])
    with pytest.raises(RequestFailed, match="no section on other"):
        Prompts(tmp_path).tool("other", [])


def test_a_missing_prompt_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestFailed, match=r"chat\.md cannot be read"):
        Prompts(tmp_path).render("chat")
