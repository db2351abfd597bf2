"""An LSP client for tests: the real server as a child on stdio, raw JSON both ways, an editor's buffers and manners.

It knows no code of Selfloop: what it sends and expects is what the protocol says. Buffers are kept in UTF-16, as
editors count. A request of the server that nobody claims fails the test when the client is closed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

CAPABILITIES: dict[str, Any] = {
    "workspace": {
        "applyEdit": True,
        "workspaceEdit": {"documentChanges": True, "changeAnnotationSupport": {"groupsOnLabel": True}},
        "codeLens": {"refreshSupport": True},
        "workspaceFolders": True,
        "executeCommand": {},
    },
    "textDocument": {
        "codeAction": {"resolveSupport": {"properties": ["command"]}, "dataSupport": True},
        "publishDiagnostics": {"versionSupport": True},
    },
    "window": {"workDoneProgress": True, "showDocument": {"support": True}},
}


class RpcError(Exception):
    """The server answered a request with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.reason: str | None = (error.get("data") or {}).get("reason")


class LspClient:
    """One editor window."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.buffers: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.updates: list[dict[str, Any]] = []
        """The params of every `selfloop/update`, in order."""
        self.diagnostics: dict[str, list[dict[str, Any]]] = {}
        self.messages: list[dict[str, Any]] = []
        """window/showMessage and window/logMessage."""
        self.shown: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        """Every request of the server."""
        self.answers: list[Any] = []
        """Responses to unknown ids, and doubled ones: there must be none."""
        self.refuse_edits: str | None = None
        """Set: `workspace/applyEdit` is answered with applied: false and this reason."""
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Event()
        self._reader = asyncio.ensure_future(self._read())
        self.ended = False

    # Life

    @classmethod
    async def start(
        cls,
        *command: str,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        stderr: int | None = None,
    ) -> LspClient:
        """Start a server; without a command: `selfloop serve` of this environment."""
        arguments = command or (sys.executable, "-m", "selfloop", "serve")
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            limit=2**26,
            start_new_session=True,
        )
        return cls(process)

    async def initialize(
        self, *folders: Path, trusted: bool | None = True, settings: dict[str, Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        """Open folders and say initialized; returns the server's capabilities."""
        options: dict[str, Any] = {}
        if trusted is not None:
            options["trusted"] = trusted
        if settings is not None:
            options["settings"] = settings
        result = await self.request(
            "initialize",
            {
                "processId": os.getpid(),
                "clientInfo": {"name": "test"},
                "rootUri": to_uri(folders[0]) if folders else None,
                "workspaceFolders": [{"uri": to_uri(folder), "name": "folder"} for folder in folders] or None,
                "capabilities": CAPABILITIES,
                "initializationOptions": options,
                **more,
            },
        )
        self.notify("initialized", {})
        return result

    def set_folders(self, added: Sequence[Path], removed: Sequence[Path]) -> None:
        """Open and close folders of the window."""
        event = {
            "added": [{"uri": to_uri(folder), "name": "folder"} for folder in added],
            "removed": [{"uri": to_uri(folder), "name": "folder"} for folder in removed],
        }
        self.notify("workspace/didChangeWorkspaceFolders", {"event": event})

    def forget(self) -> None:
        """Begin anew for another test: what was heard so far is dropped."""
        for heard in (self.updates, self.diagnostics, self.messages, self.shown, self.requests):
            heard.clear()
        self.refuse_edits = None

    async def close(self) -> int:
        """Shut down as an editor does, and return the exit code."""
        if self.process.returncode is None and not self.ended:
            try:
                await asyncio.wait_for(self.request("shutdown", None), 10)
                self.notify("exit", None)
            except (TimeoutError, RpcError, ConnectionError):
                pass
        try:
            await asyncio.wait_for(self.process.wait(), 10)
        except TimeoutError:
            self.kill()
            await self.process.wait()
        await self._stop_reading()
        assert self.answers == [], f"answers that nobody asked for: {self.answers}"
        return self.process.returncode or 0

    def kill(self) -> None:
        """kill -9 the server's process (the supervisor)."""
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)

    async def _stop_reading(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        transport = getattr(self.process, "_transport", None)
        if transport is not None:
            transport.close()

    # Messages

    def send(self, message: dict[str, Any]) -> None:
        """Send one message as it is."""
        body = json.dumps(message, ensure_ascii=False).encode()
        self.send_raw(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    def send_raw(self, data: bytes) -> None:
        """Send bytes that may be no frame at all."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        self.send({"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})})

    def ask(self, method: str, params: Any) -> asyncio.Future[Any]:
        """Send a request, and return the future of its result."""
        request_id = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        self.send(
            {"jsonrpc": "2.0", "id": request_id, "method": method, **({} if params is None else {"params": params})}
        )
        return future

    async def request(self, method: str, params: Any = None, timeout: float = 30) -> Any:
        """Send a request and wait for its result; raises `RpcError` for an error."""
        return await asyncio.wait_for(self.ask(method, {} if params is None and "/" in method else params), timeout)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        stream = self.process.stdout
        try:
            while True:
                length = 0
                while line := (await stream.readline()).strip():
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                if not length:
                    break
                self._take(json.loads(await stream.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended = True
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(ConnectionError("the server ended"))
            self._changed.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "method" in message and "id" in message:
            self.requests.append(message)
            self.send({"jsonrpc": "2.0", "id": message["id"], **self._answer(message["method"], message.get("params"))})
        elif "method" in message:
            self._notice(message["method"], message.get("params") or {})
        else:
            future = self._pending.pop(message.get("id"), None)  # type: ignore[arg-type]
            if future is None:
                self.answers.append(message)
            elif future.done():
                pass  # The test stopped waiting for it.
            elif "error" in message:
                future.set_exception(RpcError(message["error"]))
            else:
                future.set_result(message["result"])
        self._changed.set()

    def _notice(self, method: str, params: dict[str, Any]) -> None:
        if method == "selfloop/update":
            self.updates.append(params)
        elif method == "textDocument/publishDiagnostics":
            self.diagnostics[params["uri"]] = params["diagnostics"]
        elif method in ("window/showMessage", "window/logMessage"):
            self.messages.append(params)

    def _answer(self, method: str, params: Any) -> dict[str, Any]:
        if method == "workspace/applyEdit":
            return {"result": self._apply(params)}
        if method == "window/showDocument":
            self.shown.append(params)
            return {"result": {"success": True}}
        if method in (
            "workspace/codeLens/refresh",
            "window/workDoneProgress/create",
            "client/registerCapability",
            "window/showMessageRequest",
        ):
            return {"result": None}
        return {"error": {"code": -32601, "message": f"the client has no {method}"}}

    # Waiting

    async def until(self, condition: Callable[[], Any], timeout: float = 30) -> Any:
        """Wait until a condition holds after some message, and return its value."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not (value := condition()):
            if self.ended:
                raise ConnectionError("the server ended while the test waited")
            self._changed.clear()
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise AssertionError(f"waited {timeout} s in vain; the last updates were {self.updates[-8:]}")
            try:
                await asyncio.wait_for(self._changed.wait(), min(left, 0.5))
            except TimeoutError:
                continue
        return value

    def of_type(self, kind: str, session_id: str | None = None) -> list[dict[str, Any]]:
        """Return the updates of a type so far (of a session)."""
        return [
            params["update"]
            for params in self.updates
            if params["update"]["type"] == kind and session_id in (None, params.get("sessionId"))
        ]

    async def idle(self, session_id: str, *, count: int = 1, timeout: float = 30) -> dict[str, Any]:
        """Wait for the session's `count`-th idle, and return that update."""

        def idles() -> list[dict[str, Any]]:
            return [update for update in self.of_type("state", session_id) if update["state"] == "idle"]

        await self.until(lambda: len(idles()) >= count, timeout)
        return idles()[count - 1]

    # Documents

    def open(self, path: Path, text: str | None = None, language: str = "plaintext") -> str:
        """Open a file in a buffer, with unsaved text if given; returns its URI."""
        uri = to_uri(path)
        if text is None:
            text = path.read_bytes().decode("utf-8-sig")
        self.buffers[uri], self.versions[uri] = text, 1
        self.notify(
            "textDocument/didOpen",
            {"textDocument": {"uri": uri, "languageId": language, "version": 1, "text": text}},
        )
        return uri

    def change(self, uri: str, text: str) -> None:
        """Replace a buffer's whole text."""
        self.buffers[uri] = text
        self.versions[uri] += 1
        self.notify(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": self.versions[uri]}, "contentChanges": [{"text": text}]},
        )

    def edit(self, uri: str, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
        """Replace a range (line, UTF-16 unit) of a buffer."""
        edit = {
            "range": {
                "start": {"line": start[0], "character": start[1]},
                "end": {"line": end[0], "character": end[1]},
            },
            "text": text,
        }
        self.buffers[uri] = apply_edits(self.buffers[uri], [(edit["range"], text)])
        self.versions[uri] += 1
        self.notify(
            "textDocument/didChange",
            {"textDocument": {"uri": uri, "version": self.versions[uri]}, "contentChanges": [edit]},
        )

    def close_document(self, uri: str) -> None:
        """Close a buffer."""
        del self.buffers[uri], self.versions[uri]
        self.notify("textDocument/didClose", {"textDocument": {"uri": uri}})

    def _apply(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.refuse_edits is not None:
            return {"applied": False, "failureReason": self.refuse_edits}
        plain = params["edit"].get("changes", {})
        changes = params["edit"].get("documentChanges", []) + [
            {"textDocument": {"uri": uri}, "edits": edits} for uri, edits in plain.items()
        ]
        for change in changes:
            document = change["textDocument"]
            version = document.get("version")
            if document["uri"] not in self.buffers:
                return {"applied": False, "failureReason": f"{document['uri']} is not open"}
            if version is not None and version != self.versions[document["uri"]]:
                return {"applied": False, "failureReason": "the version is not the buffer's"}
        for change in changes:
            uri = change["textDocument"]["uri"]
            edits = [(edit["range"], edit["newText"]) for edit in change["edits"]]
            self.buffers[uri] = apply_edits(self.buffers[uri], edits)
            self.versions[uri] += 1
            self.notify(
                "textDocument/didChange",
                {
                    "textDocument": {"uri": uri, "version": self.versions[uri]},
                    "contentChanges": [{"text": self.buffers[uri]}],
                },
            )
        return {"applied": True}


def apply_edits(text: str, edits: list[tuple[dict[str, Any], str]]) -> str:
    """Apply LSP edits, whose ranges all speak of the text as it was, to a text."""
    units = text.encode("utf-16-le", "surrogatepass")
    starts = [0]
    for line in re.findall("[^\r\n]*(?:\r\n|\n|\r)", text):
        starts.append(starts[-1] + len(line.encode("utf-16-le", "surrogatepass")))

    def offset(position: dict[str, int]) -> int:
        line, character = position["line"], position["character"]
        if line >= len(starts):
            return len(units)
        end = starts[line + 1] if line + 1 < len(starts) else len(units)
        return min(starts[line] + 2 * character, end)

    for range_, new in sorted(edits, key=lambda edit: -offset(edit[0]["start"])):
        start, end = offset(range_["start"]), offset(range_["end"])
        units = units[:start] + new.encode("utf-16-le", "surrogatepass") + units[end:]
    return units.decode("utf-16-le", "surrogatepass")


def to_uri(path: Path) -> str:
    """Return the URI of a path."""
    return "file://" + quote(os.fsencode(path), safe="/-._~")


def to_path(uri: str) -> Path:
    """Return the path of a URI."""
    return Path(unquote(urlsplit(uri).path))


def require(program: str) -> str:
    """Return the path of a program that a test needs; in CI a missing one is an error, elsewhere a skip."""
    import pytest

    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
