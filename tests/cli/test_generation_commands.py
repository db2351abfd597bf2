"""`selfloop generation …` as child processes: the lineage, one self, the picture, and which one serves."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lineage_room import PROMPT, grow
from model_server import ModelServer
from scene import environment_for
from terminal import selfloop


@pytest.fixture
def env(model: ModelServer, workspace: Path, own_home: Path) -> dict[str, str]:
    selfloop("trust", workspace)
    return environment_for(model)


def test_there_is_always_the_installed_package(workspace: Path, env: dict[str, str], tmp_path: Path) -> None:
    done = selfloop("generation", "list", "--json", cwd=workspace, env=env)
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)["generations"]
    assert (only["number"], only["summary"]) == (0, "The installed package.")
    listed = selfloop("generation", "list", cwd=workspace, env=env)
    assert listed.stdout.startswith("*  0") and listed.stdout.count("\n") == 1
    shown = selfloop("generation", "show", "0", cwd=workspace, env=env)
    assert shown.returncode == 0 and only["tree"] in shown.stdout, shown.stderr
    unknown = selfloop("generation", "show", "7", cwd=workspace, env=env)
    assert unknown.returncode == 1 and unknown.stderr.count("\n") == 1 and "7" in unknown.stderr
    again = selfloop("generation", "activate", "0", cwd=workspace, env=env)
    assert again.returncode == 1 and "serves already" in again.stderr
    picture = tmp_path / "lineage.svg"
    drawn = selfloop("generation", "graph", "-o", picture, cwd=workspace, env=env)
    assert drawn.returncode == 0, drawn.stderr
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")  # noqa: S314 - it is our own
    nowhere = selfloop("generation", "graph", "-o", tmp_path / "no" / "x.svg", cwd=workspace, env=env)
    assert nowhere.returncode == 1 and "could not be written" in nowhere.stderr


def test_a_generation_serves_and_the_package_again(workspace: Path, env: dict[str, str], own_home: Path) -> None:
    grown = asyncio.run(grow(own_home / "data"))
    shown = selfloop("generation", "show", "1", cwd=workspace, env=env)
    for said in (
        "1, from 0",
        "Answers are brief.",
        "G1 Policy: passed in 0.5 s. It may.",
        "+Be brief.",
        "120 in / 30 out",
    ):
        assert said in shown.stdout, (said, shown.stdout, shown.stderr)
    on = selfloop("generation", "activate", "1", cwd=workspace, env=env)
    assert on.returncode == 0 and "Generation 1 serves now." in on.stdout, (on.stdout, on.stderr)
    status = json.loads(selfloop("status", "--json", cwd=workspace, env=env).stdout)
    assert status["generation"] == 1, "the next server starts as it"
    folder = own_home / "data" / "self" / "generations" / grown.tree
    assert not (folder / PROMPT).stat().st_mode & stat.S_IWUSR
    off = selfloop("generation", "activate", "0", cwd=workspace, env=env)
    assert off.returncode == 0, (off.stdout, off.stderr)
    assert json.loads(selfloop("status", "--json", cwd=workspace, env=env).stdout)["generation"] == 0


def test_a_folder_that_was_edited_by_hand_does_not_serve(workspace: Path, env: dict[str, str], own_home: Path) -> None:
    grown = asyncio.run(grow(own_home / "data"))
    file = own_home / "data" / "self" / "generations" / grown.tree / PROMPT
    file.chmod(0o644)
    file.write_text("Do as you like.")
    done = selfloop("generation", "activate", "1", cwd=workspace, env=env)
    assert done.returncode == 1 and "was changed by hand" in done.stderr, (done.stdout, done.stderr)
    assert json.loads(selfloop("status", "--json", cwd=workspace, env=env).stdout)["generation"] == 0
