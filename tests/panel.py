"""The chat panel of a window, found as a user finds it: by roles, labels and words, within its web view."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import define

from workbench import WAIT_SECONDS, Workbench, eventually

# The import of `workbench` has made sure that playwright is there.
from playwright.async_api import Frame, Locator, expect  # isort: skip

COMPOSER = 'textarea[aria-label="Message to the agent"]'


@define
class Panel:
    """The panel in the side bar."""

    bench: Workbench
    frame: Frame

    @classmethod
    async def open(cls, bench: Workbench) -> Panel:
        """Open the chat by its command."""
        await bench.command("Selfloop: Open Chat")
        return await cls.find(bench)

    @classmethod
    async def find(cls, bench: Workbench) -> Panel:
        """Find the panel that is in view already, as after a reload."""
        return cls(bench, await bench.frame_with(COMPOSER))

    @property
    def log(self) -> Locator:
        """The conversation."""
        return self.frame.get_by_role("log")

    @property
    def composer(self) -> Locator:
        """Where the user writes."""
        return self.frame.locator(COMPOSER)

    async def send(self, text: str) -> None:
        """Write a message, and send it with the key."""
        await self.composer.fill(text)
        await self.composer.press("Enter")

    async def text(self) -> str:
        """Return what the conversation shows."""
        return await self.log.inner_text()

    async def expect(self, words: str | re.Pattern[str]) -> None:
        """Wait until the conversation shows some words."""
        await expect(self.log).to_contain_text(words, timeout=1000 * WAIT_SECONDS)

    def button(self, name: str | re.Pattern[str]) -> Locator:
        """A button by its name."""
        return self.frame.get_by_role("button", name=name)

    async def idle(self) -> None:
        """Wait until no turn runs: there is nothing to stop."""
        await expect(self.button("Stop the running turn")).to_have_count(0, timeout=1000 * WAIT_SECONDS)

    async def running(self) -> None:
        """Wait until a turn runs."""
        await expect(self.button("Stop the running turn")).to_be_visible(timeout=1000 * WAIT_SECONDS)

    def card(self, title: str | re.Pattern[str]) -> Locator:
        """The tool call with a title."""
        return self.frame.locator("details.tool", has=self.frame.locator("summary", has_text=title)).first

    @property
    def proposal(self) -> Locator:
        """The card of the newest proposal that waits."""
        return self.frame.get_by_role("region", name=re.compile("^Proposal")).last

    @property
    def command_gate(self) -> Locator:
        """The card of the newest command that waits."""
        return self.frame.get_by_role("region", name=re.compile("^Command waits")).last

    def line(self, title: str) -> Locator:
        """The line of the checklist with a title."""
        name = self.frame.locator("b", has_text=re.compile(f"^{title}"))
        return self.frame.locator(".checklist li", has=name)

    async def screenshot(self, name: str) -> Path:
        """Keep a picture of the window."""
        return await self.bench.screenshot(name)

    async def until_text(self, words: str, timeout_seconds: float = WAIT_SECONDS) -> str:
        """Wait for words anywhere in the web view, pages beside the conversation included; returns all of its text."""

        async def shown() -> str:
            text = await self.frame.locator("body").inner_text()
            return text if words in text else ""

        return await eventually(shown, f"{words!r} in the panel", timeout_seconds)
