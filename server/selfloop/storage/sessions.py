"""The sessions of a workspace: what is listed of them, and where their files lie.

Ids sort by time and are safe as names of folders. `state` is a small JSON object for each session, for what must be
found again after a restart: the worktree's id, the number of the task.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from selfloop.errors import InvalidInput, StoreError, Unknown
from selfloop.storage.disk import PRIVATE_FOLDER, now, printable, saying, stamp
from selfloop.storage.journal import UpdateJournal
from selfloop.storage.store import Store
from selfloop.storage.trajectories import Trajectory, read_events, user_words

UNTITLED = "New session"
TITLE_CHARACTERS = 120
_ID = re.compile(r"[0-9]{8}T[0-9]{9}-[0-9a-f]{8}")


@frozen
class SessionRecord:
    """A session as it is listed."""

    id: str
    title: str
    folder: str
    """The workspace folder that it works in."""
    created_at: str
    """ISO 8601, UTC."""
    updated_at: str
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None


class Sessions:
    """The sessions of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._words: dict[str, tuple[int, str]] = {}
        """Of each session that was searched: how far its trajectory was read, and what the user said there."""
        self._adopt()

    def create(self, folder: Path | None = None, *, title: str = UNTITLED, key: str | None = None) -> SessionRecord:
        """Make a session and its folder.

        Args:
            folder: the workspace folder that it works in; None: the store's.
            title: shown in lists.
            key: the request that asked for it, noted as having taken effect.

        Raises:
            StoreError: it could not be made; there is no half of it.
        """
        session_id = f"{stamp()}-{secrets.token_hex(4)}"
        moment = now()
        with saying("The session's folder could not be made, so there is no new session"):
            self.folder(session_id).mkdir(mode=PRIVATE_FOLDER, parents=True)
        with self.store.transaction() as connection:
            connection.execute(
                "INSERT INTO sessions (id, title, folder, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
                (session_id, _titled(title), printable(str(folder or self.store.workspace)), moment, moment),
            )
            self.store.note_outcome(key, connection)
        return self.get(session_id)

    def list(self) -> list[SessionRecord]:
        """Return every session but those of rounds, the one that was used last first.

        The sessions of a round (`state` names its `run`) are found by the round; there are far more of them.
        """
        rows = self.store.query(
            f"{_SELECT} WHERE {_OF_NO_ROUND} GROUP BY sessions.id ORDER BY updated_at DESC, sessions.id DESC"
        )
        return [SessionRecord(**dict(row)) for row in rows]

    def count(self) -> int:
        """Return how many `list` would give; it is asked with every look at the status."""
        (row,) = self.store.query(f"SELECT count(*) AS found FROM sessions WHERE {_OF_NO_ROUND}")  # noqa: S608
        return row["found"]

    def running(self) -> Sequence[str]:
        """Return the ids of the sessions, but for those of rounds, in which a turn is under way or was cut off."""
        rows = self.store.query(
            f"SELECT id FROM sessions WHERE {_OF_NO_ROUND} AND json_extract(state, '$.running')"  # noqa: S608
        )
        return [row["id"] for row in rows]

    def find(self, query: str) -> tuple[SessionRecord, ...]:
        """Return the sessions whose title or user's messages contain every word, the one that was used last first.

        Case does not matter. Each trajectory is read once, and later only what was added to it.
        """
        words = query.casefold().split()
        found = []
        for record in self.list():
            title = record.title.casefold()
            missing = [word for word in words if word not in title]
            if not missing:
                found.append(record)
                continue
            said = self._said(record.id)
            if all(word in said for word in missing):
                found.append(record)
        return tuple(found)

    def _said(self, session_id: str) -> str:
        """Return all that the user said in a session, for searching."""
        start, said = self._words.get(session_id, (0, ""))
        try:
            with (self.folder(session_id) / "traj.jsonl").open("rb") as file:
                file.seek(start)
                data = file.read()
        except OSError:
            return said  # No trajectory yet, or one that cannot be read: the title still finds the session.
        whole = data.rfind(b"\n") + 1
        if whole:
            said = "\n".join([said, *user_words(data[:whole])])
            self._words[session_id] = (start + whole, said)
        return said

    def get(self, session_id: str) -> SessionRecord:
        """Return one session.

        Raises:
            Unknown: there is none of this id.
        """
        rows = self.store.query(f"{_SELECT} WHERE sessions.id = ? GROUP BY sessions.id", (printable(session_id),))
        if not rows:
            raise Unknown("Session", session_id)
        return SessionRecord(**dict(rows[0]))

    def rename(self, session_id: str, title: str, *, key: str | None = None) -> SessionRecord:
        """Give a session another title, and return it.

        Raises:
            Unknown: there is none of this id.
            InvalidInput: the title is empty.
        """
        with self.store.transaction() as connection:
            self._update(session_id, "title", _titled(title))
            self.store.note_outcome(key, connection)
        return self.get(session_id)

    def touch(self, session_id: str, *, title: str | None = None) -> None:
        """Note that the session was used now; `title` names it if it has no name yet."""
        with self.store.transaction() as connection:
            self._update(session_id, "updated_at", now())
            if title is not None and title.strip():
                connection.execute(
                    "UPDATE sessions SET title = ? WHERE id = ? AND title = ?", (_titled(title), session_id, UNTITLED)
                )

    def delete(self, session_id: str, *, key: str | None = None) -> None:
        """Remove a session with its trajectory, journal and outputs; what it spent stays counted.

        Raises:
            Unknown: there is none of this id.
        """
        self.get(session_id)
        self.store.remove_session(session_id, key)

    def state(self, session_id: str) -> dict[str, Any]:
        """Return what `set_state` kept for a session."""
        rows = self.store.query("SELECT state FROM sessions WHERE id = ?", (printable(session_id),))
        if not rows:
            raise Unknown("Session", session_id)
        return json.loads(rows[0]["state"])

    def set_state(self, session_id: str, **values: Any) -> None:
        """Keep small JSON values for a session beside those it has; None takes one away."""
        with self.store.transaction():
            kept = {**self.state(session_id), **values}
            text = json.dumps({name: value for name, value in kept.items() if value is not None})
            self._update(session_id, "state", text)

    def folder(self, session_id: str) -> Path:
        """Return where the session's trajectory and journal lie."""
        return self._place("sessions", session_id)

    def outputs(self, session_id: str) -> Path:
        """Return where the session's tasks leave their results, in a folder `task_N` each."""
        return self._place("outputs", session_id)

    def trajectory(self, session_id: str) -> Trajectory:
        """Open the session's trajectory; the caller closes it."""
        return Trajectory.open(self.folder(session_id) / "traj.jsonl")

    def journal(self, session_id: str) -> UpdateJournal:
        """Open the session's update journal; the caller closes it."""
        return UpdateJournal.open(self.folder(session_id) / "updates.jsonl")

    def _place(self, kind: str, session_id: str) -> Path:
        if not _ID.fullmatch(session_id):
            raise Unknown("Session", session_id)
        return self.store.root / kind / session_id

    def _update(self, session_id: str, column: str, value: str) -> None:
        with self.store.transaction() as connection:
            changed = connection.execute(
                f"UPDATE sessions SET {column} = ? WHERE id = ?",  # noqa: S608  The column is one of ours.
                (value, printable(session_id)),
            )
            if changed.rowcount == 0:
                raise Unknown("Session", session_id)

    def _adopt(self) -> None:
        """List the sessions whose folders are there although this database is new: an earlier one was lost."""
        if not self.store.query("SELECT 1 FROM meta WHERE name = 'adopt'"):
            return
        folders = [path for path in self.store.root.glob("sessions/*") if _ID.fullmatch(path.name) and path.is_dir()]
        with self.store.transaction() as connection:
            for path in folders:
                title, created, updated = _remembered(path)
                connection.execute(
                    "INSERT OR IGNORE INTO sessions (id, title, folder, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
                    (path.name, title, printable(str(self.store.workspace)), created, updated),
                )
            connection.execute("DELETE FROM meta WHERE name = 'adopt'")


_OF_NO_ROUND = "json_extract(sessions.state, '$.run') IS NULL"
_SELECT = """
    SELECT sessions.id, title, folder, created_at, updated_at,
           coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(cached_tokens), 0) AS cached_tokens,
           coalesce(sum(output_tokens), 0) AS output_tokens, sum(cost_usd) AS cost_usd
    FROM sessions LEFT JOIN spend ON spend.session_id = sessions.id
"""


def _titled(text: str) -> str:
    """Return the text as a title: one line, visible characters, not too long."""
    title = " ".join("".join(c if c.isprintable() else " " for c in printable(text)).split())
    if not title:
        raise InvalidInput("A session's title cannot be empty, so it was not changed; give at least one character.")
    return title if len(title) <= TITLE_CHARACTERS else title[: TITLE_CHARACTERS - 1] + "…"


def _remembered(folder: Path) -> tuple[str, str, str]:
    """Return the title and the times that a session's trajectory tells."""
    title, moments = UNTITLED, [now()]
    try:
        for count, event in enumerate(read_events(folder / "traj.jsonl")):
            moments = [event.ts, event.ts] if count == 0 else [moments[0], event.ts]
            text = event.data.get("text")
            if title == UNTITLED and event.kind == "user_input" and isinstance(text, str) and text.strip():
                title = _titled(text)
    except (StoreError, InvalidInput):
        # What cannot be read is still listed, so that the user can delete it.
        pass
    return title, moments[0], moments[-1]
