"""What survives: a reload, a worker killed in the middle of a turn, a second window, a long session."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from model_server import Answer, Hold, Request, call, text, tools
from panel import Panel, expect
from scene import GREETING
from vscode_scripts import held
from workbench import Workbench, eventually

EDIT = call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'")


async def test_a_reload_in_the_middle_of_a_turn_loses_and_doubles_nothing(bench: Workbench, stage: Any) -> None:
    hold = Hold()
    # The window that goes may take its server along: then the answer is cut off, and asked for anew by the next one.
    answer = held("Before the reload,", hold, " after.")
    stage.extend(tools(call("read_file", path="greet.py"), text="I look."), answer, answer)
    panel = await Panel.open(bench)
    await panel.send("Say something long.")
    await panel.expect("Before the reload,")
    await bench.reload()
    panel = await Panel.find(bench)
    await panel.expect("Say something long.")
    await panel.expect("I look.")
    await panel.expect("Before the reload,")
    await panel.screenshot("reloaded")
    await panel.running()
    hold.event.set()
    await panel.expect("Before the reload, after.")
    await panel.idle()
    shown = await panel.text()
    for words in ("Say something long.", "I look.", "Before the reload, after."):
        assert shown.count(words) == 1, shown
    assert shown.count("Before the reload,") == 1 + shown.count("Interrupted here."), shown


async def test_a_worker_killed_in_the_middle_of_a_turn_is_not_noticed(
    bench: Workbench, stage: Any, project: Path
) -> None:
    hold = Hold()
    stage.extend(
        tools(call("read_file", path="greet.py"), text="I look."),
        tools(EDIT),
        held("Nearly ", hold, "done."),
        text("All done."),
    )
    panel = await Panel.open(bench)
    await panel.send("Use an f-string in part.")
    await panel.expect("Nearly")
    bench.kill_worker()
    await panel.expect("All done.")
    hold.event.set()
    await panel.idle()
    await panel.screenshot("killed")
    shown = await panel.text()
    assert shown.count("I look.") == 1 and shown.count("All done.") == 1, shown
    await expect(panel.proposal).to_contain_text("greet.py")
    bench.kill_worker()
    await panel.proposal.get_by_role("button", name="Approve all").click()

    async def applied() -> bool:
        return (project / "greet.py").read_text() == GREETING.replace("'Bye ' + name", "f'Bye {name}'")

    await eventually(applied, "the approval, once, after two deaths")


async def test_a_proposal_is_still_there_after_a_reload(bench: Workbench, stage: Any, project: Path) -> None:
    stage.extend(tools(call("read_file", path="greet.py")), tools(EDIT), text("Done."))
    panel = await Panel.open(bench)
    await panel.send("Use an f-string in part.")
    await panel.proposal.wait_for()
    await panel.idle()
    await bench.reload()
    panel = await Panel.find(bench)
    await bench.open_file("greet.py")
    await bench.lens("^Approve$").click()
    await bench.expect_text("f'Bye {name}'")


async def test_two_windows_on_one_folder_share_a_session(
    bench: Workbench, window: Any, stage: Any, project: Path
) -> None:
    stage.extend(tools(call("read_file", path="greet.py")), tools(EDIT), text("Done."))
    first = await Panel.open(bench)
    await first.send("Use an f-string in part.")
    await first.proposal.wait_for()
    await first.idle()
    other = await window(bench.server)
    await other.open_file("greet.py")
    await other.lens("^Approve$").click()
    await other.expect_text("f'Bye {name}'")
    await first.expect(re.compile("Approved"))
    await first.screenshot("first")
    await other.screenshot("second")
    panel = await Panel.open(other)
    await panel.send("/sessions")
    await panel.frame.locator(".open-session", has_text="Use an f-string").click()
    await panel.expect("Done.")


async def test_a_first_window_that_closes_leaves_the_second_at_work(
    bench: Workbench, window: Any, stage: Any, project: Path
) -> None:
    stage.extend(text("First."), text("Second."))
    other = await window(bench.server)
    panel = await Panel.open(bench)
    await panel.send("One.")
    await panel.expect("First.")
    await panel.idle()
    await bench.close()
    panel = await Panel.open(other)
    await panel.send("Two.")
    await panel.expect("Second.")


async def test_a_long_session_opens_at_its_end_and_goes_back_page_by_page(bench: Workbench, stage: Any) -> None:
    turns, paragraphs = 12, 60

    def play(request: Request) -> Answer:
        # The first is the message; the task that it goes on with is told after it.
        number = re.findall(r"Go on with (\d+)\.", str(request.messages[-1]))[0]
        return text(*(f"Turn {number}, paragraph {at}.\n\n" for at in range(paragraphs)))

    stage.extend(*[play] * turns)
    panel = await Panel.open(bench)
    for number in range(1, turns + 1):
        await panel.send(f"Go on with {number}.")
        await panel.expect(f"Turn {number}, paragraph {paragraphs - 1}.")
        await panel.idle()
    await bench.reload()
    panel = await Panel.find(bench)
    await panel.expect(f"Turn {turns}, paragraph {paragraphs - 1}.")
    assert "Turn 1, paragraph 0." not in await panel.text(), "the first page is the newest"
    await panel.log.hover()

    async def first() -> bool:
        await bench.page.mouse.wheel(0, -20_000)
        return "Turn 1, paragraph 0." in await panel.text()

    await eventually(first, "the beginning of the session")
    assert (await panel.text()).count("Turn 6, paragraph 30.") == 1
