"""Makes outcomes, and keeps reports as JSON; what a report is stands in `selfloop.reports`."""

from __future__ import annotations

import msgspec

from selfloop.errors import StoreError
from selfloop.reports import (
    NOTE_CHARACTERS,
    REPORT_TAG,
    ActionReport,
    AgentReport,
    EvidenceInfo,
    LevelName,
    LimitName,
    Outcome,
    OutcomeType,
    Phase,
    ReceiptInfo,
    RoundReport,
    Status,
)

__all__ = [
    "NOTE_CHARACTERS",
    "REPORT_TAG",
    "ActionReport",
    "AgentReport",
    "EvidenceInfo",
    "LevelName",
    "LimitName",
    "Outcome",
    "OutcomeType",
    "Phase",
    "ReceiptInfo",
    "RoundReport",
    "Status",
    "budget_exhausted",
    "escalated",
    "failed",
    "from_json",
    "proceeded",
    "reported",
    "to_json",
]


def reported() -> Outcome:
    """Return the outcome of a round that ends in its report."""
    return Outcome(type="reported")


def proceeded() -> Outcome:
    """Return the outcome of a round whose action was carried out without asking."""
    return Outcome(type="proceeded")


def escalated(reason: str) -> Outcome:
    """Return the outcome of a round that a human decides."""
    return Outcome(type="escalated", reason=reason)


def budget_exhausted(limit: LimitName) -> Outcome:
    """Return the outcome of a round that met a limit."""
    return Outcome(type="budget-exhausted", limit=limit)


def failed(error: str) -> Outcome:
    """Return the outcome of a round that could not be carried through."""
    return Outcome(type="failed", error=error)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RoundReport)


def to_json(report: RoundReport) -> str:
    """Return the report as it is stored and sent."""
    return _encoder.encode(report).decode()


def from_json(text: str | bytes) -> RoundReport:
    """Read what `to_json` wrote.

    Raises:
        StoreError: it is none.
    """
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(
            f"A stored report cannot be understood ({error}), so it is not shown; run the loop again."
        ) from error
