"""Starts child processes, and ends them for good: the group killed, the exit awaited, the pipes let go of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any


async def start(*argv: str, **options: Any) -> asyncio.subprocess.Process:
    """Start a child that leads a group of its own; the options are those of asyncio.

    If the task is cancelled meanwhile, the child is ended: asyncio alone would lose one that is half started.

    Raises:
        OSError: it could not be started.
    """
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*argv, start_new_session=True, **options))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await end(await starting)
        raise


async def end(process: asyncio.subprocess.Process, *, grace_seconds: float = 0.0) -> None:
    """Kill a child that leads a group of its own, whatever happens to this task meanwhile.

    Args:
        process: the child; it may have ended already.
        grace_seconds: how long it is given to end on SIGTERM, and to end what it has started.
    """
    await asyncio.shield(asyncio.ensure_future(_end(process, grace_seconds)))


async def _end(process: asyncio.subprocess.Process, grace_seconds: float) -> None:
    # Nobody reads the pipes any more, and asyncio tells of an end only once they are closed too: with output left in
    # one of them (`yes`, at its deadline) the end would be awaited for ever.
    transport = getattr(process, "_transport", None)
    for descriptor in (1, 2):
        pipe = None if transport is None else transport.get_pipe_transport(descriptor)
        if pipe is not None:
            pipe.close()
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
    # What is left would be closed by the garbage collector, perhaps after the loop is gone. asyncio has no other door.
    if transport is not None:
        transport.close()
