"""One worker process: its pipes, its stderr, its end, and the end of everything that it started.

A worker leads a process group of its own, so that an interrupt from the terminal reaches the supervisor alone. It holds
the workspace's locks together with the supervisor (it inherits their descriptors), so that nobody else can take a
workspace while a worker still writes to it. Where the system allows (Linux), processes that a dead worker leaves behind
become the supervisor's children, and are killed; other workers are not.
"""

from __future__ import annotations

import os
import sys
import time

from selfloop.supervisor import jsonrpc
from selfloop.supervisor.channel import Channel
from selfloop.supervisor.contract import READ_BYTES, STOP_SECONDS, WORKER_FRAME_BYTES
from selfloop.supervisor.frames import Fault, Message, frame
from selfloop.supervisor.loop import READABLE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from selfloop.supervisor.log import Log

SIGKILL = 9
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class Worker:
    """A running worker. `on_end` is called once, when the process is gone and its last words were read."""

    def __init__(
        self,
        loop: Loop,
        command: Sequence[str],
        *,
        inherited: Sequence[int],
        log: Log,
        on_message: Callable[[Worker, Message], None],
        on_end: Callable[[Worker], None],
    ) -> None:
        """Start it.

        Args:
            inherited: descriptors that stay open in the worker.

        Raises:
            OSError: it could not be started.
        """
        self._loop = loop
        self._log = log
        self._on_message = on_message
        self._on_end = on_end
        self.ready = False
        """It has begun to serve."""
        self.retiring = False
        """It was told to end, and is given nothing new."""
        self.gone = False
        """The process has ended."""
        self.faults = 0
        """How often it wrote what is no message."""
        self.pid, stdin, stdout, self._stderr = _spawn(command, inherited)
        self.channel = Channel(
            loop,
            stdout,
            stdin,
            limit_bytes=WORKER_FRAME_BYTES,
            on_message=self._heard,
            on_end=self._stdout_ended,
            ends_when_deaf=False,
        )
        os.set_blocking(self._stderr, False)
        loop.watch(self._stderr, READABLE, self._read_stderr)

    def send(self, window: int, body: bytes, key: str | None = None) -> None:
        """Send a message of a window, or of the control channel, which is window 0."""
        self.channel.send(frame(body, window, key))

    def retire(self) -> None:
        """Tell it to end, and kill it if it does not."""
        if self.retiring:
            return
        self.retiring = True
        self.send(0, jsonrpc.notification("control/stop", {}))
        self._loop.later(STOP_SECONDS, self.kill)

    def kill(self) -> None:
        """End it at once."""
        if not self.gone:
            os.kill(self.pid, SIGKILL)

    def dismiss(self) -> None:
        """End it at once, and give it nothing more."""
        self.retiring = True
        self.kill()

    def resident_bytes(self) -> int:
        """Return how much memory it has resident; 0 where the system does not tell."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        except (OSError, ValueError, IndexError):
            return 0

    def starved_seconds(self) -> float:
        """Return how long its threads that live have waited for a processor so far; 0 where nobody counts that."""
        total = 0
        try:
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{thread}/schedstat", encoding="ascii") as file:
                    total += int(file.read().split()[1])
        except (OSError, ValueError, IndexError):
            pass  # A thread has just ended, or the system does not count.
        return total / 1e9

    def waits_for_disk(self) -> bool:
        """Tell whether one of its threads waits for the disk at this moment; False where the system does not tell."""
        try:
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{thread}/stat", encoding="utf-8", errors="replace") as file:
                    if file.read().rpartition(")")[2].split()[0] == "D":
                        return True
        except (OSError, IndexError):
            pass  # A thread has just ended.
        return False

    def finish(self, status: int, spared: Collection[int]) -> None:
        """Take in its last words; called once it was reaped. What it left behind ends, but for the `spared`."""
        self.gone = True
        self.channel.read_rest()
        self._read_stderr()
        self._loop.unwatch(self._stderr)
        os.close(self._stderr)
        self.channel.close()
        kill_orphans(spared)
        self._log.note(f"worker {self.pid} ended with {os.waitstatus_to_exitcode(status)}")
        self._on_end(self)

    def _heard(self, message: Message | Fault) -> None:
        if isinstance(message, Message):
            self._on_message(self, message)
        else:
            self.faults += 1
            self._log.note(f"worker {self.pid} wrote what is no message: {message.text}")

    def _stdout_ended(self) -> None:
        self.kill()  # It cannot answer any more, so it is of no use even if it still runs. Its end comes as SIGCHLD.

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._log.worker(data)
        else:
            self._loop.unwatch(self._stderr)


def _spawn(command: Sequence[str], inherited: Sequence[int]) -> tuple[int, int, int, int]:
    """Start a process; return its id and our ends of its stdin, stdout and stderr."""
    pipes = [os.pipe() for _ in range(3)]
    (their_stdin, stdin), (stdout, their_stdout), (stderr, their_stderr) = pipes
    try:
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        pid = os.posix_spawn(
            command[0],
            list(command),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, their_stdin, 0),
                (os.POSIX_SPAWN_DUP2, their_stdout, 1),
                (os.POSIX_SPAWN_DUP2, their_stderr, 2),
            ],
            setpgroup=0,
        )
    except OSError:
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
        raise
    finally:
        for descriptor in inherited:
            os.set_inheritable(descriptor, False)
        for descriptor in (their_stdin, their_stdout, their_stderr):
            os.close(descriptor)
    return pid, stdin, stdout, stderr


def adopt_orphans() -> None:
    """Become the parent of what a worker leaves behind, where the system can do that."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_orphans(spared: Collection[int]) -> None:
    """Kill every child but the `spared` workers, and what those that die leave behind, for at most a second."""
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        left = [child for child in _children() if child not in spared]
        if not left:
            return
        for child in left:
            try:
                os.kill(child, SIGKILL)
                os.waitpid(child, os.WNOHANG)
            except (ProcessLookupError, ChildProcessError):
                continue
        time.sleep(0.001)


def _children() -> list[int]:
    """Return our children, zombies too; none where the system has no /proc, and then none were adopted either."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []
