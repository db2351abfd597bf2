"""The worker's main program: what `supervisor/worker_boot.py` calls once standard output is out of everybody's reach.

It ends when the supervisor says so, or when the pipe closes: then the supervisor is gone, and nobody may work on
unseen.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from typing import Any

from selfloop.lsp.chat_writer import ChatWriter
from selfloop.lsp.closing import close_later
from selfloop.lsp.editor import WindowEditor
from selfloop.lsp.features import create_server, take_over
from selfloop.lsp.hub import Hub
from selfloop.lsp.inbox import Inbox
from selfloop.lsp.progress import RunProgress
from selfloop.lsp.server import SelfloopServer

SETTLED_SECONDS = 0.5
"""Clearing up waits until the editor has its first answers."""


def main(read_fd: int, write_fd: int) -> None:
    """Serve the supervisor on two descriptors until it is done with us."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # pygls reports each protocol error with its traceback; what matters reaches the client as an answer.
    logging.getLogger("pygls").setLevel(logging.ERROR)
    # Not `asyncio.run`, which would wait for threads, and one of them may import the model library for seconds.
    asyncio.new_event_loop().run_until_complete(_serve(read_fd, write_fd))


def _settle(planned: asyncio.TimerHandle | None = None) -> None:
    """Clear away what the imports have left; the rest stays for good and need not be walked again with every turn.

    Args:
        planned: when this would have been done: it holds up whoever is served for 50 ms.
    """
    if planned is not None:
        planned.cancel()
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 10)


def _tell_rounds(hub: Hub[SelfloopServer], state: dict[str, Any]) -> None:
    """Tell every workspace's loops what became of a swap: the round that it comes from has phases of it."""
    for workspace in hub.workspaces.values():
        if workspace.loops_if_read is not None:
            workspace.loops_if_read.swapped(int(state["number"]), str(state["state"]), state.get("reason"))


async def _serve(read_fd: int, write_fd: int) -> None:
    hub: Hub[SelfloopServer] = Hub(read_fd, write_fd, create_server)
    hub.editor_of = lambda folder: WindowEditor(hub, folder)
    hub.takeover.on_start = take_over
    hub.on_window_closed = lambda: close_later(hub)
    hub.takeover.on_state = lambda state: _tell_rounds(hub, state)
    Inbox(hub)
    hub.chat_writer = ChatWriter(hub)
    RunProgress(hub)
    later = asyncio.get_running_loop().call_later(SETTLED_SECONDS, _settle)
    hub.takeover.on_primed = lambda: _settle(later)
    stopping = asyncio.create_task(hub.stopping.wait())
    closed = asyncio.create_task(hub.pipe.closed.wait())
    await asyncio.wait({stopping, closed}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, closed):
        task.cancel()
    await hub.close()
