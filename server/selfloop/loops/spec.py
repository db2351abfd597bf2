"""A loop as data: what it is for, how much it may do by itself, when, at what cost, and what its agents are told.

Invariant: a `LoopSpec` that exists is sound. Whatever made it, a file or a user's setting, its values were checked
here, and a value that makes no sense was refused with one sentence. A spec grants nothing: what a loop may do by itself
is decided in `gate.py`, from the spec as the user's own settings have left it (`catalogue.py`).
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Literal, get_args

from attrs import field, fields_dict, frozen

from selfloop.errors import InvalidInput
from selfloop.model.budget import Limits

DEFAULT_CADENCE = "daily 09:00"
DEFAULT_ITERATIONS = 12
INTENT_CHARACTERS = 500
TEXT_CHARACTERS = 40_000
"""Of a maker's or a checker's text; more is a book, and no model would follow it."""
MOST_CHECKS = 20


class Level(StrEnum):
    """How much a loop may do by itself."""

    L1 = "L1-report"
    """Reads and reports; changes nothing and sends nothing."""
    L2 = "L2-assisted"
    """Works in the sandbox; every change waits for a human, whatever gate is configured."""
    L3 = "L3-unattended"
    """Verified actions on the allow list go ahead; the rest waits for a human."""

    @property
    def rank(self) -> int:
        """1, 2 or 3."""
        return int(self.value[1])

    @staticmethod
    def read(text: str) -> Level:
        """Return the level that `L1-report` or just `L1` names.

        Raises:
            InvalidInput: it names none.
        """
        for level in Level:
            if text.strip().casefold() in (level.value.casefold(), level.value[:2].casefold()):
                return level
        known = ", ".join(Level)
        raise InvalidInput(f"There is no level {text!r}, so nothing was changed; the levels are {known}.")


def lower(one: Level, other: Level) -> Level:
    """Return the level of the two that may do less."""
    return min(one, other, key=lambda level: level.rank)


ActionKind = Literal["report", "comment", "draft", "commit", "open-pr", "apply-patch", "promote-generation"]
"""What a round ends in, if it may."""
ACTIONS: tuple[ActionKind, ...] = get_args(ActionKind)


def read_action(text: str) -> ActionKind:
    """Return the action kind of this name.

    Raises:
        InvalidInput: there is none; the message is a phrase without an end.
    """
    for kind in ACTIONS:
        if kind == text:
            return kind
    raise InvalidInput(f"there is no action {text[:80]!r}; the actions are {', '.join(ACTIONS[:-1])}")


EVOLUTION = "self-evolution"
"""The one loop whose action is `promote-generation`."""

Origin = Literal["builtin", "user", "workspace"]
"""Whose file a loop comes from: ours, the user's own, or the repository's."""

FORGE_TOOLS = frozenset(
    {
        "git_log",
        "list_branches",
        "list_issues",
        "list_outdated",
        "list_pull_requests",
        "list_runs",
        "list_todos",
        "read_issue",
        "read_pull_request",
        "read_run_log",
    }
)
"""Reading tools that a loop's makers and checkers hold only if the spec names them."""
TOOLS = FORGE_TOOLS | {
    "read_file",
    "write_file",
    "edit_file",
    "delete_file",
    "list_files",
    "search",
    "shell",
    "spawn_agent",
    "wait_agent",
    "remember",
    "recall",
    "plan",
}
"""Every tool that a spec may name. The others' use is the level's to allow; naming them changes nothing."""


UNLIMITED = Limits()
DEFAULT_ROUND = Limits(max_iterations=DEFAULT_ITERATIONS)


@frozen
class LoopBudget:
    """What a loop may use, its sub-agents included."""

    round: Limits = DEFAULT_ROUND
    day: Limits = UNLIMITED
    """For all rounds of one day of the user's calendar together."""


LARGEST: dict[str, float] = {
    "max_input_tokens": 1e9,
    "max_output_tokens": 1e9,
    "max_total_tokens": 1e9,
    "max_cost_usd": 10_000.0,
    "max_seconds": 86_400.0,
    "max_iterations": 10_000.0,
}
"""By name of the limit; what lies above is a slip of the finger, not a limit."""


def check_limits(limits: Limits) -> None:
    """Refuse limits that make no sense.

    Raises:
        InvalidInput: a limit is no number, not above 0, or absurdly large; the sentence says which.
    """
    for name, largest in LARGEST.items():
        value = getattr(limits, name)
        if value is None:
            continue
        plain = name.removeprefix("max_")
        whole = name not in ("max_cost_usd", "max_seconds")
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise InvalidInput(f"the budget's {plain} is {value!r}, which is no {'whole ' if whole else ''}number")
        if not math.isfinite(value) or not 0 < value <= largest:
            raise InvalidInput(f"the budget's {plain} is {value:,}, but must be above 0 and at most {largest:,.0f}")


_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_COMMENT = re.compile(r"^[ \t]*<!--.*?-->[ \t]*\n?", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#[ \t]+(Maker|Checker)[ \t]*$", re.IGNORECASE | re.MULTILINE)
"""What begins the maker's and the checker's text in a loop's file, and so cannot stand within one."""


def plain_text(text: str) -> str:
    """Return a maker's or checker's text as it is kept: LF, without comments, without what no file can hold."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    while (shorter := _COMMENT.sub("", text)) != text:
        text = shorter
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip()


def plain_line(text: str) -> str:
    """Return a text as one line of visible characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _ordered(kinds: tuple[ActionKind, ...] | list[ActionKind]) -> tuple[ActionKind, ...]:
    return tuple(dict.fromkeys(kinds))


@frozen(kw_only=True)
class LoopSpec:
    """A loop.

    Raises:
        InvalidInput: on making one with a value that makes no sense. The message is a phrase, such as
            `the intent is empty`, which whoever knows the file and the line makes a sentence of.
    """

    name: str
    """Lower-case letters, digits and hyphens; its id on the wire."""
    intent: str = field(converter=plain_line)
    """One sentence, shown to the maker and in every report."""
    maker: str = field(converter=plain_text)
    checker: str = field(default="", converter=plain_text)
    """Empty: only what every checker is told."""
    level: Level = Level.L1
    max_level: Level = Level.L3
    """The highest level that can be chosen for it."""
    cadence: str = DEFAULT_CADENCE
    """As `cadence.parse` reads it."""
    budget: LoopBudget = LoopBudget()
    action: ActionKind = "report"
    allow: tuple[ActionKind, ...] = field(default=(), converter=_ordered)
    """Actions that L3 may carry out by itself, once they are verified."""
    tools: tuple[str, ...] = field(default=(), converter=lambda names: tuple(dict.fromkeys(names)))
    """Tools that maker and checker hold besides those of their level; see `FORGE_TOOLS`."""
    checks: tuple[tuple[str, str], ...] = field(default=(), converter=tuple)
    """(name, command) of the checks whose execution is evidence; none: a test, build or lint command of the project."""
    origin: Origin = "builtin"

    def __attrs_post_init__(self) -> None:
        from selfloop.loops import cadence

        if not _NAME.fullmatch(self.name):
            raise InvalidInput(
                f"the name {self.name[:80]!r} is not made of lower-case letters, digits and hyphens, 63 at most"
            )
        if not self.intent:
            raise InvalidInput("the intent is empty")
        if len(self.intent) > INTENT_CHARACTERS:
            raise InvalidInput(f"the intent has {len(self.intent)} characters, more than {INTENT_CHARACTERS}")
        for which, text in (("maker", self.maker), ("checker", self.checker)):
            if len(text) > TEXT_CHARACTERS:
                raise InvalidInput(f"the {which}'s text has {len(text)} characters, more than {TEXT_CHARACTERS}")
            if HEADING.search(text):
                raise InvalidInput(f"the {which}'s text holds a heading `# Maker` or `# Checker` of its own")
        if not self.maker:
            raise InvalidInput("the maker's text is empty")
        if self.level.rank > self.max_level.rank:
            raise InvalidInput(f"the level {self.level} is above the loop's highest level {self.max_level}")
        cadence.parse(self.cadence)
        check_limits(self.budget.round)
        check_limits(self.budget.day)
        for kind in (self.action, *self.allow):
            read_action(kind)
        if self.action == "promote-generation" and (self.name != EVOLUTION or self.origin != "builtin"):
            raise InvalidInput(f"the action promote-generation belongs to the loop {EVOLUTION} alone")
        if "promote-generation" in self.allow:
            raise InvalidInput("the action promote-generation is always decided by a human and cannot be allowed")
        for tool in self.tools:
            if tool not in TOOLS:
                raise InvalidInput(f"there is no tool {tool!r}; a loop can name {', '.join(sorted(FORGE_TOOLS))}")
        if len(self.checks) > MOST_CHECKS or len(dict(self.checks)) != len(self.checks):
            raise InvalidInput(f"the checks must be at most {MOST_CHECKS}, each with a name of its own")
        for check, command in self.checks:
            if not check or check != plain_line(check) or not command or command != plain_line(command):
                raise InvalidInput(f"the check {check[:80]!r} must be a name and a command of one line each")


def limit_names() -> tuple[str, ...]:
    """Return the names of the limits of a budget, such as `max_total_tokens`."""
    return tuple(fields_dict(Limits))
