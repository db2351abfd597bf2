"""What a gate on changes means right now: each hunk in the user's text as it is, and the digest of exactly that.

    proposal (stored) + the user's text (open buffer, else disk) ──► FileReview ──► GateView, digest, steps

Invariant: nothing is decided on what was proposed, only on what would be carried out now. One computation feeds what is
shown, what the digest covers, and what is applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import cached_property

from attrs import evolve, field, frozen

from selfloop.changes import (
    BOM,
    EXECUTABLE,
    SYMLINK,
    Clash,
    DiffLine,
    FileChange,
    FileResult,
    Hunk,
    Mode,
    Operation,
    Placed,
    apply_hunks,
    carry,
    content_digest,
    decode_text,
    diff_lines,
    hidden_characters,
    seal,
    split_lines,
)
from selfloop.errors import PathRefused, Stale
from selfloop.gates.editor import Editor, OpenText
from selfloop.gates.gate import EvidenceItem, GateRecord, HunkState, HunkStatus, Risk
from selfloop.gates.ledger import Proposal
from selfloop.sandbox.paths import Door, is_protected

# What is shown


@frozen
class HunkView:
    """A hunk as it stands in the user's text now."""

    hunk_id: str
    digest: str
    start: int
    end: int
    """Lines [start, end) of the file's `lines`."""
    new_text: str
    status: HunkStatus
    reason: str | None
    """Why it is stale."""
    risk: Risk


@frozen
class FileView:
    """A file of a gate."""

    path: str
    old_path: str | None
    operation: Operation
    lines: tuple[str, ...] = field(repr=False)
    """The user's text now, split at line feeds; empty where there is none."""
    hunks: tuple[HunkView, ...]
    _render: Callable[[], str] = field(repr=False, eq=False)

    @cached_property
    def diff(self) -> str:
        """What would be carried out now, for reading; all that cannot be seen is written out."""
        return self._render()

    @cached_property
    def has_returns(self) -> bool:
        """Whether there is any carriage return in the text."""
        return any("\r" in line for line in self.lines)


@frozen
class GateView:
    """A whole gate, as it is now."""

    gate: GateRecord
    files: tuple[FileView, ...]
    evidence: tuple[EvidenceItem, ...]
    reviews: tuple[FileReview, ...] = field(default=(), repr=False)
    """What the files were made from; of a command's gate none."""


@frozen
class Resolution:
    """What an answer brought about."""

    gate: GateRecord
    applied: tuple[str, ...] = ()
    conflicts: tuple[tuple[str, str], ...] = ()
    """Paths, and one plain sentence for each."""


# What is there


@frozen
class Present:
    """A file as the user has it now."""

    content: bytes | None
    """With the unsaved edits; None: there is no file."""
    mode: Mode | None
    disk: bytes | None
    open: OpenText | None = None
    unsaved: bool = False
    """The open text is not what is on the disk."""
    problem: str | None = None
    """Why nothing can be applied to it, one plain sentence."""


@frozen
class FileReview:
    """One file of a proposal, held against what is there."""

    change: FileChange
    states: dict[str, HunkState]
    present: Present
    taken: str | None
    """Why the new name of a renamed file is not free."""
    places: dict[str, Placed | Clash]

    def status(self, hunk_id: str) -> HunkStatus:
        """Return what is to be said of a hunk: a pending one that no longer fits is stale."""
        status = self.states[hunk_id].status
        return "stale" if status == "pending" and isinstance(self.places[hunk_id], Clash) else status

    def reason(self, hunk_id: str) -> str | None:
        """Return why a hunk is stale."""
        place = self.places[hunk_id]
        return place.reason if isinstance(place, Clash) and self.states[hunk_id].status == "pending" else None

    def result(self, hunk_ids: Collection[str]) -> FileResult:
        """Return the file with these hunks; none of them may be stale."""
        applied = {hunk_id for hunk_id, state in self.states.items() if state.applied}
        return apply_hunks(self.change, hunk_ids, self.present.content, self.present.mode, applied=applied)

    @cached_property
    def forthcoming(self) -> FileChange | None:
        """What the pending hunks would do to the file as it is now, by their own ids; None: nothing."""
        hunks = []
        for hunk in self.change.hunks:
            place = self.places[hunk.id]
            if self.status(hunk.id) == "pending" and isinstance(place, Placed) and not place.already:
                hunks.append(evolve(hunk, start=place.start, end=place.end, new=place.new))
        if not hunks:
            return None
        result = self.result({hunk.id for hunk in hunks})
        kinds = {hunk.kind for hunk in hunks}
        operation: Operation = "modify"
        if "whole" in kinds or "rename" in kinds:
            operation = self.change.operation
        content, mode = self.present.content, self.present.mode or self.change.pre_mode
        return FileChange(
            result.path, result.removed, operation, content, result.content, mode, result.mode, tuple(hunks)
        )

    @cached_property
    def view(self) -> FileView:
        """The file as it is shown."""
        text = self._text()
        lines = tuple(split_lines(text))
        hunks = []
        for hunk in self.change.hunks:
            place, state = self.places[hunk.id], self.states[hunk.id]
            start, end, new = hunk.start, hunk.end, hunk.new
            if isinstance(place, Placed):
                start, end, new = place.start, place.end, place.new
            start, end = min(start, len(lines)), min(end, len(lines))
            status, reason = self.status(hunk.id), self.reason(hunk.id)
            hunks.append(HunkView(hunk.id, state.digest, start, end, new, status, reason, state.risk))
        change = self.change
        return FileView(change.path, change.old_path, change.operation, lines, tuple(hunks), self._rendered)

    def _rendered(self) -> str:
        return "".join(line.text + "\n" for line in self.diff())

    def diff(self) -> list[DiffLine]:
        """Return the lines of what would be carried out now."""
        return [] if self.forthcoming is None else diff_lines(self.forthcoming)

    def _text(self) -> str:
        if self.present.open is not None:
            return self.present.open.text
        return decode_text(self.present.content) or "" if self.present.content is not None else ""


async def look(
    door: Door, files: Sequence[FileChange], applied: Collection[str], editor: Editor
) -> list[tuple[Present, str | None]]:
    """Return, for each file, what is there, and why its new name is taken if it is."""

    def read(path: str) -> tuple[bytes, Mode] | str | None:
        try:
            return door.read_entry(path)
        except PathRefused as error:
            return error.message

    paths = {path for change in files for path in (change.path, change.old_path) if path is not None}
    disk = await asyncio.to_thread(lambda: {path: read(path) for path in paths})
    # From here on nothing awaits, so that all open texts are of one moment.
    seen = []
    for change in files:
        source = location(change, applied)
        taken = None
        if source != change.path and disk[change.path] is not None:
            taken = f"There is a file {change.path} by now, so {source} cannot take that name."
        seen.append((present(source, change, disk[source], editor), taken))
    return seen


def location(change: FileChange, applied: Collection[str]) -> str:
    """Return where the file of a change is now."""
    renamed = any(hunk.kind == "rename" and hunk.id in applied for hunk in change.hunks)
    return change.path if change.old_path is None or renamed else change.old_path


def present(path: str, change: FileChange, entry: tuple[bytes, Mode] | str | None, editor: Editor) -> Present:
    """Put together what an editor and the disk have of a file."""
    if isinstance(entry, str):
        return Present(None, None, None, problem=entry)
    disk, mode = entry if entry is not None else (None, None)
    try:
        opened = editor.open_text(path)
    except Stale as error:
        return Present(disk, mode, disk, problem=error.message)
    if opened is None or (disk is None and _is_no_more_than(opened.text, change)):
        return Present(disk, mode, disk)
    text = decode_text(disk) if disk is not None else None
    if text is not None and text.removeprefix(BOM) == opened.text.removeprefix(BOM):
        return Present(disk, mode, disk, opened)
    if not _edits_text(change) and not opened.dirty:
        # The editor shows bytes that are no UTF-8 text in a decoding of its own.
        return Present(disk, mode, disk, opened)
    if not _edits_text(change) and (disk is None or text is None):
        problem = f"{path} is open and no UTF-8 text, so unsaved edits could be lost; close it, then decide again."
        return Present(disk, mode, disk, opened, unsaved=True, problem=problem)
    hidden = text is not None and text.startswith(BOM) and not opened.text.startswith(BOM)
    content = ((BOM if hidden else "") + opened.text).encode("utf-8", "surrogatepass")
    return Present(content, mode if mode is not None else change.pre_mode, disk, opened, unsaved=True)


def _is_no_more_than(text: str, change: FileChange) -> bool:
    """Tell whether a document without a file is empty, as some editors open what is not there yet, or just what the
    change would create, as is left open when a file is deleted."""
    created = decode_text(change.post) if change.pre is None and change.post is not None else None
    return not text or (created is not None and _plain(created) == _plain(text))


def _plain(text: str) -> str:
    return text.removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n")


def _edits_text(change: FileChange) -> bool:
    images = [image for image in (change.pre, change.post) if image is not None]
    return change.post_mode != SYMLINK and all(decode_text(image) is not None for image in images)


def review(change: FileChange, states: dict[str, HunkState], there: Present, taken: str | None = None) -> FileReview:
    """Hold a file's change against what is there."""
    applied = {hunk_id for hunk_id, state in states.items() if state.applied}
    places = carry(change, there.content, there.mode, applied=applied)
    for hunk in change.hunks:
        problem = there.problem or (taken if hunk.kind == "rename" and hunk.id not in applied else None)
        if problem is not None:
            places[hunk.id] = Clash(hunk, problem)
    return FileReview(change, states, there, taken, places)


def assumed(change: FileChange, states: dict[str, HunkState]) -> FileReview:
    """Return the review where nobody looked: the file as it was proposed, with what was applied since."""
    applied = {hunk_id for hunk_id, state in states.items() if state.applied}
    before = apply_hunks(change, applied, change.pre, change.pre_mode)
    return review(change, states, Present(before.content, before.mode, before.content))


def digest(reviews: Sequence[FileReview]) -> str:
    """Return the digest of what approving all pending hunks would do now."""
    forthcoming = [change for one in reviews if (change := one.forthcoming) is not None]
    waiting = sorted(
        f"{one.status(hunk_id)} {state.digest}"
        for one in reviews
        for hunk_id, state in one.states.items()
        if state.status == "pending"
    )
    return seal("gate", content_digest(forthcoming), *waiting)


def adds_hidden(hunk: Hunk) -> list[str]:
    """Return the names of the invisible characters that a hunk brings and its old text did not have."""
    before = hidden_characters(hunk.old)
    return [name for name in hidden_characters(hunk.new) if name not in before]


def risk_of(change: FileChange, hunk: Hunk) -> Risk:
    """Return how much care a hunk asks for.

    High: protected paths, links, and characters that cannot be seen. Medium: what is lost, what cannot be read as text,
    and what becomes executable.
    """
    paths = [path for path in (change.path, change.old_path) if path is not None]
    if any(is_protected(path) or hidden_characters(path) for path in paths):
        return "high"
    if SYMLINK in (change.pre_mode, change.post_mode) and hunk.kind == "whole":
        return "high"
    if adds_hidden(hunk):
        return "high"
    binary = hunk.kind == "whole" and any(
        image is not None and decode_text(image) is None for image in (change.pre, change.post)
    )
    executable = change.post_mode == EXECUTABLE and hunk.kind in ("whole", "mode")
    return "medium" if change.operation == "delete" or binary or executable else "low"


def reviews_of(
    proposal: Proposal, seen: Sequence[tuple[Present, str | None]], earlier: Sequence[FileReview] = ()
) -> list[FileReview]:
    """Return the reviews of all files of a proposal; an earlier one is used again where nothing has changed since."""
    known = {one.change.path: one for one in earlier}
    reviews = []
    for change, (there, taken) in zip(proposal.files, seen, strict=True):
        states, one = proposal.state_of(change), known.get(change.path)
        if one is None or one.change is not change or (one.states, one.present, one.taken) != (states, there, taken):
            one = review(change, states, there, taken)
        reviews.append(one)
    return reviews
