"""What a chat prints, as it happens.

    Screen            plain lines, the answer as it streams: for pipes and files
      └ LiveScreen    Markdown above an input line; what is unfinished moves just above that line (`live`)

Invariant: whatever is printed was made `visible` first.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from selfloop.cli.sessions import one_line, tool_line
from selfloop.cli.showing import console, visible
from selfloop.updates import MessageUpdate, Plan, ToolCallUpdate

if TYPE_CHECKING:
    from rich.text import Text

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TOOL_STYLES = {"completed": "green", "failed": "red", "pending": "dim", "running": "dim"}
_PLAN_MARKS = {"pending": "☐", "in_progress": "▸", "completed": "☑"}
_LIVE_LINES = 12
_LIVE_CHARACTERS = 4000
"""A longer block is shown as plain text until it ends: it is drawn anew many times a second."""


class Screen:
    """Prints plain lines."""

    def __init__(self) -> None:
        self._console = console()
        self._streamed: set[str] = set()
        """Messages of which pieces were printed."""
        self._mid_line = False

    def say(self, text: str | Text, style: str | None = None) -> None:
        """Print something of our own."""
        self._end_line()
        self._console.print(text, style=style)

    def ask(self, words: str) -> None:
        """Print what is asked."""
        self.say(words, "bold")

    def chunk(self, message_id: str, text: str) -> None:
        """Print a piece of the answer."""
        if message_id not in self._streamed:
            self._end_line()
            self._streamed.add(message_id)
        self._console.print(visible(text), end="")
        self._mid_line = not text.endswith("\n")

    def message(self, update: MessageUpdate) -> None:
        """End an answer that was streamed, or print one that was not."""
        if update.message_id not in self._streamed:
            self._end_line()
            self._console.print(visible(update.text), end="")
            self._mid_line = bool(update.text)
        self._end_line()
        if update.status == "interrupted":
            self.say("(interrupted)", "dim")

    def thinking(self) -> None:
        """Note that the model thinks."""

    def tool(self, update: ToolCallUpdate) -> None:
        """Print a tool call once it has ended."""
        if update.status in ("completed", "failed"):
            self.say(tool_line(update), _TOOL_STYLES[update.status])

    def plan(self, plan: Plan) -> None:
        """Print the agent's plan."""
        for entry in plan.entries:
            self.say(f"{_PLAN_MARKS[entry.status]} {one_line(entry.text)}", "dim")

    def turn_started(self) -> None:
        """Note that a turn runs."""

    def turn_ended(self) -> None:
        """Note that no turn runs any more."""
        self._end_line()

    def _end_line(self) -> None:
        if self._mid_line:
            self._console.print()
            self._mid_line = False


class LiveScreen(Screen):
    """Prints finished things above an input line, and holds unfinished ones for it."""

    def __init__(self) -> None:
        super().__init__()
        self._tail = ""
        """The part of the answer whose block has not ended."""
        self._tools: dict[str, ToolCallUpdate] = {}
        self._started: float | None = None
        self._thinks = False

    def live(self) -> str:
        """Return what is unfinished, as text with ANSI colours that ends with a line feed, or nothing."""
        with self._console.capture() as capture:
            if len(self._tail) > _LIVE_CHARACTERS:
                self._console.print(visible(self._tail[-_LIVE_CHARACTERS:]))
            elif self._tail.strip():
                self._markdown(self._tail)
        lines = capture.get().splitlines()[-_LIVE_LINES:]
        with self._console.capture() as capture:
            for update in self._tools.values():
                self._console.print(f"… {one_line(update.title)}", style="yellow")
            if self._started is not None:
                doing = "thinking" if self._thinks else "working"
                seconds = int(time.monotonic() - self._started)
                self._console.print(f"{doing}, {seconds} s; Ctrl-C cancels", style="dim")
        return "".join(line + "\n" for line in lines) + capture.get()

    def ask(self, words: str) -> None:
        """Leave it to the input line, which shows it for as long as it is asked."""

    def chunk(self, message_id: str, text: str) -> None:
        self._thinks = False
        self._streamed.add(message_id)
        begins_line = "\n" in text or self._tail.endswith("\n")
        self._tail += text
        if not begins_line:
            return  # A block can only be seen to be whole where a line begins.
        done, self._tail = split_blocks(self._tail)
        if done.strip():
            self._markdown(done)
            self._console.print()  # The space between two blocks, which Markdown has only within one rendering.

    def message(self, update: MessageUpdate) -> None:
        rest = self._tail if update.message_id in self._streamed else update.text
        self._tail = ""
        if rest.strip():
            self._markdown(rest)
        if update.status == "interrupted":
            self.say("(interrupted)", "dim")

    def thinking(self) -> None:
        self._thinks = True

    def tool(self, update: ToolCallUpdate) -> None:
        if update.status in ("completed", "failed"):
            self._tools.pop(update.tool_call_id, None)
        else:
            self._tools[update.tool_call_id] = update
        super().tool(update)

    def turn_started(self) -> None:
        self._started = time.monotonic()

    def turn_ended(self) -> None:
        if self._tail.strip():
            self._markdown(self._tail)
        self._started, self._tail, self._thinks = None, "", False
        self._tools.clear()

    def _markdown(self, text: str) -> None:
        from rich.markdown import Markdown

        # A link shows where it leads: its text is the model's.
        self._console.print(Markdown(visible(text), hyperlinks=False), soft_wrap=False)


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown that is still being written into the blocks that are whole, and the rest.

    A block is whole when a blank line and then the start of an unindented line follow it, outside a code fence: what
    comes later cannot change how it looks.
    """
    at = cut = 0
    fence: str | None = None
    blank = False
    for line in text.splitlines(keepends=True):
        if fence is None and blank and line[:1].strip():
            cut = at
        mark = _FENCE.match(line)
        if mark is not None:
            if fence is None:
                fence = mark.group(1)
            elif mark.group(1).startswith(fence) and not line[mark.end() :].strip():
                fence = None
        blank = not line.strip()
        at += len(line)
    return text[:cut], text[cut:]
