"""One round: recall, sandbox, make, check, decide, act, record; from its beginning, or from where a kill cut it off.

    begin (the store) ─▶ step ─▶ its result is stored ─▶ next step … ─▶ record, always ─▶ RoundReport

Invariant: `run_once` and `carry` never raise, but for being cancelled because the worker ends; whatever happens becomes
an outcome whose message names the step. A step that has a result is never carried out again. What was used is counted
call by call, each once, whatever became of the round.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, evolve, field

from selfloop.errors import SelfloopError
from selfloop.loops import specfile, steps
from selfloop.loops.acting import Acting
from selfloop.loops.budgets import RoundBudgets
from selfloop.loops.crew import charged
from selfloop.loops.deciding import decide_round
from selfloop.loops.flows import Flow, Stage
from selfloop.loops.means import Means
from selfloop.loops.report import (
    ActionReport,
    AgentReport,
    Outcome,
    Phase,
    RoundReport,
    escalated,
    failed,
    proceeded,
    reported,
    to_json,
)
from selfloop.loops.spec import ActionKind, LoopSpec
from selfloop.loops.steps import LABELS, Result, Round
from selfloop.sandbox.worktree import Worktree
from selfloop.storage.disk import now
from selfloop.storage.loop_spend import LoopSpend
from selfloop.storage.memory import Memory
from selfloop.storage.rounds import RoundRecord, Rounds
from selfloop.storage.trajectories import read_events
from selfloop.updates import RunUpdate

logger = logging.getLogger(__name__)

_PHASES: dict[str, Phase] = {
    "recall": "recall",
    "sandbox": "sandbox",
    "make": "make",
    "check": "check",
    "decide": "gate",
    "act": "act",
    "record": "record",
}
"""Of the engine's own steps, and of its record."""
_FAREWELL_SECONDS = 1.0
_NOT_CANCELLED = ("act", "record")
"""Steps that come to their end once they have begun: half an action is worse than a whole one."""


@define
class Engine:
    """The rounds of one workspace."""

    means: Means
    rounds: Rounds
    spend: LoopSpend
    acting: Acting
    spec_now: Callable[[LoopSpec], LoopSpec]
    """The loop as the user's settings have it by now; where it is no more, as it was."""
    ended: Callable[[RoundReport], None] = lambda report: None
    """Is told of each report, once it is stored."""
    flows: Mapping[ActionKind, Flow] = field(factory=dict)
    """Steps of their own, of the rounds of some actions."""
    _under_way: dict[str, Round] = field(factory=dict, init=False)
    _tasks: dict[str, asyncio.Task[Result]] = field(factory=dict, init=False)
    """The step that runs, of each round that can be cancelled."""
    _giving_back: set[asyncio.Task[None]] = field(factory=set, init=False)

    # Beginning

    def begin(
        self,
        spec: LoopSpec,
        *,
        cause: Mapping[str, Any] | None = None,
        cause_key: str | None = None,
        context: str = "",
        marker: str | None = None,
        key: str | None = None,
    ) -> tuple[RoundRecord, bool]:
        """Note that a round begins, and return it and whether it is new.

        Args:
            spec: the loop, as it is now.
            cause: why: `kind`, and the `paths` that have changed.
            cause_key: one cause, one round.
            context: what was handed to it, fenced with `marker`.
            marker: of the round's fence; None: a new one.
            key: the request that asked for it.
        """
        state = {"marker": marker or secrets.token_hex(6), "origin": spec.origin}
        state |= {name: value for name, value in (("cause", dict(cause or {})), ("context", context)) if value}
        return self.rounds.begin(spec.name, spec=specfile.write(spec), cause_key=cause_key, state=state, key=key)

    async def run_once(self, spec: LoopSpec, cause: Mapping[str, Any] | None = None, context: str = "") -> RoundReport:
        """Carry out one round of a loop, whatever its cadence and whether it is on; never raises."""
        try:
            record, _ = self.begin(spec, cause=cause, context=context)
        except SelfloopError as error:
            return _unrecorded(spec, f"recall failed: {error.message}")
        return await self.carry(record)

    async def carry(self, record: RoundRecord) -> RoundReport:
        """Carry a round to its end, from its first step or from where it was cut off; never raises."""
        run_id = record.run_id
        spec: LoopSpec | None = None
        try:
            spec = specfile.read(record.spec, name=record.loop_id, origin=record.state.get("origin", "workspace"))
            one = self._open(record, spec)
            one.cancelled = bool(record.state.get("cancelled"))
            self._under_way[run_id] = one
            try:
                return await self._carry(one)
            finally:
                if (flow := self.flows.get(spec.action)) is not None:
                    await flow.close(one)
                self._under_way.pop(run_id, None)
                for chore in one.chores if one.suspending else ():
                    chore.cancel()
                one.close(suspending=one.suspending)
        except asyncio.CancelledError:
            raise
        except SelfloopError as error:
            logger.error("The round %s could not be recorded: %s", run_id, error.message)
            self.means.say("error", f"A round of {record.loop_id} could not be recorded: {error.message}")
            return _unrecorded(spec, f"record failed: {error.message}", record)
        except Exception as error:
            logger.exception("The round %s failed.", run_id)
            return _unrecorded(spec, f"record failed: a fault in Selfloop ({type(error).__name__})", record)

    # While they run

    def running(self) -> list[str]:
        """Return the ids of the rounds that are under way."""
        return list(self._under_way)

    def tools_running(self) -> bool:
        """Tell whether a round carries something out, or an agent of one a call that waits for nobody."""
        states = [desk.state for one in self._under_way.values() for desk in one.desks.values()]
        acting = any(run_id not in self._tasks for run_id in self._under_way)
        return acting or any(state.begun - state.asked for state in states)

    def cancel(self, run_id: str) -> bool:
        """End a round for the user, and tell whether there was one; its report says so, and it is not taken up again.

        What is about to be carried out is carried out to its end.
        """
        one = self._under_way.get(run_id)
        if one is None:
            return False
        self.rounds.set_state(run_id, cancelled=True)
        one.cancelled = True
        if (task := self._tasks.get(run_id)) is not None:
            task.cancel()
        return True

    async def close(self) -> None:
        """Let worktrees that are being given back come to rest, or give them up."""
        if self._giving_back:
            await asyncio.wait(self._giving_back, timeout=_FAREWELL_SECONDS)
        left = list(self._giving_back)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)  # Each ends the git that it has started.

    # Inside

    def _open(self, record: RoundRecord, spec: LoopSpec) -> Round:
        """Return the round with what its finished steps have left, and with what it has used counted."""
        run_id = record.run_id
        found = self.rounds.steps(run_id).values()
        signs = [sign for step in found for sign in (step.begun_at, step.finished_at) if sign is not None]
        for session_id in record.state.get("sessions", ()):
            file = self.means.sessions.folder(session_id) / "traj.jsonl"
            events = list(read_events(file)) if file.is_file() else []
            signs += [event.ts for event in events[-1:]]
            for entry, usage in charged(events, session_id):
                self.spend.add(run_id, spec.name, entry, usage)
        used = self.spend.used_by(run_id)
        worked = self.rounds.take_up(run_id, signs)
        one = Round(
            self.means,
            self.rounds,
            record,
            spec,
            charge=lambda entry, usage: self.spend.add(run_id, spec.name, entry, usage),
            budgets=RoundBudgets.open(
                spec.budget, self.spend.used_on(spec.name, without=run_id), used.usage, used.calls, worked
            ),
        )
        one.results = {step.step: step.result for step in found if step.finished_at is not None}
        return one

    async def _carry(self, one: Round) -> RoundReport:
        for stage in self._stages(one):
            if any("ended" in result for result in one.results.values()):
                break
            if stage.name not in one.results:
                one.results[stage.name] = await self._step(one, stage)
        if (flow := self.flows.get(one.spec.action)) is not None:
            # Before its report is told: whoever hears of it may begin the next round at once.
            await flow.close(one)
        return await self._record(one)

    def _stages(self, one: Round) -> Sequence[Stage]:
        """Return the steps of a round but for its record, which no round can do without."""
        if (flow := self.flows.get(one.spec.action)) is not None:
            return flow.stages(one, self.spec_now(one.spec))
        works: dict[str, Callable[[], Awaitable[Result]]] = {
            "recall": lambda: steps.recall(one),
            "sandbox": lambda: steps.sandbox(one),
            "make": lambda: steps.make(one),
            "check": lambda: steps.check(one),
            "decide": lambda: decide_round(one, now=self.spec_now(one.spec), prepare=self.acting.prepare),
            "act": lambda: self.acting.act(one),
        }
        return [
            Stage(name, _PHASES[name], LABELS[name], work, whole=name in _NOT_CANCELLED) for name, work in works.items()
        ]

    async def _step(self, one: Round, stage: Stage) -> Result:
        """Carry out a step, store its result and return it; what goes wrong is a result too."""
        name = stage.name
        self._show(one, stage.phase)
        self.rounds.begin_step(one.run_id, name)
        if one.cancelled and not stage.whole:
            return self._finished(one, name, _ended(stage.label, "the user cancelled the round."))

        async def carried() -> Result:
            return await stage.work()

        task = asyncio.ensure_future(carried())
        if not stage.whole:
            self._tasks[one.run_id] = task
        try:
            # Shielded, so that whoever is cut off is known to be before the step unwinds.
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            if one.cancelled and task.cancelled() and not _is_cancelled():
                return self._finished(one, name, _ended(stage.label, "the user cancelled the round."))
            # The worker ends: the next one takes the step up.
            one.suspending = True
            for desk in one.desks.values():
                desk.suspending = True
            task.cancel()
            await asyncio.wait([task])
            raise
        except SelfloopError as error:
            result = _ended(stage.label, self.means.redact(error.message))
        except Exception as error:
            logger.exception("The step %s of %s failed.", name, one.run_id)
            result = _ended(stage.label, f"a fault in Selfloop ({type(error).__name__}), which is logged.")
        finally:
            self._tasks.pop(one.run_id, None)
        return self._finished(one, name, result)

    def _finished(self, one: Round, name: str, result: Result) -> Result:
        return self.rounds.finish_step(one.run_id, name, result)

    async def _record(self, one: Round) -> RoundReport:
        """Store the report and the loop's state, both or neither, tell it, and give the worktrees back."""
        self._show(one, "record")
        report = self._report(one)
        with self.means.store.transaction(durable=True):
            if self.rounds.finish(one.run_id, outcome=report.outcome.type, report=to_json(report)):
                Memory(self.means.store).remember(report.memory_text(), report.memory_tags(), report.memory_source())
        worktrees = await self._let_go(one)
        self._under_way.pop(one.run_id, None)
        self._show(one, "done", report)
        self.ended(report)
        self.rounds.set_state(one.run_id, told=True)
        # The loop's next round need not wait for it.
        task = asyncio.get_running_loop().create_task(
            self._give_back(one, worktrees), name=f"worktrees of {one.run_id}"
        )
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)
        return report

    async def _let_go(self, one: Round) -> list[Worktree]:
        """Return the worktrees that a kill or the maker has left: from now on its session is anybody's."""
        if "sandbox" not in one.results and "maker" not in one.desks:
            return []
        try:
            found = [await one.desk("maker").place.let_go()]
            if not one.chores and (left := one.state("checker_worktree")) is not None:
                found.append(await (await self.means.pool()).reopen(left))
                self.rounds.set_state(one.run_id, checker_worktree=None)
        except SelfloopError as error:
            logger.warning("A worktree of %s could not be found again: %s", one.run_id, error.message)
            return []
        return [worktree for worktree in found if worktree is not None]

    async def _give_back(self, one: Round, worktrees: Sequence[Worktree]) -> None:
        """Give worktrees back: what waits at a gate has its images in the store."""
        await asyncio.gather(*one.chores, return_exceptions=True)
        for worktree in worktrees:
            try:
                await (await self.means.pool()).release(worktree)
            except (SelfloopError, OSError) as error:
                logger.warning("The worktree %s of %s could not be given back: %s", worktree.id, one.run_id, error)

    def _report(self, one: Round) -> RoundReport:
        used = self.spend.used_by(one.run_id).usage
        flow = self.flows.get(one.spec.action)
        results = one.results if flow is None else flow.as_round(one.results)
        made, checked, decided, acted = (results.get(name, {}) for name in ("make", "check", "decide", "act"))
        action = decided.get("action")
        gates = acted.get("gates", [])
        return RoundReport(
            run_id=one.run_id,
            loop_id=one.spec.name,
            intent=one.spec.intent,
            level=one.spec.level.value,
            outcome=_outcome(results),
            verified=bool(checked.get("verified")),
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cost_usd=used.cost_usd,
            started_at=one.record.started_at,
            ended_at=now(),
            maker=_agent(made),
            checker=_agent(checked),
            action=None if action is None else ActionReport(kind=action["kind"], summary=action["summary"]),
            gate_id=gates[0] if gates else None,
            receipts=self.acting.of_round(one.run_id),
        )

    def _show(self, one: Round, phase: Phase, report: RoundReport | None = None) -> None:
        self.rounds.set_phase(one.run_id, phase)
        self.means.emit(
            RunUpdate(run_id=one.run_id, loop_id=one.spec.name, phase=phase, report=report), run_id=one.run_id
        )


def _is_cancelled() -> bool:
    """Tell whether the task that runs is itself to end, and not only the step that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ended(label: str, why: str) -> Result:
    return {"ended": msgspec.to_builtins(failed(f"{label}: {why}"))}


def _outcome(results: Mapping[str, Result]) -> Outcome:
    for result in results.values():
        if "ended" in result:
            return msgspec.convert(result["ended"], Outcome)
    decided, acted = results["decide"], results["act"]
    if "reason" in acted:
        return escalated(acted["reason"])
    if decided["decision"] == "escalate":
        if not acted.get("gates"):
            return reported()  # All of it was rejected before: there is nothing that anybody could decide.
        return escalated(decided["reason"])
    return proceeded() if decided["decision"] == "proceed" else reported()


def _agent(result: Result) -> AgentReport | None:
    if "status" not in result:
        return None
    return AgentReport(status=result["status"], iterations=result["iterations"], text=result["text"])


def _unrecorded(spec: LoopSpec | None, error: str, record: RoundRecord | None = None) -> RoundReport:
    """Return the report of a round that the store could not take."""
    return RoundReport(
        run_id=record.run_id if record else "",
        loop_id=spec.name if spec else record.loop_id if record else "",
        intent=spec.intent if spec else "",
        level=spec.level.value if spec else "L1-report",
        outcome=failed(error),
        verified=False,
        input_tokens=0,
        output_tokens=0,
        started_at=record.started_at if record else now(),
        ended_at=now(),
    )


def with_budget(spec: LoopSpec, limits: Any) -> LoopSpec:
    """Return a loop with other limits for one round; its day's stay."""
    return evolve(spec, budget=evolve(spec.budget, round=limits))
