"""The requests of one window that are not answered yet.

Invariant: an id stands here from the moment its request is accepted until its one answer leaves, and `close` hands it
out once. So an answer that comes twice, or for nothing, is recognised.
"""

from __future__ import annotations

from selfloop.supervisor.contract import ASKED, OUTCOMES, SET_KEY, WINDOW_BYTES, is_read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Entry:
    """One request in flight."""

    __slots__ = ("asked", "asked_at", "at", "body", "id", "key", "method", "params", "repeatable")

    def __init__(self, id: int | str, method: str, params: Any, body: bytes, key: str) -> None:
        self.id = id
        self.method = method
        self.params = params
        self.body = body
        self.key = key
        """Names the request for ever, across windows and restarts; the worker stores it with what it did."""
        self.repeatable = method in (SET_KEY, OUTCOMES) or is_read(method, params)
        """Asking it twice does no harm."""
        self.asked = 0
        """How often it was sent to somebody who may have begun with it."""
        self.asked_at = 0.0
        """When that was last, on the monotonic clock."""
        self.at: object = None
        """Whom it was sent to last."""

    @property
    def askable(self) -> bool:
        """It may be sent: nobody has begun with it, or it only reads and has not been asked too often."""
        return self.asked == 0 or (self.repeatable and self.asked < ASKED)


class Ledger:
    """The entries of a window, in the order in which they came."""

    def __init__(self) -> None:
        self._entries: dict[int | str, Entry] = {}
        self._bytes = 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, id: Any) -> Entry | None:
        """Return the entry of an id, None where it is not in flight."""
        return self._entries.get(id) if isinstance(id, int | str) else None

    @property
    def full(self) -> bool:
        """What is in flight takes as much memory as a window may have."""
        return self._bytes > WINDOW_BYTES

    def open(self, entry: Entry) -> None:
        """Take in a request."""
        self._entries[entry.id] = entry
        self._bytes += len(entry.body)

    def close(self, id: Any) -> Entry | None:
        """Take out the request that an answer belongs to; None: it belongs to none and must not leave."""
        entry = self.get(id)
        if entry is not None:
            del self._entries[entry.id]
            self._bytes -= len(entry.body)
        return entry

    def lost(self, upstream: object) -> None:
        """Note that `upstream` has ended before it could begin with anything that it was sent."""
        for entry in self._entries.values():
            if entry.at is upstream:
                entry.asked -= 1
                entry.at = None
