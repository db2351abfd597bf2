"""Fixtures that every test may use: a home of its own, a workspace, a server on it.

A server that asks a model imports the model library, for seconds. A module that says `SHARED_SERVER = True` has one
server for all its tests that ask for nothing special: each opens its own folder in it, and closes it at its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lsp_client import LspClient
from model_server import ModelServer
from scene import GREETING, Starter, environment_for, git


def shares(node: Any) -> bool:
    """Tell whether the test's module has one server for all its tests."""
    return getattr(node.module, "SHARED_SERVER", False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for each module that shares a server: the server outlives a test."""
    for item in items:
        if isinstance(item, pytest.Function) and shares(item) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Put everything of Selfloop's below the test's folder, and keep the user's models out."""
    home: Path = request.getfixturevalue("shared_home") if shares(request.node) else tmp_path / "home"
    monkeypatch.setenv("SELFLOOP_HOME", str(home))
    for name in ("OPENROUTER_API_KEY", "INFERENCE_BASE_URL", "MODEL_NAME", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A small git repository with one commit."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "greet.py").write_text(GREETING)
    (folder / "README.md").write_text("# Greetings\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of all tests of a module that shares a server."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def shared_model() -> Iterator[ModelServer]:
    """The model of a module that shares a server."""
    with ModelServer() as server:
        yield server


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Iterator[ModelServer]:
    """A model on loopback with an empty script."""
    if shares(request.node):
        shared: ModelServer = request.getfixturevalue("shared_model")
        shared.begin()
        yield shared
        return
    with ModelServer() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_server(shared_model: ModelServer, shared_home: Path) -> AsyncIterator[LspClient]:
    """The window of the module's server, on no folder."""
    client = await LspClient.start(env={**environment_for(shared_model), "SELFLOOP_HOME": str(shared_home)})
    await client.initialize()
    yield client
    await client.close()


@pytest_asyncio.fixture(loop_scope="module")
async def start_shared(shared_server: LspClient, model: ModelServer, workspace: Path) -> AsyncIterator[Starter]:
    """Open the workspace in the module's server the first time; whoever asks for more gets a server of its own."""
    clients: list[LspClient] = []
    shared_server.forget()

    async def begin(*folders: Path, **options: Any) -> LspClient:
        if not folders and not options and shared_server not in clients:
            clients.append(shared_server)
            shared_server.set_folders([workspace], [])
            return shared_server
        client = await _start(model, folders or (workspace,), **options)
        clients.append(client)
        return client

    yield begin
    for client in clients:
        if client is not shared_server:
            await client.close()
    if shared_server in clients:
        for uri in list(shared_server.buffers):
            shared_server.close_document(uri)
        shared_server.set_folders([], [workspace])
        async with asyncio.timeout(20):
            while (await shared_server.request("selfloop/status", {}))["folders"]:
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(loop_scope="function")
async def start_own(model: ModelServer, workspace: Path) -> AsyncIterator[Starter]:
    """Start servers on the workspace; all are shut down at the end."""
    clients: list[LspClient] = []

    async def begin(*folders: Path, **options: Any) -> LspClient:
        clients.append(await _start(model, folders or (workspace,), **options))
        return clients[-1]

    yield begin
    for client in clients:
        await client.close()


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Starter:
    """Start servers on the workspace, initialized and trusted."""
    return request.getfixturevalue("start_shared" if shares(request.node) else "start_own")


async def _start(
    model: ModelServer,
    folders: tuple[Path, ...],
    trusted: bool | None = True,
    env: dict[str, str] | None = None,
    **options: Any,
) -> LspClient:
    client = await LspClient.start(env={**environment_for(model), **(env or {})})
    try:
        await client.initialize(*folders, trusted=trusted, **options)
    except BaseException:
        client.kill()
        raise
    return client
