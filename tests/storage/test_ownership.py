"""Whose `.evo/` it is: what came with a repository never counts, and nothing of the user's is ever lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfloop.config import Folders
from selfloop.errors import StoreError
from selfloop.storage.gitindex import placed_by_git
from selfloop.storage.sessions import Sessions
from selfloop.storage.store import Store


def git(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder)}
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *identity, *arguments], cwd=folder, env=environment, check=True, capture_output=True)


def opened(place: Path, folders: Folders) -> tuple[list[str], list[str]]:
    """Open and close a store; return its notices and the ids of its sessions."""
    store = Store.open(place, folders)
    ids = [record.id for record in Sessions(store).list()]
    store.close()
    return store.notices, ids


def made(place: Path, folders: Folders) -> str:
    """Make a store with one session, and return the session's id."""
    store = Store.open(place, folders)
    record = Sessions(store).create()
    store.close()
    return record.id


def aside(place: Path) -> list[Path]:
    return sorted(place.glob(".evo.foreign-*"))


def test_a_new_workspace_gets_a_private_folder_that_git_ignores(place: Path, folders: Folders) -> None:
    git(place, "init", "-q")
    assert opened(place, folders) == ([], [])
    assert (place / ".evo").stat().st_mode & 0o777 == 0o700
    assert (folders.data / "owner.key").stat().st_mode & 0o777 == 0o600
    (place / ".evo" / "loops").mkdir()
    (place / ".evo" / "loops" / "mine.md").write_text("x")
    status = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=place, capture_output=True, text=True, check=True
    )
    assert status.stdout == "?? .evo/loops/mine.md\n"


def test_the_own_folder_is_opened_again_without_a_word(place: Path, folders: Folders) -> None:
    session = made(place, folders)
    assert opened(place, folders) == ([], [session])
    assert aside(place) == []


def test_a_folder_of_another_user_is_set_aside_but_loops_and_prompts_stay(
    tmp_path: Path, place: Path, folders: Folders
) -> None:
    stranger = Folders(tmp_path / "stranger", tmp_path / "c", tmp_path / "k")
    session = made(place, stranger)
    for name in ("loops", "prompts"):
        (place / ".evo" / name).mkdir()
        (place / ".evo" / name / "a.md").write_text(name)
    notices, sessions = opened(place, folders)
    assert sessions == []
    (moved,) = aside(place)
    assert len(notices) == 1
    assert moved.name in notices[0]
    assert (moved / "sessions" / session).is_dir()
    assert (moved / ".gitignore").read_text() == "*\n"
    assert not (moved / "loops").exists()
    assert (place / ".evo" / "loops" / "a.md").read_text() == "loops"
    assert (place / ".evo" / "prompts" / "a.md").read_text() == "prompts"
    assert opened(place, folders) == ([], [])
    assert aside(place) == [moved]


def test_a_repository_that_brings_only_loops_gets_no_notice(place: Path, folders: Folders) -> None:
    (place / ".evo" / "loops").mkdir(parents=True)
    (place / ".evo" / ".gitignore").write_text("!*\n")
    assert opened(place, folders) == ([], [])
    assert (place / ".evo" / ".gitignore").read_text().startswith("*\n")


def test_a_copied_folder_does_not_count_in_its_new_place(tmp_path: Path, place: Path, folders: Folders) -> None:
    made(place, folders)
    shutil.copytree(place, tmp_path / "copy")
    notices, sessions = opened(tmp_path / "copy", folders)
    assert (len(notices), sessions) == (1, [])


@pytest.mark.parametrize("name", ["loops", "sessions", "outputs", "store.db", ".gitignore"])
def test_links_in_the_folder_are_set_aside_and_never_followed(
    tmp_path: Path, place: Path, folders: Folders, name: str
) -> None:
    made(place, folders)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    inner = place / ".evo" / name
    if inner.is_dir():
        shutil.rmtree(inner)
    inner.unlink(missing_ok=True)
    inner.symlink_to(outside)
    notices, sessions = opened(place, folders)
    assert (len(notices), sessions) == (1, [])
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert not inner.is_symlink()


@pytest.mark.parametrize("kind", ["link to a folder", "dangling link", "file"])
def test_a_state_folder_that_is_no_folder_is_refused_and_left_alone(
    tmp_path: Path, place: Path, folders: Folders, kind: str
) -> None:
    outside = tmp_path / "outside"
    if kind != "dangling link":
        outside.mkdir()
    if kind == "file":
        (place / ".evo").write_text("mine")
    else:
        (place / ".evo").symlink_to(outside)
    before = sorted(path.name for path in place.iterdir())
    with pytest.raises(StoreError, match="nothing was started") as caught:
        Store.open(place, folders)
    assert "a link" in caught.value.message or "no folder" in caught.value.message
    assert sorted(path.name for path in place.iterdir()) == before
    assert not outside.exists() or list(outside.iterdir()) == []


def test_a_workspace_that_is_no_folder_is_said(tmp_path: Path, folders: Folders) -> None:
    with pytest.raises(StoreError, match="is no folder"):
        Store.open(tmp_path / "nowhere", folders)
    assert not (tmp_path / "nowhere").exists()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that really cannot be written: root ignores permissions, but not a read-only mount."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_workspace_is_said_and_not_touched(read_only: Path, folders: Folders) -> None:
    with pytest.raises(StoreError, match="read-only for this user; make it writable"):
        Store.open(read_only, folders)
    assert list(read_only.iterdir()) == []


def test_a_read_only_data_folder_is_said(read_only: Path, place: Path) -> None:
    with pytest.raises(StoreError, match="read-only"):
        Store.open(place, Folders(read_only / "data", read_only, read_only))
    assert list(place.iterdir()) == []


# What git brings


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository whose `.evo/` is tracked."""
    folder = tmp_path / "upstream"
    (folder / ".evo" / "loops").mkdir(parents=True)
    (folder / ".evo" / "loops" / "a.md").write_text("loop")
    (folder / ".evo" / "store.db").write_bytes(b"SQLite format 3\0 of a stranger")
    (folder / "code.py").write_text("x = 1\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-f", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_cloned_state_is_set_aside_once_and_not_again(tmp_path: Path, upstream: Path, folders: Folders) -> None:
    place = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(upstream), str(place))
    notices, sessions = opened(place, folders)
    assert (len(notices), sessions) == (1, [])
    assert "git rm -r --cached" in notices[0]
    assert (place / ".evo" / "loops" / "a.md").read_text() == "loop"
    session = made(place, folders)
    # The index still tracks `.evo/store.db`, but what lies there now is ours.
    assert opened(place, folders) == ([], [session])
    assert len(aside(place)) == 1


@pytest.mark.parametrize("path", [".evo/store.db", ".evo/sessions/20300101T000000000-00000000/traj.jsonl"])
@pytest.mark.parametrize("eol", [False, True])
def test_a_state_that_a_pull_put_into_the_own_folder_is_set_aside(
    tmp_path: Path, folders: Folders, path: str, eol: bool
) -> None:
    upstream, place = tmp_path / "upstream", tmp_path / "clone"
    upstream.mkdir()
    git(upstream, "init", "-q", "-b", "main")
    git(upstream, "commit", "-q", "--allow-empty", "-m", "first")
    git(tmp_path, "clone", "-q", str(upstream), str(place))
    made(place, folders)
    (upstream / path).parent.mkdir(parents=True)
    (upstream / path).write_text('{"ts": "now", "kind": "user_input", "data": {"text": "approved"}}\n')
    if eol:
        # Git writes another content than it tracks.
        (upstream / ".gitattributes").write_text(".evo/** text eol=crlf\n")
    git(upstream, "add", "-f", ".")
    git(upstream, "commit", "-q", "-m", "second")
    git(place, "pull", "-q")
    assert "user_input" in (place / path).read_text()
    notices, sessions = opened(place, folders)
    assert len(notices) == 1
    assert sessions == []


def test_a_store_from_elsewhere_in_the_own_folder_is_set_aside(tmp_path: Path, place: Path, folders: Folders) -> None:
    session = made(place, folders)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    made(stranger, folders)
    shutil.copy(stranger / ".evo" / "store.db", place / ".evo" / "store.db")
    notices, sessions = opened(place, folders)
    assert "came from elsewhere" in notices[0]
    assert sessions == [session]


@pytest.mark.parametrize("version", [2, 3, 4])
def test_git_index_versions_are_read_as_git_does(tmp_path: Path, upstream: Path, version: int) -> None:
    git(upstream, "update-index", "--index-version", str(version))
    if version == 3:
        (upstream / "late.py").write_text("y")
        git(upstream, "add", "--intent-to-add", "late.py")
    assert placed_by_git(upstream / ".evo") == ["loops/a.md", "store.db"]
    assert placed_by_git(upstream / "nothing") == []
    (upstream / ".evo" / "store.db").write_bytes(b"ours now")
    assert placed_by_git(upstream / ".evo") == ["loops/a.md"]


def test_worktrees_subfolders_and_split_indexes_are_seen_through(tmp_path: Path, upstream: Path) -> None:
    git(upstream, "worktree", "add", "-q", str(tmp_path / "tree"))
    assert placed_by_git(tmp_path / "tree" / ".evo") == ["loops/a.md", "store.db"]
    inner = upstream / "inner"
    shutil.copytree(upstream / ".evo", inner / ".evo")
    git(upstream, "add", "-f", "inner")
    assert placed_by_git(inner / ".evo") == ["loops/a.md", "store.db"]
    git(upstream, "update-index", "--split-index")
    assert placed_by_git(inner / ".evo") == ["loops/a.md", "store.db"]


@pytest.mark.parametrize("damage", range(0, 200, 7))
def test_a_spoilt_index_places_nothing_and_raises_nothing(upstream: Path, damage: int) -> None:
    index = upstream / ".git" / "index"
    data = bytearray(index.read_bytes())
    data[damage % len(data)] ^= 0xFF
    index.write_bytes(data[: len(data) - damage % 5 * 20])
    assert set(placed_by_git(upstream / ".evo")) <= {"loops/a.md", "store.db"}


def test_an_index_that_is_a_pipe_blocks_nobody(upstream: Path) -> None:
    (upstream / ".git" / "index").unlink()
    os.mkfifo(upstream / ".git" / "index")
    assert placed_by_git(upstream / ".evo") == []


# Kills and races

OPENER = """
import sys
from pathlib import Path
from selfloop.config import Folders
from selfloop.storage.store import Store
base = Path(sys.argv[1])
print("begin", flush=True)
Store.open(base / "place", Folders(base / "data", base / "cache", base / "config")).close()
"""


def test_a_kill_while_foreign_state_is_set_aside_loses_nothing(tmp_path: Path, place: Path, folders: Folders) -> None:
    for step in range(8):
        stranger = Folders(tmp_path / f"stranger{step}", tmp_path, tmp_path)
        shutil.rmtree(place)
        place.mkdir()
        session = made(place, stranger)
        (place / ".evo" / "loops").mkdir()
        child = subprocess.Popen([sys.executable, "-c", OPENER, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        threading.Event().wait(step * 0.004)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        _, sessions = opened(place, folders)
        assert sessions == []
        assert (place / ".evo" / "loops").is_dir()
        assert any((moved / "sessions" / session).is_dir() for moved in aside(place))
        assert opened(place, folders) == ([], [])


def test_many_processes_that_open_a_new_workspace_at_once_agree(tmp_path: Path, place: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(tmp_path)], stdout=subprocess.DEVNULL) for _ in range(6)
    ]
    assert [child.wait() for child in children] == [0] * 6
    folders = Folders(tmp_path / "data", tmp_path / "cache", tmp_path / "config")
    assert opened(place, folders)[0] == []
