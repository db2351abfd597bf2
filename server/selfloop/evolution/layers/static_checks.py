"""G2: lint and types, with the parent's configuration, by tools that came with the installed package."""

from __future__ import annotations

import asyncio

from selfloop.evolution.layers.bench import Bench, Finding, last_lines
from selfloop.sandbox.fenced import PYTHON, SELF, find_tool, tool

_KNOWN = frozenset({"ruff", "pyrefly"})


async def run(bench: Bench) -> Finding:
    """Run every command of the profile on the stage; the first that fails rejects."""
    stage = await asyncio.to_thread(bench.stage, "child")
    for command in bench.profile.static:
        name, *arguments = command
        if name not in _KNOWN:
            return Finding(False, f"The profile names {name}, which is none of the judge's tools, so it is unknown.")
        if find_tool(name) is None:
            return Finding(False, f"{name} is not installed, so it is unknown what it would say; install it.")
        if name == "pyrefly":
            arguments += ["--python-interpreter-path", str(PYTHON)]
        work = await asyncio.to_thread(bench.work, name)
        done = await bench.program(
            [tool(name), *arguments],
            stage=stage,
            work=work,
            seconds=bench.profile.static_seconds,
            cwd=SELF,
            environment={"RUFF_NO_CACHE": "true", "XDG_CACHE_HOME": "/judge/tmp"},
        )
        shown = " ".join(command)
        if done.exit_code is None:
            return Finding(False, f"`{shown}` did not end within {bench.profile.static_seconds:.0f} seconds.")
        if done.exit_code != 0:
            said = last_lines(done.output) or last_lines(done.complaint)
            return Finding(False, f"`{shown}` ended with exit code {done.exit_code}.", said)
    return Finding(True, "Lint and types have nothing to say.")
