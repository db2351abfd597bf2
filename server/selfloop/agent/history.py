"""The messages of one conversation, as they go to the model.

Invariants: it only grows at its end, so that a provider's cache fits; only compaction rewrites, and then only what
stands behind the system text and the project. Every tool call of a reply is answered before anything else follows it.
What the user said or decided is pinned: it survives compaction word for word.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from attrs import define, evolve, field, frozen

from selfloop.messages import Message, ToolCall

EntryKind = Literal["system", "project", "input", "reply", "result", "summary"]
_HEAD = ("system", "project")
_DROPPED = "(This output was dropped to make room. Call the tool again if you still need it.)"
_DROPPED_UNSEEN = (
    "(This output was dropped before you saw it, because it did not fit beside the others. Call the tool again by "
    "itself, or with a smaller range.)"
)
_LONGEST_BRIEF_CHARS = 4_000
WORTH_DROPPING_CHARS = 400
"""A shorter output costs less than the sentence and the second call that would replace it."""


@frozen
class Pin:
    """Something that must stay word for word."""

    label: str
    """Who said it, such as `The user`."""
    text: str
    task: int
    """The number of the task that it belongs to."""


@frozen
class Entry:
    """One message, and what compaction must know of it."""

    message: Message
    kind: EntryKind
    pins: tuple[Pin, ...] = ()
    cut: bool = False
    """A reply that the output limit ended."""


@define
class History:
    """See the module."""

    entries: list[Entry] = field(factory=list)

    def add(self, entry: Entry) -> None:
        """Put an entry at the end."""
        self.entries.append(entry)

    def wire(self) -> list[Message]:
        """Return the messages for the model. Neighbouring user messages become one: some chat templates demand it."""
        messages: list[Message] = []
        for entry in self.entries:
            message = entry.message
            if messages and message.role == "user" and messages[-1].role == "user":
                messages[-1] = evolve(messages[-1], content=f"{messages[-1].content}\n\n{message.content}")
            else:
                messages.append(message)
        return messages

    def unanswered(self) -> list[ToolCall]:
        """Return the calls of the last reply that have no result yet, in order."""
        answered: set[str | None] = set()
        for entry in reversed(self.entries):
            if entry.kind == "result":
                answered.add(entry.message.tool_call_id)
            else:
                return [call for call in entry.message.tool_calls if call.id not in answered]
        return []

    def head(self) -> int:
        """Return how many entries stand before the conversation proper: never touched by compaction."""
        return next((i for i, entry in enumerate(self.entries) if entry.kind not in _HEAD), len(self.entries))

    def droppable(self, keep: int, *, unseen: bool = False) -> list[str]:
        """Return the calls that may be shortened: all but the newest ones that fit into `keep` characters.

        Results that the model has not been shown yet are among them only with `unseen`.
        """
        shown = len(self.entries) if unseen else self._unseen()
        given = {call.id: len(call.arguments) for entry in self.entries for call in entry.message.tool_calls}
        ids: list[str] = []
        kept = 0
        for index in range(len(self.entries) - 1, -1, -1):
            entry = self.entries[index]
            call_id = entry.message.tool_call_id
            if entry.kind != "result" or call_id is None:
                continue
            size = len(entry.message.content) + given.get(call_id, 0)
            kept += size
            if kept > keep and size > WORTH_DROPPING_CHARS and index < shown:
                ids.append(call_id)
        return ids[::-1]

    def drop(self, call_ids: Collection[str]) -> None:
        """Shorten calls and replace their output by a sentence. Both stay, so no pair is torn."""
        chosen = set(call_ids)
        unseen = self._unseen()
        self.entries = [
            _dropped(entry, chosen, _DROPPED if index < unseen else _DROPPED_UNSEEN)
            for index, entry in enumerate(self.entries)
        ]

    def _unseen(self) -> int:
        """Return where what came after the last reply begins: no request has shown it to the model."""
        count = len(self.entries)
        return next((i + 1 for i in range(count - 1, -1, -1) if self.entries[i].kind == "reply"), 0)

    def cut_before(self, sizes: Sequence[int], keep: int) -> int:
        """Return where the newest part begins that fits into `keep` and tears no call from its results.

        The last reply with its results is always kept, however large it is; so is an input that nothing answered yet.
        """
        head = self.head()
        best = len(self.entries)
        total = 0
        for index in range(len(self.entries) - 1, head - 1, -1):
            total += sizes[index]
            starts = self.entries[index].kind != "result"
            if best < len(self.entries) and total > keep:
                break
            if starts:
                best = index
        return best

    def fold(self, end: int, summary: Entry) -> None:
        """Replace everything between the head and `end` by one summary."""
        self.entries[self.head() : end] = [summary]

    def rewrite(self, change: Mapping[str, Any]) -> None:
        """Carry out a compaction as it is recorded: `{dropped}`, or `{folded, content, pins}`."""
        if "dropped" in change:
            self.drop(change["dropped"])
        else:
            pins = read_pins(change["pins"])
            self.fold(change["folded"], Entry(Message("user", change["content"]), "summary", pins))

    def pins(self, end: int) -> list[Pin]:
        """Return what must stay word for word of the entries before `end`, oldest first."""
        return [pin for entry in self.entries[:end] for pin in entry.pins]


def shortened(arguments: str) -> str:
    """Return a call's arguments with their long texts left out; JSON stays JSON."""
    try:
        values = json.loads(arguments, strict=False)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return json.dumps({"dropped": f"{len(arguments)} characters"})
    brief = {
        name: f"({len(value)} characters, dropped)"
        if isinstance(value, str) and len(value) > WORTH_DROPPING_CHARS
        else value
        for name, value in values.items()
    }
    text = json.dumps(brief, ensure_ascii=False)
    return text if len(text) <= _LONGEST_BRIEF_CHARS else json.dumps({"dropped": f"{len(arguments)} characters"})


def _dropped(entry: Entry, call_ids: Collection[str], sentence: str) -> Entry:
    message = entry.message
    if entry.kind == "result":
        if message.tool_call_id not in call_ids or len(message.content) <= WORTH_DROPPING_CHARS:
            return entry
        return evolve(entry, message=evolve(message, content=sentence))
    if not any(call.id in call_ids and len(call.arguments) > WORTH_DROPPING_CHARS for call in message.tool_calls):
        return entry
    calls = tuple(
        evolve(call, arguments=shortened(call.arguments))
        if call.id in call_ids and len(call.arguments) > WORTH_DROPPING_CHARS
        else call
        for call in message.tool_calls
    )
    return evolve(entry, message=evolve(message, tool_calls=calls))


def pin_data(pins: Iterable[Pin]) -> list[dict[str, Any]]:
    """Return pins as they are recorded."""
    return [{"label": pin.label, "text": pin.text, "task": pin.task} for pin in pins]


def read_pins(data: Iterable[Mapping[str, Any]]) -> tuple[Pin, ...]:
    """Return pins from what `pin_data` has made of them."""
    return tuple(Pin(pin["label"], pin["text"], pin["task"]) for pin in data)
