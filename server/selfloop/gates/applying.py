"""Steps are carried out: open documents by the editor, all else on the disk; all of them, or none.

    every pre-image checked ─► the editor's edit, verified ─► the disk, verified ─► (on a failure: the way back)

Invariant: a file is written only while it still is what the step says it was, and what was written is read again.
After a crash, what a file is tells how far its step came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Literal

from attrs import evolve

from selfloop.changes import (
    BOM,
    EXECUTABLE,
    REGULAR,
    SYMLINK,
    FileChange,
    FileResult,
    HunkKind,
    Mode,
    apply_hunks,
    decode_text,
    file_change,
    line_ending,
    reverse,
)
from selfloop.errors import PathRefused, SelfloopError, Stale
from selfloop.gates.editor import ApplyOutcome, BufferEdit, Editor, LineEdit, OpenText
from selfloop.gates.ledger import Step
from selfloop.gates.review import Present
from selfloop.sandbox.paths import Door

Conflicts = tuple[tuple[str, str], ...]
StepState = Literal["before", "half", "after", "other"]

_TEMPORARY = ".selfloop-"
"""How the door's temporary files begin."""


def step_for(
    source: str, there: Present, result: FileResult, kinds: Collection[HunkKind], hunk_ids: Sequence[str]
) -> Step | str | None:
    """Return the step from what is there to the result; None if nothing is to be done, a sentence if it cannot be."""
    if result.content == there.content and result.removed is None and result.mode in (there.mode, None):
        return None
    step = Step(
        result.path, result.removed, "disk", there.disk, result.content, there.mode, result.mode, tuple(hunk_ids)
    )
    if _editable(there, result, kinds):
        return evolve(step, via="editor", before=there.content)
    if there.unsaved and not {"whole", "rename"} & set(kinds):
        return f"{source} has unsaved edits, and this cannot be done to the open text; save it, then decide again."
    if there.disk is None and result.content is None:
        return f"{source} was never saved, so there is no file to delete; close it instead."
    return step


def _editable(there: Present, result: FileResult, kinds: Collection[HunkKind]) -> bool:
    """Tell whether a result can reach an open document as a text edit that comes out exactly.

    An editor hides the byte order mark, and turns all line endings of an edit into those of the document.
    """
    if there.open is None or there.content is None or result.content is None or set(kinds) != {"text"}:
        return False
    old, new = decode_text(there.content), decode_text(result.content)
    if old is None or new is None or old.startswith(BOM) != new.startswith(BOM):
        return False
    if not set(there.open.text) & {"\r", "\n"}:
        return "\r" not in new
    ending = line_ending(there.open.text)
    return ending is None or line_ending(new) == ending or not set(new) & {"\r", "\n"}


def plain_mode(mode: Mode | None) -> Mode:
    """Return the mode to write a file with."""
    return REGULAR if mode is None or mode not in (EXECUTABLE, SYMLINK) else mode


async def carry_out(door: Door, steps: Sequence[Step], editor: Editor, *, label: str, prefer: int | None) -> Conflicts:
    """Carry out all steps, or none; return why not, for each file that stood in the way."""
    by_editor = [step for step in steps if step.via == "editor"]
    on_disk = [step for step in steps if step.via == "disk"]
    if moved := await asyncio.to_thread(_moved, door, on_disk):
        return moved
    if by_editor and (conflicts := await edit_buffers(by_editor, editor, label=label, prefer=prefer)):
        return conflicts
    failed = await asyncio.to_thread(_write_all, door, on_disk)
    if failed is not None:
        path, reason = failed
        left = await _withdraw(by_editor, editor, label, prefer)
        return ((path, reason + _undo_there(left)),)
    return ()


def state_of(door: Door, step: Step, opened: OpenText | None) -> StepState:
    """Tell how far a step came, by what is there now."""
    if opened is not None and step.via == "editor":
        return _state(_buffer(step.before), opened.text, _buffer(step.after))
    new = door.read_entry(step.path)
    if step.removed is not None:
        old = door.read_entry(step.removed)
        if new is None:
            return "before" if old is not None and old[0] == step.before else "other"
        if new[0] != step.after:
            return "other"
        if old is None:
            return "after"
        return "half" if old[0] == step.before else "other"
    content, mode = new if new is not None else (None, None)
    if content == step.after and (content is None or step.via == "editor" or mode == plain_mode(step.after_mode)):
        return "after"
    if content == step.before and (content is None or step.before_mode is None or mode == step.before_mode):
        return "before"
    return "other"


def finish_on_disk(door: Door, step: Step) -> None:
    """Carry out the rest of a step that a crash cut off before or half-way."""
    _clear_temporary(door, step)
    if state_of(door, step, None) == "half" and step.removed is not None:
        door.delete(step.removed, link=True)
    else:
        _write(door, step)


def line_edits(before: str, after: str) -> tuple[LineEdit, ...]:
    """Return the edits that lead from one text to another."""
    change = _change(before, after)
    return tuple(LineEdit(hunk.start, hunk.end, hunk.new) for hunk in change.hunks) if change is not None else ()


def _change(before: str, after: str) -> FileChange | None:
    return file_change("", pre=before.encode(), post=after.encode(), pre_mode=REGULAR, post_mode=REGULAR)


def _state(before: str, now: str, after: str) -> StepState:
    now = now.removeprefix(BOM)
    return "after" if now == after else "before" if now == before else "other"


def _buffer(content: bytes | None) -> str:
    """Return a content as an editor shows it."""
    return (decode_text(content or b"") or "").removeprefix(BOM)


# The editor


async def edit_buffers(steps: Sequence[Step], editor: Editor, *, label: str, prefer: int | None) -> Conflicts:
    """Have the editor carry out the steps of open documents, all or none."""
    edits = []
    for step in steps:
        opened = _open_text(editor, step.path)
        if opened is None or _state(_buffer(step.before), opened.text, _buffer(step.after)) != "before":
            return ((step.path, f"{step.path} was edited or closed in the meantime; decide again."),)
        edits.append(_buffer_edit(step.path, opened, _buffer(step.after)))
    outcome = await _applied(editor, edits, label, prefer)
    reached = [_reached(step, editor) for step in steps]
    if outcome.applied and all(state != "before" for state in reached):
        return ()
    # One window may have taken its part before another refused.
    left = await _withdraw(steps, editor, label, prefer)
    reason = outcome.reason or "the editor did not change its text"
    return tuple((step.path, f"It was not applied: {reason}." + _undo_there(left)) for step in steps)


async def _applied(editor: Editor, edits: Sequence[BufferEdit], label: str, prefer: int | None) -> ApplyOutcome:
    try:
        return await editor.apply(edits, label=label, prefer=prefer)
    except SelfloopError as error:
        return ApplyOutcome(False, error.message.rstrip("."))


def _undo_there(left: Sequence[str]) -> str:
    return f" The editor still holds the change of {', '.join(left)}: undo it there." if left else ""


def _buffer_edit(path: str, opened: OpenText, after: str) -> BufferEdit:
    expected = BOM + after if opened.text.startswith(BOM) else after
    return BufferEdit(path, opened.version, line_edits(opened.text, expected), expected)


def _reached(step: Step, editor: Editor) -> StepState:
    opened = _open_text(editor, step.path)
    return "other" if opened is None else _state(_buffer(step.before), opened.text, _buffer(step.after))


def _open_text(editor: Editor, path: str) -> OpenText | None:
    """Return the one open text of a file; None also if two windows disagree about it."""
    try:
        return editor.open_text(path)
    except Stale:
        return None


async def _withdraw(steps: Sequence[Step], editor: Editor, label: str, prefer: int | None) -> list[str]:
    """Take edits back where they have arrived, around what the user typed since; return the paths where that failed."""
    left = []
    for step in steps:
        opened, change = _open_text(editor, step.path), _change(_buffer(step.before), _buffer(step.after))
        back = reverse(change) if change is not None else None
        if opened is None or back is None:
            continue
        try:
            result = apply_hunks(back, [hunk.id for hunk in back.hunks], opened.text.removeprefix(BOM).encode())
        except Stale:
            left.append(step.path)
            continue
        edit = _buffer_edit(step.path, opened, (result.content or b"").decode())
        if edit.edits and not (await _applied(editor, [edit], f"Take back: {label}", prefer)).applied:
            left.append(step.path)
    return left


# The disk


def _moved(door: Door, steps: Sequence[Step]) -> Conflicts:
    found = []
    for step in steps:
        try:
            if state_of(door, step, None) != "before":
                found.append((step.path, f"{step.source} changed in the meantime; look at the gate again."))
        except SelfloopError as error:
            found.append((step.path, error.message))
    return tuple(found)


def _write_all(door: Door, steps: Sequence[Step]) -> tuple[str, str] | None:
    """Write every step, or none: return the path that failed, and why."""
    for number, step in enumerate(steps):
        try:
            if state_of(door, step, None) != "before":
                return step.path, _undone(door, steps[:number], f"{step.source} changed in the meantime")
            _write(door, step)
            if state_of(door, step, None) == "after":
                continue
            reason = f"{step.path} is not what was written to it"
        except SelfloopError as error:
            reason = error.message.rstrip(".")
        except OSError as error:
            reason = f"{step.path} could not be written ({error.strerror})"
        return step.path, _undone(door, steps[: number + 1], reason)
    return None


def _undone(door: Door, steps: Sequence[Step], reason: str) -> str:
    """Take the steps back, and return the sentence about it."""
    left = []
    for step in reversed(steps):
        try:
            _take_back(door, step)
        except (OSError, SelfloopError):
            left.append(step.path)
    if left:
        return f"{reason}. {', '.join(left)} could not be put back: see to it by hand, the rest is as it was."
    return f"{reason}. Nothing was applied; decide again."


def _write(door: Door, step: Step) -> None:
    if step.after is None:
        door.delete(step.path, link=True)
        return
    door.write_bytes(step.path, step.after, plain_mode(step.after_mode))
    if step.removed is not None:
        door.delete(step.removed, link=True)


def _take_back(door: Door, step: Step) -> None:
    """Undo a step as far as it came; what another has written meanwhile is left alone."""
    now = door.read_entry(step.path)
    if step.before is not None and door.read_entry(step.source) is None:
        door.write_bytes(step.source, step.before, plain_mode(step.before_mode))
    if now is not None and now[0] == step.after:
        if step.removed is not None or step.before is None:
            door.delete(step.path, link=True)
        else:
            door.write_bytes(step.path, step.before, plain_mode(step.before_mode))


def _clear_temporary(door: Door, step: Step) -> None:
    """Remove what a killed writer left beside the file."""
    folder = step.path.rpartition("/")[0]
    try:
        entries = door.list(folder)
    except PathRefused:
        return  # There is no such folder yet.
    for entry in entries:
        if entry.name.startswith(_TEMPORARY) and entry.kind in ("file", "link"):
            door.delete(f"{folder}/{entry.name}" if folder else entry.name, link=True)
