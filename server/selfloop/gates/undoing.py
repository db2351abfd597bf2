"""What a gate applied is taken back: the newest application first, each file in its text as it is now.

Invariant: lines that the user wrote since are never lost. Where applied lines of one file were edited, that is a
conflict, and whoever carries the plan out leaves all files as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from attrs import define, field

from selfloop.changes import FileChange, FileResult, HunkKind, Mode, apply_hunks, file_change
from selfloop.errors import SelfloopError, Stale
from selfloop.gates.applying import Conflicts, step_for
from selfloop.gates.editor import Editor
from selfloop.gates.ledger import Application, Step
from selfloop.gates.review import Present, present
from selfloop.sandbox.paths import Door

TakenBack = list[tuple[int, str]]


@define
class _File:
    """A file on its way back."""

    origin: str
    there: Present
    content: bytes | None
    mode: Mode | None
    path: str
    kinds: set[HunkKind] = field(factory=set)
    takes_back: TakenBack = field(factory=list)
    problem: str | None = None


async def plan_undo(door: Door, done: Sequence[Application], editor: Editor) -> tuple[list[Step], TakenBack, Conflicts]:
    """Return the steps back, what they take back, and the files that cannot be.

    Args:
        door: the workspace.
        done: the gate's applications, oldest first.
        editor: the user's editors.
    """
    rows = [
        (application.id, step, change)
        for application in reversed(done)
        for step in application.steps
        if not step.undone and (change := _backwards(step)) is not None
    ]
    paths = {path for _, step, _ in rows for path in (step.path, step.source)}
    disk = await asyncio.to_thread(lambda: {path: _entry(door, path) for path in paths})
    files: dict[str, _File] = {}
    for number, step, change in rows:
        file = files.get(step.path)
        if file is None:
            there = present(step.path, change, disk[step.path], editor)
            file = _File(step.path, there, there.content, there.mode, step.path, problem=there.problem)
            files[step.path] = file
        if file.problem is None:
            _go_back(file, number, step, change, {path for path, entry in disk.items() if entry is not None})
            files[file.path] = file
    steps: list[Step] = []
    takes_back: TakenBack = []
    conflicts: list[tuple[str, str]] = []
    for file in {id(file): file for file in files.values()}.values():
        if file.problem is None:
            moved = file.origin if file.path != file.origin and file.content is not None else None
            result = FileResult(file.path, file.content, file.mode, moved)
            step = step_for(file.origin, file.there, result, file.kinds, ())
            if isinstance(step, str):
                file.problem = step
            else:
                takes_back += file.takes_back
                steps += [step] if step is not None else []
        if file.problem is not None:
            conflicts.append((file.origin, f"{file.problem} Nothing was taken back."))
    return steps, takes_back, tuple(conflicts)


def _go_back(file: _File, number: int, step: Step, change: FileChange, taken: set[str]) -> None:
    if step.removed is not None and step.removed in taken:
        file.problem = f"There is a file {step.removed} by now."
        return
    try:
        result = apply_hunks(change, [hunk.id for hunk in change.hunks], file.content, file.mode)
    except Stale:
        file.problem = f"The lines that were changed in {step.path} have been edited since."
        return
    file.content, file.mode, file.path = result.content, result.mode, result.path
    file.kinds |= {hunk.kind for hunk in change.hunks}
    file.takes_back.append((number, step.path))


def _backwards(step: Step) -> FileChange | None:
    editor = step.via == "editor"
    return file_change(
        step.source,
        old_path=step.path if step.removed is not None else None,
        pre=step.after,
        post=step.before,
        pre_mode=None if editor else step.after_mode,
        post_mode=None if editor else step.before_mode,
    )


def _entry(door: Door, path: str) -> tuple[bytes, Mode] | str | None:
    try:
        return door.read_entry(path)
    except SelfloopError as error:
        return error.message
