"""What the supervisor itself has to say to whoever serves: requests of its own with their answers, and the heartbeat.

A worker hears it on window 0 of its pipe. Another supervisor hears the few things that concern it on the same socket
as the window's own messages.
"""

from __future__ import annotations

import os
import time

from selfloop.supervisor import jsonrpc
from selfloop.supervisor.contract import HUNG_SECONDS, PING, RESEND, SILENCE_SECONDS
from selfloop.supervisor.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from selfloop.supervisor.log import Log
    from selfloop.supervisor.loop import Loop
    from selfloop.supervisor.upstream import Upstream

BEAT_SECONDS = 10.0
"""Between two looks at whether the worker is still there."""


def new_epoch() -> str:
    """Return a name for a life of a worker: it sorts after every earlier one, and no other process makes the same."""
    return f"{time.time_ns():016x}-{os.getpid():x}"


class Control:
    """The control channel, whoever is at its other end now."""

    def __init__(self, upstream: Upstream, loop: Loop, log: Log) -> None:
        self._upstream = upstream
        self._loop = loop
        self._log = log
        self._epoch = new_epoch()
        self._count = 0
        self._asked: dict[str, Callable[[Any], None]] = {}
        """Who wants the result of a request of ours, by its id."""
        self._pinged_at: float | None = None

    def new_id(self) -> str:
        """Return an id, or a request's key, that nobody has used and nobody will."""
        self._count += 1
        return f"{self._epoch}-{self._count:x}"

    def made(self, id: Any) -> bool:
        """Tell whether an id was made here."""
        return isinstance(id, str) and id.startswith(f"{self._epoch}-")

    def tell(self, method: str, params: Any) -> None:
        """Send a notification."""
        upstream = self._upstream.open
        # Another supervisor does the rest by itself.
        if isinstance(upstream, Worker) or (upstream is not None and method == RESEND):
            upstream.send(0, jsonrpc.notification(method, params))

    def ask(self, method: str, params: Any, then: Callable[[Any], None]) -> None:
        """Send a request; `then` is called with its result, None where it failed, and never if the upstream ends."""
        upstream = self._upstream.open
        if upstream is not None:
            id = self.new_id()
            self._asked[id] = then
            upstream.send(0, jsonrpc.request(id, method, params), id)

    def answered(self, value: dict[str, Any]) -> bool:
        """Take an answer to a request of ours; return whether it was one."""
        id = value.get("id")
        then = self._asked.pop(id, None) if isinstance(id, str) and "method" not in value else None
        if then is None:
            return False
        then(value.get("result"))
        return True

    def forget(self) -> None:
        """Note that the upstream has ended."""
        self._asked.clear()
        self._pinged_at = None

    def watch(self, waiting: Callable[[], bool]) -> None:
        """From now on kill a worker that gives no sound for long although `waiting` says that somebody waits."""
        self._loop.later(BEAT_SECONDS, lambda: self.watch(waiting))
        worker = self._upstream.current
        if not isinstance(worker, Worker):
            return
        now = time.monotonic()
        busy = worker.channel.backlog or waiting()
        if not busy or now - worker.channel.heard_at < SILENCE_SECONDS:
            self._pinged_at = None
        elif self._pinged_at is None:
            self._pinged_at = now
            self.ask(PING, {}, lambda _: None)
        elif now - self._pinged_at > HUNG_SECONDS:
            self._log.note(f"worker {worker.pid} does not answer, so it is killed")
            worker.kill()
