"""The log in the user's data folder: one file, turned over when it is long, shared by every supervisor of the user.

`logging` would cost 8 ms of the start that the editor waits for. No message's content is ever written here.
"""

from __future__ import annotations

import os
import time

FILE_BYTES = 2 * 1024 * 1024
"""A longer file is turned over; one older file is kept."""


class Log:
    """Appends lines. A log that cannot be written is no reason to end the server, so such errors are dropped."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "selfloop.log")
        """The file that is written now."""
        self._folder = folder
        self._rest = b""

    def note(self, text: str) -> None:
        """Write a line of the supervisor's own."""
        self._append([text.encode("utf-8", "backslashreplace")], b"supervisor")

    def error(self, error: Exception) -> None:
        """Write an error that should not have been, with where it came from."""
        import traceback

        for line in traceback.format_exception(error):
            self.note(line.rstrip())

    def worker(self, data: bytes) -> None:
        """Write what the worker said on stderr, as whole lines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 64 * 1024:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._append(lines, b"worker")

    def _append(self, lines: list[bytes], source: bytes) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode("ascii")
        head = b"%s %d %s: " % (stamp, os.getpid(), source)
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, b"".join(head + line + b"\n" for line in lines))
                too_long = os.fstat(descriptor).st_size > FILE_BYTES
            finally:
                os.close(descriptor)
            if too_long:
                os.replace(self.path, self.path + ".1")
        except OSError:
            return
