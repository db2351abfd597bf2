"""Every `selfloop/*` message, in one table: its parameters, its result, and whether it only reads.

`METHODS` is the contract. The worker's fast path decodes by it, the commands of `workspace/executeCommand` are derived
from it, the terminal's client is typed by it, and `vscode-client/src/protocol.ts` is held equal to it by a test.

Positions are LSP's (zero-based line, UTF-16 unit), files are URIs, names are camelCase on the wire. A field that equals
its default is left out on the wire. Payloads carry foreign text as text, never as JSON objects.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from attrs import frozen

from selfloop.lsp.evolution_messages import (
    GenerationGraphResult,
    GenerationListResult,
    GenerationReadResult,
    GenerationRef,
)
from selfloop.lsp.loop_messages import (
    LoopConfigureParams,
    LoopConfigureResult,
    LoopListParams,
    LoopListResult,
    RunListParams,
    RunListResult,
    RunReadResult,
    RunRef,
    RunStartParams,
    SpendListParams,
    SpendListResult,
)
from selfloop.lsp.values import ContextDiagnostic, ContextItem, Empty, FileDiff
from selfloop.updates import GateInfo, QueueEntry, Range, TrustCard, UpdateEnvelope, UsageInfo
from selfloop.wire import Wire

UPDATE = "selfloop/update"
DID_FOCUS = "textDocument/didFocus"


# Sessions


class SessionNewParams(Wire):
    workspace_folder: str | None = None
    """URI of the folder; absent: the first one of the window."""


class SessionRef(Wire):
    session_id: str


class SessionInfo(Wire):
    session_id: str
    title: str
    created_at: str
    updated_at: str
    state: Literal["running", "idle"]
    input_tokens: int
    output_tokens: int


class SessionListParams(Wire):
    query: str | None = None
    """Only sessions in whose title or user's messages every word of it occurs, without regard to case."""


class SessionListResult(Wire):
    sessions: list[SessionInfo]


class SessionResumeParams(Wire):
    session_id: str
    after: int | None = None
    """Updates with a higher `seq` are sent again; absent: none are."""


class SessionResumeResult(Wire):
    session_id: str
    seq: int
    """The newest `seq` of the session's stream."""


class SessionPromptParams(Wire):
    session_id: str
    text: str
    context: list[ContextItem] = msgspec.field(default_factory=list)
    delivery: Literal["queue", "steer"] | None = None


class SessionPromptResult(Wire):
    message_id: str
    turn_id: str
    delivery: Literal["start", "queue", "steer"]


class SessionReadParams(Wire):
    session_id: str
    before: int | None = None
    limit: int | None = None


class SessionReadResult(Wire):
    updates: list[UpdateEnvelope]
    more: bool


class SessionRenameParams(Wire):
    session_id: str
    title: str


class SessionQueueResult(Wire):
    """What waits, as the update `queue` tells it."""

    entries: list[QueueEntry]


class SessionRequeueParams(Wire):
    session_id: str
    message_id: str
    text: str | None = None
    """The message's new text; absent or blank: it is taken out of the queue."""


class AskParams(Wire):
    """The one argument of the command `selfloop.ask`: a prompt about a place, or a stale change once more."""

    uri: str | None = None
    range: Range | None = None
    text: str | None = None
    diagnostics: list[ContextDiagnostic] | None = None
    intent: Literal["explain", "fix", "improve", "test", "about", "again", "loop"] | None = None
    """`loop` hands the place to a loop, whose round begins at once; the result is then `{runId}`."""
    prompt: str | None = None
    """The user's own words, instead of an intent."""
    session_id: str | None = None
    """Absent: the window's last session, or a new one."""
    gate_id: str | None = None
    """Of `again`: the gate whose stale hunks its session is asked to make anew."""
    hunk_id: str | None = None
    """Of `again`: only this hunk."""
    loop_id: str | None = None
    """Of `loop`: which one; absent: the user is asked to choose."""


class AskResult(Wire):
    session_id: str
    message_id: str
    turn_id: str
    delivery: Literal["start", "queue", "steer"]


# Changes and gates


class ChangesReadResult(Wire):
    files: list[FileDiff]


class GateListParams(Wire):
    state: Literal["open", "resolved", "stale", "expired", "cancelled"] | None = None


class GateListResult(Wire):
    gates: list[GateInfo]


class GateReadParams(Wire):
    gate_id: str


class GateHunk(Wire):
    hunk_id: str
    digest: str
    range: Range
    """The lines that it replaces, in the user's text as it is now."""
    new_text: str
    status: Literal["pending", "approved", "rejected", "stale"]
    reason: str | None = None
    """Why it is stale."""
    risk: Literal["low", "medium", "high"] = "low"


class GateFile(Wire):
    uri: str
    operation: Literal["create", "modify", "delete", "rename"]
    diff: str
    hunks: list[GateHunk]
    old_uri: str | None = None


class Evidence(Wire):
    """A command that ran in the turns behind a gate."""

    check: str
    command: str
    exit_code: int | None = None
    """None: it was killed by its deadline or by the user."""
    uri: str | None = None


class GateReadResult(Wire):
    gate: GateInfo
    files: list[GateFile]
    evidence: list[Evidence]
    """What ran; empty: nothing did, so nothing was tested."""
    card: TrustCard | None = None
    """Of a gate on changes."""


class HunkRef(Wire):
    hunk_id: str
    digest: str


class GateResolveParams(Wire):
    gate_id: str
    option_id: str
    digest: str | None = None
    hunks: list[HunkRef] | None = None
    comment: str | None = None


class Conflict(Wire):
    uri: str
    reason: str


class GateResolveResult(Wire):
    gate: GateInfo
    applied: list[str]
    conflicts: list[Conflict]


class ChangeUndoParams(Wire):
    gate_id: str


class ChangeUndoResult(Wire):
    applied: list[str]
    conflicts: list[Conflict]


# Models


class ModelInfo(Wire):
    id: str
    origin: str
    tools: bool | None = None
    context_tokens: int | None = None


class ModelListParams(Wire):
    base_url: str | None = None
    """Absent: the endpoint in use."""


class ModelListResult(Wire):
    models: list[ModelInfo]
    current: str | None = None
    base_url: str | None = None
    """The endpoint of the current model; absent: its provider's own."""


class DiscoveredEndpoint(Wire):
    """A model server that was found without being asked for."""

    name: str
    """Such as `Ollama`."""
    base_url: str
    """Its endpoint in the OpenAI format, for `model/select`."""
    models: list[ModelInfo]


class ModelDiscoverResult(Wire):
    endpoints: list[DiscoveredEndpoint]


class ModelSelectParams(Wire):
    model: str
    base_url: str | None = None


class ModelTestResult(Wire):
    ok: bool
    message: str
    latency_ms: int


class ModelSetKeyParams(Wire):
    origin: str
    key: str

    def __repr__(self) -> str:
        return f"ModelSetKeyParams(origin={self.origin!r}, key=…)"


# Rules, status, restart


class RuleInfo(Wire):
    rule_id: str
    rule: str
    origin: str
    example: str
    uses: int
    created_at: str


class RuleListResult(Wire):
    rules: list[RuleInfo]


class RuleRemoveParams(Wire):
    rule_id: str


class StatusResult(Wire):
    version: str
    generation: int
    model: str | None
    isolation: Literal["none", "changes", "process"]
    sessions: int
    runs: int
    gates_pending: int
    spend: UsageInfo
    trusted: bool
    folders: list[str]
    isolation_detail: str = ""


class RestartParams(Wire):
    when: Literal["idle", "now"] = "idle"


class RestartResult(Wire):
    restart_id: str


class FocusParams(Wire):
    text_document: dict[str, Any] | None = None
    selections: list[Range] = msgspec.field(default_factory=list)


@frozen
class Method:
    """One row of the contract."""

    params: type[Wire]
    result: type[Wire]
    reads: bool = False
    """It changes nothing: the supervisor asks it again of a new worker."""
    command: bool = True
    """It can also be called by `workspace/executeCommand`, as `selfloop.<noun>.<verb>`."""
    needs_trust: bool = False
    """It would run git, a command or a model: refused with `notTrusted` in an untrusted workspace."""


METHODS: dict[str, Method] = {
    "selfloop/session/new": Method(SessionNewParams, SessionRef),
    "selfloop/session/list": Method(SessionListParams, SessionListResult, reads=True),
    "selfloop/session/resume": Method(SessionResumeParams, SessionResumeResult),
    "selfloop/session/prompt": Method(SessionPromptParams, SessionPromptResult, needs_trust=True),
    "selfloop/session/queue": Method(SessionRef, SessionQueueResult, reads=True),
    "selfloop/session/requeue": Method(SessionRequeueParams, SessionQueueResult, needs_trust=True),
    "selfloop/session/read": Method(SessionReadParams, SessionReadResult, reads=True),
    "selfloop/session/rename": Method(SessionRenameParams, Empty),
    "selfloop/session/delete": Method(SessionRef, Empty),
    "selfloop/session/cancel": Method(SessionRef, Empty),
    "selfloop/changes/read": Method(SessionRef, ChangesReadResult, reads=True, needs_trust=True),
    "selfloop/gate/list": Method(GateListParams, GateListResult, reads=True),
    "selfloop/gate/read": Method(GateReadParams, GateReadResult, reads=True),
    "selfloop/gate/resolve": Method(GateResolveParams, GateResolveResult, needs_trust=True),
    "selfloop/change/undo": Method(ChangeUndoParams, ChangeUndoResult, needs_trust=True),
    "selfloop/loop/list": Method(LoopListParams, LoopListResult, reads=True),
    "selfloop/loop/configure": Method(LoopConfigureParams, LoopConfigureResult, needs_trust=True),
    "selfloop/run/start": Method(RunStartParams, RunRef, needs_trust=True),
    "selfloop/run/list": Method(RunListParams, RunListResult, reads=True),
    "selfloop/run/read": Method(RunRef, RunReadResult, reads=True),
    "selfloop/run/cancel": Method(RunRef, Empty),
    "selfloop/spend/list": Method(SpendListParams, SpendListResult, reads=True),
    "selfloop/generation/list": Method(Empty, GenerationListResult, reads=True),
    "selfloop/generation/read": Method(GenerationRef, GenerationReadResult, reads=True),
    "selfloop/generation/graph": Method(Empty, GenerationGraphResult, reads=True),
    "selfloop/generation/activate": Method(GenerationRef, RestartResult, needs_trust=True),
    "selfloop/model/list": Method(ModelListParams, ModelListResult, reads=True),
    "selfloop/model/discover": Method(Empty, ModelDiscoverResult, reads=True),
    "selfloop/model/select": Method(ModelSelectParams, Empty),
    "selfloop/model/test": Method(Empty, ModelTestResult, needs_trust=True),
    "selfloop/model/setKey": Method(ModelSetKeyParams, Empty, command=False),
    "selfloop/rule/list": Method(Empty, RuleListResult, reads=True),
    "selfloop/rule/remove": Method(RuleRemoveParams, Empty),
    "selfloop/status": Method(Empty, StatusResult, reads=True),
    "selfloop/restart": Method(RestartParams, RestartResult),
}


def command_name(method: str) -> str:
    """Return the command of `workspace/executeCommand` for a method: `selfloop/gate/read` → `selfloop.gate.read`."""
    return method.replace("/", ".")


COMMANDS: dict[str, str] = {command_name(name): name for name, method in METHODS.items() if method.command}


def decode(method: str, params: Any) -> Wire:
    """Turn plain decoded JSON into the method's typed params.

    Raises `msgspec.ValidationError`, whose text names the field that is wrong.
    """
    return msgspec.convert({} if params is None else params, METHODS[method].params)
