"""What the user had approved and then took back is asked about again; what is redone counts as approved again.

    the document goes back (the editor's undo) ─┐
    `selfloop/change/undo` ─────────────────────┴─► pending: in its gate if that is open, else in the session's next one

Invariants: a hunk is taken back only where its old lines stand again and its new ones are gone; an edit of any other
kind decides nothing. Nothing here touches a file or a buffer. What another writes to the disk, such as a change of
branch, is nobody's undo: it releases the hunks, and nothing is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from hashlib import sha256

from attrs import evolve, frozen

from selfloop.changes import (
    FileChange,
    Mode,
    Placed,
    apply_hunks,
    carry,
    file_change,
    split_lines,
    taken_back,
)
from selfloop.errors import SelfloopError, Stale
from selfloop.gates.editor import Editor
from selfloop.gates.gate import HunkState
from selfloop.gates.ledger import Application, Proposal, Step
from selfloop.gates.proposals import decided, summed_up
from selfloop.gates.proposing import Heading, Put, put
from selfloop.gates.review import Present, present, review
from selfloop.gates.shelf import Shelf

_MOST_STEPS = 8
"""Of a file; an editor's undo does not reach further back."""


@frozen
class Back:
    """Hunks that wait again."""

    gate_id: str
    """The gate in which they do."""
    session_id: str
    changes: tuple[FileChange, ...]
    """What they would do to the files as they are now."""


@frozen
class Redone:
    """Hunks that count as approved again."""

    gate_id: str
    session_id: str
    change: FileChange


@frozen
class _Applied:
    """A file's step of an application, with the hunks of its gate."""

    application: Application
    step: Step
    change: FileChange


class Reopening:
    """Reopens the decisions of one shelf. Whoever calls it holds the lock under which decisions are carried out."""

    def __init__(self, shelf: Shelf, lives: Callable[[str], bool]) -> None:
        self._shelf, self._lives = shelf, lives
        self._disk: dict[str, str] = {}
        """By path, the file as it was when its document was last looked at."""
        self._steps: dict[str, tuple[int, list[_Applied]]] = {}

    async def noticed(self, path: str, editor: Editor, *, saved: bool) -> tuple[list[Back], list[Redone]]:
        """Look at a document that the user has edited, and store what that decides.

        Args:
            path: the file, relative to the workspace.
            editor: the user's editors.
            saved: the user has saved it since it was last looked at, so that what is on the disk is the user's doing.
        """
        there = await self._there(path, editor)
        if there is None:
            return [], []
        before = self._disk.get(path)
        self._disk[path] = now = _fingerprint(None if there.disk is None else (there.disk, 0))
        is_foreign = not there.unsaved and not saved and before != now
        back = self._taken_back(path, there, is_foreign=is_foreign)
        return back, [] if back else self._redone(path, there)

    async def applied(self, paths: Sequence[str]) -> None:
        """Note what is on the disk of files whose documents were just changed by an approval."""

        def look() -> dict[str, str]:
            return {path: _fingerprint(self._read(path)) for path in paths}

        if paths:
            self._disk.update(await asyncio.to_thread(look))

    def _read(self, path: str) -> tuple[bytes, Mode] | str | None:
        try:
            return self._shelf.door.read_entry(path)
        except SelfloopError as error:
            return error.message

    async def _there(self, path: str, editor: Editor) -> Present | None:
        """Return a document as it is, None if it is not open or not to be told."""
        entry = await asyncio.to_thread(self._read, path)
        any_text = file_change(path, pre=b"", post=b"\n", pre_mode=None, post_mode=None)
        assert any_text is not None  # noqa: S101 - the two differ
        there = present(path, any_text, entry, editor)
        return there if there.open is not None and there.content is not None and there.problem is None else None

    # Back

    def _taken_back(self, path: str, there: Present, *, is_foreign: bool) -> list[Back]:
        rows = self._applied(path)
        if not rows:
            return []
        latest, found = rows[0].step.after, []
        if there.content == latest:
            return []
        for row in rows:
            proposal = self._shelf.load(row.application.gate_id)
            owned = _owned(row, proposal)
            if not owned or not self._lives(proposal.record.session_id):
                continue
            every = {hunk.id for hunk in row.change.hunks}
            # A later approval has changed these lines once more: they are that one's by now.
            standing = {name for name, place in carry(row.change, latest, applied=every).items() if _is_there(place)}
            gone = taken_back(row.change, there.content, there.mode, applied=every) & owned.keys()
            lost = owned.keys() - standing
            if is_foreign:
                lost |= gone
            if lost:
                self._release(proposal, [owned[name].hunk_id for name in lost])
            gone -= lost
            if gone and (back := self._ask_again(row, {name: owned[name] for name in gone}, every - gone, there)):
                found.append(back)
        return found

    def _applied(self, path: str) -> list[_Applied]:
        """Return the steps of a file that may be taken back, newest first."""
        version = self._shelf.ledger.version
        kept = self._steps.get(path)
        gate_ids = self._shelf.watched_in(path)
        if kept is not None and kept[0] == version and {row.application.gate_id for row in kept[1]} <= {*gate_ids}:
            return kept[1]
        done = [one for name in gate_ids for one in self._shelf.ledger.applications(gate_id=name, state="done")]
        rows = [
            _Applied(one, step, change)
            for one in sorted(done, key=lambda one: one.id, reverse=True)
            if one.kind == "apply"
            for step in one.steps
            if step.path == path and not step.undone and (change := step.change()) is not None
        ][:_MOST_STEPS]
        self._steps[path] = (version, rows)
        return rows

    def _release(self, proposal: Proposal, hunk_ids: Sequence[str]) -> None:
        after = evolve(self._shelf.load(proposal.record.gate_id), hunks=dict(proposal.hunks))
        after.release(hunk_ids)
        self._shelf.save(after)

    def _ask_again(
        self, row: _Applied, gone: dict[str, HunkState], others: Collection[str], there: Present
    ) -> Back | None:
        try:
            result = apply_hunks(row.change, gone, there.content, there.mode, applied=others)
        except Stale:
            return None
        change = file_change(
            row.step.path, pre=there.content, post=result.content, pre_mode=there.mode, post_mode=there.mode
        )
        if change is None:
            return None
        hunk_ids = [state.hunk_id for state in gone.values()]
        return self.again(row.application.gate_id, hunk_ids, [change], {row.step.path: there})

    def again(
        self, gate_id: str, hunk_ids: Sequence[str], changes: Sequence[FileChange], there: dict[str, Present]
    ) -> Back | None:
        """Ask about hunks again: in their gate if it is open, else in the session's next one, opened if need be.

        To do it twice is the same as once. Where the next gate has another change of the same file that cannot be
        brought together with this one, that file is left out; None if nothing is left.

        Args:
            gate_id: the gate that they were approved in.
            hunk_ids: the hunks there.
            changes: what they would do to the files as they are now.
            there: these files as they are now, by their paths.
        """
        source = self._shelf.load(gate_id)
        session_id = source.record.session_id
        if not self._lives(session_id):
            # A deleted session asks nothing more.
            return None
        is_open = source.record.state == "open"
        shown = {hunk.id for change in source.files for hunk in change.hunks} if is_open else set()
        moved = {source.hunks[name].path for name in hunk_ids if name not in shown}
        stay = [name for name in hunk_ids if name in shown and source.hunks[name].path not in moved]
        target_id: str | None = gate_id if stay else None
        told = [change for change in changes if change.path not in moved and change.old_path not in moved]
        if stay:
            after = evolve(source, hunks=dict(source.hunks))
            after.take_back(stay)
            after.record = summed_up(after)
            self._shelf.save(after)
        wanted = [change for change in changes if {change.path, change.old_path} & moved]
        if wanted and (done := self._move(source, wanted, there)) is not None:
            opened, taken = done
            target_id = opened.proposal.record.gate_id
            told += taken
            paths = {path for change in taken for path in (change.path, change.old_path)}
            names = [name for name in hunk_ids if source.hunks[name].path in paths]
            self._release(self._shelf.load(gate_id), names)
        return Back(target_id, session_id, tuple(told)) if target_id is not None and told else None

    def _move(
        self, source: Proposal, wanted: Sequence[FileChange], there: dict[str, Present]
    ) -> tuple[Put, list[FileChange]] | None:
        """Put changes into the session's open gate, or into a new one; return those that have found their place."""
        record = source.record
        found = self._shelf.ledger.open_gate(record.session_id)
        target = self._shelf.load(found) if found is not None else None
        files = {change.path: change for change in target.files} if target is not None else {}
        taken = []
        for change in wanted:
            known = next((files[path] for path in (change.path, change.old_path) if path in files), None)
            together = change if known is None else _together(target, known, change, there.get(change.path))
            if together is not None:
                files[together.path] = together
                taken.append(change)
        if not taken:
            return None
        said = target.record.words if target is not None else ()
        heading = Heading(
            title=target.record.title if target is not None else record.title,
            evidence=source.evidence,
            words=tuple(text for text in record.words if text not in said),
            turn_id=record.turn_id,
            run_id=record.run_id,
        )
        opened = put(self._shelf, record.session_id, list(files.values()), heading, {change.path for change in taken})
        return (opened, taken) if opened is not None else None

    # Forth

    def _redone(self, path: str, there: Present) -> list[Redone]:
        found = []
        for gate_id in self._shelf.watched_in(path):
            proposal = self._shelf.load(gate_id)
            change = next((change for change in proposal.files if change.path == path), None)
            if proposal.record.state != "open" or change is None:
                continue
            one = review(change, proposal.state_of(change), there)
            redone = [
                place
                for name, place in one.places.items()
                if isinstance(place, Placed)
                and place.already
                and place.hunk.kind == "text"
                and one.states[name].taken_back
                and one.states[name].status == "pending"
            ]
            if redone and (told := self._approve_again(proposal, path, redone, there)) is not None:
                found.append(told)
        return found

    def _approve_again(self, proposal: Proposal, path: str, places: Sequence[Placed], there: Present) -> Redone | None:
        record = proposal.record
        hunk_ids = tuple(place.hunk.id for place in places)
        lines = split_lines((there.content or b"").decode())
        for place in sorted(places, key=lambda place: place.start, reverse=True):
            lines[place.start : place.end] = [place.hunk.old]
        before = "".join(lines).encode()
        step = Step(path, None, "editor", before, there.content, there.mode, there.mode, hunk_ids)
        after = decided(proposal, hunk_ids, "approved", None)
        with self._shelf.store.transaction(durable=True) as connection:
            applications = self._shelf.ledger.applications(gate_id=record.gate_id, state="done")
            known = {name for one in applications for done in one.steps for name in done.hunk_ids}
            if not known & set(hunk_ids):
                # They were approved in another gate; from now on it is this one that can take them back.
                begun = self._shelf.ledger.begin(
                    Application(0, record.gate_id, "apply", "begun", (step,), hunk_ids=hunk_ids)
                )
                self._shelf.ledger.update(evolve(begun, state="done"), connection)
            self._shelf.ledger.save(after, connection)
        self._shelf.keep(after)
        change = step.change()
        return Redone(record.gate_id, record.session_id, change) if change is not None else None


def _fingerprint(entry: tuple[bytes, Mode] | str | None) -> str:
    return "" if entry is None or isinstance(entry, str) else sha256(entry[0]).hexdigest()


def _is_there(place: object) -> bool:
    return isinstance(place, Placed)


def _owned(row: _Applied, proposal: Proposal) -> dict[str, HunkState]:
    """Return the gate's own states of a step's hunks of text, by the ids that these have in the step.

    A hunk does the same in both, so it is known by its digest; equal ones stand in the same order.
    """
    states = [proposal.hunks[name] for name in row.step.hunk_ids if name in proposal.hunks]
    owned: dict[str, HunkState] = {}
    for hunk in row.change.hunks:
        match = next((state for state in states if state.digest == hunk.digest), None)
        if match is None:
            continue
        states.remove(match)
        if hunk.kind == "text" and match.applied and match.status == "approved":
            owned[hunk.id] = match
    return owned


def _together(
    target: Proposal | None, known: FileChange, change: FileChange, there: Present | None
) -> FileChange | None:
    """Return what waits for a file in the open gate and what is to wait again as one change; None: they clash."""
    if target is None or there is None or known.operation != "modify" or change.operation != "modify":
        return None
    one = review(known, target.state_of(known), there)
    waiting = {hunk.id for hunk in known.hunks if one.states[hunk.id].status == "pending"}
    if any(one.status(name) == "stale" for name in waiting):
        return None
    try:
        first = one.result(waiting)
        both = apply_hunks(change, [hunk.id for hunk in change.hunks], first.content, first.mode)
    except Stale:
        return None
    return file_change(change.path, pre=there.content, post=both.content, pre_mode=there.mode, post_mode=both.mode)
