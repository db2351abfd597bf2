"""A room for each test of the gates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gate_room import Room, open_room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """Return an open room on an empty workspace."""
    made = open_room(tmp_path)
    yield made
    made.store.close()
