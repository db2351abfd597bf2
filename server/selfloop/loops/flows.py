"""A loop whose round is no maker and checker but steps of its own: given to the engine from above, by action kind.

Invariant: the engine treats the steps of a flow as it treats its own. Each has one stored result, a round that was
killed is taken up at its step, and it always ends in a report; the engine knows nothing of what the steps do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from attrs import frozen

from selfloop.gates.gate import GateRecord
from selfloop.loops.report import Phase
from selfloop.loops.spec import LoopSpec
from selfloop.loops.steps import Result, Round


@frozen
class Stage:
    """One step as the engine carries it out."""

    name: str
    phase: Phase
    """What clients are told while it runs."""
    label: str
    """How its error begins, for people and for whoever reads reports by program."""
    work: Callable[[], Awaitable[Result]]
    """A result with `ended` in it is the last one of the round."""
    whole: bool = False
    """It comes to its end once it has begun: half of it is worse than all of it."""


class Flow(Protocol):
    """The steps of the rounds of one action kind, and what follows a person's answer to what they ask."""

    def stages(self, one: Round, now: LoopSpec) -> Sequence[Stage]:
        """Return the steps of a round, in order.

        Args:
            one: the round.
            now: its loop as the user's settings have it by now.
        """
        ...

    def as_round(self, results: Mapping[str, Result]) -> Mapping[str, Result]:
        """Return the results as a report reads them: `make`, `check`, `decide` and `act`."""
        ...

    async def close(self, one: Round) -> None:
        """Let go of what the round has held, whether it has ended or is only cut off."""
        ...

    async def take_up(self) -> None:
        """Look after a start at what has become of what was approved before."""
        ...

    def check_answer(self, record: GateRecord, option_id: str) -> None:
        """Refuse an answer that cannot be carried out, by raising; it is not recorded then."""
        ...

    async def approved(self, record: GateRecord) -> None:
        """Carry out what a person has approved."""
        ...

    async def rejected(self, record: GateRecord) -> None:
        """Take notice of what a person has rejected, and of his reason."""
        ...

    async def swapped(self, number: int, state: str, reason: str | None) -> None:
        """Take notice of what has become of something that was approved and is being put in place."""
        ...
