"""Which commands may run unasked: plain reading ones."""

from __future__ import annotations

READING = frozenset({"ls", "cat", "pwd", "wc", "head"})


def runs_unasked(command: str) -> bool:
    """Tell whether a command only reads; what is not understood does not."""
    words = command.split(" ")
    plain = all(word and all(letter.isalnum() or letter in "./_-" for letter in word) for word in words)
    return plain and words[0] in READING
