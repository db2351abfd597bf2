"""Commands that wait for the user: shown exactly, answered once, remembered word for word, revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from code_server import CodeServer, Editors
from model_server import call, text, tools
from panel import Panel, expect
from scene import environment_for
from workbench import Workbench, eventually

COMMAND = "touch made-by-the-agent && cp made-by-the-agent copied"
RUN = call("shell", command=COMMAND)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def code_server(parts: Editors, stage: Any) -> AsyncIterator[CodeServer]:
    """A server whose agent has no jail, so that every command of substance waits."""
    server = await CodeServer.start(
        parts, "--disable-workspace-trust", env=environment_for(stage), machine={"selfloop.isolation": "changes"}
    )
    yield server
    server.stop()


async def _told(stage: Any, count: int) -> str:
    """Wait for the model's next request, and return what the tool told it."""

    async def came() -> bool:
        return len(stage.requests) >= count

    await eventually(came, "the model to hear of it")
    return str(stage.requests[count - 1].messages[-1]["content"])


async def test_a_command_waits_and_is_shown_exactly(bench: Workbench, stage: Any) -> None:
    stage.extend(tools(RUN), text("Ran."))
    panel = await Panel.open(bench)
    await panel.send("Make a file.")
    await panel.command_gate.wait_for()
    await bench.expect_toast(COMMAND)
    await bench.screenshot("waits")
    shown = await panel.command_gate.inner_text()
    assert COMMAND in shown and "Network" in shown and "Folder" in shown, shown
    assert len(stage.requests) == 1, "nothing ran yet"
    await panel.command_gate.get_by_role("button").first.click()
    assert "exit code 0" in (await _told(stage, 2)).lower()
    await panel.expect("Ran.")
    await bench.screenshot("ran")


async def test_a_command_is_refused_by_the_notification(bench: Workbench, stage: Any, project: Path) -> None:
    stage.extend(tools(RUN), text("Then not."))
    panel = await Panel.open(bench)
    await panel.send("Make a file.")
    await bench.expect_toast(COMMAND)
    await bench.toast(COMMAND).get_by_role("button", name="Reject").click()
    told = (await _told(stage, 2)).lower()
    assert "not run" in told, told
    await panel.expect("Then not.")
    assert not (project / "made-by-the-agent").exists()


async def test_always_shows_its_exact_rule_and_can_be_revoked(bench: Workbench, stage: Any) -> None:
    stage.extend(tools(RUN), text("First."), tools(RUN), text("Second."), tools(RUN), text("Third."))
    panel = await Panel.open(bench)
    await panel.send("Make a file.")
    always = panel.command_gate.get_by_role("button", name="Always")
    await expect(panel.command_gate.locator(".rule")).to_contain_text(COMMAND)
    await bench.screenshot("always")
    await always.click()
    await panel.expect("First.")
    await panel.idle()
    await panel.send("Again.")
    await panel.expect("Second.")
    await panel.idle()
    await bench.clear_toasts()
    await bench.command("Selfloop: Remembered Rules")
    row = bench.page.locator(".quick-input-widget:visible .monaco-list-row", has_text="touch made-by-the-agent").first
    await row.wait_for()
    await bench.screenshot("rules")
    await row.hover()
    await row.locator(".quick-input-list-entry-action-bar .action-label").first.click()
    await bench.dialog_button("Revoke").click()
    await bench.press("Escape")
    await panel.send("Once more.")
    await panel.command_gate.wait_for()


async def test_the_gates_view_answers_a_command(bench: Workbench, stage: Any) -> None:
    stage.extend(tools(RUN), text("Ran."))
    panel = await Panel.open(bench)
    await panel.send("Make a file.")
    await panel.command_gate.wait_for()
    rows = await bench.tree("Waiting for You")
    row = rows.filter(has_text="touch made-by-the-agent").first
    await row.hover()
    await bench.screenshot("tree")
    await row.get_by_role("button", name="Approve").click()
    await panel.expect("Ran.")


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b"])
async def test_what_cannot_be_seen_in_a_command_is_written_out(bench: Workbench, stage: Any, hidden: str) -> None:
    stage.extend(tools(call("shell", command=f"rm {hidden}-rf build")), text("Ran."))
    panel = await Panel.open(bench)
    await panel.send("Clean up.")
    await panel.command_gate.wait_for()
    shown = await panel.command_gate.inner_text()
    assert hidden not in shown and f"{ord(hidden):X}" in shown.upper(), shown
