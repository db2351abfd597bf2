"""What a turn tells: to the trajectory, which must be able to bring it back, and to the user, who watches.

Invariant: what happened is recorded before it is shown, and no secret goes either way.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from attrs import asdict, define, field

from selfloop.agent.fence import Fence, mend
from selfloop.agent.history import Entry, History
from selfloop.agent.tools.tool import Observation, Params, Tool
from selfloop.messages import Message, Reply, ToolCall, Usage
from selfloop.storage.secret_stream import RedactedStream
from selfloop.updates import (
    Location,
    MessageChunk,
    MessageUpdate,
    Thought,
    ToolCallUpdate,
    Update,
    UsageUpdate,
)

SHOWN_CHARS = 12_000
"""Of a call's arguments or output in an update; the trajectory has all of it."""


def new_id(kind: str) -> str:
    """Return an id that nothing else has."""
    return f"{kind}-{secrets.token_hex(8)}"


@define
class Channel:
    """The ways out of a conversation."""

    record: Callable[[str, dict[str, Any]], None]
    emit: Callable[[Update], None]
    redact: Callable[[str], str]
    fence: Fence
    uri: Callable[[str], str]

    def tool(
        self, call: ToolCall, tool: Tool | None, params: Params | None, observation: Observation | None, who: str = ""
    ) -> None:
        """Show a call as it stands."""
        title = call.name if tool is None or params is None else tool.title(params)
        path = tool.path(params) if tool is not None and params is not None else None
        located = path is not None and not path.startswith("@")
        status = "running" if observation is None else "failed" if observation.failed else "completed"
        self.emit(
            ToolCallUpdate(
                tool_call_id=call.id,
                title=self.redact(f"{who}{title}")[:300],
                kind=tool.kind if tool is not None else "other",
                status=status,
                locations=[Location(uri=self.uri(path))] if path is not None and located else [],
                input=self.redact(call.arguments)[:SHOWN_CHARS],
                output=None if observation is None else self.fence.strip(observation.text)[:SHOWN_CHARS],
            )
        )


@define
class ChatReport:
    """The report of a turn that the user watches."""

    channel: Channel
    turn_id: str
    known_secrets: Callable[[], tuple[str, ...]]
    used: Callable[[Usage], None]
    """Counts what a call has used."""
    context: Callable[[Usage], UsageUpdate]
    let_in: Callable[[], Awaitable[None]]
    files_changed: Callable[[], Awaitable[None]]
    suspending: Callable[[], bool]
    """The worker ends, and the turn will be taken up by the next one."""
    _text: str = field(default="", init=False)
    _stream: RedactedStream = field(init=False, factory=RedactedStream)
    _thoughts: RedactedStream = field(init=False, factory=RedactedStream)
    _shown: dict[str, tuple[Tool | None, Params | None]] = field(factory=dict, init=False)

    def asking(self) -> str:
        """A request goes out."""
        self._text = ""
        self._stream = RedactedStream(self.known_secrets())
        self._thoughts = RedactedStream(self.known_secrets())
        message_id = new_id("message")
        self.channel.record("llm_request", {"turn_id": self.turn_id, "message_id": message_id})
        return message_id

    def wrote(self, message_id: str, text: str) -> None:
        """Pass a piece of the answer on, as far as it can be no part of a secret."""
        self._text += text
        if shown := self._stream.feed(text):
            self.channel.emit(MessageChunk(message_id=message_id, text=shown))

    def thought(self, message_id: str, text: str) -> None:
        """Pass a piece of the reasoning on."""
        if shown := self._thoughts.feed(text):
            self.channel.emit(Thought(text=shown, message_id=message_id))

    def replied(self, message_id: str, reply: Reply, withheld: tuple[str, ...]) -> None:
        """Record the whole answer, then show it."""
        self._record(message_id, reply.message, reply.finish_reason, reply.usage, withheld, model=reply.model)
        if rest := self._thoughts.finish():
            self.channel.emit(Thought(text=rest, message_id=message_id))
        if reply.message.content.strip():
            self.channel.emit(MessageUpdate(message_id=message_id, role="assistant", text=reply.message.content))
        self.used(reply.usage)
        self.channel.emit(self.context(reply.usage))

    def cut_off(self, message_id: str) -> None:
        """Show that the answer ends here. What had come belongs to the history, unless it will be asked anew."""
        text = self.channel.redact(mend(self._text))
        if not text.strip():
            return
        if not self.suspending():
            self._record(message_id, Message("assistant", text), "stop", Usage(), (), status="interrupted")
        self.channel.emit(MessageUpdate(message_id=message_id, role="assistant", text=text, status="interrupted"))

    def started(self, call: ToolCall, tool: Tool | None, params: Any) -> None:
        """Record that a call begins, then show it."""
        arguments = self.channel.redact(call.arguments)
        data = {"turn_id": self.turn_id, "tool_call_id": call.id, "name": call.name, "arguments": arguments}
        self.channel.record("tool_call", data)
        self._shown[call.id] = (tool, params)
        self.channel.tool(call, tool, params, None)

    def ended(self, call: ToolCall, observation: Observation) -> None:
        """Record a call's result, then show it."""
        self.channel.record("tool_result", result_data(self.turn_id, call, observation))
        tool, params = self._shown.pop(call.id, (None, None))
        self.channel.tool(call, tool, params, observation)

    async def take_in(self) -> None:
        """Let in what has come meanwhile."""
        await self.let_in()

    async def changed(self) -> None:
        """Show what has changed so far."""
        await self.files_changed()

    def _record(
        self, message_id: str, message: Message, finish: str, usage: Usage, withheld: tuple[str, ...], **more: str
    ) -> None:
        data: dict[str, Any] = {
            "turn_id": self.turn_id,
            "message_id": message_id,
            "message": message.to_wire(),
            "finish_reason": finish,
            "usage": asdict(usage),
            **more,
        }
        if withheld:
            data["withheld"] = list(withheld)
        self.channel.record("llm_response", data)


@define
class AgentReport:
    """The report of a sub-agent: its calls are shown under its name, its words are its result."""

    channel: Channel
    agent_id: str
    history: History
    used: Callable[[Usage], None]
    files_changed: Callable[[], Awaitable[None]]
    _shown: dict[str, tuple[Tool | None, Params | None]] = field(factory=dict, init=False)

    def asking(self) -> str:
        """A request goes out."""
        return new_id("message")

    def wrote(self, message_id: str, text: str) -> None:
        """Nobody reads along."""

    def thought(self, message_id: str, text: str) -> None:
        """Nobody reads along."""

    def replied(self, message_id: str, reply: Reply, withheld: tuple[str, ...]) -> None:
        """Record the answer."""
        self.history.add(Entry(reply.message, "reply", cut=reply.finish_reason == "length"))
        self._record({"message": reply.message.to_wire(), "usage": asdict(reply.usage)})
        self.used(reply.usage)

    def cut_off(self, message_id: str) -> None:
        """A sub-agent ends with its turn, so there is nothing to keep."""

    def started(self, call: ToolCall, tool: Tool | None, params: Any) -> None:
        """Show that a call begins."""
        self._shown[call.id] = (tool, params)
        self.channel.tool(call, tool, params, None, f"{self.agent_id}: ")

    def ended(self, call: ToolCall, observation: Observation) -> None:
        """Record a call's result, then show it."""
        message = Message("tool", observation.text, tool_call_id=call.id)
        self.history.add(Entry(message, "result"))
        self._record({"message": message.to_wire()})
        tool, params = self._shown.pop(call.id, (None, None))
        self.channel.tool(call, tool, params, observation, f"{self.agent_id}: ")

    async def take_in(self) -> None:
        """Nothing reaches a sub-agent from outside."""

    async def changed(self) -> None:
        """Show what has changed so far."""
        await self.files_changed()

    def _record(self, data: dict[str, Any]) -> None:
        self.channel.record("sub_agent_turn", {"agent_id": self.agent_id, **data})


def result_data(turn_id: str, call: ToolCall, observation: Observation) -> dict[str, Any]:
    """Return the event of a call's result."""
    return {
        "turn_id": turn_id,
        "tool_call_id": call.id,
        "name": call.name,
        "content": observation.text,
        "status": "failed" if observation.failed else "completed",
    }
