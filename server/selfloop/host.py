"""What a workspace is given from above: the ways to the user, and what belongs to the user and not to the folder.

The editor's room implements it, and so may a headless runner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

from selfloop.agent.context import EditorSnapshot
from selfloop.config import Folders
from selfloop.gates.editor import Editor
from selfloop.storage.rules import Rules
from selfloop.updates import UpdateEnvelope


class Host(Protocol):
    """What a workspace is given from above."""

    folders: Folders
    rules: Rules

    def publish(self, envelope: UpdateEnvelope) -> None:
        """Send an update to whoever listens."""

    def gates_changed(self, folder: Path) -> None:
        """Gates of a workspace were opened, decided or moved."""

    def editor(self, folder: Path) -> Editor:
        """Return the user's open editors, as they show a workspace."""

    def snapshot(self, folder: Path) -> EditorSnapshot:
        """Return what all windows together show of a workspace."""

    def key(self, origin: str) -> str | None:
        """Return the key that the user gave for an origin."""

    def secrets(self) -> tuple[str, ...]:
        """Return every secret value that is known, so that it is redacted wherever it turns up."""

    def swap(self, restart_id: str, *, number: int, tree: str, by: str) -> None:
        """Have the supervisor start a generation beside this worker and swap it in; updates tell what becomes of it."""

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something in the background, and cancel it when everything ends."""
