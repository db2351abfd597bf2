"""The canary's model: an OpenAI-format HTTP server on loopback that does what the newest user message asks of it.

A message holds `CANARY-<kind>-<word>`. The answer depends on nothing else, so that a candidate is measured by what it
does with an answer, not by what it asks. Everything that arrives is kept.
"""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8123
_ASKED = re.compile(r"CANARY-(\w+)-(\w+)")
HOLD_SECONDS = 30.0


class ScriptedModel:
    """The server; `arrived` holds every request's path, headers (but the one that carries the key) and body."""

    def __init__(self) -> None:
        self.arrived: list[dict[str, Any]] = []
        self.held = threading.Event()
        """A held answer has begun."""
        self.dropped = threading.Event()
        """Whoever asked for it has hung up."""
        self.calls: dict[str, tuple[str, dict[str, Any]]] = {}
        """The tool call that answers a kind of message."""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: stdout is the editor's."""

            def do_GET(self) -> None:
                owner.note(self, b"")
                models = [{"id": "scripted", "object": "model"}] if self.path.endswith("/models") else []
                self._whole({"object": "list", "data": models}, 200 if models else 404)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                owner.note(self, body)
                if not self.path.endswith("/chat/completions"):
                    return self._whole({"error": {"message": "unknown"}}, 404)
                asked = json.loads(body)
                kind, word, answered = owner.meant(asked)
                if not asked.get("stream"):
                    return self._whole(_completion(owner.text(kind, word)), 200)
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                try:
                    owner.stream(self, kind, word, answered)
                except OSError:
                    owner.dropped.set()

            def _whole(self, value: dict[str, Any], status: int) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._http = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def note(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """Keep a request."""
        headers = {name: value for name, value in request.headers.items() if name.lower() != "authorization"}
        bearer = request.headers.get("Authorization", "")
        self.arrived.append(
            {"path": request.path, "headers": headers, "bearer": bearer, "body": body.decode("utf-8", "replace")}
        )

    @staticmethod
    def meant(asked: dict[str, Any]) -> tuple[str, str, bool]:
        """Return the kind and word of the newest message that has one, and whether its tool call was answered.

        What stands first in a message is what the user says; what follows may be notes on earlier messages.
        """
        answered = False
        if not asked.get("tools"):
            return "aside", "none", True
        for message in reversed(asked.get("messages", [])):
            if message.get("role") == "tool":
                answered = True
            if message.get("role") == "user" and (found := _ASKED.findall(json.dumps(message.get("content")))):
                return found[0][0], found[0][1], answered
        return "plain", "none", answered

    @staticmethod
    def text(kind: str, word: str) -> str:
        """Return the words of an answer; a question aside, without tools, is whether the task goes on."""
        if kind == "aside":
            return "CONTINUE"
        return f"The answer to {kind} is {word}."

    def stream(self, request: BaseHTTPRequestHandler, kind: str, word: str, answered: bool) -> None:
        """Write an answer as events."""

        def event(value: Any) -> None:
            text = value if isinstance(value, str) else json.dumps(value)
            request.wfile.write(f"data: {text}\n\n".encode())
            request.wfile.flush()

        event(_chunk({"role": "assistant", "content": ""}))
        if kind in self.calls and not answered:
            name, arguments = self.calls[kind]
            whole = json.dumps(arguments)
            head = {"index": 0, "id": f"call_{word}", "type": "function", "function": {"name": name, "arguments": ""}}
            event(_chunk({"tool_calls": [head]}))
            for at in range(0, len(whole), 20):
                event(_chunk({"tool_calls": [{"index": 0, "function": {"arguments": whole[at : at + 20]}}]}))
            event(_chunk({}, "tool_calls"))
        else:
            for piece in re.findall(r"\S+\s*", self.text(kind, word)):
                event(_chunk({"content": piece}))
            if kind == "hold":
                self.held.set()
                end = time.monotonic() + HOLD_SECONDS
                while time.monotonic() < end:
                    request.wfile.write(b": waiting\n\n")
                    request.wfile.flush()
                    time.sleep(0.02)
            event(_chunk({}, "stop"))
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        event({**_chunk({}), "choices": [], "usage": usage})
        event("[DONE]")


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [choice]}


def _completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "scripted", "choices": [choice]}
