"""What loops have used, call by call: charged once each, summed by round, by day and by loop.

Invariant: a call is known by its round and its entry there, so that a round that is taken up again is not charged
twice for what it did before it was killed. Spend outlives the rounds; days are those of the user's calendar.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from attrs import frozen

from selfloop.messages import Usage
from selfloop.storage.disk import now, printable
from selfloop.storage.rounds import Rounds
from selfloop.storage.store import Store

_TABLE = """
    CREATE TABLE IF NOT EXISTS round_spend (
        run_id TEXT NOT NULL,
        entry TEXT NOT NULL,
        loop_id TEXT NOT NULL,
        day TEXT NOT NULL,
        input_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cost_usd REAL,
        PRIMARY KEY (run_id, entry)
    );
    CREATE INDEX IF NOT EXISTS round_spend_of_day ON round_spend (day, loop_id);
"""


NOTHING = Usage()


@frozen
class LoopUse:
    """What rounds have used."""

    usage: Usage = NOTHING
    calls: int = 0
    """Of the model."""
    seconds: float = 0.0


@frozen
class DaySpend:
    """What one loop, or one session, used on one day of the user's calendar."""

    day: str
    loop_id: str | None
    session_id: str | None
    usage: Usage


class LoopSpend:
    """What the loops of one store have used."""

    def __init__(self, rounds: Rounds) -> None:
        self.store = rounds.store
        # How long rounds took is read from their own table, which whoever has `rounds` has made.
        self.store.create(_TABLE)

    def add(self, run_id: str, loop_id: str, entry: str, usage: Usage, day: date | None = None) -> bool:
        """Charge one call of the model, and tell whether it had not been charged before.

        Args:
            run_id: the round.
            loop_id: its loop.
            entry: which call of the round it is; the same entry is charged once.
            usage: what was settled.
            day: of the user's calendar; None: today.
        """
        values = (
            printable(run_id),
            printable(entry),
            printable(loop_id),
            (day or today()).isoformat(),
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens,
            usage.cost_usd,
        )
        with self.store.transaction() as connection:
            added = connection.execute("INSERT OR IGNORE INTO round_spend VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        return added.rowcount > 0

    def used_by(self, run_id: str) -> LoopUse:
        """Return what one round has used."""
        (row,) = self.store.query(f"SELECT {_SUMS} FROM round_spend WHERE run_id = ?", (printable(run_id),))  # noqa: S608
        return LoopUse(_usage(row), row["calls"], self._seconds("run_id = ?", (printable(run_id),)))

    def used_on(self, loop_id: str, day: date | None = None, *, without: str | None = None) -> LoopUse:
        """Return what a loop's rounds have used on a day, today if None.

        Args:
            loop_id: the loop.
            day: of the user's calendar.
            without: a round that is left out: the one that is about to go on, which counts for itself.
        """
        day = day or today()
        (row,) = self.store.query(
            f"SELECT {_SUMS} FROM round_spend WHERE day = ? AND loop_id = ? AND run_id IS NOT ?",  # noqa: S608
            (day.isoformat(), printable(loop_id), without),
        )
        begin, end = (_utc(datetime.combine(day + timedelta(days=n), time()).astimezone()) for n in (0, 1))
        seconds = self._seconds(
            "loop_id = ? AND started_at >= ? AND started_at < ? AND run_id IS NOT ?",
            (printable(loop_id), begin, end, without),
        )
        return LoopUse(_usage(row), row["calls"], seconds)

    def rows(self, since: date | None = None) -> list[DaySpend]:
        """Return the use for each day, loop and session, newest day first; from a day on, or ever."""
        first = since.isoformat() if since else ""
        rows = self.store.query(
            f"SELECT day, loop_id, {_SUMS} FROM round_spend WHERE day >= ? GROUP BY day, loop_id",  # noqa: S608
            (first,),
        )
        spent = [DaySpend(row["day"], row["loop_id"], None, _usage(row)) for row in rows]
        spent += [DaySpend(row.day, None, row.session_id, row.usage) for row in self.store.spend_rows(since=first)]
        ordered = sorted(spent, key=lambda row: (row.loop_id is None, row.loop_id or row.session_id or ""))
        return sorted(ordered, key=lambda row: row.day, reverse=True)

    def _seconds(self, where: str, args: tuple[Any, ...]) -> float:
        rows = self.store.query(f"SELECT started_at, ended_at FROM rounds WHERE {where}", args)  # noqa: S608
        spans = ((_moment(row["started_at"]), _moment(row["ended_at"] or now())) for row in rows)
        return sum(max(0.0, (end - begin).total_seconds()) for begin, end in spans)


def total(store: Store) -> Usage:
    """Return all that the loops of a store have ever used; nothing where it never had any."""
    if not store.query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'round_spend'"):
        return NOTHING
    (row,) = store.query(f"SELECT {_SUMS} FROM round_spend")  # noqa: S608
    return _usage(row)


def today() -> date:
    """Return the day by the user's clock."""
    return datetime.now().astimezone().date()


_SUMS = """
    coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(cached_tokens), 0) AS cached_tokens,
    coalesce(sum(output_tokens), 0) AS output_tokens, sum(cost_usd) AS cost_usd, count(*) AS calls
"""


def _usage(row: sqlite3.Row) -> Usage:
    return Usage(row["input_tokens"], row["cached_tokens"], row["output_tokens"], row["cost_usd"])


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
