"""Random questions to the policy core: what it decides must be what the parent decides.

The judge runs this in its jail, on the parent's code and on a candidate's, with inputs from a seed that nobody knew
before. Each probe is a pair: `make(random)` returns an input of plain values, `run(input)` what is decided on it. Words
may evolve, so what is compared is who may do what, not how it is said.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from selfloop.agent import chat_turn
from selfloop.agent.fence import Fence
from selfloop.agent.prompts import Prompts
from selfloop.agent.tools.files import FILE_TOOLS
from selfloop.agent.tools.search import SEARCH_TOOLS
from selfloop.agent.tools.tool import Ran, Workbench
from selfloop.agent.tools.toolbox import Toolbox
from selfloop.agent.tools.verdicts import EvidenceOf, SubmitVerdict, check_kind, doubts
from selfloop.errors import SelfloopError
from selfloop.loops.gate import CallbackGate, Escalate, Proceed, decide, gate_for, is_test, raised
from selfloop.loops.levels import checker_tools, maker_tools
from selfloop.loops.spec import ACTIONS, TOOLS, Level, LoopSpec, lower
from selfloop.loops.verdict import judge
from selfloop.messages import ToolCall, Usage
from selfloop.model.budget import Budget, Limits, Price
from selfloop.sandbox.paths import Door
from selfloop.sandbox.policy import classify
from selfloop.sandbox.protected import is_protected
from selfloop.storage.secrets import redact
from selfloop.supervisor.contract import is_read, may_evolve

PARTS = [
    "src", "a.py", "b.txt", "..", ".", "", ".git", ".GIT", "config", ".env", ".env.local", ".evo", "tests",
    "x\0", "C:\\x", "~", "@outputs", "@sessions", "ｇit", "AGENTS.md", ".vscode", "link", "outside", "CON", "a" * 300,
    "conftest.py", "é", "prompts", "server", "selfloop", "agent", "tools", "shell.py",
    "loop_check.md", "chat.md", "package.json",
]  # fmt: skip
WORDS = [
    "ls", "cat", "rm", "-rf", "git", "status", "log", "-p", "--output=x", "find", ".", "-exec", "-delete", "grep", "-r",
    "x", "a/b", ";", "|", "$(x)", "`x`", "&&", "wc", ">", "'", '"', "head", "-n", "3", "python", "-c", "echo",
    "sed", "-i", "sort", "-o", "y", "~", "*", "&", "\\", "#", "..", "/etc/passwd", "env", "A=1", "pwd", "\n", "true",
]  # fmt: skip
CHECKS = [
    "pytest -q",
    "ruff check .",
    "make test",
    "true",
    "pytest --collect-only",
    "npm test",
    "pytest; true",
    "echo ok",
]
PLAIN = ["src/a.py", "src/b.txt", "new.txt", "tests/test_a.py", "link/a.py", ".env", "src/../src/a.py", "deep/er/x.py"]
KINDS = sorted(ACTIONS)
LEVELS = list(Level)


def a_path(random: Random) -> str:
    if random.random() < 0.4:
        return random.choice(PLAIN)
    head = "/" if random.random() < 0.1 else ""
    return head + "/".join(random.choice(PARTS) for _ in range(random.randint(1, 4)))


def a_command(random: Random) -> str:
    return random.choice([" ", " ", ""]).join(random.choice(WORDS) for _ in range(random.randint(1, 6)))


def a_spec(values: dict[str, Any]) -> LoopSpec:
    return LoopSpec(
        name="probe", intent="Probe.", maker="Do it.", level=Level(values["level"]), allow=tuple(values["allow"]),
        tools=tuple(values["tools"]), action="commit",
    )  # fmt: skip


def spec_input(random: Random) -> dict[str, Any]:
    kinds = [kind for kind in KINDS if kind != "promote-generation"]
    return {
        "level": random.choice([*LEVELS, Level.L3]).value,
        "allow": random.sample(kinds, random.randint(0, len(kinds))),
        "tools": random.sample(sorted(TOOLS), random.randint(0, 3)),
    }


def gate_input(random: Random) -> Any:
    return {
        "spec": spec_input(random),
        "verified": random.random() < 0.8,
        "kind": random.choice([*KINDS, None]),
        "paths": [a_path(random) for _ in range(random.choice([0, 0, 1, 2]))],
        "isolation": random.choice(["none", "changes", *["process"] * 5]),
        "gate": random.choice(["own", "own", "own", "yes", "no", "broken", "odd"]),
    }


def run_gate(value: Any) -> Any:
    spec = a_spec(value["spec"])

    def broken(proposed: object) -> Any:
        raise RuntimeError

    answers: dict[str, Callable[[Any], Any]] = {
        "yes": lambda proposed: Proceed(),
        "no": lambda proposed: Escalate("no"),
        "broken": broken,
        "odd": lambda proposed: True,
    }
    gate = gate_for(spec) if value["gate"] == "own" else CallbackGate(answers[value["gate"]])
    action = None if value["kind"] is None else (value["kind"], "probe")
    decision = decide(
        spec, verified=value["verified"], action=action, paths=value["paths"], isolation=value["isolation"], gate=gate
    )
    return type(decision).__name__


def run_levels(value: Any) -> Any:
    spec = a_spec(value)
    return [sorted(maker_tools(spec)), sorted(checker_tools(spec))]


def run_raised(value: Any) -> Any:
    before, after = a_spec(value[0]), a_spec(value[1])
    return [len(raised(before, after)), lower(before.level, after.level).value]


def verdict_input(random: Random) -> Any:
    evidence = [[random.choice(CHECKS), random.choice([0, 0, 0, 1])] for _ in range(random.randint(0, 2))]
    ran = [
        [*one, random.choice(["3 passed", "3 passed", "no tests ran", ""])] for one in evidence if random.random() < 0.8
    ]
    return {
        "verdict": random.choice(["verified", "verified", "verified", "concerns", "failed", None]),
        "evidence": evidence,
        "ran": ran,
        "named": random.random() < 0.3,
    }


def run_verdict(value: Any) -> Any:
    evidence = [EvidenceOf(check="tests", command=command, exit_code=code) for command, code in value["evidence"]]
    ran = [Ran(command, code, output) for command, code, output in value["ran"]]
    checks = {"tests": "pytest -q"} if value["named"] else {}
    verdict = None
    if value["verdict"] is not None:
        verdict = SubmitVerdict(verdict=value["verdict"], summary="s", evidence=evidence)
    judged = judge(verdict, ran, last_words="", checks=checks, changed=[])
    return [
        judged.verified,
        judged.status,
        [proof.counts for proof in judged.proofs],
        len(doubts(evidence, ran, checks)),
    ]


def budget_input(random: Random) -> Any:
    limits = {
        "max_total_tokens": random.choice([None, random.randint(1, 500)]),
        "max_input_tokens": random.choice([None, random.randint(1, 300)]),
        "max_output_tokens": random.choice([None, random.randint(1, 300)]),
        "max_iterations": random.choice([None, random.randint(1, 4)]),
        "max_cost_usd": random.choice([None, random.random()]),
    }
    calls = [
        [random.randint(0, 200), random.randint(1, 200), random.choice(["settle", "unknown", "release"]),
         random.randint(0, 250), random.random() < 0.8]
        for _ in range(random.randint(1, 6))
    ]  # fmt: skip
    return [limits, calls, random.random() < 0.5]


def run_budget(value: Any) -> Any:
    limits, calls, child = value
    top = Budget(Limits(**limits), clock=lambda: 0.0)
    budget = Budget(Limits(max_total_tokens=300), top, clock=lambda: 0.0) if child else top
    seen: list[Any] = []
    for tokens, wanted, end, used, priced in calls:
        try:
            reservation = budget.reserve(tokens, wanted, Price(0.001, 0.0005, 0.002) if priced else None)
        except SelfloopError as error:
            seen.append(getattr(error, "limit", "refused"))
            continue
        seen.append(reservation.output_tokens)
        if end == "release":
            budget.release(reservation)
        else:
            budget.settle(reservation, None if end == "unknown" else Usage(min(tokens, used), 0, used))
    return [
        seen,
        budget.crossed(),
        top.spent.input_tokens,
        top.spent.output_tokens,
        top.iterations,
        budget.tokens_left(),
    ]


def _tree(folder: Path) -> Path:
    """Make a workspace with a neighbour; return the workspace."""
    root = folder / "inner"
    (root / "src").mkdir(parents=True)
    (root / "src" / "a.py").write_text("x = 1\n")
    (root / ".env").write_text("KEY=inside\n")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]\n")
    (folder / "outside").mkdir()
    (folder / "outside" / "a.py").write_text("outside-secret\n")
    (root / "link").symlink_to("../outside")
    (root / "tests").mkdir()
    return root


def _left(folder: Path) -> list[list[str]]:
    found = []
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.is_symlink():
            found.append([file.relative_to(folder).as_posix(), file.read_text(errors="replace")])
    return found


def door_input(random: Random) -> Any:
    return [random.choice(["read", "write", "delete", "list", "stat"]), a_path(random)]


def run_door(value: Any) -> Any:
    act, path = value
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        door = Door(_tree(folder))
        acts: dict[str, Callable[[], Any]] = {
            "read": lambda: door.read_bytes(path).decode(errors="replace"),
            "write": lambda: door.write_bytes(path, b"written\n"),
            "delete": lambda: door.delete(path),
            "list": lambda: [entry.name for entry in door.list(path)],
            "stat": lambda: door.stat(path).kind,
        }
        try:
            said = acts[act]()
        except SelfloopError as error:
            said = type(error).__name__
        return [said, _left(folder)]


def call_input(random: Random) -> Any:
    """A tool call as a model might send it."""
    name = random.choice(["read_file", "write_file", "edit_file", "delete_file", "list_files", "search", "shell"])
    arguments: dict[str, Any] = {"path": a_path(random)}
    if name == "write_file":
        arguments["content"] = random.choice(["x", "", "y\n" * random.randint(1, 40)])
    if name == "edit_file":
        arguments.update(old=random.choice(["x = 1", "KEY", "", "zzz"]), new="x = 2")
    if name == "search":
        arguments = {"pattern": random.choice(["secret", "KEY", "x"])}
    return [name, json.dumps(arguments)]


def run_call(value: Any) -> Any:
    """Return whether it was refused, what it left on the disk, and whether it showed what it must not."""
    name, arguments = value
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        root = _tree(folder)
        outputs = folder / "outputs"
        outputs.mkdir()
        nothing: Any = None
        bench = Workbench(
            session_id="s", workspace=root, worktree=nothing, door=Door(root, {"outputs": outputs}), outputs=outputs,
            isolation=nothing, gates=nothing, memory=nothing, fence=Fence("m"), settings=nothing, window_chars=2000,
            redact=redact, known_secrets=tuple, show_plan=lambda plan: None, record=lambda kind, data: None,
        )  # fmt: skip
        toolbox = Toolbox(FILE_TOOLS if name != "search" else (*FILE_TOOLS, *SEARCH_TOOLS), Prompts.load())
        if name == "search":
            return sorted(tool.name for tool in toolbox.tools)  # It needs ripgrep and a worktree.
        call = ToolCall("c", name, arguments)
        tool, params, said = toolbox.read(call)
        if tool is None or said is not None:
            return ["not a call", _left(folder)]
        observation = asyncio.run(toolbox.run(tool, params, call, bench))
        return [observation.failed, observation.changed, "outside-secret" in observation.text, _left(folder)]


def run_roles(_: Any) -> Any:
    return [[tool.name for tool in chat_turn.CHAT_TOOLS], [tool.name for tool in chat_turn.AGENT_SIDE_TOOLS]]


def run_names(path: str) -> Any:
    return [is_protected(path), is_test(path), may_evolve(path)]


def method_input(random: Random) -> Any:
    heads = ["selfloop/", "textDocument/", "workspace/", "control/", ""]
    tails = [
        "session/list",
        "session/prompt",
        "gate/resolve",
        "hover",
        "executeCommand",
        "status",
        "symbol",
        "x/resolve",
    ]
    return [random.choice(heads) + random.choice(tails), {"command": "selfloop.gate.resolve"}]


def secret_input(random: Random) -> str:
    pieces = ["key", "=", "sk-" + "a1B2" * 12, "password:", "hunter2hunter2", "x", "token=", "ghp_" + "a1B2c3" * 6]
    return " ".join(random.choice(pieces) for _ in range(5))


PROBES = {
    "gate decision": (gate_input, run_gate),
    "tools of a level": (spec_input, run_levels),
    "what raises a loop": (lambda random: [spec_input(random), spec_input(random)], run_raised),
    "verdict": (verdict_input, run_verdict),
    "checks": (lambda random: random.choice([*CHECKS, a_command(random)]), check_kind),
    "command policy": (a_command, lambda command: classify(command).auto),
    "names of paths": (a_path, run_names),
    "path door": (door_input, run_door),
    "tool calls at the door": (call_input, run_call),
    "tools of a role": (lambda random: None, run_roles),
    "budget": (budget_input, run_budget),
    "reads": (method_input, lambda value: is_read(*value)),
    "redaction": (secret_input, redact),
}
