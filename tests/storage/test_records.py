"""Trajectories and journals: what was acknowledged stays, whatever kills the writer or fills the disk."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.errors import StoreError
from selfloop.storage.journal import UpdateJournal
from selfloop.storage.trajectories import Event, Trajectory, read_events
from selfloop.updates import MessageChunk, Notice, Update, UpdateEnvelope, encoder

WRITER = """
import sys
from pathlib import Path
from selfloop.storage.journal import UpdateJournal
from selfloop.storage.trajectories import Trajectory
from selfloop.updates import MessageChunk
folder, size = Path(sys.argv[1]), int(sys.argv[2])
trajectory, journal = Trajectory.open(folder / "traj.jsonl"), UpdateJournal.open(folder / "updates.jsonl")
number = len(trajectory.events())
while True:
    trajectory.append("tool_result", {"number": number, "text": "x" * size}, durable=number % 7 == 0)
    print("t", number, flush=True)
    print("j", journal.append(MessageChunk(message_id="m", text="y" * size)).seq, flush=True)
    number += 1
"""


def notice(text: str) -> Update:
    return Notice(severity="info", text=text)


def texts(envelopes: list[UpdateEnvelope]) -> list[str]:
    return [envelope.update.text for envelope in envelopes if isinstance(envelope.update, Notice)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions" / "one" / "traj.jsonl"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_event_is_on_the_disk_when_append_returns(path: Path) -> None:
    trajectory = Trajectory.open(path)
    event = trajectory.append("user_input", {"text": "Grüße 😀\nline two\u2028"})
    assert json.loads(path.read_bytes()) == {"ts": event.ts, "kind": "user_input", "data": event.data}
    assert trajectory.events() == [event] == list(read_events(path))
    assert trajectory.repaired is None
    trajectory.close()


@given(tail=st.binary(min_size=1, max_size=300).filter(lambda tail: b"\n" not in tail))
def test_any_torn_tail_is_cut_off_and_the_next_append_destroys_nothing(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("torn") / "traj.jsonl"
    trajectory = Trajectory.open(path)
    first = trajectory.append("a", {"n": 1})
    trajectory.close()
    with path.open("ab") as file:
        file.write(tail)
    trajectory = Trajectory.open(path)
    assert trajectory.repaired is not None
    second = trajectory.append("b", {"n": 2})
    assert trajectory.events() == [first, second]
    assert path.read_bytes().endswith(b"\n")
    trajectory.close()


def test_every_cut_of_the_last_record_keeps_the_records_before_it(path: Path) -> None:
    trajectory = Trajectory.open(path)
    events = [trajectory.append("tool_call", {"arguments": '{"a": "ü"}', "n": n}) for n in range(3)]
    trajectory.close()
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole) + 1):
        path.write_bytes(whole[:cut])
        trajectory = Trajectory.open(path)
        # A record that lacks nothing but its newline is whole.
        kept = events if cut >= len(whole) - 1 else events[:2]
        assert trajectory.events() == kept
        assert (trajectory.repaired is None) == (cut in (last, len(whole)))
        added = trajectory.append("next", {})
        assert trajectory.events() == [*kept, added]
        trajectory.close()


def test_a_torn_tail_longer_than_a_block_is_cut_off(path: Path) -> None:
    trajectory = Trajectory.open(path)
    event = trajectory.append("a", {"text": "x" * 3_000_000})
    trajectory.close()
    with path.open("ab") as file:
        file.write(b'{"ts": "' + b"y" * 2_500_000)
    trajectory = Trajectory.open(path)
    assert trajectory.events() == [event]
    trajectory.close()


def test_a_reader_leaves_a_torn_tail_alone(path: Path) -> None:
    trajectory = Trajectory.open(path)
    event = trajectory.append("a", {})
    trajectory.close()
    with path.open("ab") as file:
        file.write(b'{"ts": "now", "ki')
    before = path.read_bytes()
    assert list(read_events(path)) == [event]
    assert path.read_bytes() == before


def test_a_spoilt_line_in_the_middle_hides_no_other(path: Path) -> None:
    trajectory = Trajectory.open(path)
    first = trajectory.append("a", {})
    with path.open("ab") as file:
        file.write(b'\0\0\0\n{"kind": 1}\nnull\n')
    last = trajectory.append("b", {})
    assert trajectory.events() == [first, last]
    trajectory.close()


def test_half_a_surrogate_pair_and_a_number_of_any_length_are_recorded(path: Path) -> None:
    trajectory = Trajectory.open(path)
    trajectory.append("llm_response", {"text": "half \ud83d pair", "number": 10**40})
    (event,) = trajectory.events()
    assert event.data == {"text": "half ? pair", "number": 10**40}
    trajectory.close()


def test_subscribers_hear_after_the_write_and_cannot_undo_it(path: Path) -> None:
    trajectory = Trajectory.open(path)
    heard: list[tuple[Event, int]] = []

    def failing(event: Event) -> None:
        raise ValueError("a subscriber's own fault")

    trajectory.subscribe(failing)
    stop = trajectory.subscribe(lambda event: heard.append((event, len(list(read_events(path))))))
    event = trajectory.append("a", {})
    stop()
    trajectory.append("b", {})
    assert heard == [(event, 1)]
    assert len(trajectory.events()) == 2
    trajectory.close()


def test_a_link_in_place_of_the_record_is_refused(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    path.symlink_to(elsewhere)
    with pytest.raises(StoreError):
        Trajectory.open(path)
    assert elsewhere.read_text() == "mine"


def test_a_full_disk_is_said_and_leaves_whole_records(tiny_disk: Path) -> None:
    trajectory = Trajectory.open(tiny_disk / "traj.jsonl")
    journal = UpdateJournal.open(tiny_disk / "updates.jsonl")
    events = [trajectory.append("a", {"text": "x" * 9_000}) for _ in range(5)]
    journal.append(notice("kept"))
    with pytest.raises(StoreError, match="disk is full"):
        trajectory.append("a", {"text": "x" * 60_000})
    with pytest.raises(StoreError, match="disk is full"):
        journal.append(notice("y" * 60_000))
    assert trajectory.events() == events
    assert journal.last_seq == 1
    # What fits is still taken, and takes the number that was not used.
    events.append(trajectory.append("b", {}))
    assert journal.append(notice("again")).seq == 2
    assert list(read_events(trajectory.path)) == events
    assert texts(journal.since(0)) == ["kept", "again"]
    trajectory.close()
    journal.close()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from selfloop.errors import StoreError
from selfloop.storage.trajectories import Trajectory
trajectory = Trajectory.open(Path(sys.argv[1]))
trajectory.append("a", {})
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
try:
    trajectory.append("big", {"text": "x" * 10_000}, durable=True)
except StoreError as error:
    print(error.message)
trajectory.append("b", {})
print([event.kind for event in trajectory.events()], trajectory.repaired)
"""


def test_a_short_write_is_taken_back(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    said, kinds = done.stdout.splitlines()
    assert "disk is full" in said
    assert kinds == "['a', 'b'] None"
    assert [event.kind for event in read_events(path)] == ["a", "b"]


@pytest.mark.parametrize("size", [20, 200_000])
def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path, size: int) -> None:
    chance = random.Random(size)
    acknowledged: dict[str, int] = {"t": -1, "j": 0}
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(size)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(chance.random() / 20)
        child.send_signal(signal.SIGKILL)
        for line in (first, *child.stdout.read().splitlines(keepends=True)):
            if line.endswith(b"\n"):
                kind, number = line.decode().split()
                acknowledged[kind] = int(number)
        child.wait()
        child.stdout.close()
        trajectory = Trajectory.open(tmp_path / "traj.jsonl")
        numbers = [event.data["number"] for event in trajectory.events()]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) in (acknowledged["t"] + 1, acknowledged["t"] + 2)
        trajectory.close()
        journal = UpdateJournal.open(tmp_path / "updates.jsonl")
        assert [envelope.seq for envelope in journal.since(0)] == list(range(1, journal.last_seq + 1))
        assert journal.last_seq in (acknowledged["j"], acknowledged["j"] + 1)
        journal.close()


def test_readers_beside_a_writer_only_ever_see_whole_records(path: Path) -> None:
    trajectory = Trajectory.open(path)
    trajectory.append("a", {"n": 0})
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            numbers = [event.data["n"] for event in read_events(path)]
            if numbers != list(range(len(numbers))):
                wrong.append(numbers)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(1, 400):
        trajectory.append("a", {"n": n, "text": "z" * (n * 13 % 3_000)})
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    trajectory.close()


# The journal


def test_seq_rises_by_one_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "updates.jsonl"
    journal = UpdateJournal.open(path)
    assert journal.last_seq == 0
    assert journal.since(0) == []
    assert journal.page() == ([], False)
    first = [journal.append(notice(str(n)), session_id="s").seq for n in range(3)]
    journal.close()
    journal = UpdateJournal.open(path)
    assert journal.last_seq == 3
    assert [*first, journal.append(notice("3"), session_id="s", run_id="r").seq] == [1, 2, 3, 4]
    assert [envelope.seq for envelope in journal.since(2)] == [3, 4]
    assert [envelope.seq for envelope in journal.since(0, limit=2)] == [1, 2]
    assert journal.since(4) == journal.since(99) == []
    assert journal.since(-5) == journal.since(0)
    assert journal.since(3)[0].run_id == "r"
    journal.close()


def test_pages_go_backwards_and_meet_without_gap(tmp_path: Path) -> None:
    journal = UpdateJournal.open(tmp_path / "updates.jsonl")
    for n in range(1, 24):
        journal.append(notice(str(n)))
    seen: list[int] = []
    before, more = None, True
    while more:
        page, more = journal.page(before, 5)
        seen = [envelope.seq for envelope in page] + seen
        before = page[0].seq
    assert seen == list(range(1, 24))
    assert journal.page(1, 5) == ([], False)
    assert journal.page(-3, 5) == ([], False)
    assert [envelope.seq for envelope in journal.page(999, 0)[0]] == [23]
    journal.close()


@pytest.mark.parametrize("tail", [b"", b'{"seq":4,"at":"now","upd', b"\xff\xfe"])
def test_a_torn_update_is_cut_off_and_its_number_used_again(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "updates.jsonl"
    journal = UpdateJournal.open(path)
    for n in range(3):
        journal.append(notice(str(n)))
    journal.close()
    with path.open("ab") as file:
        file.write(tail)
    journal = UpdateJournal.open(path)
    assert (journal.repaired is None) == (tail == b"")
    assert journal.append(notice("3")).seq == 4
    assert texts(journal.since(0)) == ["0", "1", "2", "3"]
    journal.close()


def test_a_journal_that_was_changed_by_hand_is_read_by_its_own_numbers(tmp_path: Path) -> None:
    path = tmp_path / "updates.jsonl"
    lines = [encoder.encode(UpdateEnvelope(seq=seq, at="now", update=notice(str(seq)))) for seq in (3, 4, 7, 9)]
    path.write_bytes(b"\n".join((lines[0], b"spoilt", *lines[1:], lines[0], b"")))
    journal = UpdateJournal.open(path)
    assert journal.last_seq == 9
    assert texts(journal.since(4)) == ["7", "9"]
    assert texts(journal.page(9, 2)[0]) == ["4", "7"]
    assert journal.append(notice("next")).seq == 10
    assert texts(journal.since(7)) == ["9", "next"]
    journal.close()


def test_ten_thousand_updates_are_opened_and_paged_quickly(tmp_path: Path) -> None:
    path = tmp_path / "updates.jsonl"
    journal = UpdateJournal.open(path)
    started = time.process_time()
    for n in range(10_000):
        journal.append(MessageChunk(message_id=f"m{n}", text="some words of a message " * 4), session_id="s")
    appended = time.process_time()
    journal.close()
    opening = time.process_time()
    journal = UpdateJournal.open(path)
    paging = time.process_time()
    page, more = journal.page(None, 200)
    done = time.process_time()
    assert (len(page), more, page[-1].seq) == (200, True, 10_000)
    # Limits ten times above what was measured, so that only another order of growth trips them.
    assert appended - started < 5
    assert paging - opening < 0.5
    assert done - paging < 0.1
    journal.close()


def test_an_update_with_half_a_surrogate_pair_is_kept(tmp_path: Path) -> None:
    journal = UpdateJournal.open(tmp_path / "updates.jsonl")
    journal.append(notice("half \ud83d"))
    assert texts(journal.since(0)) == ["half ?"]
    journal.close()


def test_what_is_closed_takes_no_record_and_closing_twice_is_no_error(tmp_path: Path) -> None:
    trajectory = Trajectory.open(tmp_path / "traj.jsonl")
    trajectory.append("a", {})
    trajectory.close()
    trajectory.close()
    with pytest.raises(StoreError):
        trajectory.append("late", {})
    assert len(list(read_events(trajectory.path))) == 1
