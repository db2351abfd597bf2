"""Which tools a level holds."""

from __future__ import annotations

READING = frozenset({"read_file", "list_files", "search"})
WRITING = frozenset({"write_file"})


def tools_of(level: str) -> frozenset[str]:
    """Return the names of the tools that a maker of this level holds."""
    return READING if level == "L1" else READING | WRITING
