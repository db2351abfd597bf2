"""The client's own checks: its types, and the unit tests of what needs no editor."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lsp_client import require

CLIENT = Path(__file__).parents[2] / "vscode-client"


def _npm(script: str) -> None:
    require("npm")
    if not (CLIENT / "node_modules").is_dir():
        require("vscode-client/node_modules (run `make editors`)")
    done = subprocess.run(
        [str(shutil.which("npm")), "run", "--silent", script], cwd=CLIENT, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["types", "test"])
def test_the_client_passes(script: str) -> None:
    _npm(script)
