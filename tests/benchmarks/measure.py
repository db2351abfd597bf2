"""What all benchmarks share: a blocking client that adds nothing, and a row of figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import frozen

BARE = [sys.executable, str(Path(__file__).with_name("bare_server.py"))]
BARE_NAME = f"bare pygls {version('pygls')}"
OURS = [str(Path(sys.executable).with_name("selfloop")), "serve"]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@frozen
class Figure:
    """One measured comparison."""

    name: str
    unit: str
    target: float
    """The ratio, or the difference, that must not be exceeded."""
    value: float
    """What was measured against the target: of the medians."""
    ours: tuple[float, ...]
    baseline: tuple[float, ...]
    baseline_name: str
    difference: bool = False
    """The value is ours minus the baseline instead of a ratio."""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.target

    def row(self) -> str:
        """Return the figure as a line of the table."""
        kind = f"+{self.value:.3f} {self.unit}" if self.difference else f"{self.value:.3f} ×"
        limit = f"≤ {self.target:g} {self.unit}" if self.difference else f"≤ {self.target:g} ×"
        return (
            f"{'ok  ' if self.met else 'MISS'} {self.name:<44} {kind:>12}  {limit:>9}  "
            f"ours p50 {quantile(self.ours, 0.5):.3f} p95 {quantile(self.ours, 0.95):.3f} n {len(self.ours)}; "
            f"{self.baseline_name} p50 {quantile(self.baseline, 0.5):.3f} "
            f"p95 {quantile(self.baseline, 0.95):.3f} n {len(self.baseline)} [{self.unit}]"
        )


def ratio(
    name: str, target: float, ours: Sequence[float], baseline: Sequence[float], baseline_name: str, unit: str = "ms"
) -> Figure:
    """Return the ratio of the medians."""
    value = quantile(ours, 0.5) / quantile(baseline, 0.5)
    return Figure(name, unit, target, value, tuple(ours), tuple(baseline), baseline_name)


class Client:
    """Speaks LSP to a child over pipes, one message at a time."""

    def __init__(self, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        self._id = 0

    def send(self, method: str, params: Any, *, request: bool = True) -> int | None:
        """Send a message; returns a request's id."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if request:
            self._id += 1
            message["id"] = self._id
        body = json.dumps(message).encode()
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.process.stdin.flush()
        return self._id if request else None

    def read(self) -> bytes:
        """Read one message's body."""
        assert self.process.stdout
        length = 0
        while line := self.process.stdout.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return self.process.stdout.read(length)

    def request(self, method: str, params: Any) -> Any:
        """Send a request, and read until its answer."""
        wanted = self.send(method, params)
        while True:
            message = json.loads(self.read())
            if message.get("id") == wanted and "method" not in message:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]
            if "id" in message and "method" in message:
                self.answer(message["id"])

    def answer(self, request_id: Any) -> None:
        """Answer a request of the server with null."""
        body = json.dumps({"jsonrpc": "2.0", "id": request_id, "result": None}).encode()
        assert self.process.stdin
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.process.stdin.flush()

    def initialize(self, folder: Path, *, trusted: bool = True) -> None:
        """Initialize on a folder."""
        self.request(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": folder.as_uri(),
                "workspaceFolders": [{"uri": folder.as_uri(), "name": "bench"}],
                "capabilities": {},
                "initializationOptions": {"trusted": trusted},
            },
        )

    def initialized(self) -> None:
        """Say `initialized`."""
        self.send("initialized", {}, request=False)

    def stop(self) -> None:
        """End the child."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def place() -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield an empty workspace and the environment that gives the server a home of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name) / "workspace"
        folder.mkdir()
        yield folder, {"SELFLOOP_HOME": str(Path(name) / "home")}
