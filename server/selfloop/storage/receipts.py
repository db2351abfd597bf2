"""What was carried out beyond the workspace's files: commits, pushes, comments; each intended first, with one receipt.

Invariant: the intent is on the disk before anything is done, and the first receipt stands, so that whoever comes after
a kill knows what may have been done and looks, instead of doing it twice.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from attrs import frozen

from selfloop.errors import StoreError
from selfloop.storage.disk import now, printable
from selfloop.storage.store import Store

_TABLE = """
    CREATE TABLE IF NOT EXISTS receipts (
        key TEXT PRIMARY KEY,
        run_id TEXT,
        intent TEXT NOT NULL,
        intended_at TEXT NOT NULL,
        receipt TEXT,
        settled_at TEXT
    );
    CREATE INDEX IF NOT EXISTS receipts_of_round ON receipts (run_id);
"""


@frozen
class ReceiptRecord:
    """An action that was intended and, when it has a receipt, carried out."""

    key: str
    run_id: str | None
    intent: Any
    intended_at: str
    receipt: Any
    """None: it is not known to be carried out."""
    settled_at: str | None


class Receipts:
    """The receipts of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.create(_TABLE)

    def intend(self, key: str, data: Any, run_id: str | None = None) -> ReceiptRecord:
        """Write down that an action will be carried out, and return what is known of it: the first intent stands."""
        with self.store.transaction(durable=True) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO receipts (key, run_id, intent, intended_at) VALUES (?, ?, ?, ?)",
                (printable(key), run_id, printable(json.dumps(data)), now()),
            )
            found = self.get(key)
        if found is None:
            raise StoreError("The intent to act could not be kept, so nothing was carried out; run the loop again.")
        return found

    def settle(self, key: str, receipt: Any) -> Any:
        """Keep an action's receipt, and return the one that stands: the first.

        Raises:
            StoreError: the action was never intended.
        """
        with self.store.transaction(durable=True) as connection:
            connection.execute(
                "UPDATE receipts SET receipt = ?, settled_at = ? WHERE key = ? AND receipt IS NULL",
                (printable(json.dumps(receipt)), now(), printable(key)),
            )
            found = self.get(key)
        if found is None:
            raise StoreError("A receipt came for an action that was never intended, so it was not kept; report this.")
        return found.receipt

    def get(self, key: str) -> ReceiptRecord | None:
        """Return what is known of an action; None: it was never intended."""
        rows = self.store.query("SELECT * FROM receipts WHERE key = ?", (printable(key),))
        return _receipt(rows[0]) if rows else None

    def of_round(self, run_id: str) -> list[ReceiptRecord]:
        """Return what a round intended and carried out, oldest first."""
        rows = self.store.query("SELECT * FROM receipts WHERE run_id = ? ORDER BY rowid", (printable(run_id),))
        return [_receipt(row) for row in rows]


def _receipt(row: sqlite3.Row) -> ReceiptRecord:
    return ReceiptRecord(
        row["key"],
        row["run_id"],
        _json(row["intent"]),
        row["intended_at"],
        _json(row["receipt"]),
        row["settled_at"],
    )


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
