"""The first five minutes, and what may be wrong in them: each state is one sentence and one button."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from code_server import CodeServer, Editors
from model_server import text
from panel import Panel, expect
from scene import environment_for


async def test_an_empty_panel_is_a_checklist(bench: Any) -> None:
    panel = await Panel.open(bench)
    for title in ("Trust", "Server", "Model", "Isolation"):
        await panel.expect(title)
    await panel.expect("It runs")
    await panel.expect("scripted")
    await panel.screenshot("checklist")


async def test_it_can_be_tried_without_a_key(serve: Any, window: Any, project: Path) -> None:
    server = await serve("--disable-workspace-trust")
    bench = await window(server)
    panel = await Panel.open(bench)
    await panel.expect("No model is chosen")
    await panel.screenshot("no-model")
    await panel.button("Try without a key").click()
    await expect(panel.composer).not_to_have_value("")
    await panel.composer.press("Enter")
    await panel.expect("built-in offline model")
    await panel.idle()
    await panel.screenshot("offline-turn")
    await expect(panel.proposal).to_contain_text("greet.py")
    await panel.proposal.get_by_role("button", name="Approve all").click()
    await panel.expect(re.compile("Approved"))
    assert '"""' in (project / "greet.py").read_text()


async def test_without_a_model_a_prompt_says_what_to_do(serve: Any, window: Any) -> None:
    bench = await window(await serve("--disable-workspace-trust"))
    panel = await Panel.open(bench)
    await panel.expect("No model is chosen")
    await panel.send("Hello?")
    await panel.until_text("No model is set, so nothing was asked")
    await panel.screenshot("refused")


async def test_the_model_page_lists_selects_and_tests(serve: Any, window: Any, stage: Any) -> None:
    stage.begin()
    stage.extend(text("pong"), text("pong"))  # A model that was just chosen is tried by itself.
    stage.models = ["scripted", "another"]
    bench = await window(await serve("--disable-workspace-trust", env={"INFERENCE_BASE_URL": stage.url}))
    panel = await Panel.open(bench)
    await bench.command("Selfloop: Set Up")
    await panel.frame.locator(".page.models").wait_for()
    await panel.frame.get_by_role("button", name=re.compile("another")).first.click()
    await expect(panel.frame.locator(".current-model")).to_contain_text("another")
    await panel.button("Make a test call").click()
    await expect(panel.frame.locator(".test.ok")).to_contain_text("ms")
    await panel.screenshot("model-page")
    assert stage.requests[-1].body["model"] == "another"


async def test_a_key_is_kept_in_no_file_and_no_log(serve: Any, window: Any, stage: Any) -> None:
    stage.begin()
    stage.extend(text("pong"))
    key = "sk-this-is-a-key-for-tests-0123456789"
    env = {"INFERENCE_BASE_URL": stage.url, "MODEL_NAME": "scripted"}
    server = await serve("--disable-workspace-trust", env=env, settings={"selfloop.trace.server": "verbose"})
    bench = await window(server)
    panel = await Panel.open(bench)
    await panel.expect("It runs")
    await bench.command("Selfloop: Set a Provider's Key")
    await bench.pick("Another address")
    await bench.answer(stage.origin)
    await bench.answer(key, secret=True)
    await panel.send("Hello?")
    await panel.expect("pong")
    assert stage.requests[0].headers["authorization"] == f"Bearer {key}", "the key goes to its origin"
    found = [
        str(path)
        for path in server.run.rglob("*")
        if path.is_file() and not path.is_symlink() and key.encode() in path.read_bytes()
    ]
    assert found == [], "the key lies in the clear on the disk"
    assert key not in await panel.frame.content()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def odd_server(parts: Editors) -> AsyncIterator[CodeServer]:
    """A code-server for programs that are no server of ours."""
    server = await CodeServer.start(parts, "--disable-workspace-trust")
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("nowhere", None),
        ("dies-at-once", "#!/bin/sh\nexit 3\n"),
        ("says-nonsense", "#!/bin/sh\necho 'hello, world'\nsleep 1\n"),
    ],
)
async def test_a_server_that_cannot_be_used_is_one_sentence(
    odd_server: CodeServer, window: Any, tmp_path: Path, name: str, script: str | None
) -> None:
    program = tmp_path / name
    if script is not None:
        program.write_text(script)
        program.chmod(0o755)
    odd_server.set_machine(selfloop__server__path=str(program))
    bench = await window(odd_server)
    panel = await Panel.open(bench)
    line = panel.line("Server")
    await expect(line).to_contain_text(re.compile(r"no server was started|could not be started"))
    await expect(line.get_by_role("button")).to_be_visible()
    await panel.screenshot(name)
    await panel.send("Hello?")
    await panel.until_text("Nothing was done.")


async def test_a_server_of_the_workspace_is_never_started(odd_server: CodeServer, window: Any, project: Path) -> None:
    planted = project / "selfloop"
    planted.write_text(f"#!/bin/sh\ntouch {project}/started\n")
    planted.chmod(0o755)
    odd_server.set_machine(selfloop__server__path=str(planted))
    panel = await Panel.open(await window(odd_server))
    await panel.expect("lies in the workspace")
    assert not (project / "started").exists()


async def test_nothing_runs_in_an_untrusted_workspace_until_it_is_trusted(serve: Any, window: Any, stage: Any) -> None:
    stage.begin()
    stage.extend(text("Hello."))
    bench = await window(await serve(env=environment_for(stage)))
    panel = await Panel.open(bench)
    await panel.expect("is not trusted")
    await panel.screenshot("untrusted")
    await panel.send("Hello?")
    await panel.until_text("This workspace is not trusted, so nothing was run")
    assert stage.requests == []
    await panel.line("Trust").get_by_role("button").click()
    await bench.page.get_by_role("button", name="Trust", exact=True).first.click()
    panel = await Panel.open(bench)
    await expect(panel.line("Trust")).to_contain_text("You trust")
    await panel.send("Hello?")
    await panel.expect("Hello.")
    await panel.screenshot("trusted")
