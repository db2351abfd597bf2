"""What the supervisor's tests share."""

import tempfile
from pathlib import Path

import pytest
from supervisor_client import clients


@pytest.fixture
def home():
    """The user's folder, and the stand-in worker's. Its path is short, because that of a socket must be."""
    # The stand-in worker of a killed supervisor may write its last line while the folder is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


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
