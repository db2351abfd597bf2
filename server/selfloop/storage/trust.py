"""The folders that the user trusts. Only there does Selfloop run git, commands or a model.

A folder inside a trusted one is trusted too. Paths are compared after every link was followed, so that a link inside a
trusted folder cannot lend its trust to what lies elsewhere.
"""

from __future__ import annotations

import os
from pathlib import Path

from selfloop.errors import InvalidInput
from selfloop.storage.shared import SharedList


class TrustList:
    """The trust list of this user."""

    def __init__(self, data: Path) -> None:
        self._file = SharedList(data / "trust.json")

    def is_trusted(self, folder: Path) -> bool:
        """Tell whether the user trusted the folder, or one that holds it."""
        real = Path(os.path.realpath(folder))
        return any(real == trusted or trusted in real.parents for trusted in self.list())

    def add(self, folder: Path) -> Path:
        """Trust a folder, and return its real path.

        Raises:
            InvalidInput: it is no folder.
        """
        real = os.path.realpath(folder.expanduser())
        if not Path(real).is_dir():
            raise InvalidInput(f"{folder} is no folder, so nothing was trusted; name one that is there.")
        with self._file.change() as paths:
            if real not in paths:
                paths.append(real)
        return Path(real)

    def remove(self, folder: Path) -> bool:
        """Trust a folder no longer, and tell whether it was listed itself."""
        real = os.path.realpath(folder.expanduser())
        with self._file.change() as paths:
            listed = real in paths
            paths[:] = [path for path in paths if path != real]
        return listed

    def list(self) -> list[Path]:
        """Return the trusted folders in the order in which they were added."""
        return [Path(path) for path in self._file.read() if isinstance(path, str) and Path(path).is_absolute()]
