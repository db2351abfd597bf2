"""Watches a new generation for a while, and says when it is worse than the one before.

Invariant: what is found wrong needs nothing of the generation to be put right: it is killed, and the last good one is
started in its place, as after a crash.
"""

from __future__ import annotations

import os
import time
from collections import deque

from selfloop.supervisor.contract import (
    EXCUSED_BEATS,
    HEARTBEAT_SECONDS,
    HOG_BYTES,
    HOG_FACTOR,
    MISSED_BEATS,
    PING,
    PROBATION_SECONDS,
    SLOW_BEATS,
    SLOW_FACTOR,
    SLOW_READS,
    SLOW_SECONDS,
    STARVED_SHARE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from selfloop.supervisor.control import Control
    from selfloop.supervisor.generations import Generation, Shelf
    from selfloop.supervisor.link import Link
    from selfloop.supervisor.log import Log
    from selfloop.supervisor.loop import Loop
    from selfloop.supervisor.window import Window
    from selfloop.supervisor.worker import Worker

_SAMPLES = 64
_UNKNOWN_READ_SECONDS = SLOW_SECONDS / SLOW_FACTOR
_UNKNOWN_BYTES = HOG_BYTES // HOG_FACTOR


class Probation:
    """Watches one worker at a time. `on_over` is called with None when it has stood, else with what was wrong."""

    def __init__(self, control: Control, shelf: Shelf, windows: dict[int, Window], loop: Loop, log: Log) -> None:
        self._control = control
        self._shelf = shelf
        self._windows = windows
        self._loop = loop
        self._log = log
        self.worker: Worker | None = None
        """Who is watched."""
        self.on_over: Callable[[Worker, Generation, str | None], None]
        self._generation: Generation
        self._times: deque[float] = deque(maxlen=_SAMPLES)
        """How long the latest reads took, in seconds."""
        self._parent_read_seconds = _UNKNOWN_READ_SECONDS
        self._parent_bytes = _UNKNOWN_BYTES
        self._ends_at = 0.0
        self._missed = 0
        self._excused = 0
        self._strays = 0
        self._slow_beats = 0
        self._waited = (0.0, 0.0)
        """For how long the worker had waited for a processor, and when that was."""
        self._kept_waiting_at = 0.0
        """When the machine was last seen to keep the worker waiting: what was asked before then measures nothing."""

    def answered(self, seconds: float) -> None:
        """Note how long a read took."""
        if time.monotonic() - seconds > self._kept_waiting_at:
            self._times.append(seconds)

    def strayed(self, worker: Worker) -> None:
        """Note that a worker has answered what it was not asked, or twice."""
        if worker is self.worker:
            self._strays += 1

    def measure(self, worker: Worker | None) -> None:
        """Note how fast and how large a worker is that another takes the place of; one on probation is no measure."""
        if self.worker is not None:
            return
        if len(self._times) >= SLOW_READS:
            self._parent_read_seconds = max(_UNKNOWN_READ_SECONDS, _median(self._times))
        if worker is not None:
            self._parent_bytes = max(_UNKNOWN_BYTES, worker.resident_bytes())

    def begin(self, worker: Worker, generation: Generation) -> None:
        """Watch a worker from now on, if its generation is on probation."""
        state = self._shelf.read()
        self._times.clear()
        if generation.number == 0 or state["number"] != generation.number or state["state"] != "probation":
            self.worker = None
            return
        self.worker, self._generation = worker, generation
        self._missed = self._excused = self._strays = self._slow_beats = 0
        self._waited = worker.starved_seconds(), time.monotonic()
        self._ends_at = time.monotonic() + _probation_seconds()
        self._loop.later(HEARTBEAT_SECONDS, lambda: self._beat(worker))

    def lost(self, worker: Worker | Link) -> None:
        """Note that whoever served has ended; one that was told to end has done nothing wrong."""
        if worker is self.worker and not worker.retiring:
            self._over("It ended while it was on probation.")

    def _beat(self, worker: Worker) -> None:
        if worker is not self.worker or worker.retiring:
            return
        kept_waiting = self._starved(worker) or worker.waits_for_disk()
        if kept_waiting:
            self._kept_waiting_at = time.monotonic()
        wrong = self._wrong(worker, kept_waiting)
        if wrong is not None:
            self._over(wrong)
        elif time.monotonic() >= self._ends_at:
            self._over(None)
        else:
            if self._missed and kept_waiting and self._excused < EXCUSED_BEATS:
                self._excused += 1
            else:
                self._missed += 1
            self._control.ask(PING, {}, lambda _: self._came())
            self._loop.later(HEARTBEAT_SECONDS, lambda: self._beat(worker))

    def _came(self) -> None:
        self._missed = 0

    def _wrong(self, worker: Worker, kept_waiting: bool) -> str | None:
        if worker.faults or self._strays:
            return "It broke the protocol."
        if self._missed >= MISSED_BEATS:
            return f"It missed {MISSED_BEATS} heartbeats."
        now = time.monotonic()
        waits = [
            now - entry.asked_at
            for window in self._windows.values()
            for entry in window.ledger
            if entry.at is worker and entry.repeatable and now - entry.asked_at > SLOW_SECONDS
        ]
        reads = [*self._times, *waits]
        if len(reads) >= SLOW_READS:
            median = _median(reads)
            slow = median > SLOW_SECONDS and median >= SLOW_FACTOR * self._parent_read_seconds
            if not slow:
                self._slow_beats = 0
            elif not kept_waiting:
                self._slow_beats += 1
            if self._slow_beats >= SLOW_BEATS:
                return f"It answers in {median:.1f} seconds what took {self._parent_read_seconds:.3f} before."
        size = worker.resident_bytes()
        if size > HOG_BYTES and size >= HOG_FACTOR * self._parent_bytes:
            return f"It takes {size >> 20} MiB of memory where {self._parent_bytes >> 20} were enough before."
        return None

    def _starved(self, worker: Worker) -> bool:
        """Tell whether the machine has kept a worker waiting for a processor since this was asked last."""
        before, at = self._waited
        self._waited = worker.starved_seconds(), (now := time.monotonic())
        return self._waited[0] - before > STARVED_SHARE * (now - at)

    def _over(self, wrong: str | None) -> None:
        worker, self.worker = self.worker, None
        if worker is None:
            return
        generation = self._generation
        if wrong is None:
            # Who serves does not depend on it, so nobody waits for the disk.
            self._loop.aside(lambda: self._shelf.settle(generation), lambda _: self.on_over(worker, generation, None))
            return
        self._log.note(f"generation {generation.number} is rolled back: {wrong}")
        self._shelf.roll_back(generation.number, wrong)
        self.on_over(worker, generation, wrong)


def _median(values: Iterable[float]) -> float:
    # The `statistics` module costs 10 ms where the editor waits.
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _probation_seconds() -> float:
    try:
        return float(os.environ.get("SELFLOOP_PROBATION_SECONDS", ""))
    except ValueError:
        return PROBATION_SECONDS
