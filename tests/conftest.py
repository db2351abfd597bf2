"""Fixtures that every test may use: a home of its own, a workspace, a server on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lsp_client import LspClient
from model_server import ModelServer
from scene import GREETING, Starter, environment_for, git


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put everything of Selfloop's below the test's folder, and keep the user's models out."""
    home = tmp_path / "home"
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


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """A model on loopback with an empty script."""
    with ModelServer() as server:
        yield server


@pytest.fixture
async def start(model: ModelServer, workspace: Path) -> AsyncIterator[Starter]:
    """Start servers on the workspace, initialized and trusted; all are shut down at the end."""
    clients: list[LspClient] = []

    async def begin(
        *folders: Path, trusted: bool | None = True, env: dict[str, str] | None = None, **options: Any
    ) -> LspClient:
        client = await LspClient.start(env={**environment_for(model), **(env or {})})
        clients.append(client)
        await client.initialize(*(folders or (workspace,)), trusted=trusted, **options)
        return client

    yield begin
    for client in clients:
        await client.close()
