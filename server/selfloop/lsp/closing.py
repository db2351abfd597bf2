"""A folder that no window has open any more is closed, once nothing is at work in it: what waits there waits unseen.

Invariant: a folder that comes back while it is being closed is opened again after that, never twice.
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
    if hub.closer is None or hub.closer.done():
        hub.closer = hub.spawn(_close_unused(hub), "close folders")


async def _close_unused(hub: Hub[SelfloopServer]) -> None:
    await asyncio.sleep(_LOOK_SECONDS)
    while hub.windows and hub.at_work and (unused := hub.workspaces.keys() - _used(hub)):
        for path in unused:
            workspace = hub.workspaces[path]
            if path not in _used(hub) and not workspace.at_work and not hub.chat_writer.writes(workspace):
                await _close(hub, path, workspace)
        await asyncio.sleep(_LOOK_SECONDS)


def _used(hub: Hub[SelfloopServer]) -> set[Path]:
    uris = [uri for server in hub.windows.values() if server.ready for uri in server.folder_uris()]
    return {path.resolve() for uri in uris if (path := path_of_uri(uri)) is not None}


async def _close(hub: Hub[SelfloopServer], path: Path, workspace: Workspace) -> None:
    hub.closing.add(path)
    del hub.workspaces[path]  # From now on nobody asks it.
    try:
        await workspace.close()
    except SelfloopError as error:
        logger.error("closing %s: %s", path, error.message)
    finally:
        hub.closing.discard(path)
    hub.on_faces_changed(path)
    if path in _used(hub):  # It came back meanwhile.
        for server in [one for one in hub.windows.values() if one.ready]:
            hub.takeover.on_start(server)
