"""The worker's end of the pipe to the supervisor: frames that carry a window's number and a request's key.

    Content-Length: 123\r\n
    Selfloop-Window: 1\r\n
    Selfloop-Key: 5-17\r\n          (on requests of clients only)
    \r\n
    {"jsonrpc": "2.0", …}

The supervisor is trusted to frame rightly, so a wrong header ends the worker. Both descriptors are non-blocking: what
the supervisor does not take at once waits in a buffer, and the event loop goes on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple

READ_BYTES = 64 * 1024
"""Above 128 KiB each buffer would be mapped anew by the allocator."""


class Frame(NamedTuple):
    """One message, as the client sent it."""

    window: int
    """0 is the control channel, 1 and above are clients."""
    key: str | None
    body: bytes


class Pipe:
    """Reads frames and calls back; writes frames in order. Lives on one event loop."""

    def __init__(self, read_fd: int, write_fd: int, on_frame: Callable[[Frame], None]) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._on_frame = on_frame
        self._in = bytearray()
        self._out = bytearray()
        self._loop = asyncio.get_running_loop()
        self.closed = asyncio.Event()
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._loop.add_reader(read_fd, self._readable)

    def send(self, window: int, body: bytes) -> None:
        """Send one message to a window; never blocks."""
        frame = b"Content-Length: %d\r\nSelfloop-Window: %d\r\n\r\n%b" % (len(body), window, body)
        if self._out:
            self._out += frame
            return
        try:
            written = os.write(self._write_fd, frame)
        except BlockingIOError:
            written = 0
        except BrokenPipeError:
            self._close()
            return
        if written < len(frame):
            self._out += memoryview(frame)[written:]
            self._loop.add_writer(self._write_fd, self._writable)

    async def drain(self) -> None:
        """Wait until everything sent is with the supervisor, or the pipe is closed."""
        while self._out and not self.closed.is_set():  # noqa: ASYNC110 - Only at the end of the worker's life.
            await asyncio.sleep(0.005)

    def _writable(self) -> None:
        try:
            written = os.write(self._write_fd, self._out[: READ_BYTES * 4])
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._close()
            return
        del self._out[:written]
        if not self._out:
            self._loop.remove_writer(self._write_fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._read_fd, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close()
            return
        self._in += data
        frames, offset = [], 0
        while (end := self._in.find(b"\r\n\r\n", offset)) >= 0:
            length, window, key = _headers(bytes(self._in[offset:end]))
            start = end + 4
            if len(self._in) < start + length:
                break
            body = bytes(self._in[start : start + length])
            offset = start + length
            frames.append(Frame(window, key, body))
        if offset:
            del self._in[:offset]
        for frame in frames:
            self._on_frame(frame)

    def _close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self._loop.remove_reader(self._read_fd)
            self._loop.remove_writer(self._write_fd)
            self._out.clear()


def _headers(block: bytes) -> tuple[int, int, str | None]:
    length, window, key = 0, 0, None
    for line in block.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name == b"Content-Length":
            length = int(value)
        elif name == b"Selfloop-Window":
            window = int(value)
        elif name == b"Selfloop-Key":
            key = value.decode("ascii")
    return length, window, key
