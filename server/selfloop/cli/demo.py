"""`selfloop demo`: the whole way once, told step by step.

The server, the sandbox, the gate and the protocol are the real ones; so is the git repository, made in a temporary
folder. Played are only the two ends: the model (`selfloop.offline`, over HTTP) and the editor (`_Editor`, below).

Invariant: a step that does not happen ends the demo with a sentence and an exit code above 0; nothing is told that was
not seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from selfloop.cli import showing
from selfloop.cli.client import Client, Onlooker, connect
from selfloop.cli.screen import Screen
from selfloop.errors import RequestFailed
from selfloop.lsp.protocol import (
    Empty,
    GateReadParams,
    GateReadResult,
    GateResolveParams,
    GateResolveResult,
    HunkRef,
    SessionNewParams,
    SessionPromptParams,
    SessionPromptResult,
    SessionRef,
    StatusResult,
)
from selfloop.updates import Gate, GateInfo, MessageChunk, MessageUpdate, Notice, State, ToolCallUpdate, UpdateEnvelope

_SAVED = '''"""Temperatures."""


def to_fahrenheit(celsius):
    return celsius * 9 / 5 + 32


def to_celsius(fahrenheit):
    """Convert from the scale of the United States."""
    return (fahrenheit - 32) * 5 / 9
'''
_UNSAVED = """

def to_kelvin(celsius):
    return celsius + 273.15
"""
_PROMPT = "Please say what each function in temperature.py does."
_PATIENCE_SECONDS = 60.0


def run(*, keep: bool, evolution: bool) -> int:
    """Show the way, and return the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="selfloop-demo-")).resolve()
    try:
        asyncio.run(_Demo(folder).show(evolution=evolution))
    finally:
        if not keep:
            for above, _, _ in os.walk(folder):  # A generation's folders are read-only.
                os.chmod(above, 0o700)  # noqa: PTH101
            shutil.rmtree(folder, ignore_errors=True)
    return 0


class _Demo:
    def __init__(self, folder: Path) -> None:
        self._project = folder / "sample"
        self._home = folder / "home"
        self._file = self._project / "temperature.py"
        self._screen = Screen()
        self._steps = 0
        self._started = time.monotonic()

    async def show(self, *, evolution: bool) -> None:
        from selfloop.offline import MODEL_NAME, OfflineModel

        self._say(
            "Selfloop is a coding agent that lives in your editor as a language server. It works on a copy of what"
        )
        self._say("you see, and nothing of yours changes before you approve it. This is the real server, shown once.")
        await self._make_project()
        with OfflineModel() as model:
            environment = {
                "SELFLOOP_HOME": str(self._home),
                "INFERENCE_BASE_URL": model.url,
                "MODEL_NAME": MODEL_NAME,
                "OPENROUTER_API_KEY": "",
            }
            editor = _Editor(self._screen)
            async with connect(self._project, editor, environment=environment) as client:
                status = await self._open(client, editor)
                session_id = await self._prompt(client, editor)
                gate_id = await self._proposal(editor)
                await self._decide(client, editor, gate_id)
        self._trajectory(session_id)
        if evolution:
            await self._evolve(status)
        self._say(f"\nThat was the whole way, in {time.monotonic() - self._started:.0f} seconds.", "bold green")
        self._say(
            "Next: `selfloop doctor` says what your machine lacks, then `selfloop trust` and `selfloop chat` in a"
        )
        self._say("folder of yours, or let your editor start `selfloop serve`.")

    async def _make_project(self) -> None:
        from selfloop.sandbox.git import git

        self._step("A sample project", "A git repository in a temporary folder, with one file.")
        git_dir = self._project / ".git"
        await asyncio.to_thread(git_dir.mkdir, parents=True)
        await asyncio.to_thread(self._file.write_text, _SAVED, encoding="utf-8")
        await git("init", "--quiet", git_dir=git_dir)
        await git("add", "temperature.py", git_dir=git_dir, work_tree=self._project)
        await git("commit", "--quiet", "--message=Temperatures", git_dir=git_dir, work_tree=self._project)
        self._say(str(self._project), "dim")

    async def _evolve(self, status: StatusResult) -> None:
        """Show an evolution, where commands are jailed: nothing evolves without."""
        if status.isolation != "process":
            self._say("\nNothing evolves where there is no jail, so that part is left out here.", "yellow")
            return
        from selfloop.cli.demo_evolution import EvolutionDemo

        await EvolutionDemo(self._project.parent, self._project, self._home, self._screen, self._step).show()

    async def _open(self, client: Client, editor: _Editor) -> StatusResult:
        self._step(
            "An editor opens it", "It starts `selfloop serve`, opens temperature.py, and types a function. Unsaved."
        )
        editor.open(client, self._file, _SAVED)
        editor.change(_SAVED + _UNSAVED)
        self._show(showing.diff([f"+{line}" for line in _UNSAVED.strip().split("\n")]))
        status = await client.ask("selfloop/status", Empty(), StatusResult)
        self._require(status.trusted, "the workspace is not trusted")
        self._say(f"model: {status.model}; isolation: {status.isolation} ({status.isolation_detail})", "dim")
        return status

    async def _prompt(self, client: Client, editor: _Editor) -> str:
        self._step("You ask for something", "The request is answered at once; what happens then comes as updates.")
        self._say(f"› {_PROMPT}", "bold")
        session = await client.ask("selfloop/session/new", SessionNewParams(), SessionRef)
        await client.ask(
            "selfloop/session/prompt",
            SessionPromptParams(session_id=session.session_id, text=_PROMPT),
            SessionPromptResult,
        )
        while (stopped := await editor.until(editor.stopped, _PATIENCE_SECONDS)) is editor.command:
            await self._allow(client, editor)
        self._require(stopped == "end_turn", f"the turn ended as {stopped!r}")
        self._require(editor.chunks > 1, "the answer did not stream")
        self._require(editor.tools["completed"] >= 3, "the agent did not use its tools")
        return session.session_id

    async def _allow(self, client: Client, editor: _Editor) -> None:
        """Allow the command that waits: without a jail, every one but a plain look asks first."""
        gate, editor.command = editor.command, None
        assert gate is not None  # noqa: S101 - it is what was waited for
        self._say(
            f"A command waits for you, because there is no jail here: {gate.subject.get('command', '')}", "yellow"
        )
        answer = GateResolveParams(gate_id=gate.gate_id, option_id="approve", digest=gate.digest)
        await client.ask("selfloop/gate/resolve", answer, GateResolveResult)
        self._say("approve: this once, bound to a digest of exactly this command")

    async def _proposal(self, editor: _Editor) -> str:
        self._step(
            "The change waits",
            "The agent worked in a fenced copy that held your unsaved function. Its change is a proposal: a gate.",
        )
        gate = editor.gate
        self._require(gate is not None and gate.state == "open", "no proposal was opened")
        self._require(editor.text == _SAVED + _UNSAVED, "the buffer changed before anything was approved")
        assert gate is not None  # noqa: S101 - just required
        return gate.gate_id

    async def _decide(self, client: Client, editor: _Editor, gate_id: str) -> None:
        view = await client.ask("selfloop/gate/read", GateReadParams(gate_id=gate_id), GateReadResult)
        self._show(showing.gate(view, self._project.as_uri()))
        hunks = [hunk for file in view.files for hunk in file.hunks]
        self._require(len(hunks) == 2, f"the proposal has {len(hunks)} hunks, not 2")
        self._step(
            "You decide, hunk by hunk", "The second is approved, the first rejected. Each answer is bound to a digest."
        )
        for hunk, option_id in ((hunks[1], "approve"), (hunks[0], "reject")):
            answer = await client.ask(
                "selfloop/gate/resolve",
                GateResolveParams(
                    gate_id=gate_id,
                    option_id=option_id,
                    hunks=[HunkRef(hunk_id=hunk.hunk_id, digest=hunk.digest)],
                ),
                GateResolveResult,
            )
            self._require(not answer.conflicts, "the approved text could not be put in place")
            self._say(f"{option_id}: hunk {hunk.hunk_id} (gate {answer.gate.state})")
        self._require(answer.gate.state == "resolved", "the gate stayed open")
        self._step("It is in the editor", "As one edit that undo takes back. The file on disk is yours to save.")
        self._require(hunks[1].new_text in editor.text, "the approved hunk is not in the buffer")
        self._require(hunks[0].new_text not in editor.text, "the rejected hunk is in the buffer")
        self._require(await asyncio.to_thread(self._file.read_text) == _SAVED, "the file on disk was touched")
        new = set(hunks[1].new_text.split("\n"))
        for line in editor.text.rstrip("\n").split("\n"):
            self._say(f"  {line}", "green" if line and line in new else "dim")

    def _trajectory(self, session_id: str) -> None:
        self._step(
            "Everything is on record",
            "One JSON line for each event; sessions resume from it, and learning starts there.",
        )
        path = self._project / ".evo" / "sessions" / session_id / "traj.jsonl"
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kinds = Counter(event["kind"] for event in events)
        self._say(str(path.relative_to(self._project)), "dim")
        for kind, count in kinds.items():
            self._say(f"  {count:>3} × {kind}")
        for kind in ("user_input", "llm_response", "tool_call", "tool_result", "gate_opened", "gate_resolved"):
            self._require(kind in kinds, f"the trajectory has no {kind}")

    def _step(self, title: str, text: str) -> None:
        self._steps += 1
        self._say(f"\n{self._steps}. {title}", "bold cyan")
        self._say(text)

    def _say(self, text: str, style: str | None = None) -> None:
        self._screen.say(text, style)

    def _show(self, text: Any) -> None:
        self._screen.say(text)

    def _require(self, happened: bool, failure: str) -> None:
        if not happened:
            raise RequestFailed(
                f"The demo ended at step {self._steps}: {failure}. `selfloop doctor` may tell what is missing."
            )


class _Editor(Onlooker):
    """An editor with one document, which applies versioned edits and counts positions as LSP does."""

    options: ClassVar[Mapping[str, Any]] = {"trusted": True}
    capabilities: ClassVar[Mapping[str, Any]] = {
        "workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}},
        "textDocument": {"publishDiagnostics": {}},
    }

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.text = ""
        self.idle: str | None = None
        """The stop reason, once the turn has ended."""
        self.gate: GateInfo | None = None
        self.command: GateInfo | None = None
        """The gate of a command that waits for an answer."""
        self.tools: Counter[str] = Counter()
        self.chunks = 0
        self._screen = screen
        self._client: Client
        self._uri = ""
        self._version = 0

    def stopped(self) -> Any:
        """Return the command that waits for an answer, or how the turn ended."""
        return self.command or self.idle

    def open(self, client: Client, path: Path, text: str) -> None:
        """Open the document."""
        self._client, self._uri, self.text, self._version = client, path.as_uri(), text, 1
        document = {"uri": self._uri, "languageId": "python", "version": 1, "text": text}
        client.notify("textDocument/didOpen", {"textDocument": document})

    def change(self, text: str) -> None:
        """Replace the document's text, unsaved."""
        self.text = text
        self._version += 1
        document = {"uri": self._uri, "version": self._version}
        self._client.notify("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})

    def update(self, envelope: UpdateEnvelope) -> None:
        match envelope.update:
            case MessageChunk(message_id=message_id, text=text):
                self.chunks += 1
                self._screen.chunk(message_id, text)
            case MessageUpdate(role="assistant") as message:
                self._screen.message(message)
            case ToolCallUpdate() as call:
                self.tools[call.status] += 1
                self._screen.tool(call)
            case Notice(severity="error" | "warning" as severity, text=text):
                self._screen.say(f"{severity}: {showing.visible(text)}", "yellow")
            case Gate(gate=gate) if gate.subject.get("type") == "command":
                self.command = gate if gate.state == "open" else None
            case Gate(gate=gate):
                self.gate = gate
            case State(state="idle", stop_reason=reason):
                self.idle = reason or "nothing"
        self.stir()

    def answer(self, method: str, params: Any) -> Any:
        if method != "workspace/applyEdit":
            return super().answer(method, params)
        for change in params["edit"]["documentChanges"]:
            document = change["textDocument"]
            if document["uri"] != self._uri or document["version"] != self._version:
                return {"applied": False, "failureReason": "The document has changed meanwhile."}
            self.change(_edited(self.text, change["edits"]))
        return {"applied": True}


def _edited(text: str, edits: list[dict[str, Any]]) -> str:
    """Apply LSP edits, whose positions are UTF-16 units of the text before."""
    lines = text.split("\n")

    def offset(position: dict[str, int]) -> int:
        if position["line"] >= len(lines):
            return len(text)
        units = lines[position["line"]].encode("utf-16-le")[: 2 * position["character"]]
        return sum(len(line) + 1 for line in lines[: position["line"]]) + len(units.decode("utf-16-le"))

    for edit in sorted(edits, key=lambda edit: offset(edit["range"]["start"]), reverse=True):
        start, end = offset(edit["range"]["start"]), offset(edit["range"]["end"])
        text = text[:start] + edit["newText"] + text[end:]
    return text
