"""G5: random questions to the policy core, parent against candidate, after everything of the candidate is imported.

The probes are the parent's; the inputs come from the seed of this judgement, which the candidate was made before.
Invariant: one answer that differs is a rejection, and the input is shown.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from selfloop.evolution.layers.bench import Bench, Finding, last_lines

Answers = dict[str, list[Any]]
_SHOWN = 5


async def run(bench: Bench) -> Finding:
    """Ask both, and compare."""
    parent, child = await asyncio.gather(_ask(bench, "parent"), _ask(bench, "child"))
    if isinstance(parent, Finding):
        return parent
    if isinstance(child, Finding):
        return child
    different = []
    for name, questions in parent.items():
        answers = child.get(name, [])
        if len(answers) != len(questions):
            return Finding(False, f"The candidate answered {len(answers)} of {len(questions)} questions of {name!r}.")
        for (value, before), (_, after) in zip(questions, answers, strict=True):
            if before != after:
                different.append((name, value, before, after))
    if different:
        name, value, before, after = different[0]
        details = tuple(
            f"{one[0]}: {_short(one[1])} → the parent {_short(one[2])}, the candidate {_short(one[3])}"
            for one in different[:_SHOWN]
        )
        return Finding(
            False,
            f"The candidate decides otherwise on {name!r}: for {_short(value)} the parent says {_short(before)}, it "
            f"says {_short(after)}.",
            details,
        )
    count = sum(len(questions) for questions in parent.values())
    return Finding(True, f"{count} random questions to {len(parent)} parts of the policy core have the same answers.")


async def _ask(bench: Bench, which: str) -> Answers | Finding:
    profile = bench.profile
    stage = await asyncio.to_thread(bench.stage, which)
    work = await asyncio.to_thread(bench.work, f"probes-{which}")
    arguments = ["/inside/probe.py", f"/self/{profile.probes}", str(bench.seed), str(profile.probe_inputs)]
    # The jail's own /tmp is in memory, and probes of files make many folders.
    memory = {"TMPDIR": "/tmp"}  # noqa: S108
    done = await bench.python(arguments, stage=stage, work=work, seconds=profile.probe_seconds, environment=memory)
    who = "parent" if which == "parent" else "candidate"
    try:
        answers: Answers = dict(json.loads(line) for line in done.output.decode("utf-8").splitlines())
    except (ValueError, TypeError):
        answers = {}
    if done.exit_code != 0 or answers.pop("end", None) is None:
        end = "did not end in time" if done.exit_code is None else f"ended with exit code {done.exit_code}"
        said = last_lines(done.complaint)
        return Finding(False, f"The probes of the {who} {end} before they were answered, so they are unknown.", said)
    return answers


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "…"
