"""The package as a user gets it: made by `make vsix`, put into a clean VS Code, and the server installed from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from code_server import REPOSITORY, Editors
from model_server import text
from panel import Panel, expect
from scene import environment_for

INSTALL_SECONDS = 240


def _make(folder: Path) -> Path:
    """Run `make vsix` in a copy of what git knows, since it rebuilds what other tests use."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        source = REPOSITORY / name
        if source.is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)
    venv = Path(sys.executable).parent.parent
    # The environment stands: `-o` keeps make from installing the copy into it.
    make = ["make", "-o", f"{venv}/.ready", f"VENV={venv}", "vsix"]
    done = subprocess.run(make, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "dist/selfloop.vsix"


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_the_package_installs_its_own_server_with_one_click(
    parts: Editors, serve: Any, window: Any, stage: Any, tmp_path: Path
) -> None:
    stage.begin()
    stage.extend(text("At your service."))
    package = _make(tmp_path / "copy")
    server = await serve(
        "--disable-workspace-trust",
        env=environment_for(stage),
        machine={"selfloop.server.path": "", "selfloop.server.python": sys.executable},
        extension=package,
    )
    bench = await window(server)
    panel = await Panel.open(bench)
    await panel.expect("not installed yet")
    await panel.screenshot("to-install")
    await panel.line("Server").get_by_role("button").click()
    await expect(panel.log).to_contain_text("It runs", timeout=1000 * INSTALL_SECONDS)
    await panel.screenshot("installed")
    await panel.send("Hello?")
    await panel.expect("At your service.")
