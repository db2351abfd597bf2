"""What a gate is: a stored question to the user, with the digest of exactly what is asked.

Invariant: a gate is data, not a pending request. It survives a restart, and only `approved` is an approval: unknown,
expired and cancelled never are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from attrs import field, frozen

from selfloop.changes import FileChange
from selfloop.updates import GateInfo, GateOption

GateState = Literal["open", "resolved", "stale", "expired", "cancelled"]
SubjectType = Literal["changes", "command", "action", "level", "evolution"]
Risk = Literal["low", "medium", "high"]
HunkStatus = Literal["pending", "approved", "rejected", "stale"]

RISKS: Sequence[Risk] = ("low", "medium", "high")

APPROVE = GateOption(option_id="approve", name="Approve", kind="allow_once")
REJECT = GateOption(option_id="reject", name="Reject", kind="reject_once")


def highest(risks: Sequence[Risk]) -> Risk:
    """Return the highest of some risks; of none, low."""
    return max(risks, key=RISKS.index, default="low")


@frozen
class GateRecord:
    """A gate as it is stored."""

    gate_id: str
    session_id: str
    subject_type: SubjectType
    subject: dict[str, Any]
    """What is asked about, as clients see it, but with `path` where those see `uri`."""
    title: str
    digest: str
    created_at: str
    state: GateState = "open"
    risk: Risk = "low"
    options: tuple[GateOption, ...] = (APPROVE, REJECT)
    description: str | None = None
    run_id: str | None = None
    turn_id: str | None = None
    resolved_by: str | None = None
    """The option that decided it, or `mixed`."""
    ended_by: str | None = None
    """The option of the answer that decided what was left of it: given again, it is no other answer."""
    comment: str | None = None
    words: tuple[str, ...] = ()
    """What the user said in the turns behind it, oldest first."""

    def info(self, uri: Callable[[str], str]) -> GateInfo:
        """Return the gate as it goes over the wire; `uri` names a file of the workspace."""
        subject = dict(self.subject)
        if "files" in subject:
            subject["files"] = [
                {"uri": uri(file["path"]), **{name: value for name, value in file.items() if name != "path"}}
                for file in subject["files"]
            ]
        if "folder" in subject:
            folder = subject["folder"]
            subject["cwd"] = uri("" if folder == "." else folder)
        return GateInfo(
            gate_id=self.gate_id,
            state=self.state,
            subject=subject,
            title=self.title,
            risk=self.risk,
            options=list(self.options),
            digest=self.digest,
            created_at=self.created_at,
            default="reject",
            description=self.description,
            run_id=self.run_id,
            session_id=self.session_id or None,
            resolved_by=self.resolved_by,
            comment=self.comment,
        )


@frozen
class EvidenceItem:
    """A command that ran in the turns behind a gate."""

    check: str
    command: str
    exit_code: int | None = None
    """None: its deadline or the user killed it."""
    path: str | None = None
    """Its output, relative to the workspace."""


@frozen
class HunkState:
    """What was decided about one hunk of a gate."""

    hunk_id: str
    path: str
    digest: str
    content: str
    """By what a rejection is remembered: the path, the old text and the new."""
    risk: Risk = "low"
    status: Literal["pending", "approved", "rejected"] = "pending"
    applied: bool = False
    """Its new text was put in the user's file, and not taken back since."""
    taken_back: bool = False
    """It was approved and applied, and then the user took it back: it is asked about again, and the session's own copy
    keeps it meanwhile."""
    present: bool = True
    """It belongs to the newest proposal. Others are kept for the answers that were given."""


@frozen
class Decision:
    """What the user decided, for whoever made the proposal."""

    gate_id: str
    session_id: str
    option_id: str
    approved: tuple[FileChange, ...] = ()
    """The files that were changed: as they were, and as they are now."""
    rejected: tuple[FileChange, ...] = ()
    """Of each file that has rejected hunks: the change that would have been made by them alone."""
    withdrawn: tuple[FileChange, ...] = ()
    """The way back for the session's own copy: applying all hunks of these to it takes the rejected ones out of it."""
    taken_back: tuple[FileChange, ...] = ()
    """What the user had approved and then took back, as changes to the files as they are now: they wait again."""
    comment: str | None = None


@frozen
class CommandRequest:
    """A command that a model wants to run."""

    session_id: str
    tool_call_id: str
    command: str
    folder: str
    """Relative to the workspace."""
    network: bool
    isolation: str
    reason: str
    """Why it is asked about, one plain sentence."""


@frozen
class CommandDecision:
    """The answer to a command's gate."""

    allowed: bool
    gate_id: str | None
    """None: a remembered rule answered."""
    option_id: str
    comment: str | None = field(default=None)
