"""The lineage: what became of every self and of every attempt, one record a line, each bound to the one before it.

Invariant: records are only ever added, and each carries the hash of the one before, so that a record that was changed,
taken out or put in later is found out. A torn last line is the tail of a writer that was killed and is cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from attrs import asdict, frozen

from selfloop.errors import StoreError
from selfloop.storage.disk import now, printable, saying
from selfloop.storage.log import AppendLog
from selfloop.storage.shared import locked

_START = "0" * 64
_encoder = msgspec.json.Encoder(order="sorted")


@frozen
class Record:
    """One line."""

    seq: int
    at: str
    """ISO 8601, UTC."""
    kind: str
    """`base`, `generation`, `state` or `attempt`."""
    data: dict[str, Any]
    prev: str
    """The hash of the record before."""
    hash: str = ""

    def sealed(self) -> str:
        """Return the sha256 over everything but the hash itself."""
        plain = {name: value for name, value in asdict(self).items() if name != "hash"}
        return hashlib.sha256(_encoder.encode(plain)).hexdigest()


_decoder = msgspec.json.Decoder(Record)


class Lineage:
    """The records of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def records(self) -> list[Record]:
        """Return every record, oldest first; none where there is no file. Reads the disk.

        Raises:
            StoreError: it cannot be read, or its chain is broken.
        """
        with saying(f"The lineage {self._path} could not be read"):
            try:
                data = self._path.read_bytes()
            except FileNotFoundError:
                return []
        found: list[Record] = []
        before = _START
        # What stands behind the last newline was never acknowledged.
        for number, line in enumerate(data.split(b"\n")[:-1]):
            try:
                record = _decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise self._broken(number) from error
            if (record.seq, record.prev) != (number, before) or record.hash != record.sealed():
                raise self._broken(number)
            found.append(record)
            before = record.hash
        return found

    def add(self, decide: Callable[[Sequence[Record]], tuple[str, dict[str, Any]] | None]) -> Record | None:
        """Add one record and return it, while no other process can.

        Args:
            decide: is given what stands there, and returns kind and data of what is to be added; None: nothing is.

        Raises:
            StoreError: nothing was added.
        """
        with locked(self._path):
            log = AppendLog.open(self._path)  # It cuts off a torn tail before anything is read.
            try:
                there = self.records()
                wanted = decide(there)
                if wanted is None:
                    return None
                kind, data = wanted
                last = there[-1].hash if there else _START
                # As it will be read back: a model's half characters and our tuples are no JSON.
                plain = json.loads(printable(json.dumps(msgspec.to_builtins(data), ensure_ascii=False)))
                record = Record(len(there), now(), kind, plain, last)
                record = Record(record.seq, record.at, kind, plain, last, record.sealed())
                log.append(_encoder.encode(record) + b"\n", durable=True)
            finally:
                log.close()
        return record

    def _broken(self, number: int) -> StoreError:
        return StoreError(
            f"The lineage {self._path} was changed by hand or damaged (line {number + 1} does not follow from the line "
            "before), so no generation of it is used; move the file away to begin a new lineage."
        )
