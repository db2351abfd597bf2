"""Which sessions were learned from, and what of them a reflection is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfloop.agent.prompts import Prompts
from selfloop.evolution.ledger import Heard, Ledger
from selfloop.evolution.lessons import SUMMARY_CHARS, heard, stage
from selfloop.loops.spec import Level
from selfloop.loops.specfile import read_file
from selfloop.storage.trajectories import Trajectory

pytestmark = pytest.mark.unit
A, B, C = Heard("20260101T000000000-aaaaaaaa", 10), Heard("20260102T000000000-bbbbbbbb", 10), Heard("20260103T", 10)


def test_the_watermark_never_passes_a_session_that_was_not_learned_from(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.open_of([C, A, B]) == [A, B, C] and ledger.move_watermark([A, B, C]) == ""
    ledger.mark([A, B, C], "pending", "run")
    ledger.mark([A, C], "done", "run")
    ledger.mark([B], "failed", "run", "It could not be read.")
    assert ledger.move_watermark([A, B, C]) == A.session and ledger.open_of([A, B, C]) == [B]
    ledger.mark([B], "done", "run")
    assert ledger.move_watermark([A, B, C]) == C.session
    assert (tmp_path / "learned_until.txt").read_text() == f"{C.session}\n"
    longer = Heard(A.session, 11)
    assert ledger.open_of([longer, B, C]) == [longer] and ledger.move_watermark([longer, B, C]) == ""


def test_a_torn_or_foreign_line_of_the_ledger_counts_as_never_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.mark([A, B], "done", "run")
    file = tmp_path / "learned.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert ledger.open_of([A, B]) == [B]
    ledger.mark([B], "done", "run")
    file.write_bytes(b"\xff\xfe\n" + file.read_bytes())
    assert ledger.open_of([A, B]) == []


def trajectory(folder: Path, *events: tuple[str, dict[str, Any]]) -> Path:
    log = Trajectory.open(folder / "traj.jsonl")
    for kind, data in events:
        log.append(kind, data)
    log.close()
    return folder / "traj.jsonl"


def test_a_summary_is_short_and_names_places_that_can_be_read(tmp_path: Path) -> None:
    words = [("user_input", {"text": f"Bitte schön {number} 🙂 " + "x" * 900}) for number in range(60)]
    failed = ("tool_result", {"tool_call_id": "c", "name": "shell", "content": "boom key=SECRET", "status": "failed"})
    file = trajectory(tmp_path / "s", ("context", {"system": "s" * 9000, "project": "p"}), *words, failed)
    lesson = stage("s", file, tmp_path / "staged", lambda text: text.replace("SECRET", "[redacted]"))
    assert lesson.readable and len(lesson.summary) <= SUMMARY_CHARS
    staged = (tmp_path / "staged" / "s" / "traj.jsonl").read_text()
    assert "SECRET" not in staged + lesson.summary and "s" * 9000 not in staged
    place = int(lesson.summary.split("failed at ")[1].split(":")[0])
    assert staged[place:].startswith("{") and "boom" in staged[place:]


def test_what_cannot_be_read_is_said_and_passed_over(tmp_path: Path) -> None:
    lesson = stage("s", tmp_path / "none.jsonl", tmp_path, str)
    assert not lesson.readable and "could not be read" in (lesson.note or "")
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\n\x00\nnull\n[1]\n")
    lesson = stage("s", tmp_path / "bad.jsonl", tmp_path, str)
    assert not lesson.readable and "holds no event" in (lesson.note or "")


def test_running_sessions_checkers_and_evolutions_are_not_heard(tmp_path: Path) -> None:
    states = {
        "a": {}, "b": {"running": True}, "c": {"run": "own"}, "d": {"run": "other", "role": "checker"},
        "e": {"run": "other", "role": "maker"},
    }  # fmt: skip
    for name in states:
        trajectory(tmp_path / "sessions" / name, ("user_input", {"text": "Hi."}))
    (tmp_path / "sessions" / "empty").mkdir()
    found = heard(tmp_path, lambda name: states.get(name, {}), lambda run: run == "own")
    assert [one.session for one in found] == ["a", "e"]


def test_the_loop_of_evolutions_is_manual_assisted_and_bounded() -> None:
    spec = read_file(Prompts.load().folder / "loops" / "self-evolution.md", "builtin")
    assert (spec.cadence, spec.level, spec.max_level, spec.action) == (
        "manual",
        Level.L2,
        Level.L2,
        "promote-generation",
    )
    assert spec.budget.round.max_total_tokens and spec.budget.round.max_seconds and spec.budget.day.max_total_tokens
    assert "<!--" not in spec.maker and "{{" not in spec.maker
