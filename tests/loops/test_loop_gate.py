"""Proceed or escalate: every way in which an action could go ahead that must not."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from selfloop.loops.gate import (
    AllowlistGate,
    AlwaysEscalate,
    Answer,
    CallbackGate,
    Escalate,
    Gate,
    Proceed,
    Proposed,
    Report,
    decide,
    gate_for,
    is_test,
    raised,
)
from selfloop.loops.spec import ACTIONS, ActionKind, Level, LoopSpec
from selfloop.sandbox.protected import is_shadow

pytestmark = pytest.mark.unit


def spec(level: Level = Level.L3, allow: tuple[ActionKind, ...] = ("commit",)) -> LoopSpec:
    return LoopSpec(name="mine", intent="Mend.", maker="Mend it.", level=level, allow=allow, action="commit")


class Yes:
    """A gate that agrees to everything and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, proposed: Proposed) -> Answer:
        self.asked += 1
        return Proceed()


def outcome(
    loop: LoopSpec,
    gate: Gate | None = None,
    *,
    verified: bool = True,
    kind: ActionKind = "commit",
    paths: tuple[str, ...] = ("src/app.py",),
    isolation: str = "process",
) -> Proceed | Escalate | Report:
    return decide(
        loop,
        verified=verified,
        action=(kind, "Mend the parser"),
        paths=paths,
        isolation=isolation,  # type: ignore[arg-type]
        gate=gate or gate_for(loop),
    )


def reason(found: Proceed | Escalate | Report) -> str:
    assert isinstance(found, Escalate), found
    return found.reason


def test_l3_carries_out_what_is_verified_allowed_unprotected_and_jailed() -> None:
    assert outcome(spec()) == Proceed()


def test_each_missing_condition_alone_asks_a_human() -> None:
    assert "verify" in reason(outcome(spec(), verified=False))
    assert "allow list" in reason(outcome(spec(), kind="open-pr"))
    assert "protected" in reason(outcome(spec(), paths=("src/app.py", ".github/workflows/ci.yml")))
    assert "changes tests" in reason(outcome(spec(), paths=("src/app.py", "tests/test_app.py")))
    assert "not jailed" in reason(outcome(spec(), isolation="changes"))
    assert "not jailed" in reason(outcome(spec(), isolation="none"))
    assert "human" in reason(outcome(spec(allow=())))


def test_no_gate_at_all_opens_what_our_own_rules_close() -> None:
    assert outcome(spec(), Yes()) == Proceed()
    assert "verify" in reason(outcome(spec(), Yes(), verified=False))
    assert "allow list" in reason(outcome(spec(allow=()), Yes()))
    assert "protected" in reason(outcome(spec(), Yes(), paths=(".ENV",)))
    assert "not jailed" in reason(outcome(spec(), Yes(), isolation="none"))


def test_the_order_is_level_then_verdict_then_kind() -> None:
    gate = AllowlistGate(["commit"])
    proposed = Proposed("comment", "x", Level.L2, verified=False)
    assert "L2-assisted" in reason(gate.answer(proposed))
    assert "verify" in reason(gate.answer(evolve(proposed, level=Level.L3)))
    assert "comment" in reason(gate.answer(evolve(proposed, level=Level.L3, verified=True)))
    assert gate.answer(evolve(proposed, level=Level.L3, verified=True, kind="commit")) == Proceed()


def test_l1_always_reports_and_l2_always_asks_whatever_the_gate_says() -> None:
    for gate in (Yes(), AlwaysEscalate(), AllowlistGate(["commit"]), CallbackGate(lambda proposed: Proceed())):
        assert outcome(spec(Level.L1), gate) == Report()
        assert isinstance(outcome(spec(Level.L2), gate), Escalate)


def test_the_gate_is_asked_exactly_once_at_every_level() -> None:
    for level in Level:
        gate = Yes()
        outcome(spec(level), gate)
        assert gate.asked == 1
    gate = Yes()
    assert decide(spec(), verified=True, action=None, paths=(), isolation="process", gate=gate) == Report()
    assert gate.asked == 0, "where there is nothing to do, nobody is asked"


def test_a_callback_that_fails_or_says_nothing_has_not_agreed() -> None:
    def broken(proposed: Proposed) -> Answer:
        raise RuntimeError("no")

    assert "RuntimeError" in reason(outcome(spec(), CallbackGate(broken)))
    for odd in (None, True, "Proceed", Report()):
        assert "no answer that counts" in reason(outcome(spec(), CallbackGate(lambda proposed, odd=odd: odd)))
    assert reason(outcome(spec(), CallbackGate(lambda proposed: Escalate("Not today.")))) == "Not today."


def test_without_an_allow_list_the_default_gate_is_a_human() -> None:
    for level in Level:
        assert gate_for(spec(level, allow=())) == AlwaysEscalate()
    assert gate_for(spec(Level.L2)) == AlwaysEscalate()
    assert gate_for(spec()) == AllowlistGate(["commit"])


@given(
    st.sampled_from(Level),
    st.booleans(),
    st.sampled_from(ACTIONS),
    st.lists(st.sampled_from(["src/a.py", ".git/hooks/x", "Makefile", "tests/test_a.py", "docs/b.md"]), max_size=3),
    st.sampled_from(["none", "changes", "process"]),
    st.lists(st.sampled_from(ACTIONS[:-1])),
)
def test_nothing_goes_ahead_but_under_all_conditions(
    level: Level, verified: bool, kind: ActionKind, paths: list[str], isolation: str, allow: list[ActionKind]
) -> None:
    found = outcome(
        spec(level, tuple(allow)), Yes(), verified=verified, kind=kind, paths=tuple(paths), isolation=isolation
    )
    may = (
        level is Level.L3
        and verified
        and kind in allow
        and isolation == "process"
        and not set(paths) & {".git/hooks/x", "Makefile", "tests/test_a.py"}
    )
    assert isinstance(found, Proceed) == may


def test_tests_are_known_by_their_names() -> None:
    for path in (
        "tests/unit/a.py",
        "test_a.py",
        "pkg/a_test.go",
        "src/a.test.ts",
        "src/a.spec.js",
        "src/__tests__/a.js",
        "ATest.java",
        "spec/a.rb",
    ):
        assert is_test(path), path
    for path in ("src/contest.py", "latest.py", "src/attest/a.py", "testing_ground.md"):
        assert not is_test(path), path


SHADOWS = (
    "unittest.py", "unittest/__main__.py", "pytest.py", "_pytest/main.py", "sitecustomize.py", "usercustomize.py",
    "pytest", "tools/pytest", "bin/python3.12", "tools/unittest", "src/unittest.py", "lib/json.py",
    "deep/in/unittest/__init__.py", "PyTest.PY", "logging.py", "re.so", "src/xdist/plugin.py",
    "random.cpython-311-x86_64-linux-gnu.so", "npm.cmd",
)  # fmt: skip
ORDINARY = ("src/app.py", "app/types.py", "pkg/json/encode.go", "html/index.html", "src/types.ts", "unittesting.py",
            "docs/pytest.md", "server/app/queue.py", "lib/code.rb", "make_it.py", "")  # fmt: skip


def test_what_would_run_in_place_of_a_runner_or_of_python_itself_is_decided_by_a_human() -> None:
    for path in SHADOWS:
        assert is_shadow(path), path
        assert isinstance(outcome(spec(), Yes(), paths=("src/app.py", path)), Escalate), path
    assert "in place of a test runner" in reason(outcome(spec(), Yes(), paths=("src/app.py", "unittest.py")))
    for path in ORDINARY:
        assert not is_shadow(path), path


@pytest.mark.parametrize(
    ("command", "path", "asks"),
    [
        ("python3 check.py", "check.py", True),
        ("python3 ./tools/check.py --all", "tools/check.py", True),
        ("./verify.sh", "verify.sh", True),
        ("cd tools && ./verify.sh", "tools/verify.sh", True),
        ("sh -c 'python3 check.py;ls'", "check.py", True),
        ("python3 -m tools.check", "tools/check.py", True),
        ("python3 -m tools", "tools/__main__.py", True),
        ("python3 tools", "tools/__main__.py", True),
        ("run --config=rules.cfg", "rules.cfg", True),
        ("/home/me/project/verify.sh", "verify.sh", True),
        ("python3 check.py", "src/app.py", False),
        ("python3 check.py", "recheck.py", False),
        ("make smoke", "src/smoke.py", False),
    ],
)
def test_a_change_of_what_a_named_check_runs_is_decided_by_a_human(command: str, path: str, asks: bool) -> None:
    found = outcome(evolve(spec(), checks=(("t", command),)), Yes(), paths=("src/other.py", path))
    assert isinstance(found, Escalate) is asks
    if asks:
        assert f"what the checks run ({path})" in reason(found)


def test_what_raises_authority_is_said_and_what_lowers_it_needs_no_gate() -> None:
    low, high = spec(Level.L1, ()), spec(Level.L3, ("commit", "comment"))
    assert len(raised(low, high)) == 2
    assert "L1-report to L3-unattended" in raised(low, high)[0]
    assert "commit, comment" in raised(low, high)[1]
    assert raised(high, low) == ()
    assert raised(high, evolve(high, cadence="every 5m")) == ()
