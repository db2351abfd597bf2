"""Small JSON files in the user's data folder that several servers change: the rules, the trust list.

A change reads, changes and replaces the file under a lock that other processes respect. A file that cannot be read
grants nothing: it is set aside, and what it held must be given again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfloop.errors import StoreError
from selfloop.storage.disk import PRIVATE_FOLDER, saying, stamp, write_file

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other process from changing a file while the block runs.

    Raises:
        StoreError: another one does for long, or the lock cannot be made; the block did not run.
    """
    from filelock import FileLock, Timeout

    with saying(f"{path} could not be changed"):
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock", timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreError(
                f"{path} is being changed by another process, so nothing was changed; try again."
            ) from error
    try:
        yield
    finally:
        lock.release()


class SharedList:
    """A file that holds one JSON list."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Any]:
        """Return the list; empty where there is no file, or none that can be understood."""
        with saying(f"{self._path} could not be read"):
            try:
                content = json.loads(self._path.read_bytes())
            except FileNotFoundError:
                return []
            except ValueError as error:
                log.warning("%s cannot be understood (%s), so nothing in it counts.", self._path, error)
                return []
        return content if isinstance(content, list) else []

    @contextmanager
    def change(self) -> Iterator[list[Any]]:
        """Yield the list, and write it back as the block left it. A block that raises changes nothing."""
        with locked(self._path):
            self._keep_what_cannot_be_read()
            content = self.read()
            before = json.dumps(content)
            yield content
            after = json.dumps(content, indent=1)
            if json.dumps(content) != before:
                with saying(f"{self._path} could not be changed"):
                    write_file(self._path, after.encode(), durable=True)

    def _keep_what_cannot_be_read(self) -> None:
        with saying(f"{self._path} could not be changed"):
            try:
                json.loads(self._path.read_bytes())
            except FileNotFoundError:
                pass
            except ValueError:
                self._path.rename(self._path.with_name(f"{self._path.name}.broken-{stamp()}"))
