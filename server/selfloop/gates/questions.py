"""Gates on what a loop asks for: an action that would be sent, a level that would be raised, a new self.

Invariants: an answer is bound to the digest of exactly what was shown, and is given once. What an approval brings about
is not done here: whoever asked is told before the answer is recorded, and can still refuse it with a sentence, and
again after; an approved action counts as open work until `settle` says that it was carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from attrs import evolve, frozen

from selfloop.errors import Decided, InvalidInput, Stale
from selfloop.gates.gate import APPROVE, REJECT, Decision, EvidenceItem, GateRecord, Risk
from selfloop.gates.ledger import Proposal
from selfloop.gates.proposing import new_id
from selfloop.gates.shelf import Shelf

BeforeAnswer = Callable[[GateRecord, str], None]
"""Is told of an answer before it is recorded; what it raises refuses the answer, and the gate stays open."""


@frozen
class Question:
    """What is asked."""

    subject_type: Literal["action", "level", "evolution"]
    subject: dict[str, Any]
    """As clients see it, without `type`."""
    content: str
    """By what it is known when it is asked again."""
    title: str
    digest: str
    """Over exactly what an approval would bring about."""
    session_id: str = ""
    """Whose proposal it is; "": nobody's session."""
    run_id: str | None = None
    description: str | None = None
    risk: Risk = "medium"
    evidence: tuple[EvidenceItem, ...] = ()
    words: tuple[str, ...] = ()


class Questions:
    """The gates of one shelf on actions, levels and evolutions."""

    def __init__(self, shelf: Shelf, on_decided: Callable[[Decision], None]) -> None:
        self._shelf, self._on_decided = shelf, on_decided
        self.before_answer: BeforeAnswer = lambda record, option_id: None

    def ask(self, question: Question) -> GateRecord:
        """Open a gate and return it; where the same is asked already, return that one."""
        found = self.latest(question.subject_type, question.content, state="open")
        if found is not None and found.digest == question.digest:
            return found
        gate_id, created_at = new_id()
        record = GateRecord(
            gate_id,
            question.session_id,
            question.subject_type,
            {"type": question.subject_type, **question.subject, "content": question.content},
            question.title,
            question.digest,
            created_at,
            risk=question.risk,
            description=question.description,
            run_id=question.run_id,
            words=question.words,
        )
        self._save(Proposal(record, evidence=question.evidence))
        self._shelf.publish(record)
        return record

    def latest(self, subject_type: str, content: str, *, state: str | None = None) -> GateRecord | None:
        """Return the newest gate that asked for a content, in a state or in any; None: it was never asked."""
        return self._shelf.ledger.asked(subject_type, content, state)

    def resolve(
        self, record: GateRecord, option_id: str, *, digest: str | None, comment: str | None, key: str | None
    ) -> GateRecord:
        """Answer a gate; see `Gates.resolve`."""
        if record.state != "open":
            if record.state == "resolved" and record.resolved_by == option_id:
                return record
            said = record.resolved_by if record.state == "resolved" else record.state
            raise Decided(f"This was answered before ({said}); that stands, and nothing was changed.")
        if digest is None and option_id != REJECT.option_id:
            raise InvalidInput("An approval needs the gate's digest, so nothing was approved; read the gate first.")
        if digest is not None and digest != record.digest:
            raise Stale("The digest is not that of what this gate asks, so nothing was done; read the gate again.")
        if option_id == APPROVE.option_id:
            self.before_answer(record, option_id)
        record = evolve(record, state="resolved", resolved_by=option_id, comment=comment)
        self._save(Proposal(record, evidence=self._shelf.load(record.gate_id).evidence), key)
        self._shelf.publish(record)
        self._on_decided(Decision(record.gate_id, record.session_id, option_id, comment=comment))
        return record

    def cancel(self, gate_id: str) -> None:
        """Cancel an open gate: nobody is asked any more."""
        record = self._shelf.record(gate_id)
        if record.state == "open":
            record = evolve(record, state="cancelled")
            self._save(Proposal(record, evidence=self._shelf.load(gate_id).evidence))
            self._shelf.publish(record)

    def unsettled(self) -> Sequence[GateRecord]:
        """Return the actions and evolutions that were approved and are not known to be carried out, oldest first."""
        return self._shelf.ledger.unsettled_actions()

    def settle(self, gate_id: str) -> None:
        """Note that what was approved was carried out, or given up."""
        with self._shelf.store.transaction(durable=True) as connection:
            self._shelf.ledger.consume(gate_id, connection)

    def _save(self, proposal: Proposal, key: str | None = None) -> None:
        with self._shelf.store.transaction(durable=True) as connection:
            self._shelf.ledger.save(proposal, connection)
            self._shelf.store.note_outcome(key, connection)
        self._shelf.keep(proposal)
