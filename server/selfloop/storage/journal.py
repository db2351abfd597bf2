"""The update journal: everything that a stream told its clients, so that it can be told again.

A stream is a session's, or the workspace's own. `seq` rises by one with each update, starting at 1, and goes on where
it was after a restart. An update is written before it may be sent: no client ever knows more than the disk. In memory
lie only offsets, 16 bytes an update, never the texts.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_left, bisect_right
from pathlib import Path

import msgspec

from selfloop.storage.disk import now
from selfloop.storage.log import AppendLog, encode_line
from selfloop.updates import Update, UpdateEnvelope, encoder, envelope_decoder

log = logging.getLogger(__name__)

PAGE_UPDATES = 200


class UpdateJournal:
    """A journal that is open for appending. Not for use by two threads at once."""

    def __init__(self, record: AppendLog) -> None:
        self._log = record
        self._offsets = array("Q")
        self._seqs = array("Q")
        self._end = 0
        self._index()

    @classmethod
    def open(cls, path: Path) -> UpdateJournal:
        """Open or create a journal; a torn last line is repaired, and `repaired` says so.

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

    @property
    def last_seq(self) -> int:
        """The newest `seq`; 0 while there is none."""
        return self._seqs[-1] if self._seqs else 0

    def append(
        self,
        update: Update,
        *,
        session_id: str | None = None,
        run_id: str | None = None,
        workspace_folder: str | None = None,
    ) -> UpdateEnvelope:
        """Number an update, write it, and return it as it may now be sent.

        Raises:
            StoreError: it was not written; its number goes to the next one.
        """
        if self._log.end() != self._end:
            self._index()
        envelope = UpdateEnvelope(
            seq=self.last_seq + 1,
            at=now(),
            update=update,
            session_id=session_id,
            run_id=run_id,
            workspace_folder=workspace_folder,
        )
        line = encode_line(envelope, encoder)
        self._offsets.append(self._log.append(line))
        self._seqs.append(envelope.seq)
        self._end += len(line)
        return envelope

    def since(self, after: int, limit: int | None = None) -> list[UpdateEnvelope]:
        """Return the updates with a `seq` above `after`, oldest first, at most `limit`."""
        first = bisect_right(self._seqs, max(after, 0))
        return self._read(first, len(self._seqs) if limit is None else min(first + limit, len(self._seqs)))

    def page(self, before: int | None = None, limit: int | None = None) -> tuple[list[UpdateEnvelope], bool]:
        """Return the last updates with a `seq` below `before`, oldest first, and whether there are still older ones.

        Args:
            before: None for the newest.
            limit: None for 200; below 1 counts as 1.
        """
        last = len(self._seqs) if before is None else bisect_left(self._seqs, max(before, 0))
        first = max(0, last - max(1, PAGE_UPDATES if limit is None else limit))
        return self._read(first, last), first > 0

    def close(self) -> None:
        """Close the file. Closing twice is no error."""
        self._log.close()

    def _read(self, first: int, last: int) -> list[UpdateEnvelope]:
        if first >= last:
            return []
        end = self._offsets[last] if last < len(self._offsets) else self._end
        envelopes: list[UpdateEnvelope] = []
        for line in self._log.read(self._offsets[first], end).split(b"\n"):
            if not line:
                continue
            try:
                envelope = envelope_decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("%s holds a line that is no update (%s); it was left out.", self.path, error)
                continue
            # After a change by hand, lines that are out of order may stand between those that count.
            if envelope.seq > (envelopes[-1].seq if envelopes else self._seqs[first] - 1):
                envelopes.append(envelope)
        return envelopes

    def _index(self) -> None:
        """Find every line's offset and `seq` anew."""
        offsets, start = array("Q", [0]), 0
        for block in self._log.blocks():
            newline = block.find(b"\n")
            while newline >= 0:
                offsets.append(start + newline + 1)
                newline = block.find(b"\n", newline + 1)
            start += len(block)
        self._end = offsets.pop()  # Where the next line will begin.
        self._offsets = offsets
        self._seqs = array("Q", range(1, len(offsets) + 1))
        if offsets and _seq(self._log.read(offsets[-1], self._end)) != len(offsets):
            self._number()

    def _number(self) -> None:
        """Read each line's own `seq`: the file was changed by hand, so a line's place does not tell it."""
        offsets, seqs = array("Q"), array("Q")
        for place, start in enumerate(self._offsets):
            end = self._offsets[place + 1] if place + 1 < len(self._offsets) else self._end
            seq = _seq(self._log.read(start, end))
            if seq is not None and seq > (seqs[-1] if seqs else 0):
                offsets.append(start)
                seqs.append(seq)
        log.warning("%s was changed from outside; %d of its updates are still readable.", self.path, len(seqs))
        self._offsets, self._seqs = offsets, seqs


class _Numbered(msgspec.Struct):
    seq: int


_numbered = msgspec.json.Decoder(_Numbered)


def _seq(line: bytes) -> int | None:
    try:
        return _numbered.decode(line).seq
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
