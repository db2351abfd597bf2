"""Sees a turn that goes round in circles: the same calls with the same results, again and again.

A hint comes first, because a model that is told often finds another way. Going on all the same ends the turn.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from attrs import define, field

LONGEST_CIRCLE = 4
"""Calls in a circle: A-A-A is one, A-B-A-B two."""
_TIMES = re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|s|seconds|min)\b")

HINT = (
    "You have made the same calls with the same results before, so making them again will change nothing. "
    "Take another way: read something else, try something else, or say what is missing and end your turn."
)


@define
class CircleDetector:
    """The calls of one turn."""

    _steps: list[bytes] = field(factory=list)
    _hinted_at: int | None = None

    def observe(self, name: str, arguments: str, result: str) -> Literal["on", "hint", "stop"]:
        """Take notice of a call and its result; "stop" comes only when a whole circle followed a hint."""
        # How long a command took is no news.
        text = f"{name}\0{arguments}\0{_TIMES.sub('', result)}"
        self._steps.append(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        circle = self._circle()
        if circle is None:
            self._hinted_at = None
            return "on"
        if self._hinted_at is None:
            self._hinted_at = len(self._steps)
            return "hint"
        return "stop" if len(self._steps) - self._hinted_at >= circle else "on"

    def _circle(self) -> int | None:
        """Return the length of the circle that the last calls make."""
        steps = self._steps
        for length in range(1, LONGEST_CIRCLE + 1):
            rounds = 3 if length == 1 else 2
            last = steps[-length * rounds :]
            if len(last) == length * rounds and all(step == last[i % length] for i, step in enumerate(last)):
                return length
        return None
