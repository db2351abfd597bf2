"""The chat panel: a prompt, its answer as it comes, cards, the queue, and what stands in a session's way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from model_server import Hold, call, text, tools
from panel import Panel, expect
from scene import GREETING
from vscode_scripts import held
from workbench import Workbench, eventually

EDIT = call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'")


async def test_an_answer_is_seen_while_it_is_written(bench: Workbench, stage: Any) -> None:
    fourth = Hold()
    stage.extend(held("One ", "two ", "three", fourth, " four."))
    panel = await Panel.open(bench)
    await panel.send("Count.")
    await panel.expect("One two three")
    assert "four" not in await panel.text(), "the model has not said it yet"
    await panel.running()
    await panel.screenshot("streaming")
    fourth.event.set()
    await panel.expect("One two three four.")
    await panel.idle()
    assert (await panel.text()).count("One two three four.") == 1
    assert (await panel.text()).count("Count.") == 1
    await panel.screenshot("answered")


async def test_tool_calls_are_cards_and_the_proposal_is_one_too(bench: Workbench, stage: Any, project: Path) -> None:
    stage.extend(
        tools(call("read_file", path="greet.py"), text="I look."),
        tools(EDIT),
        tools(call("shell", command="python3 -c 'print(6 * 7)'")),
        text("Done: `part` uses an **f-string**."),
    )
    panel = await Panel.open(bench)
    await panel.send("Use an f-string in part.")
    await panel.expect("Done: part uses an f-string.")
    await panel.idle()
    await panel.screenshot("cards")
    card = panel.card(re.compile("print"))
    assert not await card.evaluate("card => card.open"), "a card is closed until it is wanted"
    await card.locator("summary").click()
    await expect(card).to_contain_text("42")
    await panel.screenshot("card-open")
    await expect(panel.proposal).to_contain_text("greet.py")
    await expect(panel.proposal).to_contain_text("python3 -c")
    await expect(panel.proposal).to_contain_text("exit 0")
    assert (project / "greet.py").read_text() == GREETING, "nothing is changed before the click"
    await panel.proposal.get_by_role("button", name="Approve all").click()

    async def applied() -> bool:
        return "f'Bye {name}'" in (project / "greet.py").read_text()

    await eventually(applied, "the approved file")
    await panel.expect(re.compile("Approved"))
    await panel.screenshot("approved")
    await panel.button("Undo this change").click()

    async def back() -> bool:
        return (project / "greet.py").read_text() == GREETING

    await eventually(back, "the file as it was")


async def test_what_was_not_tested_says_so(bench: Workbench, stage: Any) -> None:
    stage.extend(tools(call("read_file", path="greet.py")), tools(EDIT), text("Done."))
    panel = await Panel.open(bench)
    await panel.send("Use an f-string in part.")
    await expect(panel.proposal).to_contain_text(re.compile("not tested", re.IGNORECASE))
    await expect(panel.proposal).to_contain_text("Use an f-string in part.")


async def test_an_agents_file_link_opens_at_its_line(bench: Workbench, stage: Any) -> None:
    stage.extend(text("Look at [the end](greet.py#L6)."))
    panel = await Panel.open(bench)
    await panel.send("Where?")
    await panel.log.get_by_text("the end").click()
    await bench.status("Ln 6, Col 1").wait_for()


async def test_what_is_sent_while_a_turn_runs_waits_in_a_queue_that_can_be_changed(
    bench: Workbench, stage: Any
) -> None:
    hold = Hold()
    stage.extend(held("First", hold, " answer."), text("Second answer."))
    panel = await Panel.open(bench)
    await panel.send("One.")
    await panel.expect("First")
    await panel.send("Two, wrongly.")
    await panel.send("Three, not wanted.")
    await panel.until_text("Three, not wanted.")
    await panel.screenshot("queue")
    await panel.button("Remove this message").last.click()
    await panel.button("Edit this message").first.click()
    waiting = panel.frame.get_by_label("The waiting message")
    await waiting.fill("Two, rightly.")
    await waiting.press("Enter")
    await panel.until_text("Two, rightly.")
    hold.event.set()
    await panel.expect("Second answer.")
    await panel.idle()
    shown = await panel.text()
    assert "Two, rightly." in shown and "wrongly" not in shown and "not wanted" not in shown
    assert "Two, rightly." in str(stage.requests[1].messages[-1])


async def test_stop_ends_the_turn(bench: Workbench, stage: Any) -> None:
    stage.extend(held("Begun", Hold()))
    panel = await Panel.open(bench)
    await panel.send("Go on for ever.")
    await panel.expect("Begun")
    await panel.button("Stop the running turn").click()
    await panel.idle()
    await panel.screenshot("stopped")
    stage.extend(text("Here again."))
    await panel.send("Still there?")
    await panel.expect("Here again.")


async def test_a_failing_model_is_one_sentence(bench: Workbench, stage: Any) -> None:
    panel = await Panel.open(bench)
    await panel.send("Hello?")
    await panel.expect(re.compile("no reply to this request"))
    await panel.idle()
    await panel.screenshot("model-failed")


async def test_sessions_are_found_renamed_and_deleted(bench: Workbench, stage: Any) -> None:
    stage.extend(text("About apples."), text("About pears."))
    panel = await Panel.open(bench)
    await panel.send("Speak of apples.")
    await panel.expect("About apples.")
    await panel.idle()
    await bench.command("Selfloop: New Session")
    await expect(panel.log).not_to_contain_text("apples")
    await panel.send("Speak of pears.")
    await panel.expect("About pears.")
    await panel.idle()
    await panel.send("/sessions")
    search = panel.frame.get_by_label("Search the sessions")
    await search.fill("apples")
    rows = panel.frame.locator(".open-session")
    await expect(rows).to_have_count(1)
    await panel.screenshot("sessions")
    await rows.first.click()
    await panel.expect("About apples.")
    await panel.send("/rename Fruit of the tree")
    await panel.send("/sessions")
    await panel.until_text("Fruit of the tree")
    await panel.button(re.compile("Delete .*pears", re.IGNORECASE)).click()
    await bench.dialog_button("Delete").click()
    await expect(panel.frame.locator(".open-session")).to_have_count(1)
    await panel.screenshot("one-session")


async def test_the_composer_completes_files_and_remembers(bench: Workbench, stage: Any) -> None:
    stage.extend(text("Read."), text("Again."))
    panel = await Panel.open(bench)
    await panel.composer.press_sequentially("Explain @gre")
    await panel.frame.get_by_role("option", name="greet.py").wait_for()
    await panel.screenshot("file-completion")
    await panel.composer.press("Enter")
    await panel.composer.press_sequentially("please")
    await panel.composer.press("Enter")
    await panel.expect("Read.")
    await panel.idle()
    assert "def greet" in str(stage.requests[0].messages), "the attached file is told to the model"
    await panel.composer.press("ArrowUp")
    assert "Explain @greet.py" in await panel.composer.input_value()


async def test_everything_goes_by_keyboard(bench: Workbench, stage: Any, project: Path) -> None:
    stage.extend(tools(call("read_file", path="greet.py")), tools(EDIT), text("Done."))
    await bench.press("Control+Alt+s")
    panel = await Panel.find(bench)
    await expect(panel.composer).to_be_focused()
    await bench.type("Use an f-string.")
    await bench.press("Enter")
    await panel.expect("Done.")
    await panel.idle()
    await panel.proposal.get_by_role("button", name="Review").focus()
    await bench.press("Tab", "Enter")

    async def applied() -> bool:
        return "f'Bye {name}'" in (project / "greet.py").read_text()

    await eventually(applied, "the approval by the second button")
