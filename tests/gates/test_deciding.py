"""Gates on changes: what is asked, what is answered, and what then stands in the user's files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gate_room import Room
from selfloop import errors
from selfloop.changes import EXECUTABLE
from selfloop.gates.editor import ApplyOutcome, BufferEdit
from selfloop.gates.gate import EvidenceItem
from small_editor import SmallEditor

pytestmark = pytest.mark.unit

TEXT = b"one\ntwo\nthree\nfour\nfive\n"
BOTH = b"ONE\ntwo\nthree\nfour\nFIVE\n"


async def approve(room: Room, gate_id: str, hunks: list[tuple[str, str]] | None = None, key: str | None = None):
    digest = None if hunks is not None else (await room.gates.read(gate_id, room.editor)).gate.digest
    return await room.gates.resolve(gate_id, "approve", digest=digest, hunks=hunks, editor=room.editor, key=key)


async def test_nothing_is_touched_before_an_approval(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH), room.change("new/b", b"x"))
    await room.view(gate)
    assert room.read("a") == TEXT
    assert not (room.path / "new").exists()


async def test_an_approved_gate_changes_closed_files_on_the_disk(room: Room) -> None:
    room.write("a", TEXT, EXECUTABLE)
    gate = room.propose(room.change("a", BOTH), room.change("new/b", b"x"))
    result = await approve(room, gate.gate_id, key="k1")
    assert (room.read("a"), room.read("new/b")) == (BOTH, b"x")
    assert (room.path / "a").stat().st_mode & 0o111
    assert (result.applied, result.conflicts) == (("a", "new/b"), ())
    assert (result.gate.state, result.gate.resolved_by) == ("resolved", "approve")
    assert room.store.outcomes(["k1", "k2"]) == {"k1"}
    assert room.published[-1].state == "resolved"


async def test_an_approved_gate_changes_open_documents_by_one_edit_and_not_the_disk(room: Room) -> None:
    for name in ("a", "b"):
        room.write(name, TEXT)
        room.editor.open(name)
    gate = room.propose(room.change("a", BOTH), room.change("b", BOTH))
    await approve(room, gate.gate_id)
    assert room.editor.text("a") == room.editor.text("b") == BOTH.decode()
    assert room.read("a") == TEXT
    assert len(room.editor.applied) == 1
    assert all(edit.version == 1 for edit in room.editor.applied[0])


async def test_hunks_are_decided_one_by_one_and_the_gate_stays_open_until_the_last(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    first, second = await room.hunks(gate)
    result = await approve(room, gate.gate_id, [first])
    assert result.gate.state == "open"
    assert room.read("a") == b"ONE\ntwo\nthree\nfour\nfive\n"
    statuses = [hunk.status for hunk in (await room.view(gate)).files[0].hunks]
    assert statuses == ["approved", "pending"]
    done = await room.gates.resolve(gate.gate_id, "reject", digest=None, hunks=[second], editor=room.editor)
    assert (done.gate.state, done.gate.resolved_by) == ("resolved", "mixed")
    assert room.read("a") == b"ONE\ntwo\nthree\nfour\nfive\n"


async def test_typing_elsewhere_and_a_second_quick_click_never_fail(room: Room) -> None:
    room.write("a", TEXT)
    room.editor.open("a")
    gate = room.propose(room.change("a", BOTH))
    first, second = await room.hunks(gate)
    room.editor.type("a", "zero\n" + TEXT.decode().replace("three", "3"))
    one, two = await asyncio.gather(approve(room, gate.gate_id, [first]), approve(room, gate.gate_id, [second]))
    assert not one.conflicts
    assert not two.conflicts
    assert room.editor.text("a") == "zero\nONE\ntwo\n3\nfour\nFIVE\n"


async def test_the_gates_digest_covers_what_would_be_carried_out_now(room: Room) -> None:
    room.write("a", TEXT)
    room.editor.open("a")
    gate = room.propose(room.change("a", BOTH))
    shown = (await room.view(gate)).gate.digest
    assert shown == gate.digest
    room.editor.type("a", "zero\n" + TEXT.decode())
    with pytest.raises(errors.Stale):
        await room.gates.resolve(gate.gate_id, "approve", digest=shown, editor=room.editor)
    assert room.editor.text("a") == "zero\n" + TEXT.decode()
    now = (await room.view(gate)).gate.digest
    assert now != shown
    await room.gates.resolve(gate.gate_id, "approve", digest=now, editor=room.editor)
    assert room.editor.text("a") == "zero\n" + BOTH.decode()


async def test_a_wrong_hunk_digest_is_refused_and_nothing_happens(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    (first, _), (_, other) = await room.hunks(gate)
    with pytest.raises(errors.Stale):
        await approve(room, gate.gate_id, [(first, "0" * 64)])
    assert room.read("a") == TEXT
    assert other


async def test_one_conflict_among_the_chosen_applies_nothing_and_the_rest_stays_pending(room: Room) -> None:
    for name in ("a", "b"):
        room.write(name, TEXT)
    gate = room.propose(room.change("a", BOTH), room.change("b", BOTH))
    room.write("b", TEXT.replace(b"five", b"5"))
    result = await approve(room, gate.gate_id)
    assert result.applied == ()
    assert [path for path, _ in result.conflicts] == ["b"]
    assert (room.read("a"), room.read("b")) == (TEXT, TEXT.replace(b"five", b"5"))
    statuses = [[hunk.status for hunk in file.hunks] for file in (await room.view(gate)).files]
    assert statuses == [["pending", "pending"], ["pending", "stale"]]
    assert (await room.view(gate)).files[1].hunks[1].reason
    assert result.gate.state == "open"


async def test_the_same_answer_again_changes_nothing_and_another_one_is_refused(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    shown = gate.digest
    first = await room.gates.resolve(gate.gate_id, "approve", digest=shown, editor=room.editor)
    room.write("a", b"mine\n")
    again = await room.gates.resolve(gate.gate_id, "approve", digest="0" * 64, editor=room.editor)
    assert again == first
    assert room.read("a") == b"mine\n"
    with pytest.raises(errors.Decided, match="approve"):
        await room.gates.resolve(gate.gate_id, "reject", digest=shown, editor=room.editor)


async def test_the_first_answer_for_a_hunk_wins(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    first, _ = await room.hunks(gate)
    await room.gates.resolve(gate.gate_id, "reject", digest=None, hunks=[first], editor=room.editor)
    await room.gates.resolve(gate.gate_id, "reject", digest=None, hunks=[(first[0], "any")], editor=room.editor)
    with pytest.raises(errors.Decided, match="rejected"):
        await approve(room, gate.gate_id, [first])
    assert room.read("a") == TEXT


async def test_unknown_gates_options_and_hunks_are_named(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    with pytest.raises(errors.Unknown) as gone:
        await approve(room, "gate-x")
    assert gone.value.reason == "unknownGate"
    with pytest.raises(errors.Unknown) as option:
        await room.gates.resolve(gate.gate_id, "always", digest=gate.digest, editor=room.editor)
    assert option.value.reason == "unknownOption"
    with pytest.raises(errors.Unknown):
        await approve(room, gate.gate_id, [("0" * 16, "0" * 64)])
    with pytest.raises(errors.InvalidInput):
        await approve(room, gate.gate_id, [])
    with pytest.raises(errors.InvalidInput):
        await room.gates.resolve(gate.gate_id, "approve", digest=None, editor=room.editor)
    assert room.read("a") == TEXT


async def test_when_the_editor_refuses_everything_stays_pending_and_the_disk_as_it_was(room: Room) -> None:
    for name in ("a", "b"):
        room.write(name, TEXT)
    room.editor.open("a")
    gate = room.propose(room.change("a", BOTH), room.change("b", BOTH))
    room.editor.refuse = "the user said no"
    result = await approve(room, gate.gate_id)
    assert result.applied == ()
    assert "the user said no" in result.conflicts[0][1]
    assert (room.read("b"), room.editor.text("a")) == (TEXT, TEXT.decode())
    assert result.gate.state == "open"
    room.editor.refuse = ""
    assert (await approve(room, gate.gate_id)).applied == ("a", "b")


async def test_when_the_disk_refuses_the_editors_part_is_taken_back(room: Room) -> None:
    room.write("a", TEXT)
    room.write("c", TEXT)
    room.editor.open("a")
    gate = room.propose(room.change("a", BOTH), room.change("c", BOTH), room.change("d/e", b"x"))
    (room.path / "d").write_text("a file where a folder must be")
    digest = (await room.view(gate)).gate.digest
    result = await room.gates.resolve(gate.gate_id, "approve", digest=digest, editor=room.editor)
    assert result.applied == ()
    assert result.conflicts[0][0] == "d/e"
    assert (room.read("c"), room.editor.text("a")) == (TEXT, TEXT.decode())


async def test_a_document_that_is_dirty_in_two_windows_is_stale(room: Room) -> None:
    room.write("a", TEXT)
    room.editor.open("a")
    gate = room.propose(room.change("a", BOTH))
    room.editor.torn.add("a")
    result = await approve(room, gate.gate_id)
    assert "two windows" in result.conflicts[0][1]
    assert room.read("a") == TEXT


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize(
    ("pre", "post"),
    [
        (b"a\r\nb\r\nc\r\n", b"a\r\nB\r\nc\r\n"),
        (b"\xef\xbb\xbfa\nb\n", b"\xef\xbb\xbfA\nb\n"),
        (b"a\nb", b"a\nb\nc"),
        (b"a\nb\n", b"a\nb"),
        ("𝒳\u2028y\nb\n".encode(), "𝒳\u2028Y\nb\n".encode()),
        (b"", b"text\n"),
        (b"text\n", b""),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"\xef\xbb\xbfa\n", b"a\n"),
        (b"a\n", b"\xef\xbb\xbfa\n"),
        (b"a\nb\n", b"a\rx\nb\n"),
        (b"a\r\nb\r\n", b"a\r\nnew\nb\r\n"),
    ],
)
async def test_bytes_come_out_exactly(room: Room, pre: bytes, post: bytes, is_open: bool) -> None:
    room.write("a", pre)
    if is_open:
        room.editor.open("a")
    gate = room.propose(room.change("a", post))
    result = await approve(room, gate.gate_id)
    assert result.conflicts == ()
    if is_open and room.read("a") == pre:
        room.editor.save("a")
    assert room.read("a") == post


async def test_what_an_editor_cannot_take_is_a_conflict_while_the_document_is_unsaved(room: Room) -> None:
    room.write("a", b"a\nb\nc\n")
    room.editor.open("a")
    gate = room.propose(room.change("a", b"a\r\nb\r\nc\r\n"))
    room.editor.type("a", "a\nb\nc\nmine\n")
    result = await approve(room, gate.gate_id)
    assert "save it" in result.conflicts[0][1]
    assert room.read("a") == b"a\nb\nc\n"


async def test_creates_deletes_renames_modes_and_binaries_are_applied(room: Room) -> None:
    room.write("gone", TEXT)
    room.write("old", TEXT)
    room.write("run", b"#!\n")
    room.write("image", b"\0\1")
    gate = room.propose(
        room.change("made/here", b"new\n"),
        room.change("gone", None),
        room.change("new", BOTH, old_path="old"),
        room.change("run", b"#!\n", post_mode=EXECUTABLE),
        room.change("image", b"\0\2"),
    )
    result = await approve(room, gate.gate_id)
    assert result.conflicts == ()
    assert room.read("made/here") == b"new\n"
    assert room.read("gone") is None
    assert (room.read("old"), room.read("new")) == (None, BOTH)
    assert (room.path / "run").stat().st_mode & 0o100
    assert room.read("image") == b"\0\2"


async def test_a_renames_edits_can_be_approved_before_and_after_the_rename(room: Room) -> None:
    room.write("old", TEXT)
    gate = room.propose(room.change("new", BOTH, old_path="old"))
    rename, first, second = await room.hunks(gate)
    await approve(room, gate.gate_id, [first])
    assert room.read("old") == b"ONE\ntwo\nthree\nfour\nfive\n"
    await approve(room, gate.gate_id, [rename])
    assert room.read("old") is None
    await approve(room, gate.gate_id, [second])
    assert room.read("new") == BOTH


async def test_a_name_that_was_taken_meanwhile_is_not_overwritten(room: Room) -> None:
    room.write("old", TEXT)
    gate = room.propose(room.change("new", TEXT, old_path="old"), room.change("made", b"x"))
    room.write("new", b"mine")
    room.write("made", b"mine")
    result = await approve(room, gate.gate_id)
    assert {path for path, _ in result.conflicts} == {"new", "made"}
    assert (room.read("new"), room.read("made"), room.read("old")) == (b"mine", b"mine", TEXT)


async def test_deleting_an_open_document_with_other_unsaved_text_is_a_conflict(room: Room) -> None:
    room.write("a", TEXT)
    room.editor.open("a")
    gate = room.propose(room.change("a", None))
    room.editor.type("a", "mine\n")
    result = await approve(room, gate.gate_id)
    assert result.conflicts
    assert room.read("a") == TEXT
    room.editor.type("a", TEXT.decode())
    assert (await approve(room, gate.gate_id)).applied == ("a",)
    assert room.read("a") is None


async def test_a_link_that_took_the_files_place_is_not_followed(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    outside = room.home / "outside"
    outside.write_bytes(TEXT)
    (room.path / "a").unlink()
    (room.path / "a").symlink_to(outside)
    result = await approve(room, gate.gate_id)
    assert result.conflicts
    assert outside.read_bytes() == TEXT


async def test_an_approval_outlives_the_request_that_gave_it(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    task = asyncio.create_task(room.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=room.editor))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await room.gates.close()
    assert room.read("a") == BOTH
    assert room.gates.get(gate.gate_id).state == "resolved"


async def test_the_decision_tells_what_leaves_the_sessions_copy(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH), room.change("b", b"new"))
    (first, second), (created,) = (
        [(hunk.hunk_id, hunk.digest) for hunk in file.hunks] for file in (await room.view(gate)).files
    )
    await room.gates.resolve(
        gate.gate_id, "reject", digest=None, hunks=[second, created], comment="no", editor=room.editor
    )
    (decision,) = room.decided
    assert (decision.session_id, decision.option_id, decision.comment) == ("s", "reject", "no")
    by_path = {change.path: change for change in decision.withdrawn}
    assert (by_path["a"].pre, by_path["a"].post) == (BOTH, b"ONE\ntwo\nthree\nfour\nfive\n")
    assert by_path["b"].post is None
    await approve(room, gate.gate_id, [first])
    assert [change.path for change in room.decided[-1].approved] == ["a"]


async def test_evidence_is_shown_with_the_gate(room: Room) -> None:
    ran = EvidenceItem("tests", "pytest -q", 0, ".evo/outputs/s/1.txt")
    gate = room.gates.propose("s", [room.change("b", b"new")], title="T", evidence=[ran], turn_id="t")
    assert gate is not None
    assert (await room.view(gate)).evidence == (ran,)


async def test_an_open_gate_is_still_open_after_a_restart(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    first, second = await room.hunks(gate)
    await approve(room, gate.gate_id, [first])
    later = room.opened()
    assert [record.gate_id for record in later.list("open")] == [gate.gate_id]
    result = await later.resolve(gate.gate_id, "approve", digest=None, hunks=[first, second], editor=room.editor)
    assert result.gate.state == "resolved"
    assert room.read("a") == BOTH


async def test_of_two_answers_at_the_same_time_one_wins_and_the_other_is_told(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    answers = [
        room.gates.resolve(gate.gate_id, option, digest=gate.digest, editor=room.editor)
        for option in ("approve", "reject", "approve")
    ]
    first, second, third = await asyncio.gather(*answers, return_exceptions=True)
    assert isinstance(second, errors.Decided)
    assert first == third
    assert room.read("a") == BOTH


async def test_a_new_proposal_in_the_middle_of_an_answer_is_not_approved_with_it(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    answer = asyncio.create_task(room.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=room.editor))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    room.propose(room.change("a", b"evil\n"))
    with pytest.raises(errors.Stale):
        await answer
    assert room.read("a") == TEXT


async def test_a_create_reaches_a_path_that_an_editor_shows_as_an_empty_document(room: Room) -> None:
    room.editor.open("made")
    gate = room.propose(room.change("made", b"x\n"))
    assert (await approve(room, gate.gate_id)).conflicts == ()
    assert room.read("made") == b"x\n"


async def test_hunks_of_a_closed_gate_are_told_apart_from_unknown_ones(room: Room) -> None:
    room.write("a", TEXT)
    gate = room.propose(room.change("a", BOTH))
    first, _ = await room.hunks(gate)
    room.gates.cancel_session("s")
    with pytest.raises(errors.Decided, match="cancelled"):
        await approve(room, gate.gate_id, [first])
    assert room.read("a") == TEXT


class Hasty(SmallEditor):
    """An editor whose user types in the very moment of an edit."""

    left = 1
    typed = "zero\n"

    async def apply(self, edits: Sequence[BufferEdit], *, label: str, prefer: int | None) -> ApplyOutcome:
        if self.left:
            self.left -= 1
            self.type(edits[0].path, self.typed + self.text(edits[0].path))
        return await super().apply(edits, label=label, prefer=prefer)


async def test_typing_elsewhere_in_the_very_moment_does_not_stop_a_decision_on_hunks(room: Room) -> None:
    room.write("a", TEXT)
    room.editor = Hasty(room.path)
    room.editor.open("a")
    gate = room.propose(room.change("a", BOTH))
    result = await approve(room, gate.gate_id, await room.hunks(gate))
    assert result.conflicts == ()
    assert room.editor.text("a") == "zero\n" + BOTH.decode()


async def test_typing_in_the_very_moment_of_an_approval_of_the_whole_applies_nothing(room: Room) -> None:
    room.write("a", TEXT)
    room.editor = Hasty(room.path)
    room.editor.open("a")
    gate = room.propose(room.change("a", BOTH))
    result = await approve(room, gate.gate_id)
    assert result.applied == ()
    assert result.conflicts
    assert room.editor.text("a") == "zero\n" + TEXT.decode()
    assert (await approve(room, gate.gate_id)).conflicts == ()
