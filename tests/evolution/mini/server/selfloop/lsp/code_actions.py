"""The light bulb."""

from __future__ import annotations

from typing import Any

TITLE = "Ask Selfloop about this"


def actions(uri: str, range_: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is offered at a place."""
    command = {"title": TITLE, "command": "selfloop.ask", "arguments": [{"uri": uri, "range": range_}]}
    return [{"title": TITLE, "kind": "selfloop.ask", "command": command}]
