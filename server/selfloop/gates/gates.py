"""The gates of one workspace, as the rest of the house knows them.

    propose ─► open ─► read ─► resolve (hunk by hunk, or whole) ─► resolved ─► undo

Invariant: a session has at most one open gate on changes, and its id lasts until everything in it is decided. To cancel
the request that asked for a decision does not cut off what the decision brings about.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve

from selfloop.changes import FileChange
from selfloop.errors import Unknown
from selfloop.gates.commands import CommandGates
from selfloop.gates.deciding import Decisions
from selfloop.gates.editor import Editor
from selfloop.gates.gate import CommandDecision, CommandRequest, Decision, EvidenceItem, GateRecord, GateState
from selfloop.gates.ledger import Proposal
from selfloop.gates.proposals import merge, resolved_by, summary
from selfloop.gates.review import GateView, Resolution, assumed
from selfloop.gates.shelf import Shelf
from selfloop.storage.rules import Rules
from selfloop.storage.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")
_MOST_EVIDENCE = 50


class Gates:
    """See the module."""

    def __init__(
        self,
        store: Store,
        workspace: Path,
        *,
        rules: Rules | None = None,
        publish: Callable[[GateRecord], None] = lambda _: None,
        on_decided: Callable[[Decision], None] = lambda _: None,
        redact: Callable[[str], str] = lambda text: text,
    ) -> None:
        """Open the gates of a workspace.

        Args:
            store: where they are kept.
            workspace: the user's folder, which approved changes go to.
            rules: the remembered commands; None: none are remembered.
            publish: is told of each gate that was opened or has changed.
            on_decided: is told of each decision, once it is stored.
            redact: takes secrets out of what is written for reading.
        """
        self._shelf = Shelf(store, workspace, publish, redact)
        self._decisions = Decisions(self._shelf, on_decided)
        self._commands = CommandGates(self._shelf, workspace, rules, on_decided, _new_id)
        self._tasks: set[asyncio.Task[Any]] = set()

    # Looking

    def list(self, state: GateState | None = None) -> Sequence[GateRecord]:
        """Return the gates, oldest first."""
        return self._shelf.records(state)

    def get(self, gate_id: str) -> GateRecord:
        """Return a gate.

        Raises:
            Unknown: there is none of this id.
        """
        return self._shelf.record(gate_id)

    async def read(self, gate_id: str, editor: Editor) -> GateView:
        """Return a gate with its files and hunks in the user's text as it is now, and the digest of that."""
        proposal = self._shelf.load(gate_id)
        if proposal.record.subject_type != "changes":
            return GateView(proposal.record, (), proposal.evidence)
        reviews = await self._shelf.reviews(proposal, editor)
        record = self._shelf.with_digest(proposal, reviews)
        return GateView(record, tuple(one.view for one in reviews), proposal.evidence)

    async def write_diff(self, gate_id: str, editor: Editor) -> Path:
        """Write the whole gate as text to `.evo/gates/<id>.diff`, and return the path."""
        proposal = self._shelf.load(gate_id)
        reviews = await self._shelf.reviews(proposal, editor)
        self._shelf.with_digest(proposal, reviews)
        return await asyncio.to_thread(self._shelf.write_diff, proposal, reviews)

    # Changes

    def propose(
        self,
        session_id: str,
        changes: Sequence[FileChange],
        *,
        title: str,
        evidence: Sequence[EvidenceItem] = (),
        turn_id: str | None = None,
        run_id: str | None = None,
    ) -> GateRecord | None:
        """Put a session's changes before the user: in its open gate, which keeps its id, or in a new one.

        What was decided stays decided, and what was rejected before starts as rejected.

        Returns:
            The open gate; None if nothing waits for an answer, and then no gate of the session is open.
        """
        found = self._shelf.ledger.open_gate(session_id)
        prior = self._shelf.load(found) if found is not None else None
        files, states = merge(prior, changes, self._shelf.ledger.rejected(session_id))
        waiting = any(state.present and state.status == "pending" for state in states.values())
        if prior is None and not waiting:
            return None
        gate_id, created_at = (prior.record.gate_id, prior.record.created_at) if prior else _new_id()
        subject, description, risk = summary(files, states)
        if prior is not None and tuple(prior.files) == tuple(files):
            title = prior.record.title  # A turn that changed nothing, such as an answer, does not rename the proposal.
        ran: dict[str, EvidenceItem] = {}
        for item in (*(prior.evidence if prior else ()), *evidence):
            ran.pop(item.command, None)  # Of a command that ran again only the last run counts.
            ran[item.command] = item
        proposal = Proposal(
            GateRecord(
                gate_id,
                session_id,
                "changes",
                subject,
                title,
                "",
                created_at,
                risk=risk,
                description=description,
                run_id=run_id,
                turn_id=turn_id,
                comment=prior.record.comment if prior else None,
            ),
            files,
            states,
            tuple(ran.values())[-_MOST_EVIDENCE:],
        )
        reviews = [assumed(change, proposal.state_of(change)) for change in files]
        self._shelf.with_digest(proposal, reviews)
        if not waiting:
            decided = any(state.status != "pending" for state in states.values())
            by = resolved_by(states.values()) if decided else None
            state: GateState = "resolved" if decided else "cancelled"
            proposal.record = evolve(proposal.record, state=state, resolved_by=by)
        with self._shelf.store.transaction() as connection:
            self._shelf.ledger.save(proposal, connection, files=True)
        self._shelf.keep(proposal)
        try:
            self._shelf.write_diff(proposal, reviews)
        except OSError as error:
            log.warning("gate %s is open, but its diff file could not be written: %s", gate_id, error)
        self._shelf.publish(proposal.record)
        known = prior.hunks if prior else {}
        recalled = [name for name, state in states.items() if state.status == "rejected" and name not in known]
        if recalled:
            self._decisions.tell_rejected(proposal, recalled)
        return proposal.record if waiting else None

    def proposed(self, session_id: str) -> Proposal | None:
        """Return what the session's open gate holds, None if it has none: a proposal outlives its worktree."""
        found = self._shelf.ledger.open_gate(session_id)
        return None if found is None else self._shelf.load(found)

    async def resolve(
        self,
        gate_id: str,
        option_id: str,
        *,
        digest: str | None,
        hunks: Sequence[tuple[str, str]] | None = None,
        comment: str | None = None,
        editor: Editor,
        key: str | None = None,
        window: int | None = None,
    ) -> Resolution:
        """Answer a gate: the named hunks, each by its digest, or all that is pending by the gate's.

        All that was chosen is applied, or nothing is: then `conflicts` says what stood in the way, and all of it stays
        pending. The same answer again changes nothing and is no error.

        Args:
            gate_id: which gate.
            option_id: one of its options.
            digest: the gate's, as it was shown; not needed where hunks are named.
            hunks: ids and digests.
            comment: the user's words, for whoever made the proposal.
            editor: the user's editors.
            key: the request's key, under which the store notes that it took effect.
            window: the window that asked, which is preferred among those that have a file open.

        Raises:
            Unknown: there is no such gate, option or hunk.
            Decided: it was answered before, differently.
            Stale: a digest is not that of what is there now.
        """
        record = self.get(gate_id)
        if all(option.option_id != option_id for option in record.options):
            raise Unknown("Option", option_id)
        if record.subject_type != "changes":
            answered = self._commands.resolve(record, option_id, digest=digest, comment=comment, key=key)
            return Resolution(answered)
        return await self._finish(
            self._decisions.resolve(gate_id, option_id, digest, hunks, comment, editor, key, window),
            f"resolve {gate_id}",
        )

    async def undo(
        self, gate_id: str, *, editor: Editor, key: str | None = None, window: int | None = None
    ) -> Resolution:
        """Take back what a gate applied, file by file, carried to the text as it is now.

        A file whose lines were edited since is left as it is, and named in `conflicts`.
        """
        self.get(gate_id)
        return await self._finish(self._decisions.undo(gate_id, editor, key, window), f"undo {gate_id}")

    async def recover(self, editor: Editor) -> Sequence[str]:
        """After a crash: finish what was approved and not applied to the end; return sentences for the user.

        To be awaited before the store is asked which requests took effect.
        """
        return await self._decisions.recover(editor)

    # Commands

    async def ask_command(self, request: CommandRequest) -> CommandDecision:
        """Ask the user about a command, unless a remembered rule answers, and wait for the answer."""
        return await self._commands.ask(request)

    # Life

    def cancel_session(self, session_id: str) -> None:
        """Cancel every open gate of a session."""
        for record in self._shelf.records("open"):
            if record.session_id != session_id:
                continue
            if record.subject_type == "changes":
                proposal = self._shelf.load(record.gate_id)
                proposal.record = evolve(proposal.record, state="cancelled")
                self._shelf.save(proposal)
                self._shelf.publish(proposal.record)
            else:
                self._commands.cancel(record.gate_id)

    def forget(self, session_ids: Sequence[str]) -> None:
        """Remove all gates of sessions that are no more."""
        for gate_id in self._shelf.ledger.forget(session_ids):
            self._shelf.drop(gate_id)

    def images(self) -> set[str]:
        """Return the digests of the images that the store must keep."""
        return self._shelf.ledger.blobs()

    async def close(self) -> None:
        """Let what is being applied come to its end. From now on a wait that is cut off leaves its gate open."""
        self._commands.closing = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    # Inside

    async def _finish(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run something that must come to its end, even if whoever asked is cancelled."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("%s ended with: %s", task.get_name(), error)


def _new_id() -> tuple[str, str]:
    """Return a new gate's id, which sorts by time, and the time."""
    now = datetime.now(UTC)
    return f"gate-{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}", now.isoformat()
