"""The gates of one workspace, as the rest of the house knows them.

    propose ─► open ─► read ─► resolve (hunk by hunk, or whole) ─► resolved ─► undo

Invariant: a session has at most one open gate on changes, and its id lasts until everything in it is decided. To cancel
the request that asked for a decision does not cut off what the decision brings about.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
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
from selfloop.gates.proposing import Heading, new_id
from selfloop.gates.questions import Questions
from selfloop.gates.review import GateView, Resolution
from selfloop.gates.shelf import Shelf
from selfloop.storage.rules import Rules
from selfloop.storage.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")


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
        lives: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Open the gates of a workspace.

        Args:
            store: where they are kept.
            workspace: the user's folder, which approved changes go to.
            rules: the remembered commands; None: none are remembered.
            publish: is told of each gate that was opened or has changed.
            on_decided: is told of each decision, once it is stored.
            redact: takes secrets out of what is written for reading.
            lives: tells whether a session is still there; nothing is asked for one that was deleted.
        """
        self._shelf = Shelf(store, workspace, publish, redact)
        self._decisions = Decisions(self._shelf, on_decided, lives)
        self._commands = CommandGates(self._shelf, workspace, rules, on_decided, new_id)
        self.questions = Questions(self._shelf, on_decided)
        """Those on actions, levels and evolutions, which loops ask."""
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

    async def read(self, gate_id: str, editor: Editor, *, sealed: bool = True) -> GateView:
        """Return a gate with its files and hunks in the user's text as it is now, and the digest of that.

        Without `sealed` the digest is the one of an earlier look: who only shows hunks needs none, and it costs the
        most.
        """
        proposal = self._shelf.load(gate_id)
        if proposal.record.subject_type != "changes":
            return GateView(proposal.record, (), proposal.evidence)
        reviews = await self._shelf.reviews(proposal, editor)
        record = self._shelf.with_digest(proposal, reviews) if sealed else proposal.record
        return GateView(record, tuple(one.view for one in reviews), proposal.evidence, tuple(reviews))

    async def write_diff(self, gate_id: str, editor: Editor) -> Path:
        """Write the whole gate as text to `.evo/gates/<id>.diff`, and return the path."""
        proposal = self._shelf.load(gate_id)
        reviews = await self._shelf.reviews(proposal, editor)
        if proposal.record.subject_type == "changes":
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
        words: Sequence[str] = (),
        turn_id: str | None = None,
        run_id: str | None = None,
    ) -> GateRecord | None:
        """Put a session's changes before the user: in its open gate, which keeps its id, or in a new one.

        What was decided stays decided, and what was rejected before starts as rejected.

        Args:
            session_id: whose changes.
            changes: all of them, against the user's text.
            title: what the gate is called, unless nothing in it is new.
            evidence: the commands that ran for it.
            words: what the user said for it.
            turn_id: the turn that ends with it.
            run_id: the run that it belongs to.

        Returns:
            The open gate; None if nothing waits for an answer, and then no gate of the session is open.
        """
        return self._decisions.propose(
            session_id,
            changes,
            Heading(title=title, evidence=tuple(evidence), words=tuple(words), turn_id=turn_id, run_id=run_id),
        )

    def of_run(self, run_id: str) -> Sequence[GateRecord]:
        """Return the gates that a round has opened, oldest first."""
        return self._shelf.ledger.of_run(run_id)

    def rejected(self, session_ids: Iterable[str]) -> set[str]:
        """Return the contents of the hunks that the user has rejected in some sessions (`proposals.content_key`)."""
        return {content for session_id in session_ids for content in self._shelf.ledger.rejected(session_id)}

    def remember_rejections(self, session_id: str, contents: Iterable[str]) -> None:
        """Have a session start with what was rejected before: it is not asked again there."""
        with self._shelf.store.transaction() as connection:
            self._shelf.ledger.remember_rejections(session_id, contents, connection)

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
        if record.subject_type in ("action", "level", "evolution"):
            return Resolution(self.questions.resolve(record, option_id, digest=digest, comment=comment, key=key))
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
        """Take back what a gate applied, over all its files, carried to the text as it is now; or nothing of it.

        A file whose lines were edited since is named in `conflicts`, and then every file stays as it is. What was taken
        back waits for an answer again: in the gate if it is open, else in the session's next one.
        """
        self.get(gate_id)
        return await self._finish(self._decisions.undo(gate_id, editor, key, window), f"undo {gate_id}")

    async def noticed(self, path: str, editor: Editor, *, saved: bool = False) -> None:
        """Look at a document that the user has edited: the editor's undo of an approved hunk makes it pending again.

        It waits in its gate if that is open, else in the session's next one; a redo approves it again.

        Args:
            path: the file, relative to the workspace.
            editor: the user's editors.
            saved: the user has saved it since it was last looked at.
        """
        await self._finish(self._decisions.noticed(path, editor, saved=saved), f"notice {path}")

    def watches(self, path: str) -> bool:
        """Tell, quickly, whether an edit of a file may concern a decision; see `noticed`."""
        return self._shelf.watches(path)

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
            elif record.subject_type in ("action", "level", "evolution"):
                self.questions.cancel(record.gate_id)
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
