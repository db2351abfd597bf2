"""Sub-agents: background turns with a history of their own, each leaving one named result file.

Invariants: a sub-agent has at most its parent's tools, budget and lifetime. It works in the same worktree, starts no
further agents, and is gone when the turn that started it is gone. Its result file exists once it is done, whatever it
did.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from selfloop.agent.tools.tool import Call, Observation, Params, Tool, Workbench, refused
from selfloop.errors import BudgetExceeded, SelfloopError

if TYPE_CHECKING:
    from selfloop.agent.turn import Turn
    from selfloop.model.budget import Budget

logger = logging.getLogger(__name__)

MOST_RUNNING = 4
MOST_STARTED = 16
"""In one turn. A sub-agent costs as much as a chat."""
WAIT_SECONDS = 600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class SpawnAgent(Params):
    output: str
    task: str


class WaitAgent(Params):
    agent_id: str


@define
class Agent:
    """One sub-agent."""

    id: str
    output: str
    work: asyncio.Task[None]
    started: float = field(factory=time.monotonic)
    status: str = "running"
    text: str = ""


@define
class Agents:
    """The sub-agents of one turn."""

    make_turn: Callable[[str, str, Workbench, Budget], Turn]
    """Builds the turn of a sub-agent from its id, its task, its bench and its budget."""
    bench: Workbench
    child_budget: Callable[[], Budget]
    number: Callable[[], int]
    """The next number for an id: unique in the session."""
    _agents: dict[str, Agent] = field(factory=dict, init=False)

    def spawn(self, output: str, task: str) -> Observation:
        """Start a sub-agent, unless there are too many or its name is taken."""
        running = sum(agent.status == "running" for agent in self._agents.values())
        if running >= MOST_RUNNING or len(self._agents) >= MOST_STARTED:
            return refused(
                f"{running} agents are running and {len(self._agents)} were started in this turn (at most "
                f"{MOST_RUNNING} and {MOST_STARTED}), so none was started; wait_agent for one, or do it yourself."
            )
        if not _NAME.fullmatch(output):
            return refused(
                f"{output[:80]!r} is no plain file name, so no agent was started; give one such as `survey.md`."
            )
        if self.bench.door.exists(f"@outputs/{output}") or any(a.output == output for a in self._agents.values()):
            return refused(f"@outputs/{output} is taken, so no agent was started; give another name.")
        agent_id = f"agent-{self.number()}"
        self.bench.record("sub_agent_start", {"agent_id": agent_id, "output": output, "task": self.bench.redact(task)})
        work = asyncio.get_running_loop().create_task(self._run(agent_id, task), name=agent_id)
        self._agents[agent_id] = Agent(agent_id, output, work)
        return Observation(
            f"{agent_id} is at work. Its result will be in @outputs/{output}; wait_agent tells when it is done."
        )

    async def wait(self, agent_id: str) -> Observation:
        """Wait until a sub-agent is done, or for as long as one call may take."""
        agent = self._agents.get(agent_id)
        if agent is None:
            known = ", ".join(self._agents) or "none"
            return refused(
                f"No agent {agent_id[:80]!r} runs in this turn (there are: {known}). Agents end with the turn that "
                "started them; look whether its result lies in @outputs, or start another."
            )
        await asyncio.wait([agent.work], timeout=WAIT_SECONDS)
        if not agent.work.done():
            seconds = time.monotonic() - agent.started
            return Observation(
                f"{agent_id} is still at work after {seconds:.0f} seconds. Wait again, or go on meanwhile."
            )
        shown = self.bench.fence.data(
            agent.text[: self.bench.window_chars], source=f"{agent_id}, @outputs/{agent.output}"
        )
        more = " read_file shows the rest." if len(agent.text) > self.bench.window_chars else ""
        return Observation(
            f"{agent_id} has ended ({agent.status}). Its result is in @outputs/{agent.output}.{more}\n{shown}",
            failed=agent.status == "failed",
            changed=True,
        )

    async def close(self) -> None:
        """End every sub-agent that still runs."""
        tasks = [agent.work for agent in self._agents.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, agent_id: str, task: str) -> None:
        bench = evolve(self.bench, agents=None)
        turn = self.make_turn(agent_id, task, bench, self.child_budget())
        status, text = "failed", ""
        try:
            stopped = await turn.run()
            status = "done" if stopped == "end_turn" else f"stopped: {stopped}"
        except BudgetExceeded as error:
            status, text = "stopped: budget", error.message
        except SelfloopError as error:
            text = error.message
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        except Exception:
            logger.exception("%s failed (session %s).", agent_id, bench.session_id)
            text = "It failed by a fault in Selfloop, which is logged."
        finally:
            agent = self._agents[agent_id]
            said = turn.history.entries[-1].message if turn.history.entries[-1].kind == "reply" else None
            agent.text = "\n\n".join(part for part in (said.content if said else "", text) if part) or "(no result)"
            agent.status = status
            self.bench.record("sub_agent_end", {"agent_id": agent_id, "status": status, "text": agent.text})
        try:
            await asyncio.to_thread(self._leave_result, agent)
        except (SelfloopError, OSError) as error:
            agent.status = "failed"
            agent.text += f"\n\nIts result file could not be written: {error}"

    def _leave_result(self, agent: Agent) -> None:
        """Write the result file, unless the sub-agent has written it itself."""
        name = f"@outputs/{agent.output}"
        if not self.bench.door.exists(name):
            self.bench.door.write_bytes(name, agent.text.encode("utf-8"))


async def spawn_agent(call: Call, params: SpawnAgent) -> Observation:
    """Start a sub-agent in the background."""
    if call.bench.agents is None:
        return refused("A sub-agent starts no further agents, so none was started; do the work yourself.")
    if not params.task.strip():
        return refused("The task is empty, so no agent was started; say what it shall find out or do.")
    return call.bench.agents.spawn(params.output, params.task)


async def wait_agent(call: Call, params: WaitAgent) -> Observation:
    """Wait for a sub-agent."""
    if call.bench.agents is None:
        return refused("A sub-agent has no agents to wait for.")
    return await call.bench.agents.wait(params.agent_id)


AGENT_TOOLS = (
    Tool("spawn_agent", "agent", SpawnAgent, spawn_agent, lambda p: f"Start an agent for {p.output}"),
    Tool("wait_agent", "agent", WaitAgent, wait_agent, lambda p: f"Wait for {p.agent_id}", deadline_seconds=None),
)
