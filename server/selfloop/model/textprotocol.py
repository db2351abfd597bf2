"""Tools by text, for models and endpoints that cannot call them: `<tool name="…">{json}</tool>`.

    render(messages, tools)  a conversation with tools → one of plain system, user and assistant messages
    parse(text)              a reply → the text to show, and the calls
    Visible                  the same while the reply streams: a call is never shown half

Invariant: the end of a call is where its JSON ends, never the first `</tool>`: a file's content may hold the delimiter.
Only where the JSON itself is broken does the delimiter decide. Results come back fenced by the call's random id, which
no file can know, so that a file's content cannot end its own fence.

The wording lies here and not among the prompts because it is the other half of the parser below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from attrs import define

from selfloop.messages import Message, ToolCall, ToolSpec
from selfloop.model.assembly import new_call_id

# Small models follow a format best that is short, shown once in full, and repeated last.
_RULES = """\
# Tools

You act only by tools. To call one, write exactly this, with the arguments as one JSON object:

<tool name="NAME">{"argument": "value"}</tool>

Write a few words about what you do, then the call, then stop: the result comes with the next message. Several calls \
in one reply are carried out in order. Inside JSON strings a newline is written \\n and a quotation mark \\". Never \
write a result yourself. When the work is done, answer without any call.

Available tools, each with the JSON schema of its arguments:

"""
_EXAMPLE = """
An example of a whole reply:

I look at the file first.
<tool name="{name}">{arguments}</tool>
"""

_OPEN = re.compile(r"""<tool\s+name\s*=\s*(?:"([^"<>]{1,64})"|'([^'<>]{1,64})')\s*(/?)>""")
_OPEN_SHORTEST = "<tool"
_CLOSE = "</tool>"
_LONGEST_OPEN = 128
_json = json.JSONDecoder(strict=False)


def render(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Message]:
    """Return the conversation without tool messages, with the tools described at the end of the system text.

    Messages of the same role that follow each other are joined: many local templates allow strict alternation only.
    """
    plain: list[Message] = []
    named = {call.id: call.name for message in messages for call in message.tool_calls}
    for message in messages:
        if message.role == "assistant":
            calls = [f'<tool name="{call.name}">{call.arguments}</tool>' for call in message.tool_calls]
            content = "\n".join(part for part in (message.content, *calls) if part)
            _append(plain, Message("assistant", content))
        elif message.role == "tool":
            identity = message.tool_call_id or ""
            fence = f'result of="{named.get(identity, "tool")}" id="{identity}"'
            _append(plain, Message("user", f"<{fence}>\n{message.content}\n</{fence}>"))
        else:
            _append(plain, Message(message.role, message.content))
    if tools:
        described = _describe(tools)
        if plain and plain[0].role == "system":
            plain[0] = Message("system", f"{plain[0].content}\n\n{described}")
        else:
            plain.insert(0, Message("system", described))
    return plain


def parse(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return (the text outside the calls, the calls). A call whose JSON is broken keeps its raw text as arguments."""
    shown: list[str] = []
    calls: list[ToolCall] = []
    at = 0
    while True:
        opening = _find(text, at)
        if opening is None:
            shown.append(text[at:])
            break
        shown.append(text[at : opening.start()])
        arguments, at = _body(text, opening)
        calls.append(ToolCall(new_call_id(), opening[1] or opening[2], arguments))
    return "".join(shown).strip(), tuple(calls)


@define
class Visible:
    """What of a streamed reply may be shown: the text before its first call, no piece of which is shown."""

    _before: str = ""
    """The last character that was shown: a backquote means that what follows is only spoken about."""
    _waiting: str = ""
    _called: bool = False

    def feed(self, text: str) -> str:
        """Return what has become certain to be no part of a call."""
        return self._advance(text, final=False)

    def rest(self) -> str:
        """Return what the end of the reply makes certain."""
        return self._advance("", final=True)

    def _advance(self, text: str, *, final: bool) -> str:
        if self._called:
            return ""
        held = self._before + self._waiting + text
        opening = _find(held, 0)
        if opening is not None:
            self._called = True
            end = opening.start()
        elif final:
            end = len(held)
        else:
            end = _certain(held)
        shown = held[len(self._before) : end]
        self._before, self._waiting = held[max(0, end - 1) : end], held[end:]
        return shown


def _certain(text: str) -> int:
    """Return where a tail begins that could still become the start of a call."""
    at = text.rfind("<", max(0, len(text) - _LONGEST_OPEN))
    if at < 0:
        return len(text)
    tail = text[at:]
    return at if tail.startswith(_OPEN_SHORTEST) or _OPEN_SHORTEST.startswith(tail) else len(text)


def _append(plain: list[Message], message: Message) -> None:
    if plain and plain[-1].role == message.role:
        plain[-1] = Message(message.role, f"{plain[-1].content}\n\n{message.content}")
    else:
        plain.append(message)


def _describe(tools: Sequence[ToolSpec]) -> str:
    listing = "\n\n".join(
        f"## {tool.name}\n{tool.description}\n{json.dumps(tool.parameters, ensure_ascii=False)}" for tool in tools
    )
    first = tools[0]
    required = first.parameters.get("required") or []
    arguments = json.dumps({str(name): "…" for name in required}, ensure_ascii=False)
    return _RULES + listing + "\n" + _EXAMPLE.format(name=first.name, arguments=arguments)


def _find(text: str, at: int) -> re.Match[str] | None:
    """Return the next opening of a call; one in backquotes is only spoken about."""
    while (opening := _OPEN.search(text, at)) is not None:
        if not text.endswith("`", 0, opening.start()):
            return opening
        at = opening.end()
    return None


def _body(text: str, opening: re.Match[str]) -> tuple[str, int]:
    """Return (arguments, where the call ends)."""
    start = opening.end()
    if opening[3]:
        return "{}", start
    while start < len(text) and text[start].isspace():
        start += 1
    try:
        _, end = _json.raw_decode(text, start)
    except (ValueError, RecursionError):
        end = _broken_end(text, start)
        closing = text.startswith(_CLOSE, end)
        return text[start:end].strip() or "{}", end + (len(_CLOSE) if closing else 0)
    arguments = text[start:end]
    rest = re.compile(r"\s*</tool\s*>").match(text, end)
    return arguments, rest.end() if rest else end


def _broken_end(text: str, start: int) -> int:
    """Return where a body with broken JSON ends: at its last delimiter before the next call, else there."""
    following = _find(text, start)
    limit = len(text) if following is None else following.start()
    end = text.rfind(_CLOSE, start, limit)
    return limit if end < 0 else end
