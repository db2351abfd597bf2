"""Which loops are due: a heap of the next times, and from when on each loop counts.

Invariant: a look at the agenda costs by what is due, not by what is registered. A loop that is not on stands nowhere in
it. All missed times of a loop together are one. Nothing here waits, runs or writes; the clock is an argument.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

from attrs import define

from selfloop.errors import InvalidInput
from selfloop.loops.cadence import Cadence, next_due, parse
from selfloop.storage.schedule import ScheduleRecord

BACKWARD_SECONDS = 1.0
"""A clock that goes back by more was set, not merely adjusted."""


@define
class Entry:
    """One loop that is on."""

    loop_id: str
    cadence: Cadence
    counted_from: datetime
    """The start of its last round or, before the first, when it was turned on."""
    next_at: datetime | None
    under_way: datetime | None = None
    """The time whose round was started and has not come back yet."""
    number: int = 0
    """Of its newest place in the heap; older ones count no more."""

    def record(self) -> ScheduleRecord:
        """Return the entry as it is stored."""
        return ScheduleRecord(
            self.loop_id,
            self.cadence.text,
            written(self.counted_from),
            written(self.next_at) if self.next_at else None,
            written(self.under_way) if self.under_way else None,
        )


class Agenda:
    """The loops that are on."""

    def __init__(self, zone: Callable[[], tzinfo]) -> None:
        self.entries: dict[str, Entry] = {}
        self._zone = zone
        self._reckoned_in: tzinfo = zone()
        self._seen: datetime | None = None
        self._heap: list[tuple[datetime, int, str]] = []
        self._number = 0

    def add(self, loop_id: str, cadence: Cadence, now: datetime, stored: ScheduleRecord | None = None) -> Entry:
        """Put a loop on the agenda, or its cadence in the place of the one it has.

        Args:
            loop_id: the loop.
            cadence: when it is due.
            now: the clock.
            stored: what was kept of it; None for a loop that was just turned on. An interval is then due at once, a
                calendar at its first time from now on.
        """
        entry = self.entries.get(loop_id) or _restored(stored)
        if entry is None:
            entry = Entry(loop_id, cadence, now, next_due(cadence, None, now, self._zone()))
        elif entry.cadence != cadence:
            # Another hour of the day is no missed hour of the past; another interval counts from the last round.
            entry.counted_from = entry.counted_from if cadence.kind == "every" else now
            entry.cadence = cadence
            self._reckon(entry, now)
        elif stored is not None and loop_id not in self.entries:
            self._reckon(entry, now)
        self.entries[loop_id] = entry
        self._push(entry)
        return entry

    def remove(self, loop_id: str) -> None:
        """Take a loop off the agenda; it is never due."""
        self.entries.pop(loop_id, None)

    def due(self, now: datetime) -> list[tuple[Entry, datetime]]:
        """Take what is due off the heap, with the time that it is due for. `begin` or `put_back` each."""
        self._mind_the_clock(now)
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, number, loop_id = heapq.heappop(self._heap)
            entry = self.entries.get(loop_id)
            if entry is not None and entry.number == number:
                found.append((entry, at))
        return found

    def begin(self, entry: Entry, at: datetime, now: datetime) -> None:
        """Note that the round for the time `at` starts now, and reckon the next one."""
        entry.under_way = at
        entry.counted_from = now
        entry.next_at = next_due(entry.cadence, now, now, self._zone())
        self._push(entry)

    def put_back(self, entry: Entry) -> None:
        """Put an entry that was due and did not begin back, as it was."""
        if self.entries.get(entry.loop_id) is entry:
            self._push(entry)

    def next_at(self) -> datetime | None:
        """Return when to look again; None: nothing will ever be due by itself."""
        while self._heap:
            at, number, loop_id = self._heap[0]
            entry = self.entries.get(loop_id)
            if entry is not None and entry.number == number:
                return at
            heapq.heappop(self._heap)
        return None

    def _mind_the_clock(self, now: datetime) -> None:
        """Reckon everything anew when the clock was set back or the zone is another; forwards needs nothing."""
        zone = self._zone()
        back = self._seen is not None and now < self._seen - timedelta(seconds=BACKWARD_SECONDS)
        if back or zone != self._reckoned_in:
            self._reckoned_in = zone
            for entry in self.entries.values():
                self._reckon(entry, now)
                self._push(entry)
        self._seen = now

    def _reckon(self, entry: Entry, now: datetime) -> None:
        if entry.next_at == entry.counted_from and entry.cadence.kind == "every":
            return  # It has never run: it stays due at once.
        entry.next_at = next_due(entry.cadence, entry.counted_from, now, self._zone())

    def _push(self, entry: Entry) -> None:
        self._number += 1
        entry.number = self._number
        if entry.next_at is not None:
            heapq.heappush(self._heap, (entry.next_at, entry.number, entry.loop_id))


def _restored(stored: ScheduleRecord | None) -> Entry | None:
    """Return an entry as it was kept; None if there is none that can be understood, so that it counts from now."""
    if stored is None:
        return None
    try:
        return Entry(
            stored.loop_id,
            parse(stored.cadence),
            datetime.fromisoformat(stored.counted_from),
            datetime.fromisoformat(stored.next_at) if stored.next_at else None,
            datetime.fromisoformat(stored.under_way) if stored.under_way else None,
        )
    except (InvalidInput, ValueError):
        return None


def written(moment: datetime) -> str:
    """Return a moment as it is stored and as it stands in a cause's key: UTC, to the microsecond."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
