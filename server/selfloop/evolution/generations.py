"""The generations: which selves there are, which one serves, and what became of each.

    lineage.jsonl ─▶ Generation          who made it, why, what proves it, who approved it
    active.json   ─▶ which one serves    the supervisor alone writes it; its outcomes are noted in the lineage

Invariant: generation 0 is the installed package and is always there. A generation is added only with the judge's
evidence and a person's approval, and nothing here makes one serve: that is the supervisor's to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from attrs import asdict, evolve, frozen

from selfloop import __version__
from selfloop.errors import Unknown
from selfloop.evolution.home import Home
from selfloop.evolution.lineage import Lineage, Record
from selfloop.evolution.source import PACKAGE, self_files, tree_of
from selfloop.messages import Usage
from selfloop.storage.disk import saying
from selfloop.supervisor.contract import ROLLBACKS

logger = logging.getLogger(__name__)

GenerationState = Literal["verified", "active", "settled", "rolled-back"]
_OUTCOMES: dict[str, GenerationState] = {
    "settled": "settled",
    "rolled-back": "rolled-back",
    "activated": "active",
    "probation": "active",
}
INSTALLED = "The installed package."


@frozen
class Generation:
    """One self."""

    number: int
    tree: str
    """git's id of exactly the content of its folder."""
    commit: str
    parent: int | None
    state: GenerationState
    created_at: str
    """ISO 8601, UTC."""
    summary: str
    """One line."""
    suggestion: dict[str, Any]
    """What led to it: `file`, `improvement`, `verify`."""
    evidence: dict[str, Any]
    """The judge's report, as JSON."""
    tokens: Usage
    """What the whole evolution used."""
    approved_by: str | None
    origins: list[str]
    """The sessions that it was learned from, each with its workspace."""
    reason: str | None
    """Why it is in this state, where there is something to say."""
    parent_tree: str = ""
    run_id: str = ""
    base: str = __version__
    """The release of the installed package that it descends from."""


@frozen
class Attempt:
    """A change that was tried and not adopted."""

    run_id: str
    tree: str
    commit: str
    suggestion: dict[str, Any]
    reason: str
    """Why, as whoever rejected it has said."""
    by: str
    """`verify`, `judge` or `user`."""
    at: str


class Generations:
    """The generations of one user."""

    def __init__(self, data: Path, self_folder: Path | None = None) -> None:
        """Read nothing yet.

        Args:
            data: the user's data folder.
            self_folder: a checkout that the user has named as generation 0; None: the installed package.
        """
        self.home = Home(data)
        self.lineage = Lineage(self.home.root / "lineage.jsonl")
        self._active_file = self.home.root / "active.json"
        self._self_folder = self_folder

    # Looking

    def list(self) -> list[Generation]:
        """Return every generation by number, generation 0 included. Reads the disk.

        Raises:
            StoreError: the lineage cannot be read, or its chain is broken.
        """
        records = self.lineage.records()
        found = {0: self._installed(records)}
        for record in records:
            if record.kind == "generation":
                one = msgspec.convert({**record.data, "created_at": record.at}, Generation)
                found[one.number] = one
            elif record.kind == "state" and (known := found.get(record.data["number"])) is not None:
                state, reason = record.data["state"], record.data.get("reason")
                found[known.number] = evolve(known, state=state, reason=reason)
        # What the supervisor has written and nobody has noted yet counts all the same.
        for data in self._outcomes():
            if (known := found.get(data["number"])) is not None:
                found[known.number] = evolve(known, state=data["state"], reason=data["reason"])
        serving = self.serving()
        if serving.get("state") == "probation" and (known := found.get(self.active())) is not None and known.number:
            found[known.number] = evolve(known, state="active", reason=None)
        return [found[number] for number in sorted(found)]

    def get(self, number: int) -> Generation:
        """Return one generation.

        Raises:
            Unknown: there is none of this number.
        """
        for one in self.list():
            if one.number == number:
                return one
        raise Unknown("Generation", str(number))

    def attempts(self) -> Sequence[Attempt]:
        """Return what was tried and not adopted, oldest first."""
        rows = [one for one in self.lineage.records() if one.kind == "attempt"]
        return [msgspec.convert({**row.data, "at": row.at}, Attempt) for row in rows]

    def active(self) -> int:
        """Return the number of the generation that serves; 0 for the installed package. Reads the disk."""
        state = self.serving()
        number = state.get("number")
        if not isinstance(number, int) or number <= 0 or state.get("base") != __version__:
            return 0
        return number

    def serving(self) -> dict[str, Any]:
        """Return what the supervisor has written about who serves; nothing where it has written nothing."""
        with saying(f"{self._active_file} could not be read"):
            try:
                found = msgspec.json.decode(self._active_file.read_bytes())
            except FileNotFoundError:
                return {}
            except msgspec.DecodeError as error:
                # It is the supervisor's to mend; the installed package serves meanwhile.
                logger.warning("%s cannot be understood (%s).", self._active_file, error)
                return {}
        return found if isinstance(found, dict) else {}

    def paused(self) -> str | None:
        """Return why nothing evolves at present, as one sentence; None where something may. Reads the disk."""
        count = self.serving().get("rollbacks")
        if not isinstance(count, int) or count < ROLLBACKS:
            return None
        return (
            f"{count} generations were taken back, so evolution rests; look at them, and activate one by hand "
            "(`selfloop generation activate`) to go on."
        )

    async def diff(self, number: int) -> str:
        """Return what a generation changed in its parent, as a unified diff; "" for generation 0.

        Raises:
            Unknown: there is none of this number.
        """
        one = await asyncio.to_thread(self.get, number)
        return await self.home.diff(one.parent_tree, one.tree) if one.parent_tree else ""

    async def folder(self, number: int) -> Path:
        """Return a generation's folder, made where it is missing and looked through in any case.

        Raises:
            Unknown: there is none of this number.
            StoreError: it was edited by hand, or cannot be made.
        """
        if number == 0:
            return await self.home.export((await self.base()).tree)
        return await self.home.export((await asyncio.to_thread(self.get, number)).tree)

    async def base(self) -> Generation:
        """Return generation 0 with its files stored: the installed package as it is now.

        Raises:
            StoreError, SandboxError: its files cannot be read or stored.
        """
        await self.home.open()
        records = await asyncio.to_thread(self.lineage.records)
        known = await asyncio.to_thread(self._installed, records)
        if known.commit:
            return known
        tree = await self.home.take_in(await asyncio.to_thread(self_files, self._self_folder))
        commit = await self.home.commit(tree, (), f"Selfloop {__version__}, as it is installed")
        self.home.set_ref("generations/0", commit)
        data = {"tree": tree, "commit": commit, "version": __version__}
        await asyncio.to_thread(self.lineage.add, lambda _: ("base", data))
        return evolve(known, tree=tree, commit=commit)

    # Adding

    async def add(
        self,
        *,
        tree: str,
        commit: str,
        parent: int,
        parent_tree: str,
        run_id: str,
        summary: str,
        suggestion: dict[str, Any],
        evidence: dict[str, Any],
        tokens: Usage,
        approved_by: str,
        origins: Sequence[str],
    ) -> Generation:
        """Add an approved generation and return it, with its folder made; added again, it is the same one.

        Raises:
            StoreError, SandboxError: nothing was added.
        """
        await self.home.export(tree)

        def decide(records: Sequence[Record]) -> tuple[str, dict[str, Any]] | None:
            numbers = [row.data["number"] for row in records if row.kind == "generation"]
            if any(row.kind == "generation" and row.data["run_id"] == run_id for row in records):
                return None  # A kill came after it was added.
            one = Generation(
                number=max(numbers, default=0) + 1,
                tree=tree,
                commit=commit,
                parent=parent,
                state="verified",
                created_at="",
                summary=" ".join(summary.split())[:200],
                suggestion=dict(suggestion),
                evidence=dict(evidence),
                tokens=tokens,
                approved_by=approved_by,
                origins=list(origins),
                reason=None,
                parent_tree=parent_tree,
                run_id=run_id,
            )
            return "generation", asdict(one)

        await asyncio.to_thread(self.lineage.add, decide)
        one = next(one for one in await asyncio.to_thread(self.list) if one.run_id == run_id)
        self.home.set_ref(f"generations/{one.number}", commit)
        return one

    def reject(self, *, run_id: str, tree: str, commit: str, suggestion: dict[str, Any], reason: str, by: str) -> None:
        """Note that a change was not adopted, and why; its ref stays. Noted again, nothing is added."""
        data = {
            "run_id": run_id,
            "tree": tree,
            "commit": commit,
            "suggestion": dict(suggestion),
            "reason": reason,
            "by": by,
        }

        def decide(records: Sequence[Record]) -> tuple[str, dict[str, Any]] | None:
            known = any(row.kind == "attempt" and row.data == data for row in records)
            return None if known else ("attempt", data)

        self.lineage.add(decide)

    def note_outcomes(self) -> Sequence[tuple[int, str, str | None]]:
        """Note in the lineage what the supervisor has written of generations, and return what is news.

        Returns:
            Number, state and reason of each, oldest first.
        """
        news = []
        for data in self._outcomes():

            def decide(records: Sequence[Record], data: dict[str, Any] = data) -> tuple[str, dict[str, Any]] | None:
                known = any(row.kind == "state" and row.data == data for row in records)
                there = any(row.kind == "generation" and row.data["number"] == data["number"] for row in records)
                return ("state", data) if there and not known else None

            if self.lineage.add(decide) is not None:
                news.append((data["number"], data["state"], data["reason"]))
        return news

    # Inside

    def _outcomes(self) -> Sequence[dict[str, Any]]:
        """Return what the supervisor has written of generations, oldest first, in the lineage's form."""
        found: list[dict[str, Any]] = []
        rows = self.serving().get("outcomes", ())
        for row in rows if isinstance(rows, list) else ():
            state = _OUTCOMES.get(str(row.get("state"))) if isinstance(row, dict) else None
            if state is not None and isinstance(row.get("number"), int) and row["number"] > 0:
                found.append(
                    {"number": row["number"], "state": state, "reason": row.get("reason"), "at": row.get("at")}
                )
        return found

    def _installed(self, records: Sequence[Record]) -> Generation:
        """Return generation 0; `commit` is "" where its files are not stored yet."""
        bases = [row for row in records if row.kind == "base"]
        own = PACKAGE.is_relative_to(self.home.generations.resolve()) and self._self_folder is None
        if own and bases:
            # An evolved generation runs: what is installed is not what lies around this file.
            return _base(bases[-1].data["tree"], bases[-1].data["commit"], bases[-1].at)
        tree = tree_of(self_files(self._self_folder))
        known = next((row for row in reversed(bases) if row.data["tree"] == tree), None)
        return _base(tree, known.data["commit"] if known else "", known.at if known else "")


def _base(tree: str, commit: str, at: str) -> Generation:
    return Generation(
        number=0,
        tree=tree,
        commit=commit,
        parent=None,
        state="settled",
        created_at=at,
        summary=INSTALLED,
        suggestion={},
        evidence={},
        tokens=Usage(),
        approved_by=None,
        origins=[],
        reason=None,
    )
