"""The budgets of one round: its own, below what is left of its loop's day.

Invariant: whatever crosses a limit, the limit has one name, and one that is the day's ends with `-day`. A round of a
loop whose day is used up is refused at its first call, before anything is spent.
"""

from __future__ import annotations

from typing import get_args

from attrs import frozen

from selfloop.errors import BudgetExceeded
from selfloop.loops.report import LimitName
from selfloop.loops.spec import LoopBudget
from selfloop.messages import Usage
from selfloop.model.budget import Budget, Limits, Price
from selfloop.storage.loop_spend import NOTHING, LoopUse


def left_of(limits: Limits, use: LoopUse) -> Limits:
    """Return what a day's limits still allow; a limit that is used up is 0, which refuses every call."""

    def left(limit: int | None, used: int) -> int | None:
        return None if limit is None else max(0, limit - used)

    def left_part(limit: float | None, used: float) -> float | None:
        return None if limit is None else max(0.0, limit - used)

    usage = use.usage
    return Limits(
        max_input_tokens=left(limits.max_input_tokens, usage.input_tokens),
        max_output_tokens=left(limits.max_output_tokens, usage.output_tokens),
        max_total_tokens=left(limits.max_total_tokens, usage.input_tokens + usage.output_tokens),
        max_cost_usd=left_part(limits.max_cost_usd, usage.cost_usd or 0.0),
        max_seconds=left_part(limits.max_seconds, use.seconds),
        max_iterations=left(limits.max_iterations, use.calls),
    )


class DayBudget(Budget):
    """What is left of a day; a refusal names the day's limit."""

    def _grant(self, input_tokens: int, want_output: int, price: Price | None) -> int:
        try:
            return super()._grant(input_tokens, want_output, price)
        except BudgetExceeded as error:
            message = f"Of the loop's budget for today too little is left: {error.message}"
            raise BudgetExceeded(message, limit=f"{error.limit}-day") from error


@frozen
class RoundBudgets:
    """A round's two budgets. Maker, checker and their sub-agents are charged to `round`, which charges the day."""

    round: Budget
    day: DayBudget

    @staticmethod
    def open(
        budget: LoopBudget, use: LoopUse, spent: Usage = NOTHING, calls: int = 0, seconds: float = 0.0
    ) -> RoundBudgets:
        """Begin, or take up, a round.

        Args:
            budget: the loop's.
            use: what its other rounds have used today.
            spent: what this round used before it was killed; it counts for the round and for the day.
            calls: how often it called the model before.
            seconds: how long it was at work before; while nothing ran, no time is counted.
        """
        day = DayBudget(left_of(budget.day, use))
        own = Budget(budget.round, day)
        for part in (own, day):
            part.take_up(spent, calls, seconds)
        return RoundBudgets(own, day)

    def crossed(self) -> LimitName | None:
        """Return the limit that the settled use has crossed, the day's before the round's; None: none."""
        name = self.day.crossed()
        return limit_name(f"{name}-day") if name else limit_name(self.round.crossed())


_NAMES: tuple[LimitName, ...] = get_args(LimitName)


def limit_name(name: str | None) -> LimitName | None:
    """Return a limit's name as reports have it; None for None, and for a name that is none."""
    return next((known for known in _NAMES if known == name), None)
