"""Fixtures of the tests in the real VS Code: one code-server, one browser and one model for all of them.

Each test gets a window of its own on a folder of its own, which is what VS Code keeps its state by. Where a test needs
another server (another setting, no trust, no model) it starts one with `serve`. The pictures lie in `.editors/shots/`,
by test; of a test that failed there is one more, named `failed`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from code_server import EDITORS, CodeServer, Editors, launch_options, require_editors
from lsp_client import LspClient
from model_server import Answer, ModelServer, Request, call, text, tools
from repositories import make_repository
from scene import GREETING, environment_for

HERE = Path(__file__).parent
OUTCOME = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for all: the browser outlives a test. And time for a window to open on a busy machine."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        if pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(400))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note whether a test failed, for the picture of its end."""
    report = yield
    if report.failed:
        item.stash[OUTCOME] = False
    return report


class Stage(ModelServer):
    """A model whose script holds only what the agent asks for its work."""

    def answer(self, request: Request) -> Answer:
        """Answer from the script; the question whether a new task begins is no part of any."""
        if "one word: NEW or CONTINUE" in str(request.messages[-1:]):
            return text("CONTINUE")
        return super().answer(request)


@pytest.fixture(scope="session")
def parts() -> Editors:
    """The installed editors, or the reason to skip."""
    return require_editors()


@pytest.fixture(scope="session")
def stage(parts: Editors) -> Iterator[Stage]:
    """The model of all tests."""
    with Stage() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def code_server(parts: Editors, stage: Stage) -> AsyncIterator[CodeServer]:
    """The code-server of most tests: trusted, with our server and the stage's model."""
    server = await CodeServer.start(parts, "--disable-workspace-trust", env=environment_for(stage))
    yield server
    server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(parts: Editors, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """One Chromium for all."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(**launch_options(parts, tmp_path_factory.mktemp("browser")))
        yield chromium
        await chromium.close()


@pytest.fixture
def files() -> dict[str, str | bytes]:
    """The files of the test's folder; a module or a parametrisation may say others."""
    return {"greet.py": GREETING, "README.md": "# Greetings\n"}


@pytest.fixture
def project(tmp_path: Path, files: dict[str, str | bytes]) -> Path:
    """A repository with one commit."""
    return make_repository(tmp_path / "project", files)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def profile(browser: Any) -> AsyncIterator[Any]:
    """The browser profile of all windows: what one has loaded, the next need not load again."""
    made = await browser.new_context(viewport={"width": 1400, "height": 850}, reduced_motion="reduce")
    yield made
    await made.close()


@pytest.fixture(scope="session")
def pages() -> list[Any]:
    """Pages that tests have left, for those to come: a workbench opens a third quicker where one was before."""
    return []


Opener = Callable[..., Awaitable[Any]]
"""Opens one more window: `await window(server, folder)`."""


@pytest_asyncio.fixture(loop_scope="session")
async def window(
    profile: Any, pages: list[Any], project: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Opener]:
    """Open windows; all are closed at the end."""
    from workbench import Workbench

    name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    shots = EDITORS / "shots" / name
    shutil.rmtree(shots, ignore_errors=True)
    opened: list[Workbench] = []

    async def begin(server: CodeServer, folder: Path | None = None) -> Workbench:
        left = pages.pop() if pages else None
        made = await Workbench.open(server, profile, folder or project, shots, left)
        opened.append(made)
        return made

    yield begin
    for made in opened:
        if request.node.stash.get(OUTCOME, True) is False:
            await made.screenshot("failed")
            print(f"picture: {made.shots}; the browser complained of: {made.complaints[-10:]}")
            print(f"the web views said:\n{await made.web_view_text()}")
        if pages or (left := await made.leave()) is None:
            await made.close()
        else:
            pages.append(left)


@pytest_asyncio.fixture(loop_scope="session")
async def bench(window: Opener, code_server: CodeServer, stage: Stage) -> Any:
    """The test's window on its folder, with a model that waits for its script."""
    stage.begin()
    return await window(code_server)


Proposer = Callable[..., Awaitable[Any]]
"""Has the agent propose edits: `await propose(server, folder, ("greet.py", old, new), …)`."""


@pytest_asyncio.fixture(loop_scope="session")
async def propose(stage: Stage) -> AsyncIterator[Proposer]:
    """Have the agent propose edits, prompted from the terminal, which is a second client of the window's server."""
    clients: list[LspClient] = []

    async def begin(server: CodeServer, folder: Path, *edits: tuple[str, str, str], ask: str = "Go.") -> Any:
        client = await LspClient.start(env={**environment_for(stage), "SELFLOOP_HOME": str(server.home)})
        clients.append(client)
        await client.initialize(folder)
        calls = [call("edit_file", path=path, old=old, new=new) for path, old, new in edits]
        reads = [call("read_file", path=path) for path in dict.fromkeys(path for path, _, _ in edits)]
        stage.extend(tools(*reads), tools(*calls), text("Done."))
        session = (await client.request("selfloop/session/new", {}))["sessionId"]
        await client.request("selfloop/session/prompt", {"sessionId": session, "text": ask})
        await client.idle(session)
        (gate,) = (
            gate
            for gate in (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
            if gate["sessionId"] == session
        )
        return await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})

    yield begin
    for client in clients:
        await client.close()


@pytest_asyncio.fixture(loop_scope="session")
async def serve(parts: Editors) -> AsyncIterator[Callable[..., Awaitable[CodeServer]]]:
    """Start code-servers for a test that needs another one than the others'."""
    started: list[CodeServer] = []

    async def begin(*options: str, **settings: Any) -> CodeServer:
        server = await CodeServer.start(parts, *options, **settings)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop()
