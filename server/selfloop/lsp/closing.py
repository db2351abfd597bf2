"""A folder that no window has open any more is closed, once nothing is at work in it: what waits there waits unseen.

Invariant: a folder that comes back while it is being closed is refused with a sentence, never opened twice.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from selfloop.errors import SelfloopError
from selfloop.lsp.convert import path_of_uri
from selfloop.lsp.hub import Hub
from selfloop.lsp.server import SelfloopServer
from selfloop.session import Workspace

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
"""A folder that comes back so soon was never closed, and so often is looked whether one is still at work."""


def close_later(hub: Hub[SelfloopServer]) -> None:
    """Close what no window has open, soon. Without any window nothing is: the server ends, or another takes over."""
    if hub.windows:
        hub.spawn(_close_unused(hub), "close folders")


async def _close_unused(hub: Hub[SelfloopServer]) -> None:
    await asyncio.sleep(_LOOK_SECONDS)
    while unused := _unused(hub):
        for path, workspace in unused.items():
            if not workspace.at_work:
                await _close(hub, path, workspace)
        await asyncio.sleep(_LOOK_SECONDS)


def _unused(hub: Hub[SelfloopServer]) -> dict[Path, Workspace]:
    paths = (path_of_uri(uri) for server in hub.windows.values() for uri in server.folder_uris())
    used = {path.resolve() for path in paths if path is not None}
    return {path: one for path, one in hub.workspaces.items() if path not in used}


async def _close(hub: Hub[SelfloopServer], path: Path, workspace: Workspace) -> None:
    hub.closing.add(path)
    del hub.workspaces[path]  # From now on nobody asks it.
    try:
        await workspace.close()
    except SelfloopError as error:
        logger.error("closing %s: %s", path, error.message)
    finally:
        hub.closing.discard(path)
    hub.on_faces_changed(None)
