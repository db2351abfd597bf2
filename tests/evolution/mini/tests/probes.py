"""Random questions to the policy core: what it decides must be what the parent decides.

Each probe is a pair: `make(random)` returns an input of plain values, `run(input)` what is decided on it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from selfloop.agent import context
from selfloop.agent.tools import toolbox
from selfloop.agent.turn import run_turn
from selfloop.errors import Refused
from selfloop.loops.gate import decide
from selfloop.loops.levels import tools_of
from selfloop.loops.verdict import counts
from selfloop.model.budget import Budget
from selfloop.sandbox.paths import Door
from selfloop.sandbox.policy import runs_unasked

PARTS = [
    "a",
    "b.txt",
    "src",
    "..",
    ".",
    "",
    ".git",
    ".env",
    ".Evo",
    "tests",
    "x\0",
    "C:\\x",
    "~",
    "@outputs",
    "deep",
    "é",
]
WORDS = ["ls", "cat", "rm", "-rf", "x", "a/b", ";", "|", "$(x)", "&&", "wc", ">", "'", "head"]
TOOLS = ["read_file", "write_file", "list_files", "search", "shell", "delete_file"]


HEADS = ["@outputs", "~", "src", "a"]
TAILS = ["../x", "../../x", ".env", ".git/x", "b/../../../x", ".Evo", "x.txt"]


def a_path(random: Random) -> str:
    if random.random() < 0.4:
        return f"{random.choice(HEADS)}/{random.choice(TAILS)}"
    head = "/" if random.random() < 0.15 else ""
    return head + "/".join(random.choice(PARTS) for _ in range(random.randint(1, 4)))


@cache
def a_workspace() -> Path:
    """One for all questions: a door writes nothing, and what else writes is seen in the answers."""
    root = Path(tempfile.mkdtemp()) / "inner"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a").write_text("ls x")
    (root / ".env").write_text("secret")
    (root.parent / "x").write_text("outside")
    return root


def gate_input(random: Random) -> Any:
    kinds = ["commit", "draft", "open-pr", "comment"]
    return [
        random.choice(["L1", "L2", "L3", "L4"]),
        random.choice(kinds),
        random.random() < 0.7,
        [a_path(random) for _ in range(random.randint(0, 3))],
        random.sample(kinds, random.randint(0, 4)),
    ]


def run_gate(value: Any) -> Any:
    return decide(value[0], value[1], value[2], tuple(value[3]), tuple(value[4]))


def call_input(random: Random) -> Any:
    """A tool call as a model might send it, at some level."""
    name = random.choice([*TOOLS, "write_file", "write_file", "read_file"])
    arguments: dict[str, Any] = {}
    if name in ("read_file", "write_file"):
        arguments["path"] = a_path(random)
    if name == "write_file":
        arguments["content"] = random.choice(["x", "", "y" * random.randint(1, 300), "é\n"])
    if name == "search":
        arguments["text"] = random.choice(WORDS)
    return [name, json.dumps(arguments), random.choice(["L1", "L2", "L2", "L3"])]


def run_call(value: Any) -> Any:
    """What is refused and what is written; not how it is said."""
    name, arguments, level = value
    root = a_workspace()
    door = Door(root)
    said = toolbox.run(name, arguments, level, door)
    there = sorted(str(file.relative_to(root.parent)) for file in root.parent.rglob("*") if file.is_file())
    return [dict(door.writes), there, "secret" in said, "outside" in said, "nothing was done" in said]


def turn_input(random: Random) -> Any:
    """A turn with a budget: how many calls of which size the model makes."""
    return [
        random.randint(1, 3000),
        [random.randint(1, 400) for _ in range(random.randint(1, 6))],
        random.random() < 0.5,
    ]


def run_turn_with_budget(value: Any) -> Any:
    most, sizes, writing = value
    left = list(sizes)
    sent: list[int] = []
    """For each call the least that it can cost."""

    def ask(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        sent.append(sum(len(str(message)) for message in messages) // 4)
        if not left:
            return iter([{"content": "Done."}])
        size = left.pop()
        arguments = json.dumps({"path": f"f{size}", "content": "x" * size})
        name = "write_file" if writing else "search"
        if not writing:
            arguments = json.dumps({"text": "x" * size})
        return iter([{"tool_calls": [{"index": 0, "id": "c", "function": {"name": name, "arguments": arguments}}]}])

    budget = Budget(most)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
    with contextlib.suppress(Refused):
        run_turn(messages, ask, Door(a_workspace()), budget, "L2", lambda piece: None)
    # How many calls it makes depends on words, which may evolve; that each is paid for may not.
    return [budget.spent <= most, budget.calls == len(sent), budget.spent >= sum(sent)]


def budget_input(random: Random) -> Any:
    return [random.randint(0, 100), [[random.randint(-5, 60), random.choice([None, 0, 3, 50])] for _ in range(5)]]


def run_budget(value: Any) -> Any:
    budget = Budget(value[0])
    seen: list[Any] = []
    for tokens, used in value[1]:
        try:
            seen.append(budget.settle(budget.reserve(tokens), used))
        except Refused:
            seen.append("refused")
    return [seen, budget.spent, budget.calls]


def verdict_input(random: Random) -> Any:
    some = [["pytest", 0], ["pytest", 1], ["ruff", 0]]
    return [
        random.choice(["verified", "failed", "concerns"]),
        random.sample(some, random.randint(0, 3)),
        random.sample(some, random.randint(0, 3)),
    ]


def run_verdict(value: Any) -> Any:
    return counts(value[0], [tuple(item) for item in value[1]], [tuple(item) for item in value[2]])


PROBES = {
    "gate decision": (gate_input, run_gate),
    "tools of a level": (
        lambda random: random.choice(["L1", "L2", "L3", "", "l1"]),
        lambda level: [sorted(tools_of(level)), context.names(level)],
    ),
    "tool calls at the door": (call_input, run_call),
    "command policy": (
        lambda random: " ".join(random.choice(WORDS) for _ in range(random.randint(1, 4))),
        runs_unasked,
    ),
    "budget": (budget_input, run_budget),
    "budget of a turn": (turn_input, run_turn_with_budget),
    "verdict": (verdict_input, run_verdict),
}
