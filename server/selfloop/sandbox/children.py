"""Ends a child process for good: its group killed, its exit awaited, its pipes let go of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal


async def end(process: asyncio.subprocess.Process, *, grace_seconds: float = 0.0) -> None:
    """Kill a child that leads a group of its own, whatever happens to this task meanwhile.

    Args:
        process: the child; it may have ended already.
        grace_seconds: how long it is given to end on SIGTERM, and to end what it has started.
    """
    await asyncio.shield(asyncio.ensure_future(_end(process, grace_seconds)))


async def _end(process: asyncio.subprocess.Process, grace_seconds: float) -> None:
    if process.returncode is None and grace_seconds:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    # Unread pipes would be closed by the garbage collector, perhaps after the loop is gone. asyncio has no other door.
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
