"""G4: the candidate serves as its parent did: every step of the canary, answers exactly once, no noise, no slower.

Invariant: what the parent does is the measure, by a run of its own in the same jail; a canary that ended without its
report has failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import median
from typing import Any

from selfloop.evolution.layers.bench import Bench, Finding, last_lines
from selfloop.evolution.layers.canaries import LOG_LINE, capabilities, childs_canary, parents_canary, said
from selfloop.evolution.layers.canary_run import CanaryRun

_TIMED = (
    "turn chat",
    "turn read",
    "turn tool",
    "turn escape",
    "old_sessions",
    "begin",
    "light_bulb",
    "cancel",
    "tool",
    "escape",
    "read_back",
)
_MOST_STARTED_SECONDS = 15.0


async def run(bench: Bench) -> Finding:
    """Run the candidate's canary, on what the parent's has left, and compare."""
    parent = await parents_canary(bench)
    if isinstance(parent, Finding):
        return parent
    child = await childs_canary(bench)
    found = list(_failures(child, parent))
    if not found and (slow := list(_slower(child, parent, bench))):
        # One busy moment of the machine is no slow candidate; two are taken for one.
        again = await childs_canary(bench, anew=True)
        found = list(_failures(again, parent)) or list(_slower(again, parent, bench))
        found = found and [*found, *slow]
    if found:
        return Finding(False, found[0], (*found[1:20], *last_lines(child.ended.complaint)))
    turn = median(child.seen["seconds"]["turn chat"]) * 1000
    return Finding(
        True,
        f"The worker did all a person asks of it; a chat turn takes {turn:.0f} ms, the parent's "
        f"{median(parent['seconds']['turn chat']) * 1000:.0f} ms.",
    )


def _failures(run: CanaryRun, parent: dict[str, Any]) -> Iterator[str]:
    if run.ended.exit_code is None:
        yield "The canary did not end in time."
    elif not run.seen:
        yield f"The canary ended with exit code {run.ended.exit_code} and without its report."
    yield from run.seen.get("failures", ())
    if not run.seen:
        return
    if len(run.workers) != 1:
        yield f"{len(run.workers)} workers were started, not one: it crashed."
    for worker in run.workers:
        if "end" not in worker:
            yield "A worker had to be killed."
        yield from frame_faults(worker.get("stdout", b""))
    new = [line for line in said(run) if line not in parent["said"] and not LOG_LINE.match(line)]
    if new:
        yield f"It writes what the parent does not, such as {new[0][:120]!r}."
    missing = _missing(parent["capabilities"], capabilities(run))
    if missing:
        yield f"It no longer offers {missing}."


def _slower(run: CanaryRun, parent: dict[str, Any], bench: Bench) -> Iterator[str]:
    allowed = bench.profile.canary
    for step in _TIMED:
        mine, theirs = run.seen["seconds"].get(step), parent["seconds"].get(step)
        if mine and theirs and median(mine) > median(theirs) * allowed.slower + allowed.slack_seconds:
            yield f"{step} takes {median(mine):.2f} seconds, the parent's {median(theirs):.2f}."
    started = run.seen["seconds"]["initialize"][0]
    if started > _MOST_STARTED_SECONDS:
        yield f"It takes {started:.0f} seconds to start."


def frame_faults(data: bytes) -> Iterator[str]:
    """Yield what of a worker's own output is no frame, or an answer that was given before."""
    answered: set[tuple[str, str]] = set()
    offset = 0
    while offset < len(data):
        end = data.find(b"\r\n\r\n", offset)
        head = data[offset:end].decode("ascii", "replace") if end >= 0 else ""
        headers = dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)
        if not headers.keys() >= {"Content-Length", "Selfloop-Window"} or not headers["Content-Length"].isdigit():
            yield f"What is no message came between the messages: {data[offset : offset + 60]!r}."
            return
        start = end + 4
        offset = start + int(headers["Content-Length"])
        try:
            value = json.loads(data[start:offset])
        except ValueError:
            yield f"A message is no JSON: {data[start : start + 60]!r}."
            return
        if "method" not in value and "id" in value:
            key = (headers["Selfloop-Window"], json.dumps(value["id"]))
            if key in answered:
                yield f"The request {key[1]} was answered twice."
            answered.add(key)


def _missing(before: Any, after: Any, path: str = "") -> str | None:
    """Return the first thing of `before` that `after` does not have."""
    if isinstance(before, dict):
        if not isinstance(after, dict):
            return path or "any capability"
        return next(
            (
                lost
                for name in before
                if (lost := _missing(before[name], after.get(name), f"{path}.{name}".lstrip(".")))
            ),
            None,
        )
    if isinstance(before, list):
        return path if not isinstance(after, list) or any(item not in after for item in before) else None
    return None if before == after else path
