"""An action that is killed (kill -9) before or after each of its steps, and asked for again, is done exactly once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executor_room import Notes, build
from repositories import git
from stand_in_gh import StandIn, install

BRANCH = "selfloop/ci-sweeper/run-0001"
Check = Callable[[Path, StandIn, dict[str, Any]], None]

PROGRAM_THAT_KILLS = """#!/bin/sh
# Counts the calls on the user's behalf, and kills whoever ordered one of them.
if [ "$HOME" = /nonexistent ]; then exec {program} "$@"; fi
n=$(($(cat {home}/count) + 1)); echo $n > {home}/count
echo "$n $*" >> {home}/steps
if [ "$n" = "$(cat {home}/kill-before)" ]; then kill -9 $(cat {home}/driver.pid); sleep 5; fi
{program} "$@"
code=$?
if [ "$n" = "$(cat {home}/kill-after)" ]; then kill -9 $(cat {home}/driver.pid); sleep 5; fi
exit $code
"""


def drive(home: Path, kind: str, *, before: int = 0, after: int = 0) -> str | None:
    """Let a process carry out an action, killed before or after a step; return its receipt, None if it was killed."""
    for name, value in (("count", 0), ("kill-before", before), ("kill-after", after)):
        (home / name).write_text(str(value))
    done = subprocess.run(
        [sys.executable, Path(__file__).parents[1] / "executor_room.py", home, kind],
        capture_output=True, text=True, timeout=100, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode in (0, -9), done.stderr
    return done.stdout if done.returncode == 0 else None


def kill_at_every_step(home: Path, monkeypatch: pytest.MonkeyPatch, kind: str, moment: str, check: Check) -> int:
    """Kill an action at its first step, its second, and so on, each time in a new place; return how many it had."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM"):
        monkeypatch.setenv(name, "/dev/null" if name.endswith("GLOBAL") else "1")
    path, real = os.environ["PATH"], str(shutil.which("git"))
    for step in range(1, 40):
        place = home / str(step)
        place.mkdir()
        build(place)
        forge = install(place / "bin", place / "forge")
        forge.put(issues=[{"number": 7, "comments": [], "url": ""}])
        played = (place / "bin" / "gh").rename(place / "bin" / "played-gh")
        for name, program in (("git", real), ("gh", str(played))):
            (place / "bin" / name).write_text(PROGRAM_THAT_KILLS.format(home=place, program=program))
            (place / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{place / 'bin'}:{path}")
        first = drive(place, kind, before=step if moment == "before" else 0, after=step if moment == "after" else 0)
        receipt = first or drive(place, kind)
        monkeypatch.setenv("PATH", path)
        assert receipt is not None, f"killed {moment} step {step}: {(place / 'steps').read_text()}"
        check(place, forge, json.loads(receipt))
        assert sum("receipt" in row for row in Notes(place / "notes.jsonl").rows()) == 1
        if first is not None:
            return step - 1
    raise AssertionError("it never came to an end")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_step_a_pull_request_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def check(home: Path, forge: StandIn, receipt: dict[str, Any]) -> None:
        assert receipt["delivered"] and len(forge.data["pulls"]) == 1
        assert git(home / "remote.git", "rev-parse", BRANCH).strip() == receipt["commit"]
        assert git(home / "work", "rev-list", "--count", f"main..{BRANCH}").strip() == "1"
        assert git(home / "work", "worktree", "list").count("\n") == 1
        assert git(home / "work", "status", "--porcelain") == ""

    assert kill_at_every_step(tmp_path, monkeypatch, "open-pr", moment, check) >= 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_any_step_a_comment_is_posted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def check(home: Path, forge: StandIn, receipt: dict[str, Any]) -> None:
        assert receipt["delivered"] and len(forge.data["issues"][0]["comments"]) == 1

    assert kill_at_every_step(tmp_path, monkeypatch, "comment", moment, check) == 2
