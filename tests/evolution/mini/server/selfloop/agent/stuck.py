"""Whether a turn goes round in circles."""

from __future__ import annotations

from collections.abc import Sequence


def is_stuck(calls: Sequence[str]) -> bool:
    """Tell whether the last three calls are the same."""
    return len(calls) >= 3 and len(set(calls[-3:])) == 1
