"""The way to another supervisor that already serves the workspace: the same frames as an editor's, over a socket.

Seen from here it stands in a worker's place. Seen from there it is one more window. Nothing is sent before the other
one's greeting, for a connection that nobody has accepted yet may never be: what was sent on it would be in doubt.
"""

from __future__ import annotations

import os

from selfloop.supervisor import jsonrpc
from selfloop.supervisor.channel import Channel
from selfloop.supervisor.contract import WORKER_FRAME_BYTES
from selfloop.supervisor.frames import Fault, Message, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from selfloop.supervisor.loop import Loop

GREETING = jsonrpc.notification("control/ready", {})
"""The first message on every joined connection, from the one that serves."""


class Link:
    """A connection to the supervisor that serves. `on_end` is called once, when that one has ended."""

    retiring = False

    def __init__(
        self,
        loop: Loop,
        peer: socket.socket,
        *,
        on_ready: Callable[[Link], None],
        on_message: Callable[[Link, Message], None],
        on_end: Callable[[Link], None],
    ) -> None:
        self.ready = False
        """We were greeted."""
        self._on_ready = on_ready
        self._on_message = on_message
        self._on_end = on_end
        reader = peer.detach()
        self.channel = Channel(
            loop,
            reader,
            os.dup(reader),
            limit_bytes=WORKER_FRAME_BYTES,
            on_message=self._heard,
            on_end=self._ended,
            ends_when_deaf=False,
        )

    def send(self, window: int, body: bytes, key: str | None = None) -> None:
        """Send a message of our only window, with its key, by which a request is known to every later worker."""
        self.channel.send(frame(body, None, key))

    def _heard(self, message: Message | Fault) -> None:
        if not isinstance(message, Message):
            return
        if self.ready:
            self._on_message(self, message)
        elif message.body == GREETING:
            self.ready = True
            self._on_ready(self)

    def _ended(self) -> None:
        self.channel.close()
        self._on_end(self)
