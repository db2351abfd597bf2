"""How much of the machine a command may take: resource limits, and a control group where we may make one.

Root is not counted by RLIMIT_NPROC, so for root the control group is what stops a fork bomb.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

PROCESSES = 2048
FILE_BYTES = 8 << 30
TMP_BYTES = 2 << 30
"""Size of the private `/tmp`."""


def memory_bytes() -> int:
    """Return what a command may use: three quarters of the machine's memory, at least 2 GiB."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        total = 8 << 30
    return max(2 << 30, total * 3 // 4)


def resource_limits() -> dict[str, int]:
    """Return limits by the names of setrlimit(2)."""
    return {"CORE": 0, "NPROC": PROCESSES, "FSIZE": FILE_BYTES, "DATA": memory_bytes()}


def make_groups() -> list[Path]:
    """Make control groups that limit processes and memory, where that is allowed; blocks on the disk."""
    made: list[Path] = []
    for folder in _parents():
        _sweep(folder)
        with contextlib.suppress(OSError):
            group = folder / f"selfloop-{os.getpid()}-{secrets.token_hex(6)}"
            group.mkdir()
            if _furnish(group):
                made.append(group)
            else:
                group.rmdir()
    return made


def remove_groups(groups: list[Path]) -> None:
    """Remove control groups; their last processes may still be on their way out, so it may block for a second."""
    for group in groups:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
            if not group.exists():
                break
            time.sleep(0.01)


def _sweep(folder: Path) -> None:
    """Remove the groups of servers that were killed."""
    for left in folder.glob("selfloop-*-*"):
        owner = left.name.split("-")[1]
        if not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):
                left.rmdir()


def _parents() -> list[Path]:
    """Return the control groups that we are in, of the hierarchies that count processes or memory."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        base = root if not controllers else root / controllers
        if not controllers or {"pids", "memory"} & set(controllers.split(",")):
            inner = base / path.lstrip("/")
            # In a container the path is the host's, and what is mounted is already our own group.
            folder = inner if inner.is_dir() else base
            if os.access(folder, os.W_OK):
                found.append(folder)
    return found


def _furnish(group: Path) -> bool:
    """Set what the group can limit, and tell whether it can limit anything."""
    limits = {"pids.max": PROCESSES, "memory.max": memory_bytes(), "memory.limit_in_bytes": memory_bytes()}
    done = False
    for name, value in limits.items():
        file = group / name
        if file.exists():
            file.write_text(str(value), encoding="ascii")
            done = True
    return done
