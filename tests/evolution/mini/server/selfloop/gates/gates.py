"""What waits for the user's click, bound to a digest of exactly what is shown."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from selfloop.errors import Refused


@dataclass
class Gate:
    """One proposal."""

    id: str
    session: str
    files: dict[str, str]
    state: str = "open"

    @property
    def digest(self) -> str:
        """The hash of what would be written."""
        return hashlib.sha256(json.dumps(self.files, sort_keys=True).encode()).hexdigest()


class Gates:
    """The gates of a workspace."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._gates: dict[str, Gate] = {}

    def propose(self, session: str, files: dict[str, str]) -> Gate:
        """Open a gate."""
        gate = Gate(f"g{len(self._gates) + 1}", session, dict(files))
        self._gates[gate.id] = gate
        return gate

    def open(self) -> list[Gate]:
        """Return those that wait."""
        return [gate for gate in self._gates.values() if gate.state == "open"]

    def read(self, id: str) -> Gate:
        """Return a gate."""
        if id not in self._gates:
            raise Refused(f"There is no gate {id!r}, so nothing was done.")
        return self._gates[id]

    def resolve(self, id: str, option: str, digest: str) -> list[str]:
        """Decide; an approval writes the files and returns them.

        Raises:
            Refused: it was decided before, or the digest is of something else.
        """
        gate = self.read(id)
        if gate.state != "open" or digest != gate.digest:
            raise Refused("What was decided on is no longer what is there, so nothing was done.")
        gate.state = "resolved"
        if option != "approve":
            return []
        for name, text in gate.files.items():
            target = self._root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        return sorted(gate.files)
