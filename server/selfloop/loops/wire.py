"""Loops and their budgets as clients see them, and what a client's budget means.

Invariant: nothing is clamped in silence. A budget on the wire that makes no sense is refused with a sentence.
"""

from __future__ import annotations

from datetime import UTC, datetime

from selfloop.errors import InvalidInput
from selfloop.loops.spec import LoopBudget, LoopSpec, check_limits, limit_names
from selfloop.model.budget import Limits
from selfloop.reports import BudgetInfo, LimitsInfo, LoopInfo, RoundReport


def limits_info(limits: Limits) -> LimitsInfo:
    """Return limits as clients see them."""
    return LimitsInfo(**{name: getattr(limits, name) for name in limit_names()})


def budget_info(budget: LoopBudget) -> BudgetInfo:
    """Return a budget as clients see it."""
    day = limits_info(budget.day) if budget.day != Limits() else None
    return BudgetInfo(**{name: getattr(budget.round, name) for name in limit_names()}, day=day)


def read_limits(info: LimitsInfo) -> Limits:
    """Return what a client's limits mean.

    Raises:
        InvalidInput: one of them makes no sense.
    """
    limits = Limits(**{name: getattr(info, name) for name in limit_names()})
    try:
        check_limits(limits)
    except InvalidInput as error:
        raise InvalidInput(f"{error.message[:1].upper()}{error.message[1:]}, so nothing was changed.") from error
    return limits


def read_budget(info: BudgetInfo, before: LoopBudget) -> LoopBudget:
    """Return what a client's budget means; a day's budget that it leaves out stays as it was.

    Raises:
        InvalidInput: one of the limits makes no sense.
    """
    return LoopBudget(read_limits(info), before.day if info.day is None else read_limits(info.day))


def loop_info(
    spec: LoopSpec,
    *,
    enabled: bool,
    uri: str | None = None,
    next_at: datetime | None = None,
    last_run: RoundReport | None = None,
    notices: tuple[str, ...] = (),
) -> LoopInfo:
    """Return a loop as clients see it."""
    return LoopInfo(
        loop_id=spec.name,
        intent=spec.intent,
        level=spec.level.value,
        max_level=spec.max_level.value,
        cadence=spec.cadence,
        enabled=enabled,
        budget=budget_info(spec.budget),
        action=spec.action,
        allow=list(spec.allow),
        origin=spec.origin,
        uri=uri,
        next_at=next_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if next_at else None,
        last_run=last_run,
        notices=list(notices),
    )
