"""A session's changes are put before the user: into its open gate, which keeps its id, or into a new one.

Invariant: it happens in one transaction, so that a gate is never seen with files and no states, or the other way round.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from attrs import evolve, frozen

from selfloop.changes import FileChange
from selfloop.gates.gate import EvidenceItem, GateRecord, GateState
from selfloop.gates.ledger import Proposal
from selfloop.gates.proposals import merge, resolved_by, summary
from selfloop.gates.review import assumed
from selfloop.gates.shelf import Shelf

log = logging.getLogger(__name__)

_MOST_EVIDENCE = 50
_MOST_WORDS = 20
"""Messages of the user that are kept with a gate."""
_WORDS_CHARACTERS = 4_000
"""Of each of them; a card shows less."""


@frozen
class Heading:
    """What is said of a session's changes."""

    title: str
    evidence: tuple[EvidenceItem, ...] = ()
    words: tuple[str, ...] = ()
    """What the user said for them."""
    turn_id: str | None = None
    run_id: str | None = None


@frozen
class Put:
    """What came of it."""

    proposal: Proposal
    waiting: bool
    """Something waits for an answer, so the gate is open."""
    recalled: tuple[str, ...]
    """The new hunks that start as rejected, because the user rejected their content before."""


def put(
    shelf: Shelf, session_id: str, changes: Sequence[FileChange], heading: Heading, again: Collection[str] = ()
) -> Put | None:
    """Put changes before the user; None if there is nothing to ask and no gate was open.

    Args:
        shelf: the gates.
        session_id: whose changes.
        changes: all of them, against the user's text.
        heading: what is said of them; a gate whose files stay the same keeps its own.
        again: the paths whose new hunks are such as the user had approved and then took back.
    """
    found = shelf.ledger.open_gate(session_id)
    prior = shelf.load(found) if found is not None else None
    files, states = merge(prior, changes, shelf.ledger.rejected(session_id))
    known = prior.hunks if prior else {}
    for name, state in states.items():
        if state.path in again and state.present and name not in known:
            states[name] = evolve(state, status="pending", taken_back=True)
    waiting = any(state.present and state.status == "pending" for state in states.values())
    if prior is None and not waiting:
        return None
    proposal = _merged(session_id, prior, files, heading)
    proposal.hunks = states
    subject, description, risk = summary(files, states)
    proposal.record = evolve(proposal.record, subject=subject, description=description, risk=risk)
    reviews = [assumed(change, proposal.state_of(change)) for change in files]
    shelf.with_digest(proposal, reviews)
    if not waiting:
        decided = any(state.status != "pending" for state in states.values())
        by = resolved_by(states.values()) if decided else None
        end: GateState = "resolved" if decided else "cancelled"
        proposal.record = evolve(proposal.record, state=end, resolved_by=by)
    with shelf.store.transaction() as connection:
        shelf.ledger.save(proposal, connection, files=True)
    shelf.keep(proposal)
    try:
        shelf.write_diff(proposal, reviews)
    except OSError as error:
        log.warning("gate %s is there, but its diff file could not be written: %s", proposal.record.gate_id, error)
    shelf.publish(proposal.record)
    recalled = tuple(name for name, state in states.items() if state.status == "rejected" and name not in known)
    return Put(proposal, waiting, recalled)


def _merged(session_id: str, prior: Proposal | None, files: list[FileChange], heading: Heading) -> Proposal:
    """Return the gate with these files, its states left out."""
    gate_id, created_at = (prior.record.gate_id, prior.record.created_at) if prior else new_id()
    title, words = heading.title, heading.words
    if prior is not None and tuple(prior.files) == tuple(files):
        # A turn that changed nothing, such as an answer, does not rename the proposal, nor stand behind it.
        title, words = prior.record.title, ()
    ran: dict[str, EvidenceItem] = {}
    for item in (*(prior.evidence if prior else ()), *heading.evidence):
        ran.pop(item.command, None)  # Of a command that ran again only the last run counts.
        ran[item.command] = item
    said = prior.record.words if prior else ()
    said = (*said, *(text[:_WORDS_CHARACTERS] for text in words))
    record = GateRecord(
        gate_id,
        session_id,
        "changes",
        {},
        title,
        "",
        created_at,
        run_id=heading.run_id or (prior.record.run_id if prior else None),
        turn_id=heading.turn_id,
        comment=prior.record.comment if prior else None,
        words=said[-_MOST_WORDS:],
    )
    return Proposal(record, files, {}, tuple(ran.values())[-_MOST_EVIDENCE:])


def new_id() -> tuple[str, str]:
    """Return a new gate's id, which sorts by time, and the time."""
    now = datetime.now(UTC)
    return f"gate-{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}", now.isoformat()
