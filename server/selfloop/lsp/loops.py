"""Loops and their rounds as a person meets them: list, configure, run, read, cancel; and what was spent."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, get_args

from msgspec.structs import replace

from selfloop.errors import InvalidInput, Unknown
from selfloop.lsp.loop_messages import (
    LoopConfigureParams,
    LoopConfigureResult,
    LoopListParams,
    LoopListResult,
    RunListParams,
    RunListResult,
    RunningInfo,
    RunReadResult,
    RunRef,
    RunStartParams,
    SpendListParams,
    SpendListResult,
    SpendRow,
)
from selfloop.lsp.server import SelfloopServer
from selfloop.lsp.values import ContextItem, Empty, FileDiff
from selfloop.reports import EvidenceInfo
from selfloop.reports import Phase as RunPhase
from selfloop.session import Workspace

if TYPE_CHECKING:
    from selfloop.storage.rounds import RoundRecord

MOST_RUNS = 200
PHASES: tuple[RunPhase, ...] = get_args(RunPhase)


def list_loops(ls: SelfloopServer, params: LoopListParams) -> LoopListResult:
    """List the loops of a folder, by name."""
    return LoopListResult(loops=ls.hub.workspace_of(ls, params.workspace_folder).loops.infos())


async def configure(ls: SelfloopServer, params: LoopConfigureParams) -> LoopConfigureResult:
    """Set what the user wants of a loop; more authority opens a gate instead of taking effect."""
    from selfloop.loops.wire import read_budget  # With the loops, which most editors never need.

    workspace = ls.hub.workspace_of(ls, params.workspace_folder)
    key = ls.request_key
    service = await workspace.governed()
    loop = service.catalogue.get(params.loop_id)
    budget = None if params.budget is None else read_budget(params.budget, loop.spec.budget)
    done = service.configure(
        params.loop_id,
        enabled=params.enabled,
        level=params.level,
        cadence=params.cadence,
        budget=budget,
        allow=params.allow,
        key=key,
    )
    return LoopConfigureResult(
        loop=service.info(params.loop_id), gate_id=None if done.gate is None else done.gate.gate_id
    )


async def start(ls: SelfloopServer, params: RunStartParams) -> RunRef:
    """Begin a round now, whether its loop is on or off; updates tell what becomes of it."""
    from selfloop.loops.wire import read_limits

    workspace = ls.hub.workspace_of(ls, params.workspace_folder)
    key = ls.request_key
    marker = secrets.token_hex(6)
    context = _context(ls, workspace, params.context, marker)
    service = await workspace.governed()
    limits = None if params.budget is None else read_limits(params.budget)
    return RunRef(run_id=service.start(params.loop_id, limits=limits, context=context, marker=marker, key=key))


def _context(ls: SelfloopServer, workspace: Workspace, items: list[ContextItem], marker: str) -> str:
    """Return what was handed to a round as its maker is shown it, fenced as data."""
    if not items:
        return ""
    from attrs import evolve

    from selfloop.agent.context import editor_state
    from selfloop.agent.fence import Fence, mend

    snapshot = evolve(ls.documents.snapshot(workspace.path, items), focused=None, selections=())
    return workspace.redact(mend(editor_state(snapshot, Fence(marker))))


def list_runs(ls: SelfloopServer, params: RunListParams) -> RunListResult:
    """List the rounds of every folder, newest first."""
    from selfloop.loops.report import from_json

    limit = 50 if params.limit is None else params.limit
    if limit < 1:
        raise InvalidInput(f"The limit must be at least 1, not {limit}; nothing was read.")
    chosen = params.workspace_folder
    workspaces = ls.hub.workspaces.values() if chosen is None else [ls.hub.workspace_of(ls, chosen)]
    ended: list[tuple[str, RoundRecord]] = []
    under_way: list[tuple[str, RoundRecord]] = []
    for workspace in workspaces:
        rounds, folder = workspace.loops.rounds, workspace.root_uri
        recent = rounds.recent(params.loop_id, min(limit, MOST_RUNS))
        ended += [(folder, one) for one in recent if one.report is not None]
        under_way += [(folder, one) for one in rounds.unfinished() if params.loop_id in (None, one.loop_id)]
    ended.sort(key=lambda row: row[1].started_at, reverse=True)
    return RunListResult(
        runs=[replace(from_json(one.report or ""), workspace_folder=folder) for folder, one in ended[:limit]],
        running=[
            RunningInfo(
                run_id=one.run_id,
                loop_id=one.loop_id,
                phase=_phase(one),
                started_at=one.started_at,
                workspace_folder=folder,
            )
            for folder, one in under_way
        ],
    )


def read(ls: SelfloopServer, params: RunRef) -> RunReadResult:
    """Show a round: its report, what proves it, what its maker changed, and where its agents' work can be read."""
    from selfloop.loops.kept import bring
    from selfloop.loops.report import from_json

    workspace, record = _round(ls, params.run_id)
    steps = workspace.loops.rounds.steps(record.run_id)
    made, checked = (steps[name].result if name in steps else None for name in ("make", "check"))
    report = None if record.report is None else from_json(record.report)
    gates = workspace.gates.of_run(record.run_id)
    rows = (made or {}).get("changes", [])
    return RunReadResult(
        run=report,
        rendered="" if report is None else report.render(),
        evidence=[
            EvidenceInfo(
                check=row["check"],
                command=row["command"],
                exit_code=row["exit_code"],
                uri=workspace.uri(row["path"]) if row["path"] else "",
                counts=row["counts"],
            )
            for row in (checked or {}).get("evidence", [])
        ],
        phase=_phase(record),
        gate_id=report.gate_id if report is not None else gates[0].gate_id if gates else None,
        maker_session_id=record.state.get("maker_session"),
        checker_session_id=record.state.get("checker_session"),
        files=[
            FileDiff(uri=workspace.uri(change.path), operation=change.operation, diff=workspace.diff(change))
            for change in bring(rows, workspace.store)
        ],
    )


def cancel(ls: SelfloopServer, params: RunRef) -> Empty:
    """End a round; its report follows. One that has ended stays as it is."""
    workspace, record = _round(ls, params.run_id)
    workspace.loops.cancel(record.run_id)
    return Empty()


def list_spend(ls: SelfloopServer, params: SpendListParams) -> SpendListResult:
    """List what was used, for each day, loop and session, newest day first."""
    from selfloop.storage.loop_spend import today

    if params.days is not None and not 0 < params.days <= 36_500:
        raise InvalidInput(f"The number of days must be at least 1, not {params.days}; nothing was read.")
    since = None if params.days is None else today() - timedelta(days=params.days - 1)
    workspaces = ls.hub.workspaces.values()
    rows = [(one.root_uri, row) for one in workspaces for row in one.loops.spend.rows(since)]
    rows.sort(key=lambda pair: pair[1].day, reverse=True)
    return SpendListResult(
        rows=[
            SpendRow(
                day=row.day,
                loop_id=row.loop_id,
                session_id=row.session_id,
                input_tokens=row.usage.input_tokens,
                cached_tokens=row.usage.cached_tokens,
                output_tokens=row.usage.output_tokens,
                cost_usd=row.usage.cost_usd,
                workspace_folder=folder,
            )
            for folder, row in rows
        ]
    )


def _round(ls: SelfloopServer, run_id: str) -> tuple[Workspace, RoundRecord]:
    """Find the workspace that has a round.

    Raises:
        Unknown: no workspace has it.
    """
    for workspace in ls.hub.workspaces.values():
        try:
            return workspace, workspace.loops.rounds.get(run_id)
        except Unknown:
            continue
    raise Unknown("Run", run_id)


def _phase(record: RoundRecord) -> RunPhase:
    return next((phase for phase in PHASES if phase == record.phase), "recall")


HANDLERS = {
    "selfloop/loop/list": list_loops,
    "selfloop/loop/configure": configure,
    "selfloop/run/start": start,
    "selfloop/run/list": list_runs,
    "selfloop/run/read": read,
    "selfloop/run/cancel": cancel,
    "selfloop/spend/list": list_spend,
}
