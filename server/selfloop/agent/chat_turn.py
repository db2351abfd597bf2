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
from selfloop.agent.context import project_rules
from selfloop.agent.history import Entry, History, Pin, pin_data
from selfloop.agent.replay import Input
from selfloop.agent.reporting import AgentReport, ChatReport, result_data
from selfloop.agent.tasks import judge, task_folder
from selfloop.agent.tools.files import FILE_TOOLS
from selfloop.agent.tools.recall import MEMORY_TOOLS, PLAN_TOOLS
from selfloop.agent.tools.search import SEARCH_TOOLS
from selfloop.agent.tools.shell import SHELL_TOOLS
from selfloop.agent.tools.subagents import AGENT_TOOLS, Agents
from selfloop.agent.tools.tool import Observation, Workbench
from selfloop.agent.tools.toolbox import Toolbox
from selfloop.agent.turn import Turn
from selfloop.errors import SelfloopError
from selfloop.messages import Message, ToolCall, Usage
from selfloop.model.budget import Budget, Limits
from selfloop.sandbox.paths import Door
from selfloop.updates import Changes, Notice, Plan, State, StopReason, Task, UsageInfo

if TYPE_CHECKING:
    from selfloop.agent.conversation import Conversation
    from selfloop.sandbox.isolation import Isolation
    from selfloop.sandbox.worktree import Worktree

logger = logging.getLogger(__name__)

CHAT_TOOLS = (*FILE_TOOLS, *SEARCH_TOOLS, *SHELL_TOOLS, *AGENT_TOOLS, *MEMORY_TOOLS, *PLAN_TOOLS)
AGENT_SIDE_TOOLS = (*FILE_TOOLS, *SEARCH_TOOLS, *SHELL_TOOLS, MEMORY_TOOLS[1])
PROPOSAL_SECONDS = 120.0
CANCELLED_PROPOSAL_SECONDS = 1.0
"""A cancelled turn has to end soon; what could not be proposed in time is proposed with the next turn."""
AGENT_SHARE = 0.5
"""Of what is left of the turn's tokens, for one sub-agent."""
AGENT_ITERATIONS = 60
_CHARS = (2_000, 12_000)
"""The least and the most of a file or an output that one observation shows; a hundred or two lines serve best."""


@define
class ChatTurn:
    """One turn, begun by `start`, or taken up again when that is None."""

    chat: Conversation
    id: str
    start: Input | None
    budget: Budget = field(init=False)
    bench: Workbench | None = field(default=None, init=False)
    _counted: Usage = field(factory=Usage, init=False)

    def __attrs_post_init__(self) -> None:
        settings, state = self.chat.parts.settings, self.chat.state
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
        chat = self.chat
        overlay = await chat.overlay()
        worktree, conflicts = await chat.place.open(overlay)
        await chat.take_back()
        isolation = await chat.parts.isolation()
        if chat.state.history.head() == 0:
            await self._show_project(worktree, overlay, isolation)
        if self.start is not None:
            await self._judge(self.start)
            await self._take_up(self.start, overlay, conflicts)
        self.bench = self._bench(worktree, isolation)
        toolbox = Toolbox(CHAT_TOOLS, chat.parts.prompts)
        if self.start is None:
            self._answer_interrupted(toolbox)
        report = ChatReport(
            channel=chat.channel(),
            turn_id=self.id,
            known_secrets=chat.parts.secrets,
            used=self._used,
            context=chat.context,
            let_in=self._let_in,
            files_changed=self._show_changes,
            suspending=lambda: chat.suspending,
        )
        turn = Turn(chat.parts.model, toolbox, self.bench, chat.state.history, self.budget, self._compactor(), report)
        try:
            return await turn.run()
        finally:
            if self.bench.agents is not None:
                await self.bench.agents.close()

    async def settle(self, stop: StopReason, sentence: str | None) -> None:
        """End the turn: answer what is unanswered, propose what has changed, and tell the user."""
        chat = self.chat
        self._answer_rest(stop)
        self._count_unreported()
        seconds = CANCELLED_PROPOSAL_SECONDS if stop == "cancelled" else PROPOSAL_SECONDS
        try:
            async with asyncio.timeout(seconds):
                await self._propose()
        except TimeoutError:
            logger.warning("The proposal of %s took too long; it comes with the next turn.", self.id)
        except SelfloopError as error:
            chat.parts.emit(Notice(severity="warning", text=chat.parts.redact(error.message)))
        begun = chat.state.turn_id == self.id
        if self.start is not None and not begun:
            # The model has not seen these words; it must not go on as if they had never been said.
            text = f"The user said this, but the turn was ended ({stop}) before it began:\n{self.start.text}"
            pins = pin_data([Pin("The user", self.start.text, max(1, chat.state.task))])
            chat.record("told", {"text": text, "pins": pins})
        usage = chat.state.turn_usage if begun else self.budget.spent
        chat.record(
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
            chat.parts.emit(Notice(severity=severity, text=chat.parts.redact(sentence)))
        chat.parts.emit(State(state="idle", stop_reason=stop, usage=UsageInfo(**asdict(usage)), turn_id=self.id))

    # Before the model is asked

    async def _show_project(
        self, worktree: Worktree, overlay: Mapping[str, bytes] | None, isolation: Isolation
    ) -> None:
        """Put what stays the same for the whole session at the head of the history."""
        chat, fence = self.chat, self.chat.fence()
        rules = await asyncio.to_thread(chat.place.rules, overlay)
        limit = chat.parts.model.context_limit()
        charted = chat.parts.repository_map
        chart = await asyncio.to_thread(charted.render, worktree.path, max(1_000, min(9_000, limit // 6)))
        nested = await asyncio.to_thread(charted.named, worktree.path, "AGENTS.md")
        clean = chat.parts.redact
        commands = chat.parts.prompts.render(f"shell_{isolation.level}")
        system = chat.parts.prompts.render("chat", marker=fence.marker, platform=platform.system(), commands=commands)
        project = chat.parts.prompts.render(
            "project",
            folder=chat.parts.workspace.name,
            rules=clean(project_rules(rules, nested, fence)),
            map=clean(fence.data(chart, source="map of the repository")) if chart else "The folder is empty.",
        )
        chat.record("context", {"system": system, "project": project, "rules": _digest(rules)})

    async def _judge(self, start: Input) -> None:
        """Find out whether a new task begins, and make its folder."""
        chat, number = self.chat, self.chat.state.task
        if number:
            verdict, reply = await judge(
                start.text,
                chat.state.history,
                number,
                model=chat.parts.model,
                prompts=chat.parts.prompts,
                fence=chat.fence(),
                budget=self.budget,
            )
            if reply is not None:
                self._used(reply.usage, "judge")
            if verdict == "CONTINUE":
                return
        folder = await asyncio.to_thread(task_folder, chat.parts.outputs, number + 1)
        shown = folder.relative_to(chat.parts.workspace).as_posix()
        chat.record("task_boundary", {"number": number + 1, "output_dir": shown})
        chat.parts.emit(Task(number=number + 1, output_dir=chat.parts.uri(shown)))

    async def _take_up(self, start: Input, overlay: Mapping[str, bytes] | None, conflicts: list[str]) -> None:
        """Put the user's words into the history, with what has happened since and what the editor shows."""
        chat = self.chat
        task = chat.state.task
        today = datetime.now(UTC).date().isoformat()
        notes = [f"Task {task}. Its results folder is @outputs/. Today is {today} (UTC)."]
        notes += [told.text for told in chat.state.tell]
        pins = [Pin("The user", start.text, task), *(pin for told in chat.state.tell for pin in told.pins)]
        if conflicts:
            notes.append(
                "The user has changed the same lines as you in these files, so your copy of them is older than the "
                f"user's: {', '.join(conflicts)}. Your change there will have to be made anew."
            )
            chat.parts.emit(Notice(severity="warning", text=_conflict_sentence(conflicts)))
        rules = await asyncio.to_thread(chat.place.rules, overlay)
        if _digest(rules) != chat.state.rules:
            text = chat.parts.redact(project_rules(rules, [], chat.fence()))
            notes.append(f"The project's rules have changed; these hold now:\n{text}")
            pins.append(Pin("The project's rules", text, task))
        content = f"{start.text}\n\n<turn>\n{chr(10).join(notes)}\n</turn>"
        content += f"\n{start.editor}" if start.editor else ""
        chat.record(
            "turn_start",
            {
                "turn_id": self.id,
                "message_ids": [start.message_id],
                "content": content,
                "pins": pin_data(pins),
                "rules": _digest(rules),
            },
        )

    def _answer_interrupted(self, toolbox: Toolbox) -> None:
        """Answer the calls that a killed worker may have carried out. Those that waited for the user are made again."""
        state = self.chat.state
        for call in state.history.unanswered():
            if call.id in state.asked or (call.id not in state.begun and call.id not in state.withheld):
                return
            text = (
                "Interrupted: Selfloop was restarted while this ran. It may or may not have taken effect; look before "
                "you do it again."
                if call.id in state.begun
                else "Not carried out: Selfloop was restarted, and the arguments held a secret, which is not kept. "
                "Call again."
            )
            self._answer(call, text, toolbox)

    def _answer_rest(self, stop: StopReason) -> None:
        """Give every call of a turn that has ended a result, so that the next request is well-formed."""
        state = self.chat.state
        if state.turn_id != self.id:
            return
        toolbox = Toolbox(CHAT_TOOLS, self.chat.parts.prompts)
        for call in state.history.unanswered():
            ended = "The user cancelled the turn" if stop == "cancelled" else f"The turn was ended ({stop})"
            text = (
                f"{ended} while this ran. It may have taken effect in part."
                if call.id in state.begun
                else f"{ended} before this was carried out."
            )
            self._answer(call, text, toolbox)

    def _answer(self, call: ToolCall, text: str, toolbox: Toolbox) -> None:
        observation = Observation(text, failed=True)
        tool, params, _ = toolbox.read(call)
        self.chat.record("tool_result", result_data(self.id, call, observation))
        self.chat.channel().tool(call, tool, params, observation)

    # While it runs

    def _bench(self, worktree: Worktree, isolation: Isolation) -> Workbench:
        chat, parts = self.chat, self.chat.parts
        outputs = task_folder(parts.outputs, chat.state.task)
        bench = Workbench(
            session_id=parts.session.id,
            workspace=parts.workspace,
            worktree=worktree,
            door=Door(worktree.path, {"outputs": outputs}, on_write=worktree._note_written),
            outputs=outputs,
            isolation=isolation,
            gates=parts.gates,
            memory=parts.memory,
            fence=chat.fence(),
            settings=parts.settings,
            window_chars=max(_CHARS[0], min(_CHARS[1], parts.model.context_limit() // 3)),
            redact=parts.redact,
            known_secrets=parts.secrets,
            show_plan=lambda entries: parts.emit(Plan(entries=entries)),
            record=chat.record,
        )
        bench.agents = Agents(
            make_turn=self._agent_turn,
            bench=bench,
            child_budget=self._child_budget,
            number=lambda: chat.state.agents + 1,
        )
        return bench

    def _agent_turn(self, agent_id: str, task: str, bench: Workbench, budget: Budget) -> Turn:
        """Build the turn of a sub-agent: its own history and the same tools, but for those that start others."""
        chat = self.chat
        parts = chat.parts
        project = next(entry for entry in chat.state.history.entries if entry.kind == "project")
        system = parts.prompts.render(
            "subagent", marker=bench.fence.marker, commands=parts.prompts.render(f"shell_{bench.isolation.level}")
        )
        history = History([Entry(Message("system", system), "system"), project])
        history.add(Entry(Message("user", task), "input", (Pin("Your task", task, 1),)))
        report = AgentReport(chat.channel(), agent_id, history, self._spent, self._show_changes)
        compactor = Compactor(parts.model, parts.prompts, bench.fence, history.rewrite, parts.redact)
        return Turn(parts.model, Toolbox(AGENT_SIDE_TOOLS, parts.prompts), bench, history, budget, compactor, report)

    def _child_budget(self) -> Budget:
        limit = self.budget.limits.max_total_tokens
        spent = self.budget.spent
        left = None if limit is None else max(0, limit - spent.input_tokens - spent.output_tokens)
        share = None if left is None else round(left * AGENT_SHARE)
        return Budget(Limits(max_total_tokens=share, max_iterations=AGENT_ITERATIONS), parent=self.budget)

    def _compactor(self) -> Compactor:
        chat = self.chat
        return Compactor(
            chat.parts.model,
            chat.parts.prompts,
            chat.fence(),
            lambda change: chat.record("compaction", change),
            chat.parts.redact,
            task=lambda: chat.state.task,
            used=lambda usage: self._used(usage, "compaction"),
        )

    async def _let_in(self) -> None:
        """Let the user's steering and decisions into the running turn."""
        chat = self.chat
        await chat.take_back()
        said = [one for one in chat.state.waiting.values() if one.delivery == "steer" and one.turn_id == self.id]
        told = list(chat.state.tell)
        if not said and not told:
            return
        task = chat.state.task
        parts = [one.text for one in told]
        parts += [f"The user says, while you work:\n{one.text}\n{one.editor}".strip() for one in said]
        pins = [*(pin for one in told for pin in one.pins), *(Pin("The user", one.text, task) for one in said)]
        chat.record(
            "steer",
            {
                "turn_id": self.id,
                "message_ids": [one.message_id for one in said],
                "content": "\n\n".join(parts),
                "pins": pin_data(pins),
            },
        )

    async def _show_changes(self) -> None:
        self.chat.parts.emit(Changes(files=await self.chat.place.stats()))

    def _used(self, usage: Usage, purpose: str | None = None) -> None:
        """Count a call; one that is no reply of the turn gets an event of its own."""
        if purpose is not None:
            self.chat.record("usage", {"turn_id": self.id, "purpose": purpose, "usage": asdict(usage)})
        self._spent(usage)

    def _spent(self, usage: Usage) -> None:
        self._counted += usage
        self.chat.used(usage)

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
        chat = self.chat
        await chat.take_back()
        await chat.place.sync(await chat.overlay())
        words = [
            pin.text for pin in chat.state.history.pins(len(chat.state.history.entries)) if pin.label == "The user"
        ]
        ran = self.bench.ran if self.bench is not None else ()
        outputs = self.bench.outputs if self.bench is not None else chat.parts.outputs
        record = await chat.place.propose(title=words[-1] if words else "", ran=ran, turn_id=self.id, outputs=outputs)
        if record is not None:
            chat.gate_published(record)


def _digest(rules: str | None) -> str:
    return "" if rules is None else hashlib.sha256(rules.encode("utf-8", "replace")).hexdigest()


def _conflict_sentence(paths: list[str]) -> str:
    return (
        f"You and the agent have changed the same lines of {', '.join(paths)}. Nothing of yours was touched; the "
        "agent's change there will be stale until it is made anew."
    )
