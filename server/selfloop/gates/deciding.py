"""The user's answers to gates on changes: recognised, checked, carried out, recorded; and taken back.

    known hunk? ─► decided already? ─► digest? ─► every pre-image ─► journal ─► carried out, all or nothing ─► recorded

Invariants: nothing of the user's is touched without an approval of exactly what is carried out. A decision that was
taken is recognised before any digest is checked, and the first one stands. One application runs at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from attrs import evolve

from selfloop.changes import FileChange, reverse
from selfloop.errors import Decided, InvalidInput, Stale, StoreError, Unknown
from selfloop.gates.applying import Conflicts, carry_out, step_for
from selfloop.gates.editor import Editor
from selfloop.gates.gate import Decision, GateRecord, HunkState
from selfloop.gates.ledger import Application, Proposal, Step
from selfloop.gates.proposals import decided, summed_up, withdrawal
from selfloop.gates.proposing import Heading, put
from selfloop.gates.recovery import recover
from selfloop.gates.reopening import Back, Reopening
from selfloop.gates.review import FileReview, Present, Resolution, location
from selfloop.gates.shelf import Shelf
from selfloop.gates.undoing import plan_undo

HunkRefs = Sequence[tuple[str, str]]
"""Ids of hunks, each with the digest that was shown."""

_ATTEMPTS = 3
"""How often a decision on hunks is carried out anew because the user typed elsewhere at that moment."""


class Decisions:
    """Decides the gates of one shelf."""

    def __init__(
        self, shelf: Shelf, on_decided: Callable[[Decision], None], lives: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._shelf, self._on_decided = shelf, on_decided
        self._reopening = Reopening(shelf, lives)
        self._lock = asyncio.Lock()

    def propose(self, session_id: str, changes: Sequence[FileChange], heading: Heading) -> GateRecord | None:
        """See `Gates.propose`."""
        done = put(self._shelf, session_id, changes, heading)
        if done is None:
            return None
        if done.recalled:
            self.tell_rejected(done.proposal, done.recalled)
        return done.proposal.record if done.waiting else None

    async def resolve(
        self,
        gate_id: str,
        option_id: str,
        shown: str | None,
        hunks: HunkRefs | None,
        comment: str | None,
        editor: Editor,
        key: str | None,
        window: int | None,
    ) -> Resolution:
        """See `Gates.resolve`."""
        status: Literal["approved", "rejected"] = "approved" if option_id == "approve" else "rejected"
        async with self._lock:
            attempts = 1 if hunks is None else _ATTEMPTS
            while True:
                attempts -= 1
                proposal = self._shelf.load(gate_id)
                chosen = _undecided(proposal, option_id, status, hunks)
                if not chosen:
                    named = None if hunks is None else [hunk_id for hunk_id, _ in hunks]
                    return Resolution(proposal.record, self._applied_paths(proposal, named))
                reviews = await self._shelf.reviews(proposal, editor)
                if hunks is None:
                    _check_digest(self._shelf.with_digest(proposal, reviews).digest, shown, status)
                if self._shelf.load(gate_id) is not proposal:
                    if attempts:
                        continue
                    raise Stale("The proposal has just changed, so nothing was done; read the gate and decide anew.")
                if status == "rejected":
                    self._record_rejection(proposal, chosen, comment, key)
                    return Resolution(await self._shelf.refresh(gate_id, editor))
                steps, conflicts = _plan(reviews, chosen)
                if conflicts:
                    return Resolution(proposal.record, (), conflicts)
                application, conflicts = await self._carry_out(
                    Application(0, gate_id, "apply", "begun", tuple(steps), option_id, comment, key, tuple(chosen)),
                    editor,
                    proposal.record.title,
                    window,
                )
                if not conflicts:
                    return await self._approved(application, editor)
                # The user may have typed in between: decisions on hunks hold wherever those have moved.
                if not attempts or await self._shelf.reviews(proposal, editor) == reviews:
                    return Resolution(await self._shelf.refresh(gate_id, editor), (), conflicts)

    async def undo(self, gate_id: str, editor: Editor, key: str | None, window: int | None) -> Resolution:
        """See `Gates.undo`."""
        async with self._lock:
            done = self._shelf.ledger.applications(gate_id=gate_id, state="done")
            done = [application for application in done if application.kind == "apply"]
            steps, takes_back, conflicts = await plan_undo(self._shelf.door, done, editor)
            record = self._shelf.load(gate_id).record
            if conflicts or not takes_back:
                return Resolution(record, (), conflicts)
            hunk_ids = tuple(
                hunk_id
                for application in done
                for step in application.steps
                if (application.id, step.path) in takes_back
                for hunk_id in step.hunk_ids
            )
            application = Application(
                0, gate_id, "undo", "begun", tuple(steps), "undo", None, key, hunk_ids, tuple(takes_back)
            )
            application, failed = await self._carry_out(application, editor, f"Take back: {record.title}", window)
            if failed:
                return Resolution(record, (), failed)
            await self._taken_back(evolve(application, state="done"), editor)
            paths = tuple(step.path for step in steps)
            return Resolution(await self._shelf.refresh(gate_id, editor), paths)

    async def noticed(self, path: str, editor: Editor, *, saved: bool) -> None:
        """See `Gates.noticed`."""
        async with self._lock:
            backs, redone = await self._reopening.noticed(path, editor, saved=saved)
            for back in backs:
                self._tell_taken_back(back)
            for one in redone:
                self._on_decided(Decision(one.gate_id, one.session_id, "approve", (one.change,)))
            for gate_id in dict.fromkeys(one.gate_id for one in (*backs, *redone)):
                await self._shelf.refresh(gate_id, editor)

    async def recover(self, editor: Editor) -> list[str]:
        """See `Gates.recover`."""
        async with self._lock:
            sentences = []
            for application in self._shelf.ledger.applications(state="begun"):
                finished, said = await recover(self._shelf.door, application, editor)
                sentences += said
                if application.kind == "apply":
                    self._record_approval(finished)
                else:
                    await self._taken_back(finished, editor)
                await self._shelf.refresh(application.gate_id, editor)
            return sentences

    def tell_rejected(self, proposal: Proposal, hunk_ids: Sequence[str], comment: str | None = None) -> None:
        """Tell whoever made a proposal which of its hunks are rejected, and how they leave its copy."""
        withdrawn = [
            back
            for change in proposal.files
            if any(hunk.id in hunk_ids for hunk in change.hunks) and (back := withdrawal(change, hunk_ids)) is not None
        ]
        self._on_decided(
            Decision(
                proposal.record.gate_id,
                proposal.record.session_id,
                "reject",
                rejected=tuple(change for back in withdrawn if (change := reverse(back)) is not None),
                withdrawn=tuple(withdrawn),
                comment=comment,
            )
        )

    async def _approved(self, application: Application, editor: Editor) -> Resolution:
        paths = tuple(step.path for step in application.steps)
        try:
            self._record_approval(evolve(application, state="done"))
        except StoreError as error:
            done = f"What you approved was applied ({', '.join(paths) or 'nothing had to change'})"
            raise StoreError(f"{done}, but not recorded: {error.message} The next start records it.") from error
        await self._reopening.applied([step.path for step in application.steps if step.via == "editor"])
        return Resolution(await self._shelf.refresh(application.gate_id, editor), paths)

    async def _carry_out(
        self, application: Application, editor: Editor, label: str, window: int | None
    ) -> tuple[Application, Conflicts]:
        """Journal an application and carry it out; what was not carried out must not be taken up by a recovery."""
        application = await asyncio.to_thread(self._shelf.ledger.begin, application)
        try:
            conflicts = await carry_out(self._shelf.door, application.steps, editor, label=label, prefer=window)
        except Exception:
            self._give_up(application)
            raise
        if conflicts:
            self._give_up(application)
        return application, conflicts

    def _give_up(self, application: Application) -> None:
        with self._shelf.store.transaction() as connection:
            self._shelf.ledger.update(evolve(application, state="failed"), connection)

    def _record_rejection(
        self, proposal: Proposal, hunk_ids: Sequence[str], comment: str | None, key: str | None
    ) -> None:
        after = decided(proposal, hunk_ids, "rejected", comment)
        with self._shelf.store.transaction(durable=True) as connection:
            self._shelf.ledger.save(after, connection)
            contents = [proposal.hunks[hunk_id].content for hunk_id in hunk_ids]
            self._shelf.ledger.remember_rejections(proposal.record.session_id, contents, connection)
            self._shelf.store.note_outcome(key, connection)
        self._shelf.keep(after)
        self.tell_rejected(after, hunk_ids, comment)

    def _record_approval(self, application: Application) -> None:
        after = decided(self._shelf.load(application.gate_id), application.hunk_ids, "approved", application.comment)
        with self._shelf.store.transaction(durable=True) as connection:
            self._shelf.ledger.save(after, connection)
            self._shelf.ledger.update(application, connection)
            self._shelf.store.note_outcome(application.key, connection)
        self._shelf.keep(after)
        if application.state == "done":
            changes = [change for step in application.steps if (change := step.change()) is not None]
            record = after.record
            self._on_decided(
                Decision(record.gate_id, record.session_id, "approve", tuple(changes), comment=application.comment)
            )

    async def _taken_back(self, application: Application, editor: Editor) -> None:
        """Ask about what was taken back again, and record that it was."""
        changes = [reverse(change) for step in application.steps if (change := step.change()) is not None]
        there = {
            path: Present(step.after, step.after_mode, step.after)
            for step in application.steps
            for path in (step.path, step.source)
        }
        # Asked first: should the worker die after this, the recovery asks once more, which is the same.
        back = self._reopening.again(
            application.gate_id, application.hunk_ids, [change for change in changes if change is not None], there
        )
        self._record_undo(application)
        if back is not None:
            self._tell_taken_back(back)
            if back.gate_id != application.gate_id:
                await self._shelf.refresh(back.gate_id, editor)

    def _tell_taken_back(self, back: Back) -> None:
        self._on_decided(Decision(back.gate_id, back.session_id, "undo", taken_back=back.changes))

    def _record_undo(self, application: Application) -> None:
        proposal = self._shelf.load(application.gate_id)
        after = evolve(proposal, hunks=dict(proposal.hunks))
        after.release(application.hunk_ids)
        after.record = summed_up(after)
        with self._shelf.store.transaction(durable=True) as connection:
            self._shelf.ledger.save(after, connection)
            self._shelf.ledger.update(application, connection)
            for earlier in self._shelf.ledger.applications(gate_id=application.gate_id, state="done"):
                steps = tuple(
                    evolve(step, undone=step.undone or (earlier.id, step.path) in application.takes_back)
                    for step in earlier.steps
                )
                if earlier.kind == "apply" and steps != earlier.steps:
                    state = "undone" if all(step.undone for step in steps) else "done"
                    self._shelf.ledger.update(evolve(earlier, steps=steps, state=state), connection)
            self._shelf.store.note_outcome(application.key, connection)
        self._shelf.keep(after)

    def _applied_paths(self, proposal: Proposal, hunk_ids: Sequence[str] | None) -> tuple[str, ...]:
        applications = self._shelf.ledger.applications(gate_id=proposal.record.gate_id, state="done")
        steps = [step for one in applications if one.kind == "apply" for step in one.steps if not step.undone]
        chosen = [step.path for step in steps if hunk_ids is None or set(step.hunk_ids) & set(hunk_ids)]
        return tuple(dict.fromkeys(chosen))


def _undecided(proposal: Proposal, option_id: str, status: str, hunks: HunkRefs | None) -> list[str]:
    """Return the ids that an answer is still about, after what was decided before was recognised.

    Raises:
        Unknown, Decided, Stale, InvalidInput: see `Gates.resolve`; of digests only those of hunks are looked at.
    """
    record = proposal.record
    if hunks is None:
        if record.state == "open":
            return proposal.pending()
        if record.state == "resolved" and option_id in (record.resolved_by, record.ended_by):
            return []
        said = record.resolved_by if record.state == "resolved" else record.state
        raise Decided(f"This gate was decided before ({said}); that stands, and nothing was changed.")
    if not hunks:
        raise InvalidInput("No hunk was named, so nothing was done; name some, or give the gate's digest for all.")
    for hunk_id, _ in hunks:
        if hunk_id not in proposal.hunks:
            raise Unknown("Hunk", hunk_id)
    states: dict[str, HunkState] = {hunk_id: proposal.hunks[hunk_id] for hunk_id, _ in hunks}
    for state in states.values():
        if state.status not in ("pending", status):
            raise Decided(f"Hunk {state.hunk_id} of {state.path} was {state.status} before; that stands.")
    waiting = [hunk_id for hunk_id, state in states.items() if state.status == "pending"]
    if waiting and record.state != "open":
        raise Decided(f"This gate is {record.state}, so nothing was done; ask for the change again.")
    for hunk_id, given in hunks:
        state = states[hunk_id]
        if state.status != "pending":
            continue
        if not state.present:
            raise Stale(f"Hunk {hunk_id} of {state.path} is not proposed any more; read the gate and decide anew.")
        if given != state.digest:
            raise Stale(f"The digest is not that of hunk {hunk_id}, so nothing was done; read the gate again.")
    return waiting


def _check_digest(current: str, shown: str | None, status: str) -> None:
    if shown is None and status == "approved":
        raise InvalidInput("An approval needs the gate's digest, so nothing was approved; read the gate first.")
    if shown is not None and shown != current:
        raise Stale("What this gate would do has changed, so nothing was done; read it and decide anew.")


def _plan(reviews: Sequence[FileReview], chosen: Sequence[str]) -> tuple[list[Step], Conflicts]:
    """Return the steps that bring the chosen hunks, or what stands in their way."""
    steps: list[Step] = []
    conflicts: list[tuple[str, str]] = []
    for one in reviews:
        hunks = [hunk for hunk in one.change.hunks if hunk.id in chosen]
        reasons = [reason for hunk in hunks if (reason := one.reason(hunk.id)) is not None]
        conflicts += [(one.change.path, reason) for reason in dict.fromkeys(reasons)]
        if not hunks or reasons:
            continue
        ids = [hunk.id for hunk in hunks]
        applied = {hunk_id for hunk_id, state in one.states.items() if state.applied}
        step = step_for(location(one.change, applied), one.present, one.result(ids), {hunk.kind for hunk in hunks}, ids)
        if isinstance(step, str):
            conflicts.append((one.change.path, step))
        elif step is not None:
            steps.append(step)
    return steps, tuple(conflicts)
