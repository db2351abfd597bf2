"""A client for the supervisor's tests: a real process on real pipes, with a thread that reads what comes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import selfloop

HERE = Path(__file__).parent
SERVER = Path(selfloop.__file__).parents[1]


def framed(value: Any) -> bytes:
    """Return a value, or raw bytes, as a frame."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


class Client:
    """One editor with its supervisor."""

    def __init__(self, home: Path, arguments: Sequence[str] = (), cwd: Path | None = None, **more: str) -> None:
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", *(arguments or (str(HERE / "standin_boot.py"), str(SERVER)))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "SELFLOOP_HOME": str(home), "STANDIN_HOME": str(home), **more},
            bufsize=0,
            cwd=cwd,
        )
        self.received: list[Any] = []
        self._queue: queue.Queue[Any] = queue.Queue()
        self._next_id = 0
        self.reading = threading.Event()
        self.reading.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with os.fdopen(os.dup(self.process.stdout.fileno()), "rb") as stream:
            while True:
                self.reading.wait()
                length = None
                while line := stream.readline().strip():
                    name, _, text = line.partition(b": ")
                    assert name == b"Content-Length", line
                    length = int(text)
                if length is None:
                    self._queue.put(None)
                    return
                body = stream.read(length)
                if len(body) < length:
                    self._queue.put(None)
                    return
                self._queue.put(json.loads(body))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]

    def send(self, value: Any) -> None:
        self.write(framed(value))

    def notify(self, method: str, params: Any = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params if params is not None else {}})

    def ask(self, method: str, params: Any = None, *, id: Any = None) -> Any:
        """Send a request; return its id."""
        if id is None:
            self._next_id += 1
            id = self._next_id
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params if params is not None else {}})
        return id

    def wait(self, wanted: Callable[[Any], bool], seconds: float = 10.0) -> Any:
        """Return the next message that is wanted; the others stay in `received`."""
        for index, message in enumerate(self.received):
            if wanted(message):
                return self.received.pop(index)
        end = time.monotonic() + seconds
        while True:
            try:
                message = self._queue.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"nothing of the kind came; there is {str(self.received)[:2000]}") from None
            assert message is not None, "the server has ended its output"
            if wanted(message):
                return message
            self.received.append(message)

    def answer(self, id: Any, seconds: float = 10.0) -> Any:
        """Return the whole answer of a request."""
        return self.wait(lambda message: "method" not in message and message.get("id") == id, seconds)

    def call(self, method: str, params: Any = None, seconds: float = 10.0) -> Any:
        """Send a request and return its result."""
        message = self.answer(self.ask(method, params), seconds)
        assert "error" not in message, message
        return message["result"]

    def fails(self, method: str, params: Any = None) -> Any:
        """Send a request and return its error."""
        return self.answer(self.ask(method, params))["error"]

    def notified(self, method: str, seconds: float = 10.0) -> Any:
        """Return the params of the next notification or request of this method."""
        return self.wait(lambda message: message.get("method") == method, seconds)["params"]

    def nothing_more(self, seconds: float = 0.2) -> None:
        """Assert that nothing comes and nothing is left."""
        with contextlib.suppress(queue.Empty):
            self.received.append(self._queue.get(timeout=seconds))
        assert self.received == []

    def initialize(self, *folders: Path, **params: Any) -> Any:
        items = [{"uri": folder.as_uri(), "name": folder.name} for folder in folders]
        result = self.call("initialize", {"capabilities": {}, "workspaceFolders": items or None, **params})
        self.notify("initialized")
        return result

    def status(self) -> Any:
        return self.call("selfloop/status")

    def worker(self) -> int:
        """Return the process id of the worker that serves."""
        return self.status()["pid"]

    def open(self, uri: str, text: str, version: int = 1) -> None:
        item = {"uri": uri, "languageId": "python", "version": version, "text": text}
        self.notify("textDocument/didOpen", {"textDocument": item})

    def change(self, uri: str, version: int, *changes: dict[str, Any]) -> None:
        identifier = {"uri": uri, "version": version}
        self.notify("textDocument/didChange", {"textDocument": identifier, "contentChanges": list(changes)})

    def text(self, uri: str, seconds: float = 20.0) -> Any:
        """Return a document's text as the worker knows it."""
        return self.call("selfloop/gate/read", {"do": "text", "uri": uri}, seconds)

    def lives(self) -> list[int]:
        """Return the workers that were started."""
        return [int(line) for line in (self.home / "lives").read_text().split()]

    def end(self) -> int:
        """End as an editor does; return the exit code."""
        self.call("shutdown")
        self.notify("exit")
        return self.process.wait(10)

    def close(self) -> None:
        self.reading.set()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._reader.join(5)


@contextlib.contextmanager
def clients(home: Path) -> Iterator[Callable[..., Client]]:
    """Give a function that starts clients of one user; end them all."""
    started: list[Client] = []

    def start(*arguments: Any, **more: Any) -> Client:
        started.append(Client(home, *arguments, **more))
        return started[-1]

    try:
        yield start
    finally:
        # All at once: else each that waits would take over from the one before and start a worker of its own.
        for client in started:
            client.process.kill()
        for client in started:
            client.close()


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Tell whether a process ends within so many seconds; a zombie has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
