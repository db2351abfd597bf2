"""Whether a round's action goes ahead."""

from __future__ import annotations

ALLOWED: frozenset[str] = frozenset({"commit", "draft"})


def decide(level: str, kind: str, verified: bool, paths: tuple[str, ...], allow: tuple[str, ...]) -> str:
    """Return `report`, `escalate` or `proceed`."""
    if level == "L1":
        return "report"
    if level != "L3" or not verified or kind not in allow or kind not in ALLOWED:
        return "escalate"
    if any(part.startswith(".") or part.startswith("test") for path in paths for part in path.split("/")):
        return "escalate"
    return "proceed"
