"""The rounds of a store's loops: each with its steps and its report.

Invariant: everything is written when it has happened, and writing it again changes nothing, so a round that was killed
anywhere can be taken up: a cause starts one round, a step has one result, a round ends once. What stands in a column of
JSON is its writer's; this file never looks into it. What rounds spend stands in `loop_spend`, what they carry out in
`receipts`, when they are due in `schedule`.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import frozen

from selfloop.errors import Unknown
from selfloop.storage.disk import now, printable, stamp
from selfloop.storage.store import Store

_TABLES = """
    CREATE TABLE IF NOT EXISTS rounds (
        run_id TEXT PRIMARY KEY,
        loop_id TEXT NOT NULL,
        cause_key TEXT UNIQUE,
        spec TEXT NOT NULL,
        phase TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL DEFAULT '{}',
        started_at TEXT NOT NULL,
        ended_at TEXT,
        outcome TEXT,
        report TEXT
    );
    CREATE INDEX IF NOT EXISTS rounds_of_loop ON rounds (loop_id, started_at);
    CREATE INDEX IF NOT EXISTS rounds_unfinished ON rounds (run_id) WHERE ended_at IS NULL;
    CREATE TABLE IF NOT EXISTS round_steps (
        run_id TEXT NOT NULL REFERENCES rounds ON DELETE CASCADE,
        step TEXT NOT NULL,
        begun_at TEXT NOT NULL,
        finished_at TEXT,
        result TEXT,
        PRIMARY KEY (run_id, step)
    );
"""

UNTOLD = (
    "ended_at IS NOT NULL AND json_extract(state, '$.taken_up_at') IS NOT NULL"
    " AND json_extract(state, '$.told') IS NULL"
)
"""What holds of a round that has ended and was told to nobody."""
_RUN_ID = re.compile(r"run-[0-9]{8}T[0-9]{9}-[0-9a-f]{8}")


@frozen
class RoundRecord:
    """A round as it is stored."""

    run_id: str
    """Sorts by time."""
    loop_id: str
    cause_key: str | None
    """What it was started for, such as one time of a loop's cadence; None: someone asked for it."""
    spec: str
    """The loop as it was then, in its file form."""
    phase: str
    state: dict[str, Any]
    """Small values that must be found again: the worktree's id, the gate's id, the context that was handed to it."""
    started_at: str
    ended_at: str | None
    outcome: str | None
    report: str | None
    """JSON; None while it runs."""


@frozen
class StepRecord:
    """A step of a round."""

    step: str
    begun_at: str
    finished_at: str | None
    result: Any
    """What the step gave, as JSON has it; None while it is not finished."""


class Rounds:
    """The rounds of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.create(_TABLES)

    # Rounds

    def begin(
        self,
        loop_id: str,
        *,
        spec: str,
        cause_key: str | None = None,
        state: dict[str, Any] | None = None,
        key: str | None = None,
    ) -> tuple[RoundRecord, bool]:
        """Note that a round begins, and return it and whether it is new.

        Args:
            loop_id: its loop.
            spec: the loop as it is now, in its file form.
            cause_key: what it is started for. A cause starts one round: asked again, its round is returned.
            state: what `set_state` would keep.
            key: the request that asked for it, noted as having taken effect.
        """
        run_id = f"run-{stamp()}-{secrets.token_hex(4)}"
        values = (run_id, loop_id, cause_key, spec, json.dumps(state or {}), now())
        with self.store.transaction() as connection:
            connection.execute(
                "INSERT INTO rounds (run_id, loop_id, cause_key, spec, state, started_at) VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (cause_key) DO NOTHING",
                tuple(printable(value) if isinstance(value, str) else value for value in values),
            )
            self.store.note_outcome(key, connection)
            where, value = ("run_id", run_id) if cause_key is None else ("cause_key", printable(cause_key))
            # The column is one of ours.
            row = connection.execute(f"SELECT * FROM rounds WHERE {where} = ?", (value,)).fetchone()  # noqa: S608
        record = _round(row)
        return record, record.run_id == run_id

    def get(self, run_id: str) -> RoundRecord:
        """Return a round.

        Raises:
            Unknown: there is none of this id.
        """
        rows = self.store.query("SELECT * FROM rounds WHERE run_id = ?", (printable(run_id),))
        if not rows:
            raise Unknown("Run", run_id)
        return _round(rows[0])

    def recent(self, loop_id: str | None = None, limit: int = 50) -> list[RoundRecord]:
        """Return rounds, the newest first; only one loop's, if it is given."""
        where, args = ("", ()) if loop_id is None else ("WHERE loop_id = ?", (printable(loop_id),))
        order = "ORDER BY started_at DESC, rowid DESC LIMIT ?"
        rows = self.store.query(f"SELECT * FROM rounds {where} {order}", (*args, max(0, limit)))  # noqa: S608
        return [_round(row) for row in rows]

    def last_finished(self) -> dict[str, RoundRecord]:
        """Return each loop's newest round that has a report."""
        rows = self.store.query(
            "SELECT *, max(rowid) FROM rounds WHERE report IS NOT NULL GROUP BY loop_id"  # SQLite keeps that row.
        )
        return {row["loop_id"]: _round(row) for row in rows}

    def unfinished(self) -> list[RoundRecord]:
        """Return the rounds that have not ended, oldest first: after a start, those that were killed."""
        return [_round(row) for row in self.store.query("SELECT * FROM rounds WHERE ended_at IS NULL ORDER BY rowid")]

    def untold(self) -> list[RoundRecord]:
        """Return the rounds that have ended without anybody being told, oldest first: a kill came in between."""
        return [_round(row) for row in self.store.query(f"SELECT * FROM rounds WHERE {UNTOLD} ORDER BY rowid")]  # noqa: S608

    def set_phase(self, run_id: str, phase: str) -> None:
        """Note where a running round is."""
        self._change(run_id, "phase", phase)

    def set_state(self, run_id: str, **values: Any) -> None:
        """Keep small JSON values for a round beside those it has; None takes one away."""
        with self.store.transaction():
            kept = {**self.get(run_id).state, **values}
            self._change(run_id, "state", json.dumps({name: item for name, item in kept.items() if item is not None}))

    def take_up(self, run_id: str, signs: Collection[str] = ()) -> float:
        """Note that a round is worked on from now on, and return for how many seconds it was before.

        Args:
            run_id: the round.
            signs: moments (ISO 8601) at which it is known to have been at work. When it was cut off, nobody could
                note; the last of them stands for that.
        """
        with self.store.transaction():
            state = self.get(run_id).state
            worked = float(state.get("worked_seconds", 0.0))
            if (since := state.get("taken_up_at")) is not None:
                last = max((datetime.fromisoformat(sign) for sign in signs), default=None)
                worked += max(0.0, (last - datetime.fromisoformat(since)).total_seconds()) if last else 0.0
            self.set_state(run_id, taken_up_at=now(), worked_seconds=worked)
        return worked

    def finish(self, run_id: str, *, outcome: str, report: str) -> bool:
        """End a round with its report, and tell whether it had not ended before; the first end stands.

        Raises:
            Unknown: there is no such round.
        """
        with self.store.transaction(durable=True) as connection:
            self.get(run_id)
            changed = connection.execute(
                "UPDATE rounds SET ended_at = ?, outcome = ?, report = ?, phase = 'done'"
                " WHERE run_id = ? AND ended_at IS NULL",
                (now(), outcome, printable(report), run_id),
            )
        return changed.rowcount > 0

    def replace_report(self, run_id: str, report: str) -> None:
        """Put another report in the place of a round's, as when a receipt has come; its outcome stays."""
        self._change(run_id, "report", report)

    def _change(self, run_id: str, column: str, value: str) -> None:
        with self.store.transaction() as connection:
            changed = connection.execute(
                f"UPDATE rounds SET {column} = ? WHERE run_id = ?",  # noqa: S608  The column is one of ours.
                (printable(value), printable(run_id)),
            )
            if changed.rowcount == 0:
                raise Unknown("Run", run_id)

    # Steps

    def begin_step(self, run_id: str, step: str) -> StepRecord:
        """Note that a step begins, and return it: with its result, if it was finished before."""
        with self.store.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO round_steps (run_id, step, begun_at) VALUES (?, ?, ?)", (run_id, step, now())
            )
            return self.steps(run_id)[step]

    def finish_step(self, run_id: str, step: str, result: Any) -> Any:
        """Keep a step's result, which JSON must be able to hold, and return the one that stands: the first."""
        text = printable(json.dumps(result))
        with self.store.transaction() as connection:
            connection.execute(
                """
                INSERT INTO round_steps VALUES (?, ?, ?, ?, ?) ON CONFLICT (run_id, step) DO UPDATE
                SET finished_at = excluded.finished_at, result = excluded.result WHERE finished_at IS NULL
                """,
                (run_id, step, moment := now(), moment, text),
            )
            return self.steps(run_id)[step].result

    def steps(self, run_id: str) -> dict[str, StepRecord]:
        """Return a round's steps by name, in the order in which they began."""
        rows = self.store.query("SELECT * FROM round_steps WHERE run_id = ? ORDER BY rowid", (printable(run_id),))
        return {
            row["step"]: StepRecord(row["step"], row["begun_at"], row["finished_at"], _json(row["result"]))
            for row in rows
        }

    # Retention

    def prune(self, retention_days: int, *, keep: Collection[str] = ()) -> list[str]:
        """Remove ended rounds that are older, and return their ids; what they spent stays counted.

        Args:
            retention_days: the age from which on a round is old.
            keep: rounds that stay, such as those with an open gate.
        """
        oldest = (datetime.now(UTC) - timedelta(days=retention_days)).isoformat()
        rows = self.store.query("SELECT run_id FROM rounds WHERE ended_at < ?", (oldest,))
        old = [row["run_id"] for row in rows if row["run_id"] not in keep]
        with self.store.transaction() as connection:
            for run_id in old:
                connection.execute("DELETE FROM rounds WHERE run_id = ?", (run_id,))
        return old


def is_run_id(text: str) -> bool:
    """Tell whether a text is an id of ours, and so safe as the name of a folder."""
    return _RUN_ID.fullmatch(text) is not None


def _round(row: sqlite3.Row) -> RoundRecord:
    names = [name for name in row.keys() if not name.startswith("max(")]
    return RoundRecord(**{name: json.loads(row[name]) if name == "state" else row[name] for name in names})


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
