"""What a chat asks its user: the commands that a turn waits for at once, and after a turn its proposal, hunk by hunk.

Invariants: an answer belongs to the question that is on the screen, and carries the digest of what was shown there. A
gate that changes withdraws its question; what is asked next is read anew from the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

from attrs import frozen

from selfloop.cli import showing
from selfloop.cli.client import Client
from selfloop.cli.gates import Kind, option_of
from selfloop.cli.screen import Screen
from selfloop.errors import SelfloopError
from selfloop.lsp.protocol import (
    GateFile,
    GateHunk,
    GateReadParams,
    GateReadResult,
    GateResolveParams,
    GateResolveResult,
    HunkRef,
)
from selfloop.updates import GateInfo

if TYPE_CHECKING:
    from rich.text import Text

Answer = Callable[[], Awaitable[None]]


@frozen
class Question:
    """What the user is asked right now."""

    key: tuple[str, str]
    """The gate, and the digest of what is asked about: the same question is not printed twice."""
    words: str
    answers: dict[str, Answer]
    """By each spelling."""


class Questions:
    """The open gates of one session, asked about one thing at a time."""

    def __init__(self, client: Client, screen: Screen, root: str, *, changed: Callable[[], None]) -> None:
        """Ask nothing yet.

        Args:
            client: the server that is decided with.
            screen: where questions are printed.
            root: the workspace's URI.
            changed: called when another question waits, or none does.
        """
        self.current: Question | None = None
        self.gates: dict[str, GateInfo] = {}
        """The open gates, by id."""
        self._client = client
        self._screen = screen
        self._root = root
        self._changed = changed
        self._running = False
        self._printed: tuple[str, str] | None = None
        self._headed: set[str] = set()
        """Gates whose head was printed since the last turn began."""
        self._later: set[str] = set()
        """Digests of the hunks that were put off, or told to be stale, since then."""
        self._stirred = asyncio.Event()
        self._rested = asyncio.Event()
        self._rested.set()

    @property
    def rested(self) -> bool:
        """Whether it is known what to ask; if not, `changed` will be called."""
        return self._rested.is_set()

    def begin(self, gates: list[GateInfo]) -> None:
        """Forget everything, and start with these gates."""
        self.gates = {gate.gate_id: gate for gate in gates if gate.state == "open"}
        self.current = self._printed = None
        self.turn(running=False)

    def note(self, gate: GateInfo) -> None:
        """A gate was opened, decided or changed."""
        if gate.state == "open":
            self.gates[gate.gate_id] = gate
        else:
            self.gates.pop(gate.gate_id, None)
        self._stir()

    def turn(self, *, running: bool) -> None:
        """A turn has begun or ended. While one runs, its proposal may still change and is not asked about."""
        self._running = running
        if running:
            self._headed.clear()
            self._later.clear()
        self._stir()

    async def answer(self, text: str) -> bool:
        """Answer the question that waits, if the text is one of its answers, and tell whether it was.

        When it returns the next question stands, so that the next line cannot miss it.

        Raises:
            SelfloopError: the decision was refused; the question is asked again.
        """
        answer = self.current.answers.get(text.lower()) if self.current is not None else None
        if answer is None:
            return False
        self.current = None
        try:
            await answer()
        except SelfloopError:
            self._printed = None
            raise
        finally:
            self._stir()
            await self._rested.wait()
        return True

    async def keep_asking(self) -> NoReturn:
        """Keep the current question true, until cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            try:
                self.current = await self._due()
            except SelfloopError as error:
                self.current = None
                self._screen.say(error.message, "red")
            if self.current is None:
                self._printed = None
            if not self._stirred.is_set():
                self._rested.set()
            self._changed()

    def _stir(self) -> None:
        self._rested.clear()
        self._stirred.set()
        self._changed()

    async def _due(self) -> Question | None:
        for gate in [*self.gates.values()]:
            if gate.subject.get("type") != "changes":
                return self._whole(gate)
        for gate in [*self.gates.values()]:
            if self._running:
                break
            params = GateReadParams(gate_id=gate.gate_id)
            question = self._first_hunk(await self._client.ask("selfloop/gate/read", params, GateReadResult))
            if question is not None and not self._running:
                return question
        return None

    def _whole(self, gate: GateInfo) -> Question:
        """Ask about a gate that is decided as a whole: a command above all."""
        answers = _spelled(lambda kind: lambda: self._resolve(gate, kind))
        words = "Allow it? [y]es, [n]o"
        if any(option.kind == "allow_always" for option in gate.options):
            words += ", [a]lways exactly this"
            answers |= dict.fromkeys(("a", "always"), lambda: self._resolve(gate, "allow_always"))
        return self._put(Question((gate.gate_id, gate.digest), words, answers), lambda: [showing.gate_head(gate)])

    def _first_hunk(self, view: GateReadResult) -> Question | None:
        """Ask about the first hunk that is pending and was not put off."""
        if view.gate.gate_id not in self._headed:
            self._headed.add(view.gate.gate_id)
            self._screen.say("")
            self._screen.say(showing.gate_head(view.gate))
            if view.evidence:
                self._screen.say(showing.evidence(view.evidence))
        for file in view.files:
            for hunk in file.hunks:
                if hunk.digest in self._later:
                    continue
                if hunk.status == "pending":
                    return self._hunk(view.gate, file, hunk)
                if hunk.status == "stale":
                    self._later.add(hunk.digest)
                    self._screen.say(showing.hunk_line(file, hunk, self._root))
        return None

    def _hunk(self, gate: GateInfo, file: GateFile, hunk: GateHunk) -> Question:
        async def later() -> None:
            self._later.add(hunk.digest)
            self._screen.say("left open", "dim")

        answers = _spelled(lambda kind: lambda: self._resolve(gate, kind, hunk)) | dict.fromkeys(("d", "later"), later)
        return self._put(
            Question((gate.gate_id, hunk.digest), "Apply this hunk? [y]es, [n]o, [d]ecide later", answers),
            lambda: [
                showing.hunk_line(file, hunk, self._root),
                showing.diff(showing.hunk_diffs(file)[hunk.hunk_id]),
            ],
        )

    def _put(self, question: Question, shown: Callable[[], list[Text]]) -> Question:
        """Print a question, unless it stands there already."""
        if self._printed != question.key:
            self._printed = question.key
            self._screen.say("")
            for part in shown():
                self._screen.say(part)
            self._screen.ask(question.words)
        return question

    async def _resolve(self, gate: GateInfo, kind: Kind, hunk: GateHunk | None = None) -> None:
        result = await self._client.ask(
            "selfloop/gate/resolve",
            GateResolveParams(
                gate_id=gate.gate_id,
                option_id=option_of(gate, kind),
                digest=gate.digest if hunk is None else None,
                hunks=None if hunk is None else [HunkRef(hunk_id=hunk.hunk_id, digest=hunk.digest)],
            ),
            GateResolveResult,
        )
        self.note(result.gate)
        if kind == "reject_once":
            self._screen.say("rejected", "dim")
        for uri in result.applied:
            self._screen.say(f"✓ applied to {showing.name_of(uri, self._root)}", "green")
        for conflict in result.conflicts:
            self._screen.say(
                f"✗ {showing.name_of(conflict.uri, self._root)}: {showing.visible(conflict.reason)}", "red"
            )


def _spelled(decide: Callable[[Kind], Answer]) -> dict[str, Answer]:
    """Return the answers yes and no by every spelling."""
    yes, no = decide("allow_once"), decide("reject_once")
    return {"y": yes, "yes": yes, "n": no, "no": no}
