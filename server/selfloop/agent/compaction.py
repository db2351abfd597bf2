"""Makes room when the model's context fills.

    too full ──► drop old tool output, all at once ──► still too full ──► summarise all but the newest part

Invariants: the system text, the project's rules, what the user said and what the user rejected stay word for word,
however often this runs; they never pass through the summariser. No tool call is torn from its result. A rewrite is
recorded, so that a restart comes to the same history.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

from selfloop.agent.fence import Fence, mend
from selfloop.agent.history import Entry, History, Pin, pin_data
from selfloop.agent.prompts import Prompts
from selfloop.errors import ProviderError
from selfloop.messages import Message, ToolSpec, Usage

if TYPE_CHECKING:
    from selfloop.model.budget import Budget
    from selfloop.model.client import ModelClient

logger = logging.getLogger(__name__)

FULL = 0.8
"""Share of the room for input at which something is done."""
ENOUGH = 0.6
"""Dropping output alone is enough when it comes down to this: a summary soon after would cost the cache again."""
KEPT = 0.3
"""Share that the newest part may have."""
PINNED = 0.25
"""Share that the words of finished tasks may have; those of the running task always stay."""
WORTH = 0.1
"""Share that a summary has to save at least; otherwise it would be written anew with every call."""
CHARS_PER_TOKEN = 3
"""On the safe side for code."""
_SUMMARY_TOKENS = 2_000
_CALL_CHARS = 1_200
_RESULT_CHARS = 1_600


@define
class Compactor:
    """Keeps one history within the model's context."""

    model: ModelClient
    prompts: Prompts
    fence: Fence
    rewrite: Callable[[dict[str, Any]], None]
    """Records a rewrite of the history and carries it out: `History.rewrite`."""
    redact: Callable[[str], str]
    task: Callable[[], int] = lambda: 1
    """The number of the running task."""
    used: Callable[[Usage], None] = lambda usage: None
    """Hears what a summary has cost."""
    _ratio: float = field(default=1.0, init=False)
    """What the provider counts for one token of our estimate."""

    def learn(self, estimated: int, reported: int) -> None:
        """Correct the estimate by what the provider has counted."""
        if estimated > 0 and reported > 0:
            self._ratio = min(4.0, max(1.0, reported / estimated))

    def tokens(self, history: History, tools: Sequence[ToolSpec]) -> int:
        """Return how many tokens a request would have."""
        return round(self.model.count_tokens(history.wire(), tools) * self._ratio)

    def room(self) -> int:
        """Return how many tokens the input may have, so that there is still room for an answer."""
        limit = self.model.context_limit()
        return limit - min(8_192, limit // 4)

    async def fit(self, history: History, tools: Sequence[ToolSpec], budget: Budget) -> None:
        """Make room if the history has come near the model's limit."""
        tokens = self.tokens(history, tools)
        if tokens > FULL * self.room():
            await self.shrink(history, tools, budget, self.room())

    async def shrink(self, history: History, tools: Sequence[ToolSpec], budget: Budget, room: int) -> None:
        """Bring the history well below `room` tokens.

        Raises:
            ProviderError: what must stay word for word does not fit by itself; nothing is lost, and the sentence says
            so.
        """
        keep_chars = round(KEPT * room * CHARS_PER_TOKEN)
        old = history.droppable(keep_chars)
        if old:
            self.rewrite({"dropped": old})
        if self.tokens(history, tools) <= ENOUGH * room:
            return
        await self._summarise(history, budget, room)
        for keep in (2 * keep_chars, keep_chars, keep_chars // 4):
            # Not even what the last reply has asked for fits: as much of it as can be is still shown.
            if self.tokens(history, tools) > room and (rest := history.droppable(keep, unseen=True)):
                self.rewrite({"dropped": rest})
        if self.tokens(history, tools) > room:
            raise ProviderError(
                f"What you said in this task does not fit into the model's context of {self.model.context_limit():,} "
                "tokens, so the model was not asked; use a model with a larger context, or a new session with less "
                "text.",
                kind="context",
            )

    async def _summarise(self, history: History, budget: Budget, room: int) -> None:
        sizes = [len(str(entry.message.to_wire())) for entry in history.entries]
        end = history.cut_before(sizes, round(KEPT * room * CHARS_PER_TOKEN))
        head = history.head()
        pins = self._pins(history.pins(end), round(PINNED * room * CHARS_PER_TOKEN))
        if sum(sizes[head:end]) - sum(len(pin.text) for pin in pins) < WORTH * room * CHARS_PER_TOKEN:
            return
        folded = history.entries[head:end]
        summary = await self._summary(folded, budget, room)
        content = self.prompts.render("compacted", words=_words(pins), summary=summary)
        self.rewrite({"folded": end, "content": content, "pins": pin_data(pins)})

    def _pins(self, pins: list[Pin], most_chars: int) -> list[Pin]:
        """Leave out the oldest words of finished tasks where there are too many; never those of the running task."""
        task = self.task()
        over = sum(len(pin.text) for pin in pins) - most_chars
        kept = []
        for pin in pins:
            if over > 0 and pin.task != task:
                over -= len(pin.text)
            else:
                kept.append(pin)
        return kept

    async def _summary(self, folded: Sequence[Entry], budget: Budget, room: int) -> str:
        transcript = _transcript(folded, round(0.5 * room * CHARS_PER_TOKEN))
        request = [
            Message("system", self.prompts.render("compact")),
            Message("user", self.fence.data(transcript, source="the conversation so far")),
        ]
        try:
            reply = await self.model.complete(
                request, (), budget=budget, max_output_tokens=min(_SUMMARY_TOKENS, max(256, room // 8))
            )
        except ProviderError as error:
            # The words of the user are safe either way, so a plain record of the calls is better than an end.
            logger.warning("The summary could not be written: %s", error.message)
            return f"No summary could be written. These calls were made, oldest first:\n{_calls(folded)}"
        self.used(reply.usage)
        return self.redact(mend(reply.message.content)).strip() or f"These calls were made:\n{_calls(folded)}"


def _words(pins: Sequence[Pin]) -> str:
    if not pins:
        return "(nothing)"
    return "\n\n".join(f"{number}. {pin.label}, task {pin.task}:\n{pin.text}" for number, pin in enumerate(pins, 1))


def _transcript(entries: Sequence[Entry], most_chars: int) -> str:
    """Return what happened as text for the summariser: the words whole, calls and results shortened."""
    parts: list[str] = []
    for entry in entries:
        message = entry.message
        if entry.kind == "result":
            parts.append(f"RESULT: {_shortened(message.content, _RESULT_CHARS)}")
        elif entry.kind == "reply":
            if message.content:
                parts.append(f"AGENT: {message.content}")
            parts += [f"CALL {call.name}: {_shortened(call.arguments, _CALL_CHARS)}" for call in message.tool_calls]
        else:
            parts.append(f"{'EARLIER SUMMARY' if entry.kind == 'summary' else 'USER'}: {message.content}")
    return _shortened("\n\n".join(parts), most_chars)


def _calls(entries: Sequence[Entry]) -> str:
    calls = [call for entry in entries for call in entry.message.tool_calls]
    return "\n".join(f"- {call.name} {_shortened(call.arguments, 160)}" for call in calls[-60:]) or "- none"


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}\n[… {len(text) - most} characters left out …]\n{text[-(most - most // 2) :]}"
