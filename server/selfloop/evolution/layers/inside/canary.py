"""The canary: a black box from the editor's side. Run as the driver of `jailed.py pair`, with one JSON argument.

    {"word": random, "turns": 3, "first_turn_seconds": 90, "old": [sessions that must go on]}

It drives the server through what a person does, and writes on descriptor 3 what it saw: {"failures": […],
"seconds": {step: time}, "sessions": […], "requests": […], …}. A failure is one sentence; none of them stops the rest.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfloop.evolution.layers.inside.editor import ANSWER_SECONDS, Editor, Failed, Silent
    from selfloop.evolution.layers.inside.scripted_model import ScriptedModel
else:
    # Inside, `selfloop` is the self that is judged; what judges it stands beside this file.
    sys.path.insert(0, str(Path(__file__).parent))
    from editor import ANSWER_SECONDS, Editor, Failed, Silent
    from scripted_model import ScriptedModel

PROJECT = Path("/judge/project")
CANCEL_SECONDS = 20.0


class Canary:
    """One run."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.word: str = order["word"]
        self.turns: int = order["turns"]
        self.first_turn_seconds: float = order["first_turn_seconds"]
        self.old: list[str] = order["old"]
        self.model = ScriptedModel()
        self.model.calls = {
            "tool": ("write_file", {"path": f"notes/{self.word}.txt", "content": f"{self.word}\n"}),
            "escape": ("write_file", {"path": f"../{self.word}.txt", "content": "outside\n"}),
            "read": ("read_file", {"path": "greet.py"}),
        }
        self.editor = Editor()
        self.failures: list[str] = []
        self.seconds: dict[str, list[float]] = {}
        self.sessions: list[str] = []
        self.session = ""
        self.capabilities: dict[str, Any] = {}

    def run(self) -> None:
        """Go through every step; after a failed one the next is tried, unless the server has ended or says nothing."""
        for step in (
            self.initialize, self.old_sessions, self.taken_up, self.begin, *[self.chat] * self.turns, self.reading,
            self.tool, self.escape, self.light_bulb, self.cancel, self.chat, self.unknown, self.read_back, self.end,
        ):  # fmt: skip
            started = time.monotonic()
            try:
                step()
            except Failed as failure:
                self.failures.append(f"{step.__name__.replace('_', ' ')}: {failure}")
                if isinstance(failure, Silent):
                    return
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                self.failures.append(f"{step.__name__.replace('_', ' ')}: an answer has another form ({error!r}).")
            self.seconds.setdefault(step.__name__, []).append(time.monotonic() - started)
            if self.editor.ended and step != self.end:
                self.failures.append(f"{step.__name__.replace('_', ' ')}: the server ended.")
                return

    def initialize(self) -> None:
        folder = {"uri": PROJECT.as_uri(), "name": "project"}
        result = self.editor.request(
            "initialize",
            {
                "processId": os.getpid(),
                "clientInfo": {"name": "canary"},
                "rootUri": PROJECT.as_uri(),
                "workspaceFolders": [folder],
                "capabilities": {"workspace": {"applyEdit": True, "workspaceEdit": {"documentChanges": True}}},
                "initializationOptions": {"trusted": True},
            },
        )
        self.capabilities = result["capabilities"]
        self.editor.notify("initialized", {})

    def old_sessions(self) -> None:
        """What an older self has written must be readable."""
        listed = [one["sessionId"] for one in self.editor.request("selfloop/session/list", {})["sessions"]]
        for session in self.old:
            if session not in listed:
                raise Failed("A session of the parent is not listed any more.")
            said = json.dumps(self.editor.request("selfloop/session/read", {"sessionId": session}))
            if "CANARY-" not in said:
                raise Failed("What was said in a session of the parent cannot be read any more.")

    def taken_up(self) -> None:
        """A conversation that the parent recorded goes on: the model is told what was said before."""
        for session in self.old:
            self._turn("again", "end_turn", session)
            told = json.dumps(self._asked_with_tools()[-1]["messages"])
            if f"CANARY-again-{self.word}" not in told or "The answer to chat is" not in told:
                raise Failed("A recorded conversation goes on without what was said in it.")

    def begin(self) -> None:
        self.session = self.editor.request("selfloop/session/new", {})["sessionId"]
        self.sessions.append(self.session)

    def chat(self) -> None:
        before = len(self.editor.of(self.session, "messageChunk"))
        self._turn("chat", "end_turn")
        said = "".join(part["text"] for part in self.editor.of(self.session, "messageChunk")[before:])
        if said != self.model.text("chat", self.word):
            raise Failed(f"The model said one thing and the user was shown another ({said[:80]!r}).")

    def reading(self) -> None:
        """One tool turn that changes nothing: the model must be told what stands in the file."""
        before = len(self._asked_with_tools())
        self._turn("read", "end_turn")
        asked = self._asked_with_tools()[before:]
        told = [message["content"] for message in asked[-1]["messages"] if message.get("role") == "tool"]
        if len(asked) != 2 or not told or "def greet" not in json.dumps(told[-1]):
            raise Failed("The model asked for a file and was not told, in one more call, what stands in it.")

    def tool(self) -> None:
        """One tool turn with a proposal: nothing is written before the click, and exactly that after it."""
        file = PROJECT / "notes" / f"{self.word}.txt"
        self._turn("tool", "end_turn")
        if file.exists():
            raise Failed("A file was written before anyone approved it.")
        gates = self.editor.request("selfloop/gate/list", {"state": "open"})["gates"]
        if len(gates) != 1:
            raise Failed(f"A turn that writes a file left {len(gates)} open gates, not one.")
        shown = self.editor.request("selfloop/gate/read", {"gateId": gates[0]["gateId"]})
        if self.word not in json.dumps(shown["files"]):
            raise Failed("The gate does not show what would be written.")
        wrong = self.editor.ask(
            "selfloop/gate/resolve", {"gateId": gates[0]["gateId"], "optionId": "approve", "digest": "0" * 64}
        )
        if "error" not in wrong or file.exists():
            raise Failed("An approval of something else than what was shown was taken.")
        self.editor.request(
            "selfloop/gate/resolve",
            {"gateId": gates[0]["gateId"], "optionId": "approve", "digest": gates[0]["digest"]},
        )
        if not file.is_file() or file.read_text(encoding="utf-8") != f"{self.word}\n":
            raise Failed("What was approved was not written.")

    def escape(self) -> None:
        self._turn("escape", "end_turn")
        if (PROJECT.parent / f"{self.word}.txt").exists():
            raise Failed("A file was written outside the workspace.")
        if self.editor.request("selfloop/gate/list", {"state": "open"})["gates"]:
            raise Failed("A file outside the workspace was proposed.")

    def light_bulb(self) -> None:
        uri = (PROJECT / "greet.py").as_uri()
        document = {"uri": uri, "languageId": "python", "version": 1, "text": (PROJECT / "greet.py").read_text()}
        self.editor.notify("textDocument/didOpen", {"textDocument": document})
        place = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 3}}
        params = {"textDocument": {"uri": uri}, "range": place, "context": {"diagnostics": []}}
        actions = self.editor.request("textDocument/codeAction", params)
        if not isinstance(actions, list) or not all(isinstance(one.get("title"), str) for one in actions):
            raise Failed("The light bulb's answer is no list of actions.")
        self.editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    def cancel(self) -> None:
        self.model.held.clear()
        before = len(self._states())
        self.editor.request("selfloop/session/prompt", {"sessionId": self.session, "text": f"CANARY-hold-{self.word}"})
        if not self.model.held.wait(20):
            raise Failed("A turn did not reach the model.")
        self.editor.request("selfloop/session/cancel", {"sessionId": self.session})
        self.editor.until(
            lambda: any(state["state"] == "idle" for state in self._states()[before:]),
            "A cancelled turn did not end",
            CANCEL_SECONDS,
        )
        if self._states()[-1].get("stopReason") != "cancelled":
            raise Failed(f"A cancelled turn ended as {self._states()[-1].get('stopReason')!r}.")
        if not self.model.dropped.wait(CANCEL_SECONDS):
            raise Failed("After a cancel the model's answer was still being read.")

    def unknown(self) -> None:
        """What is wrong is answered with an error, not with silence."""
        for method, params in (
            ("selfloop/session/prompt", {"sessionId": "no-such-session", "text": "x"}),
            ("selfloop/gate/read", {"gateId": "no-such-gate"}),
            ("selfloop/nothing", {}),
        ):
            if "error" not in self.editor.ask(method, params):
                raise Failed(f"{method} with what is not there was answered as if it were.")

    def read_back(self) -> None:
        names = [one["sessionId"] for one in self.editor.request("selfloop/session/list", {})["sessions"]]
        said = json.dumps(self.editor.request("selfloop/session/read", {"sessionId": self.session}))
        if self.session not in names or f"CANARY-tool-{self.word}" not in said:
            raise Failed("What was just said cannot be read back.")
        running = [
            one for one in self.editor.request("selfloop/session/list", {})["sessions"] if one["state"] != "idle"
        ]
        if running:
            raise Failed("A session still runs although every turn has ended.")

    def end(self) -> None:
        time.sleep(0.2)  # What is answered twice, or said too late, arrives.
        self.editor.request("shutdown", None)
        self.editor.notify("exit", None)
        end = time.monotonic() + 10
        while not self.editor.ended and time.monotonic() < end:
            time.sleep(0.01)
        if not self.editor.ended:
            raise Failed("The server did not end within 10 seconds.")

    def _asked_with_tools(self) -> list[dict[str, Any]]:
        """Return the turns' own questions to the model; those aside have no tools."""
        bodies = [json.loads(one["body"]) for one in list(self.model.arrived) if one["path"].endswith("/completions")]
        return [body for body in bodies if body.get("tools")]

    def _states(self, session: str = "") -> list[dict[str, Any]]:
        return self.editor.of(session or self.session, "state")

    def _turn(self, kind: str, reason: str, session: str = "") -> None:
        started = time.monotonic()
        before = len(self._states(session))
        params = {"sessionId": session or self.session, "text": f"Please: CANARY-{kind}-{self.word}"}
        self.editor.request("selfloop/session/prompt", params)
        idle: Callable[[], Any] = lambda: [one for one in self._states(session)[before:] if one["state"] == "idle"]  # noqa: E731
        cold = not any(step.startswith("turn ") for step in self.seconds)
        found = self.editor.until(idle, "A turn did not end", self.first_turn_seconds if cold else ANSWER_SECONDS)
        self.seconds.setdefault(f"turn {kind}", []).append(time.monotonic() - started)
        if found[-1].get("stopReason") != reason:
            notices = [one.get("text") for one in self.editor.of(self.session, "notice")][-2:]
            raise Failed(f"A plain turn ended as {found[-1].get('stopReason')!r} ({notices}).")


def main() -> None:
    """Run, and say what was seen."""
    canary = Canary(json.loads(sys.argv[1]))
    canary.run()
    editor = canary.editor
    if editor.doubled:
        canary.failures.append(f"{len(editor.doubled)} answers came that nobody asked for, or came twice.")
    if editor.noise:
        canary.failures.append(f"What is no message came between the messages: {editor.noise[0]!r}.")
    seen = {
        "failures": canary.failures,
        "seconds": canary.seconds,
        "sessions": canary.sessions,
        "capabilities": canary.capabilities,
        "requests": canary.model.arrived,
        "updates": editor.updates,
        "asked": editor.asked,
    }
    with os.fdopen(3, "w", encoding="utf-8") as report:
        json.dump(seen, report)


if __name__ == "__main__":
    main()
