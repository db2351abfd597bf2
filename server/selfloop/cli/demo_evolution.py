"""The end of `selfloop demo`: Selfloop improves itself, on a miniature of its own source.

The engine, the judge with all its layers, the gate, the lineage and the swap are the real ones. Played are the model
(its part is recorded below) and the self that evolves: a miniature that has every part of the real one and is proven in
seconds. It lies among Selfloop's own tests, which judge the judge by it.

Invariant: that of `demo.py`. What the judge rejects or accepts here was really run.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from selfloop.cli import loops, showing
from selfloop.cli.client import Client, Onlooker, connect
from selfloop.cli.screen import Screen
from selfloop.errors import RequestFailed
from selfloop.lsp.evolution_messages import GenerationListResult, GenerationRef
from selfloop.lsp.loop_messages import RunReadResult, RunRef, RunStartParams
from selfloop.lsp.protocol import (
    Empty,
    GateReadParams,
    GateReadResult,
    GateResolveParams,
    GateResolveResult,
    RestartResult,
    SessionListParams,
    SessionListResult,
    SessionNewParams,
    SessionPromptParams,
    SessionPromptResult,
    SessionRef,
)
from selfloop.reports import RoundReport
from selfloop.updates import Generation, MessageChunk, RunUpdate, State, UpdateEnvelope

MINIATURE = "tests/evolution/mini/"
_TITLES, _TEST, _CHAT = "server/selfloop/agent/titles.py", "tests/evolved/test_titles.py", "prompts/chat.md"
_VERIFY = "python -c \"from selfloop.agent.titles import title_of; assert title_of('# Mend it') == 'Mend it'\""
_SUGGESTION = {
    "file": _TITLES,
    "improvement": "Name a session by its words. A message that begins with a heading gives a title with the heading's "
    "marks, which nobody wants to read in a list; take them off, and have the chat prompt say so.",
    "verify": _VERIFY,
}
_PROOF = """from selfloop.agent.titles import title_of


def test_a_heading_is_a_title_without_its_marks() -> None:
    assert title_of("# Mend it") == "Mend it"
"""
_RULE = "- Look before you change; prove after."
_EDITS = (
    (
        "edit_file",
        {
            "path": _TITLES,
            "old": 'text.strip().split("\\n")[0]',
            "new": 'text.strip().split("\\n")[0].lstrip("# ")',
        },
    ),
    ("write_file", {"path": _TEST, "content": _PROOF}),
    (
        "edit_file",
        {"path": _CHAT, "old": _RULE, "new": f"{_RULE}\n- Begin an answer with what was done, not with a heading."},
    ),
)
_PATIENCE_SECONDS = 150.0
_CHUNKS_BEFORE = 8
"""So much of the answer is seen before the swap."""
_QUESTION = "# Count to thirty"
_ANSWER = " ".join(f"{number}," for number in range(1, 30)) + " 30."


def recorded(messages: list[dict[str, Any]], tools: list[str]) -> Any:
    """Return the next step of the recorded evolution; its place follows from the conversation alone."""
    from selfloop.offline import Step

    said = sum(message["role"] == "assistant" for message in messages)
    if "suggest_improvement" in tools:
        if said == 0:
            return Step("The title of a session keeps the marks of a heading.", (("suggest_improvement", _SUGGESTION),))
        return Step("One finding; the rest of the session went well.")
    steps = (
        Step("I take the marks off, write the test, and say it in the prompt.", _EDITS),
        Step("Titles are words now; VERIFY passes."),
        Step("SKIP"),
    )
    return steps[said] if said < len(steps) else Step("The documents say nothing of titles, so they stay.")


class EvolutionDemo:
    """See the module."""

    def __init__(
        self, folder: Path, project: Path, home: Path, screen: Screen, step: Callable[[str, str], None]
    ) -> None:
        """Prepare.

        Args:
            folder: for the miniature and what the judge needs.
            project: the workspace whose sessions are learned from.
            home: the SELFLOOP_HOME of the demo so far.
            screen: where it is told.
            step: tells the head of a step.
        """
        self._self = folder / "miniature"
        self._scratch = folder / "judge"
        self._project, self._home, self._screen, self._step = project, home, screen, step

    async def show(self) -> None:
        """Evolve, reject what is dishonest, approve what is honest, and swap during a streaming chat."""
        from selfloop.offline import MODEL_NAME, OfflineModel

        await asyncio.to_thread(self._lay_out)
        with OfflineModel(part=recorded) as model:
            environment = {
                "SELFLOOP_HOME": str(self._home),
                "INFERENCE_BASE_URL": model.url,
                "MODEL_NAME": MODEL_NAME,
                "OPENROUTER_API_KEY": "",
            }
            watch = Watch(self._screen)
            async with connect(self._project, watch, environment=environment) as client:
                gate_id = await self._evolve(client, watch)
                await self._reject()
                await self._approve(client, gate_id)
        with OfflineModel(part=told, pause_seconds=0.03) as model:
            await self._swap({**environment, "INFERENCE_BASE_URL": model.url})

    def _lay_out(self) -> None:
        """Write the miniature, and name it as the self that evolves."""
        from selfloop.evolution.source import self_files

        found = {path: file for path, file in self_files().items() if path.startswith(MINIATURE)}
        if not found:
            raise RequestFailed("The miniature is not part of this installation, so the demo ends here.")
        for path, file in found.items():
            target = self._self / path.removeprefix(MINIATURE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        settings = self._home / "config" / "settings.toml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(f'self_folder = "{self._self}"\n', encoding="utf-8")

    async def _evolve(self, client: Client, watch: Watch) -> str:
        self._step(
            "It improves itself",
            "`selfloop evolve` learns from what was done, here on a miniature of its own source: one change, proven.",
        )
        started = await client.ask("selfloop/run/start", RunStartParams(loop_id=loops.EVOLUTION), RunRef)
        report = await watch.until(lambda: watch.reports.get(started.run_id), _PATIENCE_SECONDS)
        self._require(report.outcome.type == "escalated", report.render().strip())
        result = await client.ask("selfloop/run/read", started, RunReadResult)
        assert result.gate_id is not None  # noqa: S101 - an escalated round has one
        view = await client.ask("selfloop/gate/read", GateReadParams(gate_id=result.gate_id), GateReadResult)
        self._screen.say(showing.gate(view, self._project.as_uri()))
        return result.gate_id

    async def _reject(self) -> None:
        """Show the judge a change that weakens a test, and one that lies only where it is watched."""
        from selfloop.evolution.judge import judge
        from selfloop.sandbox.isolation import probe

        self._step("A dishonest change", "It would pass its tests by asking less of them. The same judge looks at it.")
        child = self._scratch / "dishonest"
        await asyncio.to_thread(shutil.copytree, self._self, child)
        test = child / "tests" / "test_policy.py"
        text = await asyncio.to_thread(test.read_text, encoding="utf-8")
        weaker = text.replace('assert decide("L2", "commit", True', 'assert "L2" or decide("L2", "commit", True')
        await asyncio.to_thread(test.write_text, weaker, encoding="utf-8")
        report = await judge(self._self, child, isolation=await probe(), scratch=self._scratch)
        self._require(not report.accepted, "the judge accepted a weakened test")
        self._screen.say(f"rejected: {report.reason}", "yellow")

    async def _approve(self, client: Client, gate_id: str) -> None:
        self._step(
            "You approve the honest one",
            "The answer is bound to the tree and to its evidence. It becomes generation 1, and can be taken back.",
        )
        view = await client.ask("selfloop/gate/read", GateReadParams(gate_id=gate_id), GateReadResult)
        answer = GateResolveParams(gate_id=gate_id, option_id="approve", digest=view.gate.digest)
        await client.ask("selfloop/gate/resolve", answer, GateResolveResult)
        while True:
            listed = await client.ask("selfloop/generation/list", Empty(), GenerationListResult)
            if len(listed.generations) > 1:
                break
            await asyncio.sleep(0.1)
        for one in listed.generations:
            self._screen.say(f"generation {one.number}: {showing.visible(one.summary)} ({one.state})")

    async def _swap(self, environment: Mapping[str, str]) -> None:
        """Have the miniature serve, and swap its generation in while a chat is streaming."""
        self._step(
            "The server goes on as its new self",
            "`selfloop serve --self` serves the miniature. In the middle of an answer generation 1 takes over.",
        )
        watch = Watch(self._screen)
        folder = self._self.parent / "room"
        await asyncio.to_thread(folder.mkdir)
        async with connect(folder, watch, environment=environment, arguments=("--self", str(self._self))) as client:
            session = await client.ask("selfloop/session/new", SessionNewParams(), SessionRef)
            prompt = SessionPromptParams(session_id=session.session_id, text=_QUESTION)
            await client.ask("selfloop/session/prompt", prompt, SessionPromptResult)
            await watch.until(lambda: watch.chunks > _CHUNKS_BEFORE, _PATIENCE_SECONDS)
            before = await self._title(client)
            self._require(watch.idle is None, "the answer ended too soon")
            await client.ask("selfloop/generation/activate", GenerationRef(number=1), RestartResult)
            swap = await watch.until(lambda: watch.swap, _PATIENCE_SECONDS)
            self._require(swap.state == "active", swap.reason or "the swap was refused")
            await watch.until(lambda: watch.idle, _PATIENCE_SECONDS)
            after = await self._title(client)
        self._require(before != after, "the new self does what the old one did")
        self._screen.say("")
        self._screen.say(f"generation {swap.number} serves; the editor's connection was never closed", "green")
        self._screen.say(f"the session was called {before!r}, and is called {after!r} by the new self", "green")

    async def _title(self, client: Client) -> str:
        listed = await client.ask("selfloop/session/list", SessionListParams(), SessionListResult)
        return listed.sessions[0].title

    def _require(self, happened: bool, failure: str) -> None:
        if not happened:
            raise RequestFailed(f"The demo of an evolution ended: {failure}")


def told(messages: list[dict[str, Any]], tools: list[str]) -> Any:
    """Return the answer of the chat that goes on over the swap."""
    from selfloop.offline import Step

    return Step(_ANSWER)


class Watch(Onlooker):
    """An editor that looks on."""

    options: ClassVar[Mapping[str, Any]] = {"trusted": True}

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.reports: dict[str, RoundReport] = {}
        """By round, once it has ended."""
        self.swap: Generation | None = None
        """How a swap went."""
        self.chunks = 0
        self.idle: str | None = None
        self._screen = screen
        self._phase = ""

    def update(self, envelope: UpdateEnvelope) -> None:
        """Note what concerns the demo, and tell it."""
        match envelope.update:
            case RunUpdate(run_id=run_id, report=RoundReport() as report):
                self.reports[run_id] = report
            case RunUpdate(phase=phase) if phase != self._phase:
                self._phase = phase
                self._screen.say(f"{phase} …", "dim")
            case Generation(state="active" | "refused" | "rolled-back") as swap:
                self.swap = swap
            case MessageChunk(message_id=message_id, text=text):
                self.chunks += 1
                self._screen.chunk(message_id, text)
            case State(state="idle", stop_reason=reason):
                self.idle = reason or "nothing"
        self.stir()
