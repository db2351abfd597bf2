"""Every `selfloop/*` message, in one place: its parameters, its result, and whether it only reads.

`METHODS` is the contract. The worker's fast path decodes by it, the commands of `workspace/executeCommand` are derived
from it, the terminal's client is typed by it, and `vscode-client/src/protocol.ts` is held equal to it by a test.

Positions are LSP's (zero-based line, UTF-16 unit), files are URIs, names are camelCase on the wire. A field that equals
its default is left out on the wire. Payloads carry foreign text as text, never as JSON objects.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from attrs import frozen

from selfloop.updates import GateInfo, Range, UpdateEnvelope, UsageInfo, Wire

UPDATE = "selfloop/update"
DID_FOCUS = "textDocument/didFocus"


class Empty(Wire):
    """`{}`."""


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


class ContextDiagnostic(Wire):
    """A diagnostic that the client attaches; foreign fields are ignored."""

    message: str
    range: Range | None = None
    severity: int | None = None
    source: str | None = None
    code: str | int | None = None


class ContextItem(Wire):
    """Something attached to a prompt: a file, a selection in it, or text."""

    uri: str
    range: Range | None = None
    text: str | None = None
    diagnostics: list[ContextDiagnostic] | None = None


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


# Changes and gates


class FileDiff(Wire):
    uri: str
    operation: Literal["create", "modify", "delete", "rename"]
    diff: str


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


class ModelListResult(Wire):
    models: list[ModelInfo]
    current: str | None = None


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
    "selfloop/session/list": Method(Empty, SessionListResult, reads=True),
    "selfloop/session/resume": Method(SessionResumeParams, SessionResumeResult),
    "selfloop/session/prompt": Method(SessionPromptParams, SessionPromptResult, needs_trust=True),
    "selfloop/session/read": Method(SessionReadParams, SessionReadResult, reads=True),
    "selfloop/session/rename": Method(SessionRenameParams, Empty),
    "selfloop/session/delete": Method(SessionRef, Empty),
    "selfloop/session/cancel": Method(SessionRef, Empty),
    "selfloop/changes/read": Method(SessionRef, ChangesReadResult, reads=True, needs_trust=True),
    "selfloop/gate/list": Method(GateListParams, GateListResult, reads=True),
    "selfloop/gate/read": Method(GateReadParams, GateReadResult, reads=True),
    "selfloop/gate/resolve": Method(GateResolveParams, GateResolveResult, needs_trust=True),
    "selfloop/change/undo": Method(ChangeUndoParams, ChangeUndoResult, needs_trust=True),
    "selfloop/model/list": Method(Empty, ModelListResult, reads=True),
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
