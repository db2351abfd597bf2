"""Sessions over the wire: new, list, prompt, cancel, read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfloop.agent import context
from selfloop.agent.replay import messages_of
from selfloop.agent.titles import title_of
from selfloop.agent.turn import run_turn
from selfloop.config import Settings
from selfloop.errors import Refused
from selfloop.gates.gates import Gates
from selfloop.model.budget import Budget
from selfloop.model.client import Call
from selfloop.sandbox.paths import Door
from selfloop.storage.store import Store

Publish = Callable[[str, dict[str, Any]], None]


class Chat:
    """The conversations of a workspace. Each turn runs in a thread of its own."""

    def __init__(self, root: Path, settings: Settings, gates: Gates, publish: Publish) -> None:
        self._root = root
        self._settings = settings
        self._gates = gates
        self._publish = publish
        self._store = Store(root)
        self._running: dict[str, Call] = {}
        self._turns = 0
        self._suspended = False

    def new(self, _: dict[str, Any]) -> dict[str, Any]:
        """Make a session."""
        return {"sessionId": self._store.new()}

    def list(self, _: dict[str, Any]) -> dict[str, Any]:
        """List the sessions with their titles."""
        found = []
        for session in self._store.sessions():
            said = [m["content"] for m in messages_of(self._store.read(session)) if m["role"] == "user"]
            state = "running" if session in self._running else "idle"
            known = {"createdAt": "", "updatedAt": "", "inputTokens": 0, "outputTokens": 0}
            title = title_of(said[0]) if said else "New"
            found.append({"sessionId": session, "title": title, "state": state, **known})
        return {"sessions": found}

    def read(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return what was said in a session."""
        messages = messages_of(self._store.read(self._known(params)))
        return {"updates": [{"update": {"type": "message", "text": m["content"]}} for m in messages], "more": False}

    def prompt(self, params: dict[str, Any]) -> dict[str, Any]:
        """Begin a turn."""
        session, text = self._known(params), str(params["text"])
        if session in self._running:
            raise Refused("A turn is running, so nothing was begun.")
        self._turns += 1
        turn = f"t{self._turns}"
        self._running[session] = Call(self._settings)
        self._note(session, {"role": "user", "content": text})
        threading.Thread(target=self._turn, args=(session, turn), daemon=True).start()
        return {"messageId": f"m{self._turns}", "turnId": turn, "delivery": "start"}

    def cancel(self, params: dict[str, Any]) -> dict[str, Any]:
        """End the turn that runs."""
        running = self._running.get(self._known(params))
        if running is not None:
            running.close()
        return {}

    def suspend(self) -> None:
        """Stop every turn where another worker takes it up: nothing of it is written."""
        self._suspended = True
        for call in list(self._running.values()):
            call.close()

    def take_up(self) -> None:
        """Begin the turns anew that another worker has left without an answer."""
        for session in self._store.sessions():
            messages = messages_of(self._store.read(session))
            if messages and messages[-1]["role"] == "user" and session not in self._running:
                self._turns += 1
                self._running[session] = Call(self._settings)
                threading.Thread(target=self._turn, args=(session, f"t{self._turns}"), daemon=True).start()

    def _known(self, params: dict[str, Any]) -> str:
        session = str(params.get("sessionId"))
        if not self._store.has(session):
            raise Refused(f"There is no session {session!r}, so nothing was done.")
        return session

    def _note(self, session: str, message: dict[str, Any]) -> None:
        self._store.append(session, {"message": message})

    def _turn(self, session: str, turn: str) -> None:
        self._publish(session, {"type": "state", "state": "running", "turnId": turn})
        messages = [context.system(self._root.name), *messages_of(self._store.read(session))]
        before = len(messages)
        door = Door(self._root)
        call = self._running[session]

        def ask(sent: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
            return call.ask(sent, tools)

        def emit(piece: str) -> None:
            self._publish(session, {"type": "messageChunk", "text": piece})

        reason = "failed"
        try:
            reason = run_turn(messages, ask, door, Budget(self._settings.turn_tokens), "L2", emit)
        except Refused as error:
            self._publish(session, {"type": "notice", "text": str(error)})
        if self._suspended:
            return
        reason = "cancelled" if call.closed else reason
        for message in messages[before:]:
            self._note(session, message)
        if door.writes and reason == "end_turn":
            gate = self._gates.propose(session, door.writes)
            self._publish(session, {"type": "gate", "gate": {"gateId": gate.id, "digest": gate.digest}})
        self._running.pop(session, None)
        self._publish(session, {"type": "state", "state": "idle", "stopReason": reason, "turnId": turn})
