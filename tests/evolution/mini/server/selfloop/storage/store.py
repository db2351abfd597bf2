"""What is kept in `.evo/`: one file of lines for each session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Store:
    """The sessions of a workspace."""

    def __init__(self, root: Path) -> None:
        self._folder = root / ".evo" / "sessions"
        self._folder.mkdir(parents=True, exist_ok=True)

    def new(self) -> str:
        """Make a session."""
        name = f"s{len(list(self._folder.iterdir())) + 1}"
        (self._folder / f"{name}.jsonl").touch()
        return name

    def has(self, session: str) -> bool:
        """Tell whether there is such a session."""
        return (self._folder / f"{session}.jsonl").is_file()

    def append(self, session: str, record: dict[str, Any]) -> None:
        """Note something."""
        with (self._folder / f"{session}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def read(self, session: str) -> list[dict[str, Any]]:
        """Return what was noted; a torn line is left out."""
        found = []
        for line in (self._folder / f"{session}.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def sessions(self) -> list[str]:
        """Return every session."""
        return sorted(file.stem for file in self._folder.glob("*.jsonl"))
