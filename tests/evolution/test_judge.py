"""The judge itself: what it refuses to say, what its report is bound to, and that cheating its runner is found out."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import probes
import pytest
from attrs import evolve
from edits import MINI, Case, make_child

from selfloop.errors import RequestFailed
from selfloop.evolution.judge import judge
from selfloop.evolution.layers.profile import read_profile
from selfloop.evolution.layers.source_policy import new_findings
from selfloop.evolution.layers.stage import entries, tree_hash
from selfloop.evolution.layers.text_policy import vital_findings
from selfloop.evolution.report import LAYERS, JudgeReport, LayerResult
from selfloop.sandbox.isolation import Isolation
from selfloop.supervisor.contract import may_evolve

ROOT = Path(__file__).parents[2]
HONEST = Case(
    "honest",
    [{"path": "server/selfloop/agent/titles.py", "find": "LONGEST = 40", "replace": "LONGEST: int = 40"}],
)


def a_report(**more: Any) -> JudgeReport:
    layers = tuple(LayerResult(name, title, True, "Fine.", ("a",), 0.5) for name, title in LAYERS.items())
    return JudgeReport("t" * 40, "p" * 40, 7, layers, {"python": "3"}, "2026-01-01T00:00:00+00:00", 1.0, **more)


@pytest.mark.unit
def test_a_report_is_accepted_only_if_all_six_layers_ran_and_passed() -> None:
    report = a_report()
    assert report.accepted and "six" in report.reason
    assert not evolve(report, layers=report.layers[:-1]).accepted
    assert "unknown what G6" in evolve(report, layers=report.layers[:-1]).reason
    failed = evolve(report.layers[2], passed=False, reason="No.")
    rejected = evolve(report, layers=(*report.layers[:2], failed))
    assert not rejected.accepted and rejected.reason == "G3: No."
    assert not evolve(report, layers=(*report.layers, report.layers[0])).accepted


@pytest.mark.unit
def test_a_report_survives_being_written_and_its_digest_covers_all_of_it() -> None:
    report = a_report()
    assert JudgeReport.from_json(report.to_json()) == report
    assert JudgeReport.from_json(report.to_json()).digest == report.digest
    others = [
        evolve(report, tree="x" * 40),
        evolve(report, seed=8),
        evolve(report, versions={}),
        evolve(report, layers=(evolve(report.layers[0], details=()), *report.layers[1:])),
    ]
    assert len({report.digest, *(other.digest for other in others)}) == 5


def test_a_tree_is_named_as_git_names_it(tmp_path: Path) -> None:
    child = make_child(HONEST, tmp_path / "child")
    (child / "a-b").mkdir()
    (child / "a-b" / "x").write_text("x")
    (child / "a").mkdir()
    (child / "a" / "é").write_text("y")
    (child / "a.txt").symlink_to("a/é")
    (child / "run").write_text("z")
    (child / "run").chmod(0o755)
    mine = tree_hash(entries(child, export=True))
    for command in (["init", "-q"], ["add", "-A", "-f"]):
        subprocess.run(["git", *command], cwd=child, check=True, capture_output=True)
    theirs = subprocess.run(["git", "write-tree"], cwd=child, check=True, capture_output=True, text=True)
    assert mine == theirs.stdout.strip()


async def test_without_a_jail_nothing_is_run_and_the_reason_is_said(tmp_path: Path) -> None:
    child = make_child(HONEST, tmp_path / "child")
    weak = Isolation("changes", "bubblewrap (bwrap) is not installed.")
    report = await judge(MINI, child, isolation=weak, scratch=tmp_path / "scratch")
    assert not report.accepted and [layer.name for layer in report.layers] == ["G1", "G2"]
    assert "only run in a jail" in report.reason and "not installed" in report.reason


async def test_without_a_profile_nothing_is_judged(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(RequestFailed, match="nothing was judged"):
        await judge(tmp_path / "parent", MINI, isolation=Isolation("changes", "."), scratch=tmp_path / "scratch")


async def test_the_candidates_own_profile_is_not_read(tmp_path: Path, isolation: Isolation, scratch: Path) -> None:
    child = make_child(
        Case(
            "p",
            [{"path": "pyproject.toml", "find": 'sealed = ["tests"]', "replace": "sealed = []"}, *HONEST.edits],
        ),
        tmp_path / "child",
    )
    report = await judge(MINI, child, isolation=isolation, scratch=scratch, layers={"G3"})
    assert report.layers[0].passed and report.layers[0].reason.startswith("30 ")


async def test_a_seed_makes_the_same_judgement_and_the_parent_is_run_once(
    tmp_path: Path, isolation: Isolation, scratch: Path
) -> None:
    child = make_child(HONEST, tmp_path / "child")
    reports = [await judge(MINI, child, isolation=isolation, scratch=scratch, seed=11, layers={"G3"}) for _ in range(2)]
    assert reports[0].layers[0].details == reports[1].layers[0].details
    assert reports[0].tree == reports[1].tree and reports[0].seed == 11
    kept = {file.name: file.stat().st_mtime_ns for file in (scratch / "kept").glob("*tests*")}
    assert len(kept) == 1
    other = await judge(MINI, child, isolation=isolation, scratch=scratch, layers={"G1"})
    assert other.seed != 11


CHEATS = {
    "the process ends well": "import os\n\nos._exit(0)\n",
    "every report is a pass": (
        "from _pytest import reports\n\n_old = reports.TestReport.from_item_and_call\n\n\n"
        "def _passed(item, call):\n    call.excinfo = None\n    return _old(item, call)\n\n\n"
        "reports.TestReport.from_item_and_call = _passed\n"
    ),
    "known names pass": (
        "from _pytest import reports\n\n_old = reports.TestReport.from_item_and_call\n\n\n"
        "def _passed(item, call):\n"
        "    if item.fspath.basename in ('test_chat.py', 'test_policy.py'):\n        call.excinfo = None\n"
        "    return _old(item, call)\n\n\n"
        "reports.TestReport.from_item_and_call = _passed\n"
    ),
    "what would fail is skipped": (
        "import pytest\nfrom _pytest import runner\n\n_old = runner.call_and_report\n\n\n"
        "def _skipped(item, when, log=True, **more):\n"
        "    item.obj = lambda **_: pytest.skip('later')\n    return _old(item, when, log, **more)\n\n\n"
        "runner.call_and_report = _skipped\n"
    ),
}


@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS.keys())
async def test_a_candidate_that_cheats_the_test_runner_is_found_out_even_if_nobody_reads_its_code(
    cheat: str, tmp_path: Path, isolation: Isolation, scratch: Path
) -> None:
    """The code breaks a title and hides it; G1, which would see the cheat, is switched off."""
    edits = [
        {"path": "server/selfloop/agent/cheat.py", "content": f'"""A cheat."""\n\n{cheat}'},
        {
            "path": "server/selfloop/agent/titles.py",
            "find": "LONGEST = 40",
            "replace": "import selfloop.agent.cheat\n\nLONGEST = 4",
        },
    ]
    child = make_child(Case("cheat", edits), tmp_path / "child")
    report = await judge(MINI, child, isolation=isolation, scratch=scratch, layers={"G3"})
    assert not report.layers[0].passed
    words = report.layers[0].reason
    assert "believed" in words or "do not hold" in words, words
    assert not (await judge(MINI, child, isolation=isolation, scratch=scratch, layers={"G1"})).layers[0].passed


@pytest.mark.unit
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os\n\nX = os.environ\n", "os.environ"),
        ("from os import environ\n", "os.environ"),
        ("X = open('x').read()\n", "importing it does something"),
        ("@hook\ndef f() -> None:\n    return None\n", "decorator"),
        ("class A(metaclass=M):\n    pass\n", "metaclass"),
        ("class A:\n    X = g()\n", "importing it does something"),
        ("def f(x=g()) -> None:\n    return None\n", "importing it does something"),
        ("def f() -> None:\n    getattr(f, n)()\n", "computed"),
        ("def f(x: object) -> object:\n    return x.__class__.__subclasses__()\n", "__subclasses__"),
        ("def f() -> None:\n    eval('1')\n", "eval"),
        ("def f() -> None:\n    try:\n        g()\n    except BaseException:\n        h()\n", "BaseException"),
        (
            "import contextlib\n\n\ndef f() -> None:\n    with contextlib.suppress(Exception):\n        g()\n",
            "suppresses",
        ),
        ("from selfloop.loops import gate\n\n\ndef f() -> None:\n    gate.decide = f\n", "another module owns"),
        ("from a import TABLE\n\n\ndef f() -> None:\n    TABLE['x'] = 1\n", "another module owns"),
        ("from a import TABLE\n\n\ndef f() -> None:\n    TABLE.update(x=1)\n", "another module owns"),
        ("from selfloop.loops.gate import *\n", "everything"),
        ("import asyncio\n\n\nasync def f() -> None:\n    await asyncio.open_connection('x', 1)\n", "open_connection"),
        ("x = 1  # noqa\n", "suppression"),
        ("def f(:\n", "cannot be read"),
    ],
)
def test_what_a_file_newly_does_is_seen(code: str, said: str) -> None:
    found = new_findings("", code)
    assert any(said in sentence for sentence in found), found
    if "cannot" not in said:
        assert new_findings(code, code) == [], "what was there stays allowed"


@pytest.mark.unit
def test_plain_new_code_of_the_house_is_no_finding() -> None:
    """Nearly all of our own evolvable files could be written anew: the rules fit how the house is built."""
    files = [file for file in (ROOT / "server/selfloop/agent").rglob("*.py")]
    found = {
        file.name: sentences
        for file in files
        if may_evolve(file.relative_to(ROOT).as_posix())
        and (sentences := new_findings(None, file.read_text(encoding="utf-8")))
    }
    assert len(found) <= len(files) // 3, found


@pytest.mark.unit
def test_the_real_probes_ask_what_has_more_than_one_answer() -> None:
    alike = {"tools of a role"}
    for name, (make, run) in probes.PROBES.items():
        random = Random(name)
        answers = set()
        for _ in range(80):
            value = make(random)
            try:
                answers.add(repr(run(value)))
            except Exception as error:  # As the judge takes it.
                answers.add(type(error).__name__)
        assert len(answers) > 1 or name in alike, f"{name} always answers {answers}"


@pytest.mark.unit
def test_the_real_profile_fits_the_real_source() -> None:
    profile = read_profile(ROOT)
    for path in (*profile.sealed, *profile.ignored, profile.probes):
        assert (ROOT / path).exists(), path
    for path, clauses in profile.vital.items():
        assert list(vital_findings((ROOT / path).read_text(encoding="utf-8"), clauses)) == []
    assert all(importlib.util.find_spec(plugin.split(".")[0]) for plugin in profile.plugins)
    assert not may_evolve(profile.probes) and not may_evolve("pyproject.toml")


if os.environ.get("SELFLOOP_TEST_ALL"):  # `make proof`: it takes many minutes, and a skipped test is not green.

    @pytest.mark.slow
    @pytest.mark.timeout(7200)
    async def test_the_real_source_is_judged_end_to_end(tmp_path: Path, isolation: Isolation) -> None:
        """One honest edit of the project's own source is accepted; the same with a weakened policy is not."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        folders = [tmp_path / "parent", tmp_path / "child"]
        for name in listed.stdout.decode().split("\0"):
            for folder in folders if name and (ROOT / name).is_file() else []:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((ROOT / name).read_bytes())
        parent, child = folders
        titles = child / "server/selfloop/lsp/code_actions.py"
        titles.write_text(titles.read_text() + "\n\nNOTE = 'An honest edit.'\n")
        subprocess.run([sys.executable, "-m", "ruff", "format", "--no-cache", "-q", str(titles)], check=True)
        scratch = tmp_path / "scratch"
        told: list[str] = []
        report = await judge(parent, child, isolation=isolation, scratch=scratch, told=told.append)
        assert report.accepted, (told, report.layers[-1].details)
        gate = child / "server/selfloop/loops/gate.py"
        gate.write_text(gate.read_text().replace("if spec.level is Level.L1:", "if False:"))
        assert "may not evolve" in (await judge(parent, child, isolation=isolation, scratch=scratch)).reason
