"""Running a command in the sandbox.

    classified, isolation, network ──► unasked │ a gate │ refused ──► the sandbox runs it ──► what it printed

Invariant: a command never runs outside what the user was shown or a rule allows. Whether it was asked about, how it
ended and its exit code stand in the trajectory, because a claim of success counts only with them.
"""

from __future__ import annotations

from pathlib import Path

from selfloop.agent.tools.tool import Call, Observation, Params, Ran, Tool, Workbench, refused, spill_name
from selfloop.agent.tools.verdicts import why_void
from selfloop.gates.gate import CommandRequest
from selfloop.sandbox import jail, policy

DEFAULT_SECONDS = 120.0
LONGEST_SECONDS = 900.0


class Shell(Params):
    command: str
    timeout_seconds: float | None = None
    network: bool = False


async def shell(call: Call, params: Shell) -> Observation:
    """Run a command in the worktree, after asking where that is needed."""
    bench = call.bench
    command = params.command
    if not command.strip():
        return refused("The command is empty, so nothing was run.")
    if "\0" in command:
        return refused("The command holds a NUL character, so nothing was run.")
    if bench.isolation.level == "none":
        return refused(
            f"Commands cannot be run here ({bench.isolation.detail}), so nothing was run; use the file tools."
        )
    reason = _why_ask(bench, params)
    if reason is not None:
        request = CommandRequest(
            session_id=bench.session_id,
            tool_call_id=call.id,
            command=command,
            folder=".",
            network=params.network,
            isolation=bench.isolation.level,
            reason=reason,
        )
        # Recorded on both sides: a worker that dies while the user thinks must ask again, not run and not give up.
        bench.record("command_asked", {"tool_call_id": call.id, "command": bench.redact(command), "reason": reason})
        decision = await bench.gates.ask_command(request)
        answer = {"tool_call_id": call.id, "gate_id": decision.gate_id, "option_id": decision.option_id}
        bench.record("command_answered", {**answer, "allowed": decision.allowed})
        if not decision.allowed and decision.gate_id is None:
            return refused(
                f"Nobody is there to be asked, so this command was not run. {decision.comment or ''}".strip()
            )
        if not decision.allowed:
            comment = f" The user says: {decision.comment}" if decision.comment else ""
            return refused(
                f"The user did not allow this command, so it was not run.{comment} Do not try to reach the same by "
                "another command; go on without it, or say what you need and why."
            )
    return await _run(call, params)


SHELL_TOOLS = (Tool("shell", "execute", Shell, shell, lambda p: f"Run {p.command}"[:200], deadline_seconds=None),)
"""The tool keeps its own deadline: while the user is asked, no clock runs."""


def _why_ask(bench: Workbench, params: Shell) -> str | None:
    """Return why the user has to be asked, as one sentence; None: the command may run unasked."""
    if params.network:
        return "It asks for the network, which is always asked about."
    if bench.isolation.level == "process":
        return None
    verdict = policy.classify(params.command, bench.worktree.path)
    return None if verdict.auto else verdict.reason


async def _run(call: Call, params: Shell) -> Observation:
    bench = call.bench
    seconds = min(params.timeout_seconds or DEFAULT_SECONDS, LONGEST_SECONDS)
    spill = _spill_file(bench, call.id)
    # Before it runs: what an earlier command has changed may be undone by a later one.
    void = await why_void(bench, params.command) if bench.proves else None
    result = await jail.run(
        params.command,
        worktree=bench.worktree,
        workspace=bench.workspace,
        isolation=bench.isolation,
        timeout_seconds=max(1.0, seconds),
        network=params.network,
        spill=spill,
        toolchains=bench.settings.toolchains,
    )
    spilled = None if result.spilled is None else spill.name
    bench.ran.append(Ran(params.command, result.exit_code, result.output, spilled, void))
    if result.timed_out:
        head = f"The command was ended after {result.seconds:.0f} seconds, its deadline; what it started is ended too."
    elif result.exit_code is None:
        head = f"The command was killed after {result.seconds:.1f} s."
    else:
        head = f"Exit code {result.exit_code} after {result.seconds:.1f} s."
    if spilled is not None:
        head += f" The output is long: its beginning and end are shown; read_file @outputs/{spilled} shows all of it."
    if not result.output.strip():
        return Observation(f"{head} It printed nothing.", failed=result.exit_code != 0, changed=True)
    output = bench.fence.data(result.output, source="output of the command")
    return Observation(f"{head}\n{output}", failed=result.exit_code != 0, changed=True)


def _spill_file(bench: Workbench, call_id: str) -> Path:
    return bench.outputs / spill_name("shell", call_id)
