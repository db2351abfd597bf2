"""`selfloop chat`: one conversation at the terminal.

    lines ──► take ─┬─ an answer to the question that waits ──► gate/resolve
                    ├─ /command
                    └─ anything else ──► session/prompt (queued while a turn runs)
    updates ──► screen, questions

Invariant: a line is an answer only while its question waits, and only if it is one of the answers offered; all else
that is typed reaches the agent, whether or not a turn runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shlex
import signal
import sys
from pathlib import Path

import click

from selfloop.cli import loops, sessions, showing, system
from selfloop.cli.client import Client, Severity, Window, connect
from selfloop.cli.lines import Keyboard, Lines, Pipe
from selfloop.cli.questions import Questions
from selfloop.cli.screen import LiveScreen, Screen
from selfloop.errors import RequestFailed, SelfloopError
from selfloop.lsp.loop_messages import RunRef, RunStartParams
from selfloop.lsp.protocol import (
    Empty,
    GateListParams,
    GateListResult,
    SessionListParams,
    SessionListResult,
    SessionNewParams,
    SessionPromptParams,
    SessionPromptResult,
    SessionReadParams,
    SessionReadResult,
    SessionRef,
    SessionResumeParams,
    SessionResumeResult,
    StatusResult,
)
from selfloop.updates import (
    Gate,
    Generation,
    MessageChunk,
    MessageUpdate,
    Notice,
    Plan,
    RunUpdate,
    State,
    Task,
    Thought,
    ToolCallUpdate,
    Update,
    UpdateEnvelope,
    UsageUpdate,
)

_COMMANDS = {
    "/help": "this list",
    "/cancel": "end the running turn",
    "/steer TEXT": "tell the running turn something, after its present tool call",
    "/new": "begin a new session",
    "/sessions": "list the sessions",
    "/evolve": "have Selfloop learn from its sessions and improve itself; you approve what comes of it",
    "/exit": "leave",
}
_AT_ONCE = ("/cancel", "/steer")
_RECALLED_MESSAGES = 6
"""So many are printed again when a session is gone on with."""


def run(folder: Path, session_id: str | None) -> int:
    """Hold a conversation until the user leaves, and return the exit code."""
    live = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    if folder.is_dir() and not system.is_trusted(folder):
        _offer_trust(folder, ask=live)
    return asyncio.run(_talk(folder, session_id, live=live))


async def _talk(folder: Path, session_id: str | None, *, live: bool) -> int:
    chat = Chat(folder, LiveScreen() if live else Screen())
    async with connect(folder, chat) as client:
        return await chat.run(client, session_id, live=live)


def _offer_trust(folder: Path, *, ask: bool) -> None:
    explanation = (
        f"{folder} is not trusted yet. In a trusted folder Selfloop shows files to your model and runs git and fenced "
        "commands; look at a stranger's code before you trust it."
    )
    if not ask:
        raise RequestFailed(f"{explanation} Nothing was started; `selfloop trust {folder}` trusts it.")
    click.echo(showing.visible(explanation))
    if not click.confirm("Trust this folder?"):
        raise RequestFailed("The folder stays untrusted, so nothing was started.")
    system.trust(folder, remove=False, listing=False, as_json=False)


class Chat(Window):
    """The conversation. It is the window that the server's updates come to."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self._folder = folder
        self._screen = screen
        self._client: Client
        self._lines: Lines
        self._questions: Questions
        self._status: StatusResult
        self._usage: UsageUpdate | None = None
        self._session: str | None = None
        self._seq = 0
        self._sent: list[str] = []
        """Own messages whose echo has not come yet."""
        self._running = False
        self._interrupts = 0
        self._cancelling: asyncio.Future[None] | None = None
        self._evolution: str | None = None
        """The evolution that was begun here and runs."""
        self._changed = asyncio.Event()
        self._leave = asyncio.Event()
        self._code = 0
        self._ready = False

    async def run(self, client: Client, session_id: str | None, *, live: bool) -> int:
        """Talk until the user leaves or the server ends, and return the exit code."""
        self._client = client
        self._status = await client.ask("selfloop/status", Empty(), StatusResult)
        root = next(iter(self._status.folders), self._folder.as_uri())
        self._questions = Questions(client, self._screen, root, changed=self._refresh)
        with contextlib.ExitStack() as around:
            self._lines = self._keyboard(around) if live else Pipe()
            self._ready = True
            with contextlib.suppress(NotImplementedError):  # Windows has no such handlers.
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupted)
            self._greet()
            if session_id is not None:
                await self._resume(session_id)
            async with asyncio.TaskGroup() as group:
                ended = group.create_task(client.ended())
                talking = group.create_task(self._read_keyboard() if live else self._read_pipe())
                tasks = [ended, talking, *map(group.create_task, (self._leave.wait(), self._questions.keep_asking()))]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if ended.done() and not talking.done():
                    self._fail("The server has ended, so the chat ends too; what was said is kept.")
                for task in tasks:
                    task.cancel()
            await self._farewell()
        return self._code

    # Lines

    async def _read_keyboard(self) -> None:
        while not self._leave.is_set() and (line := await self._lines.next()) is not None:
            if line.strip():
                self._screen.say(f"› {showing.visible(line)}", "bold")
            await self.take(line)

    async def _read_pipe(self) -> None:
        """Take the lines in order, each once the turn before has ended or asks something; what ends a turn, at once."""
        while not self._leave.is_set() and (line := await self._lines.next()) is not None:
            if line.split(" ", 1)[0] not in _AT_ONCE:
                await self._settled()
            await self.take(line)
        if not self._leave.is_set():
            await self._settled()
            if self._running:
                self._fail("The input has ended, so nobody can answer; the turn is cancelled.")

    async def _settled(self) -> None:
        """Wait until no turn runs, or it waits for an answer."""
        while not self._questions.rested or (self._running and self._questions.current is None):
            self._changed.clear()
            await self._changed.wait()

    async def take(self, line: str) -> None:
        """Do what a line says. A failure is told, and the conversation goes on."""
        self._interrupts = 0
        text = line.strip()
        try:
            if await self._questions.answer(text):
                return
            if re.match(r"/[a-z]*( |$)", line):
                await self._command(*text.partition(" ")[::2])
            elif text:
                await self._say(text)
        except SelfloopError as error:
            self._fail(error.message)

    async def _say(self, text: str, *, steer: bool = False) -> None:
        if self._session is None:
            created = await self._client.ask("selfloop/session/new", SessionNewParams(), SessionRef)
            self._session = created.session_id
        was_running = self._running
        self._set_running(True)  # Known before the answer comes, which the turn's own updates may overtake.
        self._sent.append(text)
        params = SessionPromptParams(session_id=self._session, text=text, delivery="steer" if steer else None)
        try:
            answer = await self._client.ask("selfloop/session/prompt", params, SessionPromptResult)
        except SelfloopError:
            self._set_running(was_running)
            self._sent.remove(text)
            raise
        if answer.delivery == "queue":
            self._screen.say("queued: it is taken up when this turn has ended", "dim")

    async def _command(self, name: str, rest: str) -> None:
        match name:
            case "/help":
                for command, meaning in _COMMANDS.items():
                    self._screen.say(f"{command:<14}{meaning}")
                self._screen.say("Anything else is said to the agent; while it works, it is queued.", "dim")
            case "/exit":
                self._leave.set()
            case "/cancel" if self._running:
                await self._cancel()
            case "/cancel":
                self._screen.say("No turn is running, so there was nothing to cancel.", "dim")
            case "/steer" if rest.strip():
                await self._say(rest.strip(), steer=True)
            case "/steer":
                self._screen.say("/steer needs the text that the running turn is to be told.", "yellow")
            case "/new" if self._running:
                self._screen.say("A turn is running, so no new session was begun; /cancel ends it.", "yellow")
            case "/new":
                self._begin(None)
                self._questions.begin([])
                self._screen.say("A new session begins with your next message.", "dim")
            case "/sessions":
                result = await self._client.ask("selfloop/session/list", SessionListParams(), SessionListResult)
                table = [sessions.session_line(session) for session in result.sessions]
                self._screen.say(showing.rows(table) if table else "There is no session here yet.")
            case "/evolve":
                started = await self._client.ask("selfloop/run/start", RunStartParams(loop_id=loops.EVOLUTION), RunRef)
                self._evolution = started.run_id
                self._screen.say("It evolves; you can go on here meanwhile.", "dim")
            case _:
                self._screen.say(f"There is no command {name}, so nothing was sent; /help lists them.", "yellow")

    async def _cancel(self) -> None:
        if self._session is not None:
            await self._client.ask("selfloop/session/cancel", SessionRef(session_id=self._session), Empty)

    async def _cancel_told(self) -> None:
        try:
            await self._cancel()
        except SelfloopError as error:
            self._fail(error.message)

    def _interrupted(self) -> None:
        """Take a Ctrl-C: the first one cancels the turn, the next one leaves."""
        self._interrupts += 1
        if self._running and self._interrupts == 1:
            self._screen.say("Cancelling; Ctrl-C once more leaves.", "yellow")
            self._cancelling = asyncio.ensure_future(self._cancel_told())
        elif self._interrupts == 1 and isinstance(self._lines, Keyboard):
            self._screen.say("Ctrl-C once more leaves.", "dim")
        else:
            self._code = 130
            self._leave.set()

    # Beginning and end

    def _keyboard(self, around: contextlib.ExitStack) -> Keyboard:
        words = [command.split(" ")[0] for command in _COMMANDS]
        keyboard = Keyboard(prompt=self._prompt, toolbar=self._toolbar, words=words, interrupt=self._interrupted)
        around.enter_context(keyboard.above())
        return keyboard

    def _greet(self) -> None:
        model = showing.visible(self._status.model or "no model yet: see `selfloop doctor`")
        self._screen.say(f"Selfloop {self._status.version} in {showing.visible(str(self._folder))}", "bold")
        self._screen.say(f"{model}; isolation {self._status.isolation}; /help lists the commands", "dim")
        if self._status.gates_pending:
            self._screen.say(f"{self._status.gates_pending} open gate(s): `selfloop gate list`", "yellow")

    def _begin(self, session_id: str | None) -> None:
        self._session, self._seq, self._running = session_id, 0, False
        self._sent.clear()

    async def _resume(self, session_id: str) -> None:
        """Go on with a session: tell what was said last, and take up its gates."""
        resumed = await self._client.ask(
            "selfloop/session/resume", SessionResumeParams(session_id=session_id), SessionResumeResult
        )
        self._begin(session_id)
        page = await self._client.ask(
            "selfloop/session/read", SessionReadParams(session_id=session_id), SessionReadResult
        )
        messages = [envelope.update for envelope in page.updates if isinstance(envelope.update, MessageUpdate)]
        for message in messages[-_RECALLED_MESSAGES:]:
            self._print(message)
        self._seq = max(self._seq, resumed.seq)
        known = await self._client.ask("selfloop/session/list", SessionListParams(), SessionListResult)
        gates = await self._client.ask("selfloop/gate/list", GateListParams(state="open"), GateListResult)
        self._questions.begin([gate for gate in gates.gates if gate.session_id == session_id])
        self._set_running(any(row.session_id == session_id and row.state == "running" for row in known.sessions))

    async def _farewell(self) -> None:
        if self._session is None:
            return
        if self._running:
            with contextlib.suppress(SelfloopError):  # Without a server nothing runs any more.
                await self._cancel()
        for gate in self._questions.gates.values():
            self._screen.say(f"Still open: `selfloop gate show {gate.gate_id}`", "yellow")
        again = f"selfloop chat {shlex.quote(str(self._folder))} --session {self._session}"
        self._screen.say(f"Go on with: {showing.visible(again)}", "dim")

    def _fail(self, sentence: str) -> None:
        """Tell a failure. A script learns of it by the exit code; a person has read it."""
        self._screen.say(showing.visible(sentence), "red")
        if not isinstance(self._lines, Keyboard):
            self._code = 1

    # Updates

    def update(self, envelope: UpdateEnvelope) -> None:
        """Print an update of this session, or of the workspace itself."""
        if envelope.session_id is None:
            super().update(envelope)
            self._note_evolution(envelope.update)
            return
        if envelope.session_id != self._session or envelope.seq <= self._seq:
            return
        self._seq = envelope.seq
        match envelope.update:
            case MessageChunk(message_id=message_id, text=text):
                self._screen.chunk(message_id, text)
            case MessageUpdate() as message:
                self._print(message)
            case Thought():
                self._screen.thinking()
            case ToolCallUpdate() as call:
                self._screen.tool(call)
            case Plan() as plan:
                self._screen.plan(plan)
            case Task(number=number) if number > 1:
                self._screen.say(f"— task {number} —", "dim")
            case Notice(severity=severity, text=text):
                self.message(severity, text)
            case UsageUpdate() as usage:
                self._usage = usage
            case Gate(gate=gate):
                self._questions.note(gate)
            case State() as state:
                self._note_state(state)
        self._refresh()

    def _note_evolution(self, update: Update) -> None:
        """Print where an evolution is that was begun here, and which generation serves."""
        if isinstance(update, Generation) and update.state != "starting":
            why = f": {showing.visible(update.reason)}" if update.reason else ""
            self._screen.say(f"generation {update.number}: {update.state}{why}", "dim")
        if not isinstance(update, RunUpdate) or update.run_id != self._evolution:
            return
        if update.report is None:
            self._screen.say(f"evolution: {update.phase} …", "dim")
        else:
            self._screen.say(showing.report(update.report.render()).rstrip())
            if update.report.gate_id is not None:
                gate = update.report.gate_id
                self._screen.say(f"`selfloop gate show {gate}` shows it, `selfloop gate approve {gate}` adopts it.")
            self._evolution = None

    def message(self, severity: Severity, text: str) -> None:
        """Print a sentence of the server."""
        self._screen.say(
            showing.visible(showing.said(text)), {"error": "red", "warning": "yellow", "info": "dim"}[severity]
        )

    def _print(self, message: MessageUpdate) -> None:
        if message.role == "assistant":
            self._screen.message(message)
        elif message.status == "removed":
            self._screen.say("(a message that waited was taken out of the queue)", "dim")
        elif message.text in self._sent:
            self._sent.remove(message.text)
        else:
            self._screen.say(f"› {showing.visible(message.text)}", "bold")

    def _note_state(self, state: State) -> None:
        if state.state == "running":
            self._screen.turn_started()
        else:
            self._screen.turn_ended()
            if state.stop_reason == "error":
                self._fail("(stopped by an error)")
            elif state.stop_reason not in (None, "end_turn"):
                self._screen.say(f"({sessions.stopped(str(state.stop_reason))})", "yellow")
        self._set_running(state.state == "running")

    def _set_running(self, running: bool) -> None:
        self._running = running
        self._questions.turn(running=running)

    def _refresh(self) -> None:
        self._changed.set()
        if self._ready:
            self._lines.refresh()

    # What stands around the input line

    def _prompt(self) -> str:
        live = self._screen.live() if isinstance(self._screen, LiveScreen) else ""
        return f"{live}{self._questions.current.words + ' ' if self._questions.current else ''}› "

    def _toolbar(self) -> str:
        parts = [self._status.model or "no model"]
        if (usage := self._usage) is not None:
            parts.append(f"context {100 * usage.context_tokens // max(1, usage.context_limit)} %")
            parts.append(f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out")
            if usage.cost_usd is not None:
                parts.append(f"${usage.cost_usd:.4f}")
        return showing.visible(" · ".join(parts))
