"""One evolution under way: the round, the present self that it stands on, its bench, and what its steps share.

Invariant: everything that a step needs after a kill stands in the round's results and state, in the repository or in
the sessions' trajectories; an undertaking can be opened again from these alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import msgspec
from attrs import define, field

from selfloop.agent.desk import Desk
from selfloop.evolution.bench import Bench, FencedDoor
from selfloop.evolution.generations import Generations
from selfloop.evolution.home import Home
from selfloop.evolution.prefix import describe
from selfloop.evolution.report import JudgeReport
from selfloop.loops.crew import Member, Role, Site, Unattended
from selfloop.loops.report import Outcome
from selfloop.loops.steps import Result, Round
from selfloop.model.budget import Budget, Limits
from selfloop.sandbox.isolation import Isolation
from selfloop.sandbox.worktree import Worktree


class Judge(Protocol):
    """Who judges a candidate: `judge.judge`, run by the present self from outside the candidate's tree."""

    def __call__(
        self,
        parent: Path,
        child: Path,
        *,
        isolation: Isolation,
        scratch: Path,
        told: Callable[[str], None],
        layers: Collection[str],
    ) -> Awaitable[JudgeReport]:
        """Return the evidence on a candidate; stops at the first layer that fails."""
        ...


@define
class Undertaking:
    """See the module."""

    one: Round
    generations: Generations
    judge: Judge
    bench: Bench
    held: ExitStack
    """What is held for as long as it is under way: the lock."""
    describes: str = field(default="", init=False)

    @property
    def home(self) -> Home:
        """Where the selves lie."""
        return self.generations.home

    @property
    def base(self) -> Result:
        """What the step `prepare` has found: number, tree and commit of the present self, and the sessions."""
        return self.one.results["prepare"]

    @property
    def suggestion(self) -> dict[str, str]:
        """The one that leads."""
        return self.one.results["weigh"]["leading"]

    def spill(self, name: str) -> Path:
        """Return a file for output that is too long."""
        return self.desk("maker").parts.outputs / "task_1" / f"{name}.txt"

    def desk(self, role: Role) -> Desk:
        """Return an agent's desk."""
        return self.one.desk(role)

    def member(
        self,
        role: Role,
        held: frozenset[str],
        finished: Callable[[Any], bool] = lambda bench: False,
        roots: Mapping[str, Path] | None = None,
    ) -> Member:
        """Return an agent of the evolution, who works on a worktree of the present self.

        Args:
            role: whose session it is.
            held: the names of its tools.
            finished: tells whether it has delivered.
            roots: folders that it may read besides, by name.
        """
        desk = self.desk(role)
        if not self.describes:
            self.describes = describe(self.bench.folder, desk.fence())
        more = dict(roots or {})

        def door(worktree: Worktree, outputs: Path) -> FencedDoor:
            return FencedDoor(worktree.door, {"outputs": outputs, **more}, frozenset(more))

        return Member(
            desk,
            role,
            held,
            Budget(Limits(), parent=self.one.budgets.round),
            self.one.charge,
            # What the user always allows in his own folder, the network above all, is not allowed here.
            Unattended(self.one.means.rules, self.bench.folder),
            finished=finished,
            site=Site(self.bench.folder, self.describes, self.bench.tool_settings, door),
        )

    async def close(self) -> None:
        """Let go of everything; what is on the disk stays for whoever takes it up."""
        try:
            await self.bench.close()
        finally:
            self.held.close()


def ending(outcome: Outcome, said: str) -> Result:
    """Return the result of a step that is the round's last: how it ends, and one sentence for people."""
    return {"ended": msgspec.to_builtins(outcome), "said": said}
