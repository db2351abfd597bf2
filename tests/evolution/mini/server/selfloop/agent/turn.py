"""One turn: model, tool calls, observations, until the model is done or the budget ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from selfloop.agent import context
from selfloop.agent.stuck import is_stuck
from selfloop.agent.tools import toolbox
from selfloop.model.budget import Budget
from selfloop.model.client import Asked
from selfloop.sandbox.paths import Door

MOST_CALLS = 12


def run_turn(
    messages: list[dict[str, Any]], ask: Asked, door: Door, budget: Budget, level: str, emit: Callable[[str], None]
) -> str:
    """Run it; append to `messages` what was said; return why it ended.

    Raises:
        BudgetExceeded: another call is not allowed.
    """
    made: list[str] = []
    for _ in range(MOST_CALLS):
        sent = context.shown(messages)
        reserved = budget.reserve(context.tokens(sent))
        text, calls = _answer(ask, sent, level, emit)
        budget.settle(reserved, None)
        messages.append({"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})})
        if not calls:
            return "end_turn"
        for call in calls:
            function = call["function"]
            said = toolbox.run(function["name"], function["arguments"], level, door)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})
            made.append(json.dumps(function, sort_keys=True))
        if is_stuck(made):
            return "stuck"
    return "max_calls"


def _answer(
    ask: Asked, sent: list[dict[str, Any]], level: str, emit: Callable[[str], None]
) -> tuple[str, list[dict[str, Any]]]:
    text = ""
    calls: dict[int, dict[str, Any]] = {}
    for delta in ask(sent, context.offered(level)):
        if piece := delta.get("content"):
            text += piece
            emit(piece)
        for part in delta.get("tool_calls") or ():
            call = calls.setdefault(
                part["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            )
            call["id"] += part.get("id") or ""
            call["function"]["name"] += part["function"].get("name") or ""
            call["function"]["arguments"] += part["function"].get("arguments") or ""
    return text, list(calls.values())
