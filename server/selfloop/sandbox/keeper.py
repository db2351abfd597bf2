"""Holds one command: sets its limits, starts it, and lets nothing of it outlive it. Standard library only.

Run as a program of its own, isolated (`-I -S`), with one JSON argument:

    {"argv": […], "supervise": bool, "limits": {"NPROC": 2048, …}, "groups": ["/sys/fs/cgroup/…/cgroup.procs", …]}

Without `supervise` it becomes the command (bubblewrap, whose process namespace ends everything with it). With it, it
stays: orphans come back to it, and when the command ends, or it is told to end, or whoever started it dies, it kills
all that descends from it, new sessions and double forks included.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Do what the argument says, and exit as the command does."""
    order = json.loads(sys.argv[1])
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM if order["supervise"] else signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(137)  # It died before it could be watched.
    for group in order["groups"]:
        with contextlib.suppress(OSError), open(group, "w", encoding="ascii") as file:  # noqa: PTH123
            file.write("0")
    for name, value in order["limits"].items():
        _limit(name, value)
    if order["supervise"]:
        _supervise(order["argv"])
    else:
        _become(order["argv"])


def _supervise(argv: list[str]) -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, _end)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        _become(argv)
    code = 137
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            break
    _kill_descendants()
    os._exit(code if code >= 0 else 128 - code)


def _become(argv: list[str]) -> None:
    try:
        os.execv(argv[0], argv)  # noqa: S606 - a list, as everywhere
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


def _end(_number: int, _frame: FrameType | None) -> None:
    _kill_descendants()
    os._exit(143)


def _kill_descendants() -> None:
    """Kill until nothing is left: a process that forks while it is looked for is found in the next round."""
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        left = _descendants(os.getpid())
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return
        time.sleep(0.005)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    if os.path.isdir("/proc/self"):  # noqa: PTH112
        for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
            with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                # The name of the program may hold anything, so count from its last bracket.
                state, above = file.read().rpartition(b")")[2].split()[:2]
                if state != b"Z" or int(above) == root:
                    children.setdefault(int(above), []).append(int(name))
    found: list[int] = []
    ahead = [root]
    while ahead:
        below = children.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


def _prctl(option: int, value: int) -> None:
    """Call prctl(2); other systems have none, and there the process group has to do."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _limit(name: str, value: int) -> None:
    number = getattr(resource, f"RLIMIT_{name}", None)
    if number is None:
        return
    hard = resource.getrlimit(number)[1]
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(number, (wanted, wanted))


if __name__ == "__main__":
    main()
