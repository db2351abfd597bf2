"""One workspace and everything that serves it: the composition root.

    Workspace ─┬─ Store, Sessions, journals           storage/
               ├─ Gates                               gates/
               ├─ Conversation, for each session      agent/
               ├─ Workshop, once a turn needs it      model/, sandbox/
               └─ LoopService, once a loop is on      loops/

It knows no LSP: updates go to a `Host`, which the editor's room (or a headless runner) is. What was cut off by a
crash is taken up by `activate`, once the workspace is trusted.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from selfloop.config import Settings
from selfloop.errors import RequestFailed, Unknown
from selfloop.host import Host
from selfloop.messages import Usage
from selfloop.storage.journal import UpdateJournal
from selfloop.storage.sessions import Sessions
from selfloop.storage.store import Store
from selfloop.updates import Gate, GateInfo, Notice, Update

if TYPE_CHECKING:
    from selfloop.agent.conversation import Conversation
    from selfloop.changes import FileChange
    from selfloop.gates.gate import GateRecord
    from selfloop.gates.gates import Gates
    from selfloop.loops.service import LoopService
    from selfloop.workshop import Workshop


class Workspace:
    """A folder that is served. Opening it makes `.evo/`; nothing of git, commands or models runs before `activate`."""

    def __init__(self, path: Path, *, uri: str, host: Host, settings: Settings) -> None:
        if not path.is_dir():
            raise RequestFailed(f"{path} is no folder, so nothing was opened; open an existing folder.")
        self.path = path
        self.root_uri = uri.rstrip("/")
        self.settings = settings
        self.store = Store.open(path, host.folders)
        self.sessions = Sessions(self.store)
        self._host = host
        self._gates: Gates | None = None
        self._workshop: Workshop | None = None
        self._journals: dict[str | None, UpdateJournal] = {}
        self._conversations: dict[str, Conversation] = {}
        self._mended: asyncio.Task[None] | None = None
        self._resumed: asyncio.Task[None] | None = None
        """None: only onlookers have come by yet, so what was cut off rests."""
        self._loops: LoopService | None = None
        self._governing: asyncio.Task[None] | None = None
        self._suspended = False
        for sentence in self.store.notices:
            self.notice("warning", sentence)

    # Life

    def activate(self, *, passing: bool = False) -> None:
        """Take up what a crash cut off, and warm what the first prompt will need. The workspace must be trusted.

        Args:
            passing: for somebody who looks and goes: approvals come to their end, but turns and rounds rest.
        """
        if self._mended is None:
            self._mended = self._host.spawn(self._mend(), "recovery")
        if self._resumed is None and not passing:
            self._resumed = self._host.spawn(self._resume(self._mended), "resumption")
            self._host.spawn(self._prepare(self._resumed), "preparation")

    async def mended(self) -> None:
        """Wait until what a crash cut off is taken up: approvals applied to their end, prompts known again."""
        for task in (self._mended, self._resumed):
            if task is not None:
                await asyncio.shield(task)

    async def _mend(self) -> None:
        for sentence in await self.gates.recover(self._host.editor(self.path)):
            self.notice("warning", sentence)

    async def _resume(self, mended: asyncio.Task[None]) -> None:
        await asyncio.shield(mended)
        for session_id in self.sessions.running():
            self.conversation(session_id).resume(lambda: self._host.snapshot(self.path))

    async def _prepare(self, resumed: asyncio.Task[None]) -> None:
        await asyncio.shield(resumed)
        keep = {record.session_id for record in self.gates.list("open")}
        gone = await asyncio.to_thread(
            self.store.prune, self.settings.retention_days, keep=keep, blobs=self.gates.images()
        )
        self.gates.forget(gone)
        if self._has_loops():
            self._govern()
        await self.workshop.warm()

    def tools_running(self) -> bool:
        """Tell whether a call of an agent is under way that would be cut off by an end now, and waits for nobody."""
        states = [each.desk.state for each in self._conversations.values() if each.running]
        rounds = self._loops is not None and self._loops.engine.tools_running()
        return rounds or any(state.begun - state.asked for state in states)

    async def suspend(self) -> None:
        """Stop every turn where it can be taken up again; from now on nothing is written, but can still be read."""
        await self.gates.close()  # First: a wait that is cut off from now on leaves its gate open.
        if self._governing is not None:
            self._governing.cancel()
            await asyncio.gather(self._governing, return_exceptions=True)
        for conversation in self._conversations.values():
            await conversation.close()
        if self._workshop is not None:
            await self._workshop.close()
        self._suspended = True

    async def close(self) -> None:
        """Stop every turn where it can be taken up again, and close the files."""
        await self.suspend()
        for journal in self._journals.values():
            journal.close()
        self.store.close()

    # Parts

    @property
    def gates(self) -> Gates:
        """The gates; imported when they are first needed, like the workshop."""
        if self._gates is None:
            from selfloop.gates.gates import Gates

            self._gates = Gates(
                self.store,
                self.path,
                rules=self._host.rules,
                publish=self._gate_published,
                on_decided=self._gate_decided,
                redact=self.redact,
                lives=self.has_session,
            )
        return self._gates

    @property
    def workshop(self) -> Workshop:
        """What turns are made with; imported when it is first needed, because an editor waits for the rest."""
        if self._workshop is None:
            from selfloop.workshop import Workshop

            self._workshop = Workshop(self, self._host)
        return self._workshop

    # Loops

    @property
    def loops(self) -> LoopService:
        """The loops; read when they are first needed."""
        if self._loops is None:
            self._loops = self.workshop.open_loops()
        return self._loops

    @property
    def loops_if_read(self) -> LoopService | None:
        """The loops, if something has needed them before: whoever is asked often does not read them."""
        return self._loops

    async def governed(self) -> LoopService:
        """Return the loops once they run. The workspace must be trusted."""
        self.activate()
        await self.mended()
        self._govern()
        await self.loops.serving.wait()
        return self.loops

    def _govern(self) -> None:
        """Have the loops run, from now on or as they do already."""
        if self._governing is None or self._governing.done():
            self._governing = self._host.spawn(self.loops.serve(), "loops")

    def _has_loops(self) -> bool:
        """Tell whether a loop is on, or a round or an approved action was cut off: else nothing of loops is loaded."""
        from selfloop.storage.loop_settings import LoopSettings
        from selfloop.storage.rounds import UNTOLD

        if any(setting.enabled for setting in LoopSettings(self._host.folders.data, self.path).all().values()):
            return True
        known = self.store.query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'rounds'")
        unfinished = known and self.store.query(f"SELECT 1 FROM rounds WHERE ended_at IS NULL OR {UNTOLD} LIMIT 1")  # noqa: S608
        return bool(unfinished or self.gates.questions.unsettled())

    def spend(self) -> Usage:
        """Return all that was ever used here: by chats, and by rounds of loops."""
        from selfloop.storage.loop_spend import total

        return self.store.spend() + total(self.store)

    def conversation(self, session_id: str) -> Conversation:
        """Return a session's conversation, opened from its trajectory when it is not open yet."""
        if session_id not in self._conversations:
            self._conversations[session_id] = self.workshop.open_conversation(self.sessions.get(session_id))
        return self._conversations[session_id]

    # Sessions

    def has_session(self, session_id: str) -> bool:
        """Tell whether the session is this workspace's."""
        if session_id in self._conversations:
            return True
        try:
            self.sessions.get(session_id)
        except Unknown:
            return False
        return True

    def has_gate(self, gate_id: str) -> bool:
        """Tell whether the gate is this workspace's."""
        try:
            self.gates.get(gate_id)
        except Unknown:
            return False
        return True

    def create_session(self, key: str | None) -> str:
        """Make a session and return its id."""
        return self.sessions.create(key=key).id

    def rename_session(self, session_id: str, title: str, key: str | None) -> None:
        """Give a session another title."""
        self.sessions.rename(session_id, title, key=key)

    def take_over(self, session_id: str) -> None:
        """Make a round's session a chat, because the user speaks in it.

        Raises:
            RequestFailed: its round is under way.
        """
        run_id = self.sessions.state(session_id).get("run")
        if run_id is None:
            return
        if self._loops is not None and run_id in self._loops.engine.running():
            raise RequestFailed(
                "A round of a loop is at work in this session, so nothing was done; wait for its end, or cancel it."
            )
        self.sessions.set_state(session_id, run=None)

    async def cancel_session(self, session_id: str) -> None:
        """End the session's running turn, also one that a crash cut off and that is about to be taken up."""
        self.sessions.get(session_id)
        if tasks := [task for task in (self._mended, self._resumed) if task is not None]:
            await asyncio.wait(tasks)
        await self.conversation(session_id).cancel()

    async def delete_session(self, session_id: str, key: str | None) -> None:
        """End a session and remove what it has left."""
        self.sessions.get(session_id)
        self.take_over(session_id)
        conversation = self.conversation(session_id)
        await conversation.cancel()
        await conversation.discard()
        await conversation.close()
        del self._conversations[session_id]
        if (journal := self._journals.pop(session_id, None)) is not None:
            journal.close()
        self.gates.cancel_session(session_id)
        self.sessions.delete(session_id, key=key)

    def is_running(self, session_id: str) -> bool:
        """Tell whether a turn of the session runs."""
        conversation = self._conversations.get(session_id)
        if conversation is not None and conversation.running:
            return True
        # What a crash cut off, and is about to be taken up, runs too.
        resuming = self._resumed is not None and not self._resumed.done()
        return (self._suspended or resuming) and bool(self.sessions.state(session_id).get("running"))

    def any_running(self) -> bool:
        """Tell whether a turn of any session runs."""
        return any(conversation.running for conversation in self._conversations.values())

    @property
    def at_work(self) -> bool:
        """Whether a turn or a loop's round runs, or what a dead worker left is being mended."""
        return self._mending or self.any_running() or (self._loops is not None and bool(self._loops.engine.running()))

    @property
    def _mending(self) -> bool:
        return any(task is not None and not task.done() for task in (self._mended, self._resumed))

    def use_model(self, settings: Settings) -> None:
        """Use other settings of the model from the next call on."""
        self.settings = settings
        if self._workshop is not None:
            self._workshop.use_model(settings)
        for conversation in self._conversations.values():
            conversation.parts.model, conversation.parts.settings = self.workshop.model, settings

    # Updates

    def updates(self, session_id: str | None) -> UpdateJournal:
        """Return the journal of a session's updates, or of the workspace's own."""
        if session_id not in self._journals:
            if session_id is None:
                self._journals[None] = UpdateJournal.open(self.store.root / "updates.jsonl")
            else:
                self.sessions.get(session_id)
                self._journals[session_id] = self.sessions.journal(session_id)
        return self._journals[session_id]

    def emit(self, update: Update, session_id: str | None = None, *, run_id: str | None = None) -> None:
        """Number an update, write it down, and send it; another worker does that once this one is suspended."""
        if self._suspended:
            return
        folder = self.root_uri if session_id is None else None
        journal = self.updates(session_id)
        self._host.publish(journal.append(update, session_id=session_id, run_id=run_id, workspace_folder=folder))

    def notice(self, severity: Any, text: str, session_id: str | None = None) -> None:
        """Tell the user one sentence."""
        self.emit(Notice(severity=severity, text=self.redact(text)), session_id)

    # Gates

    async def noticed(self, path: str, *, saved: bool) -> None:
        """Look at a document that the user has edited: an undo may have made an approved hunk pending again."""
        if self._mended is None:
            return  # Not trusted: nothing was approved here, and nobody is told.
        await self.mended()
        await self.gates.noticed(path, self._host.editor(self.path), saved=saved)

    def _gate_published(self, record: GateRecord) -> None:
        if record.session_id in self._conversations:
            self._conversations[record.session_id].gate_published(record)
        # A level belongs to no session, and a loop's gates concern whoever reads its reports, not a chat.
        own = record.session_id if record.run_id is None and record.session_id else None
        self.emit(Gate(gate=self.gate_info(record)), own, run_id=record.run_id)
        self._host.gates_changed(self.path)

    def _gate_decided(self, decision: Any) -> None:
        record = self.gates.get(decision.gate_id)
        if record.run_id is not None:
            if record.subject_type != "changes":  # Those are in the files already, perhaps for an onlooker.
                self._govern()  # What was approved is carried out also where no loop is on.
            self.loops.decided(decision, record)
        if record.subject_type in ("changes", "command") and self.has_session(decision.session_id):
            self.conversation(decision.session_id).decided(decision)

    def gate_info(self, record: GateRecord) -> GateInfo:
        """Return a gate as clients see it."""
        return record.info(self.uri)

    async def write_gate_diff(self, gate_id: str) -> Path:
        """Write a gate's whole diff to `.evo/gates/<id>.diff` and return the path."""
        return await self.gates.write_diff(gate_id, self._host.editor(self.path))

    # Naming and cleaning

    def uri(self, path: str) -> str:
        """Return the URI of a path relative to the workspace; of an empty one, the workspace's own."""
        return f"{self.root_uri}/{quote(os.fsencode(path), safe='/-._~')}" if path else self.root_uri

    def redact(self, text: str) -> str:
        """Return the text without secrets."""
        from selfloop.storage.secrets import redact  # Its patterns are many, and nobody waits for them at the start.

        return redact(text, self._host.secrets())

    def diff(self, change: FileChange) -> str:
        """Return a file's change as a unified diff without secrets."""
        from selfloop.changes import unified_diff

        return self.redact(unified_diff(change))
