"""A user's folders and a workspace of nothing, for the tests of what is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfloop.config import Folders


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "data", tmp_path / "cache", tmp_path / "config")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder
