"""Starts rounds: when they are due, when files have changed, when someone asks. Loops side by side, each one at a time.

    agenda (heap of next times) ──▶ due ──▶ run(loop_id, cause)
    file changes, "run now"     ─────────▶

Invariant: every due time starts one round, none two. What is started is written down first with its cause; after a kill
the same cause is started again, and its key lets `run` find the round that it has begun already. One loop's failure
never touches another. The clock, the zone and the way to sleep are given from outside, and so is what a round is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Literal, Protocol

from attrs import evolve, field, frozen

from selfloop.errors import InvalidInput, SelfloopError
from selfloop.loops.agenda import Agenda, written
from selfloop.loops.cadence import Cadence, parse
from selfloop.storage.schedule import ScheduleRecord

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 30.0
"""The clock on the wall can be set while we sleep, and a laptop's own sleep stops ours: look at least this often."""
CHANGED_PATHS = 200
"""Of changed files that are told to a round."""


@frozen
class Cause:
    """Why a round starts."""

    kind: Literal["due", "change", "asked"]
    key: str | None = None
    """One cause, one round: `run` begins a round by it (`Rounds.begin(cause_key=…)`) and leaves one alone that it finds
    ended. None for `asked` where the asker began the round himself."""
    due_at: datetime | None = None
    """Of `due`: the time that it was due; long past for a run that is made up."""
    paths: tuple[str, ...] = ()
    """Of `change`: what has changed, relative to the workspace."""
    run_id: str | None = None
    """Of `asked`: the round that the asker began."""


Run = Callable[[str, Cause], Awaitable[object]]


class ScheduleStore(Protocol):
    """Where the schedule survives a restart: `storage.schedule.Schedule`."""

    def all(self) -> dict[str, ScheduleRecord]:
        """Return what was kept of each loop."""
        ...

    def save(self, record: ScheduleRecord) -> None:
        """Keep a loop's times."""
        ...

    def forget(self, loop_id: str) -> None:
        """Keep nothing of a loop."""
        ...


def local_zone() -> tzinfo:
    """Return the zone of this machine, daylight saving included; UTC where it cannot be told."""
    from tzlocal import get_localzone

    try:
        return get_localzone()
    except Exception as error:  # A misconfigured machine raises many things, and a loop can still run.
        logger.warning("The machine's time zone cannot be told (%s), so loops keep UTC.", error)
        return UTC


def wall_clock() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)


@frozen(eq=False)
class _Running:
    task: asyncio.Task[None]
    waiting: list[Cause] = field(factory=list)
    """A change that came meanwhile: one round more when this one has ended."""


class Scheduler:
    """The scheduler of one workspace."""

    def __init__(
        self,
        run: Run,
        store: ScheduleStore,
        *,
        notice: Callable[[str], None] = lambda sentence: None,
        clock: Callable[[], datetime] = wall_clock,
        zone: Callable[[], tzinfo] = local_zone,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        """Make a scheduler that knows no loop yet.

        Args:
            run: carries out a round; it may raise, and is told again of a cause whose round a kill has interrupted.
            store: where the schedule is kept.
            notice: takes one plain sentence for the user.
            clock: the time now, aware.
            zone: of the clock on the user's wall.
            sleep: waits so many seconds.
            longest_pause_seconds: of one sleep.
        """
        self._run = run
        self._store = store
        self._notice = notice
        self._clock = clock
        self._sleep = sleep
        self._longest = longest_pause_seconds
        self._agenda = Agenda(zone)
        self._running: dict[str, _Running] = {}
        self._group: asyncio.TaskGroup | None = None
        self._woken = asyncio.Event()
        self._resume: list[tuple[str, Cause]] = []
        self._started = False

    # What is on

    def set_loops(self, loops: Mapping[str, str]) -> None:
        """Say which loops are on, by their cadences; what is missing is off and never due.

        A cadence that cannot be read leaves its loop off, with a sentence, and touches no other.
        """
        cadences: dict[str, Cadence] = {}
        for loop_id, text in loops.items():
            try:
                cadences[loop_id] = parse(text)
            except InvalidInput as error:
                self._tell(f"The loop {loop_id} is not scheduled: {error.message}.")
        stored = {} if self._started else self._kept()
        now = self._clock()
        for loop_id in (set(self._agenda.entries) | set(stored)) - set(cadences):
            self._agenda.remove(loop_id)
            self._keep(lambda loop_id=loop_id: self._store.forget(loop_id))
        for loop_id, cadence in cadences.items():
            known = self._agenda.entries.get(loop_id)
            if known is not None and known.cadence == cadence:
                continue
            entry = self._agenda.add(loop_id, cadence, now, stored.get(loop_id))
            if known is None and entry.under_way is not None:
                self._resume.append((loop_id, _due(loop_id, entry.under_way)))
            self._keep(lambda entry=entry: self._store.save(entry.record()))
        self._started = True
        self._woken.set()

    def next_at(self, loop_id: str) -> datetime | None:
        """Return when a loop is due next; None: it is off, or time does not make it due."""
        entry = self._agenda.entries.get(loop_id)
        return entry.next_at if entry else None

    def running(self) -> frozenset[str]:
        """Return the loops whose round is under way."""
        return frozenset(self._running)

    # What starts rounds

    async def serve(self) -> None:
        """Start rounds until cancelled; every round is ended with it."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    self._tick()
                    await self._pause()
            finally:
                self._group = None

    def start(self, loop_id: str, cause: Cause) -> bool:
        """Start a round now, whether the loop is on or off; False: one of this loop is under way, and none was started.

        Raises:
            InvalidInput: the scheduler does not run.
        """
        if loop_id in self._running:
            return False
        if self._group is None:
            raise InvalidInput("Loops are not running here, so no round was started; restart Selfloop.")
        self._begin(loop_id, cause)
        return True

    def changed(self, loop_id: str, paths: tuple[str, ...]) -> None:
        """Say that files have changed which a loop that is on waits for; during its round it is said once after it."""
        if loop_id not in self._agenda.entries or self._group is None:
            return
        cause = Cause("change", f"{loop_id}@change:{written(self._clock())}", paths=paths[:CHANGED_PATHS])
        running = self._running.get(loop_id)
        if running is None:
            self._begin(loop_id, cause)
        elif running.waiting:
            merged = tuple(dict.fromkeys((*running.waiting[0].paths, *paths)))[:CHANGED_PATHS]
            running.waiting[0] = evolve(running.waiting[0], paths=merged)
        else:
            running.waiting.append(cause)

    def cancel(self, loop_id: str) -> bool:
        """End a loop's round, and tell whether there was one; it is not taken up again."""
        running = self._running.get(loop_id)
        if running is None:
            return False
        running.waiting.clear()
        return running.task.cancel()

    def _tick(self) -> None:
        """Start everything that is due now."""
        resumed, self._resume = self._resume, []
        for loop_id, cause in resumed:
            if loop_id in self._agenda.entries and loop_id not in self._running:
                self._begin(loop_id, cause)
        now = self._clock()
        for entry, at in self._agenda.due(now):
            if entry.loop_id in self._running:
                continue  # `_ended` puts it back, and then it is due at once.
            self._agenda.begin(entry, at, now)
            self._keep(lambda entry=entry: self._store.save(entry.record()))
            self._begin(entry.loop_id, _due(entry.loop_id, at))

    async def _pause(self) -> None:
        """Wait until something may be due, or until `set_loops` or the end of a round has changed that."""
        next_at = self._agenda.next_at()
        if not self._woken.is_set():
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._woken.wait())]
            if next_at is not None:
                seconds = max(0.0, (next_at - self._clock()).total_seconds())
                waits.append(asyncio.ensure_future(self._sleep(min(seconds, self._longest))))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        self._woken.clear()

    # A round

    def _begin(self, loop_id: str, cause: Cause) -> None:
        if self._group is not None:
            task = self._group.create_task(self._carry(loop_id, cause), name=f"round of {loop_id}")
            self._running[loop_id] = _Running(task)
            # A task that is cancelled before its first step runs none of its own code, so its end is seen from outside.
            task.add_done_callback(lambda ended: self._ended(loop_id))

    async def _carry(self, loop_id: str, cause: Cause) -> None:
        try:
            await self._run(loop_id, cause)
        except Exception as error:
            logger.exception("The round of %s failed (%s).", loop_id, cause.key or cause.run_id)
            said = error.message if isinstance(error, SelfloopError) else f"{type(error).__name__}, which is logged."
            self._tell(f"A round of the loop {loop_id} could not be run: {said} The other loops go on.")

    def _ended(self, loop_id: str) -> None:
        running = self._running.pop(loop_id)
        entry = self._agenda.entries.get(loop_id)
        if self._group is None or entry is None:
            # Everything ends: what is still under way is taken up at the next start.
            return
        if entry.under_way is not None:
            entry.under_way = None
            self._keep(lambda: self._store.save(entry.record()))
        self._agenda.put_back(entry)
        if running.waiting:
            self._begin(loop_id, running.waiting[0])
        self._woken.set()

    def _tell(self, sentence: str) -> None:
        """Tell the user; where not even that can be written down, as on a full disk, the loops go on all the same."""
        try:
            self._notice(sentence)
        except SelfloopError as error:
            logger.error("The user could not be told (%s): %s", error.message, sentence)

    # The store

    def _kept(self) -> dict[str, ScheduleRecord]:
        try:
            return self._store.all()
        except SelfloopError as error:
            self._tell(f"When loops last ran is not known: {error.message}")
            return {}

    def _keep(self, write: Callable[[], None]) -> None:
        """Write to the store; what it cannot take is said, and the loops go on by what is in memory."""
        try:
            write()
        except SelfloopError as error:
            logger.warning("The schedule could not be kept: %s", error.message)
            self._tell(f"When loops run next could not be kept: {error.message}")


def _due(loop_id: str, at: datetime) -> Cause:
    return Cause("due", f"{loop_id}@{written(at)}", due_at=at)
