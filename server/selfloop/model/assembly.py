"""Chunks → one answer: its text, its thoughts, its tool calls, its usage. The place that knows the quirks of servers.

Invariant: what two deltas say is joined or kept apart by the rules of `_slot`, and by nothing else; no text is lost,
none is invented. Everything that comes in is untrusted: any field may be missing, null, or of another type.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from typing import Any

from attrs import define, field

from selfloop.errors import ProviderError
from selfloop.messages import FinishReason, ToolCall, Usage

MAX_ANSWER_CHARACTERS = 16 * 1024 * 1024
"""An answer beyond this is no answer; it must not fill the memory."""


@define
class _Slot:
    """One tool call while it arrives."""

    index: int | None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(factory=list)

    def complete(self) -> bool:
        """Tell whether the arguments are whole: then a further name begins another call."""
        return self.arguments[-1].rstrip().endswith("}") and is_object("".join(self.arguments))


@define
class Halves:
    """Joins characters beyond the basic plane that a server has split into two JSON escapes of two deltas."""

    _high: str = ""

    def feed(self, text: str) -> str:
        """Return the text that is whole; half a character waits for its other half."""
        text, self._high = self._high + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._high = text[:-1], text[-1]
        return whole(text)

    def rest(self) -> str:
        """Return what is still waiting, as the replacement character."""
        text, self._high = whole(self._high), ""
        return text


@define
class Assembly:
    """One answer while it arrives."""

    finish: str | None = None
    """The provider's finish reason, once it was seen."""
    usage: Usage | None = None
    heard: bool = False
    """Something of the answer itself has come: from here on, asking again would repeat it."""
    most_characters: int = MAX_ANSWER_CHARACTERS
    """Beyond them the answer has more than was asked for; it is `full`, as one that its own limit has ended."""
    full: bool = False
    _text: list[str] = field(factory=list)
    _size: int = 0
    _slots: list[_Slot] = field(factory=list)
    _content: Halves = field(factory=Halves)
    _thoughts: Halves = field(factory=Halves)

    def feed(self, chunk: dict[str, Any]) -> tuple[str, str]:
        """Take one chunk; return the text and the thought that it adds.

        Raises:
            ProviderError: the answer is larger than any answer can be.
        """
        usage = read_usage(chunk.get("usage"))
        if usage is not None:
            self.usage = usage
        choice = _first(chunk.get("choices"))
        if not choice:
            return "", ""
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self.finish = reason
        delta = choice.get("delta")
        if not delta and not self.heard:
            delta = choice.get("message") or {"content": choice.get("text")}
        if not isinstance(delta, dict):
            return "", ""
        shown, hidden = _content(delta.get("content"))
        text = self._content.feed(shown or _string(delta.get("refusal")))
        thought = self._thoughts.feed(
            _string(delta.get("reasoning_content")) or _string(delta.get("reasoning")) or hidden
        )
        self._calls(delta)
        if text:
            self._text.append(text)
        self._grow(len(text) + len(thought))
        self.heard = self.heard or bool(text or thought or self._slots)
        return text, thought

    def tail(self) -> str:
        """Return the text that only the end of the answer completes: half a character that stayed alone."""
        rest = self._content.rest()
        if rest:
            self._text.append(rest)
        return rest

    @property
    def text(self) -> str:
        """All of the text so far."""
        return "".join(self._text)

    def tool_calls(self, taken: Collection[str]) -> tuple[ToolCall, ...]:
        """Return the calls, each with an id of its own, unlike those already `taken` in the conversation."""
        used = set(taken)
        calls: list[ToolCall] = []
        for slot in self._slots:
            identity = slot.id if slot.id and slot.id not in used else new_call_id()
            used.add(identity)
            # A tool without parameters is often called with no arguments at all.
            arguments = whole("".join(slot.arguments)) or "{}"
            calls.append(ToolCall(identity, whole(slot.name) or "unnamed", arguments))
        return tuple(calls)

    def finish_reason(self, calls: Collection[ToolCall]) -> FinishReason:
        """Return the finish reason in our terms: what really came outweighs what was claimed."""
        if self.finish in ("length", "max_tokens"):
            return "length"
        return "tool_calls" if calls else "stop"

    def _calls(self, delta: dict[str, Any]) -> None:
        calls = delta.get("tool_calls")
        if isinstance(calls, dict):
            calls = [calls]
        if not isinstance(calls, list):
            # The form before tool calls had ids: one call, its name in the first delta.
            calls = [{"index": 0, "function": delta["function_call"]}] if delta.get("function_call") else []
        for call in calls:
            if not isinstance(call, dict):
                continue
            function = call.get("function")
            if not isinstance(function, dict):
                function = call
            identity, name = _string(call.get("id")), _string(function.get("name"))
            arguments = function.get("arguments")
            if isinstance(arguments, dict | list):
                arguments = json.dumps(arguments, ensure_ascii=False)
            arguments = _string(arguments)
            slot = self._slot(call.get("index"), identity, name, arguments)
            slot.id = slot.id or identity
            # The name comes whole, or in pieces before the arguments; some servers repeat it with every piece.
            if not slot.arguments and name != slot.name:
                slot.name += name
            if arguments:
                slot.arguments.append(arguments)
                self._grow(len(arguments))

    def _slot(self, index: Any, identity: str, name: str, arguments: str) -> _Slot:
        """Return the call that a delta belongs to, or a new one.

        A known index says which, unless a name comes where the arguments are already whole: servers that number every
        call 0 mean a new one then. Without an index a known id says which, then a new id or a name begins a call, and
        all else continues the last one.
        """
        if isinstance(index, str) and index.isdecimal():
            index = int(index)
        if isinstance(index, int) and not isinstance(index, bool):
            same = [slot for slot in self._slots if slot.index == index]
            if same and not self._begins(same[-1], identity, name, arguments):
                return same[-1]
            return self._new(index)
        if identity:
            same = [slot for slot in self._slots if slot.id == identity]
            if same and not (name and same[-1].complete() and arguments):
                return same[-1]
            return self._new(None)
        if not self._slots or self._begins(self._slots[-1], "", name, arguments, indexed=False):
            return self._new(None)
        return self._slots[-1]

    @staticmethod
    def _begins(slot: _Slot, identity: str, name: str, arguments: str, *, indexed: bool = True) -> bool:
        if not name:
            return False
        other = bool(identity and slot.id and identity != slot.id)
        if not slot.arguments:
            # With an index, a further name may be the rest of the name.
            return other or (not indexed and name != slot.name)
        if slot.complete():
            return other or bool(arguments) or name != slot.name
        # Some servers make up a new id for every piece, so an id alone does not end unfinished arguments.
        return name != slot.name

    def _new(self, index: int | None) -> _Slot:
        slot = _Slot(index)
        self._slots.append(slot)
        return slot

    def _grow(self, characters: int) -> None:
        self._size += characters
        if self._size > self.most_characters:
            self.finish, self.full = "length", True
        if self._size > MAX_ANSWER_CHARACTERS or len(self._slots) > 1_000:
            raise ProviderError(
                "The model's answer grew beyond 16 million characters or a thousand tool calls, so it was given up; "
                "try again, or choose another model.",
                kind="stream",
            )


def read_usage(value: Any) -> Usage | None:
    """Return the usage that a provider reports, in whichever of its forms; None if it says nothing."""
    if not isinstance(value, dict):
        return None
    total_input = _count(value, "prompt_tokens", "input_tokens")
    output = _count(value, "completion_tokens", "output_tokens")
    if total_input + output == 0:
        return None
    details = value.get("prompt_tokens_details") or value.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    cached = cached or _count(value, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    cost = value.get("cost")
    known = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1e9
    return Usage(total_input, min(cached, total_input), output, float(cost) if known else None)


def is_object(text: str, *, strict: bool = False) -> bool:
    """Tell whether the text is one JSON object; where not `strict`, its strings may hold raw line feeds."""
    try:
        return isinstance(json.loads(text, strict=strict), dict)
    except (ValueError, RecursionError):
        return False


def new_call_id() -> str:
    """Return an id for a tool call that the provider gave none. It cannot be guessed by what a file contains."""
    return "call_" + secrets.token_hex(8)


def whole(text: str) -> str:
    """Return the text with split surrogate pairs joined and lone halves replaced, so that it can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _first(choices: Any) -> dict[str, Any]:
    choice = choices[0] if isinstance(choices, list) and choices else choices
    return choice if isinstance(choice, dict) else {}


def _content(value: Any) -> tuple[str, str]:
    """Return (text, thought) of a content, which is text, or a list of parts."""
    if not isinstance(value, list):
        return _string(value), ""
    text, thought = "", ""
    for part in value:
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            inner = part.get("thinking") or part.get("text")
            thought += "".join(_content(inner)) if isinstance(inner, list) else _string(inner)
        elif isinstance(part, dict):
            text += _string(part.get("text"))
    return text, thought


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: dict[str, Any], *names: str) -> int:
    for name in names:
        number = value.get(name)
        if isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < 1e12:
            return int(number)
    return 0
