"""What the model is shown."""

from __future__ import annotations

from typing import Any

from selfloop.agent.prompts import render, tool_text
from selfloop.loops.levels import tools_of

MOST_MESSAGES = 40


def system(workspace: str) -> dict[str, Any]:
    """Return the system message."""
    return {"role": "system", "content": render("chat", workspace=workspace)}


def shown(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest messages that fit, the first one always."""
    return messages if len(messages) <= MOST_MESSAGES else [messages[0], *messages[1 - MOST_MESSAGES :]]


def tokens(messages: list[dict[str, Any]]) -> int:
    """Return a rough count of tokens, never too low."""
    return sum(len(str(message)) for message in messages) // 3 + 1


def offered(level: str) -> list[dict[str, Any]]:
    """Return the tools that the model is offered."""
    return [{"type": "function", "function": {"name": name, "description": tool_text(name)}} for name in names(level)]


def names(level: str) -> list[str]:
    """Return the offered tools' names, in an order that never changes."""
    return sorted(tools_of(level))
