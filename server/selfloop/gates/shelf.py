"""The gates of a workspace with their content: kept in the store, the open ones in memory too.

Invariant: memory changes only after the store has; a proposal that was replaced is another object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import evolve

from selfloop.errors import SelfloopError, Unknown
from selfloop.gates.editor import Editor
from selfloop.gates.gate import GateRecord, GateState
from selfloop.gates.ledger import Ledger, Proposal
from selfloop.gates.rendering import render
from selfloop.gates.review import FileReview, digest, look, reviews_of
from selfloop.sandbox.paths import Door
from selfloop.storage.store import Store

log = logging.getLogger(__name__)


class Shelf:
    """See the module."""

    def __init__(
        self,
        store: Store,
        workspace: Path,
        publish: Callable[[GateRecord], None],
        redact: Callable[[str], str],
    ) -> None:
        self.store, self.ledger, self.door = store, Ledger(store), Door(workspace)
        self.publish = publish
        self._redact = redact
        self._open: dict[str, Proposal] = {}
        self._known_open: dict[str, GateRecord] | None = None
        """All open gates, oldest first, as they were last stored; None: not looked up yet."""
        self._reviews: dict[str, list[FileReview]] = {}
        self._digests: dict[str, tuple[list[FileReview], str]] = {}
        self._watched: dict[str, set[str]] | None = None
        """By gate, the paths where an edit may take a hunk back; None: not looked up yet."""

    def records(self, state: GateState | None) -> list[GateRecord]:
        """Return the gates, oldest first."""
        if state == "open":
            # Asked with every change of a document, so it is answered from memory.
            loaded = self._open
            return [
                loaded[gate_id].record if gate_id in loaded else record for gate_id, record in self._all_open().items()
            ]
        return [
            self._open[record.gate_id].record if record.gate_id in self._open else record
            for record in self.ledger.records(state)
        ]

    def _all_open(self) -> dict[str, GateRecord]:
        if self._known_open is None:
            self._known_open = {record.gate_id: record for record in self.ledger.records("open")}
        return self._known_open

    def watched_in(self, path: str) -> list[str]:
        """Return the gates that an edit of a file may concern, because hunks of theirs are applied or taken back."""
        return [gate_id for gate_id, paths in self._watches().items() if path in paths]

    def watches(self, path: str) -> bool:
        """Tell whether an edit of a file may concern a decision: quick, since it is asked with every edit."""
        if any(path in paths for paths in self._watches().values()):
            return True
        files = (file for record in self.records("open") for file in record.subject.get("files", ()))
        return any(file["path"] == path for file in files)

    def _watches(self) -> dict[str, set[str]]:
        if self._watched is None:
            self._watched = {}
            for gate_id, path in self.ledger.watched():
                self._watched.setdefault(gate_id, set()).add(path)
        return self._watched

    def record(self, gate_id: str) -> GateRecord:
        """Return a gate without its content; see `load`."""
        if gate_id in self._open:
            return self._open[gate_id].record
        record = self.ledger.record(gate_id)
        if record is None:
            raise Unknown("Gate", gate_id)
        return record

    def load(self, gate_id: str) -> Proposal:
        """Return a gate with its content.

        Raises:
            Unknown: there is none of this id.
        """
        if gate_id not in self._open:
            proposal = self.ledger.load(gate_id)
            if proposal is None:
                raise Unknown("Gate", gate_id)
            if proposal.record.state != "open":
                return proposal
            self._open[gate_id] = proposal
        return self._open[gate_id]

    def keep(self, proposal: Proposal) -> None:
        """Take over what the store has by now."""
        gate_id = proposal.record.gate_id
        if proposal.record.state == "open":
            self._all_open()[gate_id] = proposal.record
            self._open[gate_id] = proposal
        else:
            self._close(gate_id)
        if paths := proposal.watched():
            self._watches()[gate_id] = paths
        else:
            self._watches().pop(gate_id, None)

    def save(self, proposal: Proposal) -> None:
        """Store a gate as it is now; its files are there already."""
        with self.store.transaction() as connection:
            self.ledger.save(proposal, connection)
        self.keep(proposal)

    def drop(self, gate_id: str) -> None:
        """Forget a gate that the store has no more."""
        self._close(gate_id)
        self._watches().pop(gate_id, None)
        self._diff_path(gate_id).unlink(missing_ok=True)

    async def reviews(self, proposal: Proposal, editor: Editor) -> list[FileReview]:
        """Hold a proposal against what the user has now."""
        seen = await look(self.door, proposal.files, proposal.applied(), editor)
        gate_id = proposal.record.gate_id
        reviews = reviews_of(proposal, seen, self._reviews.get(gate_id, ()))
        if gate_id in self._open:
            self._reviews[gate_id] = reviews
        return reviews

    def with_digest(self, proposal: Proposal, reviews: Sequence[FileReview]) -> GateRecord:
        """Return the gate's record with the digest of what it would do now."""
        if proposal.record.state == "open":
            gate_id, kept = proposal.record.gate_id, self._digests.get(proposal.record.gate_id)
            if (
                kept is None
                or len(kept[0]) != len(reviews)
                or any(old is not new for old, new in zip(kept[0], reviews, strict=True))
            ):
                kept = self._digests[gate_id] = (list(reviews), digest(reviews))
            if proposal.record.digest != kept[1]:
                proposal.record = evolve(proposal.record, digest=kept[1])
        return proposal.record

    async def refresh(self, gate_id: str, editor: Editor) -> GateRecord:
        """Bring a gate's digest and diff file up to date after a decision, and publish it."""
        proposal = self.load(gate_id)
        try:
            reviews = await self.reviews(proposal, editor)
            self.with_digest(proposal, reviews)
            await asyncio.to_thread(self.write_diff, proposal, reviews)
        except (OSError, SelfloopError) as error:
            # The decision stands; only what is shown of it is late.
            log.warning("gate %s could not be looked at after a decision: %s", gate_id, error)
        self.save(proposal)
        self.publish(proposal.record)
        return proposal.record

    def write_diff(self, proposal: Proposal, reviews: Sequence[FileReview]) -> Path:
        """Write the gate as text to `.evo/gates/<id>.diff`, whole or not at all, and return the path."""
        path = self._diff_path(proposal.record.gate_id)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary = path.with_suffix(".new")
        text = self._redact(render(proposal.record, reviews, proposal.evidence))
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
        return path

    def _close(self, gate_id: str) -> None:
        self._open.pop(gate_id, None)
        self._all_open().pop(gate_id, None)
        self._reviews.pop(gate_id, None)
        self._digests.pop(gate_id, None)

    def _diff_path(self, gate_id: str) -> Path:
        return self.store.root / "gates" / f"{gate_id}.diff"
