"""What the supervisor's tests share."""

import pytest
from supervisor_client import clients


@pytest.fixture
def home(tmp_path):
    """The user's folder, and the stand-in worker's."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def start(home):
    """Start an editor with its supervisor; all of them are ended afterwards."""
    with clients(home) as start:
        yield start


@pytest.fixture
def folder(tmp_path):
    """A workspace."""
    folder = tmp_path / "work space é"
    folder.mkdir()
    return folder
