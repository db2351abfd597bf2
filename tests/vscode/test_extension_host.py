"""The extension inside the real extension host: each test of `host/*.test.js`, run by mocha in one window.

VS Code obeys a page that asks it to run tests only with `enable-smoke-test-driver`, and that switches notifications
off; so these tests have a server of their own, and look at nothing but the API.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from code_server import CodeServer, Editors, install_client
from model_server import Answer, Request, call, text, tools
from repositories import make_repository
from scene import GREETING, environment_for
from workbench import WAIT_SECONDS

HOST = Path(__file__).with_name("host")
LONGEST_SECONDS = 4 * WAIT_SECONDS


def _titles() -> list[str]:
    """Return the full titles of all tests, as they are written: one `describe` deep."""
    titles = []
    for path in sorted(HOST.glob("*.test.js")):
        suite = ""
        for kind, quoted in re.findall(r"^ *(describe|it)\((['\"].+?['\"]), ", path.read_text(), re.MULTILINE):
            name = quoted[1:-1]
            if kind == "describe":
                suite = name
            else:
                titles.append(f"{suite} {name}")
    return titles


def _play(request: Request) -> Answer:
    """Turn the two greetings into f-strings, whatever the line ends; two calls, then the end."""
    turn = request.messages[max(at for at, one in enumerate(request.messages) if one["role"] == "user") :]
    results = [one for one in turn if one["role"] == "tool"]
    if not results:
        return tools(call("read_file", path="greet.py"))
    if len(results) == 1:
        old_new = ((f"'{word} ' + name", f"f'{word} {{name}}'") for word in ("Hello", "Bye"))
        return tools(*(call("edit_file", path="greet.py", old=old, new=new) for old, new in old_new))
    return text("Both use f-strings now.")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def results(parts: Editors, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """Run mocha once; yields what it said of each test, by full title."""
    from model_server import ModelServer

    folder = make_repository(tmp_path_factory.mktemp("host") / "project", {"greet.py": GREETING})
    report = folder.parent / "report.jsonl"
    with ModelServer(_play) as model:
        patience = os.environ.get("SELFLOOP_TEST_PATIENCE", "1")
        env = {
            "SELFLOOP_TEST_PATIENCE": patience,
            "SELFLOOP_TEST_REPORT": str(report),
            "SELFLOOP_TEST_MOCHA": str(parts.mocha),
            **environment_for(model),
        }
        driver = ("--disable-workspace-trust", "--vscode-option", "enable-smoke-test-driver")
        server = await CodeServer.start(parts, *driver, env=env, extension=False)
        try:
            said = await _run(server, browser, folder)
        finally:
            server.stop()
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    yield {line["title"]: line for line in lines}, said


async def _run(server: CodeServer, browser: Any, folder: Path) -> list[str]:
    """Open the window that runs the tests, and wait for its end; returns what it logged."""
    install_client(server.run / "dev")
    (extension,) = (server.run / "dev").iterdir()
    base = f"vscode-remote://127.0.0.1:{server.port}"
    wanted = [["extensionDevelopmentPath", f"{base}{extension}"], ["extensionTestsPath", f"{base}{HOST}/index.js"]]
    context = await browser.new_context(viewport={"width": 1400, "height": 850})
    page = await context.new_page()
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    said: list[str] = []
    await page.expose_function("codeAutomationLog", lambda _kind, words: said.append(" ".join(map(str, words))))
    await page.expose_function("codeAutomationExit", lambda code, *_: ended.done() or ended.set_result(code))
    await page.goto(f"{server.url}/?folder={quote(str(folder))}&payload={quote(json.dumps(wanted))}")
    try:
        await asyncio.wait_for(ended, LONGEST_SECONDS)
    except TimeoutError:
        said.append(f"the tests did not end within {LONGEST_SECONDS:g} s")
    finally:
        await page.goto("about:blank")
        await context.close()
    return said


@pytest.mark.parametrize("title", _titles())
async def test_in_the_extension_host(results: tuple[dict[str, Any], list[str]], title: str) -> None:
    lines, said = results
    heard = "\n".join(one[:300] for one in said if "spdlog" not in one)
    assert title in lines, f"mocha did not come to it; the window said: {heard[-4000:]}"
    assert lines[title]["state"] == "passed", lines[title]["error"]
