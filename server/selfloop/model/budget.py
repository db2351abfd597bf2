"""Budgets: what a turn, a sub-agent or a round may use, reserved before it is spent and settled after.

    reserve ──▶ the call ──▶ settle(usage)     the provider said what it used
                        ├──▶ settle(None)      it did not say: the reservation stands, which is the worst case
                        └──▶ release           nothing was sent, or the provider refused it: it costs nothing

Invariant: spent + reserved never crosses a limit by our own decision. Only a provider that uses more than it was
granted can do that, and then `crossed` names the limit. A child charges its parents too, so that sub-agents cannot
spend more than who started them. Limits trip on strictly more, in the order input, output, total, cost, seconds,
iterations. A budget belongs to one event loop and takes no lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from attrs import frozen

from selfloop.errors import BudgetExceeded
from selfloop.messages import Usage


@frozen
class Limits:
    """What may be used at most; None: no limit."""

    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_total_tokens: int | None = None
    max_cost_usd: float | None = None
    max_seconds: float | None = None
    max_iterations: int | None = None


@frozen
class Price:
    """What one token costs, in US dollars."""

    input_usd: float
    cached_usd: float
    output_usd: float

    def of(self, usage: Usage) -> float:
        """Return what this use costs."""
        fresh = usage.input_tokens - usage.cached_tokens
        return fresh * self.input_usd + usage.cached_tokens * self.cached_usd + usage.output_tokens * self.output_usd


@frozen(eq=False)
class Reservation:
    """What was set aside for one call. It is settled or released exactly once; a second time changes nothing."""

    input_tokens: int
    output_tokens: int
    """The most that the answer may have: to be sent with the request."""
    price: Price | None

    @property
    def worst(self) -> Usage:
        """The whole reservation as usage."""
        usage = Usage(self.input_tokens, 0, self.output_tokens)
        return usage if self.price is None else self.priced(usage)

    def priced(self, usage: Usage) -> Usage:
        """Return the usage with its cost, if the provider told none and the price is known."""
        if usage.cost_usd is not None or self.price is None:
            return usage
        return Usage(usage.input_tokens, usage.cached_tokens, usage.output_tokens, self.price.of(usage))


class Budget:
    """One budget, below its parent's."""

    def __init__(
        self, limits: Limits, parent: Budget | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self.spent = Usage()
        """What was settled."""
        self.iterations = 0
        """Calls settled or under way."""
        self._parent = parent
        self._clock = clock
        self._started = clock()
        self._open: set[Reservation] = set()

    def take_up(self, spent: Usage, iterations: int, seconds: float) -> None:
        """Count what was used, its price included, before the work was cut off; nothing of it goes to the parent."""
        self.spent += spent
        self.iterations += iterations
        self._started -= seconds

    def reserve(self, input_tokens: int, want_output: int, price: Price | None = None) -> Reservation:
        """Set aside what a call needs: all of its input, and as output what is wanted or what is left, if that is less.

        Raises:
            BudgetExceeded: the call cannot be made without crossing a limit here or in a parent; nothing is set aside.
        """
        granted = min(
            (budget._grant(input_tokens, want_output, price) for budget in self._chain()), default=want_output
        )
        reservation = Reservation(input_tokens, granted, price)
        for budget in self._chain():
            budget._open.add(reservation)
            budget.iterations += 1
        return reservation

    def settle(self, reservation: Reservation, usage: Usage | None) -> Usage:
        """Charge what the call used, and return what was charged; None: unknown, the whole reservation is charged."""
        charged = reservation.worst if usage is None else reservation.priced(usage)
        for budget in self._chain():
            if reservation in budget._open:
                budget._open.discard(reservation)
                budget.spent += charged
        return charged

    def release(self, reservation: Reservation) -> None:
        """Give everything back: the call was not made, or was refused unread."""
        for budget in self._chain():
            if reservation in budget._open:
                budget._open.discard(reservation)
                budget.iterations -= 1

    def crossed(self) -> str | None:
        """Return the wire name of the first limit that is crossed, here or in a parent, else None."""
        for budget in self._chain():
            for name, limit, used in budget._measures(budget.spent):
                if limit is not None and used > limit:
                    return name
        return None

    def seconds_left(self) -> float | None:
        """Return how long work may still go on; None: without limit. Never below 0."""
        left = [
            budget.limits.max_seconds - (budget._clock() - budget._started)
            for budget in self._chain()
            if budget.limits.max_seconds is not None
        ]
        return max(0.0, min(left)) if left else None

    def tokens_left(self) -> int | None:
        """Return how many tokens, of input and output together, are not used yet; None: without limit."""
        left = [
            budget.limits.max_total_tokens - budget.spent.input_tokens - budget.spent.output_tokens
            for budget in self._chain()
            if budget.limits.max_total_tokens is not None
        ]
        return max(0, min(left)) if left else None

    def _chain(self) -> Iterator[Budget]:
        budget: Budget | None = self
        while budget is not None:
            yield budget
            budget = budget._parent

    def _grant(self, input_tokens: int, want_output: int, price: Price | None) -> int:
        """Return how much output this budget alone allows; at least 1, else it raises."""
        limits = self.limits
        held = Usage(cost_usd=0.0) + self.spent
        for reservation in self._open:
            held += reservation.worst
        if limits.max_cost_usd is not None and price is None:
            raise BudgetExceeded(
                "A cost limit is set, but the price of this model is not known, so it was not called; take the cost "
                "limit away, or limit tokens instead.",
                limit="cost",
            )
        # The least that this call can use is its input and one token of output.
        least = held + Reservation(input_tokens, 1, price).worst
        for name, limit, used in self._measures(least, calls=1):
            if limit is not None and used > limit:
                raise BudgetExceeded(_sentence(name, limit, dict(_pairs(self._measures(held)))[name]), limit=name)
        granted = want_output
        if limits.max_output_tokens is not None:
            granted = min(granted, limits.max_output_tokens - held.output_tokens)
        if limits.max_total_tokens is not None:
            granted = min(granted, limits.max_total_tokens - held.input_tokens - held.output_tokens - input_tokens)
        if limits.max_cost_usd is not None and price is not None and price.output_usd > 0:
            money = limits.max_cost_usd - (held.cost_usd or 0.0) - input_tokens * price.input_usd
            granted = min(granted, int(money / price.output_usd))
        return max(1, granted)

    def _measures(self, usage: Usage, calls: int = 0) -> tuple[tuple[str, float | None, float], ...]:
        """Return (wire name, limit, used) in the order in which limits trip."""
        limits = self.limits
        return (
            ("input-tokens", limits.max_input_tokens, usage.input_tokens),
            ("output-tokens", limits.max_output_tokens, usage.output_tokens),
            ("total-tokens", limits.max_total_tokens, usage.input_tokens + usage.output_tokens),
            ("cost", limits.max_cost_usd, usage.cost_usd or 0.0),
            ("seconds", limits.max_seconds, self._clock() - self._started),
            ("iterations", limits.max_iterations, self.iterations + calls),
        )


def _pairs(measures: tuple[tuple[str, float | None, float], ...]) -> Iterator[tuple[str, float]]:
    return ((name, used) for name, _, used in measures)


def _sentence(name: str, limit: float, used: float) -> str:
    what = {
        "input-tokens": f"{limit:,.0f} input tokens",
        "output-tokens": f"{limit:,.0f} output tokens",
        "total-tokens": f"{limit:,.0f} tokens",
        "cost": f"{limit:,.2f} US dollars",
        "seconds": f"{limit:,.0f} seconds",
        "iterations": f"{limit:,.0f} model calls",
    }[name]
    spent = f"{used:,.2f}" if name == "cost" else f"{used:,.0f}"
    return (
        f"The budget of {what} does not allow another call to the model ({spent} are used or set aside), so it was not "
        "made; raise the limit, or go on with a new message."
    )
