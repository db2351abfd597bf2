"""What the user has set of loops: on or off, level, cadence, budget, allow list; for each workspace and loop.

Invariant: it lies in the user's data folder, out of a repository's and a model's reach, and is the only thing that
turns a loop on. A setting that cannot be understood grants nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, frozen

from selfloop.storage.disk import now
from selfloop.storage.shared import SharedList


@frozen
class LoopSetting:
    """What the user has set of one loop in one workspace; None: as the loop's file has it."""

    enabled: bool = False
    level: str | None = None
    cadence: str | None = None
    budget: dict[str, Any] | None = None
    """`{"round": {…}, "day": {…}}`, limits by their names."""
    allow: tuple[str, ...] | None = None
    origin: str | None = None
    """Whose file it was when this was set: a repository's loop does not inherit what another one was given."""
    authorised: str | None = None
    """The digest of the text to which level and allow list were given, where that text is a repository's."""


class LoopSettings:
    """The settings of this user's loops in one workspace."""

    def __init__(self, data: Path, workspace: Path) -> None:
        self._file = SharedList(data / "loops.json")
        self._workspace = os.path.realpath(workspace)

    def all(self) -> dict[str, LoopSetting]:
        """Return the settings by loop."""
        found = {}
        for item in self._file.read():
            workspace, loop_id = _owner(item)
            if workspace == self._workspace and isinstance(loop_id, str):
                setting = _setting(item)
                if setting is not None:
                    found[loop_id] = setting
        return found

    def get(self, loop_id: str) -> LoopSetting:
        """Return a loop's settings; those of a loop that was never set say nothing."""
        return self.all().get(loop_id, LoopSetting())

    def change(self, loop_id: str, **values: Any) -> LoopSetting:
        """Set some of a loop's values beside those that it has, and return them all; None takes one away.

        Raises:
            StoreError: nothing was changed.
        """
        with self._file.change() as items:
            ours = (self._workspace, loop_id)
            place = next((number for number, item in enumerate(items) if _owner(item) == ours), None)
            before = (_setting(items[place]) if place is not None else None) or LoopSetting()
            after = evolve(before, **values)
            if place is not None:
                del items[place]
            if evolve(after, origin=None) != LoopSetting():
                items.append({"workspace": self._workspace, "loop": loop_id, "changed_at": now(), **asdict(after)})
        return after


def _owner(item: Any) -> tuple[Any, Any]:
    return (item.get("workspace"), item.get("loop")) if isinstance(item, dict) else (None, None)


def _setting(item: dict[str, Any]) -> LoopSetting | None:
    """Read a setting; None for what is none, so that one spoilt entry grants nothing and hides no other."""
    enabled, allow, budget = item.get("enabled"), item.get("allow"), item.get("budget")
    texts = [item.get(name) for name in ("level", "cadence", "origin", "authorised")]
    if type(enabled) is not bool or any(text is not None and not isinstance(text, str) for text in texts):
        return None
    if allow is not None and not (isinstance(allow, list) and all(isinstance(kind, str) for kind in allow)):
        return None
    if budget is not None and not isinstance(budget, dict):
        return None
    level, cadence, origin, authorised = texts
    return LoopSetting(enabled, level, cadence, budget, None if allow is None else tuple(allow), origin, authorised)
