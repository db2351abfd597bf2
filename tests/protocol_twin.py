"""Renders `vscode-client/src/protocol.ts` from `lsp/protocol.py`: run this module to write it, a test holds them equal.

A field with a default is optional in TypeScript, because what equals its default is left out on the wire.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from selfloop import reports, updates
from selfloop.lsp import evolution_messages, loop_messages, protocol, values
from selfloop.updates import Update
from selfloop.wire import Wire

TARGET = Path(__file__).parents[1] / "vscode-client" / "src" / "protocol.ts"

_HEAD = """// Every selfloop/* message, the twin of server/selfloop/lsp/protocol.py, held equal by a test.
// Written by `python tests/protocol_twin.py`. A field that equals its default is left out on the wire: optional here.
"""
_PLAIN = {str: "string", int: "number", float: "number", bool: "boolean", type(None): "null", Any: "unknown"}


def render() -> str:
    """Return the whole of protocol.ts."""
    structs = list(_structs())
    parts = [_HEAD, f"export const UPDATE = '{protocol.UPDATE}';\nexport const DID_FOCUS = '{protocol.DID_FOCUS}';\n"]
    parts += [_interface(struct) for struct in structs]
    parts.append("export type Update =\n" + "\n".join(f"  | {one.__name__}" for one in get_args(Update)) + ";\n")
    rows = "\n".join(
        f"  '{name}': {{ params: {row.params.__name__}; result: {row.result.__name__} }};"
        for name, row in protocol.METHODS.items()
    )
    head = "/** The contract: every request, with its parameters and its result. */"
    parts.append(f"{head}\nexport interface Methods {{\n{rows}\n}}\n")
    return "\n".join(parts)


def _structs() -> Iterator[type[Wire]]:
    for module in (reports, updates, values, loop_messages, evolution_messages, protocol):
        for _, one in inspect.getmembers(module, inspect.isclass):
            if issubclass(one, Wire) and one is not Wire and one.__module__ == module.__name__:
                yield one


def _interface(struct: type[Wire]) -> str:
    hints = get_type_hints(struct, include_extras=True)
    lines = []
    if (tag := struct.__struct_config__.tag) is not None:
        lines.append(f"  type: '{tag}';")
    for field in msgspec.structs.fields(struct):
        optional = "" if field.required else "?"
        lines.append(f"  {field.encode_name}{optional}: {_type(hints[field.name], bool(optional))};")
    doc = inspect.getdoc(struct)
    head = f"/** {' '.join(doc.split())} */\n" if doc else ""
    body = "\n".join(lines)
    if not lines:
        return f"{head}export type {struct.__name__} = Record<string, never>;\n"
    return f"{head}export interface {struct.__name__} {{\n{body}\n}}\n"


def _type(hint: Any, optional: bool = False) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(arguments[0], optional)
    if origin is Literal:
        return " | ".join(f"'{value}'" for value in arguments)
    if origin in (Union, types.UnionType):
        if set(arguments) == set(get_args(Update)):
            return "Update"
        # What is absent and what is null are the same for a client: absent.
        kept = [one for one in arguments if not (optional and one is type(None))]
        return " | ".join(_type(one) for one in kept)
    if origin is list:
        inner = _type(arguments[0])
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    if origin is dict:
        return f"Record<{_type(arguments[0])}, {_type(arguments[1])}>"
    if inspect.isclass(hint) and issubclass(hint, Wire):
        return hint.__name__
    return _PLAIN[hint]


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
