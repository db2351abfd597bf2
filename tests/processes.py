"""What tests see of processes, by /proc: who is whose child, and who is still there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def children(pid: int) -> list[int]:
    """Return a process's children, oldest first; none when it is gone."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """Return everything below a process."""
    return [other for child in children(pid) for other in (child, *descendants(child))]


def alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def worker_of(supervisor: int, timeout_seconds: float = 10) -> int:
    """Return the supervisor's worker; waits until there is one."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        for child in children(supervisor):
            if alive(child):
                return child
        time.sleep(0.01)
    raise AssertionError("the supervisor has no worker")


def kill(pid: int) -> None:
    """kill -9."""
    os.kill(pid, signal.SIGKILL)


def gone(pid: int, within_seconds: float) -> bool:
    """Wait until a process is gone; False when it is still there after the time."""
    deadline = time.monotonic() + within_seconds
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
