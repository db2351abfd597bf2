"""What a conversation and its turns share: the recorded state, the worktree, and the ways out.

Invariant: the state changes by recorded events alone, so that what a restart reads back is what was there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from selfloop.agent.context import EditorSnapshot
from selfloop.agent.fence import Fence
from selfloop.agent.prompts import Prompts
from selfloop.agent.replay import Recorded, read
from selfloop.agent.repomap import RepositoryMap
from selfloop.agent.reporting import Channel
from selfloop.agent.workplace import Workplace
from selfloop.config import Settings
from selfloop.errors import SelfloopError
from selfloop.messages import Usage
from selfloop.updates import Queue, QueueEntry, Update, UsageUpdate

if TYPE_CHECKING:
    from selfloop.changes import FileChange
    from selfloop.gates.gate import GateRecord
    from selfloop.gates.gates import Gates
    from selfloop.model.client import ModelClient
    from selfloop.sandbox.isolation import Isolation
    from selfloop.sandbox.pool import Pool
    from selfloop.storage.memory import Memory
    from selfloop.storage.sessions import SessionRecord, Sessions
    from selfloop.storage.trajectories import Trajectory

logger = logging.getLogger(__name__)

_TAKE_UP = frozenset({"turn_start", "steer", "turn_end"})
"""Events by which a message that waited is taken up."""

SnapshotNow = Callable[[], EditorSnapshot]


@define
class Parts:
    """What a conversation is given, by the composition root. `model` and `settings` may be changed at any time."""

    workspace: Path
    session: SessionRecord
    sessions: Sessions
    trajectory: Trajectory
    model: ModelClient
    prompts: Prompts
    pool: Callable[[], Awaitable[Pool]]
    gates: Gates
    memory: Memory
    settings: Settings
    isolation: Callable[[], Awaitable[Isolation]]
    emit: Callable[[Update], None]
    redact: Callable[[str], str]
    outputs: Path
    """`.evo/outputs/<session>`."""
    uri: Callable[[str], str]
    """From a workspace-relative path to the URI that editors know."""
    secrets: Callable[[], tuple[str, ...]] = tuple
    """Every secret value that is known, for text that is still being written."""
    streamed: Callable[[str], str] = lambda message_id: ""
    """What the update journal has of a message that a killed worker was writing."""
    repository_map: RepositoryMap = field(factory=RepositoryMap)
    """Shared among the sessions of a workspace, so that files are parsed once."""


@define
class Desk:
    """See the module."""

    parts: Parts
    state: Recorded = field(init=False)
    place: Workplace = field(init=False)
    suspending: bool = field(default=False, init=False)
    """The worker ends; the next one takes up what runs."""
    withdrawn: list[FileChange] = field(factory=list, init=False)
    """Rejected hunks that are still in the worktree."""
    snapshot_now: SnapshotNow | None = field(default=None, init=False)
    """What the editor shows; None: not known."""
    starting: str | None = field(default=None, init=False)
    """The message that a turn is about to begin with: it waits no longer, though that is not recorded yet."""
    shown_queue: list[QueueEntry] | None = field(factory=list, init=False)
    """What clients were told last of the queue; None: not known, since another worker told them."""

    def __attrs_post_init__(self) -> None:
        parts = self.parts
        self.state = read(parts.trajectory.events())
        self.place = Workplace(
            parts.session.id, parts.workspace, parts.sessions, parts.gates, parts.pool, parts.uri, parts.redact
        )

    def record(self, kind: str, data: dict[str, Any], *, durable: bool = False) -> None:
        """Write an event, then let it take effect."""
        self.parts.trajectory.append(kind, data, durable=durable)
        self.state.take(kind, data)
        if kind in _TAKE_UP:
            self.show_queue()

    def queue(self) -> list[QueueEntry]:
        """Return what the user said and no turn has taken up, in order."""
        return [
            QueueEntry(
                message_id=one.message_id, text=one.text, delivery="steer" if one.delivery == "steer" else "queue"
            )
            for one in self.state.waiting.values()
            if one.delivery != "start" and one.message_id != self.starting
        ]

    def show_queue(self) -> None:
        """Tell the clients what waits, if that has changed."""
        queue = self.queue()
        if queue != self.shown_queue:
            self.shown_queue = queue
            self.parts.emit(Queue(entries=queue))

    def fence(self) -> Fence:
        """Return the session's fence; it is made with the first thing the user says."""
        if self.state.marker is None:
            self.record("fence", {"marker": Fence.new().marker})
        return Fence(self.state.marker or "")

    def channel(self) -> Channel:
        """Return the ways out."""
        return Channel(self.record, self.parts.emit, self.parts.redact, self.fence(), self.parts.uri)

    def used(self, usage: Usage) -> None:
        """Count what a call has used towards the day's and the session's spending."""
        self.parts.sessions.store.add_spend(self.parts.session.id, usage)

    def context(self, last: Usage) -> UsageUpdate:
        """Return the session's use, after a call that used `last`."""
        total = self.state.usage
        return UsageUpdate(
            input_tokens=total.input_tokens,
            cached_tokens=total.cached_tokens,
            output_tokens=total.output_tokens,
            cost_usd=total.cost_usd,
            context_tokens=last.input_tokens + last.output_tokens,
            context_limit=self.parts.model.context_limit(),
        )

    async def overlay(self) -> Mapping[str, bytes] | None:
        """Return the unsaved buffers as they are now; None: not known."""
        if self.snapshot_now is None:
            return None
        snapshot = self.snapshot_now()
        return await asyncio.to_thread(snapshot.overlay, self.parts.workspace)

    async def take_back(self) -> None:
        """Take rejected hunks out of the worktree."""
        if not self.withdrawn:
            return
        withdrawn, self.withdrawn = self.withdrawn, []
        try:
            await self.place.withdraw(withdrawn)
        except SelfloopError as error:
            # The gate remembers what was rejected, so it is not proposed again either way.
            logger.warning("Rejected hunks stay in the worktree of %s: %s", self.parts.session.id, error.message)

    def gate_published(self, record: GateRecord) -> None:
        """Note in the trajectory that a gate was opened."""
        if record.state == "open" and record.gate_id not in self.state.gates:
            self.record("gate_opened", {"gate_id": record.gate_id, "type": record.subject_type, "title": record.title})
