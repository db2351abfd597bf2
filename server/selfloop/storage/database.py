"""The database file: opened, checked, brought up to date, or set aside; and what SQLite's errors mean to the user.

Invariant: a database counts only if it is whole and bears its owner's id, so that neither damage nor another's file in
its place is ever taken for the user's state.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfloop.errors import StoreError
from selfloop.storage import schema
from selfloop.storage.disk import PRIVATE_FOLDER, stamp

log = logging.getLogger(__name__)

BUSY_SECONDS = 5.0
FULL_BYTES = 65_536


class Unusable(Exception):
    """Raised when a database is there but must not be used; the message continues "because it"."""


def connect(path: Path, owner: str) -> sqlite3.Connection:
    """Open the database, check it, and bring its schema up to date."""
    with saying_sqlite(path.parent):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        try:
            with saying_sqlite(path.parent):
                for pragma in (
                    "journal_mode = WAL",
                    "synchronous = NORMAL",
                    "trusted_schema = OFF",
                    "foreign_keys = ON",
                ):
                    connection.execute(f"PRAGMA {pragma}")
                _check(connection, owner)
                _migrate(connection, owner, path)
        except StoreError as error:
            if isinstance(error.__cause__, sqlite3.DatabaseError) and _damaged(error.__cause__):
                raise Unusable("was damaged") from error
            raise
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, owner: str) -> None:
    if [tuple(row) for row in connection.execute("PRAGMA quick_check(1)")] != [("ok",)]:
        raise Unusable("was damaged")
    tables = {row["name"] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables:
        known = "meta" in tables and connection.execute("SELECT value FROM meta WHERE name = 'owner'").fetchone()
        if not known or known["value"] != owner:
            raise Unusable("came from elsewhere")


def _migrate(connection: sqlite3.Connection, owner: str, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(schema.MIGRATIONS):
        raise StoreError(
            f"The store {path} was written by a newer Selfloop, so it was not opened and not changed; update Selfloop."
        )
    if version == len(schema.MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been faster.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for script in schema.pending(version):
            schema.run_script(connection, script)
        if version == 0:
            # Whoever lists sessions finds the folders of those that an earlier database knew.
            connection.execute("INSERT INTO meta VALUES ('owner', ?), ('adopt', '1')", (owner,))
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def set_aside(path: Path, reason: str) -> str:
    """Move an unusable database away, so that a new one takes its place, and say so."""
    aside = path.parent / f"broken-{stamp()}"
    aside.mkdir(mode=PRIVATE_FOLDER)
    # The log goes first: left alone beside a new database, it would be played into it.
    for suffix in ("-wal", "-shm", "-journal", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside / part.name)
    log.warning("%s %s; it was moved to %s", path, reason, aside)
    return (
        f"The store {path.name} {reason}, so it was moved to {path.parent.name}/{aside.name} and a new one was made. "
        "Sessions are listed again from their trajectories; open gates, memory and spend start empty, and nothing of "
        "them was applied."
    )


def _damaged(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


@contextmanager
def saying_sqlite(place: Path) -> Iterator[None]:
    """Turn an error of SQLite into a `StoreError` with a sentence; a broken constraint or a wrong call stays itself."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if _damaged(error):
            why = "is damaged, so nothing was changed; restart Selfloop, which sets it aside"
        elif name.startswith("SQLITE_FULL") or (name.startswith("SQLITE_IOERR") and _full(place)):
            why = "could not be written because the disk is full, so nothing was changed; free some space and try again"
        elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            why = "cannot be written by this user, so nothing was changed; make its folder writable and try again"
        elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            why = "is in use by another process, so nothing was changed; end that one or try again"
        else:
            why = f"failed ({error}), so nothing was changed; try again"
        raise StoreError(f"The store in {place} {why}.") from error


def _full(place: Path) -> bool:
    """Tell whether the disk has no room left, which SQLite can also report as an error of input and output."""
    try:
        return shutil.disk_usage(place).free < FULL_BYTES
    except OSError:
        return False
