"""What is told of loops and their rounds: in one form stored, sent over the wire, and rendered line by line for people.

They stand this low in the house because an update carries them and a store keeps them: one shape, no translation.

Invariant: a report is complete whatever happened. A round that failed or ran out of budget has one too, with what was
done until then. `verified` is never taken from words: whoever makes a report sets it from a strict verdict with
executed evidence.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from selfloop.wire import Wire

Phase = Literal[
    "recall",
    "sandbox",
    "make",
    "check",
    "gate",
    "act",
    "record",
    "done",
    "reflect",
    "evolve",
    "refine",
    "verify",
    "docs",
    "swap",
    "probation",
]
"""Where a running round is, as `run` updates tell it; from `reflect` on, where an evolution is."""

Status = Literal["Done", "DoneWithConcerns", "NeedsContext", "Blocked"]
"""How a maker or checker ended, by its own account."""

OutcomeType = Literal["reported", "proceeded", "escalated", "budget-exhausted", "failed"]

LimitName = Literal[
    "input-tokens",
    "output-tokens",
    "total-tokens",
    "cost",
    "seconds",
    "iterations",
    "input-tokens-day",
    "output-tokens-day",
    "total-tokens-day",
    "cost-day",
    "seconds-day",
    "iterations-day",
]

LevelName = Literal["L1-report", "L2-assisted", "L3-unattended"]

REPORT_TAG = "loop-state"
NOTE_CHARACTERS = 2_000
"""Of a round's state in memory: five of them stand in the next maker's task."""


class Outcome(Wire):
    """How a round ended."""

    type: OutcomeType
    reason: str | None = None
    """Of `escalated`: why a human is asked."""
    limit: LimitName | None = None
    """Of `budget-exhausted`."""
    error: str | None = None
    """Of `failed`: one sentence that begins with the step, such as `maker failed: …`."""


class AgentReport(Wire):
    """What the maker or the checker did."""

    status: Status
    iterations: int
    """Calls of the model."""
    text: str
    """Its last answer; the checker's is the summary of its verdict."""


class ActionReport(Wire):
    """What the round would do, or did."""

    kind: str
    summary: str
    """One line."""


class ReceiptInfo(Wire):
    """That something was carried out: by the round, or after a human had approved it."""

    kind: str
    summary: str
    """What was done, in one sentence."""
    at: str
    uri: str | None = None
    """Where it can be seen: a pull request, a file."""


class EvidenceInfo(Wire):
    """One check that the checker ran."""

    check: str
    command: str
    exit_code: int
    uri: str
    """Its whole output."""
    counts: bool = True
    """Whether it proves anything."""


class RoundReport(Wire):
    """The record of a round."""

    run_id: str
    loop_id: str
    intent: str
    level: LevelName
    outcome: Outcome
    verified: bool
    input_tokens: int
    output_tokens: int
    started_at: str
    """ISO 8601, UTC."""
    ended_at: str
    maker: AgentReport | None = None
    checker: AgentReport | None = None
    action: ActionReport | None = None
    cost_usd: float | None = None
    gate_id: str | None = None
    receipts: list[ReceiptInfo] = msgspec.field(default_factory=list)
    """Of the action that was carried out, and of what a human approved later."""
    workspace_folder: str | None = None
    """The folder's URI, where reports of several folders are listed."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def render(self) -> str:
        """Return the report as people read it, line by line, with a line feed at its end.

        Text of an agent is set as it stands, but its ends are trimmed; a line that has nothing to say is left out.
        """
        lines = [
            f"[{self.level}] loop `{self.loop_id}` ({self.outcome.type})",
            f"intent: {self.intent}",
        ]
        for who, agent in (("maker", self.maker), ("checker", self.checker)):
            if agent is not None:
                lines.append(f"{who}: {agent.status} in {agent.iterations} iters")
                # The maker's words are the report; the checker's are its verdict, which the record keeps.
                if who == "maker" and agent.text.strip():
                    lines.append(agent.text.strip())
        outcome = self.outcome
        if outcome.type == "escalated":
            lines.append(f"escalation: {_one_line(outcome.reason or '')}")
        if outcome.type == "budget-exhausted":
            lines.append(f"budget: {outcome.limit}")
        if outcome.type == "failed":
            lines.append(f"error: {_one_line(outcome.error or '')}")
        if self.action is not None:
            lines.append(f"action: {self.action.kind} — {_one_line(self.action.summary)}")
        lines.append(f"tokens: {self.input_tokens} in / {self.output_tokens} out")
        return "\n".join(lines) + "\n"

    def should_deliver(self) -> bool:
        """Tell whether a person must see the report: always but for a clean action that went ahead."""
        return self.outcome.type != "proceeded"

    def memory_text(self) -> str:
        """Return the state of this round as the next rounds recall it: `<outcome> — <what was found>`."""
        texts = [agent.text.strip() for agent in (self.checker, self.maker) if agent is not None]
        said = next(filter(None, texts), self.intent)
        note = f"{self.outcome.type} — {said}"
        return note if len(note) <= NOTE_CHARACTERS else note[: NOTE_CHARACTERS - 1] + "…"

    def memory_tags(self) -> tuple[str, str]:
        """Return the tags of that note."""
        return (self.loop_id, REPORT_TAG)

    def memory_source(self) -> str:
        """Return who remembers it."""
        return f"loop:{self.loop_id}"


class LimitsInfo(Wire):
    """Limits; what is left out is not limited."""

    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_total_tokens: int | None = None
    max_cost_usd: float | None = None
    max_seconds: float | None = None
    max_iterations: int | None = None


class BudgetInfo(LimitsInfo):
    """A loop's budget: for a round, and for all rounds of a day."""

    day: LimitsInfo | None = None


class LoopInfo(Wire):
    """A loop as it is listed."""

    loop_id: str
    intent: str
    level: LevelName
    max_level: LevelName
    cadence: str
    enabled: bool
    budget: BudgetInfo
    action: str
    allow: list[str] = msgspec.field(default_factory=list)
    origin: str | None = None
    """`builtin`, `user` or `workspace`."""
    uri: str | None = None
    """Its file."""
    next_at: str | None = None
    """ISO 8601, UTC; absent while it is off, or when time does not make it due."""
    last_run: RoundReport | None = None
    notices: list[str] = msgspec.field(default_factory=list)
    """What was taken from it or ignored, one sentence each."""


def _one_line(text: str) -> str:
    return " ".join(text.split())
