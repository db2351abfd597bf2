"""The user's editors, as the gates need them: which text is open, and one edit that is verified.

Small and light on purpose: who implements it imports nothing else of this room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen


@frozen
class OpenText:
    """A document as an editor has it."""

    text: str
    """Usually without a byte order mark, which editors hide."""
    version: int | None
    dirty: bool
    window: int


@frozen
class LineEdit:
    """Lines [start, end) of the open text, split at line feeds only, become `text`."""

    start: int
    end: int
    text: str


@frozen
class BufferEdit:
    """The edits of one document; they do not overlap and all refer to the text before."""

    path: str
    version: int | None
    edits: tuple[LineEdit, ...]
    expected_text: str
    """The whole text afterwards."""


@frozen
class ApplyOutcome:
    """What became of an edit."""

    applied: bool
    reason: str | None = None


class Editor(Protocol):
    """The user's editors."""

    def open_text(self, path: str) -> OpenText | None:
        """Return the open text of a file of the workspace, None if it is not open.

        Raises:
            Stale: it is dirty in two windows.
        """

    async def apply(self, edits: Sequence[BufferEdit], *, label: str, prefer: int | None) -> ApplyOutcome:
        """Apply the edits in one versioned `workspace/applyEdit` per window, and verify the buffers."""
