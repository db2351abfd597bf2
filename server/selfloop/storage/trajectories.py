"""A session's trajectory: `traj.jsonl`, one event a line, whole messages.

It is what a session is resumed from and learned from, so an event is acknowledged only once it is written, and events
are never changed. Subscribers hear of an event after it is on the disk; one that fails cannot undo it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from attrs import frozen

from selfloop.storage.disk import now, saying
from selfloop.storage.log import BLOCK_BYTES, AppendLog, encode_line

log = logging.getLogger(__name__)


@frozen
class Event:
    """One line of a trajectory."""

    ts: str
    """ISO 8601, UTC."""
    kind: str
    """Such as `user_input`, `llm_response`, `tool_call`."""
    data: dict[str, Any]


class Trajectory:
    """A trajectory that is open for appending."""

    def __init__(self, record: AppendLog) -> None:
        self._log = record
        self._subscribers: list[Callable[[Event], None]] = []

    @classmethod
    def open(cls, path: Path) -> Trajectory:
        """Open or create a trajectory; a torn last line is repaired, and `repaired` says so.

        Raises:
            StoreError: the file cannot be opened.
        """
        return cls(AppendLog.open(path))

    @property
    def path(self) -> Path:
        return self._log.path

    @property
    def repaired(self) -> str | None:
        """A plain sentence if the last line was torn by a crash."""
        return self._log.repaired

    def append(self, kind: str, data: dict[str, Any], *, durable: bool = False) -> Event:
        """Write one event, tell the subscribers, and return it.

        Args:
            kind: what happened.
            data: plain JSON values, secrets already redacted.
            durable: also wait until a power cut cannot take it; for decisions.

        Raises:
            StoreError: nothing was recorded.
        """
        event = Event(now(), kind, data)
        self._log.append(encode_line(event, _encoder), durable=durable)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                log.exception("A subscriber of %s failed on an event of kind %s.", self.path, kind)
        return event

    def events(self) -> list[Event]:
        """Return every event, oldest first. A line that is no event is left out and logged."""
        self._log.end()
        return list(_events(self._log.blocks(), self.path))

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Call `subscriber` with every event from now on; the returned function ends that."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def close(self) -> None:
        """Close the file. Closing twice is no error."""
        self._log.close()


def read_events(path: Path) -> Iterator[Event]:
    """Read a trajectory that another may be writing: nothing is repaired, a tail without its newline is left out.

    Raises:
        StoreError: the file cannot be read.
    """
    with saying(f"The trajectory {path} could not be read"), path.open("rb") as file:
        yield from _events(iter(lambda: file.read(BLOCK_BYTES), b""), path)


def user_words(data: bytes) -> list[str]:
    """Return what the user said in some whole lines of a trajectory, folded for searching without regard to case."""
    said = []
    for line in data.split(b"\n"):
        # Most lines are the model's and the tools', and long: they are not worth decoding.
        if b'"user_input"' not in line and b'"requeued"' not in line:
            continue
        try:
            event = _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # `events` tells of lines that are no events.
        text = event.data.get("text")
        if event.kind in ("user_input", "requeued") and isinstance(text, str):
            said.append(text.casefold())
    return said


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def _events(blocks: Iterable[bytes], path: Path) -> Iterator[Event]:
    pieces: list[bytes] = []
    for block in blocks:
        *lines, rest = block.split(b"\n")
        if lines:
            lines[0] = b"".join((*pieces, lines[0]))
            pieces.clear()
        pieces.append(rest)
        for line in lines:
            try:
                yield _decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("%s holds a line that is no event (%s); it was left out.", path, error)
