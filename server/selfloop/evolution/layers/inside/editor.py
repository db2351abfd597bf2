"""The canary's editor: an LSP client on stdin and stdout, standard library only, that keeps every answer and update."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ANSWER_SECONDS = 20.0


class Failed(Exception):
    """Raised when the server did not do what it has to; the message says what, in one sentence."""


class Silent(Failed):
    """Raised when nothing came for so long that what follows would tell nothing more."""


class Editor:
    """One window. Requests of the server are answered as an editor would."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.asked: list[str] = []
        """Methods of the server's own requests."""
        self.answers: dict[int, dict[str, Any]] = {}
        self.doubled: list[int] = []
        self.noise: list[str] = []
        self.ended = False
        self._ids = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, value: dict[str, Any]) -> None:
        """Send a message."""
        body = json.dumps({"jsonrpc": "2.0", **value}).encode()
        data = memoryview(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        try:
            while data:
                data = data[os.write(1, data) :]
        except BrokenPipeError:
            raise Failed("the server does not listen any more.") from None

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        self.send({"method": method, "params": params})

    def ask(self, method: str, params: Any) -> dict[str, Any]:
        """Send a request and return its answer, an error too."""
        self._ids += 1
        number = self._ids
        self.send({"id": number, "method": method, **({} if params is None else {"params": params})})
        self.until(lambda: number in self.answers, f"{method} was not answered", ANSWER_SECONDS)
        return self.answers[number]

    def request(self, method: str, params: Any) -> Any:
        """Send a request and return its result."""
        answer = self.ask(method, params)
        if "error" in answer:
            raise Failed(f"{method} was answered with an error: {answer['error'].get('message', '')[:200]}")
        return answer.get("result")

    def until(self, holds: Callable[[], Any], complaint: str, seconds: float = ANSWER_SECONDS) -> Any:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        with self._changed:
            while not (found := holds()):
                if self.ended:
                    raise Silent(f"{complaint}: the server ended.")
                left = end - time.monotonic()
                if left <= 0:
                    raise Silent(f"{complaint} within {seconds:.0f} seconds.")
                self._changed.wait(min(left, 0.25))
        return found

    def of(self, session: str, kind: str) -> list[dict[str, Any]]:
        """Return a session's updates of a kind."""
        return [
            params["update"]
            for params in list(self.updates)
            if params.get("sessionId") == session and params.get("update", {}).get("type") == kind
        ]

    def _read(self) -> None:
        stream = os.fdopen(os.dup(0), "rb")
        while True:
            length = -1
            while line := stream.readline().strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                elif name.lower() != b"content-type":
                    self.noise.append(line[:100].decode("utf-8", "replace"))
            body = stream.read(length) if length >= 0 else b""
            with self._changed:
                if not body:
                    self.ended = True
                    self._changed.notify_all()
                    return
                self._take(json.loads(body))
                self._changed.notify_all()

    def _take(self, value: dict[str, Any]) -> None:
        number = value.get("id")
        if "method" not in value:
            if not isinstance(number, int) or number in self.answers or number > self._ids:
                self.doubled.append(-1 if not isinstance(number, int) else number)
            else:
                self.answers[number] = value
        elif number is not None:
            self.asked.append(value["method"])
            self.send({"id": number, "result": self._served(value["method"], value.get("params") or {})})
        elif value["method"] == "selfloop/update":
            self.updates.append(value["params"])

    @staticmethod
    def _served(method: str, params: dict[str, Any]) -> Any:
        if method == "workspace/applyEdit":
            for change in params.get("edit", {}).get("documentChanges", []):
                if change.get("kind") == "create":
                    Path(unquote(urlsplit(change["uri"]).path)).touch()
            return {"applied": True}
        if method == "workspace/configuration":
            return [None for _ in params.get("items", [])]
        return None
