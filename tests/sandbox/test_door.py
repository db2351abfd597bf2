"""Every path of the corpus, through the kernel's confinement and through our own walk."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import path_fixture
from selfloop.errors import PathRefused
from selfloop.sandbox import beneath
from selfloop.sandbox.paths import Door, is_protected

pytestmark = pytest.mark.unit

CORPUS = Path(__file__).parent.parent / "corpus" / "path_confinement.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take the kernel's own confinement away for half of the tests, as an older kernel would."""
    if request.param == "walk":
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)
    elif not beneath.has_openat2():
        pytest.skip("this kernel has no openat2")
    return str(request.param)


def attempt(door: Door, verb: str, path: str) -> bytes | None:
    match verb:
        case "read":
            return door.read_bytes(path)
        case "entry":
            found = door.read_entry(path)
            return found[0] if found else None
        case "write":
            door.write_bytes(path, b"NEW")
        case "delete":
            door.delete(path)
        case "list":
            door.list(path)
        case "rename from":
            door.rename(path, "elsewhere")
        case "rename to":
            door.rename("a b.txt", path)
    return None


@pytest.mark.parametrize("verb", ["read", "entry", "write", "delete", "list", "rename from", "rename to"])
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_corpus_of_paths(tmp_path: Path, way: str, case: dict[str, Any], verb: str) -> None:
    ws = path_fixture.build(tmp_path)
    outside = tmp_path / "outside"
    path = case["path"].replace("{OUTSIDE}", str(outside))
    try:
        data = attempt(Door(ws), verb, path)
        refused = False
    except PathRefused as refusal:
        data, refused = None, True
        assert str(refusal).endswith((".", ").")) and str(refusal).isprintable()
    assert data is None or (b"SECRET" not in data)
    assert {entry.name: entry.read_text() for entry in outside.iterdir()} == {"secret": "SECRET"}
    assert (tmp_path / "ws-evil" / "f").read_text() == "SECRET"
    expect = case["expect"]
    if expect == "deny" and not (verb == "list" and case["cls"] == "special:dir-as-file"):
        # What a link says of itself, or that there is nothing, may be told: nothing outside is opened for it.
        assert refused or (verb == "entry" and case["cls"] in ("symlink", "file-as-dir"))
    if expect == "allow" and verb in ("read", "write") and not (verb == "read" and case["cls"] == "plain:new"):
        assert not refused
    if expect == "gate":
        assert is_protected(path)


@pytest.mark.parametrize("case", [case for case in CASES if case["expect"] == "gate"], ids=lambda case: case["id"])
def test_protected_paths_are_known_in_every_disguise(case: dict[str, Any]) -> None:
    assert is_protected(case["path"])


@pytest.mark.parametrize("path", [
    ".GIT", '.git\u200b/config', "a/.gitattributes", "GI7EBA~1", ".git::$INDEX_ALLOCATION", ".github/workflows/x.yml",
    "SRC/.VSCode/x", "team.code-workspace", ".env.local", ".EVO/x", "agents.md", ".circleci/config.yml",
    ".husky/pre-commit", "Makefile", "build.gradle.kts", "tests/conftest.py", "sitecustomize.py", "lib/x.PTH",
    ".venv/bin/python", "vite.config.ts", "sub/pyproject.toml", "Dockerfile.dev", "．git/config", ".ENVRC",
    "CLAUDE.md", ".mcp.json",
])  # fmt: skip
def test_more_protected_names(path: str) -> None:
    assert is_protected(path)


@pytest.mark.parametrize("path", [
    "src/a.py", "README.md", "git/a", "environment.py", "src/hooks/useThing.ts", "build/notes.txt",
    "docs/makefiles.md", "gitlab.py", "src/env/config.py", "data.json", "日本.txt", "config.ts", "venv_tools.py",
])  # fmt: skip
def test_plain_names_are_not_protected(path: str) -> None:
    assert not is_protected(path)


def test_a_file_is_written_whole_and_keeps_its_mode(tmp_path: Path, way: str) -> None:
    door = Door(tmp_path)
    door.write_bytes("deep/er/run.sh", b"one\r\n", 0o100755)
    assert door.stat("deep/er/run.sh").mode == 0o100755
    (tmp_path / "deep/er/run.sh").chmod(0o750)
    door.write_bytes("deep/er/run.sh", b"two")
    assert (tmp_path / "deep/er/run.sh").stat().st_mode & 0o777 == 0o750
    door.write_bytes("deep/er/run.sh", b"two", 0o100644)
    assert (tmp_path / "deep/er/run.sh").stat().st_mode & 0o777 == 0o640
    assert door.read_bytes("deep/er/run.sh", limit=2) == b"tw"
    door.write_bytes("deep/link", b"er/run.sh", 0o120000)
    assert door.read_entry("deep/link") == (b"er/run.sh", 0o120000)
    assert door.read_bytes("deep/link") == b"two"
    door.write_bytes("deep/link", b"through")
    assert (tmp_path / "deep/er/run.sh").read_bytes() == b"through" and (tmp_path / "deep/link").is_symlink()
    door.write_bytes("deep/link", b"itself", 0o100644)
    assert not (tmp_path / "deep/link").is_symlink()
    assert [entry.name for entry in door.list("deep")] == ["er", "link"]
    assert door.read_entry("nothing/here") is None and not door.exists("nothing") and door.exists("deep")


def test_a_link_that_leads_outside_can_be_deleted_as_itself(tmp_path: Path, way: str) -> None:
    ws = path_fixture.build(tmp_path)
    Door(ws).delete("l_file_abs", link=True)
    assert not os.path.lexists(ws / "l_file_abs") and (tmp_path / "outside" / "secret").exists()


def test_named_roots_lead_to_their_own_folders(tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "log").mkdir()
    told: list[str] = []
    roots = {"@outputs": tmp_path / "out", "sessions": tmp_path / "log"}
    door = Door(tmp_path / "ws", roots, read_only=frozenset({"sessions"}), on_write=told.append)
    door.write_bytes("@outputs/a/b.md", b"result")
    door.write_bytes("./src//x", b"x")
    assert (tmp_path / "out/a/b.md").read_bytes() == door.read_bytes("@outputs/a/b.md") == b"result"
    assert [entry.name for entry in door.list("@outputs")] == ["a"]
    assert told == ["src/x"]
    for path in ("@sessions/x", "@outputs/../ws/x", "@outputs", "@outputs/"):
        with pytest.raises(PathRefused):
            door.write_bytes(path, b"x")
    door.write_bytes("@other/x", b"an ordinary name")
    assert (tmp_path / "ws/@other/x").exists()


def test_a_link_swapped_in_while_we_look_never_leads_outside(tmp_path: Path, way: str) -> None:
    ws, outside = tmp_path / "ws", tmp_path / "outside"
    (ws / "real").mkdir(parents=True)
    outside.mkdir()
    (ws / "real" / "f").write_text("inside")
    (outside / "f").write_text("SECRET")
    (ws / "d").symlink_to("real")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for target in ("../outside", "real"):
                (ws / "new").symlink_to(target)
                (ws / "new").rename(ws / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    door = Door(ws)
    seen = set()
    try:
        for _ in range(1500):
            try:
                seen.add(door.read_bytes("d/f"))
            except PathRefused:
                seen.add(b"refused")
            try:
                door.write_bytes("d/g", b"x")
            except PathRefused:
                pass
    finally:
        stop.set()
        thread.join()
    assert seen <= {b"inside", b"refused"}
    assert [path.name for path in outside.iterdir()] == ["f"]


def test_no_descriptor_is_left_open(tmp_path: Path, way: str) -> None:
    ws = path_fixture.build(tmp_path)
    door = Door(ws)
    before = len(os.listdir("/proc/self/fd"))
    for case in CASES:
        for verb in ("read", "entry", "write", "list", "delete"):
            try:
                attempt(door, verb, case["path"])
            except PathRefused:
                continue
    assert len(os.listdir("/proc/self/fd")) == before
