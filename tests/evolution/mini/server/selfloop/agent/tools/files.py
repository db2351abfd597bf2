"""Reading, writing and listing files, all by the door."""

from __future__ import annotations

from selfloop.sandbox.paths import Door

MOST_NAMES = 200
MOST_CHARS = 20_000


def read_file(door: Door, path: str) -> str:
    """Show a file."""
    text = door.read(path)
    return text if len(text) <= MOST_CHARS else text[:MOST_CHARS] + "\n[cut]"


def write_file(door: Door, path: str, content: str) -> str:
    """Write a whole file, as a proposal."""
    name = door.write(path, content)
    return f"Wrote {name}."


def list_files(door: Door) -> str:
    """List what is there."""
    names = door.names()
    more = len(names) - MOST_NAMES
    return "\n".join(names[:MOST_NAMES]) + (f"\n… and {more} more" if more > 0 else "")
