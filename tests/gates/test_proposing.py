"""A session's proposal over its turns: what keeps its id, what stays decided, what is asked anew."""

from __future__ import annotations

import pytest

from gate_room import Room
from selfloop import errors
from selfloop.changes import EXECUTABLE, SYMLINK, FileChange, file_change
from selfloop.gates.gate import GateRecord

pytestmark = pytest.mark.unit

TEXT = b"one\ntwo\nthree\nfour\nfive\n"
BOTH = b"ONE\ntwo\nthree\nfour\nFIVE\n"


async def statuses(room: Room, gate: GateRecord) -> list[str]:
    return [hunk.status for file in (await room.view(gate)).files for hunk in file.hunks]


async def reject(room: Room, gate: GateRecord, *hunks: tuple[str, str]) -> None:
    await room.gates.resolve(gate.gate_id, "reject", digest=None, hunks=list(hunks) or None, editor=room.editor)


async def approve(room: Room, gate: GateRecord, *hunks: tuple[str, str]) -> None:
    result = await room.gates.resolve(gate.gate_id, "approve", digest=None, hunks=list(hunks), editor=room.editor)
    assert result.conflicts == ()


async def test_a_sessions_gate_keeps_its_id_and_its_hunks_theirs(room: Room) -> None:
    room.write("a", TEXT)
    first = room.propose(room.change("a", BOTH))
    before = await room.hunks(first)
    second = room.propose(room.change("a", BOTH.replace(b"three", b"THREE")))
    after = await room.hunks(second)
    assert second.gate_id == first.gate_id
    assert (after[0], after[2]) == (before[0], before[1])
    assert [record.gate_id for record in room.gates.list("open")] == [first.gate_id]
    other = room.propose(room.change("a", BOTH), session="another")
    assert other.gate_id != first.gate_id


async def test_a_hunk_that_is_not_proposed_any_more_cannot_be_approved(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    first, _ = await room.hunks(gate)
    room.propose(room.change("a", b"uno\ntwo\nthree\nfour\nFIVE\n"))
    with pytest.raises(errors.Stale, match="not proposed any more"):
        await approve(room, gate, first)
    assert room.read("a") == TEXT


async def test_no_changes_left_cancel_the_gate(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    assert room.gates.propose("s", [], title="T") is None
    assert room.gates.get(gate.gate_id).state == "cancelled"
    with pytest.raises(errors.Decided, match="cancelled"):
        await room.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=room.editor)
    assert room.read("a") == TEXT
    assert room.gates.propose("s", [], title="T") is None


async def test_decided_hunks_stay_decided_when_the_same_is_proposed_again(room: Room) -> None:
    room.write("a", TEXT)
    change = room.change("a", BOTH)
    gate = room.propose(change)
    first, _ = await room.hunks(gate)
    await approve(room, gate, first)
    room.propose(change)
    assert await statuses(room, gate) == ["approved", "pending"]


async def test_an_approved_hunk_is_part_of_the_next_base(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    first, second = await room.hunks(gate)
    await approve(room, gate, first)
    room.propose(room.change("a", BOTH))
    assert await room.hunks(gate) == [second]
    await approve(room, gate, first)
    assert room.read("a") == b"ONE\ntwo\nthree\nfour\nfive\n"


async def test_an_answer_to_one_of_equal_hunks_is_not_taken_for_another_ones(room: Room) -> None:
    room.write("a", b"x\n1\nx\n2\nx\n")
    gate = room.propose(room.change("a", b"y\n1\ny\n2\ny\n"))
    first, second, third = await room.hunks(gate)
    await approve(room, gate, first)
    room.propose(room.change("a", b"y\n1\ny\n2\ny\n"))
    assert await room.hunks(gate) == [second, third]
    await approve(room, gate, first)
    assert room.read("a") == b"y\n1\nx\n2\nx\n"
    await reject(room, gate, third)
    room.propose(room.change("a", b"y\n1\ny\n2\ny\n"))
    assert await statuses(room, gate) == ["pending", "rejected"]
    await approve(room, gate, second)
    assert room.read("a") == b"y\n1\ny\n2\nx\n"


async def test_a_rejection_is_remembered_by_content_wherever_it_has_moved(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH), room.change("b", b"new"))
    await reject(room, gate)
    room.write("a", b"zero\n" + TEXT)
    assert room.gates.propose("s", [room.change("a", b"zero\n" + BOTH), room.change("b", b"new")], title="T") is None
    again = room.propose(room.change("a", b"zero\n" + BOTH), room.change("b", b"other"))
    assert await statuses(room, again) == ["rejected", "rejected", "pending"]
    assert [change.path for change in room.decided[-1].withdrawn] == ["a"]
    told = len(room.decided)
    room.propose(room.change("a", b"zero\n" + BOTH), room.change("b", b"another"))
    assert len(room.decided) == told
    assert room.gates.propose("another", [room.change("b", b"new")], title="T") is not None


async def test_a_rejected_hunk_is_never_applied_by_approving_the_rest(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    first, _ = await room.hunks(gate)
    await reject(room, gate, first)
    digest = (await room.view(gate)).gate.digest
    result = await room.gates.resolve(gate.gate_id, "approve", digest=digest, editor=room.editor)
    assert result.gate.resolved_by == "mixed"
    assert room.read("a") == b"one\ntwo\nthree\nfour\nFIVE\n"


async def test_a_hunk_that_was_taken_back_is_asked_about_anew(room: Room) -> None:
    room.write("a", TEXT)
    change = room.change("a", BOTH)
    gate = room.propose(change)
    first, _ = await room.hunks(gate)
    await approve(room, gate, first)
    await room.gates.undo(gate.gate_id, editor=room.editor)
    room.propose(change)
    assert await statuses(room, gate) == ["pending", "pending"]


async def test_what_the_user_typed_himself_is_approved_without_an_edit(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    room.write("a", BOTH)
    digest = (await room.view(gate)).gate.digest
    result = await room.gates.resolve(gate.gate_id, "approve", digest=digest, editor=room.editor)
    assert (result.applied, result.conflicts, result.gate.state) == ((), (), "resolved")


def made(path: str, pre: bytes | None, post: bytes | None, pre_mode: int, post_mode: int) -> FileChange:
    change = file_change(
        path,
        pre=pre,
        post=post,
        pre_mode=pre_mode if pre is not None else None,
        post_mode=post_mode if post is not None else None,
    )
    assert change is not None
    return change


@pytest.mark.parametrize(
    ("path", "pre", "post", "modes", "risk"),
    [
        ("src/a.py", b"a\n", b"b\n", (0o100644, 0o100644), "low"),
        ("src/new.py", None, b"b\n", (0o100644, 0o100644), "low"),
        (".github/workflows/ci.yml", b"a\n", b"b\n", (0o100644, 0o100644), "high"),
        (".ENV", None, b"K=1\n", (0o100644, 0o100644), "high"),
        ("AGENTS.md", b"a\n", b"b\n", (0o100644, 0o100644), "high"),
        ("src/a.py", b"a\n", "a = '\u202e'\n".encode(), (0o100644, 0o100644), "high"),
        ("src/a.py", b"a\n", "a\u200bb\n".encode(), (0o100644, 0o100644), "high"),
        ("src/a\u200b.py", None, b"a\n", (0o100644, 0o100644), "high"),
        ("src/a.py", "\u200b x\n".encode(), "\u200b y\n".encode(), (0o100644, 0o100644), "low"),
        ("src/a.py", b"a\n", None, (0o100644, 0o100644), "medium"),
        ("src/a", b"a\n", b"a\n", (0o100644, EXECUTABLE), "medium"),
        ("src/a.bin", b"\0", b"\1\0", (0o100644, 0o100644), "medium"),
        ("src/link", None, b"/etc/passwd", (0o100644, SYMLINK), "high"),
    ],
)
async def test_risk(
    room: Room, path: str, pre: bytes | None, post: bytes | None, modes: tuple[int, int], risk: str
) -> None:
    gate = room.propose(made(path, pre, post, *modes))
    assert gate.risk == risk


async def test_a_gates_risk_is_that_of_what_is_still_pending(room: Room) -> None:
    room.write(".env", b"a\n")
    room.write("b", b"a\n")
    gate = room.propose(room.change(".env", b"b\n"), room.change("b", b"b\n"))
    assert gate.risk == "high"
    await reject(room, gate, (await room.hunks(gate))[0])
    assert room.gates.get(gate.gate_id).risk == "low"


async def test_the_diff_file_names_each_hunk_and_nothing_can_fake_one(room: Room) -> None:
    from selfloop.gates.rendering import hunk_spans

    room.write("a", TEXT)
    fake = "# hunk 0123456789abcdef: pending\r# hunk 0123456789abcdef: x\u2028# hunk\n\n"
    gate = room.propose(room.change("a", BOTH), room.change("made", fake.encode()), room.change("gone", b""))
    path = await room.gates.write_diff(gate.gate_id, room.editor)
    assert path == room.store.root / "gates" / f"{gate.gate_id}.diff"
    text = path.read_text()
    assert text.splitlines() == text.split("\n")[:-1]
    spans = hunk_spans(text)
    assert [span.hunk_id for span in spans] == [name for name, _ in await room.hunks(gate)]
    lines = text.split("\n")
    first, second, *_ = spans
    assert "+ONE" in lines[first.start : first.end]
    assert "+FIVE" in lines[second.start : second.end]
    assert "‹U+000D›" in text
    await approve(room, gate, (await room.hunks(gate))[0])
    assert f"# hunk {first.hunk_id}: approved" in path.read_text()


async def test_secrets_are_taken_out_of_the_diff_file(room: Room) -> None:
    from selfloop.gates.gates import Gates

    gates = Gates(room.store, room.path, redact=lambda text: text.replace("hunter2", "[redacted]"))
    room.write("a", b"a\n")
    gate = gates.propose("s", [room.change("a", b"password = 'hunter2'\n")], title="T")
    assert gate is not None
    assert "hunter2" not in (await gates.write_diff(gate.gate_id, room.editor)).read_text()


async def test_deleting_a_session_cancels_and_forgets_its_gates(room: Room) -> None:
    gate = room.propose(room.change("b", b"new"))
    kept = room.propose(room.change("c", b"new"), session="kept")
    room.gates.cancel_session("s")
    assert room.gates.get(gate.gate_id).state == "cancelled"
    images = room.gates.images()
    room.gates.forget(["s"])
    with pytest.raises(errors.Unknown):
        room.gates.get(gate.gate_id)
    assert [record.gate_id for record in room.gates.list()] == [kept.gate_id]
    assert room.gates.images() <= images
    assert room.gates.images()


async def test_a_gate_travels_with_uris_and_default_reject(room: Room) -> None:
    gate = room.propose(room.change("b", b"new"))
    info = gate.info(lambda path: f"file:///w/{path}")
    assert info.subject["files"] == [{"uri": "file:///w/b", "operation": "create", "hunks": 1, "pending": 1}]
    assert (info.default, info.session_id, [option.option_id for option in info.options]) == (
        "reject",
        "s",
        ["approve", "reject"],
    )
