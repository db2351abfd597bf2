"""Rounds, steps, spend, receipts, schedule and settings of loops: written once, found after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from selfloop.config import Folders
from selfloop.errors import StoreError, Unknown
from selfloop.messages import Usage
from selfloop.storage.loop_settings import LoopSetting, LoopSettings
from selfloop.storage.loop_spend import LoopSpend, LoopUse, today
from selfloop.storage.receipts import Receipts
from selfloop.storage.rounds import Rounds, is_run_id
from selfloop.storage.schedule import Schedule, ScheduleRecord
from selfloop.storage.store import Store


@pytest.fixture
def store(place: Path, folders: Folders) -> Iterator[Store]:
    opened = Store.open(place, folders)
    yield opened
    opened.close()


@pytest.fixture
def rounds(store: Store) -> Rounds:
    return Rounds(store)


def test_a_cause_starts_one_round(rounds: Rounds) -> None:
    first, fresh = rounds.begin("ci", spec="text", cause_key="ci@09:00", state={"context": ["a"]}, key="request-1")
    assert fresh and is_run_id(first.run_id)
    again, fresh = rounds.begin("ci", spec="other", cause_key="ci@09:00")
    assert (again, fresh) == (first, False)
    asked, fresh = rounds.begin("ci", spec="text")
    assert fresh and asked.run_id != first.run_id
    assert rounds.begin("ci", spec="text")[1], "without a cause each is its own"
    assert rounds.store.outcomes(["request-1"]) == {"request-1"}
    assert first.state == {"context": ["a"]}


def test_rounds_are_found_by_id_by_loop_and_unfinished(rounds: Rounds) -> None:
    ids = [rounds.begin(loop, spec="")[0].run_id for loop in ("a", "b", "a", "b", "a")]
    assert [one.run_id for one in rounds.recent()] == ids[::-1]
    assert [one.run_id for one in rounds.recent("a", 2)] == [ids[4], ids[2]]
    assert [one.run_id for one in rounds.unfinished()] == ids
    rounds.finish(ids[0], outcome="reported", report="{}")
    rounds.finish(ids[2], outcome="failed", report='{"x": 1}')
    assert [one.run_id for one in rounds.unfinished()] == [ids[1], ids[3], ids[4]]
    assert {name: one.run_id for name, one in rounds.last_finished().items()} == {"a": ids[2]}
    for odd in ("run-nothing", "\ud800"):
        with pytest.raises(Unknown) as caught:
            rounds.get(odd)
        assert caught.value.reason == "unknownRun"


def test_a_round_ends_once_and_keeps_its_outcome(rounds: Rounds) -> None:
    run_id = rounds.begin("a", spec="")[0].run_id
    rounds.set_phase(run_id, "make")
    rounds.set_state(run_id, worktree="w1", gate="g1")
    rounds.set_state(run_id, gate=None)
    assert rounds.get(run_id).phase == "make"
    assert rounds.get(run_id).state == {"worktree": "w1"}
    assert rounds.finish(run_id, outcome="escalated", report='{"n": 1}')
    assert not rounds.finish(run_id, outcome="failed", report='{"n": 2}')
    rounds.replace_report(run_id, '{"n": 1, "receipt": true}')
    ended = rounds.get(run_id)
    assert (ended.outcome, ended.report, ended.phase) == ("escalated", '{"n": 1, "receipt": true}', "done")
    for change in (
        lambda: rounds.finish("run-x", outcome="failed", report="{}"),
        lambda: rounds.set_phase("run-x", ""),
    ):
        with pytest.raises(Unknown):
            change()


def test_a_step_has_one_result(rounds: Rounds) -> None:
    run_id = rounds.begin("a", spec="")[0].run_id
    assert rounds.begin_step(run_id, "make").finished_at is None
    assert rounds.begin_step(run_id, "make").result is None
    assert rounds.finish_step(run_id, "make", {"text": "é", "n": [1]}) == {"text": "é", "n": [1]}
    assert rounds.finish_step(run_id, "make", "late") == {"text": "é", "n": [1]}
    assert rounds.begin_step(run_id, "make").result == {"text": "é", "n": [1]}
    assert rounds.finish_step(run_id, "check", None) is None
    steps = rounds.steps(run_id)
    assert list(steps) == ["make", "check"]
    assert steps["check"].finished_at is not None
    with pytest.raises(TypeError):
        rounds.finish_step(run_id, "act", object())
    assert list(rounds.steps(run_id)) == ["make", "check"], "half a step is none"


def test_a_call_is_charged_once(rounds: Rounds) -> None:
    spend = LoopSpend(rounds)
    run_id = rounds.begin("a", spec="")[0].run_id
    assert spend.add(run_id, "a", "make:1", Usage(100, 40, 10, 0.5))
    assert not spend.add(run_id, "a", "make:1", Usage(100, 40, 10, 0.5))
    assert spend.add(run_id, "a", "make:2", Usage(5, 0, 1))
    used = spend.used_by(run_id)
    assert (used.usage, used.calls) == (Usage(105, 40, 11, 0.5), 2)
    assert spend.used_by("run-x") == LoopUse()


def test_a_day_sums_its_loops_rounds_and_no_others(rounds: Rounds) -> None:
    spend = LoopSpend(rounds)
    first, second, other = (rounds.begin(loop, spec="")[0].run_id for loop in ("a", "a", "b"))
    yesterday = today() - timedelta(days=1)
    spend.add(first, "a", "1", Usage(1, 0, 1), yesterday)
    spend.add(first, "a", "2", Usage(10, 0, 10))
    spend.add(second, "a", "1", Usage(100, 0, 100))
    spend.add(other, "b", "1", Usage(1000, 0, 1000))
    assert spend.used_on("a").usage == Usage(110, 0, 110)
    assert spend.used_on("a", without=second).usage == Usage(10, 0, 10)
    assert spend.used_on("a", yesterday).calls == 1
    assert spend.used_on("a", yesterday).seconds == 0.0
    assert 0.0 <= spend.used_on("a").seconds < 60.0
    assert spend.used_on("c") == LoopUse()


def test_spend_is_listed_by_day_loop_and_session(rounds: Rounds) -> None:
    spend = LoopSpend(rounds)
    day = date(2026, 5, 4)
    spend.add("run-1", "b", "1", Usage(1, 0, 1), day)
    spend.add("run-2", "a", "1", Usage(2, 0, 2, 0.1), day)
    spend.add("run-3", "a", "1", Usage(3, 0, 3, 0.1), day)
    spend.add("run-4", "a", "1", Usage(4, 0, 4), day + timedelta(days=1))
    rounds.store.add_spend("session", Usage(9, 0, 9), "2026-05-04")
    rows = [(row.day, row.loop_id, row.session_id, row.usage.input_tokens) for row in spend.rows()]
    assert rows == [
        ("2026-05-05", "a", None, 4),
        ("2026-05-04", "a", None, 5),
        ("2026-05-04", "b", None, 1),
        ("2026-05-04", None, "session", 9),
    ]
    assert len(spend.rows(day + timedelta(days=1))) == 1


def test_an_action_is_intended_before_it_is_settled_and_settled_once(store: Store) -> None:
    receipts = Receipts(store)
    assert receipts.get("k") is None
    with pytest.raises(StoreError, match="never intended"):
        receipts.settle("k", {"done": True})
    assert receipts.intend("k", {"branch": "x"}, "run-1").receipt is None
    assert receipts.intend("k", {"branch": "y"}).intent == {"branch": "x"}
    assert receipts.settle("k", {"commit": "1"}) == {"commit": "1"}
    assert receipts.settle("k", {"commit": "2"}) == {"commit": "1"}
    assert [one.key for one in receipts.of_round("run-1")] == ["k"]


def test_the_schedule_survives(store: Store, place: Path, folders: Folders) -> None:
    record = ScheduleRecord("a", "daily 09:00", "2026-05-04T07:00:00Z", "2026-05-05T07:00:00Z", "2026-05-04T07:00:00Z")
    Schedule(store).save(record)
    Schedule(store).save(ScheduleRecord("b", "manual", "2026-05-04T07:00:00Z", None))
    store.close()
    reopened = Store.open(place, folders)
    schedule = Schedule(reopened)
    assert schedule.all()["a"] == record
    schedule.forget("b")
    assert set(schedule.all()) == {"a"}
    reopened.close()


def test_old_rounds_go_and_what_they_spent_stays(rounds: Rounds) -> None:
    spend = LoopSpend(rounds)
    ids = [rounds.begin("a", spec="")[0].run_id for _ in range(3)]
    for run_id in ids[:2]:
        rounds.finish_step(run_id, "make", 1)
        spend.add(run_id, "a", "1", Usage(1, 0, 1))
        rounds.finish(run_id, outcome="reported", report="{}")
    with rounds.store.transaction() as connection:
        connection.execute("UPDATE rounds SET ended_at = '2020-01-01T00:00:00.000Z' WHERE ended_at IS NOT NULL")
    assert rounds.prune(30, keep=[ids[0]]) == [ids[1]]
    assert rounds.steps(ids[1]) == {}
    assert {one.run_id for one in rounds.recent()} == {ids[0], ids[2]}
    assert spend.used_on("a").calls == 2


WRITER = """
import itertools, sys
from pathlib import Path
from selfloop.config import Folders
from selfloop.messages import Usage
from selfloop.storage.loop_spend import LoopSpend
from selfloop.storage.receipts import Receipts
from selfloop.storage.rounds import Rounds
from selfloop.storage.store import Store
place = Path(sys.argv[1])
store = Store.open(place / "place", Folders(place / "data", place / "cache", place / "config"))
rounds, receipts = Rounds(store), Receipts(store)
spend = LoopSpend(rounds)
run_id = rounds.begin("a", spec="s", cause_key="a@1")[0].run_id
start = len(rounds.steps(run_id))
for n in itertools.count(start):
    rounds.begin_step(run_id, f"step {n}")
    spend.add(run_id, "a", f"call {n}", Usage(1, 0, 1))
    receipts.intend(f"key {n}", n, run_id)
    receipts.settle(f"key {n}", n)
    rounds.finish_step(run_id, f"step {n}", n)
    print(n, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_had_said(place: Path, folders: Folders) -> None:
    said = 0
    for pause in (0.0, 0.03, 0.1):
        arguments = [sys.executable, "-c", WRITER, str(place.parent)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(pause)
            writer.send_signal(signal.SIGKILL)
            said = max(int(line) for line in (first + writer.stdout.read()).split("\n")[:-1])
    store = Store.open(place, folders)
    rounds = Rounds(store)
    (one,) = rounds.unfinished()
    steps = rounds.steps(one.run_id)
    assert store.notices == []
    finished = [step for step in steps.values() if step.finished_at is not None]
    assert len(finished) >= said + 1 - 2, "at most the step under way at each earlier kill is unfinished"
    assert all(step.step == f"step {step.result}" for step in finished)
    used = LoopSpend(rounds).used_by(one.run_id)
    assert len(finished) <= used.calls <= len(steps)
    assert all(record.receipt in (None, record.intent) for record in Receipts(store).of_round(one.run_id))
    store.close()


# Settings


def test_a_setting_is_of_one_workspace_and_one_loop(folders: Folders, tmp_path: Path) -> None:
    here, there = (LoopSettings(folders.data, tmp_path / name) for name in ("here", "there"))
    assert here.get("ci") == LoopSetting()
    here.change("ci", enabled=True, level="L2-assisted")
    assert here.change("ci", allow=("commit",), budget={"round": {"max_iterations": 5}, "day": {}}) == LoopSetting(
        enabled=True, level="L2-assisted", allow=("commit",), budget={"round": {"max_iterations": 5}, "day": {}}
    )
    assert LoopSettings(folders.data, tmp_path / "here").all() == here.all()
    assert there.all() == {}
    here.change("ci", enabled=False, level=None, allow=None, budget=None)
    assert json.loads((folders.data / "loops.json").read_text()) == []


def test_a_spoilt_setting_grants_nothing_and_hides_no_other(folders: Folders, tmp_path: Path) -> None:
    settings = LoopSettings(folders.data, tmp_path)
    settings.change("good", enabled=True)
    file = folders.data / "loops.json"
    (good,) = json.loads(file.read_text())
    spoilt = [
        {**good, "loop": "a", "enabled": "yes"},
        {**good, "loop": "b", "level": 3},
        {**good, "loop": "c", "allow": "commit"},
        {**good, "loop": "d", "budget": [1]},
        {**good, "loop": ["e"]},
        "nothing",
        None,
    ]
    file.write_text(json.dumps([*spoilt, good]))
    assert set(settings.all()) == {"good"}
    file.write_text("{broken")
    assert settings.all() == {}
    settings.change("new", enabled=True)
    assert set(settings.all()) == {"new"}


def test_times_are_those_of_the_users_calendar() -> None:
    assert today() == datetime.now().astimezone().date()


def test_the_time_that_a_round_was_at_work_is_counted_over_its_kills(rounds: Rounds) -> None:
    record, _ = rounds.begin("triage", spec="")
    assert rounds.take_up(record.run_id) == 0.0

    def seconds_on(seconds: float) -> str:
        begun = datetime.fromisoformat(rounds.get(record.run_id).state["taken_up_at"])
        return (begun + timedelta(seconds=seconds)).isoformat()

    assert rounds.take_up(record.run_id, [seconds_on(30), seconds_on(12)]) == 30.0
    # Nothing has happened since, and what happened before was counted.
    assert rounds.take_up(record.run_id, [seconds_on(-100)]) == 30.0
    assert rounds.take_up(record.run_id, [seconds_on(5)]) == 35.0
