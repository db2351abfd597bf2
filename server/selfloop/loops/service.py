"""The loops of one workspace: which there are, when they run, their rounds, and what was decided about them.

    Catalogue ─▶ Scheduler, ChangeWatch ─▶ Engine ─▶ reports ─▶ sinks
                 "run now" ──────────────▲     └──── gates ─▶ Acting

Invariant: it runs only in the server that owns the workspace, once the user has trusted it; whoever composes it starts
it by `serve`. Turning a loop on or changing it goes through the catalogue's settings alone, and more authority through
a gate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from selfloop.changes import seal
from selfloop.config import Folders
from selfloop.errors import InvalidInput, RequestFailed, SelfloopError, Stale, Unknown
from selfloop.gates.gate import Decision, GateRecord
from selfloop.gates.questions import Question
from selfloop.loops.acting import Acting
from selfloop.loops.catalogue import Catalogue, Loop, Wanted
from selfloop.loops.changes import ChangeWatch
from selfloop.loops.engine import Engine, with_budget
from selfloop.loops.flows import Flow
from selfloop.loops.means import Means
from selfloop.loops.report import RoundReport, from_json
from selfloop.loops.scheduler import Cause, Scheduler
from selfloop.loops.sinks import StreamSink, deliver, read_routes
from selfloop.loops.spec import ActionKind, LoopBudget, LoopSpec
from selfloop.loops.wire import loop_info
from selfloop.model.budget import Limits
from selfloop.reports import LoopInfo
from selfloop.storage.loop_spend import LoopSpend
from selfloop.storage.receipts import Receipts
from selfloop.storage.rounds import RoundRecord, Rounds
from selfloop.storage.schedule import Schedule
from selfloop.updates import LoopUpdate, RunUpdate

logger = logging.getLogger(__name__)

FAREWELL_SECONDS = 3.0
"""How long reports that are on their way are waited for at the end; a worker that stops has little more."""


@frozen
class Configured:
    """What became of a change of a loop's settings."""

    loop: Loop
    gate: GateRecord | None = None
    """The gate that asks for what gives the loop more authority; None: all of it took effect."""


class LoopService:
    """See the module."""

    def __init__(
        self, means: Means, *, builtin: Path, folders: Folders, flows: Mapping[ActionKind, Flow] | None = None
    ) -> None:
        """Read the loops; nothing runs before `serve`.

        Args:
            means: the parts of the workspace.
            builtin: the folder of our own loops.
            folders: the user's.
            flows: the steps of rounds that are no maker and checker.
        """
        self.means = means
        self._flows = dict(flows or {})
        self._folders = folders
        self.rounds = Rounds(means.store)
        self.spend = LoopSpend(self.rounds)
        self.catalogue = Catalogue(builtin, means.workspace, folders, notice=self._notice)
        self.acting = Acting(means, self.rounds, Receipts(means.store), self._reported)
        self.engine = Engine(means, self.rounds, self.spend, self.acting, self._spec_now, self._ended, self._flows)
        self.scheduler = Scheduler(self._run, Schedule(means.store), notice=self._notice)
        self._watch = ChangeWatch(means.workspace, self.scheduler.changed, ignored=self._ignored, notice=self._notice)
        self._told: dict[str, LoopInfo] = {}
        self._deliveries: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self.serving = asyncio.Event()
        """Set while loops run."""
        means.gates.questions.before_answer = self._before_answer
        self._plan()

    # Life

    async def serve(self) -> None:
        """Run the loops until cancelled; rounds that are cut off are taken up by the next start."""
        try:
            await self._serve()
        finally:
            await self.engine.close()
            if self._deliveries:
                # Whoever has run one round and goes would take its report along.
                await asyncio.wait(self._deliveries, timeout=FAREWELL_SECONDS)
            for delivery in self._deliveries:
                delivery.cancel()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                group.create_task(self.scheduler.serve(), name="schedule of loops")
                group.create_task(self._watch.serve(), name="watch for loops")
                group.create_task(self.catalogue.watch(self._changed), name="watch of loop files")
                self._spawn(self._tell_untold(), "telling of what a kill has kept from being told")
                await asyncio.sleep(0)  # The schedule runs now: what it takes up by itself has begun.
                self._take_up()
                for record in self.means.gates.questions.unsettled():
                    self._carry_out(record)
                for kind, flow in self._flows.items():
                    self._spawn(flow.take_up(), f"taking up of {kind}")
                self._spawn(self._prune(), "retention of rounds")
                self.serving.set()
                await asyncio.Event().wait()
            finally:
                self.serving.clear()
                self._group = None

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something beside the rounds; its failure is logged and touches nothing else."""

        async def guarded() -> None:
            try:
                await work
            except Exception:
                logger.exception("%s failed.", name)

        if self._group is not None:
            self._group.create_task(guarded(), name=name)
        else:
            work.close()  # Nothing runs any more; the next start takes up what it was to do.

    async def _prune(self) -> None:
        """Forget rounds that are older than what is kept, but for those that somebody still has to decide on."""
        waiting = {record.run_id for record in self.means.gates.list("open") if record.run_id is not None}
        await asyncio.to_thread(self.rounds.prune, self.means.retention_days(), keep=waiting)

    async def _tell_untold(self) -> None:
        """Tell the reports that a kill has kept from being told."""
        for record in self.rounds.untold():
            report = self.report(record.run_id)
            if report is not None:
                self._reported(report)
                self._ended(report)
            self.rounds.set_state(record.run_id, told=True)

    def _take_up(self) -> None:
        """Go on with the rounds that a kill has cut off and that nobody else begins again."""
        for record in self.rounds.unfinished():
            if not self.scheduler.start(record.loop_id, Cause("asked", run_id=record.run_id)):
                logger.info("The round %s waits: its loop has another one under way.", record.run_id)

    # Rounds

    def start(
        self,
        loop_id: str,
        *,
        limits: Limits | None = None,
        context: str = "",
        marker: str | None = None,
        key: str | None = None,
    ) -> str:
        """Begin a round now, whether the loop is on or off, and return its id.

        Args:
            loop_id: the loop.
            limits: of this round, instead of the loop's own.
            context: what is handed to it, fenced with `marker`.
            marker: of the round's fence.
            key: the request, noted as having taken effect.

        Raises:
            Unknown: there is no such loop.
            RequestFailed: a round of it is under way; none was started.
        """
        spec = self.catalogue.get(loop_id).spec
        if loop_id in self.scheduler.running():
            raise RequestFailed(
                f"A round of {loop_id} is under way, so no second one was started; wait for it, or cancel it."
            )
        if self._group is None:
            raise RequestFailed("Loops are not running here yet, so no round was started; try again in a moment.")
        if limits is not None:
            spec = with_budget(spec, limits)
        record, _ = self.engine.begin(spec, cause={"kind": "asked"}, context=context, marker=marker, key=key)
        self.scheduler.start(loop_id, Cause("asked", run_id=record.run_id))
        return record.run_id

    def cancel(self, run_id: str) -> None:
        """End a round; one that has ended stays as it is.

        Raises:
            Unknown: there is no such round.
        """
        self.rounds.get(run_id)
        self.engine.cancel(run_id)

    async def _run(self, loop_id: str, cause: Cause) -> None:
        """Carry out one round for the scheduler."""
        if cause.run_id is not None:
            record = self.rounds.get(cause.run_id)
        else:
            told: Mapping[str, Any] = {"kind": cause.kind, "paths": list(cause.paths)}
            record, _ = self.engine.begin(self.catalogue.get(loop_id).spec, cause=told, cause_key=cause.key)
        if record.ended_at is None:
            await self.engine.carry(record)
        for left in self.rounds.unfinished():
            # One whose record failed, or that waited for this one.
            if left.loop_id == loop_id and left.run_id != record.run_id:
                await self.engine.carry(left)

    def _spec_now(self, spec: LoopSpec) -> LoopSpec:
        try:
            return self.catalogue.get(spec.name).spec
        except Unknown:
            return spec

    # Reports

    def report(self, run_id: str) -> RoundReport | None:
        """Return a round's report; None while it runs.

        Raises:
            Unknown: there is no such round.
        """
        text = self.rounds.get(run_id).report
        return None if text is None else from_json(text)

    def _ended(self, report: RoundReport) -> None:
        self.tell(report.loop_id)
        delivery = asyncio.get_running_loop().create_task(self._deliver(report), name=f"delivery of {report.run_id}")
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    def _reported(self, report: RoundReport) -> None:
        self.means.emit(
            RunUpdate(run_id=report.run_id, loop_id=report.loop_id, phase="done", report=report), run_id=report.run_id
        )
        self.tell(report.loop_id)

    async def _deliver(self, report: RoundReport) -> None:
        """Send a report where the user wants it; what fails is said and holds up nothing."""
        try:
            # Read each time: a few lines, and an edit counts at once. What a terminal shows is the terminal's to print.
            routes = [one for one in read_routes(self._folders) if not isinstance(one.sink, StreamSink)]
        except InvalidInput as error:
            self._notice(error.message)
            return
        for sentence in await deliver(report, routes, known_secrets=self.means.known_secrets()):
            self._notice(sentence)

    # Loops as clients see them

    def infos(self) -> list[LoopInfo]:
        """Return every loop as clients see it, by name."""
        last = self.rounds.last_finished()
        return [self._info(loop, last.get(loop.spec.name)) for loop in self.catalogue.loops()]

    def info(self, loop_id: str) -> LoopInfo:
        """Return one loop as clients see it.

        Raises:
            Unknown: there is none of this name.
        """
        return self._info(self.catalogue.get(loop_id), self.rounds.last_finished().get(loop_id))

    def tell(self, loop_id: str) -> None:
        """Tell the clients of a loop, if it is another than they were told last."""
        try:
            info = self.info(loop_id)
        except Unknown:
            return
        self._tell(info)

    def _tell(self, info: LoopInfo) -> None:
        if self._told.get(info.loop_id) != info:
            self._told[info.loop_id] = info
            self.means.emit(LoopUpdate(loop=info))

    def _info(self, loop: Loop, last: RoundRecord | None) -> LoopInfo:
        return loop_info(
            loop.spec,
            enabled=loop.enabled,
            uri=loop.path.as_uri(),
            next_at=self.scheduler.next_at(loop.spec.name),
            last_run=None if last is None or last.report is None else from_json(last.report),
            notices=loop.notices,
        )

    # Settings

    def configure(
        self,
        loop_id: str,
        *,
        enabled: bool | None = None,
        level: str | None = None,
        cadence: str | None = None,
        budget: LoopBudget | None = None,
        allow: list[str] | None = None,
        key: str | None = None,
    ) -> Configured:
        """Change a loop's settings: what gives it no more authority at once, what does by a gate.

        Raises:
            Unknown: there is no such loop.
            InvalidInput: a value makes no sense; nothing was changed.
        """
        wanted = self.catalogue.want(loop_id, enabled=enabled, level=level, cadence=cadence, budget=budget, allow=allow)
        gate = None
        if wanted.raises:
            gate = self._ask(wanted, level, allow)
            # The rest of it does not wait.
            wanted = self.catalogue.want(loop_id, enabled=enabled, cadence=cadence, budget=budget)
        if any(value is not None for value in (enabled, cadence, budget)) or gate is None:
            self.catalogue.accept(wanted)
        self.means.store.note_outcome(key)
        self._changed()
        return Configured(self.catalogue.get(loop_id), gate)

    def _ask(self, wanted: Wanted, level: str | None, allow: list[str] | None) -> GateRecord:
        before, after = wanted.before, wanted.after
        for record in self.means.gates.list("open"):
            if record.subject_type == "level" and record.subject["loopId"] == wanted.loop_id:
                if record.digest != _digest(wanted):
                    self.means.gates.questions.cancel(record.gate_id)  # The newest wish is what is meant.
        asked = {"loopId": wanted.loop_id, "level": level, "allow": allow}
        subject = {
            **{name: value for name, value in asked.items() if value is not None},
            "before": {"level": before.level.value, "allow": list(before.allow)},
            "after": {"level": after.level.value, "allow": list(after.allow)},
            "raises": list(wanted.raises),
        }
        return self.means.gates.questions.ask(
            Question(
                "level",
                subject,
                content=seal("level", wanted.loop_id, after.level.value, *after.allow),
                title=f"More authority for the loop {wanted.loop_id}",
                digest=_digest(wanted),
                description=" ".join(wanted.raises),
                risk="high",
            )
        )

    def _before_answer(self, record: GateRecord, option_id: str) -> None:
        """Carry out the approval of a level before it is recorded, so that what cannot be done is not approved."""
        if record.subject_type == "evolution":
            self._flows["promote-generation"].check_answer(record, option_id)
        if record.subject_type != "level":
            return
        subject = record.subject
        wanted = self.catalogue.want(subject["loopId"], level=subject.get("level"), allow=subject.get("allow"))
        if _digest(wanted) != record.digest and wanted.raises:
            raise Stale(
                f"The loop {wanted.loop_id} is not what it was when this was asked, so nothing was approved; set its "
                "level again."
            )
        self.catalogue.accept(wanted)
        self._changed()

    def decided(self, decision: Decision, record: GateRecord) -> None:
        """Take notice of a decision on a gate of a round: what was approved is carried out, or noted in its report."""
        if record.subject_type in ("action", "evolution") and decision.option_id == "approve":
            self._carry_out(record)
        elif record.subject_type == "evolution":
            self._spawn(self._flows["promote-generation"].rejected(record), f"rejection of {record.gate_id}")
        elif record.subject_type == "changes" and record.run_id is not None:
            self.acting.changes_approved(decision, record.run_id)

    def swapped(self, number: int, state: str, reason: str | None = None) -> None:
        """Take notice of what the supervisor says of a generation: `control/swapState`."""
        for kind, flow in self._flows.items():
            self._spawn(flow.swapped(number, state, reason), f"news of {kind} {number}")

    # Inside

    def _carry_out(self, record: GateRecord) -> None:
        """Carry out what a person has approved."""
        if record.subject_type == "evolution":
            self._spawn(self._flows["promote-generation"].approved(record), f"promotion of {record.gate_id}")
        else:
            self._spawn(self.acting.approved(record), f"action of {record.gate_id}")

    def _plan(self) -> None:
        self.scheduler.set_loops(self.catalogue.on())
        self._watch.set_globs(self.catalogue.globs())

    def _changed(self) -> None:
        """Take notice of changed files or settings of loops."""
        self._plan()
        for info in self.infos():
            self._tell(info)

    async def _ignored(self, paths: list[str]) -> set[str]:
        """Return which paths git ignores in the workspace."""
        shadow = await self.means.shadow()
        return await shadow.ignores.which(shadow.area, paths)

    def _notice(self, sentence: str) -> None:
        try:
            self.means.say("warning", sentence)
        except SelfloopError as error:
            logger.error("The user could not be told (%s): %s", error.message, sentence)


def _digest(wanted: Wanted) -> str:
    """Return the digest of what an approval would set: the loop, its file, and the authority that it gets."""
    return seal("level", wanted.loop_id, wanted.digest, wanted.after.level.value, *wanted.after.allow)
