"""What a checker's run is worth by what it ran on: the files as they were given, and nothing of its own making."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loop_room import Room, open_room, write_loop
from loop_scripts import EDIT, MADE, TEST, plays, with_tests
from model_server import Answer, ModelServer, call, text, tools
from repositories import make_repository
from selfloop.agent.fence import Fence
from selfloop.agent.tools.tool import Workbench
from selfloop.agent.tools.verdicts import why_void
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow

UNIT = "python3 -m unittest -q test_app"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    """Return the bench of a checker whose worktree holds a project; the user's own folder has an environment too."""
    files: dict[str, str | bytes] = {
        "app.py": "one = 1\n", "test_app.py": "import app\n", "tools/pytest": "#!/bin/sh\n", "tools/real": "x\n",
        "build/kept.py": "x = 1\n", ".gitignore": ".venv\nnode_modules\n",
    }  # fmt: skip
    workspace = make_repository(tmp_path / "work", files)
    (workspace / "linked").symlink_to("tools")
    for program in (".venv/bin/pytest", "node_modules/.bin/jest"):
        (workspace / program).parent.mkdir(parents=True)
        (workspace / program).write_text("#!/bin/sh\n")
    pool = Pool(await Shadow.open(workspace, tmp_path / "cache"), tmp_path / "cache")
    worktree = await pool.acquire()
    outputs = tmp_path / "outputs"
    nothing: Any = None
    yield Workbench(
        session_id="s", workspace=workspace, worktree=worktree, door=worktree.door, outputs=outputs, isolation=nothing,
        gates=nothing, memory=nothing, fence=Fence("m"), settings=nothing, window_chars=2000, redact=str,
        known_secrets=tuple, show_plan=lambda plan: None, record=lambda kind, data: None,
    )  # fmt: skip
    await pool.close()


def put(bench: Workbench, path: str, content: str = "x\n") -> None:
    target = bench.worktree.path / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)


@pytest.mark.parametrize(
    "command",
    [UNIT, "pytest", "tools/pytest -q", "./tools/pytest", ".venv/bin/pytest -q", "node_modules/.bin/jest", "npm test",
     "ruff check .", "pytest build", "pytest 'test_app.py::a[b/c]' -k missing"],
)  # fmt: skip
async def test_a_check_on_the_files_as_they_were_given_counts(bench: Workbench, command: str) -> None:
    assert await why_void(bench, command) is None
    put(bench, "build/lib/app.py")
    put(bench, "__pycache__/app.cpython-311.pyc")
    put(bench, ".pytest_cache/v")
    put(bench, "notes.txt")
    assert await why_void(bench, command) is None, "what tests and builds leave behind is no change"


async def test_a_run_on_a_file_that_was_changed_for_it_is_void_though_it_is_undone_later(bench: Workbench) -> None:
    put(bench, "app.py", "one = 2\n")
    said = await why_void(bench, UNIT)
    assert said == f"`{UNIT}` ran on files that had been changed before it ran (app.py)."
    put(bench, "app.py", "one = 1\n")
    assert await why_void(bench, UNIT) is None
    put(bench, "unittest.py")
    assert "(unittest.py)" in (await why_void(bench, UNIT) or "")


@pytest.mark.parametrize(
    ("made", "command"),
    [
        ("build/pytest", "build/pytest"),
        ("build/pytest", "./build/../build/pytest"),
        ("tools/build/pytest", "tools/build/pytest"),
        ("build/x.py", "python3 -m unittest -q build/x.py"),
        ("dist/x.py", "python3 -m pytest dist/*.py -q"),
        ("build/test_x.py", "pytest build"),
        ("build/conftest.py", "pytest build/kept.py build/"),
        ("dist/test_x.py", "pytest dist"),
        ("dist/test_x.py", "python3 -m unittest -q dist.test_x"),
        ("dist/test_x.py", "python3 -m unittest discover -s dist"),
        ("dist/ini.cfg", "pytest -c dist/ini.cfg"),
        ("venv/bin/pytest", "venv/bin/pytest"),
        ("venv/bin/pytest", "pytest"),
        ("node_modules/.bin/vitest", "npx vitest run"),
        ("build/none", "build/absent/pytest"),
        ("build/none", "/usr/bin/pytest"),
    ],
)
async def test_what_a_checker_has_made_itself_proves_nothing(bench: Workbench, made: str, command: str) -> None:
    put(bench, made)
    assert "the checked files do not hold" in (await why_void(bench, command) or "")


async def test_a_link_is_no_way_around(bench: Workbench) -> None:
    fake = bench.worktree.path / "build/fake/bin"
    fake.mkdir(parents=True)
    (bench.worktree.path / "venv").symlink_to(bench.workspace / "build/fake")
    assert "the checked files do not hold" in (await why_void(bench, "venv/bin/pytest") or "")


async def test_a_program_that_was_there_and_was_changed_in_a_build_folder_proves_nothing(bench: Workbench) -> None:
    assert await why_void(bench, "pytest build/kept.py") is None
    put(bench, "build/kept.py", "x = 2\n")
    assert "build/kept.py" in (await why_void(bench, "pytest build/kept.py") or "")


async def test_only_what_can_be_evidence_is_looked_at(bench: Workbench) -> None:
    put(bench, "app.py", "one = 2\n")
    assert await why_void(bench, "ls") is None
    bench.checks = {"t": "python3 check.py"}
    assert await why_void(bench, UNIT) is None
    assert "(app.py)" in (await why_void(bench, "python3 check.py") or "")
    put(bench, "app.py", "one = 1\n")
    put(bench, "check.py")
    assert "check.py, which the checked files" in (await why_void(bench, "python3 check.py") or "")
    os.unlink(bench.worktree.path / "check.py")
    bench.checks = {"t": "/usr/bin/make smoke"}
    assert await why_void(bench, "/usr/bin/make smoke") is None, "the user has named a program of the system's"


# Whole rounds


@pytest.fixture
async def room(workspace: Path, own_home: Path, model: ModelServer) -> AsyncIterator[Room]:
    opened = open_room(with_tests(workspace), own_home, model.url)
    yield opened
    await opened.close()


def proves(*commands: str, evidence: str) -> list[Answer]:
    claim = {"check": "test", "command": evidence, "exit_code": 0}
    verdict = call("submit_verdict", verdict="verified", summary="Fine.", evidence=[claim])
    return [tools(*(call("shell", command=command) for command in commands)), tools(verdict), text("End.")]


async def test_a_checker_that_mends_the_file_for_its_test_and_undoes_it_verifies_nothing(
    room: Room, own_home: Path, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (await room.workspace.workshop.isolation()).level != "process":
        pytest.skip("there is no jail here")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    write_loop(own_home / "config" / "loops", "mine", level="L3-unattended", action="commit", allow="[commit]")
    mended = proves("cp greet.py kept && echo '# mended' >> greet.py", TEST, "mv kept greet.py", evidence=TEST)
    model._script = plays([tools(EDIT), text(MADE)], mended)
    report = await room.round("mine")
    assert report.outcome.type == "escalated" and not report.verified
    assert report.checker is not None and "had been changed before it ran (greet.py)" in report.checker.text


async def test_a_change_of_what_a_named_check_runs_waits_for_a_human(
    room: Room, own_home: Path, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (await room.workspace.workshop.isolation()).level != "process":
        pytest.skip("there is no jail here")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    (room.path / "check.py").write_text("raise SystemExit(1)\n")
    more = {"level": "L3-unattended", "action": "commit", "allow": "[commit]", "checks": "{test: python3 check.py}"}
    write_loop(own_home / "config" / "loops", "mine", **more)
    weaker = call("write_file", path="check.py", content="print('fine')\n")
    command = "python3 check.py"
    model._script = plays([tools(weaker), text(MADE)], proves(command, evidence=command))
    report = await room.round("mine")
    assert report.outcome.type == "escalated" and report.verified
    assert "It changes what the checks run (check.py)" in report.outcome.reason


async def test_a_loop_whose_check_proves_nothing_is_refused_and_the_others_are_loaded(
    room: Room, own_home: Path, model: ModelServer
) -> None:
    folder = own_home / "config" / "loops"
    write_loop(folder, "empty", checks='{test: "true"}')
    write_loop(folder, "whole")
    model._script = plays([text("Nothing.\nStatus: Done")], proves(TEST, evidence=TEST))
    assert (await room.round("whole")).outcome.type == "reported"
    assert any("empty.md, line 4: the check 'test' is 'true', which proves nothing" in said for said in room.notices())
