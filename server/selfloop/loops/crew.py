"""The maker and the checker of a round: one agent's turn each, in a session of its own, whose trajectory can be read.

    begin (what it is shown, recorded) ─▶ run ─▶ end (every call answered, every token counted)

Invariant: a turn is a function of its recorded history. A maker that was killed goes on where it was cut off, and no
call of the model is charged twice. Nobody is asked anything: what would need an answer is refused at once.
"""

from __future__ import annotations

import asyncio
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from attrs import asdict, define, field, frozen

from selfloop.agent.chat_turn import AGENT_ITERATIONS, AGENT_SHARE, CHAT_TOOLS
from selfloop.agent.compaction import Compactor
from selfloop.agent.context import printable, project_rules
from selfloop.agent.desk import Desk
from selfloop.agent.history import Entry, History, Pin, pin_data
from selfloop.agent.reporting import AgentReport, ChatReport, new_id
from selfloop.agent.tasks import task_folder
from selfloop.agent.tools.forge import FORGE_TOOLS
from selfloop.agent.tools.subagents import Agents
from selfloop.agent.tools.tool import Tool, Workbench
from selfloop.agent.tools.toolbox import Toolbox
from selfloop.agent.tools.upkeep import UPKEEP_TOOLS
from selfloop.agent.tools.verdicts import CHECKER_TOOLS, REFLECTION_TOOLS
from selfloop.agent.turn import Turn
from selfloop.agent.unanswered import answer_interrupted, answer_rest
from selfloop.errors import BudgetExceeded
from selfloop.gates.gate import CommandDecision, CommandRequest
from selfloop.loops.report import Status
from selfloop.messages import Message, Usage
from selfloop.model.budget import Budget, Limits
from selfloop.storage.rules import Rules, rule_sentence
from selfloop.storage.trajectories import Event
from selfloop.updates import MessageUpdate, Plan, StopReason

if TYPE_CHECKING:
    from pathlib import Path

    from selfloop.config import Settings
    from selfloop.sandbox.isolation import Isolation
    from selfloop.sandbox.paths import Door
    from selfloop.sandbox.worktree import Worktree

Role = Literal["maker", "checker", "reflector"]

ALL_TOOLS = (*CHAT_TOOLS, *FORGE_TOOLS, *UPKEEP_TOOLS, *CHECKER_TOOLS, *REFLECTION_TOOLS)
"""In the order in which every agent of a loop is shown those that it holds."""
_CHARS = (2_000, 12_000)
_STATUS = re.compile(
    r"^[ \t>*_`-]*Status:[ \t*_`]*(Done|DoneWithConcerns|NeedsContext|Blocked)[ \t*_`.]*$", re.MULTILINE
)
_NO_SHELL = "You hold no tool that runs commands."


@frozen
class Unattended:
    """Answers for the user where nobody can be asked: what a remembered rule allows, and nothing else."""

    rules: Rules
    workspace: Path

    async def ask_command(self, request: CommandRequest) -> CommandDecision:
        """Allow what a rule allows; refuse all else at once, and name the rule that would allow it."""
        allowed = await asyncio.to_thread(self.rules.match, self.workspace, request.command, network=request.network)
        if allowed is not None:
            return CommandDecision(True, None, "always")
        rule = rule_sentence(request.command, network=request.network, workspace=self.workspace)
        return CommandDecision(
            False,
            None,
            "reject",
            f"{request.reason} The user can allow it for all rounds to come by the rule: {rule}. Go on without it, and "
            "name it in your answer if it is needed.",
        )


class Finished(Exception):
    """Raised within a turn when its agent has delivered what it was to; no further call of the model is made."""


@frozen
class Brief:
    """What an agent is shown at the start of its turn."""

    frame: str
    """The prompt's name."""
    values: Mapping[str, str]
    """What fills it besides marker, platform and commands."""
    task: str


@frozen
class Site:
    """Where an agent works that does not work on the workspace's own files."""

    folder: Path
    """What its worktree is a copy of; the jail shows the worktree in its place."""
    project: str
    """What the agent is shown of it, instead of the workspace's rules and map."""
    settings: Settings
    door: Callable[[Worktree, Path], Door]
    """The way of its tools to the files, and to the task's folder."""


@define
class Member:
    """One agent of a round."""

    desk: Desk
    role: Role
    held: frozenset[str]
    """The names of its tools."""
    budget: Budget
    """Its own, below the round's, so that it is known what it alone has used."""
    charge: Callable[[str, Usage], bool]
    """Counts one call of the model, known by a number; tells whether it was not counted before."""
    unattended: Unattended
    checks: Mapping[str, str] = field(factory=dict)
    finished: Callable[[Workbench], bool] = lambda bench: False
    """Tells after each reply's calls whether the agent has delivered."""
    site: Site | None = None
    """None: the workspace."""
    charted: str | None = None
    """The tree whose map it is shown; None: what it begins with."""
    bench: Workbench | None = field(default=None, init=False)
    _counted: Usage = field(factory=Usage, init=False)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Its tools."""
        return tuple(tool for tool in ALL_TOOLS if tool.name in self.held)

    async def run(self, worktree: Worktree, isolation: Isolation, brief: Callable[[], Brief]) -> StopReason:
        """Begin a turn, or take up the one that a kill has cut off, and carry it to its end.

        A session may have several turns, one after another; the first shows the project.

        Raises:
            BudgetExceeded, ProviderError: as in `Turn.run`.
        """
        desk = self.desk
        resumed = desk.state.turn_id is not None
        if desk.state.history.head() == 0:
            await self._show_project(worktree, isolation, brief())
        if not resumed:
            self._take_up(brief().task)
        self.bench = self._bench(worktree, isolation)
        toolbox = Toolbox(self.tools, desk.parts.prompts)
        turn_id = desk.state.turn_id or ""
        compactor = self._compactor()
        if resumed:
            self.count_cut_off()
            answer_interrupted(desk, turn_id, toolbox)
        report = ChatReport(
            channel=desk.channel(),
            turn_id=turn_id,
            known_secrets=desk.parts.secrets,
            used=self._used,
            context=desk.context,
            let_in=self._let_in,
            files_changed=_nothing,
            suspending=lambda: desk.suspending,
        )
        turn = Turn(desk.parts.model, toolbox, self.bench, desk.state.history, self.budget, compactor, report)
        clock = asyncio.timeout(self.budget.seconds_left())
        try:
            async with clock:
                stop = await turn.run()
        except Finished:
            return "end_turn"
        except TimeoutError:
            if not clock.expired():
                raise
            raise BudgetExceeded(
                f"The time that the budget allows ran out while the {self.role} was at work, so it was ended; raise "
                "the limit of seconds.",
                limit="seconds",
            ) from None
        finally:
            if self.bench.agents is not None:
                await self.bench.agents.close()
        if stop == "max_tokens":
            self._require_tokens(compactor.tokens(desk.state.history, toolbox.specs))
        return stop

    def end(self, stop: StopReason) -> None:
        """End the turn: every call has an answer, so that the session can be gone on with, and every token counts."""
        desk = self.desk
        if desk.state.turn_id is None:
            return
        answer_rest(desk, desk.state.turn_id, Toolbox(self.tools, desk.parts.prompts), stop)
        spent, counted = self.budget.spent, self._counted
        rest = Usage(
            max(0, spent.input_tokens - counted.input_tokens),
            max(0, spent.cached_tokens - counted.cached_tokens),
            max(0, spent.output_tokens - counted.output_tokens),
        )
        if rest != Usage():
            self._used(rest, "cut off")
        self.desk.record(
            "turn_end",
            {
                "turn_id": desk.state.turn_id,
                "stop_reason": stop,
                "usage": asdict(desk.state.turn_usage),
                "message_ids": [],
            },
            durable=True,
        )

    def count_cut_off(self) -> None:
        """Count a request that was on its way when the worker was killed: nobody said what it has used."""
        desk = self.desk
        if desk.state.writing is None:
            return
        asked = self._compactor().tokens(desk.state.history, Toolbox(self.tools, desk.parts.prompts).specs)
        shown = desk.parts.streamed(desk.state.writing)
        came = desk.parts.model.count_tokens([Message("assistant", shown)]) if shown else 0
        self.charge(f"{desk.parts.session.id}:{desk.state.writing}", Usage(input_tokens=asked, output_tokens=came))

    def last_words(self) -> str:
        """Return its last answer, without secrets; "" if it has given none."""
        replies = (
            entry.message.content for entry in reversed(self.desk.state.history.entries) if entry.kind == "reply"
        )
        return self.desk.parts.redact(next((text for text in replies if text.strip()), ""))

    @property
    def outputs(self) -> Path:
        """The folder of its results and long output."""
        return task_folder(self.desk.parts.outputs, 1)

    # Before the model is asked

    async def _show_project(self, worktree: Worktree, isolation: Isolation, brief: Brief) -> None:
        desk, parts, fence = self.desk, self.desk.parts, self.desk.fence()
        project = await self._project(worktree) if self.site is None else self.site.project
        commands = parts.prompts.render(f"shell_{isolation.level}") if "shell" in self.held else _NO_SHELL
        system = parts.prompts.render(
            brief.frame, marker=fence.marker, platform=platform.system(), commands=commands, **brief.values
        )
        desk.record("context", {"system": system, "project": parts.redact(project), "rules": ""})

    async def _project(self, worktree: Worktree) -> str:
        """Return the workspace's rules and map, as an agent is shown them."""
        desk, parts, fence = self.desk, self.desk.parts, self.desk.fence()
        rules = await asyncio.to_thread(desk.place.rules, None)
        limit = parts.model.context_limit()
        charted, most, tree = parts.repository_map, max(1_000, min(9_000, limit // 6)), self.charted or worktree.base
        chart = await asyncio.to_thread(charted.render, worktree.path, most, tree)
        nested = await asyncio.to_thread(charted.named, worktree.path, "AGENTS.md", tree)
        clean = parts.redact
        return parts.prompts.render(
            "project",
            folder=printable(parts.workspace.name),
            rules=clean(project_rules(rules, nested, fence)),
            map=clean(fence.data(chart, source="map of the repository")) if chart else "The folder is empty.",
        )

    def _take_up(self, task: str) -> None:
        """Put the task into the history; it is pinned, so that compaction keeps it word for word."""
        desk = self.desk
        shown = self.outputs.relative_to(desk.parts.workspace).as_posix()
        desk.record("task_boundary", {"number": 1, "output_dir": shown})
        task = desk.parts.redact(task)
        pins = pin_data([Pin("The task", task, 1)])
        turn_id, message_id = new_id("turn"), new_id("message")
        desk.record("turn_start", {"turn_id": turn_id, "message_ids": [], "content": task, "pins": pins, "rules": ""})
        desk.parts.emit(MessageUpdate(message_id=message_id, role="user", text=desk.fence().strip(task)))

    # While it runs

    def _bench(self, worktree: Worktree, isolation: Isolation) -> Workbench:
        desk, parts, site = self.desk, self.desk.parts, self.site
        door = (
            worktree.door.with_roots({"outputs": self.outputs}) if site is None else site.door(worktree, self.outputs)
        )
        bench = Workbench(
            session_id=parts.session.id,
            workspace=parts.workspace if site is None else site.folder,
            worktree=worktree,
            door=door,
            outputs=self.outputs,
            isolation=isolation,
            gates=self.unattended,
            memory=parts.memory,
            fence=desk.fence(),
            settings=parts.settings if site is None else site.settings,
            window_chars=max(_CHARS[0], min(_CHARS[1], parts.model.context_limit() // 3)),
            redact=parts.redact,
            known_secrets=parts.secrets,
            show_plan=lambda entries: parts.emit(Plan(entries=entries)),
            record=desk.record,
            checks=self.checks,
            proves=self.role == "checker",
        )
        if "spawn_agent" in self.held:
            bench.agents = Agents(
                make_turn=self._agent_turn,
                bench=bench,
                child_budget=self._child_budget,
                number=lambda: desk.state.agents + 1,
            )
        return bench

    def _agent_turn(self, agent_id: str, task: str, bench: Workbench, budget: Budget) -> Turn:
        """Build the turn of a sub-agent: its own history, and its parent's tools but for those that start others."""
        desk, parts = self.desk, self.desk.parts
        project = next(entry for entry in desk.state.history.entries if entry.kind == "project")
        commands = parts.prompts.render(f"shell_{bench.isolation.level}") if "shell" in self.held else _NO_SHELL
        system = parts.prompts.render("subagent", marker=bench.fence.marker, commands=commands)
        history = History([Entry(Message("system", system), "system"), project])
        history.add(Entry(Message("user", f"Your task:\n{task}"), "input", (Pin("Your task", task, 1),)))
        report = AgentReport(desk.channel(), agent_id, history, self._spent, _nothing)
        compactor = Compactor(parts.model, parts.prompts, bench.fence, history.rewrite, parts.redact)
        tools = tuple(tool for tool in self.tools if tool.name not in ("spawn_agent", "wait_agent", "plan"))
        return Turn(parts.model, Toolbox(tools, parts.prompts), bench, history, budget, compactor, report)

    def _child_budget(self) -> Budget:
        # Half of what is left of the round, so that the maker can still answer when a sub-agent has used its part.
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
            task=lambda: 1,
            used=lambda usage: self._used(usage, "compaction"),
        )

    async def _let_in(self) -> None:
        if self.bench is not None and self.finished(self.bench):
            raise Finished

    def _used(self, usage: Usage, purpose: str | None = None) -> None:
        """Count a call; one that is no reply of the turn gets an event of its own, so that a restart counts it too."""
        desk = self.desk
        if purpose is not None:
            desk.record("usage", {"turn_id": desk.state.turn_id, "purpose": purpose, "usage": asdict(usage)})
        self._spent(usage)

    def _spent(self, usage: Usage) -> None:
        self._counted += usage
        self.charge(f"{self.desk.parts.session.id}:{self.desk.state.calls}", usage)

    def _require_tokens(self, tokens: int) -> None:
        """Tell an answer that the model's own limit has cut short from one that what is left of the budget has.

        Raises:
            BudgetExceeded: no further call of so many tokens could be made.
        """
        try:
            self.budget.release(self.budget.reserve(tokens, 1))
        except BudgetExceeded as error:
            if "tokens" in error.limit:
                raise


async def _nothing() -> None:
    """Nobody watches the files of a round while it runs."""


def charged(events: Iterable[Event], session_id: str) -> list[tuple[str, Usage]]:
    """Return every call of the model in a trajectory under the number that `Member` charges it by."""
    found, number = [], 0
    for event in events:
        if event.kind in ("llm_response", "usage") or (event.kind == "sub_agent_turn" and "usage" in event.data):
            number += 1
            usage = Usage(**event.data["usage"])
            if usage != Usage():
                found.append((f"{session_id}:{number}", usage))
    return found


def read_status(answer: str, stop: StopReason) -> tuple[Status, str]:
    """Return how an agent ended, by its own account as far as it gave one, and its answer without that line."""
    said = list(_STATUS.finditer(answer))
    text = _STATUS.sub("", answer).strip() if said else answer.strip()
    status: Status = "Done"
    for known in ("Done", "DoneWithConcerns", "NeedsContext", "Blocked"):
        if said and said[-1][1] == known:
            status = known
    if stop == "stuck":
        return "Blocked", text
    if stop != "end_turn" and status == "Done":
        return "DoneWithConcerns", text
    return status, text
