"""The canaries of one judgement: the parent's, run once and kept, and the candidate's, which two layers look at."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from selfloop.evolution.layers.bench import Bench, Finding, last_lines
from selfloop.evolution.layers.canary_run import CanaryRun, keep_state, run_canary
from selfloop.evolution.layers.traces import leaks_of, touches_of

LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ (?:DEBUG|INFO|WARNING) ")
"""A line of the worker's own log that tells of nothing bad."""
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+|[0-9a-f]{12,}")


async def parents_canary(bench: Bench) -> dict[str, Any] | Finding:
    """Return what is kept of the parent's canary, which is run once: in a new project, then on its own leavings."""
    kept = await asyncio.to_thread(bench.recall, "canary")
    state = _state(bench)
    if kept is not None and state.is_dir():
        return kept
    first = await run_canary(bench, "parent", None)
    if not first.seen or first.seen["failures"]:
        return _unknown(first)
    await asyncio.to_thread(keep_state, first, state)
    second = await run_canary(bench, "parent", state)
    if not second.seen or second.seen["failures"]:
        return _unknown(second)
    value = {
        "seconds": second.seen["seconds"],
        "capabilities": capabilities(second),
        "said": sorted({line for run in (first, second) for line in said(run)}),
        "leaks": sorted({leak for run in (first, second) for leak in leaks_of(run)}),
        "touches": sorted({touch for run in (first, second) for touch in touches_of(run)}),
    }
    await asyncio.to_thread(bench.keep, "canary", value)
    return value


async def childs_canary(bench: Bench, *, anew: bool = False) -> CanaryRun:
    """Return the run of the candidate's canary; two layers look at the same one."""
    if anew or "child" not in bench.canaries:
        bench.canaries["child"] = await run_canary(bench, "child", _state(bench))
    return bench.canaries["child"]


def _state(bench: Bench) -> Path:
    return bench.kept / f"{bench.parent_tree}-state"


def _unknown(run: CanaryRun) -> Finding:
    failures = run.seen.get("failures") or [f"it ended with exit code {run.ended.exit_code} and said nothing"]
    details = (
        *failures,
        *last_lines(run.ended.complaint),
        *(line for one in run.workers for line in last_lines(one.get("stderr", b""))),
    )
    return Finding(
        False, f"The parent's own canary fails here ({failures[0]}), so the candidate's is unknown.", details
    )


def said(run: CanaryRun) -> list[str]:
    """Return what workers wrote to stderr, which is also where their stdout leads; numbers left out."""
    lines = [line for one in run.workers for line in one.get("stderr", b"").decode("utf-8", "replace").splitlines()]
    return [line if LOG_LINE.match(line) else _NUMBERS.sub("#", line) for line in lines if line.strip()]


def capabilities(run: CanaryRun) -> Any:
    """Return what the worker itself says it can do: the supervisor's own answer is a recorded one."""
    for worker in run.workers:
        for body in re.split(rb"Content-Length: \d+\r\nSelfloop-Window: \d+\r\n\r\n", worker.get("stdout", b"")):
            if b'"capabilities"' in body:
                try:
                    result = json.loads(body).get("result")
                except ValueError:
                    continue
                if isinstance(result, dict) and "capabilities" in result:
                    return result["capabilities"]
    return {}
