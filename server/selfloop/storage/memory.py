"""What the agent was asked to remember, found again by full-text search (SQLite FTS5).

Any text is a legal query: its words are looked for, none has a meaning to the search itself. The best matches come
first, the newest first among equals.
"""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Collection

from attrs import frozen

from selfloop.errors import InvalidInput
from selfloop.storage.disk import now, printable
from selfloop.storage.store import Store

QUERY_WORDS = 64
"""More words of a query are not looked for: they would only cost time."""

_CJK = r"\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts that put no space between words; each of their characters is indexed as a word."""
_RUNS = re.compile(rf"[{_CJK}]+|[^\W{_CJK}]+")


@frozen
class Note:
    """One thing remembered."""

    id: int
    text: str
    tags: tuple[str, ...]
    source: str
    """Who remembered it: `chat`, `loop:<name>`."""
    created_at: str


class Memory:
    """The memory of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.create("CREATE INDEX IF NOT EXISTS notes_of_source ON notes (source, id)")

    def remember(self, text: str, tags: Collection[str] = (), source: str = "chat") -> int:
        """Keep a note and return its id.

        Raises:
            InvalidInput: the text is blank.
            StoreError: nothing was kept.
        """
        text = printable(text).strip()
        if not text:
            raise InvalidInput("There is nothing to remember in an empty text, so nothing was kept; give a sentence.")
        tags = [printable(tag) for tag in tags]
        with self._store.transaction() as connection:
            row = connection.execute(
                "INSERT INTO notes (text, tags, source, created_at) VALUES (?, ?, ?, ?) RETURNING id",
                (text, json.dumps(tags), printable(source), now()),
            ).fetchone()
            connection.execute(
                "INSERT INTO notes_index (rowid, text, tags) VALUES (?, ?, ?)",
                (row["id"], _indexed(text), _indexed(" ".join(tags))),
            )
        return row["id"]

    def recall(self, query: str, limit: int = 8, *, tags: Collection[str] = ()) -> list[Note]:
        """Return the notes that share a word with the query, the best first; the newest ones for a blank query.

        Args:
            query: any text. A word also finds longer words that begin with it.
            limit: at most so many.
            tags: only notes that carry all of these.
        """
        limit = max(0, limit)
        words = [_phrase(run) for run in _RUNS.findall(_folded(query))][:QUERY_WORDS]
        if query.strip() and not words:
            return []
        # Nothing of the caller's becomes SQL: these are placeholders, one for each tag.
        carried = "".join(" AND EXISTS (SELECT 1 FROM json_each(notes.tags) WHERE value = ?)" for _ in tags)
        if words:
            found = f"WHERE notes_index MATCH ?{carried} ORDER BY rank, notes.id DESC LIMIT ?"
            sql = f"SELECT notes.* FROM notes_index JOIN notes ON notes.id = notes_index.rowid {found}"  # noqa: S608
            rows = self._store.query(sql, (" OR ".join(words), *tags, limit))
        else:
            sql = f"SELECT * FROM notes WHERE 1{carried} ORDER BY id DESC LIMIT ?"  # noqa: S608
            rows = self._store.query(sql, (*tags, limit))
        return [_note(row) for row in rows]

    def latest(self, source: str, limit: int) -> list[Note]:
        """Return what one source has remembered last, the newest first; it costs the same however many notes there are.

        Args:
            source: such as `loop:<name>`.
            limit: at most so many.
        """
        rows = self._store.query(
            "SELECT * FROM notes WHERE source = ? ORDER BY id DESC LIMIT ?", (printable(source), max(0, limit))
        )
        return [_note(row) for row in rows]

    def forget(self, note_id: int) -> bool:
        """Remove a note, and tell whether there was one."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM notes_index WHERE rowid = ?", (note_id,))
            return connection.execute("DELETE FROM notes WHERE id = ?", (note_id,)).rowcount > 0


def _note(row: sqlite3.Row) -> Note:
    return Note(row["id"], row["text"], tuple(json.loads(row["tags"])), row["source"], row["created_at"])


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", printable(text)).replace("\0", " ")


def _indexed(text: str) -> str:
    """Return the text as it is indexed: scripts without spaces are taken apart into their characters."""
    return _RUNS.sub(lambda run: f" {' '.join(run[0])} " if _is_cjk(run[0]) else run[0], _folded(text))


def _phrase(run: str) -> str:
    """Return a run of characters as a quoted prefix of FTS5's query language."""
    return f'"{" ".join(run)}"' if _is_cjk(run) else f'"{run}"*'


def _is_cjk(run: str) -> bool:
    return re.match(f"[{_CJK}]", run) is not None
