"""Tells that files of some folders have changed, through watchfiles; also folders that are not there yet.

Invariant: a change is never missed for good. Whenever the watched folders become others, the change is told once more,
for what came in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

QUIET_MILLISECONDS = 100
LONGEST_MILLISECONDS = 1_000


async def watch_folders(folders: Sequence[Path], changed: Callable[[], None], *, suffix: str = ".md") -> None:
    """Call `changed` whenever files with a suffix, directly in one of the folders, may have changed; until cancelled.

    Raises:
        OSError: the system cannot watch any more.
    """
    from watchfiles import Change, awatch

    def wanted(change: Change, path: str) -> bool:
        place = Path(path)
        return (place.parent in folders and place.suffix == suffix) or any(
            place == folder or place in folder.parents for folder in folders
        )

    while True:
        places = _existing(folders)
        stop = asyncio.Event()
        async for _ in awatch(
            *places,
            watch_filter=wanted,
            recursive=False,
            debounce=LONGEST_MILLISECONDS,
            step=QUIET_MILLISECONDS,
            stop_event=stop,
            ignore_permission_denied=True,
        ):
            changed()
            if _existing(folders) != places:
                stop.set()
        changed()


def _existing(folders: Sequence[Path]) -> list[Path]:
    """Return each folder or, where it is not there yet, the nearest one above it that is."""
    places = {next(place for place in (folder, *folder.parents) if place.is_dir()) for folder in folders}
    return sorted(places)
