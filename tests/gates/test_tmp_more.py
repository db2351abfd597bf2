"""Whatever is proposed, whatever the user typed, and however files are open: all that was chosen, or nothing."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gate_room import Room, open_room
from selfloop import errors
from selfloop.changes import REGULAR, file_change

lines = st.sampled_from(["a\n", "b\n", "c\r\n", "}\n", "\n", "é𝒳\n", "\u2028\n", "end", "\r", "\ufeffx\n"])
texts = st.lists(lines, max_size=12).map(lambda parts: "".join(parts).encode())
contents = st.one_of(st.none(), texts, texts, st.just(b"\0bin"), st.just(b"\xff\n"))


def mode(content: bytes | None) -> int | None:
    return None if content is None else REGULAR


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes | None, bytes | None, bytes | None, str]:
    """Draw what is proposed (before and after), what the user has by then, and how it is open."""
    pre, post = draw(contents), draw(contents)
    now = draw(st.one_of(st.just(pre), st.just(pre), st.just(post), contents))
    return pre, post, now, draw(st.sampled_from(["closed", "clean", "typed"]))


@settings(max_examples=4000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(files(), min_size=1, max_size=3), st.data())
def test_all_that_was_chosen_or_nothing(drawn: list[tuple[bytes | None, ...]], data: st.DataObject) -> None:
    home = Path(tempfile.mkdtemp())
    try:
        room = open_room(home)
        asyncio.run(_check(room, drawn, data))
        room.store.close()
    finally:
        shutil.rmtree(home)


async def _check(room: Room, drawn: list, data: st.DataObject) -> None:
    changes = []
    for number, (pre, post, now, how) in enumerate(drawn):
        path = f"f{number}"
        change = file_change(path, pre=pre, post=post, pre_mode=mode(pre), post_mode=mode(post))
        if change is None:
            continue
        changes.append(change)
        if now is not None:
            room.write(path, now)
            if how != "closed":
                room.editor.open(path)
            if how == "typed":
                room.editor.type(path, room.editor.text(path) + "typed\n")
    gate = room.gates.propose("s", changes, title="T")
    if gate is None:
        assert not changes
        return

    def everything() -> tuple:
        paths = [f"f{number}" for number in range(len(drawn))]
        opened = [room.editor.open_text(path) for path in paths]
        return [room.read(path) for path in paths], [one and one.text for one in opened]

    view = await room.gates.read(gate.gate_id, room.editor)
    hunks = [(hunk.hunk_id, hunk.digest) for file in view.files for hunk in file.hunks]
    stale = {hunk.hunk_id for file in view.files for hunk in file.hunks if hunk.status == "stale"}
    chosen = data.draw(st.lists(st.sampled_from(hunks), unique=True, min_size=1))
    before = everything()
    assert before == everything()
    result = await room.gates.resolve(gate.gate_id, "approve", digest=None, hunks=chosen, editor=room.editor)
    after = await room.gates.read(gate.gate_id, room.editor)
    statuses = {hunk.hunk_id: hunk.status for file in after.files for hunk in file.hunks}
    if result.conflicts:
        assert result.applied == ()
        assert everything() == before
        assert all(statuses[name] in ("pending", "stale") for name, _ in chosen)
        return
    assert not stale & {name for name, _ in chosen}
    assert all(statuses[name] == "approved" for name, _ in chosen)
    assert all(statuses[name] in ("pending", "stale") for name, _ in hunks if (name, _) not in chosen)
    done = everything()
    again = await room.gates.resolve(gate.gate_id, "approve", digest=None, hunks=chosen, editor=room.editor)
    assert (set(again.applied), everything()) == (set(result.applied), done)
    try:
        await room.gates.resolve(gate.gate_id, "reject", digest=None, hunks=chosen[:1], editor=room.editor)
        raise AssertionError("another answer was taken")
    except errors.Decided:
        pass
    back = await room.gates.undo(gate.gate_id, editor=room.editor)
    files, _ = everything()
    # A clean document is loaded anew when its file changes; a lone CR is a line ending to an editor.
    if not back.conflicts and not any(b"\r" in (change.post or b"") + (change.pre or b"") for change in changes):
        assert files == before[0]
