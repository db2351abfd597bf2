"""What a session is called."""

from __future__ import annotations

LONGEST = 40


def title_of(text: str) -> str:
    """Return the first line of a message, shortened."""
    line = text.strip().split("\n")[0]
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
