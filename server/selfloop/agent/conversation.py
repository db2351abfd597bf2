"""One chat: what the user says, in order, becomes turns; each turn's changes become a proposal.

    prompt ──► recorded ──► turn ──► proposal ──► idle
       └─ steer ─────────────▲ (after the running tools)

Invariants: what the user said is on the disk before `prompt` returns, and is never lost. The state is what the recorded
events lead to, so a restart comes to the same one. One turn runs at a time, and its gate is opened before its `idle`.
Whatever ends a turn, every call has a result.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field, frozen

from selfloop.agent.chat_turn import ChatTurn
from selfloop.agent.context import EditorSnapshot, editor_state
from selfloop.agent.fence import Fence, mend
from selfloop.agent.history import pin_data
from selfloop.agent.prompts import Prompts
from selfloop.agent.rejections import describe
from selfloop.agent.replay import Recorded, read
from selfloop.agent.repomap import RepositoryMap
from selfloop.agent.reporting import Channel, new_id
from selfloop.agent.workplace import Workplace
from selfloop.config import Settings
from selfloop.errors import BudgetExceeded, SelfloopError, StoreError
from selfloop.messages import Usage
from selfloop.updates import MessageUpdate, Notice, State, StopReason, Update, UsageUpdate

if TYPE_CHECKING:
    from selfloop.changes import FileChange
    from selfloop.gates.gate import Decision, GateRecord
    from selfloop.gates.gates import Gates
    from selfloop.model.client import ModelClient
    from selfloop.sandbox.isolation import Isolation
    from selfloop.sandbox.pool import Pool
    from selfloop.storage.memory import Memory
    from selfloop.storage.sessions import SessionRecord, Sessions
    from selfloop.storage.trajectories import Trajectory

logger = logging.getLogger(__name__)

Delivery = Literal["start", "queue", "steer"]
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


@frozen
class PromptAck:
    """What a prompt became."""

    message_id: str
    turn_id: str
    delivery: Delivery


class Conversation:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.state: Recorded = read(parts.trajectory.events())
        self.place = Workplace(
            parts.session.id, parts.workspace, parts.sessions, parts.gates, parts.pool, parts.uri, parts.redact
        )
        self.turn_id: str | None = None
        """The turn that runs and can be steered."""
        self.suspending = False
        """The worker ends; the next one takes up what runs."""
        self.withdrawn: list[FileChange] = []
        """Rejected hunks that are still in the worktree."""
        self._snapshot_now: SnapshotNow | None = None
        self._serving: asyncio.Task[None] | None = None
        self._turn: asyncio.Task[StopReason] | None = None
        self._begun = asyncio.Event()
        """Set while a turn runs."""
        self._settled = asyncio.Event()
        """Set when the turn that runs has ended."""
        self._chores: set[asyncio.Task[None]] = set()
        if not self.state.history.entries and not self.state.waiting:
            self.record("session_start", {"session_id": parts.session.id, "workspace": str(parts.workspace)})

    # What the user does

    @property
    def running(self) -> bool:
        """Whether a turn runs or waits to run."""
        return self._serving is not None

    def prompt(
        self,
        text: str,
        snapshot: EditorSnapshot,
        *,
        delivery: Literal["queue", "steer"] | None,
        key: str | None,
        snapshot_now: SnapshotNow,
    ) -> PromptAck:
        """Take what the user says. It is recorded when this returns; the work goes on in a task.

        Args:
            text: the user's words.
            snapshot: what the editor shows, attachments included.
            delivery: while a turn runs: `steer` enters it after the running tools, anything else waits for its end.
            key: the request's key, under which the store notes that it took effect.
            snapshot_now: asked again when the turn begins and when it ends.

        Raises:
            StoreError: it could not be recorded; nothing was started.
        """
        steers = self.turn_id is not None and delivery == "steer"
        kind: Delivery = "steer" if steers else "queue" if self.running else "start"
        message_id = new_id("message")
        turn_id = self.turn_id if steers and self.turn_id is not None else new_id("turn")
        words = self.parts.redact(mend(text))
        sessions, session_id = self.parts.sessions, self.parts.session.id
        # Noted first: should the worker die after the next line, its successor knows that there is something to do.
        sessions.set_state(session_id, running=True)
        data = {
            "message_id": message_id,
            "turn_id": turn_id,
            "text": words,
            "delivery": kind,
            "editor": self.parts.redact(mend(editor_state(snapshot, self.fence()))),
            "key": key,
        }
        self.record("user_input", data, durable=True)
        with sessions.store.transaction() as connection:
            sessions.touch(session_id, title=words.strip().split("\n", 1)[0])
            sessions.store.note_outcome(key, connection)
        self._snapshot_now = snapshot_now
        self.parts.emit(MessageUpdate(message_id=message_id, role="user", text=words))
        self._serve()
        return PromptAck(message_id, turn_id, kind)

    async def cancel(self) -> None:
        """End the running turn and all that it has started; what waits goes on as the next turn.

        Returns when the update `idle` with `cancelled` is out.
        """
        if self.running and self._turn is None:
            # The next turn is about to begin: it is the one that is meant.
            await self._begun.wait()
        if self._turn is None:
            return
        if not self._turn.done():
            self.record("cancel", {"turn_id": self.turn_id}, durable=True)
            self._turn.cancel()
        await self._settled.wait()

    def resume(self, snapshot_now: SnapshotNow | None = None) -> None:
        """Take up what a worker that was killed has left: its turn where it was cut off, then what waits.

        Args:
            snapshot_now: what the editor shows; None: not known yet, so the worktree stays as it is.
        """
        if self.running:
            return
        self._snapshot_now = snapshot_now or self._snapshot_now
        for waiting in self.state.waiting.values():
            # The worker may have died between recording the words and noting that their request took effect.
            if waiting.key is not None:
                with self.parts.sessions.store.transaction() as connection:
                    self.parts.sessions.store.note_outcome(waiting.key, connection)
        if self.state.turn_id is None and not self.state.waiting:
            self.parts.sessions.set_state(self.parts.session.id, running=None)
            return
        if self.state.writing is not None and (text := self.parts.streamed(self.state.writing)):
            # It is asked anew under another id; what was shown of it must not look as if it went on.
            self.parts.emit(
                MessageUpdate(message_id=self.state.writing, role="assistant", text=text, status="interrupted")
            )
        self._serve()

    async def changes(self) -> list[FileChange]:
        """Return what the session has changed and the user does not have yet."""
        return await self.place.changes()

    def decided(self, decision: Decision) -> None:
        """Take notice of a gate's decision: rejected hunks leave the worktree, and the model is told."""
        told = describe(decision, max(1, self.state.task), self.parts.redact)
        self.record(
            "gate_resolved",
            {"gate_id": decision.gate_id, "option_id": decision.option_id, "comment": decision.comment},
            durable=True,
        )
        if told is not None:
            self.record("told", {"text": told.text, "pins": pin_data(told.pins)}, durable=True)
        self.withdrawn += decision.withdrawn
        if self.withdrawn and not self.running:
            self._chore(self.take_back())

    def gate_published(self, record: GateRecord) -> None:
        """Note in the trajectory that a gate was opened."""
        if record.state == "open" and record.gate_id not in self.state.gates:
            self.record("gate_opened", {"gate_id": record.gate_id, "type": record.subject_type, "title": record.title})

    async def close(self) -> None:
        """Stop where the next worker can go on, and close the trajectory. Closing twice is no error."""
        if self.suspending:
            return
        self.suspending = True
        tasks = [task for task in (self._serving, *self._chores) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.state.turn_id is None and not self.state.waiting:
            with contextlib.suppress(StoreError):
                self.record("session_end", {"session_id": self.parts.session.id})
        self.parts.trajectory.close()

    async def discard(self) -> None:
        """Give the worktree back to the pool, before the session is deleted."""
        await self.place.discard()

    # What the turns use

    def record(self, kind: str, data: dict[str, Any], *, durable: bool = False) -> None:
        """Write an event, then let it take effect."""
        self.parts.trajectory.append(kind, data, durable=durable)
        self.state.take(kind, data)

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
        if self._snapshot_now is None:
            return None
        snapshot = self._snapshot_now()
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

    # The turns, one after the other

    def _serve(self) -> None:
        if self._serving is None:
            name = f"conversation {self.parts.session.id}"
            self._serving = asyncio.get_running_loop().create_task(self._work_off(), name=name)

    async def _work_off(self) -> None:
        """Carry out what was cut off, then what waits, until nothing does."""
        session_id = self.parts.session.id
        try:
            while self.state.turn_id is not None or self.state.waiting:
                await self._one_turn()
            self.parts.sessions.set_state(session_id, running=None)
        except SelfloopError as error:
            # Not even the end of the turn could be recorded. What was said is on the disk; the next start takes it up.
            logger.error("Session %s stops: %s", session_id, error.message)
            with contextlib.suppress(SelfloopError):
                self.parts.emit(Notice(severity="error", text=error.message))
                self.parts.emit(State(state="idle", stop_reason="error"))
        finally:
            self._serving = None

    async def _one_turn(self) -> None:
        state = self.state
        start = None if state.turn_id is not None else next(iter(state.waiting.values()))
        if start is None:
            turn_id = state.turn_id or ""
        else:
            # A steering that came too late for its turn is a turn of its own.
            turn_id = new_id("turn") if start.delivery == "steer" else start.turn_id
        turn = ChatTurn(self, turn_id, start)
        self.turn_id = turn_id
        self._settled.clear()
        self.parts.emit(State(state="running", turn_id=turn_id))
        self._turn = work = asyncio.create_task(turn.run(), name=turn_id)
        self._begun.set()
        if state.cancelled:
            # The worker was killed between the user's cancel and the turn's end.
            work.cancel()
        try:
            await asyncio.wait([work])
            self.turn_id = None
            await turn.settle(*self._ending(work))
        finally:
            self.turn_id = None
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
            self._turn = None
            self._begun.clear()
            self._settled.set()

    def _ending(self, work: asyncio.Task[StopReason]) -> tuple[StopReason, str | None]:
        """Return why a turn has ended, and the sentence for the user."""
        if work.cancelled():
            return "cancelled", None
        error = work.exception()
        if error is None:
            return work.result(), None
        if isinstance(error, BudgetExceeded):
            return "budget", error.message
        if isinstance(error, SelfloopError):
            return "error", error.message
        logger.error("A turn of session %s failed.", self.parts.session.id, exc_info=error)
        return "error", (
            "A fault in Selfloop ended the turn; what was done so far is kept and the log says where. Send your "
            "message again, or say how to go on."
        )

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
