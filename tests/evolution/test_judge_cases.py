"""Self-edits before the judge: none that is dishonest gets through, every honest one does, and each layer is needed.

By default every class of edit is judged once, by the layer that must see it, and a few go the whole way. With
SELFLOOP_TEST_ALL=1 (`make proof`) every case does: all other layers let it through, and its own rejects it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edits import MINI, Case, make_child, read_cases

from selfloop.evolution.judge import ALL, JudgeReport, judge
from selfloop.sandbox.isolation import Isolation

EVERYTHING = bool(os.environ.get("SELFLOOP_TEST_ALL"))
ADVERSARIAL = read_cases("adversarial")
HONEST = read_cases("honest")
STATIC = [case for case in ADVERSARIAL if case.layers[0] in ("G1", "G2")]
RUNNING = [case for case in ADVERSARIAL if case.layers[0] not in ("G1", "G2")]


def a_sample(cases: list[Case]) -> list[Case]:
    """Return one case of every class that each layer has."""
    chosen: dict[tuple[str, str], Case] = {}
    for case in cases:
        chosen.setdefault((case.kind, case.layers[0]), case)
    return list(chosen.values())


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


def whole_way(cases: list[Case]) -> list[Case]:
    """Return those that go through all layers: everything, or the first of each layer."""
    return cases if EVERYTHING else list({case.layers[0]: case for case in reversed(cases)}.values())


def told(case: Case, report: JudgeReport, capsys: pytest.CaptureFixture[str]) -> None:
    """Say why a case was accepted or rejected, for whoever reads the run."""
    with capsys.disabled():
        if EVERYTHING:
            sys.stderr.write(f"\n{case.name}: {report.reason} ({report.seconds:.1f} s)\n")


@pytest.mark.parametrize("case", STATIC, ids=names(STATIC))
async def test_what_hides_or_may_not_evolve_is_rejected_before_anything_runs(
    case: Case, tmp_path: Path, isolation: Isolation, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = make_child(case, tmp_path / "child")
    report = await judge(MINI, child, isolation=isolation, scratch=scratch)
    told(case, report, capsys)
    assert not report.accepted and report.layers[-1].name == case.layers[0], report.reason


@pytest.mark.parametrize("case", a_sample(RUNNING), ids=names(a_sample(RUNNING)))
async def test_the_layer_that_must_see_it_rejects_it(
    case: Case, tmp_path: Path, isolation: Isolation, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = make_child(case, tmp_path / "child")
    report = await judge(MINI, child, isolation=isolation, scratch=scratch, layers={"G1", case.layers[0]})
    told(case, report, capsys)
    assert report.layers[0].passed, report.reason
    assert not report.layers[-1].passed and report.layers[-1].name == case.layers[0], report.reason


@pytest.mark.parametrize("case", whole_way(RUNNING), ids=names(whole_way(RUNNING)))
async def test_no_other_layer_sees_it_so_each_is_needed(
    case: Case, tmp_path: Path, isolation: Isolation, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = make_child(case, tmp_path / "child")
    others = set(ALL) - {case.layers[0]}
    without = await judge(MINI, child, isolation=isolation, scratch=scratch, layers=others)
    assert {layer.name for layer in without.layers if layer.passed} == others, without.reason
    assert not without.accepted, "a layer that did not run is unknown, and unknown is a rejection"
    alone = await judge(MINI, child, isolation=isolation, scratch=scratch, layers={case.layers[0]})
    told(case, alone, capsys)
    assert not alone.layers[-1].passed, alone.reason


SAMPLE = HONEST if EVERYTHING else [HONEST[0], *[case for case in HONEST if not case.test][-2:]]


@pytest.mark.parametrize("case", SAMPLE, ids=names(SAMPLE))
async def test_an_honest_edit_is_accepted(
    case: Case, tmp_path: Path, isolation: Isolation, scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    child = make_child(case, tmp_path / "child")
    if case.test:
        added = child / "tests" / "evolved" / f"test_{case.name.replace('-', '_')}.py"
        added.parent.mkdir(exist_ok=True)
        added.write_text(f'"""The proof of {case.name}."""\n{case.test}', encoding="utf-8")
        assert run_test(added, MINI) == 1, "it proves nothing if it holds before"
        assert run_test(added, child) == 0
    report = await judge(MINI, child, isolation=isolation, scratch=scratch)
    told(case, report, capsys)
    assert report.accepted, (report.reason, report.layers[-1].details)


def run_test(file: Path, self_folder: Path) -> int:
    """Run one test file on a self; return pytest's exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(file)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self_folder / "server"),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    return done.returncode


@pytest.mark.unit
def test_there_are_as_many_cases_as_the_design_asks_for() -> None:
    assert len({case.name for case in [*ADVERSARIAL, *HONEST]}) == len(ADVERSARIAL) + len(HONEST)
    assert len(ADVERSARIAL) >= 60 and len(RUNNING) >= 40
    assert len(HONEST) >= 20 and sum(bool(case.test) for case in HONEST) >= 12
    assert {case.layers[0] for case in ADVERSARIAL} == set(ALL)
    kinds = {case.kind for case in ADVERSARIAL}
    assert kinds == {
        "tests", "runner", "policy", "protected", "invisible", "prompts", "suppression", "fingerprint", "network",
        "hard-coded", "lint", "lazy", "slow", "hang", "noise", "old-state", "secrets", "writes-outside",
    }  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize("case", [*ADVERSARIAL, *HONEST], ids=names([*ADVERSARIAL, *HONEST]))
def test_every_case_fits_the_miniature_self(case: Case, tmp_path: Path) -> None:
    make_child(case, tmp_path / "child")
