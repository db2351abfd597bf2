"""JSON-RPC 2.0 as the supervisor needs it: what kind of message a value is, and the few messages it writes itself.

A message that passes `check` has the shape that its kind promises, so nothing behind it has to look again.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Id = int | str | None

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
NOT_INITIALIZED = -32002
CANCELLED = -32800
FAILED = -32803


class Invalid(Exception):
    """Raised when a value is JSON, but no message; it carries what to answer."""

    def __init__(self, id: Id, code: int, text: str) -> None:
        super().__init__(text)
        self.id = id
        self.code = code
        self.text = text


def is_id(value: Any) -> bool:
    """Tell whether a value can be a request's id: a whole number or a string (LSP, base protocol)."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def check(value: Any) -> dict[str, Any]:
    """Return the value as a message.

    Raises:
        Invalid: it is none; nothing of it is carried out.
    """
    if not isinstance(value, dict):
        kind = "a batch" if isinstance(value, list) else "no object"
        raise Invalid(None, INVALID_REQUEST, f"The message is {kind}; send one JSON object in each message.")
    id = value.get("id")
    known = id if is_id(id) else None
    if value.get("jsonrpc") != "2.0":
        raise Invalid(known, INVALID_REQUEST, 'The message lacks "jsonrpc": "2.0", so it was not carried out.')
    if "method" in value:
        if not isinstance(value["method"], str):
            raise Invalid(known, INVALID_REQUEST, "The method is no string, so nothing was carried out.")
        if "id" in value and known is None:
            raise Invalid(None, INVALID_REQUEST, "The id is neither a whole number nor a string; nothing was done.")
        if not isinstance(value.get("params"), dict | list | None):
            raise Invalid(known, INVALID_PARAMS, "The params are neither an object nor a list; nothing was done.")
    elif "result" not in value and "error" not in value:
        raise Invalid(known, INVALID_REQUEST, "The message has neither a method nor a result; nothing was done.")
    return value


def encode(value: Any) -> bytes:
    """Return a value as JSON. Everything beyond ASCII is escaped, so that lone surrogates survive too."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def request(id: Id, method: str, params: Any) -> bytes:
    """Return a request."""
    return encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notification(method: str, params: Any) -> bytes:
    """Return a notification."""
    return encode({"jsonrpc": "2.0", "method": method, "params": params})


def result(id: Id, value: Any) -> bytes:
    """Return the answer to a request."""
    return encode({"jsonrpc": "2.0", "id": id, "result": value})


def error(id: Id, code: int, text: str, data: Any = None) -> bytes:
    """Return the answer to a request that failed; `text` is one plain sentence for the user."""
    detail = {"code": code, "message": text}
    return encode({"jsonrpc": "2.0", "id": id, "error": {**detail, "data": data} if data is not None else detail})
