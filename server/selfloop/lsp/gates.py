"""Gates as a person meets them: list, read, decide, take back; and how a gate looks on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfloop.lsp.convert import line_range
from selfloop.lsp.editor import WindowEditor
from selfloop.lsp.protocol import (
    ChangeUndoParams,
    ChangeUndoResult,
    Conflict,
    Evidence,
    GateFile,
    GateHunk,
    GateListParams,
    GateListResult,
    GateReadParams,
    GateReadResult,
    GateResolveParams,
    GateResolveResult,
)
from selfloop.lsp.server import SelfloopServer
from selfloop.session import Workspace
from selfloop.updates import GateFlag, TrustCard

if TYPE_CHECKING:
    from selfloop.gates.review import GateView, Resolution


def list_(ls: SelfloopServer, params: GateListParams) -> GateListResult:
    """List the gates of every folder, oldest first."""
    rows = [
        workspace.gate_info(record)
        for workspace in ls.hub.workspaces.values()
        for record in workspace.gates.list(params.state)
    ]
    return GateListResult(gates=sorted(rows, key=lambda gate: gate.created_at))


async def read(ls: SelfloopServer, params: GateReadParams) -> GateReadResult:
    """Return a gate with its hunks where they lie in the user's text now."""
    workspace = ls.hub.gate(params.gate_id)
    view = await workspace.gates.read(params.gate_id, WindowEditor(ls.hub, workspace.path, ls.window))
    return GateReadResult(
        gate=workspace.gate_info(view.gate),
        files=_files(workspace, view),
        evidence=[
            Evidence(
                check=item.check,
                command=item.command,
                exit_code=item.exit_code,
                uri=workspace.uri(item.path) if item.path else None,
            )
            for item in view.evidence
        ],
        card=await _card(ls, workspace, view) if view.gate.subject_type == "changes" else None,
    )


async def _card(ls: SelfloopServer, workspace: Workspace, view: GateView) -> TrustCard:
    from selfloop.gates.card import card_of  # With the first gate, like the rest of its room.

    card = card_of(view.reviews, view.gate.words)
    return TrustCard(
        request=workspace.redact(card.request),
        files=card.files,
        added=card.added,
        removed=card.removed,
        isolation=(await workspace.workshop.isolation()).level if ls.trusted else "none",
        flags=[
            GateFlag(kind=flag.kind, text=flag.text, uri=workspace.uri(flag.path) if flag.path is not None else None)
            for flag in card.flags
        ],
    )


def _files(workspace: Workspace, view: GateView) -> list[GateFile]:
    return [
        GateFile(
            uri=workspace.uri(file.path),
            operation=file.operation,
            diff=workspace.redact(file.diff),
            old_uri=workspace.uri(file.old_path) if file.old_path else None,
            hunks=[
                GateHunk(
                    hunk_id=hunk.hunk_id,
                    digest=hunk.digest,
                    range=line_range(file.lines, hunk.start, hunk.end, has_returns=file.has_returns),
                    new_text=hunk.new_text,
                    status=hunk.status,
                    reason=hunk.reason,
                    risk=hunk.risk,
                )
                for hunk in file.hunks
            ],
        )
        for file in view.files
    ]


async def resolve(ls: SelfloopServer, params: GateResolveParams) -> GateResolveResult:
    """Decide a gate, or some of its hunks, on exactly what was shown."""
    workspace = ls.hub.gate(params.gate_id)
    key, window = ls.request_key, ls.window
    resolution = await workspace.gates.resolve(
        params.gate_id,
        params.option_id,
        digest=params.digest,
        hunks=None if params.hunks is None else [(hunk.hunk_id, hunk.digest) for hunk in params.hunks],
        comment=params.comment,
        editor=WindowEditor(ls.hub, workspace.path, window),
        key=key,
        window=window,
    )
    applied, conflicts = _outcome(workspace, resolution)
    return GateResolveResult(gate=workspace.gate_info(resolution.gate), applied=applied, conflicts=conflicts)


async def undo(ls: SelfloopServer, params: ChangeUndoParams) -> ChangeUndoResult:
    """Take back what a gate applied, over all its files."""
    workspace = ls.hub.gate(params.gate_id)
    resolution = await workspace.gates.undo(
        params.gate_id, editor=WindowEditor(ls.hub, workspace.path, ls.window), key=ls.request_key
    )
    applied, conflicts = _outcome(workspace, resolution)
    return ChangeUndoResult(applied=applied, conflicts=conflicts)


def _outcome(workspace: Workspace, resolution: Resolution) -> tuple[list[str], list[Conflict]]:
    return (
        [workspace.uri(path) for path in resolution.applied],
        [Conflict(uri=workspace.uri(path), reason=reason) for path, reason in resolution.conflicts],
    )


HANDLERS = {
    "selfloop/gate/list": list_,
    "selfloop/gate/read": read,
    "selfloop/gate/resolve": resolve,
    "selfloop/change/undo": undo,
}
