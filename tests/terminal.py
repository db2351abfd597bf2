"""A terminal for tests: `selfloop …` as a child process, by pipes or on a pseudo-terminal.

done = selfloop("gate", "list", "--json", cwd=workspace)
with Talk("chat", cwd=workspace) as talk:        # pipes; Talk(…, tty=True): a real terminal
    talk.send("hello")
    talk.expect("Done.")
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[=>()][0B]?|\r")
ROWS, COLUMNS = 40, 120


def selfloop(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a script does."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "selfloop", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        input=input or "",
        capture_output=True,
        text=True,
        timeout=100,
    )


class Talk:
    """A command that is talked with while it runs."""

    def __init__(
        self, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, tty: bool = False
    ) -> None:
        self.raw = ""
        """All that it has written, escape sequences included."""
        self._seen = 0
        self._news = threading.Condition()
        ours, theirs = os.openpty() if tty else (None, None)
        if ours is not None:
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "selfloop", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
            stdin=subprocess.PIPE if theirs is None else theirs,
            stdout=subprocess.PIPE if theirs is None else theirs,
            stderr=subprocess.STDOUT if theirs is None else theirs,
            start_new_session=True,
            # A terminal of its own, so that Ctrl-C becomes a signal whenever the command does not read the keys itself.
            preexec_fn=None if theirs is None else lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        if theirs is not None:
            os.close(theirs)
        self._tty = ours
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def output(self) -> str:
        """All that it has written, as text."""
        return _ANSI.sub("", self.raw)

    def send(self, line: str) -> None:
        """Type a line."""
        self.type(line + ("\n" if self._tty is None else "\r"))

    def type(self, text: str) -> None:
        """Type some characters."""
        if self._tty is not None:
            os.write(self._tty, text.encode())
        else:
            assert self.process.stdin is not None
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()

    def end(self) -> None:
        """End the input of a pipe."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def expect(self, text: str, timeout: float = 40.0) -> str:
        """Wait until a text has come since what was expected last, and return what came up to it."""
        deadline = time.monotonic() + timeout
        with self._news:
            while (at := self.output.find(text, self._seen)) < 0:
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._thread.is_alive()):
                    raise AssertionError(f"{text!r} did not come after {self._seen}; the output is:\n{self.output}")
                self._news.wait(min(left, 0.2))
            passed = self.output[self._seen : at + len(text)]
            self._seen = at + len(text)
            return passed

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        if self._tty is not None:
            os.write(self._tty, b"\x03")
        else:
            self.process.send_signal(signal.SIGINT)

    def wait(self, timeout: float = 40.0) -> int:
        """Wait for its end, and return the exit code."""
        code = self.process.wait(timeout)
        self._thread.join(5)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        self._thread.join(5)
        if self._tty is not None:
            os.close(self._tty)
        elif self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        source = self._tty if self._tty is not None else self.process.stdout.fileno()  # type: ignore[union-attr]
        while True:
            try:
                data = os.read(source, 65536)
            except OSError:  # A pseudo-terminal whose other end is closed.
                data = b""
            if not data:
                break
            if self._tty is not None and b"\x1b[6n" in data:
                os.write(self._tty, b"\x1b[1;1R")
            with self._news:
                self.raw += data.decode("utf-8", "replace")
                self._news.notify_all()
        with self._news:
            self._news.notify_all()
