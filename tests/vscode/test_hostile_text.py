"""What a model writes is data: HTML, scripts, command links, remote pictures, ANSI and five megabytes do nothing."""

from __future__ import annotations

import re
from typing import Any

from model_server import ModelServer, call, text, tools
from panel import Panel, expect
from workbench import Workbench, eventually

TRAPS = """
<script>window.top.postMessage('owned', '*'); document.title = 'owned'</script>
<img src=x onerror="document.body.dataset.owned = 'yes'">
<iframe src="http://TRAP/frame"></iframe>
<style>body { display: none }</style>
<form action="http://TRAP/form"><button>Approve all</button></form>
<a href="javascript:document.body.dataset.owned='yes'">by script</a>
<details open ontoggle="document.body.dataset.owned='yes'">x</details>
<svg onload="document.body.dataset.owned='yes'"></svg>
<vscode-button onclick="x">native</vscode-button>

[by command](command:workbench.action.closeWindow)
[by trusted command](command:selfloop.gate.resolve?%5B%7B%22optionId%22%3A%22approve%22%7D%5D)
[by script](javascript:alert(1))
[by data](data:text/html,<script>alert(1)</script>)
[outside](../../../../etc/passwd)
[by file](file:///etc/passwd)
[by vscode](vscode://selfloop.selfloop/approve)
![a picture](http://TRAP/picture.png)
![tracked][pixel]
<http://TRAP/auto>

[pixel]: http://TRAP/pixel.gif

\x1b[31mred\x1b[0m \x1b]8;;http://TRAP/link\x07linked\x1b]8;;\x07 \u202egnihsihp\u202c end

The end of the answer.
"""


async def test_markup_of_a_models_does_nothing(bench: Workbench, stage: Any) -> None:
    with ModelServer() as trap:
        host = trap.origin.removeprefix("http://")
        stage.extend(text(TRAPS.replace("TRAP", host)))
        panel = await Panel.open(bench)
        await panel.send("Go.")
        await panel.expect("The end of the answer.")
        await panel.idle()
        await panel.screenshot("traps")
        answer = panel.log.locator(".prose").last
        for element in ("script", "iframe", "img", "style", "form", "svg", "details", "vscode-button", "button"):
            assert await answer.locator(element).count() == 0, element
        for name in ("by command", "by trusted command", "by script", "by data", "outside", "by file", "by vscode"):
            for place in await answer.get_by_text(name, exact=True).all():
                href = await place.evaluate("one => one.closest('a')?.getAttribute('href') ?? ''")
                assert href in ("", "#"), f"{name}: {href}"
                await place.click()
        raw = await answer.inner_text()
        assert "\x1b" not in raw and "\u202e" not in raw
        assert await panel.frame.evaluate("document.body.dataset.owned ?? document.title") in ("", "Chat", "Selfloop")
        assert await bench.page.locator(".monaco-workbench").is_visible(), "the window is still there"
        assert await bench.page.locator(".tabs-container .tab", has_text="passwd").count() == 0
        assert trap.others == [] and trap.requests == [] and trap.connections == 0, "nothing was fetched"


async def test_a_web_link_asks_before_it_opens(bench: Workbench, stage: Any) -> None:
    stage.extend(text("See [the page](http://203.0.113.7/page) first."))
    panel = await Panel.open(bench)
    await panel.send("Go.")
    await panel.expect("the page")
    await panel.idle()
    await panel.log.get_by_text("the page").click()
    await expect(bench.page.locator(".monaco-dialog-box")).to_contain_text("203.0.113.7")
    await panel.screenshot("asks")
    await bench.press("Escape")


async def test_tool_titles_and_outputs_are_text(bench: Workbench, stage: Any) -> None:
    name = "<img src=x onerror=alert(1)>.py"
    stage.extend(
        tools(
            call("write_file", path=name, content="<script>alert(1)</script>\n"),
            call("shell", command="printf '\\033[31m<b>red</b>\\033[0m\\n'"),
        ),
        text("Done."),
    )
    panel = await Panel.open(bench)
    await panel.send("Go.")
    await panel.expect("Done.")
    await panel.idle()
    assert await panel.log.locator("img, b:text('red'), script").count() == 0
    card = panel.card("printf")
    await card.locator("summary").click()
    await expect(card).to_contain_text("<b>red</b>")
    assert "\x1b" not in await card.inner_text()
    await expect(panel.proposal).to_contain_text("onerror")
    await panel.screenshot("names")


async def test_five_megabytes_are_shown_in_part_and_the_panel_stays_quick(bench: Workbench, stage: Any) -> None:
    paragraph = "Many words, again and again, in **bold** and `code`.\n\n" * 400
    deltas = [f"Part {number}.\n\n{paragraph}" for number in range(250)]
    assert sum(map(len, deltas)) > 5_000_000
    # So much does not fit into the model's context, so the next turn has it summed up first.
    stage.extend(text(*deltas), *[text("Still here.")] * 4)
    panel = await Panel.open(bench)
    await panel.send("Everything.")
    await panel.expect("Part 0.")
    await panel.idle()
    await panel.expect("Show the rest")
    shown = len(await panel.text())
    assert shown < 1_000_000, f"{shown} characters are drawn"
    await panel.screenshot("five-megabytes")
    await panel.button("Show the rest").click()

    async def opened() -> bool:
        return "Part 0." in await bench.editor_text()

    await eventually(opened, "the whole of it as a document")
    await panel.send("Are you there?")
    await panel.expect(re.compile("Still here"))
