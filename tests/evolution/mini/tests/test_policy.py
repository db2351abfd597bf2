"""The gate, the levels, the door, commands, verdicts, budgets and what waits for a click."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfloop.errors import BudgetExceeded, Refused
from selfloop.gates.gates import Gates
from selfloop.loops.gate import decide
from selfloop.loops.levels import tools_of
from selfloop.loops.verdict import counts
from selfloop.model.budget import Budget
from selfloop.sandbox.paths import Door
from selfloop.sandbox.policy import runs_unasked
from selfloop.storage.store import Store


def test_only_l3_goes_ahead() -> None:
    assert decide("L3", "commit", True, ("a.py",), ("commit",)) == "proceed"
    assert decide("L2", "commit", True, ("a.py",), ("commit",)) == "escalate"
    assert decide("L1", "commit", True, ("a.py",), ("commit",)) == "report"
    assert decide("L3", "commit", False, ("a.py",), ("commit",)) == "escalate"


def test_l1_holds_nothing_that_writes() -> None:
    assert "write_file" not in tools_of("L1") and "write_file" in tools_of("L2")


def test_the_door_is_closed_to_what_leads_out(tmp_path: Path) -> None:
    for path in ("/etc/passwd", "../x", "a/../../x", "", "a\0", ".git/config", ".ENV"):
        with pytest.raises(Refused):
            Door(tmp_path).write(path, "x")


def test_reading_commands_run_unasked() -> None:
    assert runs_unasked("ls src") and not runs_unasked("rm x") and not runs_unasked("ls; rm x")


def test_a_verdict_needs_evidence_that_ran() -> None:
    assert counts("verified", [("pytest", 0)], [("pytest", 0)])
    assert not counts("verified", [], []) and not counts("verified", [("pytest", 0)], [])


def test_a_budget_is_never_crossed() -> None:
    budget = Budget(10)
    budget.settle(budget.reserve(8), 4)
    assert budget.spent == 4
    with pytest.raises(BudgetExceeded):
        budget.reserve(7)


def test_an_approval_is_bound_to_what_was_shown(tmp_path: Path) -> None:
    gates = Gates(tmp_path)
    gate = gates.propose("s1", {"a.txt": "x"})
    with pytest.raises(Refused):
        gates.resolve(gate.id, "approve", "other")
    assert gates.resolve(gate.id, "approve", gate.digest) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "x"


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    session = store.new()
    store.append(session, {"a": 1})
    with (tmp_path / ".evo/sessions/s1.jsonl").open("a") as file:
        file.write('{"b": ')
    assert store.read(session) == [{"a": 1}]
