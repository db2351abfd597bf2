"""How much a model reads in ten iterations of an evolution on this project's own source, against the seed's way.

Ours: the real flow, each iteration of which reads two ranges, edits a file and ends its turn. The seed's: a call for
each iteration, with all prompts, AGENTS.md, the memory index and the whole evolvable source, as it is by then. On both
sides what was sent before as the same beginning counts a tenth, as providers bill it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure
from model_server import Answer, ModelServer, Request, call, text, tools
from self_room import SUGGESTION, is_reflection, open_self_room
from selfloop.evolution.prefix import evolvable
from selfloop.evolution.source import PACKAGE

ITERATIONS = 10
TARGET = 0.25
_EDITED = (
    "stuck", "compaction", "context", "history", "prompts", "repomap", "replay", "tasks", "turn", "unanswered",
)  # fmt: skip
_NOTE = "# A line that an iteration has added.\n"


def run() -> list[Figure]:
    """Measure both, in characters of what is sent."""
    folder = Path(tempfile.mkdtemp(prefix="selfloop-bench-"))
    try:
        ours = asyncio.run(_ours(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    billed, sent, cached = _billed(ours)
    seed_billed, seed_sent, seed_cached = _billed(_seed(PACKAGE.parents[1]))
    shares = f"from the cache {cached / sent:.0%} of {sent / 1000:,.0f}, seed {seed_cached / seed_sent:.0%}"
    return [
        Figure(
            name="input of ten evolve iterations",
            unit="thousand characters as billed",
            target=TARGET,
            value=billed / seed_billed,
            ours=(billed / 1000,),
            baseline=(seed_billed / 1000,),
            baseline_name=f"({shares} of {seed_sent / 1000:,.0f}) the seed's way",
        )
    ]


def _billed(conversation: Sequence[str]) -> tuple[float, int, int]:
    """Return what is billed for calls, what was sent, and how much of it stood at the beginning of the call before."""
    billed, sent, cached, before = 0.0, 0, 0, ""
    for now in conversation:
        same = _common(before, now)
        billed += len(now) - 0.9 * same
        sent += len(now)
        cached += same
        before = now
    return billed, sent, cached


def _common(one: str, other: str) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _seed(root: Path) -> list[str]:
    """Return what the seed would send: everything, with every call, in the order that caches best."""
    texts = {name: (root / name).read_text(encoding="utf-8") for name in evolvable(root)}
    prompts = {path.name: path.read_text(encoding="utf-8") for path in sorted((root / "prompts").rglob("*.md"))}
    head = "".join(prompts.values()) + (root / "AGENTS.md").read_text(encoding="utf-8")
    source = [name for name in texts if not name.startswith("prompts/") and name != "AGENTS.md"]
    calls = []
    for number in range(ITERATIONS):
        calls.append(head + "".join(texts[name] for name in source))
        name = f"server/selfloop/agent/{_EDITED[number]}.py"
        texts[name] += _NOTE
    return calls


async def _ours(folder: Path) -> list[str]:
    """Return what our maker is sent in ten iterations on this project's own source."""
    workspace = folder / "project"
    workspace.mkdir()
    root = PACKAGE.parents[1]
    with ModelServer(_script) as model:
        room = open_self_room(workspace, folder / "home", model.url, root, context_tokens=200_000)
        room.say("Greet with a comma.")
        report = await room.round()
        turns = room.workspace.loops.rounds.get(report.run_id).state["turns"]
        await room.close()
    made = [row for row in turns if row["kind"] == "evolve" and row["changed"]]
    if len(made) != ITERATIONS:
        raise RuntimeError(f"only {len(made)} of {ITERATIONS} iterations were carried out: {report.render()}")
    makers = [request for request in model.requests if not is_reflection(request)]
    return [_sent(request) for request in makers[: ITERATIONS * 3]]


def _sent(request: Request) -> str:
    """Return a request as providers read it: tools first, then the messages."""
    return json.dumps(request.body.get("tools", [])) + "".join(json.dumps(one) for one in request.messages)


def _script(request: Request) -> Answer:
    said = [one for one in request.messages if one["role"] == "assistant"]
    if is_reflection(request):
        if said:
            return text("One.")
        file = "prompts/memory/bench.md"
        return tools(call("suggest_improvement", **{**SUGGESTION, "file": file, "verify": "false"}))
    number, place = divmod(len(said), 3)
    if number >= ITERATIONS:
        return text("SKIP")
    file = f"server/selfloop/agent/{_EDITED[number]}.py"
    if place == 0:
        other = f"server/selfloop/agent/{_EDITED[(number + 1) % ITERATIONS]}.py"
        return tools(call("read_file", path=file), call("read_file", path=other, end=4_000))
    if place == 1:
        return tools(_edit(file))
    return text("A line was added.")


def _edit(file: str) -> Any:
    content = (PACKAGE.parents[1] / file).read_text(encoding="utf-8")
    return call("write_file", path=file, content=_NOTE, start=len(content), end=len(content))
