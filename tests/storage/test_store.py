"""The store: whole transactions or none, damage set aside and said, and what is kept for how long."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from selfloop.config import Folders
from selfloop.errors import StoreError
from selfloop.messages import Usage
from selfloop.storage.sessions import UNTITLED, Sessions
from selfloop.storage.store import Store

TABLE = "CREATE TABLE things (a TEXT); -- a comment; with a semicolon\nCREATE INDEX by_a ON things (a);"


@pytest.fixture
def store(place: Path, folders: Folders) -> Iterator[Store]:
    opened = Store.open(place, folders, migrations=(TABLE,))
    yield opened
    opened.close()


def things(store: Store) -> list[str]:
    return [row["a"] for row in store.query("SELECT a FROM things ORDER BY rowid")]


# Transactions and schema


def test_a_transaction_that_raises_changes_nothing(store: Store) -> None:
    with pytest.raises(KeyError), store.transaction() as connection:
        connection.execute("INSERT INTO things VALUES ('lost')")
        raise KeyError
    with store.transaction(durable=True) as connection:
        connection.execute("INSERT INTO things VALUES ('kept')")
    assert things(store) == ["kept"]


def test_an_inner_transaction_can_fail_alone_and_is_lost_with_the_outer(store: Store) -> None:
    with store.transaction() as connection:
        connection.execute("INSERT INTO things VALUES ('outer')")
        with pytest.raises(KeyError), store.transaction() as inner:
            inner.execute("INSERT INTO things VALUES ('inner')")
            raise KeyError
    assert things(store) == ["outer"]
    with pytest.raises(KeyError), store.transaction():
        with store.transaction() as inner:
            inner.execute("INSERT INTO things VALUES ('inner')")
        raise KeyError
    assert things(store) == ["outer"]


def test_threads_take_turns(store: Store) -> None:
    def add(name: str) -> None:
        for n in range(30):
            with store.transaction() as connection:
                connection.execute("INSERT INTO things VALUES (?)", (f"{name}{n}",))

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(things(store)) == 120


def test_a_migration_runs_once_and_a_new_one_is_added(place: Path, folders: Folders) -> None:
    for migrations in ((), (TABLE,), (TABLE,), (TABLE, "ALTER TABLE things ADD COLUMN b TEXT")):
        store = Store.open(place, folders, migrations=migrations)
        assert store.notices == []
        store.create("CREATE TABLE IF NOT EXISTS more (x); CREATE TABLE IF NOT EXISTS most (y)")
        store.close()
    store = Store.open(place, folders)
    assert store.query("SELECT a, b FROM things") == []
    store.close()


def test_a_migration_that_fails_leaves_nothing_behind(place: Path, folders: Folders) -> None:
    with pytest.raises(StoreError, match="nothing was changed"):
        Store.open(place, folders, migrations=("CREATE TABLE half (a); CREATE TABLE broken (;",))
    store = Store.open(place, folders)
    assert store.query("SELECT 1 FROM sqlite_schema WHERE name = 'half'") == []
    store.close()


def test_a_store_of_a_newer_selfloop_is_not_opened_and_not_changed(place: Path, folders: Folders) -> None:
    Store.open(place, folders).close()
    path = place / ".evo" / "store.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer Selfloop"):
        Store.open(place, folders)
    assert path.read_bytes() == before


def test_a_constraint_stays_an_error_of_the_caller(store: Store) -> None:
    store.create("CREATE TABLE one (a TEXT PRIMARY KEY)")
    with pytest.raises(sqlite3.IntegrityError), store.transaction() as connection:
        connection.execute("INSERT INTO one VALUES ('x')")
        connection.execute("INSERT INTO one VALUES ('x')")
    assert store.query("SELECT * FROM one") == []


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.query("SELECT 1")


def test_a_store_in_use_says_so(store: Store) -> None:
    other = sqlite3.connect(store.root / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="in use by another process"):
        store.create("CREATE TABLE late (a)")
    other.close()
    store.create("CREATE TABLE late (a)")


# Damage


Damage = Callable[[Path], None]


def spoil_header(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)


def spoil_middle(path: Path) -> None:
    with path.open("r+b") as file:
        for at in range(4_096, path.stat().st_size, 4_096):
            file.seek(at)
            file.write(os.urandom(512))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4_096 * 4_096)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [spoil_header, spoil_middle, cut])
def test_a_damaged_store_is_set_aside_and_its_sessions_are_found_again(
    place: Path, folders: Folders, damage: Damage
) -> None:
    store = Store.open(place, folders)
    sessions = Sessions(store)
    first, second = sessions.create(), sessions.create()
    trajectory = sessions.trajectory(first.id)
    begun = trajectory.append("session_start", {})
    trajectory.append("user_input", {"text": "Add a\ngreeting"})
    ended = trajectory.append("llm_response", {"text": "done"})
    trajectory.close()
    store.close()
    path = place / ".evo" / "store.db"
    damage(path)
    spoilt = path.read_bytes()
    store = Store.open(place, folders)
    (notice,) = store.notices
    assert "damaged" in notice
    assert "Sessions are listed again" in notice
    found = {record.id: record for record in Sessions(store).list()}
    assert set(found) == {first.id, second.id}
    assert found[first.id].title == "Add a greeting"
    assert (found[first.id].created_at, found[first.id].updated_at) == (begun.ts, ended.ts)
    assert found[second.id].title == UNTITLED
    (aside,) = (place / ".evo").glob("broken-*")
    assert (aside / "store.db").read_bytes() == spoilt
    store.close()
    store = Store.open(place, folders)
    assert store.notices == []
    assert len(Sessions(store).list()) == 2
    store.close()


@pytest.mark.parametrize("damage", [empty, Path.unlink])
def test_a_store_that_was_removed_is_made_anew_from_the_trajectories(
    place: Path, folders: Folders, damage: Damage
) -> None:
    store = Store.open(place, folders)
    session = Sessions(store).create()
    store.close()
    damage(place / ".evo" / "store.db")
    store = Store.open(place, folders)
    assert [record.id for record in Sessions(store).list()] == [session.id]
    store.close()


def test_damage_under_an_open_store_is_a_sentence(store: Store) -> None:
    with store.transaction() as connection:
        connection.executemany("INSERT INTO things VALUES (?)", [("x" * 3_000,)] * 200)
    store.query("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil_middle(store.root / "store.db")
    store.query("PRAGMA shrink_memory")
    with pytest.raises(StoreError, match="damaged"):
        for _ in range(3):
            store.query("SELECT * FROM things ORDER BY a || 'y'")
            store.query("PRAGMA integrity_check")
            store.query("SELECT count(*), max(length(a)) FROM things NOT INDEXED")
            with store.transaction() as connection:
                connection.execute("DELETE FROM things")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_full_disk_is_said_and_the_store_goes_on_when_there_is_space(tmp_path: Path, folders: Folders) -> None:
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        store = Store.open(place, folders, migrations=(TABLE,))
        session = Sessions(store).create()
        (place / "big").write_bytes(b"x" * 300_000)
        with pytest.raises(StoreError, match="disk is full"):
            for n in range(1_000):
                with store.transaction() as connection:
                    connection.execute("INSERT INTO things VALUES (?)", (f"{n:05}" + "x" * 5_000,))
        kept = things(store)
        assert [thing[:5] for thing in kept] == [f"{n:05}" for n in range(len(kept))]
        with pytest.raises(StoreError, match="disk is full"):
            store.put_blob(os.urandom(400_000))
        assert not list(store.root.glob("blobs/*/.tmp-*"))
        (place / "big").unlink()
        with store.transaction() as connection:
            connection.execute("INSERT INTO things VALUES ('later')")
        store.close()
        store = Store.open(place, folders)
        assert store.notices == []
        assert things(store) == [*kept, "later"]
        assert Sessions(store).get(session.id) == session
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_no_space_for_a_new_store_is_said(tmp_path: Path, folders: Folders) -> None:
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        with pytest.raises(StoreError, match="disk is full"):
            Store.open(place, folders)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


WRITER = """
import sys
from pathlib import Path
from selfloop.config import Folders
from selfloop.messages import Usage
from selfloop.storage.sessions import Sessions
from selfloop.storage.store import Store
base = Path(sys.argv[1])
store = Store.open(base / "place", Folders(base / "data", base / "cache", base / "config"))
sessions = Sessions(store)
assert not store.notices, store.notices
n = 0
while True:
    session = sessions.create(key=f"{sys.argv[2]}-{n}")
    print(session.id, f"{sys.argv[2]}-{n}", flush=True)
    store.add_spend("all", Usage(1, 0, 1), day="2026-01-31")
    print("spent", flush=True)
    store.put_blob(f"{session.id}".encode() * 5_000)
    sessions.set_state(session.id, n=n)
    n += 1
"""


def test_kill_9_at_any_moment_keeps_what_was_acknowledged(tmp_path: Path, place: Path, folders: Folders) -> None:
    chance = random.Random(5)
    created: list[str] = []
    keys: list[str] = []
    spent = 0
    for run in range(10):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(run)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(chance.random() / 15)
        child.send_signal(signal.SIGKILL)
        for line in (first, *child.stdout.read().splitlines(keepends=True)):
            if line == b"spent\n":
                spent += 1
            elif line.endswith(b"\n"):
                created.append(line.decode().split()[0])
                keys.append(line.decode().split()[1])
        child.wait()
        child.stdout.close()
    store = Store.open(place, folders)
    assert store.notices == []
    listed = {record.id for record in Sessions(store).list()}
    assert set(created) <= listed
    assert len(listed) <= len(created) + 10
    assert store.outcomes([*keys, "never"]) == set(keys)
    assert spent <= store.spend().input_tokens <= spent + 10
    for path in store.root.glob("blobs/??/[!.]*"):
        assert store.blob(path.name)
    store.close()


# Images, outcomes, spend


def test_an_image_is_kept_by_its_content(store: Store) -> None:
    data = bytes(range(256)) * 10
    digest = store.put_blob(data)
    assert store.put_blob(data, durable=True) == digest
    assert store.blob(digest) == data
    assert store.blob(store.put_blob(b"")) == b""


def test_a_damaged_or_missing_image_is_not_returned(store: Store) -> None:
    digest = store.put_blob(b"right")
    path = store.root / "blobs" / digest[:2] / digest
    path.write_bytes(b"wrong")
    with pytest.raises(StoreError, match="damaged"):
        store.blob(digest)
    path.write_bytes(b"torn by a power cut")
    assert store.blob(store.put_blob(b"right")) == b"right"
    path.unlink()
    with pytest.raises(StoreError, match="could not be read"):
        store.blob(digest)
    with pytest.raises(StoreError, match="names no kept image"):
        store.blob("../../owner")


def test_an_outcome_is_noted_with_the_change_or_not_at_all(store: Store) -> None:
    with pytest.raises(KeyError), store.transaction() as connection:
        store.note_outcome("7-1", connection)
        raise KeyError
    with store.transaction() as connection:
        store.note_outcome("7-2", connection)
        store.note_outcome("7-2", connection)
        store.note_outcome(None, connection)
    store.note_outcome("7-3")
    assert store.outcomes(["7-1", "7-2", "7-3", "7-4"]) == {"7-2", "7-3"}


def test_spend_adds_up_for_each_day_and_session(store: Store) -> None:
    store.add_spend("a", Usage(10, 4, 2, None), day="2026-01-30")
    store.add_spend("a", Usage(1, 0, 1, 0.5), day="2026-01-31")
    store.add_spend("a", Usage(1, 0, 1, None), day="2026-01-31")
    store.add_spend("b", Usage(5, 0, 5, 0.25), day="2026-01-31")
    assert store.spend() == Usage(17, 4, 9, 0.75)
    assert store.spend(session_id="a") == Usage(12, 4, 4, 0.5)
    assert store.spend(since="2026-01-31") == Usage(7, 0, 7, 0.75)
    assert [(row.day, row.session_id) for row in store.spend_rows()] == [
        ("2026-01-31", "a"), ("2026-01-31", "b"), ("2026-01-30", "a"),
    ]  # fmt: skip
    store.add_spend("a", Usage(1, 0, 0))
    assert store.spend_rows(since=(datetime.now(UTC) - timedelta(days=2)).date().isoformat())[0].usage.input_tokens == 1
