"""Which tools a turn holds, and the one way in which a call of the model's becomes a call of ours.

Invariant: whatever the model sends — an unknown tool, arguments that are no JSON, too many of them, the wrong names —
is answered with an observation that says what to send instead. Nothing a tool meets ends the turn but a cancellation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import types
import typing
from typing import Any

import msgspec
from attrs import define, field

from selfloop.agent.prompts import Prompts
from selfloop.agent.tools.tool import Call, Observation, Params, Tool, Workbench, refused
from selfloop.errors import BudgetExceeded, SelfloopError
from selfloop.messages import ToolCall, ToolSpec

logger = logging.getLogger(__name__)

LARGEST_ARGUMENTS = 512 * 1024
"""Characters. What is longer is written in pieces; a model that sends more has gone astray."""


@define
class Toolbox:
    """The tools of one agent. Their order never changes within a session, so that caches hit."""

    tools: tuple[Tool, ...]
    prompts: Prompts
    specs: list[ToolSpec] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.specs = [_spec(tool, self.prompts) for tool in self.tools]

    def read(self, call: ToolCall) -> tuple[Tool | None, Any, Observation | None]:
        """Return the tool and the parameters that a call means, or the observation that answers it."""
        tool = next((tool for tool in self.tools if tool.name == call.name), None)
        if tool is None:
            names = ", ".join(tool.name for tool in self.tools)
            sentence = f"There is no tool {call.name[:80]!r}, so nothing was done. The tools are: {names}."
            return None, None, refused(sentence)
        params = _params(tool, call.arguments)
        return (tool, None, params) if isinstance(params, Observation) else (tool, params, None)

    async def run(self, tool: Tool, params: Params, call: ToolCall, bench: Workbench) -> Observation:
        """Carry out a call under its deadline."""
        try:
            async with asyncio.timeout(tool.deadline_seconds):
                return await tool.run(Call(call.id, bench), params)
        except BudgetExceeded:
            raise
        except SelfloopError as error:
            return refused(error.message)
        except TimeoutError:
            limit = "too long" if tool.deadline_seconds is None else f"more than {tool.deadline_seconds:.0f} seconds"
            return refused(f"{tool.name} took {limit} and was ended; it may have done a part. Ask for less at once.")
        except (OSError, UnicodeError) as error:
            return refused(f"{tool.name} failed: {_brief(error)}. Nothing more was done.")
        except Exception:
            # A fault of ours must not end what the user has asked for; the log keeps where it happened.
            logger.exception("The tool %s failed (call %s, session %s).", tool.name, call.id, bench.session_id)
            return refused(f"{tool.name} failed by a fault in Selfloop, which is logged; try another way.")


def _params(tool: Tool, arguments: str) -> Params | Observation:
    """Return what the arguments mean, or why they mean nothing."""
    if len(arguments) > LARGEST_ARGUMENTS:
        return refused(
            f"The arguments have {len(arguments):,} characters, more than {LARGEST_ARGUMENTS:,}, so nothing was done. "
            "Write large files in pieces: write_file with a range, or several edits."
        )
    takes = f"{tool.name} takes {_signature(tool)}"
    try:
        # Raw line feeds in strings are what small models send; they mean what they are.
        values = json.loads(arguments or "{}", strict=False)
    except (ValueError, RecursionError) as error:
        return refused(
            f"The arguments are not valid JSON ({_brief(error)}), so nothing was done. Send one JSON object; {takes}."
        )
    if _half_a_character(values):
        return refused(
            f"The arguments hold half a character (a lone surrogate), so nothing was done. Send whole ones; {takes}."
        )
    if not isinstance(values, dict):
        return refused(f"The arguments are no JSON object, so nothing was done; {takes}.")
    required = {field.name for field in msgspec.structs.fields(tool.params) if field.required}
    # Many models send null for what they leave out.
    given = {name: value for name, value in values.items() if value is not None or name in required}
    try:
        return msgspec.convert(given, tool.params, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        return refused(f"The arguments do not fit ({_brief(error)}), so nothing was done; {takes}.")


def _half_a_character(values: object) -> bool:
    """Tell whether some text in decoded JSON could be neither stored nor sent."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _signature(tool: Tool) -> str:
    fields = msgspec.structs.fields(tool.params)
    return ", ".join(f"`{field.name}`" + ("" if field.required else " (optional)") for field in fields) or "nothing"


def _spec(tool: Tool, prompts: Prompts) -> ToolSpec:
    fields = msgspec.structs.fields(tool.params)
    text = prompts.tool(tool.name, [field.name for field in fields])
    properties = {field.name: {**_schema(field.type), "description": text.parameters[field.name]} for field in fields}
    required = [field.name for field in fields if field.required]
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return ToolSpec(tool.name, text.description, parameters)


_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _schema(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a parameter's type. Flat, because not every provider reads references."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (item for item in typing.get_args(kind) if item is not type(None))
        return _schema(inner)
    if origin is typing.Literal:
        return {"type": "string", "enum": list(typing.get_args(kind))}
    if origin is list:
        return {"type": "array", "items": _schema(typing.get_args(kind)[0])}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        return {
            "type": "object",
            "properties": {field.name: _schema(field.type) for field in fields},
            "required": [field.name for field in fields if field.required],
            "additionalProperties": False,
        }
    return {"type": _JSON_TYPES[kind]}
