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
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from selfloop.agent.chat_turn import ChatTurn
from selfloop.agent.context import EditorSnapshot, editor_state
from selfloop.agent.desk import Desk, Parts, SnapshotNow
from selfloop.agent.fence import mend
from selfloop.agent.history import pin_data
from selfloop.agent.rejections import describe
from selfloop.agent.replay import Recorded
from selfloop.agent.reporting import new_id
from selfloop.errors import BudgetExceeded, Decided, SelfloopError, StoreError, Unknown
from selfloop.updates import MessageUpdate, Notice, QueueEntry, State, StopReason

if TYPE_CHECKING:
    from selfloop.changes import FileChange
    from selfloop.gates.gate import Decision, GateRecord

__all__ = ["Conversation", "Parts", "PromptAck"]

logger = logging.getLogger(__name__)

Delivery = Literal["start", "queue", "steer"]


@frozen
class PromptAck:
    """What a prompt became."""

    message_id: str
    turn_id: str
    delivery: Delivery


class Conversation:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self.desk = Desk(parts)
        self._turn_id: str | None = None
        """The turn that runs and can be steered."""
        self._serving: asyncio.Task[None] | None = None
        self._turn: asyncio.Task[StopReason] | None = None
        self._begun = asyncio.Event()
        """Set while a turn runs, and when none will."""
        self._settled = asyncio.Event()
        """Set when the turn that runs has ended."""
        self._chores: set[asyncio.Task[None]] = set()
        if not self.state.history.entries and not self.state.waiting:
            self.desk.record("session_start", {"session_id": parts.session.id, "workspace": str(parts.workspace)})

    @property
    def parts(self) -> Parts:
        """What it was given."""
        return self.desk.parts

    @property
    def state(self) -> Recorded:
        """What the recorded events have led to."""
        return self.desk.state

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
        steers = self._turn_id is not None and delivery == "steer"
        kind: Delivery = "steer" if steers else "queue" if self.running else "start"
        message_id = new_id("message")
        turn_id = self._turn_id if steers and self._turn_id is not None else new_id("turn")
        words = self.parts.redact(mend(text))
        sessions, session_id = self.parts.sessions, self.parts.session.id
        # Noted first: should the worker die after the next line, its successor knows that there is something to do.
        sessions.set_state(session_id, running=True)
        data = {
            "message_id": message_id,
            "turn_id": turn_id,
            "text": words,
            "delivery": kind,
            "editor": self.parts.redact(mend(editor_state(snapshot, self.desk.fence()))),
            "key": key,
        }
        self.desk.record("user_input", data, durable=True)
        with sessions.store.transaction() as connection:
            sessions.touch(session_id, title=words.strip().split("\n", 1)[0])
            sessions.store.note_outcome(key, connection)
        self.desk.snapshot_now = snapshot_now
        self.parts.emit(MessageUpdate(message_id=message_id, role="user", text=words))
        self.desk.show_queue()
        self._serve()
        return PromptAck(message_id, turn_id, kind)

    def queue(self) -> list[QueueEntry]:
        """Return what waits for a turn, in order."""
        return self.desk.queue()

    def requeue(self, message_id: str, text: str, *, key: str | None) -> list[QueueEntry]:
        """Give a message that waits another text, or take it out of the queue if that is blank; return the queue.

        It is recorded when this returns.

        Raises:
            Unknown: the user never said anything of this id here.
            Decided: it waits no longer.
            StoreError: it could not be recorded; the message is as it was.
        """
        if all(entry.message_id != message_id for entry in self.desk.queue()):
            if message_id not in self.state.said:
                raise Unknown("Message", message_id)
            raise Decided(
                "This message waits no longer: a turn has begun with it, or it was taken out. Nothing was changed; "
                "send another message, or cancel the turn."
            )
        words = self.parts.redact(mend(text)) if text.strip() else ""
        self.desk.record("requeued", {"message_id": message_id, "text": words, "key": key}, durable=True)
        with self.parts.sessions.store.transaction() as connection:
            self.parts.sessions.store.note_outcome(key, connection)
        self.parts.emit(
            MessageUpdate(message_id=message_id, role="user", text=words, status=None if words else "removed")
        )
        self.desk.show_queue()
        return self.desk.queue()

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
            turn = self._turn
            with contextlib.suppress(StoreError):
                # A full disk is no reason to go on with what the user has ended.
                self.desk.record("cancel", {"turn_id": self._turn_id}, durable=True)
            turn.cancel()
        await self._settled.wait()

    def resume(self, snapshot_now: SnapshotNow | None = None) -> None:
        """Take up what a worker that was killed has left: its turn where it was cut off, then what waits.

        Args:
            snapshot_now: what the editor shows; None: not known yet, so the worktree stays as it is.
        """
        if self.running:
            return
        self.desk.snapshot_now = snapshot_now or self.desk.snapshot_now
        for key in [*(waiting.key for waiting in self.state.waiting.values()), *self.state.requeued]:
            # The worker may have died between recording the words and noting that their request took effect.
            if key is not None:
                with self.parts.sessions.store.transaction() as connection:
                    self.parts.sessions.store.note_outcome(key, connection)
        if self.state.turn_id is None and not self.state.waiting:
            self.parts.sessions.set_state(self.parts.session.id, running=None)
            return
        # It may also have died before it told what waits.
        self.desk.shown_queue = None
        self.desk.show_queue()
        if self.state.writing is not None and (text := self.parts.streamed(self.state.writing)):
            # It is asked anew under another id; what was shown of it must not look as if it went on.
            self.parts.emit(
                MessageUpdate(message_id=self.state.writing, role="assistant", text=text, status="interrupted")
            )
        self._serve()

    async def changes(self) -> list[FileChange]:
        """Return what the session has changed and the user does not have yet."""
        return await self.desk.place.changes()

    def decided(self, decision: Decision) -> None:
        """Take notice of a gate's decision: rejected hunks leave the worktree, and the model is told."""
        told = describe(decision, max(1, self.state.task), self.parts.redact, self.desk.fence())
        self.desk.record(
            "gate_resolved",
            {"gate_id": decision.gate_id, "option_id": decision.option_id, "comment": decision.comment},
            durable=True,
        )
        if told is not None:
            self.desk.record("told", {"text": told.text, "pins": pin_data(told.pins)}, durable=True)
        self.desk.withdrawn += decision.withdrawn
        if self.desk.withdrawn and not self.running:
            self._chore(self.desk.take_back())

    def gate_published(self, record: GateRecord) -> None:
        """Note in the trajectory that a gate was opened."""
        self.desk.gate_published(record)

    async def close(self) -> None:
        """Stop where the next worker can go on, and close the trajectory. Closing twice is no error."""
        if self.desk.suspending:
            return
        self.desk.suspending = True
        tasks = [task for task in (self._serving, *self._chores) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.state.turn_id is None and not self.state.waiting:
            with contextlib.suppress(StoreError):
                self.desk.record("session_end", {"session_id": self.parts.session.id})
        self.parts.trajectory.close()

    async def discard(self) -> None:
        """Give the worktree back to the pool, before the session is deleted."""
        await self.desk.place.discard()

    # The turns, one after the other

    def _serve(self) -> None:
        if self._serving is None:
            self._begun.clear()
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
        except Exception:
            logger.exception("Session %s stops by a fault.", session_id)
            with contextlib.suppress(SelfloopError):
                text = "A fault in Selfloop stopped the session; the log says where. Send a message to go on."
                self.parts.emit(Notice(severity="error", text=text))
                self.parts.emit(State(state="idle", stop_reason="error"))
        finally:
            self._serving = None
            # Whoever waits for a turn to begin waits no longer.
            self._begun.set()

    async def _one_turn(self) -> None:
        state = self.state
        start = None if state.turn_id is not None else next(iter(state.waiting.values()))
        if start is None:
            turn_id = state.turn_id or ""
        else:
            # A steering that came too late for its turn is a turn of its own.
            turn_id = new_id("turn") if start.delivery == "steer" else start.turn_id
        turn = ChatTurn(self.desk, turn_id, start)
        self.desk.starting = start.message_id if start is not None else None
        self._turn_id = turn_id
        self._settled.clear()
        self.parts.emit(State(state="running", turn_id=turn_id))
        self.desk.show_queue()
        self._turn = work = asyncio.create_task(turn.run(), name=turn_id)
        self._begun.set()
        if state.cancelled:
            # The worker was killed between the user's cancel and the turn's end.
            work.cancel()
        try:
            await asyncio.wait([work])
            self._turn_id = None
            await turn.settle(*self._ending(work))
        finally:
            self._turn_id = None
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
