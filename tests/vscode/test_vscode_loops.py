"""Loops where people work: run, watched, read, enabled, raised, decided, cancelled and handed something, by mouse."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from code_server import SETTINGS, CodeServer, Editors
from loop_room import write_loop
from loop_scripts import CHECKED, EDIT, MADE, TEST, plays, with_tests
from model_server import Hold, raw, text, tools
from scene import environment_for
from workbench import WAIT_SECONDS, Workbench, eventually

from playwright.async_api import Error, Frame, Locator, expect  # isort: skip

SLOW = 1000 * WAIT_SECONDS
QUIET = (
    "All is **quiet** in `greet.py:1`.\n\n"
    "[leave](command:workbench.action.closeWindow) <img src=x onerror=alert(1)>\n\n"
    "Status: Done"
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def code_server(parts: Editors, stage: Any) -> AsyncIterator[CodeServer]:
    """A server whose user has loops of their own."""
    server = await CodeServer.start(parts, "--disable-workspace-trust", env=environment_for(stage))
    loops = server.home / "config" / "loops"
    write_loop(loops, "a-look", "Look around.", level="L1-report")
    write_loop(loops, "a-nightly", "Look around.", level="L1-report", cadence="daily 03:00")
    write_loop(loops, "a-sweep", "Mend it.", level="L2-assisted", action="apply-patch")
    write_loop(loops, "a-speaker", "Say it.", level="L2-assisted", action="comment")
    yield server
    server.stop()


@pytest.fixture
def project(project: Path) -> Path:
    """A repository with a test that really runs."""
    return with_tests(project)


async def loops_of(bench: Workbench) -> Locator:
    """Open the view, and return its rows once they are there."""
    await bench.command("Selfloop: Focus on Loops View")
    rows = await bench.tree("Loops")
    await rows.filter(has_text="ci-sweeper").wait_for()
    return rows


async def press(rows: Locator, loop: str, button: str) -> None:
    """Press a button of a row."""
    row = rows.filter(has_text=loop).first
    await row.hover()
    await row.get_by_role("button", name=button).click()


async def page_with(bench: Workbench, words: str) -> Frame:
    """Return the page that says something, once it is in view."""

    async def found() -> Frame | None:
        frame = await bench.frame_with("main.page")
        try:
            return frame if words in await frame.locator("main.page").inner_text() else None
        except Error:  # It was drawn anew, or gave way to another page, meanwhile.
            return None

    frame = await eventually(found, f"a page that says {words!r}")
    assert frame is not None
    return frame


async def test_a_round_is_run_from_the_view_and_its_page_tells_all(bench: Workbench, stage: Any) -> None:
    stage._script = plays([text(QUIET)], CHECKED)
    rows = await loops_of(bench)
    await bench.screenshot("seven-loops")
    look = rows.filter(has_text="a-look").first
    await expect(look).to_contain_text("L1 · off")
    await press(rows, "a-look", "Run a Loop Now")
    await expect(look).to_contain_text("reported just now", timeout=SLOW)
    await expect(look).to_contain_text("tokens today")
    await look.click()
    await rows.filter(has_text=re.compile("Reported")).first.click()
    frame = await page_with(bench, "All is quiet in")
    shown = await frame.locator("main").inner_text()
    for said in ("a-look", "reported", "Maker", "Checker", "verified", "It greets.", TEST, "exit 0", "tokens in"):
        assert said in shown, shown
    assert await frame.locator("img, script").count() == 0, "the model's HTML is text"
    assert "<img src=x" in shown
    assert await frame.locator('a[href*="closeWindow"]').count() == 0, "the model's command is no link"
    await bench.screenshot("report")
    await frame.get_by_role("button", name="What the Maker Did").click()
    await bench.frame_with('textarea[aria-label="Message to the agent"]')
    await frame.locator("a", has_text="Output").click()
    await expect(bench.editor).to_contain_text("OK", timeout=SLOW)
    await bench.screenshot("output")
    assert not await bench.page.locator(".notifications-toasts .notification-list-item").count(), (
        "no toast for a report"
    )
    await bench.command("Selfloop: Spend by Loop and Day")
    spend = await page_with(bench, "Spend")
    assert await spend.locator("svg.chart rect").count() == 1
    await expect(spend.locator("table")).to_contain_text("a-look")
    await bench.screenshot("spend")


async def test_a_loop_is_enabled_and_paused_and_more_authority_is_asked_for(bench: Workbench) -> None:
    rows = await loops_of(bench)
    nightly = rows.filter(has_text="a-nightly").first
    await press(rows, "a-nightly", "Enable a Loop")
    await expect(nightly).to_contain_text(re.compile(r"L1 · daily 03:00 · (in \d+ min|(today|tomorrow) 03:00)"))
    await bench.screenshot("enabled")
    await bench.command("Selfloop: Change a Loop’s Level…")
    await bench.pick("a-nightly")
    await bench.page.locator(".quick-input-list", has_text="asks you at a gate first").wait_for()
    await bench.screenshot("levels")
    await bench.pick("L2 Assisted")
    frame = await page_with(bench, "If you approve")
    await bench.screenshot("question")
    await expect(nightly).to_contain_text("L1 · daily")
    await expect(nightly).to_contain_text("1 waiting")
    await frame.get_by_role("button", name="Approve").click()
    await expect(nightly).to_contain_text("L2 · daily", timeout=SLOW)
    await page_with(bench, "answered")
    await press(rows, "a-nightly", "Disable a Loop")
    await expect(nightly).to_contain_text("L2 · off")


async def test_what_an_l2_round_proposes_waits_for_the_user(bench: Workbench, stage: Any, project: Path) -> None:
    stage._script = plays([tools(EDIT), text(MADE)], CHECKED)
    rows = await loops_of(bench)
    await press(rows, "a-sweep", "Run a Loop Now")
    await bench.expect_toast("A loop waits for your decision")
    await bench.screenshot("escalated")
    await expect(rows.filter(has_text="a-sweep").first).to_contain_text("1 waiting")
    await bench.toast("A loop waits").get_by_role("button", name="Review").click()
    await bench.tab("greet.py").wait_for()
    await bench.command("Selfloop: Focus on Waiting for You View")
    waiting = await bench.tree("Waiting for You")
    row = waiting.filter(has_text="greet.py").first
    await row.wait_for()
    await bench.screenshot("waits")
    await row.hover()
    await row.get_by_role("button", name="Approve").first.click()

    async def written() -> bool:
        return "f'Hello {name}'" in (project / "greet.py").read_text()

    await eventually(written, "the approved change")
    rows = await loops_of(bench)
    await rows.filter(has_text="a-sweep").first.click()
    await rows.filter(has_text=re.compile("Asked you")).first.click()
    await page_with(bench, "Carried Out")
    await bench.screenshot("approved")


async def test_a_running_round_shows_where_it_is_and_is_cancelled(bench: Workbench, stage: Any) -> None:
    hold = Hold()
    stage._script = lambda request: raw(hold)
    rows = await loops_of(bench)
    await press(rows, "a-look", "Run a Loop Now")
    look = rows.filter(has_text="a-look").first
    await expect(look).to_contain_text("making…", timeout=SLOW)
    await bench.screenshot("running")
    await press(rows, "a-look", "Cancel a Loop")
    await expect(look).to_contain_text("failed just now", timeout=SLOW)
    hold.event.set()


@pytest.mark.parametrize("theme", ["Default Light Modern", "Default High Contrast"])
async def test_the_pages_in_other_themes(window: Any, code_server: CodeServer, stage: Any, theme: str) -> None:
    code_server.set_user(workbench__colorTheme=theme)
    stage.begin()
    stage._script = plays([text(QUIET)], CHECKED)
    bench = await window(code_server)
    rows = await loops_of(bench)
    await press(rows, "a-look", "Run a Loop Now")
    look = rows.filter(has_text="a-look").first
    await expect(look).to_contain_text("reported just now", timeout=SLOW)
    await look.click()
    await rows.filter(has_text=re.compile("Reported")).first.click()
    await page_with(bench, "All is quiet in")
    await bench.screenshot("report")
    await bench.command("Selfloop: Spend by Loop and Day")
    await page_with(bench, "Spend")
    await bench.screenshot("spend")
    code_server.set_user(workbench__colorTheme=SETTINGS["workbench.colorTheme"])


async def test_a_selection_is_handed_to_a_loop(bench: Workbench, stage: Any) -> None:
    stage._script = plays([text("Looked.\nStatus: Done")], CHECKED)
    await bench.open_file("greet.py")
    await bench.goto(1, 1)
    await bench.press("Shift+ArrowDown", "Shift+ArrowDown")
    offer = bench.page.locator(".action-widget .monaco-list-row", has_text="Hand to a loop").first

    async def offered() -> bool:
        await bench.press("Control+.")
        try:
            await offer.wait_for(timeout=3_000)
        except Error:  # The server is still starting, and has offered nothing.
            return False
        return True

    await eventually(offered, "the light bulb's offer")
    await bench.screenshot("offer")
    await offer.click()
    await bench.page.locator(".quick-input-list", has_text="a-look").wait_for()
    await bench.screenshot("which-loop")
    await bench.pick("a-look")
    await page_with(bench, "Looked.")
    assert "def greet" in str(stage.requests[0].messages), "the selection goes with it"


async def test_what_would_be_sent_is_shown_exactly(bench: Workbench, stage: Any) -> None:
    stage._script = plays([text("## Comment on issue #7\n\nIt is <b>mended</b>.\n\nStatus: Done")], CHECKED)
    rows = await loops_of(bench)
    await press(rows, "a-speaker", "Run a Loop Now")
    await bench.expect_toast("A loop waits for your decision")
    await bench.toast("A loop waits").get_by_role("button", name="Review").click()
    frame = await page_with(bench, "Exactly this would be sent")
    await bench.screenshot("question")
    assert "<b>mended</b>" in await frame.locator("pre").inner_text()
    await frame.get_by_role("button", name="Reject").click()
    await page_with(bench, "answered (reject)")
