"""`@selfloop` in VS Code's own chat view, without any sign-in; the same sessions underneath."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from code_server import CodeServer, Editors
from model_server import call, text, tools
from panel import Panel, expect
from scene import environment_for
from workbench import Workbench

EDIT = call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'")
INPUT = ".interactive-input-part .monaco-editor"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def code_server(parts: Editors, stage: Any) -> AsyncIterator[CodeServer]:
    """A server with VS Code's own chat, which the others leave off."""
    settings = {"chat.disableAIFeatures": False, "workbench.secondarySideBar.defaultVisibility": "visible"}
    env = environment_for(stage)
    server = await CodeServer.start(parts, "--disable-workspace-trust", env=env, settings=settings)
    yield server
    server.stop()


async def _ask(bench: Workbench, words: str) -> None:
    await bench.command("Chat: Open Chat")
    await bench.page.locator(INPUT).first.click()
    await bench.page.keyboard.type(words, delay=15)
    # The list of participants that opens while one types would take the Enter for itself.
    await bench.press("Escape", "Enter")


async def test_the_participant_answers_and_its_proposal_can_be_reviewed(bench: Workbench, stage: Any) -> None:
    stage.extend(tools(call("read_file", path="greet.py")), tools(EDIT), text("Uses an **f-string** now."))
    await bench.status("Selfloop").wait_for()
    await _ask(bench, "@selfloop use an f-string in part ")
    answers = bench.page.locator(".interactive-list")
    await expect(answers).to_contain_text("Uses an f-string now.", timeout=60_000)
    await bench.screenshot("answered")
    await answers.locator(".monaco-button", has_text="Review").first.click()
    await expect(bench.page.locator(".editor-group-container.active")).to_contain_text("f'Bye {name}'")
    await bench.screenshot("review")
    panel = await Panel.open(bench)
    await panel.send("/sessions")
    await panel.until_text("use an f-string in part")


async def test_a_follow_up_goes_to_the_same_session(bench: Workbench, stage: Any) -> None:
    stage.extend(text("First answer."), text("Second answer."))
    await bench.status("Selfloop").wait_for()
    await _ask(bench, "@selfloop first question ")
    answers = bench.page.locator(".interactive-list")
    await expect(answers).to_contain_text("First answer.", timeout=60_000)
    await _ask(bench, "second question ")
    await expect(answers).to_contain_text("Second answer.", timeout=60_000)
    assert "first question" in str(stage.requests[1].messages), "the second turn knows of the first"
