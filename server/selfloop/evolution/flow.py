"""The steps of an evolution, as the loop engine carries them out: `self-evolution` is a loop like any other.

    prepare ─▶ reflect ─▶ weigh ─▶ evolve ─▶ refine ─▶ verify ─▶ docs ─▶ reverify ─▶ gate        (then a person)

Invariant: each step's result is stored when it ends, and a killed evolution is taken up at its step. Without a jail, or
while another evolution of this user is under way, nothing begins. The gate always asks a person, whatever the level.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import define, field

from selfloop.config import Settings
from selfloop.errors import RequestFailed, Unknown
from selfloop.evolution.bench import Bench
from selfloop.evolution.evolving import CHEAP, Failure, Work
from selfloop.evolution.generations import Generations
from selfloop.evolution.home import delete_folder
from selfloop.evolution.ledger import Ledger
from selfloop.evolution.lessons import MOST_SESSIONS, heard
from selfloop.evolution.promoting import Promotion
from selfloop.evolution.reflecting import reflect, weigh
from selfloop.evolution.report import LAYERS, JudgeReport
from selfloop.evolution.undertaking import Judge, Undertaking, ending
from selfloop.gates.gate import GateRecord
from selfloop.loops.flows import Stage
from selfloop.loops.means import Means
from selfloop.loops.report import Phase, failed, reported
from selfloop.loops.spec import EVOLUTION, Level, LoopSpec, lower
from selfloop.loops.steps import Result, Round
from selfloop.updates import RunUpdate

logger = logging.getLogger(__name__)

CACHE_SECONDS = 14 * 86_400.0
"""The age from which on a cache of another self is deleted."""
NO_JAIL = (
    "Selfloop evolves only where every command runs in a jail, and here isolation is `{level}` ({detail}) So nothing "
    "was begun; install bubblewrap on Linux, or take the setting `isolation` away."
)


@define
class SelfEvolution:
    """The flow of one workspace; see the module."""

    means: Means
    generations: Generations
    promotion: Promotion
    judge: Judge
    cache: Path
    """A folder of ours for worktrees of our own source; it may be cleared."""
    settings: Callable[[], Settings]
    _under_way: dict[str, Undertaking] = field(factory=dict, init=False)

    # What the engine asks

    def stages(self, one: Round, now: LoopSpec) -> Sequence[Stage]:
        """Return the steps of one evolution."""
        level = lower(one.spec.level, now.level)
        table: tuple[tuple[str, Phase, str, Callable[[], Any]], ...] = (
            ("prepare", "reflect", "reflect failed", lambda: self._prepare(one)),
            ("reflect", "reflect", "reflect failed", lambda: self._reflect(one)),
            ("weigh", "reflect", "reflect failed", lambda: self._weigh(one, level)),
            ("evolve", "evolve", "evolve failed", lambda: self._evolve(one)),
            ("refine", "refine", "refine failed", lambda: self._refine(one)),
            ("verify", "verify", "verify failed", lambda: self._verify(one)),
            ("docs", "docs", "docs failed", lambda: self._docs(one)),
            ("reverify", "verify", "verify failed", lambda: self._reverify(one)),
            ("gate", "gate", "gate failed", lambda: self._gate(one)),
        )
        return [Stage(name, phase, label, work) for name, phase, label, work in table]

    def as_round(self, results: Mapping[str, Result]) -> Mapping[str, Result]:
        """Return the results as a report reads them."""
        evolved, gate = results.get("evolve", {}), results.get("gate", {})
        said = next((result["said"] for result in reversed(list(results.values())) if result.get("said")), "")
        text = said or evolved.get("text", "")
        plain: dict[str, Result] = dict(results)
        ended = any("ended" in result for result in results.values())
        if text:
            status = "DoneWithConcerns" if ended and evolved else "Done"
            plain["make"] = {"status": status, "iterations": evolved.get("iterations", 0), "text": text}
        judged = results.get("reverify") or results.get("verify") or {}
        if "layers" in judged:
            lines = "\n".join(judged["layers"])
            status = "Done" if judged["accepted"] else "DoneWithConcerns"
            plain["check"] = {"status": status, "iterations": 0, "text": lines, "verified": judged["accepted"]}
        if gate:
            action = {"kind": "promote-generation", "summary": gate.get("summary", "")}
            plain["decide"] = {"decision": "escalate", "reason": "A human decides on a generation.", "action": action}
            plain["act"] = {"gates": gate.get("gates", [])}
        return plain

    async def close(self, one: Round) -> None:
        """Let go of an evolution that has ended or is cut off."""
        under = self._under_way.pop(one.run_id, None)
        if under is not None:
            await under.close()

    async def take_up(self) -> None:
        """Look after a start at what has become of what was approved or rejected before."""
        await self.promotion.take_up()

    def check_answer(self, record: GateRecord, option_id: str) -> None:
        """Refuse an approval of what is not what was shown any more."""
        if option_id == "approve":
            self.promotion.check(record)

    async def approved(self, record: GateRecord) -> None:
        """Add the generation, and have it swapped in."""
        await self.promotion.approved(record)

    async def rejected(self, record: GateRecord) -> None:
        """Remember the rejection and its reason."""
        await self.promotion.rejected(record)

    async def swapped(self, number: int, state: str, reason: str | None) -> None:
        """Take notice of what the supervisor says of a swap; see `Promotion.swapped`."""
        await self.promotion.swapped(number, state, reason)

    # Steps

    async def _prepare(self, one: Round) -> Result:
        """Choose the self to stand on and the sessions to learn from."""
        await self._require_jail()
        generations, home = self.generations, self.generations.home
        with home.lock():
            # Only to be refused at once where another one is under way: it is held from the next step on.
            await home.open()
        for number, state, reason in await asyncio.to_thread(generations.note_outcomes):
            self.promotion.tell(number, state, reason)
        if (resting := await asyncio.to_thread(generations.paused)) is not None:
            raise RequestFailed(resting)
        number = generations.active()
        base = await generations.base() if number == 0 else await asyncio.to_thread(generations.get, number)
        await home.export(base.tree)
        root = self.means.store.root
        there = await asyncio.to_thread(heard, root, self._state_of, lambda run_id: self._is_own(one, run_id))
        ledger = Ledger(root)
        sessions = (await asyncio.to_thread(ledger.open_of, there))[:MOST_SESSIONS]
        if not sessions:
            why = "every session was learned from already" if there else "there is no session yet"
            return ending(reported(), f"There is nothing to learn from ({why}), so nothing was changed.")
        await asyncio.to_thread(ledger.mark, sessions, "pending", one.run_id)
        rows = [[each.session, each.size_bytes] for each in sessions]
        return {
            "number": number,
            "tree": base.tree,
            "commit": base.commit,
            "sessions": rows,
            "heard": [[each.session, each.size_bytes] for each in there],
            "origins": [f"{self.means.workspace}: {each.session}" for each in sessions],
        }

    async def _reflect(self, one: Round) -> Result:
        return await reflect(await self._open(one))

    async def _weigh(self, one: Round, level: Level) -> Result:
        return await weigh(await self._open(one), level)

    async def _evolve(self, one: Round) -> Result:
        under = await self._open(one)
        result = await Work(under).evolve()
        if "ended" not in result and result["tree"] == under.base["tree"]:
            return {**result, **ending(reported(), "The maker changed nothing, so there is nothing to adopt.")}
        return result

    async def _refine(self, one: Round) -> Result:
        """Have VERIFY and the cheap layers pass."""
        under = await self._open(one)
        work = Work(under)

        async def check() -> Failure | None:
            return await work.verify_command() or await self._layers(work, CHEAP, whole=False)

        failure = await work.prove("refine", check)
        return self._refined(under, work, failure, "refine failed", "verify")

    async def _verify(self, one: Round) -> Result:
        """Have the judge pass: what it finds in the cheap layers and the tests is mended, all else is final."""
        under = await self._open(one)
        work = Work(under)

        async def check() -> Failure | None:
            rows = work.rows("proven")
            again = await work.verify_command() if rows else None  # It passed when the last step ended.
            return again or await self._layers(work, tuple(LAYERS), whole=True)

        failure = await work.prove("proven", check, lambda phase: self._show(one, phase))
        return await self._judged(under, work, self._refined(under, work, failure, "verify failed", "judge"))

    async def _docs(self, one: Round) -> Result:
        under = await self._open(one)
        work = Work(under)
        await work.docs()
        row = work.rows("docs")[-1]
        # A docs step that failed costs the documents, not what was proven without them.
        await work.give_back()
        return {"tree": row["tree"], "commit": row["commit"], "changed": row["changed"]}

    async def _reverify(self, one: Round) -> Result:
        """Judge the final tree; where the documents do not pass, the tree that passed before them stands."""
        under = await self._open(one)
        work = Work(under)
        proven = one.results["verify"]
        if work.tree == proven["tree"]:
            return proven
        report = await work.judged(tuple(LAYERS), whole=True)
        if report.accepted:
            return await self._judged(under, work, {"tree": work.tree, "commit": work.commit})
        note = f"The documents were left as they were: {report.reason}"
        under.home.set_ref(f"attempts/{one.run_id}", proven["commit"])
        return {**proven, "note": note}

    async def _gate(self, one: Round) -> Result:
        under = await self._open(one)
        proven = one.results["reverify"]
        kept = under.home.evidence_of(under.base["tree"], proven["tree"])
        if kept is None:
            raise RequestFailed("The evidence of the judge is gone, so nobody was asked; evolve again.")
        summary = under.suggestion["improvement"].strip().split("\n")[0][:160]
        gate_id = await self.promotion.ask(
            one,
            base=under.base,
            tree=proven["tree"],
            commit=proven["commit"],
            suggestion=under.suggestion,
            report=JudgeReport.from_json(kept),
            summary=summary,
            note=proven.get("note"),
        )
        await asyncio.to_thread(delete_folder, under.bench.cache / "judge" / "candidate")
        if gate_id is None:
            return ending(reported(), "The user has rejected exactly this before, so nobody was asked again.")
        return {"gates": [gate_id], "summary": summary}

    # What they share

    async def _open(self, one: Round) -> Undertaking:
        """Return the evolution with its lock held and its bench ready; after a kill it is opened again."""
        if one.run_id not in self._under_way:
            isolation = await self._require_jail()
            held = ExitStack()
            try:
                held.enter_context(self.generations.home.lock())
                await self.generations.home.open()
                tree = one.results["prepare"]["tree"]
                folder = await self.generations.home.export(tree)
                await asyncio.to_thread(self._forget_old_caches)
                bench = Bench(folder, self.cache / tree[:16], isolation, self.settings())
            except BaseException:
                held.close()
                raise
            self._under_way[one.run_id] = Undertaking(one, self.generations, self.judge, bench, held)
        return self._under_way[one.run_id]

    async def _require_jail(self) -> Any:
        isolation = await self.means.isolation()
        if isolation.level != "process":
            raise RequestFailed(NO_JAIL.format(level=isolation.level, detail=isolation.detail))
        return isolation

    async def _layers(self, work: Work, layers: Sequence[str], *, whole: bool) -> Failure | None:
        report = await work.judged(layers, whole=whole)
        found = next((layer for layer in report.layers if not layer.passed), None)
        if found is not None:
            return Failure(found.name, "\n".join([found.reason, *found.details]))
        if whole and not report.accepted:
            return Failure("judge", report.reason)
        return None

    def _refined(self, under: Undertaking, work: Work, failure: Failure | None, label: str, by: str) -> Result:
        """Return what proving has come to; what does not pass is noted, so that the next reflection knows of it."""
        result: Result = {"tree": work.tree, "commit": work.commit}
        rows = work.rows()
        if failure is None:
            return result
        if rows and "ended" in rows[-1]:
            return {**result, "ended": rows[-1]["ended"]}
        first = failure.text.strip().split("\n")[0]
        reason = under.one.means.redact(f"{failure.name}: {first}")[:600]
        under.generations.reject(
            run_id=under.one.run_id,
            tree=work.tree,
            commit=work.commit,
            suggestion={name: under.suggestion[name] for name in ("file", "improvement", "verify")},
            reason=reason,
            by=by,
        )
        said = f"The change was not adopted. {reason}"
        return {**result, **ending(failed(f"{label}: {reason}"), said)}

    async def _judged(self, under: Undertaking, work: Work, result: Result) -> Result:
        """Add to a result what the judge has found of its tree."""
        kept = under.home.evidence_of(under.base["tree"], result["tree"])
        if kept is None:
            return result
        lines = [
            f"{one['name']} {'passed' if one['passed'] else 'failed'} in {one['seconds']:.1f} s: {one['reason']}"
            for one in kept["layers"]
        ]
        return {**result, "layers": lines, "accepted": "ended" not in result}

    def _forget_old_caches(self) -> None:
        """Delete the worktrees of selves that nobody has evolved for long. Writes the disk."""
        if self.cache.is_dir():
            for folder in self.cache.iterdir():
                if folder.stat().st_mtime < time.time() - CACHE_SECONDS:
                    delete_folder(folder)

    def _state_of(self, session_id: str) -> Mapping[str, Any]:
        try:
            return self.means.sessions.state(session_id)
        except Unknown:
            return {}

    def _is_own(self, one: Round, run_id: str) -> bool:
        try:
            return one.rounds.get(run_id).loop_id == EVOLUTION
        except Unknown:
            return True  # It is too old to be known, and a look at ourselves looking teaches nothing.

    def _show(self, one: Round, phase: Phase) -> None:
        one.rounds.set_phase(one.run_id, phase)
        self.means.emit(RunUpdate(run_id=one.run_id, loop_id=one.spec.name, phase=phase), run_id=one.run_id)
