"""One turn of a chat, from the user's words to the proposal.

    worktree on what the user sees ──► NEW or CONTINUE? ──► context and input ──► the turn ──► proposal ──► idle

Invariant: what the model is shown is recorded before it is sent, so that a turn which is cut off anywhere is taken up
with the same history.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import asdict, define, field

from selfloop.agent.compaction import Compactor
from selfloop.agent.context import OUT_OF_DATE, printable, project_rules
from selfloop.agent.desk import Desk
from selfloop.agent.history import Entry, History, Pin, pin_data
from selfloop.agent.replay import Input
from selfloop.agent.reporting import AgentReport, ChatReport
from selfloop.agent.tasks import judge, task_folder
from selfloop.agent.tools.files import FILE_TOOLS
from selfloop.agent.tools.recall import MEMORY_TOOLS, PLAN_TOOLS
from selfloop.agent.tools.search import SEARCH_TOOLS
from selfloop.agent.tools.shell import SHELL_TOOLS
from selfloop.agent.tools.subagents import AGENT_TOOLS, Agents
from selfloop.agent.tools.tool import Workbench
from selfloop.agent.tools.toolbox import Toolbox
from selfloop.agent.turn import Turn
from selfloop.agent.unanswered import answer_interrupted, answer_rest
from selfloop.errors import SelfloopError
from selfloop.messages import Message, Usage
from selfloop.model.budget import Budget, Limits
from selfloop.updates import Changes, Notice, Plan, State, StopReason, Task, UsageInfo

if TYPE_CHECKING:
    from selfloop.sandbox.isolation import Isolation
    from selfloop.sandbox.worktree import Worktree

logger = logging.getLogger(__name__)

CHAT_TOOLS = (*FILE_TOOLS, *SEARCH_TOOLS, *SHELL_TOOLS, *AGENT_TOOLS, *MEMORY_TOOLS, *PLAN_TOOLS)
AGENT_SIDE_TOOLS = (*FILE_TOOLS, *SEARCH_TOOLS, *SHELL_TOOLS, MEMORY_TOOLS[1])
PROPOSAL_SECONDS = 120.0
CANCELLED_PROPOSAL_SECONDS = 0.7
"""A cancelled turn has to end soon; what could not be proposed in time is proposed with the next turn."""
AGENT_SHARE = 0.5
"""Of what is left of the turn's tokens, for one sub-agent."""
AGENT_ITERATIONS = 60
_BRIEF_CHARS = 400
_CHARS = (2_000, 12_000)
"""The least and the most of a file or an output that one observation shows; a hundred or two lines serve best."""


@define
class ChatTurn:
    """One turn, begun by `start`, or taken up again when that is None."""

    desk: Desk
    id: str
    start: Input | None
    budget: Budget = field(init=False)
    bench: Workbench | None = field(default=None, init=False)
    _counted: Usage = field(factory=Usage, init=False)

    def __attrs_post_init__(self) -> None:
        settings, state = self.desk.parts.settings, self.desk.state
        # What a turn had used before it was cut off stays used.
        resumed = self.start is None
        spent = state.turn_usage if resumed else Usage()
        tokens, cost = settings.turn_total_tokens, settings.turn_cost_usd
        self.budget = Budget(
            Limits(
                max_total_tokens=None if tokens is None else max(0, tokens - spent.input_tokens - spent.output_tokens),
                max_cost_usd=None if cost is None else max(0.0, cost - (spent.cost_usd or 0.0)),
                max_iterations=max(0, settings.turn_iterations - (state.turn_calls if resumed else 0)),
            )
        )

    async def run(self) -> StopReason:
        """Carry the turn out.

        Raises:
            BudgetExceeded, ProviderError: as in `Turn.run`.
            SandboxError, StoreError: there is no place to work; the model was not asked.
        """
        desk = self.desk
        overlay = await desk.overlay()
        worktree, conflicts = await desk.place.open(overlay, yielding=self.start is not None)
        await desk.take_back()
        isolation = await desk.parts.isolation()
        if desk.state.history.head() == 0:
            await self._show_project(worktree, overlay, isolation)
        if self.start is not None:
            await self._judge(self.start)
            await self._take_up(self.start, overlay, conflicts)
        self.bench = self._bench(worktree, isolation)
        toolbox = Toolbox(CHAT_TOOLS, desk.parts.prompts)
        if self.start is None:
            answer_interrupted(desk, self.id, toolbox)
        report = ChatReport(
            channel=desk.channel(),
            turn_id=self.id,
            known_secrets=desk.parts.secrets,
            used=self._used,
            context=desk.context,
            let_in=self._let_in,
            files_changed=self._show_changes,
            suspending=lambda: desk.suspending,
        )
        turn = Turn(desk.parts.model, toolbox, self.bench, desk.state.history, self.budget, self._compactor(), report)
        try:
            return await turn.run()
        finally:
            if self.bench.agents is not None:
                await self.bench.agents.close()

    async def settle(self, stop: StopReason, sentence: str | None) -> None:
        """End the turn: answer what is unanswered, propose what has changed, and tell the user."""
        desk = self.desk
        answer_rest(desk, self.id, Toolbox(CHAT_TOOLS, desk.parts.prompts), stop)
        self._count_unreported()
        seconds = CANCELLED_PROPOSAL_SECONDS if stop == "cancelled" else PROPOSAL_SECONDS
        try:
            async with asyncio.timeout(seconds):
                await self._propose()
        except TimeoutError:
            text = "The changes of this turn could not be put together in time; they are proposed with the next one."
            desk.parts.emit(Notice(severity="warning", text=text))
        except SelfloopError as error:
            desk.parts.emit(Notice(severity="warning", text=desk.parts.redact(error.message)))
        begun = desk.state.turn_id == self.id
        if self.start is not None and not begun:
            # The model has not seen these words; it must not go on as if they had never been said.
            text = f"The user said this, but the turn was ended ({stop}) before it began:\n{self.start.text}"
            pins = pin_data([Pin("The user", self.start.text, max(1, desk.state.task))])
            desk.record("told", {"text": text, "pins": pins})
        usage = desk.state.turn_usage if begun else self.budget.spent
        desk.record(
            "turn_end",
            {
                "turn_id": self.id,
                "stop_reason": stop,
                "usage": asdict(usage),
                "message_ids": [self.start.message_id] if self.start is not None else [],
            },
            durable=True,
        )
        if sentence is not None:
            severity = "error" if stop == "error" else "warning"
            desk.parts.emit(Notice(severity=severity, text=desk.parts.redact(sentence)))
        desk.parts.emit(State(state="idle", stop_reason=stop, usage=UsageInfo(**asdict(usage)), turn_id=self.id))

    # Before the model is asked

    async def _show_project(
        self, worktree: Worktree, overlay: Mapping[str, bytes] | None, isolation: Isolation
    ) -> None:
        """Put what stays the same for the whole session at the head of the history."""
        desk, fence = self.desk, self.desk.fence()
        rules = await asyncio.to_thread(desk.place.rules, overlay)
        limit = desk.parts.model.context_limit()
        charted = desk.parts.repository_map
        most = max(1_000, min(9_000, limit // 6))
        chart = await asyncio.to_thread(charted.render, worktree.path, most, worktree.base)
        nested = await asyncio.to_thread(charted.named, worktree.path, "AGENTS.md", worktree.base)
        clean = desk.parts.redact
        commands = desk.parts.prompts.render(f"shell_{isolation.level}")
        system = desk.parts.prompts.render("chat", marker=fence.marker, platform=platform.system(), commands=commands)
        project = desk.parts.prompts.render(
            "project",
            folder=printable(desk.parts.workspace.name),
            rules=clean(project_rules(rules, nested, fence)),
            map=clean(fence.data(chart, source="map of the repository")) if chart else "The folder is empty.",
        )
        desk.record("context", {"system": system, "project": project, "rules": _digest(rules)})

    async def _judge(self, start: Input) -> None:
        """Find out whether a new task begins, and make its folder."""
        desk, number = self.desk, self.desk.state.task
        if number and not self._words_of(number):
            # The task was begun by these very words, and the worker died before the turn did.
            return
        if number:
            verdict, reply = await judge(
                start.text,
                desk.state.history,
                number,
                model=desk.parts.model,
                prompts=desk.parts.prompts,
                fence=desk.fence(),
                budget=self.budget,
            )
            if reply is not None:
                self._used(reply.usage, "judge")
            if verdict == "CONTINUE":
                return
        folder = await asyncio.to_thread(task_folder, desk.parts.outputs, number + 1)
        shown = folder.relative_to(desk.parts.workspace).as_posix()
        desk.record("task_boundary", {"number": number + 1, "output_dir": shown})
        desk.parts.emit(Task(number=number + 1, output_dir=desk.parts.uri(shown)))

    async def _take_up(self, start: Input, overlay: Mapping[str, bytes] | None, conflicts: list[str]) -> None:
        """Put the user's words into the history, with what has happened since and what the editor shows."""
        desk = self.desk
        rules = await asyncio.to_thread(desk.place.rules, overlay)
        # Nothing is awaited from here on: what is told meanwhile would be lost between the reading and the record.
        task = desk.state.task
        today = datetime.now(UTC).date().isoformat()
        before = self._task_so_far(task)
        # An older task's folder is out of reach, though the history still names its files.
        place = f".evo/outputs/{desk.parts.session.id}/task_{task}"
        folder = f"Its folder is {place}, which is @outputs/ to you" + ("." if before else "; it is empty.")
        notes = [f"Task {task}. {folder} Today is {today} (UTC).", *before]
        notes += [told.text for told in desk.state.tell]
        pins = [Pin("The user", start.text, task), *(pin for told in desk.state.tell for pin in told.pins)]
        if conflicts:
            paths = ", ".join(printable(path) for path in conflicts)
            notes.append(
                f"The user has changed the same lines as you in these files: {paths}. The user's lines stand there now "
                "and yours are gone; read them, and make your change anew where it is still wanted."
            )
            desk.parts.emit(Notice(severity="warning", text=_conflict_sentence(paths)))
        if _digest(rules) != desk.state.rules:
            text = desk.parts.redact(project_rules(rules, [], desk.fence()))
            notes.append(f"The project's rules have changed; these hold now:\n{text}")
            pins.append(Pin("The project's rules", text, task))
        content = f"{start.text}\n\n<turn>\n{chr(10).join(notes)}\n</turn>"
        content += f"\n{start.editor}" if start.editor else ""
        desk.record(
            "turn_start",
            {
                "turn_id": self.id,
                "message_ids": [start.message_id],
                "content": content,
                "pins": pin_data(pins),
                "rules": _digest(rules),
            },
        )

    def _words_of(self, task: int) -> list[str]:
        """Return what the user has said in a task, as far as the model has been shown it."""
        history = self.desk.state.history
        pins = history.pins(len(history.entries))
        return [pin.text for pin in pins if pin.task == task and pin.label == "The user"]

    def _task_so_far(self, task: int) -> list[str]:
        """Return how the task began: what is told piece by piece is carried out worse than what is told at once."""
        said = self._words_of(task)
        if not said:
            return []
        brief = " ".join(said[0].split())
        return [f"It goes on; it began with: {brief if len(brief) <= _BRIEF_CHARS else brief[:_BRIEF_CHARS] + '…'}"]

    # While it runs

    def _bench(self, worktree: Worktree, isolation: Isolation) -> Workbench:
        desk, parts = self.desk, self.desk.parts
        outputs = task_folder(parts.outputs, desk.state.task)
        bench = Workbench(
            session_id=parts.session.id,
            workspace=parts.workspace,
            worktree=worktree,
            door=worktree.door.with_roots({"outputs": outputs}),
            outputs=outputs,
            isolation=isolation,
            gates=parts.gates,
            memory=parts.memory,
            fence=desk.fence(),
            settings=parts.settings,
            window_chars=max(_CHARS[0], min(_CHARS[1], parts.model.context_limit() // 3)),
            redact=parts.redact,
            known_secrets=parts.secrets,
            show_plan=lambda entries: parts.emit(Plan(entries=entries)),
            record=desk.record,
        )
        bench.agents = Agents(
            make_turn=self._agent_turn,
            bench=bench,
            child_budget=self._child_budget,
            number=lambda: desk.state.agents + 1,
        )
        return bench

    def _agent_turn(self, agent_id: str, task: str, bench: Workbench, budget: Budget) -> Turn:
        """Build the turn of a sub-agent: its own history and the same tools, but for those that start others."""
        desk = self.desk
        parts = desk.parts
        project = next(entry for entry in desk.state.history.entries if entry.kind == "project")
        system = parts.prompts.render(
            "subagent", marker=bench.fence.marker, commands=parts.prompts.render(f"shell_{bench.isolation.level}")
        )
        history = History([Entry(Message("system", system), "system"), project])
        history.add(Entry(Message("user", f"Your task:\n{task}"), "input", (Pin("Your task", task, 1),)))
        report = AgentReport(desk.channel(), agent_id, history, self._spent, self._show_changes)
        compactor = Compactor(parts.model, parts.prompts, bench.fence, history.rewrite, parts.redact)
        return Turn(parts.model, Toolbox(AGENT_SIDE_TOOLS, parts.prompts), bench, history, budget, compactor, report)

    def _child_budget(self) -> Budget:
        left = self.budget.tokens_left()
        share = None if left is None else round(left * AGENT_SHARE)
        return Budget(Limits(max_total_tokens=share, max_iterations=AGENT_ITERATIONS), parent=self.budget)

    def _compactor(self) -> Compactor:
        desk = self.desk
        return Compactor(
            desk.parts.model,
            desk.parts.prompts,
            desk.fence(),
            lambda change: desk.record("compaction", change),
            desk.parts.redact,
            task=lambda: desk.state.task,
            used=lambda usage: self._used(usage, "compaction"),
        )

    async def _let_in(self) -> None:
        """Let the user's steering and decisions into the running turn."""
        desk = self.desk
        await desk.take_back()
        said = [one for one in desk.state.waiting.values() if one.delivery == "steer" and one.turn_id == self.id]
        told = list(desk.state.tell)
        done = desk.state.history.entries[-1].kind == "reply"
        if not said and (done or not told):
            # A decision alone does not prolong a turn that is done; the next one begins with it.
            return
        task = desk.state.task
        parts = [one.text for one in told]
        parts += [f"The user says, while you work:\n{one.text}\n{one.editor}".strip() for one in said]
        pins = [*(pin for one in told for pin in one.pins), *(Pin("The user", one.text, task) for one in said)]
        desk.record(
            "steer",
            {
                "turn_id": self.id,
                "message_ids": [one.message_id for one in said],
                "content": "\n\n".join(parts),
                "pins": pin_data(pins),
            },
        )

    async def _show_changes(self) -> None:
        self.desk.parts.emit(Changes(files=await self.desk.place.stats()))

    def _used(self, usage: Usage, purpose: str | None = None) -> None:
        """Count a call; one that is no reply of the turn gets an event of its own."""
        if purpose is not None:
            self.desk.record("usage", {"turn_id": self.id, "purpose": purpose, "usage": asdict(usage)})
        self._spent(usage)

    def _spent(self, usage: Usage) -> None:
        self._counted += usage
        self.desk.used(usage)

    def _count_unreported(self) -> None:
        """Count what the budget was charged for calls that were cut off: nobody said what they have used."""
        spent, counted = self.budget.spent, self._counted
        rest = Usage(
            max(0, spent.input_tokens - counted.input_tokens),
            max(0, spent.cached_tokens - counted.cached_tokens),
            max(0, spent.output_tokens - counted.output_tokens),
        )
        if rest != Usage():
            self._used(rest, "cut off")

    # After it

    async def _propose(self) -> None:
        desk = self.desk
        await desk.take_back()
        await desk.place.sync(await desk.overlay())
        words = self._words_of(desk.state.task)
        ran = self.bench.ran if self.bench is not None else ()
        outputs = self.bench.outputs if self.bench is not None else desk.parts.outputs
        if not desk.place.is_open:
            return
        changes = await desk.place.changes()
        record = await desk.place.propose(
            changes,
            title=next((said for said in reversed(words) if not said.startswith(OUT_OF_DATE)), ""),
            words=desk.state.words,
            ran=ran,
            turn_id=self.id,
            outputs=outputs,
        )
        if record is not None:
            desk.gate_published(record)
        elif changes:
            text = "All that this turn changed was rejected before, so nothing is proposed; only a new session may."
            desk.parts.emit(Notice(severity="info", text=text))
        # What was rejected before and has come again is known only now.
        await desk.take_back()


def _digest(rules: str | None) -> str:
    return "" if rules is None else hashlib.sha256(rules.encode("utf-8", "replace")).hexdigest()


def _conflict_sentence(paths: str) -> str:
    return (
        f"You and the agent have changed the same lines of {paths}. Yours stand, and the agent's change there was "
        "dropped; the agent was told, and you can ask for it again."
    )
