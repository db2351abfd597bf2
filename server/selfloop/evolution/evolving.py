"""The maker of an evolution: one conversation, one change and one commit for each of its turns.

    evolve, turn after turn, until SKIP ─▶ refine: what fails is fed back ─▶ docs
      └── each turn: work in the worktree ─▶ what may not evolve is taken back ─▶ commit on refs/attempts/<run>

Invariant: what a turn came to is noted once, with its commit, after the turn has ended; what follows is a function of
these notes. A turn that was cut off goes on where it was, and its commit comes then. The conversation only grows at its
end, so that a provider's cache holds nearly all of each call.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from attrs import define, field, frozen

from selfloop.agent.fence import Fence
from selfloop.changes import seal
from selfloop.errors import RequestFailed
from selfloop.evolution.bench import VERIFY_SECONDS, last_line, refused_paths
from selfloop.evolution.report import JudgeReport
from selfloop.evolution.undertaking import Undertaking
from selfloop.loops.crew import Brief
from selfloop.loops.levels import READING, WRITING
from selfloop.loops.report import Phase
from selfloop.loops.steps import Result, carried
from selfloop.sandbox.worktree import Worktree

logger = logging.getLogger(__name__)

EVOLVE, REFINE, DOCS = "evolve failed", "refine failed", "docs failed"
HOLDS = READING | WRITING | {"shell"}
CHEAP = ("G1", "G2")
"""Layers that take seconds: asked before the whole judgement."""
FED_BACK = frozenset({"VERIFY", "G1", "G2", "G3"})
"""Whose findings the maker is told. The others are probes that must stay unknown to it."""
SAME_FAILURE = 3
_IDLE = 2
"""Turns in a row without a change after which there is nothing more to come."""
_FAILURE_CHARS = 8_000
_NUMBERS = re.compile(r"\d+(?:\.\d+)?|0x[0-9a-f]+")
DOCUMENTS = frozenset({"README.md", "AGENTS.md", "CHANGELOG.md", "server/ARCHITECTURE.md"})

Row = dict[str, Any]
"""What a turn came to: `kind`, `words`, `tree`, `commit`, `changed`, `back`, `failure`, and `ended` of the last one."""


@frozen
class Failure:
    """Why the present tree does not pass."""

    name: str
    """`VERIFY`, or the layer's."""
    text: str

    @property
    def key(self) -> str:
        """By what it is known when it comes again: without what differs from run to run."""
        return seal("failure", self.name, _NUMBERS.sub("#", self.text))


@define
class Work:
    """The maker's work in one evolution."""

    under: Undertaking
    _worktree: Worktree | None = field(default=None, init=False)

    # What there is

    def rows(self, kind: str | None = None) -> list[Row]:
        """Return what the turns came to, oldest first; only those of one kind, if it is given."""
        found = self.under.one.state("turns") or []
        return [row for row in found if kind in (None, row["kind"])]

    @property
    def tree(self) -> str:
        """The tree after the last turn."""
        rows = self.rows()
        return rows[-1]["tree"] if rows else self.under.base["tree"]

    @property
    def commit(self) -> str:
        """Its commit."""
        rows = self.rows()
        return rows[-1]["commit"] if rows else self.under.base["commit"]

    # Evolve

    async def evolve(self) -> Result:
        """Have the maker carry out the suggestion, one change in each turn, until it has nothing more to do."""
        under = self.under
        desk = under.desk("maker")
        if not self.rows():
            desk.record("evolve_start", {"suggestion": under.suggestion, "parent": under.base["number"]})
        while True:
            rows = self.rows("evolve")
            if rows and ("ended" in rows[-1] or self._is_over(rows)):
                break
            task = self._first(desk.fence()) if not rows else _next(rows[-1])
            await self.turn("evolve", EVOLVE, task)
        desk.record("evolve_end", {"iterations": len(rows), "tree": self.tree})
        last = rows[-1]
        words = next((row["words"] for row in reversed(rows) if not is_skip(row["words"])), "")
        return {
            "status": "Done",
            "text": words,
            "iterations": under.one.budgets.round.iterations,
            "turns": len(rows),
            "tree": self.tree,
            "commit": self.commit,
            **({"ended": last["ended"]} if "ended" in last else {}),
        }

    def _is_over(self, rows: list[Row]) -> bool:
        """Tell whether the maker is done, or goes round in circles: A, B and A again is one circle."""
        if is_skip(rows[-1]["words"]) or rows[-1]["stop"] in ("stuck", "max_tokens"):
            return True
        if len(rows) >= _IDLE and not any(row["changed"] for row in rows[-_IDLE:]):
            return True
        earlier = [self.under.base["tree"], *(row["tree"] for row in rows[:-1])]
        return bool(rows[-1]["changed"]) and rows[-1]["tree"] in earlier

    def _first(self, fence: Fence) -> str:
        one, suggestion = self.under.one, self.under.suggestion
        told = f"File: {suggestion['file']}\nImprovement: {suggestion['improvement']}\nVERIFY: {suggestion['verify']}"
        before = fence.data(suggestion["before"], source="output of VERIFY")
        return "\n\n".join(
            [
                one.spec.maker,
                f"The improvement of this evolution:\n{fence.data(told, source='the reflection')}",
                f"VERIFY fails now, and must pass when you are done:\n{before}",
                "Make the first change.",
            ]
        )

    # Refine

    async def prove(
        self,
        kind: str,
        check: Callable[[], Awaitable[Failure | None]],
        told: Callable[[Phase], None] = lambda phase: None,
    ) -> Failure | None:
        """Feed what fails back to the maker until nothing does; return what still fails, None if nothing.

        Args:
            kind: of the turns.
            check: returns the present tree's `Failure`, None if it passes.
            told: hears when the maker is at it, and when the check is.

        It ends as well when the same failure has come three times, when the budget ends, or when what fails is not the
        maker's to know.
        """
        while True:
            told("verify")
            failure = await check()
            if failure is None or failure.name not in FED_BACK:
                return failure
            rows = self.rows(kind)
            if rows and "ended" in rows[-1]:
                return failure
            if sum(row["failure"] == failure.key for row in rows) >= SAME_FAILURE - 1:
                return failure
            told("refine")
            desk = self.under.desk("maker")
            desk.record("test_result" if failure.name in ("VERIFY", "G3") else "lint_result", {"failed": failure.name})
            text = desk.parts.redact(failure.text)[:_FAILURE_CHARS]
            task = desk.parts.prompts.render(
                "refine", what=failure.name, failure=desk.fence().data(text, source="what failed")
            )
            await self.turn(kind, REFINE, task, failure=failure.key)

    async def verify_command(self) -> Failure | None:
        """Run the suggestion's VERIFY on a clean copy of the present tree."""
        under = self.under
        worktree = await under.bench.fresh()
        try:
            await under.bench.bring(worktree, under.home, under.base["tree"], self.tree)
            result = await under.bench.run(under.suggestion["verify"], worktree, under.spill("verify-after"))
        finally:
            await under.bench.release(worktree)
        if result.timed_out:
            return Failure("VERIFY", f"It did not end within {VERIFY_SECONDS:.0f} seconds.\n{result.output}")
        if result.exit_code != 0:
            why = last_line(result.output)
            return Failure("VERIFY", f"It ended with exit code {result.exit_code} ({why}).\n{result.output}")
        return None

    async def judged(self, layers: Collection[str], *, whole: bool) -> JudgeReport:
        """Return the judge's report on the present tree; a whole one is kept, and never made twice."""
        under, tree, parent = self.under, self.tree, self.under.base["tree"]
        if whole and (kept := under.home.evidence_of(parent, tree)) is not None:
            return JudgeReport.from_json(kept)
        scratch = under.bench.cache / "judge"
        child = await under.home.lay_out(tree, scratch / "candidate" / tree)
        told = under.one.means.redact
        report = await under.judge(
            under.bench.folder,
            child,
            isolation=under.bench.isolation,
            scratch=scratch,
            told=lambda line: logger.info("judge of %s: %s", under.one.run_id, told(line)),
            layers=layers,
        )
        if whole:
            under.home.keep_evidence(parent, tree, report.to_json())
        return report

    # Docs

    async def docs(self) -> None:
        """Have the maker bring the documents to what is now true."""
        desk = self.under.desk("maker")
        if self.rows("docs"):
            return
        paths = await self.under.home.changed_paths(self.under.base["tree"], self.tree)
        task = desk.parts.prompts.render("docs", changed="\n".join(f"- {path}" for path in paths))
        await self.turn("docs", DOCS, task)
        desk.record("doc_update", {"changed": self.rows("docs")[-1]["changed"]})

    # One turn

    async def turn(self, kind: str, label: str, task: str, *, failure: str = "") -> Row:
        """Carry out one turn, or the rest of one, commit what it has changed, and note what it came to."""
        under = self.under
        one, desk, rows = under.one, under.desk("maker"), self.rows()
        worktree = await self._open()
        begun = sum(event.kind == "turn_start" for event in desk.parts.trajectory.events())
        stop, ended = "end_turn", None
        member = under.member("maker", HOLDS)
        if begun <= len(rows) or desk.state.turn_id is not None:
            number = len(rows) + 1
            desk.record("iter_start", {"number": number, "kind": kind})
            stop, ended = await carried(
                one,
                member,
                label,
                lambda: member.run(worktree, under.bench.isolation, lambda: Brief("evolve", {}, task)),
            )
        words = member.last_words()
        taken = await under.bench.take(worktree)
        before, commit = self.tree, self.commit
        if kind == "docs":
            # What was proven stays as it was proven: of this turn only the documents are taken.
            tree = await under.home.amend(before, [one for one in taken.changes if one.path in DOCUMENTS])
        else:
            tree = await under.home.amend(under.base["tree"], taken.changes)
        if tree != before:
            subject = " ".join(under.suggestion["improvement"].split())[:72]
            message = f"{kind}: {subject}\n\nSelfloop-Run: {one.run_id}\n\n{desk.parts.redact(words)[:2_000]}"
            commit = await under.home.commit(tree, [commit], message)
            under.home.set_ref(f"attempts/{one.run_id}", commit)
        row: Row = {
            "kind": kind,
            "words": words[:4_000],
            "stop": stop,
            "tree": tree,
            "commit": commit,
            "changed": tree != before,
            "back": list(taken.taken_back),
            "failure": failure,
            **({"ended": ended} if ended else {}),
        }
        one.rounds.set_state(one.run_id, turns=[*rows, row])
        skipped = is_skip(words) and not row["changed"]
        desk.record("iter_skip" if skipped else "iter_end", {"number": len(rows) + 1, "kind": kind, "commit": commit})
        return row

    async def _open(self) -> Worktree:
        """Return the worktree, as the maker has left it; a lost one is made again from the last commit."""
        if self._worktree is None:
            under = self.under
            known = under.one.state("evolve_worktree")
            found = await under.bench.reopen(known)
            if found is None and known is not None and under.desk("maker").state.turn_id is not None:
                # What this turn has edited until then is gone, and the maker believes to see it.
                raise RequestFailed("the maker's copy of the source is gone from the cache; evolve again.")
            if found is None:
                found = await under.bench.fresh()
                await under.bench.bring(found, under.home, under.base["tree"], self.tree)
                under.one.rounds.set_state(under.one.run_id, evolve_worktree=found.id)
            self._worktree = found
        return self._worktree

    async def give_back(self) -> None:
        """Throw the worktree away: everything in it is committed."""
        worktree = await self._open() if self.under.one.state("evolve_worktree") else None
        self._worktree = None
        if worktree is not None:
            await self.under.bench.release(worktree)
            self.under.one.rounds.set_state(self.under.one.run_id, evolve_worktree=None)


def is_skip(words: str) -> bool:
    """Tell whether a reply says that there is nothing more to do: SKIP must be all of it."""
    return words.strip().strip("`*.").strip() == "SKIP"


def _next(row: Row) -> str:
    """Return what the maker is told after a turn."""
    said = f"Committed as {row['commit'][:12]}." if row["changed"] else "Nothing was changed in this turn."
    if row["back"]:
        said += f" {refused_paths(row['back'])}"
    return (
        f"{said} If the improvement needs another change, make the next one now. If it is whole, reply with SKIP and "
        "nothing else."
    )
