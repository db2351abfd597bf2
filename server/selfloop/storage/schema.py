"""The tables of `store.db` that belong to storage, as migrations.

Migration n brings `PRAGMA user_version` from n to n + 1. A migration that was ever released is never edited. Other
rooms bring their own tables, by `Store.open(migrations=…)` or `Store.create`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

MIGRATIONS = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE applied (digest TEXT PRIMARY KEY, at TEXT NOT NULL);
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        folder TEXT NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT '{}'
    );
    CREATE TABLE outcomes (key TEXT PRIMARY KEY, at TEXT NOT NULL);
    CREATE TABLE spend (
        day TEXT NOT NULL,
        session_id TEXT NOT NULL,
        input_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cost_usd REAL,
        PRIMARY KEY (day, session_id)
    );
    CREATE INDEX spend_of_session ON spend (session_id);
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY,
        text TEXT NOT NULL,
        tags TEXT NOT NULL,
        source TEXT NOT NULL,
        created_at TEXT NOT NULL
    );
    CREATE VIRTUAL TABLE notes_index USING fts5 (text, tags, tokenize = 'unicode61 remove_diacritics 2');
    """,
)


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run several statements within the open transaction, which `executescript` would commit."""
    statement = ""
    for piece in script.split(";"):
        # A semicolon can also stand in a text, a comment or a trigger; SQLite knows which one ends a statement.
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            if statement.strip() != ";":
                connection.execute(statement)
            statement = ""
    if statement.strip(" \n;"):
        connection.execute(statement)


def pending(version: int) -> Sequence[str]:
    """Return the migrations that a database of this version still lacks."""
    return MIGRATIONS[version:]
