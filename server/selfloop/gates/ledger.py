"""What is stored of gates: their rows, the hunks and what was decided about each, and the journal of what was applied.

Invariants: a session has at most one open gate on changes, by an index. Before a file or a buffer is touched, an
`Application` stands here as `begun`, with the images before and after, so that a crash leaves no doubt about what was
meant.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from typing import Any, Literal, TypeVar

import msgspec
from attrs import asdict, define, evolve, field, frozen

from selfloop.changes import FileChange, Hunk, Mode, file_change
from selfloop.gates.gate import EvidenceItem, GateRecord, GateState, HunkState
from selfloop.storage.store import Store

SCHEMA = """
CREATE TABLE IF NOT EXISTS gates (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    subject_type TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at TEXT NOT NULL,
    record TEXT NOT NULL,
    evidence TEXT NOT NULL DEFAULT '[]',
    consumed INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX IF NOT EXISTS one_open_gate_on_changes
    ON gates (session_id) WHERE subject_type = 'changes' AND state = 'open';
CREATE TABLE IF NOT EXISTS gate_files (
    gate_id TEXT NOT NULL REFERENCES gates (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    change TEXT NOT NULL,
    PRIMARY KEY (gate_id, path)
);
CREATE TABLE IF NOT EXISTS gate_hunks (
    gate_id TEXT NOT NULL REFERENCES gates (id) ON DELETE CASCADE,
    hunk_id TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (gate_id, hunk_id)
);
CREATE TABLE IF NOT EXISTS gate_applications (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    gate_id TEXT NOT NULL REFERENCES gates (id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS gate_rejections (
    session_id TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (session_id, content)
);
"""

T = TypeVar("T")
Via = Literal["editor", "disk"]


@frozen
class Step:
    """One file of an application, before and after, whole."""

    path: str
    """Where the file is afterwards; of a deleted file, where it was."""
    removed: str | None
    """The path that it leaves."""
    via: Via
    before: bytes | None
    after: bytes | None
    before_mode: Mode | None
    after_mode: Mode | None
    hunk_ids: tuple[str, ...] = ()
    undone: bool = False

    @property
    def source(self) -> str:
        """Where the file is before."""
        return self.removed or self.path

    def change(self) -> FileChange | None:
        """Return what it does to the file; None: nothing."""
        return file_change(
            self.path,
            old_path=self.removed,
            pre=self.before,
            post=self.after,
            pre_mode=self.before_mode,
            post_mode=self.after_mode,
        )


@frozen
class Application:
    """Something approved (or taken back) that is about to happen, has happened, or was given up."""

    id: int
    gate_id: str
    kind: Literal["apply", "undo"]
    state: Literal["begun", "done", "failed", "undone"]
    steps: tuple[Step, ...]
    option_id: str = "approve"
    comment: str | None = None
    key: str | None = None
    hunk_ids: tuple[str, ...] = ()
    """What is decided by it: also the hunks whose text was there already, and which no step carries."""
    takes_back: tuple[tuple[int, str], ...] = ()
    """Of an undo: the applications and the paths of the steps in them."""


@define
class Proposal:
    """A gate with its content."""

    record: GateRecord
    files: list[FileChange] = field(factory=list)
    hunks: dict[str, HunkState] = field(factory=dict)
    """By id, those of earlier proposals of the same gate included."""
    evidence: tuple[EvidenceItem, ...] = ()

    def state_of(self, change: FileChange) -> dict[str, HunkState]:
        """Return the states of a file's hunks, in their order."""
        return {hunk.id: self.hunks[hunk.id] for hunk in change.hunks}

    def pending(self) -> list[str]:
        """Return the ids of the hunks that wait for an answer."""
        return [state.hunk_id for state in self.hunks.values() if state.present and state.status == "pending"]

    def applied(self) -> set[str]:
        """Return the ids of the hunks whose text is the user's by now."""
        return {state.hunk_id for state in self.hunks.values() if state.applied}

    def decide(self, hunk_ids: Iterable[str], status: Literal["approved", "rejected"]) -> None:
        """Note an answer; an approved hunk counts as applied."""
        for hunk_id in hunk_ids:
            self.hunks[hunk_id] = evolve(
                self.hunks[hunk_id], status=status, applied=status == "approved", taken_back=False
            )

    def take_back(self, hunk_ids: Iterable[str]) -> None:
        """Note that approved hunks were taken back: they wait again."""
        for hunk_id in hunk_ids:
            self.hunks[hunk_id] = evolve(self.hunks[hunk_id], status="pending", applied=False, taken_back=True)

    def release(self, hunk_ids: Iterable[str]) -> None:
        """Note that the text of approved hunks is no longer the user's, and that nothing is asked about it here."""
        for hunk_id in hunk_ids:
            self.hunks[hunk_id] = evolve(self.hunks[hunk_id], applied=False)

    def watched(self) -> set[str]:
        """Return the paths where an edit of the user's may take a hunk back, or bring one again."""
        return {state.path for state in self.hunks.values() if state.applied or state.taken_back}


class Ledger:
    """The tables. Methods that take a connection belong in the caller's transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.version = 0
        """Rises with every change of the applications."""
        store.create(SCHEMA)

    def watched(self) -> list[tuple[str, str]]:
        """Return the gates and the paths where hunks are applied, or taken back; see `Proposal.watched`."""
        rows = self._store.query(
            "SELECT DISTINCT gate_id, json_extract(state, '$.path') AS path FROM gate_hunks "
            "WHERE json_extract(state, '$.applied') OR json_extract(state, '$.taken_back')"
        )
        return [(row["gate_id"], row["path"]) for row in rows]

    def records(self, state: GateState | None = None) -> list[GateRecord]:
        """Return the gates, oldest first."""
        rows = self._store.query(
            "SELECT record FROM gates WHERE ? IS NULL OR state = ? ORDER BY created_at, id", (state, state)
        )
        return [_read(row["record"], GateRecord) for row in rows]

    def record(self, gate_id: str) -> GateRecord | None:
        """Return a gate without its content."""
        rows = self._store.query("SELECT record FROM gates WHERE id = ?", (gate_id,))
        return _read(rows[0]["record"], GateRecord) if rows else None

    def load(self, gate_id: str) -> Proposal | None:
        """Return a gate with its content, or None if there is none of this id."""
        rows = self._store.query("SELECT record, evidence FROM gates WHERE id = ?", (gate_id,))
        if not rows:
            return None
        hunks = [
            _read(row["state"], HunkState)
            for row in self._store.query("SELECT state FROM gate_hunks WHERE gate_id = ? ORDER BY rowid", (gate_id,))
        ]
        files = self._store.query("SELECT change FROM gate_files WHERE gate_id = ? ORDER BY path", (gate_id,))
        return Proposal(
            _read(rows[0]["record"], GateRecord),
            [self._change(json.loads(row["change"])) for row in files],
            {state.hunk_id: state for state in hunks},
            _read(rows[0]["evidence"], tuple[EvidenceItem, ...]),
        )

    def open_gate(self, session_id: str) -> str | None:
        """Return the id of the session's open gate on changes."""
        rows = self._store.query(
            "SELECT id FROM gates WHERE session_id = ? AND subject_type = 'changes' AND state = 'open'", (session_id,)
        )
        return rows[0]["id"] if rows else None

    def save(self, proposal: Proposal, connection: sqlite3.Connection, *, files: bool = False) -> None:
        """Write a gate as it is now; its files only if they are new."""
        record = proposal.record
        connection.execute(
            "INSERT INTO gates (id, session_id, subject_type, state, created_at, record, evidence) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "state = excluded.state, record = excluded.record, evidence = excluded.evidence",
            (
                record.gate_id,
                record.session_id,
                record.subject_type,
                record.state,
                record.created_at,
                _write(record),
                _write(proposal.evidence),
            ),
        )
        connection.executemany(
            "INSERT INTO gate_hunks VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
            [(record.gate_id, state.hunk_id, _write(state)) for state in proposal.hunks.values()],
        )
        if files:
            connection.execute("DELETE FROM gate_files WHERE gate_id = ?", (record.gate_id,))
            connection.executemany(
                "INSERT INTO gate_files VALUES (?, ?, ?)",
                [(record.gate_id, change.path, json.dumps(self._plain(change))) for change in proposal.files],
            )

    # Commands

    def command_gates(self, session_id: str) -> list[GateRecord]:
        """Return the session's command gates that are open, or answered but not used yet."""
        rows = self._store.query(
            "SELECT record FROM gates WHERE session_id = ? AND subject_type = 'command' AND consumed = 0 "
            "AND state IN ('open', 'resolved') ORDER BY created_at, id",
            (session_id,),
        )
        return [_read(row["record"], GateRecord) for row in rows]

    def consume(self, gate_id: str, connection: sqlite3.Connection) -> None:
        """Note that an answer was used: it holds for one run."""
        connection.execute("UPDATE gates SET consumed = 1 WHERE id = ?", (gate_id,))

    # Questions of loops

    def asked(self, subject_type: str, content: str, state: str | None) -> GateRecord | None:
        """Return the newest gate on an action or a level that asked for a content, in a state or in any."""
        rows = self._store.query(
            "SELECT record FROM gates WHERE subject_type = ? AND json_extract(record, '$.subject.content') = ? "
            "AND (? IS NULL OR state = ?) ORDER BY created_at DESC, id DESC LIMIT 1",
            (subject_type, content, state, state),
        )
        return _read(rows[0]["record"], GateRecord) if rows else None

    def unsettled_actions(self) -> list[GateRecord]:
        """Return the approved actions and evolutions whose answer was not used up yet, oldest first."""
        rows = self._store.query(
            "SELECT record FROM gates WHERE subject_type IN ('action', 'evolution') AND consumed = 0 "
            "AND state = 'resolved' AND json_extract(record, '$.resolved_by') = 'approve' ORDER BY created_at, id"
        )
        return [_read(row["record"], GateRecord) for row in rows]

    def of_run(self, run_id: str) -> list[GateRecord]:
        """Return the gates that a round has opened, oldest first."""
        rows = self._store.query(
            "SELECT record FROM gates WHERE json_extract(record, '$.run_id') = ? ORDER BY created_at, id", (run_id,)
        )
        return [_read(row["record"], GateRecord) for row in rows]

    # Rejections

    def rejected(self, session_id: str) -> set[str]:
        """Return the contents that the user has rejected in a session."""
        rows = self._store.query("SELECT content FROM gate_rejections WHERE session_id = ?", (session_id,))
        return {row["content"] for row in rows}

    def remember_rejections(self, session_id: str, contents: Iterable[str], connection: sqlite3.Connection) -> None:
        """Remember rejected contents."""
        connection.executemany(
            "INSERT OR IGNORE INTO gate_rejections VALUES (?, ?)", [(session_id, content) for content in contents]
        )

    # Applications

    def begin(self, application: Application) -> Application:
        """Journal what is about to happen, safe from a power cut, and return it with its number."""
        self.version += 1
        body = self._body(application, durable=True)
        with self._store.transaction(durable=True) as connection:
            row = connection.execute(
                "INSERT INTO gate_applications (gate_id, state, body) VALUES (?, 'begun', ?) RETURNING id",
                (application.gate_id, body),
            ).fetchone()
        return evolve(application, id=row["id"], state="begun")

    def update(self, application: Application, connection: sqlite3.Connection) -> None:
        """Write an application's state and steps as they are now."""
        self.version += 1
        connection.execute(
            "UPDATE gate_applications SET state = ?, body = ? WHERE id = ?",
            (application.state, self._body(application), application.id),
        )

    def applications(self, *, gate_id: str | None = None, state: str) -> list[Application]:
        """Return the applications in a state, oldest first; only a gate's, if one is given."""
        rows = self._store.query(
            "SELECT * FROM gate_applications WHERE state = ? AND (? IS NULL OR gate_id = ?) ORDER BY id",
            (state, gate_id, gate_id),
        )
        return [self._application(row) for row in rows]

    # Retention

    def forget(self, session_ids: Collection[str]) -> list[str]:
        """Remove everything about some sessions, and return the ids of the gates that went."""
        gone: list[str] = []
        self.version += 1
        with self._store.transaction() as connection:
            for session_id in session_ids:
                rows = connection.execute("DELETE FROM gates WHERE session_id = ? RETURNING id", (session_id,))
                gone += [row["id"] for row in rows.fetchall()]
                connection.execute("DELETE FROM gate_rejections WHERE session_id = ?", (session_id,))
        return gone

    def blobs(self) -> set[str]:
        """Return the digests of all images that a gate still needs."""
        changes = [json.loads(row["change"]) for row in self._store.query("SELECT change FROM gate_files")]
        bodies = [json.loads(row["body"]) for row in self._store.query("SELECT body FROM gate_applications")]
        images = [change[side] for change in changes for side in ("pre", "post")]
        images += [step[side] for body in bodies for step in body["steps"] for side in ("before", "after")]
        return {image for image in images if image is not None}

    # Images lie beside the database, by their digests.

    def _put(self, data: bytes | None, *, durable: bool = False) -> str | None:
        return None if data is None else self._store.put_blob(data, durable=durable)

    def _get(self, digest: str | None) -> bytes | None:
        return None if digest is None else self._store.blob(digest)

    def _plain(self, change: FileChange) -> dict[str, Any]:
        plain = asdict(change, filter=lambda attribute, _: attribute.name not in ("pre", "post"))
        return {**plain, "pre": self._put(change.pre), "post": self._put(change.post)}

    def _change(self, plain: dict[str, Any]) -> FileChange:
        values: dict[str, Any] = {**plain, "hunks": tuple(Hunk(**hunk) for hunk in plain["hunks"])}
        values |= {side: self._get(plain[side]) for side in ("pre", "post")}
        return FileChange(**values)

    def _body(self, application: Application, *, durable: bool = False) -> str:
        steps = [
            {
                **asdict(step, filter=lambda attribute, _: attribute.name not in ("before", "after")),
                "before": self._put(step.before, durable=durable),
                "after": self._put(step.after, durable=durable),
            }
            for step in application.steps
        ]
        kept = ("kind", "option_id", "comment", "key", "hunk_ids", "takes_back")
        return json.dumps({**{name: getattr(application, name) for name in kept}, "steps": steps})

    def _application(self, row: sqlite3.Row) -> Application:
        body = json.loads(row["body"])
        steps = []
        for step in body.pop("steps"):
            values: dict[str, Any] = {**step, "hunk_ids": tuple(step["hunk_ids"])}
            values |= {side: self._get(step[side]) for side in ("before", "after")}
            steps.append(Step(**values))
        body["hunk_ids"] = tuple(body["hunk_ids"])
        body["takes_back"] = tuple((number, path) for number, path in body["takes_back"])
        return Application(id=row["id"], gate_id=row["gate_id"], state=row["state"], steps=tuple(steps), **body)


def _write(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _read(text: str, kind: type[T]) -> T:
    return msgspec.json.decode(text, type=kind)
