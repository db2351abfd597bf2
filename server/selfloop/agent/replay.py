"""Reads a trajectory back into the state of a conversation: what the model has been shown, and what is still to be
done.

Invariant: the history that comes out is, message for message, the one that a worker had when it wrote the last event.
So a resumed session goes on with the same prefix, and a call whose result stands here is never made again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, evolve, field, frozen

from selfloop.agent.history import Entry, History, Pin, read_pins
from selfloop.messages import Message, Usage
from selfloop.storage.trajectories import Event

logger = logging.getLogger(__name__)


@frozen
class Input:
    """Something that the user said."""

    message_id: str
    turn_id: str
    text: str
    delivery: str
    editor: str = ""
    """What the editor showed at that moment, as the model is told."""
    key: str | None = None


@frozen
class Told:
    """Something that the model is told with the next input: a decision, an interruption."""

    text: str
    pins: tuple[Pin, ...] = ()


@define
class Recorded:
    """The state at the end of a trajectory."""

    history: History = field(factory=History)
    marker: str | None = None
    """Of the session's fence; None: nothing was said yet."""
    rules: str = ""
    """Digest of the project's rules as the model was last shown them."""
    waiting: dict[str, Input] = field(factory=dict)
    """What the user said and no turn has taken up, by message id, in order."""
    requeued: list[str] = field(factory=list)
    """The requests that edited or removed a message that waited, by key."""
    said: set[str] = field(factory=set)
    """Every message of the user's, by id."""
    words: list[str] = field(factory=list)
    """What the user said in the turn that runs, or in the last one."""
    tell: list[Told] = field(factory=list)
    turn_id: str | None = None
    """A turn that has begun and has not ended."""
    cancelled: bool = False
    """The user cancelled that turn."""
    task: int = 0
    begun: set[str] = field(factory=set)
    """Calls that have begun and have no result."""
    asked: set[str] = field(factory=set)
    """Those of them that wait for the user's answer."""
    withheld: set[str] = field(factory=set)
    """Calls whose arguments were redacted here, so that they cannot be made from what is recorded."""
    writing: str | None = None
    """The message that was being written."""
    agents: int = 0
    """Sub-agents started in the session."""
    usage: Usage = field(factory=Usage)
    """Of the session."""
    turn_usage: Usage = field(factory=Usage)
    turn_calls: int = 0
    calls: int = 0
    """Calls of the model in all turns of the session."""
    gates: set[str] = field(factory=set)
    """Gates whose opening is recorded."""

    def take(self, kind: str, data: dict[str, Any]) -> None:
        """Take notice of one event. Kinds that change nothing here are passed over."""
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, data)

    def _on_fence(self, data: dict[str, Any]) -> None:
        self.marker = data["marker"]

    def _on_context(self, data: dict[str, Any]) -> None:
        self.rules = data["rules"]
        self.history.add(Entry(Message("system", data["system"]), "system"))
        self.history.add(Entry(Message("user", data["project"]), "project"))

    def _on_user_input(self, data: dict[str, Any]) -> None:
        self.waiting[data["message_id"]] = Input(
            data["message_id"], data["turn_id"], data["text"], data["delivery"], data["editor"], data.get("key")
        )

        self.said.add(data["message_id"])

    def _on_requeued(self, data: dict[str, Any]) -> None:
        message_id = data["message_id"]
        if data.get("key"):
            self.requeued.append(data["key"])
        if data["text"]:
            self.waiting[message_id] = evolve(self.waiting[message_id], text=data["text"])
        else:
            self.waiting.pop(message_id, None)

    def _on_task_boundary(self, data: dict[str, Any]) -> None:
        self.task = data["number"]

    def _on_turn_start(self, data: dict[str, Any]) -> None:
        self.turn_id = data["turn_id"]
        self.cancelled = False
        self.words = []
        self._on_steer(data)

    def _on_steer(self, data: dict[str, Any]) -> None:
        for message_id in data["message_ids"]:
            if (said := self.waiting.pop(message_id, None)) is not None:
                self.words.append(said.text)
        self.tell.clear()
        self.rules = data.get("rules", self.rules)
        self.history.add(Entry(Message("user", data["content"]), "input", read_pins(data["pins"])))

    def _on_llm_request(self, data: dict[str, Any]) -> None:
        self.writing = data["message_id"]

    def _on_llm_response(self, data: dict[str, Any]) -> None:
        self.writing = None
        message = Message.from_wire(data["message"])
        if message.content or message.tool_calls:
            self.history.add(Entry(message, "reply", cut=data["finish_reason"] == "length"))
        self.withheld |= set(data.get("withheld", ()))
        self._on_usage(data)

    def _on_usage(self, data: dict[str, Any]) -> None:
        usage = Usage(**data["usage"])
        self.usage += usage
        self.turn_usage += usage
        self.turn_calls += 1
        self.calls += 1

    def _on_tool_call(self, data: dict[str, Any]) -> None:
        self.begun.add(data["tool_call_id"])

    def _on_command_asked(self, data: dict[str, Any]) -> None:
        self.asked.add(data["tool_call_id"])

    def _on_command_answered(self, data: dict[str, Any]) -> None:
        self.asked.discard(data["tool_call_id"])

    def _on_tool_result(self, data: dict[str, Any]) -> None:
        self.begun.discard(data["tool_call_id"])
        message = Message("tool", data["content"], tool_call_id=data["tool_call_id"])
        self.history.add(Entry(message, "result"))

    def _on_compaction(self, data: dict[str, Any]) -> None:
        self.history.rewrite(data)

    def _on_sub_agent_start(self, data: dict[str, Any]) -> None:
        self.agents += 1

    def _on_sub_agent_turn(self, data: dict[str, Any]) -> None:
        if "usage" in data:
            self._on_usage(data)

    def _on_gate_opened(self, data: dict[str, Any]) -> None:
        self.gates.add(data["gate_id"])

    def _on_told(self, data: dict[str, Any]) -> None:
        self.tell.append(Told(data["text"], read_pins(data["pins"])))

    def _on_cancel(self, data: dict[str, Any]) -> None:
        self.cancelled = True

    def _on_turn_end(self, data: dict[str, Any]) -> None:
        self.turn_id = None
        self.cancelled = False
        self.writing = None
        self.turn_usage, self.turn_calls = Usage(), 0
        self.begun.clear()
        self.asked.clear()
        for message_id in data["message_ids"]:
            self.waiting.pop(message_id, None)


_HANDLERS: dict[str, Callable[[Recorded, dict[str, Any]], None]] = {
    "fence": Recorded._on_fence,
    "context": Recorded._on_context,
    "user_input": Recorded._on_user_input,
    "requeued": Recorded._on_requeued,
    "task_boundary": Recorded._on_task_boundary,
    "turn_start": Recorded._on_turn_start,
    "steer": Recorded._on_steer,
    "llm_request": Recorded._on_llm_request,
    "llm_response": Recorded._on_llm_response,
    "usage": Recorded._on_usage,
    "tool_call": Recorded._on_tool_call,
    "command_asked": Recorded._on_command_asked,
    "command_answered": Recorded._on_command_answered,
    "tool_result": Recorded._on_tool_result,
    "compaction": Recorded._on_compaction,
    "sub_agent_start": Recorded._on_sub_agent_start,
    "sub_agent_turn": Recorded._on_sub_agent_turn,
    "gate_opened": Recorded._on_gate_opened,
    "told": Recorded._on_told,
    "cancel": Recorded._on_cancel,
    "turn_end": Recorded._on_turn_end,
}


def read(events: Iterable[Event]) -> Recorded:
    """Return the state that a trajectory's events lead to."""
    recorded = Recorded()
    for event in events:
        try:
            recorded.take(event.kind, event.data)
        except (KeyError, TypeError, AttributeError) as error:
            # Better a session with a gap than one that can never be opened again.
            logger.warning("An event of kind %s at %s cannot be read and is left out: %r", event.kind, event.ts, error)
    return recorded
