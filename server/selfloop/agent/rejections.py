"""What the model is told of the user's decisions.

Invariant: a rejection is told in full and pinned, so that neither time nor compaction makes the agent try the same
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from selfloop.agent.fence import Fence
from selfloop.agent.history import Pin
from selfloop.agent.replay import Told
from selfloop.changes import unified_diff

if TYPE_CHECKING:
    from selfloop.changes import FileChange
    from selfloop.gates.gate import Decision

SHOWN_CHARS = 6_000


def describe(decision: Decision, task: int, redact: Callable[[str], str], fence: Fence) -> Told | None:
    """Return what the model is told of a decision on changes; None: a command's answer comes as the call's result."""
    if not decision.approved and not decision.rejected and not decision.taken_back:
        return None
    comment = f"\nThe user says: {redact(decision.comment)}" if decision.comment else ""
    parts = []
    pins: tuple[Pin, ...] = ()
    if decision.approved:
        paths = ", ".join(change.path for change in decision.approved)
        parts.append(f"The user approved your changes to {paths}; they are in the user's files now.")
    if decision.taken_back:
        diff = _diff(decision.taken_back, redact, fence, "the changes that were taken back")
        parts.append(
            "The user had approved these changes of yours and has taken them back since. They are not in the user's "
            f"files now, and wait in the proposal for the user's decision; your files still have them.\n{diff}"
        )
    if decision.rejected:
        diff = _diff(decision.rejected, redact, fence, "the rejected changes")
        rejection = (
            "The user rejected these changes. They have been taken out of your files; do not make them again unless "
            f"the user asks for them.{comment}\n{diff}"
        )
        parts.append(rejection)
        pins = (Pin("The user's rejection", rejection, task),)
    elif comment:
        parts.append(comment.strip())
    return Told("\n".join(parts), pins)


def _diff(changes: Sequence[FileChange], redact: Callable[[str], str], fence: Fence, source: str) -> str:
    """Return changes for reading. The lines around them are the repository's, not ours."""
    diff = redact("\n".join(unified_diff(change) for change in changes))
    return fence.data(diff if len(diff) <= SHOWN_CHARS else diff[:SHOWN_CHARS] + "\n(cut)", source=source)
