"""Which tools a round's agents hold: the level's filter, by name.

Invariant: a list of what is held, not of what is taken away, so a tool that is new tomorrow is held by nobody until it
stands here. At L1 nothing that an agent of a loop holds can change a file or run a command; but for the checker, whose
commands run in a clean worktree of its own.
"""

from __future__ import annotations

from selfloop.loops.spec import FORGE_TOOLS, Level, LoopSpec

READING = frozenset({"read_file", "list_files", "search", "recall", "plan"})
WRITING = frozenset({"write_file", "edit_file", "delete_file"})
DELEGATING = frozenset({"spawn_agent", "wait_agent"})
"""A sub-agent holds at most what its parent holds."""

# `remember` is held by nobody: a round's memory is what the engine records of it, and text of strangers that a round
# reads must not reach later rounds and chats as a note of ours.


def maker_tools(spec: LoopSpec) -> frozenset[str]:
    """Return the names of the tools that the maker may hold."""
    held = READING | DELEGATING | _forge(spec)
    return held if spec.level is Level.L1 else held | WRITING | {"shell"}


def checker_tools(spec: LoopSpec) -> frozenset[str]:
    """Return the names of the tools that the checker may hold: at every level it reads and runs, and never edits."""
    return READING | _forge(spec) | {"shell", "submit_verdict"}


def _forge(spec: LoopSpec) -> frozenset[str]:
    return FORGE_TOOLS & frozenset(spec.tools)
