"""Sessions: what is listed, found again, deleted and pruned."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from selfloop.config import Folders
from selfloop.errors import InvalidInput, StoreError, Unknown
from selfloop.messages import Usage
from selfloop.storage.sessions import Sessions
from selfloop.storage.store import Store


@pytest.fixture
def store(place: Path, folders: Folders) -> Iterator[Store]:
    opened = Store.open(place, folders)
    yield opened
    opened.close()


def test_what_each_look_at_the_status_asks_is_counted_without_reading_every_session(store: Store) -> None:
    sessions = Sessions(store)
    ids = [sessions.create().id for _ in range(4)]
    sessions.set_state(ids[0], running=True)
    sessions.set_state(ids[1], run="run-1", running=True)
    sessions.set_state(ids[2], running=True)
    sessions.set_state(ids[2], running=None)
    assert sessions.count() == len(sessions.list()) == 3, "the session of a round is none of them"
    assert sessions.running() == [ids[0]]
    store.add_spend(ids[0], Usage(3, 1, 2, 0.5))
    store.add_spend(ids[3], Usage(4, 0, 1))
    assert store.spend() == Usage(7, 1, 3, 0.5)
    assert store.spend(session_id=ids[3]) == Usage(4, 0, 1) and store.spend(since="9999-01-01") == Usage()


def test_sessions_are_listed_by_their_last_use(store: Store) -> None:
    sessions = Sessions(store)
    first = sessions.create(key="1-1")
    time.sleep(0.002)
    second = sessions.create(title="Second")
    assert [record.id for record in sessions.list()] == [second.id, first.id]
    assert first.id < second.id
    time.sleep(0.002)
    sessions.touch(first.id, title="  What\tI want\x07\n")
    sessions.touch(first.id, title="not again")
    assert [record.title for record in sessions.list()] == ["What I want", "Second"]
    assert sessions.rename(second.id, "x" * 500).title == "x" * 119 + "…"
    store.add_spend(first.id, Usage(3, 1, 2, 0.5))
    assert (sessions.get(first.id).input_tokens, sessions.get(first.id).cost_usd) == (3, 0.5)
    assert store.outcomes(["1-1"]) == {"1-1"}
    with pytest.raises(InvalidInput):
        sessions.rename(second.id, " \n ")


@pytest.mark.parametrize("name", ["", "../../etc", "20260101T000000000-00000000", "\ud800", "a\0b", "' OR 1=1 --"])
def test_an_unknown_session_is_said_everywhere(store: Store, name: str) -> None:
    sessions = Sessions(store)
    for ask in (sessions.get, sessions.delete, sessions.touch, sessions.state):
        with pytest.raises(Unknown, match="selfloop/session/list") as caught:
            ask(name)
        assert caught.value.reason == "unknownSession"
    with pytest.raises(Unknown):
        sessions.rename(name, "x")
    with pytest.raises(Unknown):
        sessions.set_state(name, a=1)
    if not name.startswith("2026"):
        with pytest.raises(Unknown):
            sessions.trajectory(name)


def test_state_is_merged_and_survives(place: Path, folders: Folders) -> None:
    store = Store.open(place, folders)
    sessions = Sessions(store)
    session = sessions.create()
    sessions.set_state(session.id, task=1, worktree="w")
    sessions.set_state(session.id, task=2, queued=[{"text": "Grüße 😀"}], worktree=None)
    store.close()
    store = Store.open(place, folders)
    assert Sessions(store).state(session.id) == {"task": 2, "queued": [{"text": "Grüße 😀"}]}
    store.close()


def test_a_deleted_session_leaves_nothing_but_its_spend(store: Store) -> None:
    sessions = Sessions(store)
    session = sessions.create()
    trajectory = sessions.trajectory(session.id)
    trajectory.append("a", {})
    (sessions.outputs(session.id) / "task_1").mkdir(parents=True)
    store.add_spend(session.id, Usage(1, 0, 1))
    sessions.delete(session.id, key="2-1")
    assert sessions.list() == []
    assert not sessions.folder(session.id).exists()
    assert not sessions.outputs(session.id).exists()
    assert store.spend().input_tokens == 1
    assert store.outcomes(["2-1"]) == {"2-1"}
    trajectory.append("a turn that still ends", {})
    trajectory.close()


def test_old_sessions_are_pruned_but_not_those_with_an_open_gate(store: Store) -> None:
    sessions = Sessions(store)
    old, gated, new = (sessions.create() for _ in range(3))
    long_ago = datetime.now(UTC) - timedelta(days=100)
    with store.transaction() as connection:
        for session in (old, gated):
            connection.execute("UPDATE sessions SET updated_at = ? WHERE id = ?", (long_ago.isoformat(), session.id))
    orphan = store.root / "outputs" / "20200101T000000000-00000000"
    (orphan / "task_1").mkdir(parents=True)
    used, unused, young = (store.put_blob(text) for text in (b"used", b"unused", b"young"))
    leftover = store.root / "blobs" / used[:2] / ".tmp-0123"
    leftover.write_bytes(b"half")
    for path in (orphan, leftover, *(store.root / "blobs" / digest[:2] / digest for digest in (used, unused))):
        os.utime(path, (long_ago.timestamp(), long_ago.timestamp()))
    assert store.prune(90, keep={gated.id}) == [old.id]
    assert {record.id for record in sessions.list()} == {gated.id, new.id}
    assert not sessions.folder(old.id).exists()
    assert not orphan.exists()
    assert not leftover.exists()
    assert store.blob(unused) == b"unused"
    assert store.prune(90, keep={gated.id}, blobs={used}) == []
    assert store.blob(used) == b"used"
    assert store.blob(young) == b"young"
    with pytest.raises(StoreError):
        store.blob(unused)
