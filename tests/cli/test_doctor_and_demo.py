"""`selfloop doctor` tells what is there and what is not; `selfloop demo` goes the whole way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lsp_client import require
from model_server import ModelServer, status, text
from scene import environment_for
from terminal import selfloop


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_a_machine_that_has_everything_is_well(workspace: Path, model: ModelServer) -> None:
    for program in ("git", "rg", "bwrap"):
        require(program)
    model.extend(text("ok"))
    selfloop("trust", workspace)
    done = selfloop("doctor", "--json", cwd=workspace, env=environment_for(model))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: check["state"] for name, check in checks(done).items()} == dict.fromkeys(
        (
            "python",
            "git",
            "ripgrep",
            "data folder",
            "cache folder",
            "workspace",
            "server",
            "jail",
            "model",
            "key",
            "answer",
        ),
        "ok",
    )
    assert len(model.requests) == 1
    assert not (workspace / ".evo").exists()


def test_what_is_missing_is_said_with_how_to_mend_it(workspace: Path, model: ModelServer, tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    model.extend(status(401, "bad key"))
    done = selfloop("doctor", "--json", cwd=workspace, env={**environment_for(model), "PATH": str(empty)})
    assert done.returncode == 1, done.stderr
    found = checks(done)
    for name in ("git", "ripgrep", "answer"):
        assert found[name]["state"] == "missing" and found[name]["mend"], name
    assert found["jail"]["state"] == "warning" and found["workspace"]["state"] == "warning"
    plain = selfloop("doctor", cwd=workspace, env={**environment_for(model), "PATH": str(empty)})
    assert plain.returncode == 1
    assert "✗ git" in plain.stdout and "→ Install git" in plain.stdout


def test_without_a_model_nothing_is_asked_and_the_way_is_told(workspace: Path) -> None:
    done = selfloop("doctor", "--json", cwd=workspace)
    assert done.returncode == 1
    found = checks(done)
    assert found["model"]["state"] == "missing" and "MODEL_NAME" in found["model"]["mend"]
    assert "answer" not in found


def test_a_broken_settings_file_is_named(workspace: Path, own_home: Path) -> None:
    (own_home / "config").mkdir(parents=True)
    (own_home / "config" / "settings.toml").write_text("model = \n")
    done = selfloop("doctor", "--json", cwd=workspace)
    assert done.returncode == 1
    assert "settings.toml" in checks(done)["settings"]["detail"]


def test_a_folder_that_cannot_be_made_is_named(workspace: Path, own_home: Path) -> None:
    own_home.write_text("A file stands where the folder should be.")
    done = selfloop("doctor", "--json", cwd=workspace)
    assert done.returncode == 1
    found = checks(done)
    assert found["data folder"]["state"] == "missing" and "SELFLOOP_HOME" in found["data folder"]["mend"]


def test_a_key_is_never_printed(workspace: Path, model: ModelServer) -> None:
    model.extend(status(401, "the key sk-or-v1-0123456789abcdef0123456789abcdef is wrong"))
    env = {**environment_for(model), "OPENROUTER_API_KEY": "sk-or-v1-0123456789abcdef0123456789abcdef"}
    done = selfloop("doctor", cwd=workspace, env=env)
    assert "0123456789abcdef" not in done.stdout + done.stderr


def test_the_demo_goes_the_whole_way_in_under_half_a_minute(tmp_path: Path) -> None:
    started = time.monotonic()
    done = selfloop("demo", "--no-evolution", cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 30
    for step in ("1. ", "2. ", "3. ", "4. ", "5. ", "6. ", "7. "):
        assert f"\n{step}" in done.stdout
    assert '"""To kelvin."""' in done.stdout
    assert "That was the whole way" in done.stdout
    assert list(tmp_path.glob("selfloop-demo-*")) == []


def test_the_demo_goes_the_whole_way_without_a_jail_and_without_ripgrep(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("git", "sh", "env", "python3"):
        (tools / name).symlink_to(shutil.which(name) or name)
    done = selfloop("demo", env={"TMPDIR": str(tmp_path), "PATH": str(tools)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "isolation: changes" in done.stdout and "A command waits for you" in done.stdout


def test_the_demo_keeps_its_folder_when_asked(tmp_path: Path, own_home: Path) -> None:
    done = selfloop("demo", "--keep", "--no-evolution", env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = tmp_path.glob("selfloop-demo-*")
    assert (folder / "sample" / ".evo" / "sessions").is_dir()
    assert subprocess.run(["git", "-C", folder / "sample", "log", "--oneline"], capture_output=True).returncode == 0
    assert not (own_home / "data" / "trust.json").exists()


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_the_demo_shows_an_evolution_at_its_end(tmp_path: Path) -> None:
    done = selfloop("demo", env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    if "Nothing evolves where there is no jail" in done.stdout:
        pytest.skip("there is no jail here")
    for layer in ("G1", "G2", "G3", "G4", "G5", "G6"):
        assert f"✓ {layer} " in done.stdout, done.stdout
    assert "rejected: G1: tests/test_policy.py" in done.stdout
    assert "generation 1 serves; the editor's connection was never closed" in done.stdout
    assert "called '# Count to thirty', and is called 'Count to thirty' by the new self" in done.stdout
    assert list(tmp_path.glob("selfloop-demo-*")) == []


def test_a_demo_that_cannot_go_on_says_why(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    done = selfloop("demo", env={"TMPDIR": str(tmp_path), "PATH": str(empty)})
    assert done.returncode == 1
    assert done.stderr.startswith("Error: git was not found") and done.stderr.count("\n") == 1


def test_no_other_code_knows_of_the_demo() -> None:
    import selfloop as package

    root = Path(str(package.__file__)).parent
    knowing = {
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        if "demo" in file.read_text(encoding="utf-8").lower().replace("demonstrat", "")
    }
    own = {"cli/demo.py", "cli/demo_evolution.py", "cli/main.py", "cli/doctor.py", "cli/__init__.py", "offline.py"}
    assert knowing <= own
    assert shutil.which("selfloop") or Path(sys.executable).with_name("selfloop").exists()
