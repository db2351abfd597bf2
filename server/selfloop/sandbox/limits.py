"""How much of the machine a command may take: resource limits, and a control group where we may make one.

Root is not counted by RLIMIT_NPROC, so for root the control group is what stops a fork bomb.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
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


@contextlib.contextmanager
def control_groups() -> Iterator[list[str]]:
    """Make control groups that limit processes and memory, where that is allowed.

    Yields:
        The files that a process joins them by; empty where there are none.
    """
    made: list[Path] = []
    try:
        for folder in _parents():
            with contextlib.suppress(OSError):
                group = folder / f"selfloop-{secrets.token_hex(6)}"
                group.mkdir()
                if _furnish(group):
                    made.append(group)
                else:
                    group.rmdir()
        yield [str(group / "cgroup.procs") for group in made]
    finally:
        for group in made:
            _remove(group)


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


def _remove(group: Path) -> None:
    """Remove a group; its last processes may still be on their way out."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        if not group.exists():
            return
        time.sleep(0.01)
