"""What a crash cut off between the journal and the record is brought to its end.

Invariant: what stands in the journal was approved. A file that is as before gets its step, one that is as after has it,
and any other is left alone and told of; so nothing is applied twice, and nothing that was not approved.
"""

from __future__ import annotations

import asyncio

from attrs import evolve

from selfloop.errors import SelfloopError
from selfloop.gates.applying import edit_buffers, finish_on_disk, state_of
from selfloop.gates.editor import Editor
from selfloop.gates.ledger import Application, Step
from selfloop.sandbox.paths import Door


async def recover(door: Door, application: Application, editor: Editor) -> tuple[Application, list[str]]:
    """Finish an application, and return it with the steps that have come to their end, and sentences for the user."""
    done: list[Step] = []
    finished: list[str] = []
    sentences: list[str] = []
    for step in application.steps:
        try:
            worked, reason = await _finish(door, step, editor)
        except (OSError, SelfloopError) as error:
            worked, reason = False, str(error)
        if reason is None:
            done.append(step)
            finished += [step.path] if worked else []
        else:
            what = "The approved change" if application.kind == "apply" else "The taking back"
            sentences.append(f"{what} of {step.path} was cut off and could not be finished: {reason}")
    if finished:
        sentences.append(f"What was cut off was finished: {', '.join(finished)} is as you decided.")
    lost = {hunk_id for step in application.steps if step not in done for hunk_id in step.hunk_ids}
    lost_paths = {path for step in application.steps if step not in done for path in (step.path, step.source)}
    return evolve(
        application,
        state="done" if done or not application.steps else "failed",
        steps=tuple(done),
        hunk_ids=tuple(hunk_id for hunk_id in application.hunk_ids if hunk_id not in lost),
        takes_back=tuple(pair for pair in application.takes_back if pair[1] not in lost_paths),
    ), sentences


async def _finish(door: Door, step: Step, editor: Editor) -> tuple[bool, str | None]:
    """Finish a step; return whether there was anything to do, and why it could not be done."""
    opened = editor.open_text(step.path)
    state = await asyncio.to_thread(state_of, door, step, opened)
    if state == "after":
        return False, None
    if state == "other":
        return False, "the file has changed in the meantime, and was left as it is."
    if step.via == "editor" and opened is not None:
        refused = await edit_buffers([step], editor, label="Finish an approved change", prefer=opened.window)
        return True, refused[0][1] if refused else None
    await asyncio.to_thread(finish_on_disk, door, step)
    return True, None
