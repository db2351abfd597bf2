"""What is sent: the body of a request, in the dialect that the endpoint turned out to speak, and how large it is.

Invariant: a message is rendered the same each time, so that what was sent before is sent byte for byte again and a
provider's prefix cache holds.
"""

from __future__ import annotations

import json
import logging
import math
import re
import string
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from selfloop.messages import Message, ToolSpec
from selfloop.model import textprotocol
from selfloop.model.assembly import is_object, whole
from selfloop.model.failures import Failure

log = logging.getLogger(__name__)

# What an endpoint may refuse and we can do without, told by its own words. Each is conceded once and remembered.
_CONCESSIONS: Final = (
    ("max_completion_tokens", re.compile(r"max_completion_tokens", re.IGNORECASE)),
    ("no-usage", re.compile(r"stream_options|include_usage", re.IGNORECASE)),
    ("no-reasoning", re.compile(r"tools with reasoning_effort|reasoning_effort.{0,40}none", re.IGNORECASE)),
    (
        "text-tools",
        re.compile(
            r"(does not|doesn'?t|not|no endpoints found that) support\w*[^.]{0,40}(tool|function)"
            r"|(tool|function)[ _-]?(use|call\w*|choice)?s?\b[^.]{0,40}(not |un)(supported|permitted|allowed|enabled)"
            r"|enable-auto-tool-choice|(unknown|unrecognized|unexpected|extra)[^.]{0,40}\btools\b",
            re.IGNORECASE,
        ),
    ),
)
_REFUSALS: Final = {400, 404, 405, 415, 422, 500, 501}


class Dialect:
    """What one endpoint takes. It begins with all that the format has, and gives up what the endpoint refuses."""

    def __init__(self, *, text_protocol: bool | None) -> None:
        """Take whether tools go by text: True, False, or None for once they are refused."""
        self._text_protocol = text_protocol
        self._conceded: set[str] = {"text-tools"} if text_protocol else set()

    @property
    def tools_by_text(self) -> bool:
        """Tools are described and called in the text."""
        return "text-tools" in self._conceded

    def body(self, messages: Sequence[Message], tools: Sequence[ToolSpec], max_output_tokens: int) -> dict[str, Any]:
        """Return the body of a request, but for the model's name."""
        if self.tools_by_text:
            messages, tools = textprotocol.render(messages, tools), ()
        body: dict[str, Any] = {"messages": [_wire(message) for message in messages]}
        if tools:
            body["tools"] = [tool.to_wire() for tool in tools]
        limit = "max_completion_tokens" if "max_completion_tokens" in self._conceded else "max_tokens"
        body[limit] = max_output_tokens
        if "no-usage" not in self._conceded:
            body["stream_options"] = {"include_usage": True}
        if "no-reasoning" in self._conceded:
            body["reasoning_effort"] = "none"
        return body

    def concede(self, failure: Failure, *, tools: bool) -> bool:
        """Give up what the endpoint has refused, if we can do without; tell whether to ask again."""
        if failure.status not in _REFUSALS:
            return False
        for name, pattern in _CONCESSIONS:
            if name in self._conceded or not pattern.search(failure.detail):
                continue
            if name == "text-tools" and not (tools and self.without_tools()):
                continue
            self._conceded.add(name)
            log.info("The endpoint refuses something that we can do without, so %s from now on.", name)
            return True
        return False

    def without_tools(self) -> bool:
        """Note that the endpoint cannot call tools; tell whether they go by text now."""
        if self._text_protocol is not False:
            self._conceded.add("text-tools")
        return self.tools_by_text


def count_tokens(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> int:
    """Estimate the input's tokens, rather too high than too low, at a speed that costs nothing."""
    parts: list[str] = []
    for message in messages:
        parts.append(message.content)
        parts += [part for call in message.tool_calls for part in (call.name, call.arguments)]
    parts += [part for tool in tools for part in (tool.name, tool.description)]
    parts += [msgspec.json.encode(tool.parameters).decode() for tool in tools]
    calls = sum(len(message.tool_calls) for message in messages)
    return 6 * len(messages) + 12 * (calls + len(tools)) + sum(map(_tokens, parts))


_HIGH: Final = bytes(range(128, 256))
_DIGITS: Final = string.digits.encode()
_LETTERS: Final = (string.ascii_letters + string.whitespace).encode()


def _tokens(text: str) -> int:
    """Estimate a text's tokens from how many of its bytes are letters and spaces, digits, signs, or beyond ASCII.

    The weights were fitted against a real tokenizer: over source code and prose the estimate is 1.0 to 1.3 times the
    truth, and at worst 0.8 of it, where counting characters alone is wrong by half for dense JSON.
    """
    data = text.encode("utf-8", "replace")
    rest = data.translate(None, _LETTERS)
    beyond = len(rest) - len(rest.translate(None, _HIGH))
    digits = len(rest) - len(rest.translate(None, _DIGITS))
    signs = len(rest) - beyond - digits
    return math.ceil(0.21 * (len(data) - len(rest)) + 0.5 * digits + 0.75 * signs + 0.6 * beyond)


def _wire(message: Message) -> dict[str, Any]:
    """Return a message as it is sent: encodable, and with arguments that every server can parse.

    Servers and chat templates parse the arguments of earlier calls again, and many fail on what is no JSON object. The
    model has been told of its mistake by the tool's result; here it only must not break the next request.
    """
    wire = message.to_wire()
    wire["content"] = whole(message.content)
    for call in wire.get("tool_calls") or ():
        function = call["function"]
        function["arguments"] = _object(whole(function["arguments"]))
    return wire


def _object(arguments: str) -> str:
    """Return arguments that are one JSON object: these, these mended, or these as the text that they are."""
    if is_object(arguments, strict=True):
        return arguments
    value = json.loads(arguments, strict=False) if is_object(arguments) else {"unreadable": arguments}
    return json.dumps(value, ensure_ascii=False)
