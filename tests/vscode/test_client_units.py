"""The client's own checks: its types, and its unit tests, by the Node that `make editors` has installed."""

from __future__ import annotations

import os
import subprocess

import pytest

from code_server import CLIENT, Editors


@pytest.mark.parametrize("script", ["types", "test"])
def test_the_clients_own_checks_pass(parts: Editors, script: str) -> None:
    path = f"{parts.node.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["npm", "run", "--silent", script],
        cwd=CLIENT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
