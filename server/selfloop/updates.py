"""What `selfloop/update` can tell: one tagged structure for each type, as it is journaled and as it goes over the wire.

They stand this low in the house because the agent reports with them, the journal stores them and the editor reads them:
one shape, no translation. Names are camelCase on the wire; a field equal to its default is left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from selfloop.reports import LoopInfo, Phase, RoundReport
from selfloop.wire import Wire


class Position(Wire):
    """Zero-based line and UTF-16 code unit, as LSP has them."""

    line: Annotated[int, msgspec.Meta(ge=0)]
    character: Annotated[int, msgspec.Meta(ge=0)]


class Range(Wire):
    """Half open, as LSP has it."""

    start: Position
    end: Position


class Location(Wire):
    """A place that a tool call is about."""

    uri: str
    line: int | None = None


class UsageInfo(Wire):
    """What was used, in tokens and money."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float | None = None


class FileStat(Wire):
    """A file of a running turn's changes."""

    uri: str
    added: int
    removed: int


class PlanEntry(Wire):
    """One step of the agent's plan."""

    text: str
    status: Literal["pending", "in_progress", "completed"]


class GateOption(Wire):
    """One way to answer a gate."""

    option_id: str
    name: str
    kind: Literal["allow_once", "allow_always", "reject_once", "reject_always"]
    rule: str | None = None
    """For `allow_always`: the exact rule that will be stored."""


class GateInfo(Wire):
    """A gate as clients see it. `subject` has a `type` of changes, command, action, level or evolution."""

    gate_id: str
    state: Literal["open", "resolved", "stale", "expired", "cancelled"]
    subject: dict[str, Any]
    title: str
    risk: Literal["low", "medium", "high"]
    options: list[GateOption]
    digest: str
    created_at: str
    default: Literal["reject"]
    description: str | None = None
    run_id: str | None = None
    session_id: str | None = None
    resolved_by: str | None = None
    """The `optionId` that decided it, or `mixed` where hunks were decided differently."""
    comment: str | None = None


class GateFlag(Wire):
    """Something about the forthcoming change that a person should look at twice."""

    kind: Literal["deletion", "dependency", "ci", "protected", "hidden", "binary", "executable", "link"]
    text: str
    """One plain sentence."""
    uri: str | None = None


class TrustCard(Wire):
    """What to know before approving: computed for what is pending now, stale hunks left out."""

    request: str
    """The user's words of the turns behind it, newest last, a blank line between; at most 2,000 characters."""
    files: int
    added: int
    """Lines."""
    removed: int
    isolation: Literal["none", "changes", "process"]
    """How well the commands of the workspace are fenced."""
    flags: list[GateFlag]


class MessageUpdate(Wire, tag_field="type", tag="message"):
    """A whole message. One of an id that came before replaces that: the user has edited it while it waited."""

    message_id: str
    role: Literal["user", "assistant"]
    text: str
    status: Literal["interrupted", "removed"] | None = None
    """`removed`: the user took it out of the queue before any turn had seen it; its text is empty then."""


class MessageChunk(Wire, tag_field="type", tag="messageChunk"):
    """A piece of a message that is being written."""

    message_id: str
    text: str


class Thought(Wire, tag_field="type", tag="thought"):
    """A piece of the model's reasoning, where the provider shows it."""

    text: str
    message_id: str | None = None


class ToolCallUpdate(Wire, tag_field="type", tag="toolCall"):
    """A tool call's state: an upsert by `tool_call_id`."""

    tool_call_id: str
    title: str
    kind: Literal["read", "edit", "delete", "search", "execute", "agent", "memory", "other"]
    status: Literal["pending", "running", "completed", "failed"]
    locations: list[Location]
    input: str | None = None
    output: str | None = None


class Plan(Wire, tag_field="type", tag="plan"):
    """The agent's plan, whole each time."""

    entries: list[PlanEntry]


StopReason = Literal["end_turn", "max_tokens", "budget", "stuck", "cancelled", "error"]


class State(Wire, tag_field="type", tag="state"):
    """Whether a turn runs. `stop_reason` comes with `idle`."""

    state: Literal["running", "idle"]
    stop_reason: StopReason | None = None
    usage: UsageInfo | None = None
    turn_id: str | None = None


class Changes(Wire, tag_field="type", tag="changes"):
    """The files that the running turn has changed so far."""

    files: list[FileStat]


class Task(Wire, tag_field="type", tag="task"):
    """A new task began; results go to `output_dir`."""

    number: int
    output_dir: str


class Gate(Wire, tag_field="type", tag="gate"):
    """A gate was opened or has changed."""

    gate: GateInfo


class UsageUpdate(Wire, tag_field="type", tag="usage"):
    """The session's use so far, and how full the model's context is."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    context_tokens: int
    context_limit: int
    cost_usd: float | None = None


class Generation(Wire, tag_field="type", tag="generation"):
    """Where a swap is: `starting`, `active` (it serves, on probation), `settled`, `rolled-back` or `refused`."""

    number: int
    state: str
    restart_id: str | None = None
    reason: str | None = None
    """Of `rolled-back` and `refused`: one sentence."""


class QueueEntry(Wire):
    """A message of the user's that no turn has taken up yet."""

    message_id: str
    text: str
    delivery: Literal["queue", "steer"]


class Queue(Wire, tag_field="type", tag="queue"):
    """What waits in the session, in the order in which it will be taken up; whole each time."""

    entries: list[QueueEntry]


class RunUpdate(Wire, tag_field="type", tag="run"):
    """Where a round is; with `done` comes its report, and again when a receipt was added to that later."""

    run_id: str
    loop_id: str
    phase: Phase
    report: RoundReport | None = None


class LoopUpdate(Wire, tag_field="type", tag="loop"):
    """A loop has changed: its file, its settings, when it is due, its last round."""

    loop: LoopInfo


class Notice(Wire, tag_field="type", tag="notice"):
    """One plain sentence for the user."""

    severity: Literal["info", "warning", "error"]
    text: str


Update = (
    MessageUpdate
    | MessageChunk
    | Thought
    | ToolCallUpdate
    | Plan
    | State
    | Changes
    | Task
    | Gate
    | UsageUpdate
    | Generation
    | Queue
    | RunUpdate
    | LoopUpdate
    | Notice
)


class UpdateEnvelope(Wire):
    """The params of `selfloop/update`. `seq` rises by one in its stream: the session's, else the workspace's."""

    seq: int
    at: str
    update: Update
    session_id: str | None = None
    run_id: str | None = None
    workspace_folder: str | None = None
    """The URI of the folder that it concerns, where it belongs to no session: each folder has a stream of its own."""


encoder = msgspec.json.Encoder()
envelope_decoder = msgspec.json.Decoder(UpdateEnvelope)
