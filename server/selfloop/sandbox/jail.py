"""Runs one command for the agent, and answers for all of it.

    jail.run ─▶ keeper (limits) ─▶ bubblewrap ─▶ sh -c command      under `process`
             ─▶ keeper (limits, kills what descends) ─▶ sh -c …    under `changes`

Invariant: when `run` returns or is cancelled, nothing of the command lives on; memory is bounded whatever it prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from selfloop.errors import SandboxError
from selfloop.sandbox import keeper
from selfloop.sandbox.children import end, start
from selfloop.sandbox.git import absolute_path_entries, find_program
from selfloop.sandbox.isolation import Isolation
from selfloop.sandbox.limits import make_groups, remove_groups, resource_limits
from selfloop.sandbox.mounts import (
    JailPlan,
    jail_arguments,
    jail_environment,
    plain_environment,
    standing,
    write_etc,
)
from selfloop.sandbox.output import Output
from selfloop.sandbox.policy import classify
from selfloop.sandbox.toolchains import find_dependencies, find_toolchains
from selfloop.sandbox.worktree import Worktree

_GRACE_SECONDS = 1.0
"""What a keeper is given to kill what descends from it, before it is killed itself."""
_MOST_COMMAND_CHARS = 100_000
_JAIL_PLACES = ("/bin", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var", "/var/tmp")  # noqa: S108


@frozen
class CommandResult:
    """What came of a command."""

    exit_code: int | None
    """None if it was killed (deadline)."""
    output: str
    """What it printed on both streams, in order; beginning and end if it is long."""
    truncated: bool
    spilled: Path | None
    """The file with all of it, up to a cap that the file's last line tells; None where all is in `output`."""
    timed_out: bool
    seconds: float


async def run(
    command: str,
    *,
    worktree: Worktree,
    workspace: Path,
    isolation: Isolation,
    timeout_seconds: float,
    network: bool = False,
    spill: Path,
    toolchains: Sequence[str] = (),
) -> CommandResult:
    """Run a command in a worktree. Cancelling the task kills the command before CancelledError is raised.

    Args:
        command: for the shell, as the model wrote it.
        worktree: where it works.
        workspace: the path under which a jail shows the worktree.
        isolation: what the probe found.
        timeout_seconds: after that long it is killed.
        network: whether the jail shares the machine's network; the caller has asked the user.
        spill: the file for output that is too long.
        toolchains: more folders that the user wants shown read-only.

    Raises:
        SandboxError: it could not be started.
    """
    if "\0" in command or len(command) > _MOST_COMMAND_CHARS:
        raise SandboxError("The command holds a NUL character or is far too long, so it was not run.")
    workspace = Path(await asyncio.to_thread(os.path.realpath, workspace))
    if isolation.level == "process":
        argv, environment = await _jailed(command, worktree, workspace, isolation, network, toolchains)
        folder = None
    elif isolation.level == "changes":
        try:
            argv, environment = await asyncio.to_thread(_plain, command, workspace, worktree.folder, toolchains)
        except OSError as error:
            raise SandboxError(f"The command could not be prepared ({error.strerror}), so it was not run.") from error
        folder = worktree.path
    else:
        raise SandboxError(f"No command runs here ({isolation.detail})")
    supervise = isolation.level == "changes"
    output = Output(spill)
    started = time.monotonic()
    groups = await asyncio.to_thread(make_groups)
    timed_out = False
    try:
        joining = [str(group / "cgroup.procs") for group in groups]
        order = {"argv": argv, "supervise": supervise, "limits": resource_limits(), "groups": joining}
        process = await _start(order, environment, folder)
        try:
            async with asyncio.timeout(timeout_seconds):
                await _collect(process, output)
        except TimeoutError:
            timed_out = True
        finally:
            await end(process, grace_seconds=_GRACE_SECONDS if supervise else 0.0)
    finally:
        if groups:
            await asyncio.shield(asyncio.to_thread(remove_groups, groups))
    text = await asyncio.to_thread(output.finish)
    code = None if timed_out else _exit_code(process.returncode)
    seconds = time.monotonic() - started
    return CommandResult(code, text, output.truncated or output.spilled is not None, output.spilled, timed_out, seconds)


async def _jailed(
    command: str, worktree: Worktree, workspace: Path, isolation: Isolation, network: bool, toolchains: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Return the jail's command line and the variables inside it."""
    bwrap = find_program("bwrap")
    if bwrap is None:
        raise SandboxError("bubblewrap is gone, so the command was not run; install it again, or restart.")
    _refuse_system(workspace)
    view = await worktree.git_view()
    places = await worktree.protected_places()
    shadow = worktree.shadow

    def plan() -> JailPlan:
        etc = worktree.folder / "etc"
        write_etc(etc)
        return JailPlan(
            flags=isolation.flags,
            files=worktree.path,
            workspace=workspace,
            top=shadow.area.top if shadow.area.prefix else workspace,
            etc=etc,
            toolchain=find_toolchains(workspace, toolchains),
            dependencies=tuple(find_dependencies(workspace, worktree.path)),
            protected=standing(worktree.path, places),
            git_view=view,
            objects=shadow.git_dir / "objects",
            borrowed=shadow.origin.objects,
            network=network,
        )

    try:
        ready = await asyncio.to_thread(plan)
    except OSError as error:
        raise SandboxError(f"The jail could not be prepared ({error.strerror}), so the command was not run.") from error
    arguments = jail_arguments(ready)
    for name, value in jail_environment(ready).items():
        arguments += ["--setenv", name, value]
    shell = "/bin/bash" if await asyncio.to_thread(Path("/bin/bash").exists) else "/bin/sh"
    return [bwrap, *arguments, "--", shell, "-c", command], {"PATH": os.defpath}


def _plain(command: str, workspace: Path, folder: Path, toolchains: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the variables of a command that runs as the user."""
    path = [entry for entry in absolute_path_entries() if not Path(entry).is_relative_to(workspace)]
    if not classify(command).auto:
        # What runs unasked must not be a program that the repository brought under a familiar name.
        path = [*find_toolchains(workspace, toolchains).path, *path]
    environment = plain_environment(path)
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment["HOME"] = str(home)
    environment["GIT_CEILING_DIRECTORIES"] = str(folder)
    environment["GIT_CONFIG_NOSYSTEM"] = "1"
    if (workspace / "node_modules").is_dir():
        environment["NODE_PATH"] = str(workspace / "node_modules")
    shell = find_program("bash") or "/bin/sh"
    return [shell, "-c", command], environment


async def _start(
    order: Mapping[str, object], environment: dict[str, str], folder: Path | None
) -> asyncio.subprocess.Process:
    try:
        return await start(
            sys.executable,
            "-I",
            "-S",
            keeper.__file__,
            json.dumps(dict(order)),
            cwd=folder or "/",
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise SandboxError(f"The command could not be started ({error.strerror}), so it was not run.") from error


async def _collect(process: asyncio.subprocess.Process, output: Output) -> None:
    """Read until the command has ended; what a background child still holds open is not waited for."""
    reading = asyncio.create_task(_read(process, output))
    waiting = asyncio.create_task(process.wait())
    try:
        await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
        await waiting
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await reading
    finally:
        for task in (reading, waiting):
            task.cancel()
        await asyncio.gather(reading, waiting, return_exceptions=True)


async def _read(process: asyncio.subprocess.Process, output: Output) -> None:
    stream = process.stdout
    while stream is not None and (piece := await stream.read(1 << 17)):
        output.feed(piece)
        await asyncio.sleep(0)  # A command that never stops printing must not starve the editor.


def _exit_code(code: int | None) -> int | None:
    """Return the code as a shell would: 128 and the signal for what was killed."""
    return code if code is None or code >= 0 else 128 - code


def _refuse_system(workspace: Path) -> None:
    """Refuse a workspace whose place in the jail is the jail's own."""
    if workspace == Path("/") or str(workspace) in _JAIL_PLACES or workspace in Path.home().parents:
        raise SandboxError(f"{workspace} belongs to the system, so no command is run on it; open a project's folder.")
