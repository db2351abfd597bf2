"""What outlives a session: notes that the agent keeps and finds again. Also the plan that the user sees."""

from __future__ import annotations

import asyncio
from typing import Literal

import msgspec

from selfloop.agent.tools.tool import Call, Observation, Params, Tool, refused
from selfloop.updates import PlanEntry

LONGEST_NOTE = 4_000
LONGEST_PLAN = 30


class Remember(Params):
    text: str


class Recall(Params):
    query: str


class Step(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    text: str
    status: Literal["pending", "in_progress", "completed"]


class Plan(Params):
    entries: list[Step]


async def remember(call: Call, params: Remember) -> Observation:
    """Keep a note for later sessions."""
    if len(params.text) > LONGEST_NOTE:
        return refused(f"A note has at most {LONGEST_NOTE:,} characters, so nothing was kept; keep what matters of it.")
    bench = call.bench
    # A note is found again in other sessions, which must not learn a secret from it.
    await asyncio.to_thread(bench.memory.remember, bench.redact(params.text), source="chat")
    return Observation("Remembered. `recall` finds it by its words.")


async def recall(call: Call, params: Recall) -> Observation:
    """Find notes by their words."""
    notes = await asyncio.to_thread(call.bench.memory.recall, params.query)
    if not notes:
        return Observation(f"Nothing is remembered about {params.query!r}.")
    shown = [f"[{note.created_at[:10]}, {note.source}] {note.text}" for note in notes]
    return Observation(call.bench.fence.data("\n\n".join(shown), source="memory"))


async def plan(call: Call, params: Plan) -> Observation:
    """Show the user what is done, what is under way and what is left."""
    if len(params.entries) > LONGEST_PLAN:
        return refused(f"A plan has at most {LONGEST_PLAN} steps, so it was not shown; take fewer, larger ones.")
    redact = call.bench.redact
    call.bench.show_plan([PlanEntry(text=redact(step.text), status=step.status) for step in params.entries])
    left = sum(step.status != "completed" for step in params.entries)
    return Observation(f"The plan is shown; {left} of {len(params.entries)} steps are left.")


MEMORY_TOOLS = (
    Tool("remember", "memory", Remember, remember, lambda p: "Remember a note"),
    Tool("recall", "memory", Recall, recall, lambda p: f"Recall {p.query!r}"),
)
PLAN_TOOLS = (Tool("plan", "other", Plan, plan, lambda p: "Plan"),)
