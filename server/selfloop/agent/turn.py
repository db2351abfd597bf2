"""One turn: the model is asked, its calls are carried out in order, until it answers without a call.

    unanswered calls? ──► carry them out ──► take in what came meanwhile ──► done? ──► ask the model ──┐
            ▲─────────────────────────────────────────────────────────────────────────────────────────┘

Invariant: the loop is a function of the history. A turn that was cut off is taken up by running it again on the history
as it was recorded: the calls without a result come first.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, evolve, field

from selfloop.agent.compaction import Compactor
from selfloop.agent.fence import mend
from selfloop.agent.history import History, shortened
from selfloop.agent.stuck import HINT, CircleDetector
from selfloop.agent.tools.tool import Observation, Tool, Workbench, refused
from selfloop.agent.tools.toolbox import LARGEST_ARGUMENTS, Toolbox
from selfloop.errors import BudgetExceeded, ProviderError
from selfloop.messages import Reply, ToolCall
from selfloop.updates import StopReason

if TYPE_CHECKING:
    from selfloop.model.budget import Budget
    from selfloop.model.client import ModelClient

_TORN = (
    "Your reply was cut off at the output limit before this call was whole, so it was not carried out. "
    "Send less at once: write a large file in pieces, or make several small edits."
)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
"""Strict providers refuse a history with such a name, even if only the model has made it up."""
MOST_CALLS = 128
"""Calls in one reply that are carried out."""
_MOST_CUTS = 3
"""Replies in a row that the output limit may cut while they call tools."""


class Report(Protocol):
    """Who hears of a turn, keeps its history, and lets in what comes from outside while it runs.

    What is told here stands in the history when the method returns: a reply, a call's result, an input.
    """

    def asking(self) -> str:
        """A request goes out; returns the id of the message that it will bring."""
        ...

    def wrote(self, message_id: str, text: str) -> None:
        """A piece of the answer has come."""
        ...

    def thought(self, message_id: str, text: str) -> None:
        """A piece of the model's reasoning has come."""
        ...

    def replied(self, message_id: str, reply: Reply, withheld: tuple[str, ...]) -> None:
        """The answer is whole. `withheld` are the calls whose arguments were redacted."""
        ...

    def cut_off(self, message_id: str) -> None:
        """The answer will not become whole."""
        ...

    def started(self, call: ToolCall, tool: Tool | None, params: Any) -> None:
        """A call begins."""
        ...

    def ended(self, call: ToolCall, observation: Observation) -> None:
        """A call has its result."""
        ...

    async def take_in(self) -> None:
        """Let in what has come meanwhile: the user's steering, decisions."""
        ...

    async def changed(self) -> None:
        """Files of the worktree have changed."""
        ...


@define
class Turn:
    """One turn of an agent or a sub-agent."""

    model: ModelClient
    toolbox: Toolbox
    bench: Workbench
    history: History
    budget: Budget
    compactor: Compactor
    report: Report
    _circles: CircleDetector = field(factory=CircleDetector, init=False)
    _whole: dict[str, ToolCall] = field(factory=dict, init=False)
    """Calls as the model sent them, where what is kept of them is redacted."""
    _cuts: int = field(default=0, init=False)

    async def run(self) -> StopReason:
        """Go on until the model is done, or goes round in circles, or its output limit ends it.

        Raises:
            BudgetExceeded: the next call would cross a limit.
            ProviderError: the provider failed; the history is as it was before the call.
        """
        while True:
            for call in self.history.unanswered():
                if await self._carry_out(self._whole.get(call.id, call)) == "stop":
                    return "stuck"
            if self._cuts >= _MOST_CUTS:
                return "max_tokens"
            await self.report.take_in()
            last = self.history.entries[-1]
            if last.kind == "reply":
                return self._cut_short() if last.cut else "end_turn"
            await self.compactor.fit(self.history, self.toolbox.specs, self.budget)
            await self._ask()

    def _cut_short(self) -> StopReason:
        """Return what has cut the last answer short: the model's own limit, or what was left of the budget."""
        limit, spent = self.budget.limits.max_total_tokens, self.budget.spent
        next_call = self.compactor.tokens(self.history, self.toolbox.specs)
        if limit is not None and spent.input_tokens + spent.output_tokens + next_call > limit:
            raise BudgetExceeded(
                f"The budget of {limit:,} tokens ended the answer before it was whole; raise the limit, or go on with "
                "a new message.",
                limit="total-tokens",
            )
        return "max_tokens"

    async def _ask(self) -> None:
        """Ask the model once, and put its answer into the history."""
        try:
            reply = await self._request()
        except ProviderError as error:
            if error.kind != "context":
                raise
            # The provider counts otherwise than we do: shrink by its word and ask once more.
            tokens = self.compactor.tokens(self.history, self.toolbox.specs)
            room = min(self.compactor.room(), round(tokens * 0.7))
            await self.compactor.shrink(self.history, self.toolbox.specs, self.budget, room)
            reply = await self._request()
        self._keep(*reply)

    async def _request(self) -> tuple[str, Reply]:
        message_id = self.report.asking()
        wire = self.history.wire()
        try:
            reply = await self.model.complete(
                wire,
                self.toolbox.specs,
                budget=self.budget,
                on_text=lambda text: self.report.wrote(message_id, text),
                on_thought=lambda text: self.report.thought(message_id, text),
            )
        except (asyncio.CancelledError, ProviderError):
            self.report.cut_off(message_id)
            raise
        if reply.usage_known:
            self.compactor.learn(self.model.count_tokens(wire, self.toolbox.specs), reply.usage.input_tokens)
        return message_id, reply

    def _keep(self, message_id: str, reply: Reply) -> None:
        """Put an answer into the history, without secrets; the calls are still carried out as they were sent."""
        clean = self.bench.redact
        kept = []
        for call in reply.message.tool_calls:
            arguments = clean(mend(call.arguments))
            if len(arguments) > LARGEST_ARGUMENTS:
                # It is refused in any case, and would fill the context of every request to come.
                arguments = shortened(arguments)
            if arguments != call.arguments:
                self._whole[call.id] = call
            name = _NOT_IN_NAMES.sub("_", call.name)[:64] or "unknown"
            if name != call.name:
                self._whole[call.id] = call
            kept.append(evolve(call, name=name, arguments=arguments))
        message = evolve(reply.message, content=clean(mend(reply.message.content)), tool_calls=tuple(kept))
        self._cuts = self._cuts + 1 if reply.finish_reason == "length" else 0
        self.report.replied(message_id, evolve(reply, message=message), tuple(self._whole))

    def _place_of(self, call: ToolCall) -> int:
        """Return how many calls stand before this one in its reply."""
        reply = next(entry.message for entry in reversed(self.history.entries) if entry.kind == "reply")
        return [one.id for one in reply.tool_calls].index(call.id)

    async def _carry_out(self, call: ToolCall) -> str:
        """Carry out one call and put its result into the history. Returns whether to go on."""
        tool, params, observation = self.toolbox.read(call)
        if observation is not None and self._cuts and self.history.unanswered()[-1].id == call.id:
            observation = evolve(observation, text=_TORN)
        if self._place_of(call) >= MOST_CALLS:
            observation = refused(
                f"A reply may have {MOST_CALLS} calls at most, so this one was not carried out; send it again."
            )
        self.report.started(call, tool, params)
        if observation is None and tool is not None:
            observation = await self.toolbox.run(tool, params, call, self.bench)
        assert observation is not None  # noqa: S101  The toolbox gives parameters or an observation.
        circle = self._circles.observe(call.name, call.arguments, observation.text)
        text = observation.text if circle == "on" else f"{observation.text}\n\n{HINT}"
        observation = evolve(observation, text=self.bench.redact(mend(text)))
        self._whole.pop(call.id, None)
        self.report.ended(call, observation)
        if observation.changed:
            await self.report.changed()
        return circle
