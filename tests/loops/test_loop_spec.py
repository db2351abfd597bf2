"""A loop as data: its file gives the same spec back, and what makes no sense is refused by file, line and reason."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from selfloop.agent.prompts import Prompts
from selfloop.agent.tools.verdicts import proves_nothing
from selfloop.errors import InvalidInput
from selfloop.loops.levels import checker_tools, maker_tools
from selfloop.loops.spec import ACTIONS, FORGE_TOOLS, TOOLS, Level, LoopBudget, LoopSpec
from selfloop.loops.specfile import LARGEST_BYTES, read, read_file, write
from selfloop.model.budget import Limits

pytestmark = pytest.mark.unit

BUILTIN = Path(__file__).parents[2] / "prompts" / "loops"

lines = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.sampled_from(
    [
        "# Makers\n",
        "## Checker",
        "---\nlevel: L3-unattended\n---",
        "<!-- a\n -->\n",
        "a\r\nb\r",
        "<!--\n<!-- x -->y -->",
    ]
)
tokens = st.none() | st.integers(1, 1_000_000_000)
limits = st.builds(
    Limits,
    max_input_tokens=tokens,
    max_output_tokens=tokens,
    max_total_tokens=tokens,
    max_cost_usd=st.none() | st.integers(1, 10_000) | st.decimals("0.01", "9999", places=2).map(float),
    max_seconds=st.none() | st.integers(1, 86_400) | st.decimals("0.1", "86400", places=1).map(float),
    max_iterations=st.none() | st.integers(1, 10_000),
)
cadences = st.one_of(
    st.builds("every {}{}".format, st.integers(1, 300), st.sampled_from("smhd")),
    st.builds("daily {:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
    st.builds("weekly {} {:02}:{:02}".format, st.sampled_from(["mon", "sun"]), st.integers(0, 23), st.integers(0, 59)),
    st.sampled_from(["manual", "cron 0 9 * * 1-5", "cron */5 * * * *", "on change src/**/*.py", "on change *: #{a,b}"]),
)


@st.composite
def specs(draw: st.DrawFn) -> LoopSpec:
    """Any spec at all."""
    level = draw(st.sampled_from(Level))
    actions = st.sampled_from(ACTIONS[:-1])
    words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
    try:
        return LoopSpec(
            name=draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)),
            intent=draw(lines),
            maker=draw(texts),
            checker=draw(texts),
            level=level,
            max_level=draw(st.sampled_from([one for one in Level if one.rank >= level.rank])),
            cadence=draw(cadences),
            # A round without any limit of calls cannot be written: the file's default stands then.
            budget=LoopBudget(evolve(draw(limits), max_iterations=draw(st.integers(1, 10_000))), draw(limits)),
            action=draw(actions),
            allow=draw(st.lists(actions, max_size=3)),
            tools=draw(st.lists(st.sampled_from(sorted(TOOLS)), max_size=3)),
            checks=draw(
                st.dictionaries(words, words.filter(lambda word: not proves_nothing(word)), max_size=3)
            ).items(),
            origin=draw(st.sampled_from(["builtin", "user", "workspace"])),
        )
    except InvalidInput:
        # An empty intent or text, or one that holds a heading of the file's: refused on purpose.
        return LoopSpec(name="plain", intent="Look.", maker="Look.", origin="builtin")


@settings(max_examples=150, deadline=None)
@given(specs())
def test_a_spec_survives_its_file(spec: LoopSpec) -> None:
    assert read(write(spec), name="other", origin=spec.origin) == spec
    assert read(write(spec).replace("\n", "\r\n"), name="other", origin=spec.origin) == spec


def loop(head: str = "", body: str = "Look.") -> str:
    return f"---\nintent: See what changed.\n{head}\n---\n{body}\n"


def test_what_is_left_out_has_the_defaults() -> None:
    spec = read(loop(), name="mine", origin="user")
    assert (spec.name, spec.level, spec.cadence, spec.action) == ("mine", Level.L1, "daily 09:00", "report")
    assert spec.budget == LoopBudget(Limits(max_iterations=12), Limits())
    assert (spec.maker, spec.checker, spec.allow, spec.tools, spec.checks) == ("Look.", "", (), (), ())
    assert (spec.max_level, spec.origin) == (Level.L3, "user")


def test_a_number_may_be_written_short() -> None:
    spec = read(
        loop("budget: {total_tokens: 400k, day: {total_tokens: 4_000_000, cost_usd: 1.5}}"), name="a", origin="user"
    )
    assert spec.budget.round == Limits(max_total_tokens=400_000, max_iterations=12)
    assert spec.budget.day == Limits(max_total_tokens=4_000_000, max_cost_usd=1.5)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("Look.", 1, "front matter"),
        ("---\nintent: x\n", 1, "no end"),
        ("---\n---\nLook.", 1, "the intent is missing"),
        (loop("level: L4"), 3, "no level 'L4'"),
        (loop("level: [L1]"), 3, "must be one value"),
        (loop("max_level: L1\nlevel: L2"), 4, "above the loop's highest level"),
        (loop("action: explode"), 3, "no action 'explode'"),
        (loop("action: promote-generation"), 3, "self-evolution alone"),
        (loop("allow:\n  - commit\n  - everything"), 5, "no action 'everything'"),
        (loop("allow: [promote-generation]"), 1, "cannot be allowed"),
        (loop("allow: commit"), 3, "must be a list"),
        (loop("tools: [read_issue, rm]"), 3, "no tool 'rm'"),
        (loop("cadence: every 0m"), 3, "every 0m"),
        (loop("cadence: sometimes"), 3, "'sometimes' cannot be read"),
        (loop("cadence:"), 3, "'' cannot be read"),
        (loop("budget: {iterations: -1}"), 3, "must be above 0"),
        (loop("budget: {iterations: 0}"), 3, "must be above 0"),
        (loop("budget:\n  day:\n    total_tokens: 99999999999"), 5, "at most 1,000,000,000"),
        (loop("budget: {total_tokens: many}"), 3, "whole number"),
        (loop("budget: {iterations: 1.5}"), 3, "whole number"),
        (loop("budget: {seconds: .inf}"), 3, "a number"),
        (loop("budget: {tokens: 5}"), 3, "knows no 'tokens'"),
        (loop("budget: 5"), 3, "key: value"),
        (loop("when: later"), 3, "knows no 'when'"),
        (loop("level: L1\nlevel: L2"), 4, "has 'level' twice"),
        (loop("level: 'L1"), 3, "no valid YAML"),
        (loop("level: !!python/object/apply:os.system [true]"), 3, "must be one value"),
        (loop("? [a]\n: b"), 3, "a key that is no word"),
        (loop("checks: {test: }"), 3, "must be a name and a command"),
        (loop("checks: {test: 'true'}"), 3, "the check 'test' is 'true', which proves nothing"),
        (loop("checks:\n  test: pytest\n  more: echo fine"), 5, "'echo fine', which proves nothing"),
        (loop("checks: {test: 'exit 0'}"), 3, "proves nothing"),
        (loop("name: Not A Name"), 3, "lower-case letters"),
        (loop(body=""), 5, "the maker's text is empty"),
        (loop(body="# Checker\nOnly."), 5, "one part `# Maker`"),
        (loop(body="# Maker\na\n# Checker\nb\n# Maker\nc"), 9, "one part `# Maker`"),
        (loop(body="Words before.\n# Maker\na"), 5, "nobody would read"),
        ("---\nintent: '  '\n---\nLook.", 2, "the intent is empty"),
        ("---\nintent: " + "x" * 501 + "\n---\nLook.", 2, "more than 500"),
        ("---\n" + "[" * 5000 + "\n---\n", 2, "nested too deeply"),
        ("---\nintent: x\n" + "- " * 3000 + "\n---\n", 3, "nested too deeply"),
        ("---\nintent: x\n" + "# ---\n" * 5000 + "---\n", 1, "longer than"),
        ("---\n- a\n---\nLook.", 2, "key: value"),
    ],
)
def test_what_makes_no_sense_is_named_by_file_line_and_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(text, name="odd", origin="user")
    message = caught.value.message
    assert message.startswith(f"odd.md, line {line}: "), message
    assert reason in message
    assert "so this loop was not loaded" in message
    assert "\n" not in message


def test_an_alias_that_grows_without_end_costs_nothing() -> None:
    grown = [f"{key}: &{key} [*{before}, *{before}]" for before, key in zip("abcdef", "bcdefg", strict=True)]
    bomb = "a: &a [x, x]\n" + "\n".join(grown)
    with pytest.raises(InvalidInput, match="knows no 'a'"):
        read(loop(bomb), name="odd", origin="user")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.md").write_bytes(b"x" * (LARGEST_BYTES + 1))
    (tmp_path / "latin.md").write_bytes(b"---\nintent: caf\xe9\n---\n")
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "secret").write_text(loop())
    (tmp_path / "link.md").symlink_to(tmp_path / "secret")
    for name, reason in [
        ("large", "larger than 256 KiB"),
        ("latin", "line 2: the text is not UTF-8"),
        ("folder", "so this loop was not loaded"),
        ("pipe", "no plain file"),
        ("link", "cannot be read"),
        ("missing", "No such file"),
    ]:
        with pytest.raises(InvalidInput, match=reason):
            read_file(tmp_path / f"{name}.md", "workspace")
    # The user's own folder may hold links: it is theirs.
    assert read_file(tmp_path / "link.md", "user").name == "link"


# The catalogue that ships


SHIPPED: dict[str, tuple[Any, ...]] = {
    "daily-triage": ("daily 09:00", Level.L1, 10, None, "report"),
    "pr-babysitter": ("every 10m", Level.L1, 8, None, "comment"),
    "ci-sweeper": ("every 10m", Level.L2, 20, 400_000, "apply-patch"),
    "dependency-sweeper": ("daily 04:00", Level.L2, 16, 300_000, "open-pr"),
    "changelog-drafter": ("daily 18:00", Level.L1, 10, None, "draft"),
    "post-merge-cleanup": ("every 6h", Level.L1, 10, None, "report"),
    "issue-triage": ("every 2h", Level.L1, 8, None, "comment"),
}


def test_the_loops_that_ship_have_their_defaults() -> None:
    specs = {file.stem: read_file(file, "builtin") for file in BUILTIN.glob("*.md") if file.stem != "self-evolution"}
    assert {
        name: (
            spec.cadence,
            spec.level,
            spec.budget.round.max_iterations,
            spec.budget.round.max_total_tokens,
            spec.action,
        )
        for name, spec in specs.items()
    } == SHIPPED
    for name, spec in specs.items():
        assert spec.name == name
        assert spec.allow == ()
        assert spec.budget.day.max_total_tokens, "every loop has a budget for the day"
        assert spec.maker and spec.checker
        assert "<!--" not in spec.maker + spec.checker, "reasons are for people"
        assert "{{" not in spec.maker + spec.checker, "nothing fills a loop's text"


def test_a_prompt_names_no_tool_that_its_loop_does_not_hold() -> None:
    for file in BUILTIN.glob("*.md"):
        spec = read_file(file, "builtin")
        for text, held in ((spec.maker, maker_tools(spec)), (spec.checker, checker_tools(spec))):
            named = set(re.findall(r"`(\w+)`", text)) & TOOLS
            assert named <= held, (spec.name, named - held)


def test_every_tool_that_is_described_can_be_named_or_belongs_to_a_role() -> None:
    described = set(re.findall(r"^## (\w+)$", (BUILTIN.parent / "tools.md").read_text(), re.MULTILINE))
    assert described - FORGE_TOOLS == (TOOLS - FORGE_TOOLS) | {"submit_verdict", "suggest_improvement"}


def test_the_loops_lie_where_the_installed_package_finds_its_prompts() -> None:
    assert (Prompts.load().folder / "loops" / "ci-sweeper.md").is_file()


# Levels


def test_at_l1_no_agent_of_a_loop_holds_a_tool_that_writes_and_the_maker_no_shell() -> None:
    writing = {"write_file", "edit_file", "delete_file"}
    for level in Level:
        spec = LoopSpec(name="a", intent="b", maker="c", level=level, tools=sorted(TOOLS))
        assert bool(maker_tools(spec) & writing) is (level is not Level.L1)
        assert ("shell" in maker_tools(spec)) is (level is not Level.L1)
        assert not checker_tools(spec) & writing
        assert {"shell", "submit_verdict"} <= checker_tools(spec)
        assert "remember" not in maker_tools(spec) | checker_tools(spec)
        assert maker_tools(spec) >= FORGE_TOOLS
    bare = LoopSpec(name="a", intent="b", maker="c")
    assert not maker_tools(bare) & FORGE_TOOLS
