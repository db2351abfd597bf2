"""What the model is told of the user's decisions.

Invariant: a rejection is told in full and pinned, so that neither time nor compaction makes the agent try the same
again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from selfloop.agent.fence import Fence
from selfloop.agent.history import Pin
from selfloop.agent.replay import Told
from selfloop.changes import unified_diff

if TYPE_CHECKING:
    from selfloop.gates.gate import Decision

SHOWN_CHARS = 6_000


def describe(decision: Decision, task: int, redact: Callable[[str], str], fence: Fence) -> Told | None:
    """Return what the model is told of a decision on changes; None: a command's answer comes as the call's result."""
    if not decision.approved and not decision.rejected:
        return None
    comment = f"\nThe user says: {redact(decision.comment)}" if decision.comment else ""
    parts = []
    pins: tuple[Pin, ...] = ()
    if decision.approved:
        paths = ", ".join(change.path for change in decision.approved)
        parts.append(f"The user approved your changes to {paths}; they are in the user's files now.")
    if decision.rejected:
        diff = redact("\n".join(unified_diff(change) for change in decision.rejected))
        if len(diff) > SHOWN_CHARS:
            diff = diff[:SHOWN_CHARS] + "\n(cut)"
        # The lines around a change are the repository's, not ours.
        diff = fence.data(diff, source="the rejected changes")
        rejection = (
            "The user rejected these changes. They have been taken out of your files; do not make them again unless "
            f"the user asks for them.{comment}\n{diff}"
        )
        parts.append(rejection)
        pins = (Pin("The user's rejection", rejection, task),)
    elif comment:
        parts.append(comment.strip())
    return Told("\n".join(parts), pins)
