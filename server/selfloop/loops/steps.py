"""The steps of a round, each a function of what the steps before it have left: plain JSON in, plain JSON out.

    recall ─▶ sandbox ─▶ make ─▶ check ─▶ decide ─▶ act ─▶ record        (decide and act: deciding.py, acting.py)

Invariant: a step can be asked again after a kill at any moment. What it has done already it finds by the ids that it
noted before; what it returns depends on nothing that lives in memory only. An agent's failure, or a budget that ends,
is a result with `ended` in it, beside what was done until then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field

from selfloop.agent.desk import Desk
from selfloop.agent.fence import Fence
from selfloop.agent.tools.verdicts import SubmitVerdict, doubts
from selfloop.changes import FileChange
from selfloop.errors import BudgetExceeded, SelfloopError
from selfloop.loops.briefs import Facts, checker_brief, maker_brief
from selfloop.loops.budgets import RoundBudgets, limit_name
from selfloop.loops.crew import Member, Role, Unattended, read_status
from selfloop.loops.kept import bring, keep, paths_of
from selfloop.loops.levels import checker_tools, maker_tools
from selfloop.loops.means import Means
from selfloop.loops.report import Outcome, budget_exhausted, failed
from selfloop.loops.spec import LoopSpec
from selfloop.loops.verdict import Judgement, judge
from selfloop.messages import Usage
from selfloop.model.budget import Budget, Limits
from selfloop.sandbox.worktree import Worktree
from selfloop.storage.disk import write_file
from selfloop.storage.memory import Memory
from selfloop.storage.rounds import RoundRecord, Rounds
from selfloop.updates import StopReason

logger = logging.getLogger(__name__)

RECALLED = 5
"""States of earlier rounds that a maker is told."""
Result = dict[str, Any]
LABELS = {
    "recall": "recall failed",
    "sandbox": "sandbox spawn failed",
    "make": "maker failed",
    "check": "checker failed",
    "decide": "gate failed",
    "act": "action executor failed",
    "record": "record failed",
}
"""How the error of a step begins, for people and for whoever reads reports by program."""


@define
class Round:
    """One round that is being carried out."""

    means: Means
    rounds: Rounds
    record: RoundRecord
    spec: LoopSpec
    """As it was when the round began."""
    charge: Callable[[str, Usage], bool]
    budgets: RoundBudgets
    results: dict[str, Result] = field(factory=dict)
    """Of the steps that are finished."""
    cancelled: bool = False
    """The user has ended it."""
    suspending: bool = False
    """The worker ends; the next one takes the round up."""
    desks: dict[Role, Desk] = field(factory=dict)
    chores: list[asyncio.Task[None]] = field(factory=list)
    """What the report need not wait for: worktrees are given back."""

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.record.run_id

    def state(self, name: str) -> Any:
        """Return a small value that was noted for the round; None if there is none."""
        return self.rounds.get(self.run_id).state.get(name)

    def desk(self, role: Role) -> Desk:
        """Return an agent's desk; its session is made with the first use, and found again after a restart."""
        if role not in self.desks:
            means = self.means
            name = f"{role}_session"
            with means.store.transaction():
                session_id = self.state(name)
                if session_id is None:
                    title = f"loop {self.spec.name}" + ("" if role == "maker" else f" ({role})")
                    session_id = means.sessions.create(title=title).id
                    means.sessions.set_state(session_id, run=self.run_id, role=role)
                    sessions = [*(self.state("sessions") or ()), session_id]
                    self.rounds.set_state(self.run_id, **{name: session_id}, sessions=sessions)
            desk = Desk(means.parts(means.sessions.get(session_id)))
            if not desk.state.history.entries and desk.state.marker is None:
                where = {"session_id": session_id, "workspace": str(means.workspace), "run_id": self.run_id}
                desk.record("session_start", where)
                marker = self.state("marker") if role == "maker" else None
                desk.record("fence", {"marker": marker or Fence.new().marker})
            self.desks[role] = desk
        return self.desks[role]

    def member(self, role: Role) -> Member:
        """Return an agent of the round."""
        held = maker_tools(self.spec) if role == "maker" else checker_tools(self.spec)
        means = self.means
        return Member(
            self.desk(role),
            role,
            held,
            Budget(Limits(), parent=self.budgets.round),
            self.charge,
            Unattended(means.rules, means.workspace),
            checks=dict(self.spec.checks) if role == "checker" else {},
            finished=_has_a_verdict if role == "checker" else _never,
        )

    def changes(self) -> list[FileChange]:
        """Return what the maker has changed. Reads the disk."""
        return bring(self.results.get("make", {}).get("changes", []), self.means.store)

    def close(self, *, suspending: bool = False) -> None:
        """Close the trajectories."""
        for desk in self.desks.values():
            desk.suspending = suspending
            desk.parts.trajectory.close()
        self.desks.clear()


async def recall(one: Round) -> Result:
    """Return what the last rounds of this loop have noted, the newest first."""
    notes = await asyncio.to_thread(Memory(one.means.store).latest, f"loop:{one.spec.name}", RECALLED)
    return {"notes": [{"at": note.created_at, "text": note.text} for note in notes]}


async def sandbox(one: Round) -> Result:
    """Have a worktree of what the user has now, unsaved text included; it is found again by the maker's session."""
    means = one.means
    snapshot = means.snapshot()
    overlay = await asyncio.to_thread(snapshot.overlay, means.workspace)
    desk = one.desk("maker")
    worktree, _ = await desk.place.open(overlay, yielding=False)
    return {"session": desk.parts.session.id, "worktree": worktree.id, "base": worktree.base}


async def make(one: Round) -> Result:
    """Have the maker do its work, or go on with it, and keep what it has changed."""
    desk = one.desk("maker")
    begun = one.results["sandbox"]
    worktree, _ = await desk.place.open(None, yielding=False)
    if worktree.id != begun["worktree"]:
        # The cache was cleared: what the maker had done there until then is gone, and so is what it believes to see.
        return {"ended": _plain(failed(f"{LABELS['make']}: its copy of the files is gone; run the loop again."))}
    member = one.member("maker")
    isolation = await one.means.isolation()
    stop, ended = await carried(
        one,
        member,
        LABELS["make"],
        lambda: member.run(worktree, isolation, lambda: maker_brief(facts(one, "maker"))),
    )
    tree, changes = await worktree.compared()
    status, text = read_status(member.last_words(), stop)
    ran = [{"command": desk.parts.redact(run.command), "exit_code": run.exit_code} for run in _ran(member)]
    return {
        "status": status,
        "iterations": _iterations(one, "maker"),
        "text": text,
        "tree": tree,
        "changes": await asyncio.to_thread(keep, changes, one.means.store),
        "ran": ran,
        **({"ended": ended} if ended else {}),
    }


async def check(one: Round) -> Result:
    """Have the checker try to prove the result wrong, in a clean worktree of it, and read its verdict strictly.

    A check that a kill has cut off begins anew, since evidence counts only if it ran in the turn that names it. What
    the first one had used stays counted.
    """
    means = one.means
    pool = await means.pool()
    if (left := one.state("checker_worktree")) is not None and (old := await pool.reopen(left)) is not None:
        await pool.release(old)
    if one.state("checker_session") is not None:
        one.member("checker").count_cut_off()
        one.desks.pop("checker").parts.trajectory.close()
        one.rounds.set_state(one.run_id, checker_session=None)
    worktree = await pool.acquire_tree(one.results["make"]["tree"])
    one.rounds.set_state(one.run_id, checker_worktree=worktree.id)
    try:
        member = one.member("checker")
        member.charted = one.results["sandbox"]["base"]  # The maker's map: what it changed is in the brief.
        isolation = await means.isolation()
        changes = await asyncio.to_thread(one.changes)
        stop, ended = await carried(
            one,
            member,
            LABELS["check"],
            lambda: member.run(worktree, isolation, lambda: checker_brief(facts(one, "checker"), changes)),
        )
        judgement = judge(
            _verdict(member),
            _ran(member),
            last_words=read_status(member.last_words(), stop)[1],
            checks=dict(one.spec.checks),
            changed=await worktree.changes() if _ran(member) else [],
        )
        evidence = await asyncio.to_thread(_keep_evidence, one, member, judgement)
    finally:
        # It takes as long as all the rest where there are many files, and the report need not wait for it.
        one.chores.append(asyncio.ensure_future(_give_back(one, worktree)))
    return {
        "status": judgement.status,
        "iterations": _iterations(one, "checker"),
        "text": one.means.redact(judgement.text),
        "verified": judgement.verified and not ended,
        "evidence": evidence,
        **({"ended": ended} if ended else {}),
    }


async def _give_back(one: Round, worktree: Worktree) -> None:
    """Throw away what the checker's commands have left, and give its worktree back."""
    await (await one.means.pool()).release(worktree)
    one.rounds.set_state(one.run_id, checker_worktree=None)


async def carried(one: Round, member: Member, label: str, work: Callable[[], Any]) -> tuple[StopReason, Result | None]:
    """Carry an agent's turn to its end, whatever that is; return how it stopped, and how the round ends with it.

    Args:
        one: the round.
        member: the agent.
        label: how an error begins.
        work: runs its turn.
    """
    stop: StopReason = "error"
    outcome = None
    try:
        stop = await work()
    except BudgetExceeded as error:
        stop = "budget"
        outcome = budget_exhausted(_limit(one, error))
    except SelfloopError as error:
        outcome = failed(f"{label}: {one.means.redact(error.message)}")
    except asyncio.CancelledError:
        if not one.cancelled:
            raise
        # It is our own task that was cancelled, to end the round and not to end whoever waits for it.
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        stop, outcome = "cancelled", failed(f"{label}: the user cancelled the round.")
    except Exception as error:
        logger.exception("The %s of %s failed.", member.role, one.run_id)
        outcome = failed(f"{label}: a fault in Selfloop ({type(error).__name__}), which is logged.")
    member.end(stop)
    if outcome is None and (limit := one.budgets.crossed()) is not None:
        outcome = budget_exhausted(limit)
    return stop, None if outcome is None else _plain(outcome)


def _limit(one: Round, error: BudgetExceeded) -> Any:
    crossed = one.budgets.crossed()
    if error.limit == "seconds" and crossed is not None and crossed.startswith("seconds"):
        return crossed  # Whoever waits for an answer does not know whose seconds ran out.
    return limit_name(error.limit) or "total-tokens"


def _plain(outcome: Outcome) -> Result:
    return msgspec.to_builtins(outcome)


def _iterations(one: Round, role: Role) -> int:
    """Return how often an agent and its sub-agents have called the model in this round, kills included."""
    return one.budgets.round.iterations - (one.results["make"]["iterations"] if role == "checker" else 0)


def _ran(member: Member) -> list[Any]:
    return member.bench.ran if member.bench is not None else []


def _never(bench: Any) -> bool:
    return False


def _has_a_verdict(bench: Any) -> bool:
    """Tell whether a checker has delivered; one whose evidence does not count may mend it, or look again."""
    last = bench.submitted[-1] if bench.submitted else None
    return isinstance(last, SubmitVerdict) and not doubts(last.evidence, bench.ran, bench.checks)


def _verdict(member: Member) -> SubmitVerdict | None:
    submitted = member.bench.submitted if member.bench is not None else []
    return next((one for one in reversed(submitted) if isinstance(one, SubmitVerdict)), None)


# What is kept of the evidence


def _keep_evidence(one: Round, member: Member, judgement: Judgement) -> list[Result]:
    """Write the output of each check into a file, and return the evidence. Writes the disk."""
    rows: list[Result] = []
    for number, proof in enumerate(judgement.proofs, 1):
        path = ""
        if proof.ran is not None:
            file = member.outputs / (proof.ran.spilled or f"evidence-{number}.txt")
            if proof.ran.spilled is None:
                write_file(file, one.means.redact(proof.ran.output).encode("utf-8", "replace"))
            path = _relative(file, one.means.workspace)
        rows.append(
            {
                "check": proof.check,
                "command": one.means.redact(proof.command),
                "exit_code": proof.exit_code,
                "counts": proof.counts,
                "path": path,
            }
        )
    return rows


def _relative(file: Path, workspace: Path) -> str:
    return file.relative_to(workspace).as_posix() if file.is_relative_to(workspace) else ""


def facts(one: Round, role: Role) -> Facts:
    """Return what an agent's brief is made of."""
    desk = one.desk(role)
    return Facts(
        spec=one.spec,
        fence=desk.fence(),
        prompts=desk.parts.prompts,
        redact=desk.parts.redact,
        notes=one.results["recall"]["notes"],
        cause=one.state("cause") or {},
        context=one.state("context") or "",
        made=one.results.get("make", {}),
    )


def touched_paths(one: Round) -> list[str]:
    """Return every path that the maker's changes touch."""
    return paths_of(one.results.get("make", {}).get("changes", []))
