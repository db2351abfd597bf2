"""The worker: frames in, frames out, by the supervisor's pipe."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from selfloop.config import load_settings
from selfloop.errors import Refused
from selfloop.gates.gates import Gates
from selfloop.lsp import code_actions
from selfloop.lsp.chat import Chat

Handler = Callable[[dict[str, Any]], Any]


class Worker:
    """Serves one supervisor."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = os.fdopen(reader, "rb", buffering=0)
        self._writer = writer
        self._lock = threading.Lock()
        self._seq: dict[str, int] = {}
        self._windows: set[int] = set()
        self._handlers: dict[str, Handler] = {}
        self._chat: Chat | None = None
        self._number = 0
        self._suspended = False

    def serve(self) -> None:
        """Serve until the supervisor says stop."""
        for window, message in self._frames():
            if window == 0:
                if message.get("method") == "control/stop":
                    return
                self._control(message)
            elif "method" in message and "id" in message:
                self._answer(window, message)

    def _frames(self) -> Iterator[tuple[int, dict[str, Any]]]:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                piece = self._reader.read(65536)
                if not piece:
                    return
                buffer += piece
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            length = int(headers["Content-Length"])
            while len(buffer) < length:
                piece = self._reader.read(65536)
                if not piece:
                    return
                buffer += piece
            body, buffer = buffer[:length], buffer[length:]
            yield int(headers.get("Selfloop-Window", "0")), json.loads(body)

    def _send(self, window: int, value: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **value}).encode()
        data = b"Content-Length: %d\r\nSelfloop-Window: %d\r\n\r\n%b" % (len(body), window, body)
        with self._lock:
            while data:
                data = data[os.write(self._writer, data) :]

    def _publish(self, session: str, update: dict[str, Any]) -> None:
        if self._suspended:
            return
        if update["type"] == "messageChunk":
            update = {**update, "messageId": f"m{os.getpid()}"}
        self._seq[session] = self._seq.get(session, 0) + 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        params = {"sessionId": session, "seq": self._seq[session], "at": at, "update": update}
        for window in sorted(self._windows):
            self._send(window, {"method": "selfloop/update", "params": params})

    def _control(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params") or {}
        if method == "control/start":
            self._number = int(params.get("generation", 0))
            self._send(0, {"method": "control/ready", "params": {}})
            if self._chat is not None:
                self._chat.take_up()
        elif method == "control/prime":
            documents: dict[str, Any] = {str(window): {} for window in self._windows}
            self._send(0, {"id": message["id"], "result": {"documents": documents}})
        elif method == "control/quiet":
            self._send(0, {"id": message["id"], "result": {"quiet": True}})
        elif method == "control/yield":
            self._suspended = True
            if self._chat is not None:
                self._chat.suspend()
            self._send(0, {"id": message["id"], "result": {"yielded": True}})
        elif method == "control/swapState":
            update = {"type": "generation", **{name: value for name, value in params.items() if value is not None}}
            self._publish("", update)
        elif method == "control/windowOpened":
            self._windows.add(int(params["window"]))
        elif method == "control/windowClosed":
            self._windows.discard(int(params["window"]))
        elif "id" in message:
            self._send(0, {"id": message["id"], "result": {"done": []} if method == "control/outcomes" else {}})

    def _answer(self, window: int, message: dict[str, Any]) -> None:
        method, params = message["method"], message.get("params") or {}
        try:
            if method == "initialize":
                result = self._initialize(params)
            elif method == "shutdown":
                result = None
            elif method == "textDocument/codeAction":
                result = code_actions.actions(params["textDocument"]["uri"], params["range"])
            elif method in self._handlers:
                result = self._handlers[method](params)
            else:
                raise Refused(f"There is no method {method!r}, so nothing was done.")
            self._send(window, {"id": message["id"], "result": result})
        except Refused as error:
            self._send(window, {"id": message["id"], "error": {"code": -32803, "message": str(error)}})

    def _initialize(self, params: dict[str, Any]) -> dict[str, Any]:
        uri = (params.get("workspaceFolders") or [{"uri": params.get("rootUri") or "file:///"}])[0]["uri"]
        root = Path(unquote(urlsplit(uri).path))
        gates = Gates(root)
        chat = self._chat = Chat(root, load_settings(), gates, self._publish)
        self._handlers = {
            "selfloop/session/new": chat.new,
            "selfloop/session/list": chat.list,
            "selfloop/session/read": chat.read,
            "selfloop/session/prompt": chat.prompt,
            "selfloop/session/cancel": chat.cancel,
            "selfloop/gate/list": lambda _: {
                "gates": [{"gateId": gate.id, "digest": gate.digest, "state": gate.state} for gate in gates.open()]
            },
            "selfloop/gate/read": lambda p: {
                "files": [{"uri": name, "diff": text} for name, text in gates.read(p["gateId"]).files.items()]
            },
            "selfloop/gate/resolve": lambda p: {
                "applied": gates.resolve(p["gateId"], p["optionId"], p.get("digest", "")),
                "conflicts": [],
            },
            "selfloop/status": lambda _: {"isolation": "none", "generation": self._number},
            "selfloop/generation/activate": self._activate,
        }
        return {"capabilities": {"positionEncoding": "utf-16"}, "serverInfo": {"name": "selfloop"}}

    def _activate(self, params: dict[str, Any]) -> dict[str, Any]:
        """Ask the supervisor for another generation; its tree stands in the lineage."""
        number = int(params["number"])
        lineage = Path(os.environ["SELFLOOP_HOME"]) / "data" / "self" / "lineage.jsonl"
        rows = [json.loads(line) for line in lineage.read_text(encoding="utf-8").splitlines()]
        trees = {row["data"]["number"]: row["data"]["tree"] for row in rows if row["kind"] == "generation"}
        if number and number not in trees:
            raise Refused(f"There is no generation {number}, so nothing was changed.")
        wanted = {"restartId": f"swap-{number}", "number": number, "tree": trees.get(number, ""), "by": "user"}
        self._send(0, {"method": "control/swap", "params": wanted})
        return {"restartId": wanted["restartId"]}


def main(reader: int, writer: int) -> None:
    """Serve the supervisor on two descriptors."""
    Worker(reader, writer).serve()
