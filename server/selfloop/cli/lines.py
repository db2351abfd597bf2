"""Where a chat's lines come from: a keyboard, or a pipe."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.formatted_text import ANSI
    from prompt_toolkit.key_binding import KeyBindings

_REFRESH_SECONDS = 0.5
_REDRAW_SECONDS = 0.05


class Lines(Protocol):
    """A source of lines."""

    async def next(self) -> str | None:
        """Return the next line without its end; None: there will be no more."""

    def refresh(self) -> None:
        """Show again what stands around the input."""


class Pipe:
    """Lines of standard input, read ahead, so that a pipe's writer never waits for the agent."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        # A daemon on the bare descriptor: nothing can interrupt a read, and a buffered one would hold its lock at exit.
        threading.Thread(target=self._read, name="standard input", daemon=True).start()

    async def next(self) -> str | None:
        return await self._lines.get()

    def refresh(self) -> None:
        """Nothing is shown around a pipe."""

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while data := _read_some():
            *whole, rest = (rest + decoder.decode(data)).split("\n")
            for line in whole:
                self._put(line.removesuffix("\r"))
        rest += decoder.decode(b"", final=True)
        if rest:
            self._put(rest)
        self._put(None)

    def _put(self, line: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody reads on.
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


def _read_some() -> bytes:
    if sys.stdin is None:  # It was closed from the start, and its number may be something else's by now.
        return b""
    try:
        return os.read(0, 65536)
    except OSError:
        return b""


class Keyboard:
    """An input line at the bottom of the terminal, free to type in while the agent works."""

    def __init__(
        self, *, prompt: Callable[[], str], toolbar: Callable[[], str], words: list[str], interrupt: Callable[[], None]
    ) -> None:
        """Make the line.

        Args:
            prompt: what stands before the input, with ANSI colours.
            toolbar: what stands below it.
            words: the commands that are completed.
            interrupt: called for Ctrl-C on an empty line.
        """
        self._interrupt = interrupt
        self._session = self._make(prompt, toolbar, words)

    async def next(self) -> str | None:
        try:
            return await self._session.prompt_async(handle_sigint=False)
        except EOFError:
            return None

    def refresh(self) -> None:
        self._session.app.invalidate()

    @contextlib.contextmanager
    def above(self) -> Iterator[None]:
        """Have everything that is printed appear above the line."""
        from prompt_toolkit.patch_stdout import patch_stdout

        with patch_stdout(raw=True):
            yield

    def _make(self, prompt: Callable[[], str], toolbar: Callable[[], str], words: list[str]) -> PromptSession[str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.formatted_text import ANSI
        from prompt_toolkit.shortcuts import CompleteStyle

        def message() -> ANSI:
            return ANSI(prompt())

        session: PromptSession[str] = PromptSession(
            message,
            bottom_toolbar=toolbar,
            completer=WordCompleter(words, sentence=True),
            complete_style=CompleteStyle.READLINE_LIKE,
            key_bindings=self._bindings(),
            refresh_interval=_REFRESH_SECONDS,
        )
        session.app.min_redraw_interval = _REDRAW_SECONDS
        # What stands above the input is of the moment; the chat itself prints the line that was taken.
        session.app.erase_when_done = True
        return session

    def _bindings(self) -> KeyBindings:
        from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

        bindings = KeyBindings()

        @bindings.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                self._interrupt()

        @bindings.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        return bindings
