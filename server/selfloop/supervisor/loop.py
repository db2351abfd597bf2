"""The event loop: readiness of descriptors, timers, and writes put off to the end of a round.

One thread, but for `aside`, and no locks. `poll` and not `epoll`, because an editor may hand over a plain file or
`/dev/null` as stdin.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Thread
    from typing import Any

READABLE = select.POLLIN
WRITABLE = select.POLLOUT
LOOK_SECONDS = 0.005
"""Between two looks at whether a thread is done."""


class Timer:
    """A call that is due at a time of the monotonic clock."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call = call


class Aside:
    """Work in a thread of its own; `outcome` holds its result or error once it is done."""

    __slots__ = ("outcome", "thread")

    def __init__(self, thread: Thread, outcome: list[Any]) -> None:
        self.thread = thread
        self.outcome = outcome


class Loop:
    """Runs until `stop`. An error in a call is handed to `on_error`, and the loop goes on."""

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._poll = select.poll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        """The one that is due first stands first."""
        self._soon: deque[Callable[[], None]] = deque()
        self._running = True

    def watch(self, descriptor: int, event: int, call: Callable[[], None]) -> None:
        """Call `call` whenever the descriptor is ready, or broken."""
        self._poll.register(descriptor, event)
        self._watched[descriptor] = call

    def unwatch(self, descriptor: int) -> None:
        """Forget a descriptor; one that is not watched is fine."""
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def watch_signals(self, numbers: Sequence[int], call: Callable[[bytes], None]) -> None:
        """Call `call` with the numbers of the signals that came, a byte for each, instead of what they do else."""
        import signal

        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        self.watch(reader, READABLE, lambda: call(os.read(reader, 512)))

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` once, after so many seconds."""
        timer = Timer(time.monotonic() + seconds, call)
        self._timers.append(timer)
        self._timers.sort(key=lambda timer: timer.due)

    def soon(self, call: Callable[[], None]) -> None:
        """Call `call` before the loop waits again."""
        self._soon.append(call)

    def aside(self, work: Callable[[], Any], then: Callable[[Any], None]) -> Aside:
        """Do something that waits for the disk in a thread of its own; `then` is called here with its result or error.

        The only other thread there is; what it works on is not touched here meanwhile.
        """
        import threading

        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(work())
            except Exception as error:
                outcome.append(error)

        def look() -> None:
            if outcome:
                then(outcome[0])
            else:
                self.later(LOOK_SECONDS, look)

        aside = Aside(threading.Thread(target=run, daemon=True), outcome)
        aside.thread.start()
        look()
        return aside

    def stop(self) -> None:
        """End `run` after this round."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop` is called."""
        while self._running:
            try:
                self._round()
            except Exception as error:  # The last door: whatever is wrong here, the editor must not see an exit.
                self._on_error(error)

    def _round(self) -> None:
        while self._soon:
            self._soon.popleft()()
        if not self._running:
            return
        for descriptor, _ in self._poll.poll(self._wait_milliseconds()):
            call = self._watched.get(descriptor)
            if call is not None:  # An earlier call of this round may have let go of it.
                call()
        if self._timers:
            now = time.monotonic()
            while self._timers and self._timers[0].due <= now:
                self._timers.pop(0).call()

    def _wait_milliseconds(self) -> float | None:
        if not self._timers:
            return None
        return max(0.0, self._timers[0].due - time.monotonic()) * 1000 + 0.5
