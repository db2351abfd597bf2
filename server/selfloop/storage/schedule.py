"""When each loop of a store is due, and from when on it counts: what the scheduler must know after a restart."""

from __future__ import annotations

from attrs import frozen

from selfloop.storage.disk import printable
from selfloop.storage.store import Store

_TABLE = """
    CREATE TABLE IF NOT EXISTS loop_schedule (
        loop_id TEXT PRIMARY KEY,
        cadence TEXT NOT NULL,
        counted_from TEXT NOT NULL,
        next_at TEXT,
        under_way TEXT
    );
"""


@frozen
class ScheduleRecord:
    """When a loop is due. Times are ISO 8601 in UTC."""

    loop_id: str
    cadence: str
    """The cadence that the times below were reckoned by."""
    counted_from: str
    """Its last run's start or, before the first, when it was turned on."""
    next_at: str | None
    under_way: str | None = None
    """The time whose round was started and has not come back yet."""


class Schedule:
    """The schedule of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.create(_TABLE)

    def all(self) -> dict[str, ScheduleRecord]:
        """Return when each loop is due."""
        rows = self.store.query("SELECT * FROM loop_schedule")
        return {row["loop_id"]: ScheduleRecord(**dict(row)) for row in rows}

    def save(self, record: ScheduleRecord) -> None:
        """Keep when a loop is due, in the place of what was kept before."""
        with self.store.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO loop_schedule VALUES (?, ?, ?, ?, ?)",
                (record.loop_id, record.cadence, record.counted_from, record.next_at, record.under_way),
            )

    def forget(self, loop_id: str) -> None:
        """Forget when a loop is due: it was turned off, or is no more."""
        with self.store.transaction() as connection:
            connection.execute("DELETE FROM loop_schedule WHERE loop_id = ?", (printable(loop_id),))
