"""Which sessions of a workspace were learned from: `.evo/learned.jsonl`, and beside it the watermark.

    pending ─▶ done            learned from as far as it went then; what is said in it later makes it pending again
       └─────▶ failed          the reflection failed; it is tried again with the next one

Invariant: the watermark (`learned_until.txt`) names the newest session up to which *every* session was learned from. It
is worked out anew each time and never passes one that was not, for whatever reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
from attrs import frozen

from selfloop.storage.disk import now, saying, write_file
from selfloop.storage.log import AppendLog

LEDGER = "learned.jsonl"
WATERMARK = "learned_until.txt"
State = Literal["pending", "done", "failed"]


@frozen
class Learned:
    """What became of one session."""

    session: str
    state: State
    size_bytes: int
    """How long its trajectory was then."""
    run_id: str
    at: str
    reason: str | None = None


@frozen
class Heard:
    """A session that has something to learn from."""

    session: str
    """Its id; ids sort by time."""
    size_bytes: int


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Learned)


class Ledger:
    """The ledger of one workspace."""

    def __init__(self, root: Path) -> None:
        """Name the files; `root` is `.evo`."""
        self._file = root / LEDGER
        self._watermark = root / WATERMARK

    def entries(self) -> dict[str, Learned]:
        """Return the newest entry of each session. A line that cannot be read counts as never written."""
        with saying(f"The ledger {self._file} could not be read"):
            try:
                data = self._file.read_bytes()
            except FileNotFoundError:
                return {}
        found: dict[str, Learned] = {}
        for line in data.split(b"\n"):
            try:
                entry = _decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # Its session is learned from once more, which costs little.
            found[entry.session] = entry
        return found

    def open_of(self, sessions: Iterable[Heard]) -> list[Heard]:
        """Return the sessions that are still to be learned from, oldest first."""
        known = self.entries()
        return [one for one in sorted(sessions, key=lambda one: one.session) if not _is_done(one, known)]

    def mark(self, sessions: Iterable[Heard], state: State, run_id: str, reason: str | None = None) -> None:
        """Note what became of sessions.

        Raises:
            StoreError: it could not be noted; they count as they did before.
        """
        log = AppendLog.open(self._file)
        try:
            for one in sessions:
                entry = Learned(one.session, state, one.size_bytes, run_id, now(), reason)
                log.append(_encoder.encode(entry) + b"\n", durable=True)
        finally:
            log.close()

    def move_watermark(self, sessions: Iterable[Heard]) -> str:
        """Work the watermark out from all sessions that there are, write it, and return it; "" for none."""
        known = self.entries()
        until = ""
        for one in sorted(sessions, key=lambda one: one.session):
            if not _is_done(one, known):
                break
            until = one.session
        with saying(f"{self._watermark} could not be written"):
            write_file(self._watermark, f"{until}\n".encode(), durable=True)
        return until


def _is_done(one: Heard, known: dict[str, Learned]) -> bool:
    entry = known.get(one.session)
    return entry is not None and entry.state == "done" and entry.size_bytes >= one.size_bytes
