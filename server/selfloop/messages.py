"""What is said to a model and what comes back: plain values, independent of any provider.

The wire form is OpenAI's chat format, because that is what trajectories store and what every endpoint understands.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import frozen

Role = Literal["system", "user", "assistant", "tool"]


@frozen
class ToolCall:
    """One call that the model asks for."""

    id: str
    """Unique within the conversation; made by us when the provider sends none, or the same one twice."""
    name: str
    arguments: str
    """The raw text of the arguments. It may be no JSON at all: the toolbox answers that with an observation."""


@frozen
class Message:
    """One message of a conversation."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """For role `tool`: the call that this answers."""

    def to_wire(self) -> dict[str, Any]:
        """Return the message in OpenAI's chat format."""
        wire: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            wire["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            wire["tool_call_id"] = self.tool_call_id
        return wire

    @staticmethod
    def from_wire(wire: dict[str, Any]) -> Message:
        """Read what `to_wire` wrote."""
        calls = tuple(
            ToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
            for call in wire.get("tool_calls") or ()
        )
        return Message(
            role=wire["role"],
            content=wire.get("content") or "",
            tool_calls=calls,
            tool_call_id=wire.get("tool_call_id"),
        )


@frozen
class Usage:
    """What a call, a turn or a session has used."""

    input_tokens: int = 0
    """All input tokens, the cached ones included."""
    cached_tokens: int = 0
    """The part of `input_tokens` that the provider read from its cache."""
    output_tokens: int = 0
    cost_usd: float | None = None
    """None when the model's price is not known."""

    def __add__(self, other: Usage) -> Usage:
        known = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            sum(known) if known else None,
        )


@frozen
class ToolSpec:
    """A tool as the model is shown it."""

    name: str
    description: str
    parameters: dict[str, Any]
    """A JSON schema of type object."""

    def to_wire(self) -> dict[str, Any]:
        """Return the tool in OpenAI's function format."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


FinishReason = Literal["stop", "tool_calls", "length"]


@frozen
class Reply:
    """A whole answer of the model."""

    message: Message
    finish_reason: FinishReason
    usage: Usage
    """As the provider reported it; the reservation's worst case where it reported nothing."""
    model: str
    usage_known: bool = True
