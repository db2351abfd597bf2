"""What a checker's verdict is worth."""

from __future__ import annotations


def counts(verdict: str, evidence: list[tuple[str, int]], ran: list[tuple[str, int]]) -> bool:
    """Tell whether something is verified: every piece of evidence ran, and passed."""
    return verdict == "verified" and bool(evidence) and all(item in ran and item[1] == 0 for item in evidence)
