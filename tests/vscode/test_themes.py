"""The main screens in every kind of theme, as pictures to look at, with what must be legible in each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from code_server import SETTINGS, CodeServer
from model_server import Hold, call, text, tools
from panel import Panel, expect
from vscode_scripts import held

THEMES = {
    "dark": "Default Dark Modern",
    "light": "Default Light Modern",
    "contrast": "Default High Contrast",
    "contrast-light": "Default High Contrast Light",
}
ANSWER = """I changed **two** places of `greet.py`:

1. `greet` uses an f-string,
2. so does `part`.

```python
def greet(name: str) -> str:
    return f"Hello {name}"  # one expression
```

| place | before | after |
|---|---|---|
| `greet` | `+` | f-string |

See [greet.py](greet.py#L2) for the first.
"""


@pytest.fixture(autouse=True)
def the_usual_theme_afterwards(code_server: CodeServer) -> Iterator[None]:
    """Other tests have the server after these."""
    yield
    code_server.set_user(workbench__colorTheme=SETTINGS["workbench.colorTheme"])


@pytest.mark.parametrize("theme", THEMES)
async def test_the_main_screens(window: Any, code_server: Any, stage: Any, theme: str) -> None:
    # Before the window opens: a change of the settings' file is not always noticed by one that is just loading.
    code_server.set_user(workbench__colorTheme=THEMES[theme])
    stage.begin()
    bench = await window(code_server)
    kind = {"dark": "vs-dark", "light": "vs", "contrast": "hc-black", "contrast-light": "hc-light"}[theme]
    await bench.page.locator(f".monaco-workbench.{kind}").wait_for()
    hold = Hold()
    stage.extend(
        tools(call("read_file", path="greet.py"), text="I look at the file first."),
        tools(
            call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'"),
        ),
        tools(call("shell", command="python3 -m py_compile greet.py")),
        text(ANSWER),
        held("Thinking about", hold, " it."),
    )
    panel = await Panel.open(bench)
    await panel.expect("Isolation")
    await bench.screenshot("checklist")
    await bench.open_file("greet.py")
    await panel.send("Use f-strings in greet.py.")
    await panel.proposal.wait_for()
    await panel.idle()
    await bench.lens("^Approve$").first.wait_for()
    await bench.screenshot("proposal")
    await panel.card("py_compile").locator("summary").click()
    await panel.log.hover()
    await bench.page.mouse.wheel(0, -2_000)
    await bench.screenshot("card")
    await panel.send("And then?")
    await panel.expect("Thinking about")
    await panel.send("This waits.")
    await panel.button("Edit this message").wait_for()
    await bench.screenshot("running")
    hold.event.set()
    await panel.send("/sessions")
    await panel.frame.get_by_label("Search the sessions").wait_for()
    await bench.screenshot("sessions")
    await bench.command("Selfloop: Set Up")
    await panel.frame.locator(".page.models").wait_for()
    await bench.screenshot("models")
    await bench.command("Selfloop: Review the Whole Proposal")
    await expect(bench.page.locator(".editor-group-container.active")).to_contain_text("f'Hello {name}'")
    await bench.screenshot("review")
