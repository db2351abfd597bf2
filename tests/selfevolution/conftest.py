"""What tests of the flow share: a workspace whose Selfloop is a tiny self, with a quick judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from model_server import ModelServer
from self_room import SelfRoom, make_self, open_self_room


@pytest.fixture
async def room(workspace: Path, own_home: Path, tmp_path: Path, model: ModelServer) -> AsyncIterator[SelfRoom]:
    """Open the workspace; nothing evolves without a jail."""
    opened = open_self_room(workspace, own_home, model.url, make_self(tmp_path / "self"))
    if (await opened.workspace.workshop.isolation()).level != "process":
        pytest.skip("there is no jail here")
    yield opened
    await opened.close()
