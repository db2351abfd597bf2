"""A session's newest changes meet what was already decided about earlier ones.

Invariants: a hunk is known again by what it does and where, so that an answer given to one of several equal hunks is
never taken for another's. An id that was answered once is not given to another hunk of the same gate. What the user
rejected starts as rejected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

from attrs import evolve

from selfloop.changes import (
    FileChange,
    Hunk,
    HunkKind,
    Placed,
    apply_hunks,
    carry,
    decode_text,
    file_change,
    seal,
    split_lines,
)
from selfloop.gates.gate import GateRecord, HunkState, Risk, highest
from selfloop.gates.ledger import Proposal
from selfloop.gates.review import risk_of


def merge(
    prior: Proposal | None, changes: Sequence[FileChange], rejected: Collection[str]
) -> tuple[list[FileChange], dict[str, HunkState]]:
    """Return the new files, their hunks under the ids they keep, and the state of every hunk that was ever asked about.

    Args:
        prior: the open gate's content so far.
        changes: the session's changes now.
        rejected: the contents that the user rejected in this session.
    """
    earlier = {change.path: change for change in prior.files} if prior else {}
    states = {name: evolve(state, present=False) for name, state in prior.hunks.items()} if prior else {}
    files = []
    for change in sorted(changes, key=lambda change: change.path):
        known = _known(earlier.get(change.path), change, states)
        hunks = []
        for hunk in change.hunks:
            state = known.get((hunk.kind, hunk.old, hunk.new, hunk.start))
            content, risk = content_key(change, hunk), risk_of(change, hunk)
            if state is None or state.digest != hunk.digest:
                name = hunk.id
                while name in states:
                    name = seal(name, "again")[:16]
                status = "rejected" if content in rejected else "pending"
                state = HunkState(name, change.path, hunk.digest, content, risk, status)
            states[state.hunk_id] = evolve(state, risk=risk, present=True)
            hunks.append(evolve(hunk, id=state.hunk_id))
        files.append(evolve(change, hunks=tuple(hunks)))
    return files, states


def content_key(change: FileChange, hunk: Hunk) -> str:
    """Return by what a rejection of the hunk is remembered.

    Lines that are only added are known by their neighbours too: an empty line may be unwanted here and wanted there.
    """
    around: list[str] = []
    if hunk.kind == "text" and not hunk.old:
        lines = split_lines(decode_text(change.pre or b"") or "")
        around = ["".join(lines[max(0, hunk.start - 1) : hunk.start]), "".join(lines[hunk.start : hunk.start + 1])]
    image = change.post if hunk.kind == "whole" else None
    return seal(change.path, change.old_path, hunk.kind, hunk.old, hunk.new, image, *around)


def withdrawal(change: FileChange, rejected: Collection[str]) -> FileChange | None:
    """Return what takes some hunks out of the file that the session made."""
    others = [hunk.id for hunk in change.hunks if hunk.id not in rejected]
    without = apply_hunks(change, others, change.pre, change.pre_mode)
    return file_change(
        without.path,
        old_path=change.path,
        pre=change.post,
        post=without.content,
        pre_mode=change.post_mode,
        post_mode=without.mode,
    )


def summary(files: Sequence[FileChange], states: dict[str, HunkState]) -> tuple[dict[str, Any], str, Risk]:
    """Return a gate's subject, its description, and its risk: that of what is still pending, else of all."""
    rows = []
    for change in files:
        waiting = sum(states[hunk.id].status == "pending" for hunk in change.hunks)
        row = {"path": change.path, "operation": change.operation, "hunks": len(change.hunks), "pending": waiting}
        rows.append(row)
    present = [state for state in states.values() if state.present]
    waiting_risks = [state.risk for state in present if state.status == "pending"]
    text = ", ".join(f"{row['operation']} {row['path']}" for row in rows[:5])
    if len(rows) > 5:
        text += f" and {len(rows) - 5} more"
    risk = highest(waiting_risks or [state.risk for state in present])
    return {"type": "changes", "files": rows}, text, risk


def resolved_by(states: Iterable[HunkState]) -> str:
    """Return what a gate without pending hunks was resolved by."""
    found = {state.status for state in states if state.status != "pending"}
    return {"approved": "approve", "rejected": "reject"}[found.pop()] if len(found) == 1 else "mixed"


def decided(
    proposal: Proposal, hunk_ids: Sequence[str], status: Literal["approved", "rejected"], comment: str | None
) -> Proposal:
    """Return the gate after an answer."""
    after = evolve(proposal, hunks=dict(proposal.hunks))
    after.decide(hunk_ids, status)
    record = summed_up(after)
    if comment:
        record = evolve(record, comment=f"{record.comment}\n{comment}" if record.comment else comment)
    if record.state == "open" and not after.pending():
        option = "approve" if status == "approved" else "reject"
        record = evolve(record, state="resolved", resolved_by=resolved_by(after.hunks.values()), ended_by=option)
    after.record = record
    return after


def summed_up(proposal: Proposal) -> GateRecord:
    """Return the gate's record with what it says of its files as they stand now."""
    subject, description, risk = summary(proposal.files, proposal.hunks)
    return evolve(proposal.record, subject=subject, description=description, risk=risk)


def _known(
    earlier: FileChange | None, change: FileChange, states: dict[str, HunkState]
) -> dict[tuple[HunkKind, str, str, int], HunkState]:
    """Return the states of the earlier hunks by where they would be found in the new change.

    A hunk that was approved and taken back since is asked about anew.
    """
    if earlier is None or earlier.operation != change.operation:
        return {}
    places = carry(earlier, change.pre, change.pre_mode)
    known = {}
    for hunk in earlier.hunks:
        place, state = places[hunk.id], states[hunk.id]
        if isinstance(place, Placed) and (state.status != "approved" or state.applied):
            known[hunk.kind, hunk.old, hunk.new, place.start] = state
    return known
