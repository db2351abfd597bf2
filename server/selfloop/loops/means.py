"""What a round is given: the parts of its workspace, by whoever composes them; loops import nothing from above."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol

from attrs import frozen

from selfloop.agent.context import EditorSnapshot
from selfloop.agent.desk import Parts
from selfloop.gates.editor import Editor
from selfloop.gates.gates import Gates
from selfloop.sandbox.isolation import Isolation
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow
from selfloop.storage.rules import Rules
from selfloop.storage.sessions import SessionRecord, Sessions
from selfloop.storage.store import Store
from selfloop.updates import Update


class Emit(Protocol):
    """Numbers an update, writes it down and sends it."""

    def __call__(self, update: Update, session_id: str | None = None, *, run_id: str | None = None) -> None:
        """Send it in a session's stream, or in the workspace's own."""


class Say(Protocol):
    """Tells the user one plain sentence."""

    def __call__(self, severity: Literal["info", "warning", "error"], text: str) -> None:
        """Say it."""


@frozen
class Means:
    """See the module."""

    workspace: Path
    store: Store
    sessions: Sessions
    gates: Gates
    rules: Rules
    """The commands that the user always allows: where nobody can be asked, they alone answer."""
    parts: Callable[[SessionRecord], Parts]
    """What an agent's turn in a session is made with."""
    pool: Callable[[], Awaitable[Pool]]
    shadow: Callable[[], Awaitable[Shadow]]
    isolation: Callable[[], Awaitable[Isolation]]
    snapshot: Callable[[], EditorSnapshot]
    """What the user's windows show now."""
    editor: Callable[[], Editor]
    emit: Emit
    say: Say
    redact: Callable[[str], str]
    known_secrets: Callable[[], tuple[str, ...]]
    uri: Callable[[str], str]
    """From a workspace-relative path to the URI that clients know."""
    retention_days: Callable[[], int]
    """The age from which on a round is old."""
    scratch: Path
    """A folder of ours in the cache, for worktrees of the user's own repository."""
