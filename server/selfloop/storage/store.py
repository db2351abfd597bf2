"""The store of one workspace: `.evo/store.db` (SQLite, WAL), the images beside it, and what becomes of both in time.

Invariant: what a transaction changed is there whole or not at all, after a kill at any moment. A database that is
damaged, or that another put in its place, is set aside and never guessed at; sessions are then found again by their
trajectories.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attrs import frozen

from selfloop.config import Folders
from selfloop.errors import StoreError
from selfloop.messages import Usage
from selfloop.storage.database import Unusable, connect, saying_sqlite, set_aside
from selfloop.storage.disk import PRIVATE_FOLDER, TEMPORARY, now, printable, saying, sync_folder, write_file
from selfloop.storage.ownership import claimed
from selfloop.storage.schema import run_script

DATABASE = "store.db"
OUTCOME_DAYS = 7
"""How long it is remembered that a request took effect; it is asked right after a worker's death."""


@frozen
class SpendRow:
    """What one session used on one day of the user's calendar."""

    day: str
    session_id: str
    usage: Usage


class Store:
    """An open store. It may be used by several threads; a transaction must not hold an `await`."""

    def __init__(self, workspace: Path, root: Path, connection: sqlite3.Connection, notices: list[str]) -> None:
        self.workspace = workspace
        self.root = root
        """`.evo/`."""
        self.notices = notices
        """Plain sentences for the user about what opening it found."""
        self._connection: sqlite3.Connection | None = connection
        self._lock = threading.RLock()

    @classmethod
    def open(cls, workspace: Path, folders: Folders, *, migrations: Sequence[str] = ()) -> Store:
        """Open the workspace's store, and make it where there is none.

        Args:
            workspace: the folder that holds, or will hold, `.evo/`.
            folders: the user's folders; the owner secret lies in `data`.
            migrations: scripts of other rooms. Each runs once in a store's life, known by its text, in this order.

        Raises:
            StoreError: it cannot be made or read, or a newer Selfloop wrote it; nothing was changed.
        """
        with claimed(workspace, folders) as (root, owner, notices):
            path = root / DATABASE
            with saying(f"The store {path} could not be opened"):
                try:
                    connection = connect(path, owner.id)
                except Unusable as error:
                    notices.append(set_aside(path, str(error)))
                    connection = connect(path, owner.id)
            store = cls(workspace, root, connection, notices)
        try:
            for script in migrations:
                store._apply(script)
        except BaseException:
            store.close()
            raise
        return store

    # The database

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Open a transaction: committed when the block ends, rolled back when it raises.

        A transaction inside another one of the same thread is a part of it, and can fail alone.

        Args:
            durable: also wait until a power cut cannot take it; for decisions.

        Raises:
            StoreError: SQLite failed (the disk is full, the store is locked or damaged); nothing was changed.
        """
        with self._lock, saying_sqlite(self.root):
            connection = self._open()
            nested = connection.in_transaction
            if durable and not nested:
                connection.execute("PRAGMA synchronous = FULL")
            try:
                connection.execute("SAVEPOINT part" if nested else "BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("RELEASE part" if nested else "COMMIT")
                except BaseException:
                    # A full disk can have ended the transaction already.
                    if connection.in_transaction:
                        connection.execute("ROLLBACK TO part" if nested else "ROLLBACK")
                        if nested:
                            connection.execute("RELEASE part")
                    raise
            finally:
                if durable and not nested:
                    connection.execute("PRAGMA synchronous = NORMAL")

    def query(self, sql: str, args: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Run one reading statement and return its rows."""
        with self._lock, saying_sqlite(self.root):
            return self._open().execute(sql, args).fetchall()

    def create(self, sql: str) -> None:
        """Run `CREATE TABLE IF NOT EXISTS …` statements of another room; running them again changes nothing."""
        with self.transaction() as connection:
            run_script(connection, sql)

    def _apply(self, script: str) -> None:
        digest = hashlib.sha256(script.encode()).hexdigest()
        with self.transaction() as connection:
            if not connection.execute("SELECT 1 FROM applied WHERE digest = ?", (digest,)).fetchone():
                run_script(connection, script)
                connection.execute("INSERT INTO applied VALUES (?, ?)", (digest, now()))

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("The store is closed, so nothing was read or changed; restart Selfloop.")
        return self._connection

    def close(self) -> None:
        """Close the database. Closing twice is no error."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # Images

    def put_blob(self, data: bytes, *, durable: bool = False) -> str:
        """Keep an image and return its sha256, by which `blob` gives it back."""
        digest = hashlib.sha256(data).hexdigest()
        path = self._blob_path(digest)
        with saying("An image of a file could not be kept"):
            if path.is_file() and path.stat().st_size == len(data):
                os.utime(path)
            else:
                path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
                write_file(path, data)
            if durable:
                _sync(path)
        return digest

    def blob(self, digest: str) -> bytes:
        """Return an image.

        Raises:
            StoreError: it is not there, or is not what was put.
        """
        with saying(f"The kept image {digest[:12]} could not be read"):
            data = self._blob_path(digest).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(f"The kept image {digest[:12]} is damaged, so it was not used; ask for the change again.")
        return data

    def _blob_path(self, digest: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise StoreError(f"{digest!r} names no kept image, so nothing was read.")
        return self.root / "blobs" / digest[:2] / digest

    # Requests that took effect

    def note_outcome(self, key: str | None, connection: sqlite3.Connection | None = None) -> None:
        """Note that a request took effect, within the transaction that makes it so; None notes nothing."""
        if key is not None:
            if connection is None:
                with self.transaction() as own:
                    return self.note_outcome(key, own)
            connection.execute("INSERT OR IGNORE INTO outcomes VALUES (?, ?)", (key, now()))
        return None

    def outcomes(self, keys: Iterable[str]) -> set[str]:
        """Return which of these requests took effect."""
        return {key for key in set(keys) if self.query("SELECT 1 FROM outcomes WHERE key = ?", (key,))}

    # Spend

    def add_spend(self, session_id: str, usage: Usage, day: str | None = None) -> None:
        """Add to what a session used on a day, given as `2026-01-31`; None is today by the user's clock."""
        with self.transaction() as connection:
            connection.execute(
                """
                INSERT INTO spend VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day, session_id) DO UPDATE SET
                    input_tokens = input_tokens + excluded.input_tokens,
                    cached_tokens = cached_tokens + excluded.cached_tokens,
                    output_tokens = output_tokens + excluded.output_tokens,
                    cost_usd = CASE WHEN cost_usd IS NULL THEN excluded.cost_usd
                                    ELSE cost_usd + coalesce(excluded.cost_usd, 0) END
                """,
                (
                    day or datetime.now().astimezone().date().isoformat(),
                    session_id,
                    usage.input_tokens,
                    usage.cached_tokens,
                    usage.output_tokens,
                    usage.cost_usd,
                ),
            )

    def spend(self, *, session_id: str | None = None, since: str | None = None) -> Usage:
        """Return what was used: by one session or all, from the day `since` on or ever."""
        wanted = None if session_id is None else printable(session_id)
        (row,) = self.query(
            "SELECT coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(cached_tokens), 0) AS cached_tokens,"
            " coalesce(sum(output_tokens), 0) AS output_tokens, sum(cost_usd) AS cost_usd"
            " FROM spend WHERE day >= ? AND (? IS NULL OR session_id = ?)",
            (since or "", wanted, wanted),
        )
        return Usage(row["input_tokens"], row["cached_tokens"], row["output_tokens"], row["cost_usd"])

    def spend_rows(self, *, since: str | None = None) -> list[SpendRow]:
        """Return the use for each day and session, newest day first."""
        rows = self.query("SELECT * FROM spend WHERE day >= ? ORDER BY day DESC, session_id", (since or "",))
        return [
            SpendRow(
                row["day"],
                row["session_id"],
                Usage(row["input_tokens"], row["cached_tokens"], row["output_tokens"], row["cost_usd"]),
            )
            for row in rows
        ]

    # Retention

    def prune(
        self, retention_days: int, *, keep: Collection[str] = (), blobs: Collection[str] | None = None
    ) -> list[str]:
        """Remove what nobody touched for that many days.

        Args:
            retention_days: the age from which on something is old.
            keep: ids of sessions that stay whatever their age, such as those with an open gate.
            blobs: digests of images that stay; None leaves every image alone. Images younger than that stay anyway.

        Returns:
            The ids of the removed sessions.
        """
        oldest = datetime.now(UTC) - timedelta(days=retention_days)
        rows = self.query("SELECT id FROM sessions WHERE updated_at < ?", (oldest.isoformat(),))
        removed = [row["id"] for row in rows if row["id"] not in keep]
        for session_id in removed:
            self.remove_session(session_id)
        with self.transaction() as connection:
            forget = (datetime.now(UTC) - timedelta(days=OUTCOME_DAYS)).isoformat()
            connection.execute("DELETE FROM outcomes WHERE at < ?", (forget,))
        self._sweep(oldest, blobs)
        return removed

    def remove_session(self, session_id: str, key: str | None = None) -> None:
        """Remove a session's row and its folders; what it spent stays counted.

        What cannot be removed of the folders, or was not because of a kill in between, goes with a later `prune`.
        """
        with self.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
            self.note_outcome(key, connection)
        for kind in ("sessions", "outputs"):
            shutil.rmtree(self.root / kind / session_id, ignore_errors=True)

    def _sweep(self, oldest: datetime, blobs: Collection[str] | None) -> None:
        """Remove old images, what killed writers left, and folders of sessions that are no more."""
        known = {row["id"] for row in self.query("SELECT id FROM sessions")}
        yesterday = min(oldest, datetime.now(UTC) - timedelta(days=1)).timestamp()
        for path in (*self.root.glob("blobs/*/*"), *self.root.glob(f"{TEMPORARY}*")):
            unused = path.name.startswith(TEMPORARY) or (blobs is not None and path.name not in blobs)
            if unused and path.lstat().st_mtime < yesterday:
                path.unlink(missing_ok=True)
        for path in (*self.root.glob("sessions/*"), *self.root.glob("outputs/*")):
            if path.name not in known and path.lstat().st_mtime < yesterday:
                shutil.rmtree(path, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)
