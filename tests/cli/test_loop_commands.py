"""`selfloop loop|run` as child processes: what they print, and the codes that a script decides by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loop_room import write_loop
from loop_scripts import CHECKED, EDIT, MADE, plays, with_tests
from model_server import ModelServer, status, text, tools
from scene import environment_for, git
from terminal import Talk, selfloop


@pytest.fixture
def env(model: ModelServer, workspace: Path, own_home: Path) -> dict[str, str]:
    loops = own_home / "config" / "loops"
    write_loop(loops, "look", "Look around.", level="L1-report", budget="{iterations: 6}")
    write_loop(loops, "sweep", "Mend it.", level="L2-assisted", action="apply-patch")
    write_loop(loops, "short", "Look around.", budget="{iterations: 1}")
    with_tests(workspace)
    selfloop("trust", workspace)
    return environment_for(model)


def printed(*arguments: str, cwd: Path, env: dict[str, str], code: int = 0) -> Any:
    """Run a command with --json and return what it printed: exactly one object."""
    done = selfloop(*arguments, "--json", cwd=cwd, env=env)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_a_rounds_outcome_is_the_exit_code(workspace: Path, env: dict[str, str], model: ModelServer) -> None:
    model._script = plays([text("All is quiet.\nStatus: Done")], CHECKED)
    done = selfloop("loop", "run", "look", cwd=workspace, env=env)
    assert done.returncode == 0 and done.stdout.startswith("[L1-report] loop `look` (reported)"), done.stderr
    assert "look: make …" in done.stderr

    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    run = printed("loop", "run", "sweep", cwd=workspace, env=env, code=3)
    assert run["run"]["outcome"]["type"] == "escalated" and run["files"][0]["operation"] == "modify"
    shown = selfloop("gate", "list", cwd=workspace, env=env)
    assert run["gateId"] in shown.stdout

    assert printed("loop", "run", "short", cwd=workspace, env=env, code=4)["run"]["outcome"]["limit"] == "iterations"

    model._script = lambda request: status(401, "no such key")
    failed = selfloop("loop", "run", "look", cwd=workspace, env=env)
    assert failed.returncode == 5 and "error: maker failed: " in failed.stdout

    unknown = selfloop("loop", "run", "nothing", cwd=workspace, env=env)
    assert unknown.returncode == 1 and "There is no loop 'nothing' here" in unknown.stderr

    runs = printed("run", "list", cwd=workspace, env=env)
    assert [row["loopId"] for row in runs["runs"]] == ["look", "short", "sweep", "look"]
    again = printed("run", "show", run["run"]["runId"], cwd=workspace, env=env)
    assert again == run
    page = selfloop("run", "show", run["run"]["runId"], cwd=workspace, env=env)
    assert "evidence: python3 -m unittest" in page.stdout and "verdict: It greets." in page.stdout


def test_a_loop_is_shown_turned_on_and_off(workspace: Path, env: dict[str, str], model: ModelServer) -> None:
    listed = selfloop("loop", "list", cwd=workspace, env=env)
    assert listed.returncode == 0 and "daily-triage" in listed.stdout and "daily 09:00" in listed.stdout
    on = selfloop("loop", "enable", "daily-triage", "--cadence", "daily 07:30", cwd=workspace, env=env)
    assert on.returncode == 0 and "daily-triage is on: L1-report, daily 07:30, next " in on.stdout, on.stderr
    shown = printed("loop", "show", "daily-triage", cwd=workspace, env=env)
    assert shown["enabled"] and shown["cadence"] == "daily 07:30"
    raised = selfloop("loop", "enable", "daily-triage", "--level", "L2", cwd=workspace, env=env)
    assert "More authority waits for you: `selfloop gate approve gate-" in raised.stdout
    wrong = selfloop("loop", "enable", "daily-triage", "--cadence", "every 0m", cwd=workspace, env=env)
    assert wrong.returncode == 1 and wrong.stderr.count("\n") == 1
    off = selfloop("loop", "disable", "daily-triage", cwd=workspace, env=env)
    assert "daily-triage is off" in off.stdout


def test_watch_runs_what_is_due_without_an_editor(workspace: Path, env: dict[str, str], model: ModelServer) -> None:
    model._script = plays([text("All is quiet.\nStatus: Done")], CHECKED)
    with Talk("loop", "watch", cwd=workspace, env=env) as talk:
        talk.expect("No loop is on", 60)
        selfloop("loop", "enable", "look", "--cadence", "every 1h", cwd=workspace, env=env)
        talk.expect("loop `look` (reported)", 90)
    with Talk("loop", "watch", cwd=workspace, env=env) as talk:
        talk.expect("1 loop is on: look (every 1h).", 60)


def test_an_approved_action_is_carried_out_before_the_command_ends(
    workspace: Path, env: dict[str, str], model: ModelServer, own_home: Path
) -> None:
    write_loop(own_home / "config" / "loops", "keep", "Mend it.", level="L2-assisted", action="commit")
    hook = workspace / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\nsleep 2\necho 'not on a Friday' >&2\nexit 1\n")
    hook.chmod(0o755)
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    run = printed("loop", "run", "keep", cwd=workspace, env=env, code=3)
    failed = selfloop("gate", "approve", cwd=workspace, env=env)
    assert failed.returncode == 1, (failed.stdout, failed.stderr)
    assert "You approved it, and it failed: " in failed.stderr and "not on a Friday" in failed.stderr
    (again,) = printed("gate", "list", cwd=workspace, env=env)["gates"]
    assert f"It waits for you again: `selfloop gate show {again['gateId']}`." in failed.stderr
    assert git(workspace, "branch", "--list", "selfloop/*") == ""

    hook.write_text("#!/bin/sh\nsleep 2\n")
    done = selfloop("gate", "approve", cwd=workspace, env=env)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.startswith("The gate is resolved (approve).\nreceipt: Committed ")
    (branch,) = git(workspace, "branch", "--list", "selfloop/*", "--format=%(refname:short)").split()
    assert "Greet by an f-string" in git(workspace, "log", "-1", "--format=%s", branch)
    (receipt,) = printed("run", "show", run["run"]["runId"], cwd=workspace, env=env)["run"]["receipts"]
    assert receipt["summary"] in done.stdout
    same = printed("gate", "approve", again["gateId"], cwd=workspace, env=env)
    assert same["gate"]["state"] == "resolved", "the same answer again says the same at once"
    listed = selfloop("gate", "list", "--all", cwd=workspace, env=env)
    assert listed.stdout.count("resolved (approve)") == 2
