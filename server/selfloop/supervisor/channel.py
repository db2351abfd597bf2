"""One peer: a stream of frames in, a buffer of bytes out, both non-blocking.

Nothing here waits. What the peer does not take stays in the buffer; what to do about a long buffer is for the owner to
decide, who sees `backlog`. What is sent within one round of the loop leaves in one write.
"""

from __future__ import annotations

import os
import select
import time

from selfloop.supervisor.contract import READ_BYTES
from selfloop.supervisor.frames import Fault, Framer, Message
from selfloop.supervisor.loop import READABLE, WRITABLE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Channel:
    """Owns its two descriptors, which must not be the same, and closes them."""

    def __init__(
        self,
        loop: Loop,
        read_descriptor: int,
        write_descriptor: int,
        *,
        limit_bytes: int,
        on_message: Callable[[Message | Fault], None],
        on_end: Callable[[], None],
        ends_when_deaf: bool,
    ) -> None:
        self._loop = loop
        self._reader = read_descriptor
        self._writer = write_descriptor
        self._framer = Framer(limit_bytes)
        self._on_message = on_message
        self._on_end = on_end
        self._ends_when_deaf = ends_when_deaf
        self._out = bytearray()
        self._flushing = False
        self._paused = False
        self._deaf = False
        """The peer takes nothing any more; it may still have something to say."""
        self._ended = False
        self.closed = False
        self.heard_at = time.monotonic()
        """When the peer last said something, on the monotonic clock."""
        self.on_drained: Callable[[], None] | None = None
        """Called whenever the buffer has become empty."""
        os.set_blocking(read_descriptor, False)
        os.set_blocking(write_descriptor, False)
        loop.watch(read_descriptor, READABLE, self._readable)

    @property
    def backlog(self) -> int:
        """How many bytes the peer has not taken yet."""
        return len(self._out)

    def send(self, data: bytes) -> None:
        """Send bytes, now or when the peer takes them. After the end they are dropped."""
        if self._deaf or self.closed:
            return
        self._out += data
        if not self._flushing:
            self._flushing = True
            self._loop.soon(self._flush)

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on."""
        if paused == self._paused or self._ended or self.closed:
            return
        self._paused = paused
        if paused:
            self._loop.unwatch(self._reader)
        else:
            self._loop.watch(self._reader, READABLE, self._readable)

    def stop_reading(self) -> None:
        """Read no more, for good. `on_end` is not called."""
        self._ended = True
        self._loop.unwatch(self._reader)

    def read_rest(self) -> None:
        """Take in everything that is there to be read, after the peer is known to be gone."""
        while not self._ended and not self.closed and self._read():
            pass

    def drain(self, seconds: float) -> None:
        """Wait until the buffer is empty, but no longer than this: the last thing before the process ends."""
        end = time.monotonic() + seconds
        poll = select.poll()
        if not self.closed:
            poll.register(self._writer, WRITABLE)
        while self._out and not self.closed and time.monotonic() < end:
            poll.poll(max(0.0, end - time.monotonic()) * 1000)
            self._flush()

    def close(self) -> None:
        """Let go of the peer. `on_end` is not called."""
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self._reader)
        self._loop.unwatch(self._writer)
        os.close(self._reader)
        os.close(self._writer)
        self._out.clear()

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once; return whether there may be more."""
        try:
            data = os.read(self._reader, READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # A reset socket is an end like another.
            data = b""
        if not data:
            self._end()
            return False
        self.heard_at = time.monotonic()
        for message in self._framer.feed(data):
            self._on_message(message)
            if self.closed or self._ended:
                return False
        return True

    def _end(self) -> None:
        if self._ended or self.closed:
            return
        self._ended = True
        self._loop.unwatch(self._reader)
        self._on_end()

    def _flush(self) -> None:
        self._flushing = False
        if self.closed or not self._out:
            return
        try:
            written = os.write(self._writer, self._out)
        except BlockingIOError:
            written = 0
        except OSError:  # The peer reads no more. A worker may have answers on the way all the same.
            self._deaf = True
            self._out.clear()
            self._loop.unwatch(self._writer)
            if self._ends_when_deaf:
                self._end()
            return
        del self._out[:written]
        if self._out:
            self._flushing = True
            self._loop.watch(self._writer, WRITABLE, self._flush)
        else:
            self._loop.unwatch(self._writer)
            if self.on_drained is not None:
                self.on_drained()
