"""What a tool is: a name, typed parameters, and a coroutine that answers with an observation.

Invariant: a tool never raises to the turn for what the model or the world did wrong; it answers with a sentence that
says what happened, what was not done, and what to do next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from attrs import define, field, frozen

from selfloop.agent.fence import Fence
from selfloop.config import Settings
from selfloop.updates import PlanEntry

if TYPE_CHECKING:
    from selfloop.gates.gate import CommandDecision, CommandRequest
    from selfloop.sandbox.isolation import Isolation
    from selfloop.sandbox.paths import Door
    from selfloop.sandbox.worktree import Worktree
    from selfloop.storage.memory import Memory

Kind = Literal["read", "edit", "delete", "search", "execute", "agent", "memory", "other"]


class Params(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of every tool's parameters. A name that is not one of them is answered, not ignored."""


@frozen
class Observation:
    """What a call came to."""

    text: str
    """What the model is told."""
    failed: bool = False
    changed: bool = False
    """Files of the worktree have, or may have, changed."""


def refused(sentence: str) -> Observation:
    """Return the observation of a call that did nothing."""
    return Observation(sentence, failed=True)


@frozen
class Ran:
    """A command that really ran."""

    command: str
    exit_code: int | None
    """None: its deadline or the user killed it."""
    output: str = ""
    spilled: str | None = None
    """The file of `@outputs` that holds all of a long output."""
    void: str | None = None
    """Why a check that ran so proves nothing, as one sentence; None: nothing was seen that speaks against it."""


def spill_name(tool: str, call_id: str) -> str:
    """Return the name of the file of `@outputs` for what does not fit into the observation of a call."""
    tail = "".join(letter for letter in call_id if letter.isascii() and letter.isalnum())[-12:]
    return f"{tool}-{tail or 'output'}.txt"


class Delegates(Protocol):
    """The sub-agents of a turn."""

    def spawn(self, output: str, task: str) -> Observation:
        """Start one."""
        ...

    async def wait(self, agent_id: str) -> Observation:
        """Wait for one."""
        ...

    async def close(self) -> None:
        """End all."""
        ...


class Asked(Protocol):
    """Whoever answers whether a command may run: the user at a gate or, where nobody is there, a rule."""

    async def ask_command(self, request: CommandRequest) -> CommandDecision:
        """Return the answer; it may take as long as a person takes."""
        ...


@define
class Workbench:
    """What the tools of one turn work with; sub-agents share it but for their own `agents` of None."""

    session_id: str
    workspace: Path
    worktree: Worktree
    door: Door
    """Of the worktree, with `@outputs` beside it: the task's folder."""
    outputs: Path
    isolation: Isolation
    gates: Asked
    memory: Memory
    fence: Fence
    settings: Settings
    window_chars: int
    """How much of a file or of an output one observation may show."""
    redact: Callable[[str], str]
    known_secrets: Callable[[], tuple[str, ...]]
    show_plan: Callable[[list[PlanEntry]], None]
    record: Callable[[str, dict[str, Any]], None]
    """Puts an event into the trajectory."""
    ran: list[Ran] = field(factory=list)
    """The commands of this turn, in order."""
    submitted: list[Params] = field(factory=list)
    """Verdicts and suggestions, where the role has them."""
    editing: asyncio.Lock = field(factory=asyncio.Lock)
    """Held while a file is read, changed and written, since sub-agents share the worktree."""
    checks: Mapping[str, str] = field(factory=dict)
    """The checks by which a verdict is proven, with their commands; none: any of the project's own."""
    proves: bool = False
    """What runs here may be evidence, so each check is looked at before it runs."""
    agents: Delegates | None = None
    """None: this one may not start others."""


@frozen
class Call:
    """One call that is being carried out."""

    id: str
    bench: Workbench


@frozen
class Tool:
    """A tool as the toolbox holds it."""

    name: str
    kind: Kind
    params: type[Params]
    run: Callable[[Call, Any], Awaitable[Observation]]
    title: Callable[[Any], str]
    """What a person reads while it runs."""
    path: Callable[[Any], str | None] = lambda params: None
    """The file that a call is about."""
    deadline_seconds: float | None = 60.0
    """None: the tool keeps its own, because a person may have to answer first."""
