"""The messages of loops, rounds and what they spend; `protocol.py` has the contract."""

from __future__ import annotations

import msgspec

from selfloop.lsp.values import ContextItem, FileDiff
from selfloop.reports import BudgetInfo, EvidenceInfo, LimitsInfo, LoopInfo, Phase, RoundReport
from selfloop.wire import Wire


class LoopListParams(Wire):
    workspace_folder: str | None = None
    """URI of the folder; absent: the first one of the window."""


class LoopListResult(Wire):
    loops: list[LoopInfo]


class LoopConfigureParams(Wire):
    """What is absent stays as it is."""

    loop_id: str
    enabled: bool | None = None
    level: str | None = None
    cadence: str | None = None
    budget: BudgetInfo | None = None
    allow: list[str] | None = None
    workspace_folder: str | None = None


class LoopConfigureResult(Wire):
    loop: LoopInfo
    """As it is now."""
    gate_id: str | None = None
    """The gate that asks for what gives it more authority; that part takes effect once it is approved."""


class RunStartParams(Wire):
    loop_id: str
    budget: LimitsInfo | None = None
    """Of this round; absent: the loop's."""
    context: list[ContextItem] = msgspec.field(default_factory=list)
    """As in a prompt; added to the maker's task."""
    workspace_folder: str | None = None


class RunRef(Wire):
    run_id: str


class RunListParams(Wire):
    loop_id: str | None = None
    limit: int | None = None
    """Absent: 50."""
    workspace_folder: str | None = None
    """Absent: the rounds of every folder."""


class RunningInfo(Wire):
    """A round that has not ended."""

    run_id: str
    loop_id: str
    phase: Phase
    started_at: str
    workspace_folder: str


class RunListResult(Wire):
    runs: list[RoundReport]
    """The ended ones, newest first."""
    running: list[RunningInfo] = msgspec.field(default_factory=list)


class RunReadResult(Wire):
    rendered: str
    """The report for people, line by line; empty while the round runs."""
    evidence: list[EvidenceInfo]
    phase: Phase
    run: RoundReport | None = None
    """Absent while the round runs."""
    gate_id: str | None = None
    """The first of its gates; others carry the same `runId`."""
    maker_session_id: str | None = None
    """Where `session/read` tells what the maker did."""
    checker_session_id: str | None = None
    files: list[FileDiff] = msgspec.field(default_factory=list)
    """What the maker has changed."""


class SpendListParams(Wire):
    days: int | None = None
    """Only the last so many, today included; absent: all."""


class SpendRow(Wire):
    """What one loop, or one session, used on one day of the user's calendar."""

    day: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    workspace_folder: str
    loop_id: str | None = None
    session_id: str | None = None
    cost_usd: float | None = None


class SpendListResult(Wire):
    rows: list[SpendRow]
    """Newest day first."""
