"""The scheduler: every due time once and none twice, over a simulated year with daylight saving, sleep and restarts."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest

from selfloop.errors import InvalidInput, StoreError
from selfloop.loops.agenda import Agenda
from selfloop.loops.cadence import parse
from selfloop.loops.scheduler import Cause, Scheduler, local_zone
from selfloop.storage.schedule import ScheduleRecord

pytestmark = pytest.mark.unit

BERLIN = ZoneInfo("Europe/Berlin")


class Kept:
    """A schedule's store in memory: what a restart finds."""

    def __init__(self) -> None:
        self.records: dict[str, ScheduleRecord] = {}
        self.full = False

    def all(self) -> dict[str, ScheduleRecord]:
        return dict(self.records)

    def save(self, record: ScheduleRecord) -> None:
        if self.full:
            raise StoreError("The disk is full, so nothing was changed; free some space.")
        self.records[record.loop_id] = record

    def forget(self, loop_id: str) -> None:
        self.records.pop(loop_id, None)


class World:
    """Time that passes only when a test lets it, and what was run when."""

    def __init__(self, start: str = "2026-01-01T00:00", zone: tzinfo = BERLIN) -> None:
        self.now = datetime.fromisoformat(start).replace(tzinfo=zone).astimezone(UTC)
        """The clock on the wall. A test may set it; sleeps do not feel that."""
        self.zone = zone
        self.kept = Kept()
        self.ran: list[tuple[str, datetime, Cause]] = []
        self.notices: list[str] = []
        self.mute = False
        """Whether not even a notice can be written down."""
        self.naps: list[float] = []
        self.most_running = 0
        self.rounds: Callable[[str, Cause], object] | None = None
        self._running = 0
        self._passed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def clock(self) -> datetime:
        return self.now

    def told(self, sentence: str) -> None:
        self.notices.append(sentence)
        if self.mute:
            raise StoreError("The disk is full, so nothing was told.")

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._passed + seconds, future))
        await future

    async def wait(self, **time: float) -> None:
        """Let time pass, from one sleep's end to the next."""
        end = self._passed + timedelta(**time).total_seconds()
        while True:
            await settle()
            self._sleepers = [one for one in self._sleepers if not one[1].done()]
            nearest = min((at for at, _ in self._sleepers), default=end)
            step = max(0.0, min(nearest, end) - self._passed)
            self._passed += step
            self.now += timedelta(seconds=step)
            for at, future in self._sleepers:
                if at <= self._passed and not future.done():
                    future.set_result(None)
            if nearest >= end:
                await settle()
                return

    async def run(self, loop_id: str, cause: Cause) -> None:
        self.ran.append((loop_id, self.now, cause))
        self._running += 1
        self.most_running = max(self.most_running, self._running)
        try:
            found = self.rounds(loop_id, cause) if self.rounds else None
            if asyncio.iscoroutine(found):
                await found
        finally:
            self._running -= 1

    @asynccontextmanager
    async def serving(self, loops: dict[str, str], *, pause: float = 1e9) -> AsyncIterator[Scheduler]:
        """A scheduler on these loops, as after a start of the server."""
        scheduler = Scheduler(
            self.run,
            self.kept,
            notice=self.told,
            clock=self.clock,
            zone=lambda: self.zone,
            sleep=self.sleep,
            longest_pause_seconds=pause,
        )
        scheduler.set_loops(loops)
        task = asyncio.create_task(scheduler.serve())
        try:
            await settle()
            yield scheduler
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def pass_time(self, loops: dict[str, str], **time: float) -> None:
        """Serve for a while, then stop, as a server that ends."""
        async with self.serving(loops):
            await self.wait(**time)

    def times(self, loop_id: str) -> list[str]:
        return [at.astimezone(self.zone).strftime("%m-%d %H:%M") for name, at, _ in self.ran if name == loop_id]


async def settle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


YEAR = {
    "daily": "daily 09:00",
    "night": "daily 02:30",
    "weekly": "weekly mon 07:00",
    "often": "every 6h",
    "cron": "cron 15 8 1 * *",
    "change": "on change src/**",
    "manual": "manual",
}


async def test_over_a_year_every_due_time_runs_once_through_daylight_saving() -> None:
    world = World()
    began = time.process_time()
    await world.pass_time(YEAR, days=365)
    count = Counter(loop_id for loop_id, _, _ in world.ran)
    assert count == {"daily": 365, "night": 365, "weekly": 52, "often": 365 * 4 + 1, "cron": 12}
    keys = [cause.key for _, _, cause in world.ran]
    assert len(set(keys)) == len(keys)
    assert {text[-5:] for text in world.times("daily")} == {"09:00"}
    # The night of March has no half past two, that of October has two.
    assert Counter(text[-5:] for text in world.times("night")) == {"02:30": 364, "03:00": 1}
    assert world.notices == []
    assert time.process_time() - began < 20, "a year must not take longer to simulate than a test may"


async def test_over_a_year_with_restarts_and_sleep_every_due_time_runs_once_or_is_made_up_once() -> None:
    world = World()
    chance = random.Random(20261120)
    end = world.now + timedelta(days=365)
    off: list[tuple[datetime, datetime]] = []
    while world.now < end:
        await world.pass_time(YEAR, hours=chance.uniform(1, 120))
        asleep = world.now
        world.now += timedelta(hours=chance.choice([0.01, 0.5, 9, 30, 64]))
        off.append((asleep, world.now))
    daily = [at for name, at, _ in world.ran if name == "daily"]
    day = datetime(2026, 1, 1, 9, tzinfo=BERLIN)
    missed = 0
    while day.astimezone(UTC) < off[-1][0]:
        slot = day.astimezone(UTC)
        gap = next((gap for gap in off if gap[0] <= slot < gap[1]), None)
        at = slot if gap is None else gap[1]
        missed += gap is not None
        assert daily.count(at) == 1, (slot, at)
        day += timedelta(days=1)
    assert missed > 20, "the sleeps must hit some of its times"
    expected = {next((gap[1] for gap in off if gap[0] <= at < gap[1]), at) for at in daily}
    assert set(daily) == expected and len(daily) == len(set(daily))
    assert len({cause.key for _, _, cause in world.ran}) == len(world.ran)


async def test_a_weekend_asleep_is_made_up_once() -> None:
    world = World("2026-05-01T08:00")  # A Friday.
    loops = {"daily": "daily 09:00", "often": "every 10m", "weekly": "weekly sat 10:00"}
    await world.pass_time(loops, hours=2)
    ran = Counter(loop_id for loop_id, _, _ in world.ran)
    world.now += timedelta(days=3)
    await world.pass_time(loops, minutes=1)
    assert Counter(loop_id for loop_id, _, _ in world.ran) - ran == {"daily": 1, "often": 1, "weekly": 1}
    late = {loop_id: cause for loop_id, _, cause in world.ran[-3:]}
    assert late["daily"].due_at == datetime(2026, 5, 2, 9, tzinfo=BERLIN).astimezone(UTC)


@pytest.mark.parametrize("moved", [timedelta(hours=1), timedelta(days=1)])
async def test_a_clock_set_forward_makes_up_once_and_goes_on(moved: timedelta) -> None:
    world = World("2026-05-04T08:30")
    async with world.serving({"daily": "daily 09:00", "often": "every 10m"}, pause=300.0):
        await world.wait(minutes=5)
        world.now += moved
        await world.wait(hours=48)
    expected = [f"05-{day:02} 09:00" for day in (5, 6)]
    made_up, *others = world.times("daily")
    assert made_up[:8] == ("05-04 09" if moved.days == 0 else "05-05 08")
    assert others == expected
    assert abs(len(world.times("often")) - (1 + 1 + 48 * 6)) <= 1


@pytest.mark.parametrize("moved", [timedelta(hours=1), timedelta(days=1)])
async def test_a_clock_set_back_neither_repeats_nor_stops(moved: timedelta) -> None:
    world = World("2026-05-04T08:55")
    async with world.serving({"daily": "daily 09:00", "often": "every 10m"}, pause=300.0):
        await world.wait(minutes=15)
        assert world.times("daily") == ["05-04 09:00"]
        often = len(world.times("often"))
        world.now -= moved
        await world.wait(days=3)
    # With the clock a day back, its nine o'clock of the fourth comes again, and is not served again.
    assert world.times("daily") == [f"05-{day:02} 09:00" for day in (4, 5, 6)]
    assert abs(len(world.times("often")) - often - 3 * 24 * 6) <= 1


async def test_a_long_sleep_is_cut_short_so_that_a_moved_clock_is_seen() -> None:
    world = World("2026-05-04T08:00")
    async with world.serving({"daily": "daily 09:00"}, pause=30.0):
        world.now += timedelta(hours=5)
        await world.wait(seconds=31)
    assert max(world.naps) <= 30.0
    assert world.times("daily") == ["05-04 13:00"]


async def test_without_a_loop_that_time_makes_due_nothing_wakes_up() -> None:
    world = World()
    await world.pass_time({"a": "manual", "b": "on change *"}, days=3)
    assert world.naps == []


async def test_loops_run_side_by_side_and_each_one_at_a_time() -> None:
    world = World()
    release = asyncio.Event()
    world.rounds = lambda loop_id, cause: release.wait()
    async with world.serving({"a": "every 1h", "b": "every 1h", "c": "every 1h"}) as scheduler:
        await world.wait(hours=3)
        assert Counter(loop_id for loop_id, _, _ in world.ran) == {"a": 1, "b": 1, "c": 1}
        assert world.most_running == 3
        assert scheduler.running() == {"a", "b", "c"}
        assert not scheduler.start("a", Cause("asked"))
        release.set()
        await settle()
        # What came due meanwhile is made up once, not three times.
        assert Counter(loop_id for loop_id, _, _ in world.ran) == {"a": 2, "b": 2, "c": 2}


async def test_one_loops_failure_never_stops_the_others() -> None:
    world = World()

    def explode(loop_id: str, cause: Cause) -> None:
        if loop_id == "bad":
            raise RuntimeError("boom")
        if loop_id == "odd":
            raise InvalidInput("Something was wrong, so nothing was done.")

    world.rounds = explode
    await world.pass_time({"bad": "every 1h", "odd": "every 1h", "good": "every 1h"}, hours=5, minutes=1)
    assert Counter(loop_id for loop_id, _, _ in world.ran) == {"bad": 6, "odd": 6, "good": 6}
    assert len(world.notices) == 12
    assert any("bad" in said and "RuntimeError" in said and "\n" not in said for said in world.notices)


async def test_off_means_never_due_and_run_now_still_runs_it_once() -> None:
    world = World()
    async with world.serving({"a": "every 1h"}) as scheduler:
        await settle()
        scheduler.set_loops({})
        assert world.kept.records == {}
        assert scheduler.next_at("a") is None
        before = len(world.ran)
        world.now += timedelta(days=9)
        assert scheduler.start("a", Cause("asked", run_id="run-1"))
        await settle()
        assert world.ran[before:] == [("a", world.now, Cause("asked", run_id="run-1"))]
        scheduler.changed("a", ("x.py",))
        await settle()
        assert len(world.ran) == before + 1


async def test_a_loop_that_is_turned_on_makes_up_nothing_of_the_past() -> None:
    world = World("2026-05-04T10:00")
    await world.pass_time({"a": "daily 09:00"}, hours=1)
    world.now += timedelta(days=5)
    await world.pass_time({}, hours=1)
    await world.pass_time({"a": "daily 09:00"}, hours=1)
    assert world.ran == []


async def test_another_cadence_counts_from_now_and_keeps_the_others() -> None:
    world = World("2026-05-04T10:00")
    async with world.serving({"a": "daily 11:00", "b": "daily 11:00"}) as scheduler:
        scheduler.set_loops({"a": "daily 09:00", "b": "daily 11:00"})
        await world.wait(days=1)
    assert world.times("a") == ["05-05 09:00"]
    assert world.times("b") == ["05-04 11:00"]


async def test_a_cadence_that_cannot_be_read_leaves_only_its_own_loop_out() -> None:
    world = World()
    await world.pass_time({"bad": "every 0m", "good": "every 1h"}, hours=1, minutes=1)
    assert {loop_id for loop_id, _, _ in world.ran} == {"good"}
    assert len(world.notices) == 1 and "bad" in world.notices[0]


async def test_a_round_that_was_killed_is_started_again_by_the_same_cause() -> None:
    world = World("2026-05-04T08:59")
    world.rounds = lambda loop_id, cause: asyncio.Event().wait()
    await world.pass_time({"a": "daily 09:00"}, minutes=5)
    assert world.kept.records["a"].under_way is not None
    world.rounds = None
    world.now += timedelta(minutes=30)
    await world.pass_time({"a": "daily 09:00"}, minutes=5)
    first, again = (cause for _, _, cause in world.ran)
    assert first == again
    assert world.kept.records["a"].under_way is None
    await world.pass_time({"a": "daily 09:00"}, minutes=5)
    assert len(world.ran) == 2


async def test_a_round_that_the_user_ended_is_not_taken_up_again() -> None:
    world = World("2026-05-04T08:59")
    world.rounds = lambda loop_id, cause: asyncio.Event().wait()
    async with world.serving({"a": "daily 09:00"}) as scheduler:
        await world.wait(minutes=5)
        assert scheduler.cancel("a")
        await settle()
        assert scheduler.running() == frozenset()
        assert not scheduler.cancel("a")
        assert scheduler.start("a", Cause("asked"))
        assert scheduler.cancel("a"), "also one that has not taken its first step"
        await settle()
        assert scheduler.running() == frozenset()
    assert world.kept.records["a"].under_way is None


async def test_changes_during_a_round_are_one_round_after_it() -> None:
    world = World()
    release = asyncio.Event()
    world.rounds = lambda loop_id, cause: release.wait()
    async with world.serving({"a": "on change **"}) as scheduler:
        for path in ("one", "two", "three"):
            scheduler.changed("a", (path,))
            await settle()
        assert [cause.paths for _, _, cause in world.ran] == [("one",)]
        release.set()
        await settle()
        assert [cause.paths for _, _, cause in world.ran] == [("one",), ("two", "three")]
        assert scheduler.running() == frozenset()


async def test_a_full_disk_is_said_and_the_loops_go_on() -> None:
    world = World()
    world.kept.full = True
    await world.pass_time({"a": "every 1h"}, hours=3, minutes=1)
    assert len(world.ran) == 4
    assert all("disk is full" in said for said in world.notices) and world.notices


async def test_a_full_disk_on_which_nothing_can_be_told_either_ends_no_loop() -> None:
    world = World()
    world.kept.full = world.mute = True
    await world.pass_time({"a": "every 1h"}, hours=3, minutes=1)
    assert len(world.ran) == 4
    assert all("disk is full" in said for said in world.notices) and world.notices


async def test_what_was_kept_and_cannot_be_understood_counts_from_now() -> None:
    world = World("2026-05-04T08:00")
    world.kept.records["a"] = ScheduleRecord("a", "every 0m", "?", None)
    world.kept.records["b"] = ScheduleRecord("b", "daily 09:00", "not a time", None)
    await world.pass_time({"a": "daily 09:00", "b": "daily 09:00"}, hours=2)
    assert world.times("a") == world.times("b") == ["05-04 09:00"]


async def test_another_zone_moves_what_is_due() -> None:
    world = World("2026-05-04T10:00")
    async with world.serving({"a": "daily 09:00"}, pause=30.0):
        world.zone = ZoneInfo("America/New_York")
        await world.wait(hours=30)
    assert world.times("a") == ["05-04 09:00", "05-05 09:00"]


async def test_a_server_that_is_not_serving_says_that_nothing_was_started() -> None:
    scheduler = Scheduler(World().run, Kept(), zone=lambda: UTC)
    with pytest.raises(InvalidInput, match="no round was started"):
        scheduler.start("a", Cause("asked"))


def test_a_look_at_the_agenda_costs_by_what_is_due() -> None:
    now = datetime(2026, 5, 4, tzinfo=UTC)

    def cost(registered: int) -> float:
        agenda = Agenda(lambda: UTC)
        for number in range(registered):
            agenda.add(f"loop-{number}", parse(f"daily {number % 11 + 12}:00"), now)
        agenda.add("due", parse("every 1s"), now)
        began = time.perf_counter()
        at = now
        for _ in range(2000):
            ((entry, due),) = agenda.due(at)
            agenda.begin(entry, due, at)
            at += timedelta(seconds=1)
        return time.perf_counter() - began

    few, many = min(cost(10) for _ in range(3)), min(cost(1000) for _ in range(3))
    assert many < 3 * few, (few, many)


def test_the_machines_zone_is_known() -> None:
    assert datetime.now(local_zone()).utcoffset() is not None
