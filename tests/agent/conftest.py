"""Opens conversations for the tests, and closes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from agent_chat import Chat
from model_server import ModelServer
from selfloop.config import Folders, Settings
from selfloop.sandbox.isolation import Isolation
from selfloop.storage.sessions import Sessions
from selfloop.storage.store import Store

Opener = Callable[..., Chat]


@pytest.fixture
async def new_chat(workspace: Path, model: ModelServer) -> AsyncIterator[Opener]:
    """Open conversations on the workspace; all are closed at the end."""
    chats: list[Chat] = []

    def begin(folder: Path | None = None, *, isolated: Isolation | None = None, **settings: Any) -> Chat:
        folders = Folders.of_user()
        place = folder or workspace
        store = Store.open(place, folders)
        sessions = Sessions(store)
        chosen = evolve(Settings(model="scripted", base_url=model.url, api_key="key-for-tests"), **settings)
        record = sessions.create()
        chat = Chat(place, folders, model, chosen, store, sessions, record.id, isolated=isolated)
        chat.open()
        chats.append(chat)
        return chat

    yield begin
    for chat in chats:
        await chat.close()


@pytest.fixture
def chat(new_chat: Opener) -> Chat:
    """A conversation on the workspace."""
    return new_chat()
