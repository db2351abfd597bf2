"""One window of the real VS Code workbench, driven by mouse and keys as a user would.

A test waits for what a user would see, never for a time. Text is clicked by coordinates: Playwright's own click scrolls
what it clicks into view, and that shifts the workbench's panes, which were never meant to scroll.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from attrs import define, field

from code_server import CodeServer, require_editors
from processes import kill, worker_of

require_editors()  # Before the import, so that playwright's absence is a reason and not an error.
from playwright.async_api import BrowserContext, ConsoleMessage, Error, Frame, Locator, Page, expect  # noqa: E402
from playwright.async_api import TimeoutError as PlaywrightTimeout  # noqa: E402

WAIT_SECONDS = 45.0 * float(os.environ.get("SELFLOOP_TEST_PATIENCE", "1"))
"""The longest wait for anything that a user would see at once; what comes sooner costs nothing. A machine on which
others work too needs more patience."""

KNOWN = re.compile("spdlog|watchdog|vsda|Failed to load resource|'github'|lifecycle|ENOTFOUND|agentHost")
"""What the console always complains of: parts that would need a compiler, a network or an account."""

expect.set_options(timeout=1000 * WAIT_SECONDS)

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], what: str, timeout_seconds: float = WAIT_SECONDS) -> T:
    """Look until what is seen is true, and return it; raises AssertionError with `what` and the last look."""
    deadline = time.monotonic() + timeout_seconds
    while not (seen := await look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_seconds:g} s in vain for {what}; last seen: {seen!r}")
        await asyncio.sleep(0.03)
    return seen


async def _comes(what: Locator, timeout_seconds: float = 3.0) -> bool:
    """Wait a while for something to be seen; tell whether it was."""
    try:
        await what.wait_for(timeout=1000 * timeout_seconds)
    except PlaywrightTimeout:
        return False
    return True


@define(slots=False)  # Playwright notes its listeners on the object whose methods they are.
class Workbench:
    """A window on a folder. All lines and columns are counted from one, as the status bar does."""

    server: CodeServer
    context: BrowserContext
    page: Page
    folder: Path
    shots: Path
    """Where its screenshots go."""
    complaints: list[str] = field(factory=list)
    """What the browser's console reported as an error."""
    _numbers: Any = field(factory=lambda: itertools.count(1))

    # Life

    @classmethod
    async def open(
        cls, server: CodeServer, context: BrowserContext, folder: Path, shots: Path, page: Page | None = None
    ) -> Workbench:
        """Open a window on a folder, in a page that another has left if there is one; wait until it is usable."""
        page = page or await context.new_page()
        page.set_default_timeout(1000 * WAIT_SECONDS)
        window = cls(server, context, page, folder, shots)
        page.on("console", window._heard)
        page.on("pageerror", window._failed)
        await page.goto(f"{server.url}/?folder={quote(str(folder))}")
        await window.ready()
        return window

    async def ready(self) -> None:
        """Wait until our extension is active: then it has its item in the status bar."""
        await self.page.locator('.monaco-workbench .statusbar-item[id^="selfloop"]').first.wait_for(
            timeout=2000 * WAIT_SECONDS
        )

    async def reload(self) -> None:
        """Reload the window, as the command of that name does."""
        await self.page.reload()
        await self.ready()

    async def close(self) -> None:
        """Leave the page, so that the window says goodbye to its server, then close it."""
        if not self.page.is_closed():
            await self.page.goto("about:blank")
            await self.page.close()

    async def leave(self) -> Page | None:
        """Leave the page as `close` does, and return it for another window; None if it was closed."""
        if self.page.is_closed():
            return None
        self.page.remove_listener("console", self._heard)
        self.page.remove_listener("pageerror", self._failed)
        await self.page.goto("about:blank")
        return self.page

    async def screenshot(self, name: str) -> Path:
        """Keep a picture of the window; returns where."""
        self.shots.mkdir(parents=True, exist_ok=True)
        path = self.shots / f"{next(self._numbers):02d}-{name}.png"
        await self.page.screenshot(path=path)
        return path

    def kill_worker(self) -> int:
        """kill -9 the worker of the newest language server; returns the dead process's id."""
        pid = worker_of(self.server.supervisors()[-1])
        kill(pid)
        return pid

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not KNOWN.search(message.text):
            self.complaints.append(message.text[:300])

    def _failed(self, error: Error) -> None:
        self.complaints.append(str(error))

    # Commands

    async def command(self, title: str) -> None:
        """Run a command of the palette by its full title."""
        row = self.page.locator(".quick-input-list .monaco-list-row", has_text=title).first

        async def listed() -> bool:
            # A command that was registered while the list was open is listed only when it is asked for again.
            return await self._fill(">") and await self._fill(f">{title}") and await _comes(row)

        await eventually(listed, f"the command {title}")
        await row.click()

    async def commands(self, words: str) -> list[str]:
        """Return the titles that the palette lists for some words."""
        await self._palette(f">{words}")
        rows = self.page.locator(".quick-input-list .monaco-list-row .label-name")
        await rows.first.wait_for()
        titles = await rows.all_inner_texts()
        await self.page.keyboard.press("Escape")
        return titles

    async def pick(self, text: str) -> None:
        """Choose an entry of the quick pick that is open."""
        row = self.page.locator(".quick-input-widget:visible .monaco-list-row", has_text=text).first
        await row.click()

    async def answer(self, text: str, *, secret: bool = False) -> None:
        """Type into the input box that is open, and accept it; a secret goes only into a box that hides it."""
        box = self.page.locator(f".quick-input-widget input[type={'password' if secret else 'text'}]:visible")
        await box.fill(text)
        await self.page.keyboard.press("Enter")

    async def _palette(self, text: str) -> None:
        """Open the palette with a text in it."""

        async def opened() -> bool:
            return await self._fill(text)

        await eventually(opened, "the command palette")

    async def _fill(self, text: str) -> bool:
        """Put a text into the palette, opened if need be; tell whether it is there.

        A key that comes while the focus moves is lost, and a palette that loses the focus closes.
        """
        box = self.page.locator(".quick-input-widget input:visible")
        if not await box.is_visible():
            await self.page.keyboard.press("F1")
            if not await _comes(box):
                return False
        try:
            await box.fill(text, timeout=3_000)
        except PlaywrightTimeout:
            return False
        return True

    # Editors

    @property
    def editor(self) -> Locator:
        """The text editor in front."""
        return self.page.locator(".editor-group-container.active .editor-instance").first

    async def open_file(self, name: str) -> None:
        """Open a file of the folder by its name, and wait until its text is there."""
        await self._palette(name)
        await self.page.locator(".quick-input-list .monaco-list-row", has_text=Path(name).name).first.click()
        await self.tab(Path(name).name).wait_for()
        await self.editor.locator(".view-line").first.wait_for()

    def tab(self, title: str) -> Locator:
        """The tab with a title."""
        return self.page.locator(".tabs-container .tab", has_text=title).first

    async def dirty(self, title: str) -> bool:
        """Tell whether a tab shows unsaved changes."""
        return "dirty" in (await self.tab(title).get_attribute("class") or "").split()

    async def editor_text(self) -> str:
        """Return the lines of the editor in front that are on the screen, in their order."""
        lines: list[tuple[float, str]] = await self.editor.locator(".view-line").evaluate_all(
            "lines => lines.map(line => [parseFloat(line.style.top), line.textContent])"
        )
        return "\n".join(text for _, text in sorted(lines)).replace("\u00a0", " ")

    async def expect_text(self, text: str) -> None:
        """Wait until the editor in front shows a text."""

        async def shown() -> bool:
            return text in await self.editor_text()

        await eventually(shown, f"{text!r} in the editor")

    async def focus_editor(self) -> None:
        """Click into the editor in front."""
        line = self.editor.locator(".view-line").first
        box = await eventually(line.bounding_box, "the first line of the editor")
        assert box is not None
        await self.page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)

    async def goto(self, line: int, column: int = 1) -> None:
        """Put the cursor somewhere in the editor in front."""
        await self.focus_editor()
        await self.page.keyboard.press("Control+g")
        box = self.page.locator(".quick-input-widget input:visible")
        await box.wait_for()
        await box.fill(f":{line}:{column}")
        await self.page.keyboard.press("Enter")
        await self.page.locator(".statusbar-item", has_text=f"Ln {line}, Col {column}").wait_for()

    async def type(self, text: str) -> None:
        """Type where the cursor is."""
        await self.page.keyboard.type(text)

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            await self.page.keyboard.press(key)

    def lens(self, text: str) -> Locator:
        """The code lenses in front with a text."""
        return self.editor.locator(".codelens-decoration a", has_text=re.compile(text))

    async def light_bulb(self) -> list[str]:
        """Open the light bulb at the cursor with the mouse, and return what it offers."""
        # In the text where there is room before it, else in the margin.
        bulb = self.editor.locator('.lightBulbWidget:visible, [class*="gutter-lightbulb"]:visible').first
        await bulb.wait_for()
        boxes: list[Any] = []

        async def still() -> bool:
            # It is drawn anew with each answer of a provider; a click in between would go to what is behind it.
            boxes.append(await bulb.bounding_box() if await bulb.is_visible() else None)
            return boxes[-1] is not None and boxes[-15:] == [boxes[-1]] * 15

        await eventually(still, "a light bulb that stays")
        box = boxes[-1]
        await self.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        widget = self.page.locator(".action-widget:visible").first
        await widget.wait_for()
        return await widget.locator(".monaco-list-row").all_inner_texts()

    async def choose_action(self, text: str) -> None:
        """Choose an entry of the light bulb's menu that is open."""
        await self.page.locator(".action-widget .monaco-list-row", has_text=text).first.click()

    # The rest of the window

    def status(self, text: str | re.Pattern[str]) -> Locator:
        """The status bar items with a text."""
        return self.page.locator(".statusbar-item", has_text=text)

    def toast(self, text: str) -> Locator:
        """The notifications with a text."""
        return self.page.locator(".notifications-toasts .notification-list-item", has_text=text).first

    async def expect_toast(self, text: str) -> str:
        """Wait for a notification, and return its whole text."""
        await self.toast(text).wait_for()
        return await self.toast(text).inner_text()

    async def clear_toasts(self) -> None:
        """Take all notifications away."""
        await self.command("Notifications: Clear All Notifications")

    def dialog_button(self, text: str) -> Locator:
        """A button of the modal dialog that is open."""
        return self.page.locator(".monaco-dialog-box .monaco-button", has_text=text).first

    async def frame_with(self, selector: str, timeout_seconds: float = WAIT_SECONDS) -> Frame:
        """Return the visible web view that holds an element. A web view is a frame within a frame."""

        async def find() -> Frame | None:
            for frame in self.page.frames:
                if "/webview/browser/pre/fake.html" not in frame.url or frame.parent_frame is None:
                    continue
                try:
                    outer = await frame.parent_frame.frame_element()
                    if await outer.is_visible() and await frame.locator(selector).count():
                        return frame
                except Error as error:  # A frame may go between the look at the list and the look at it.
                    if "detached" not in str(error) and "Target closed" not in str(error):
                        raise
            return None

        found = await eventually(find, f"a web view with {selector}", timeout_seconds)
        assert found is not None
        return found

    async def web_view_text(self) -> str:
        """Return the text of all web views, for the report of a test that failed."""
        texts = []
        for frame in self.page.frames:
            if "/webview/browser/pre/fake.html" in frame.url:
                try:
                    texts.append(await frame.locator("body").inner_text(timeout=2_000))
                except Error as error:
                    texts.append(f"(not readable: {error.message})")
        return "\n---\n".join(texts)[-4_000:]

    async def tree(self, title: str) -> Locator:
        """Return the rows of a tree view in the side bar, by the view's title."""
        pane = self.page.locator(".pane", has=self.page.locator(".pane-header", has_text=title)).first
        await pane.wait_for()
        return pane.locator(".monaco-list-row")

    async def row_button(self, row: Locator, name: str) -> None:
        """Click a button that a row of a tree shows under the mouse; a tree that is drawn anew takes it away again."""

        async def clicked() -> bool:
            try:
                await row.hover(timeout=3_000)
                await row.get_by_role("button", name=name).click(timeout=3_000)
            except PlaywrightTimeout:
                return False
            return True

        await eventually(clicked, f"the button {name} of a row")

    async def expect_visible(self, locator: Locator) -> None:
        """Wait until something can be seen."""
        await expect(locator.first).to_be_visible(timeout=1000 * WAIT_SECONDS)
