"""The home of the selves, their lineage and their folders: immutable, hash-chained, found out when meddled with."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scene import git
from self_room import FILE, make_self
from selfloop.agent.fence import Fence
from selfloop.changes import FileChange, file_change
from selfloop.errors import RequestFailed, SelfloopError, StoreError, Unknown
from selfloop.evolution.generations import Generation, Generations
from selfloop.evolution.home import Home
from selfloop.evolution.lineage import Lineage
from selfloop.evolution.prefix import describe, evolvable
from selfloop.evolution.source import PACKAGE, files_below, self_files, tree_of
from selfloop.messages import Usage

SUGGESTION = {"file": FILE, "improvement": "Greet louder.", "verify": "false"}


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    return Generations(tmp_path / "data", make_self(tmp_path / "self"))


def louder(generations_folder: Path) -> list[FileChange]:
    before = (generations_folder / FILE).read_bytes()
    change = file_change(FILE, pre=before, post=before + b"# louder\n", pre_mode=0o100644, post_mode=0o100644)
    assert change is not None
    return [change]


async def add(generations: Generations, run_id: str = "run-1", **more: Any) -> Generation:
    base = await generations.base()
    tree = await generations.home.amend(base.tree, louder(await generations.folder(0)))
    commit = await generations.home.commit(tree, [base.commit], "louder")
    given: dict[str, Any] = {
        "tree": tree, "commit": commit, "parent": 0, "parent_tree": base.tree, "run_id": run_id, "summary": "Louder.",
        "suggestion": SUGGESTION, "evidence": {"layers": []}, "tokens": Usage(10, 5, 2, 0.1), "approved_by": "user",
        "origins": ["/w: s"],
    }  # fmt: skip
    return await generations.add(**{**given, **more})


def test_generation_0_is_always_listed_and_none_beyond_it(generations: Generations) -> None:
    (one,) = generations.list()
    assert (one.number, one.parent, one.state) == (0, None, "settled") and generations.active() == 0
    with pytest.raises(Unknown):
        generations.get(1)


async def test_a_tree_is_what_git_says_it_is(generations: Generations, tmp_path: Path) -> None:
    folder = tmp_path / "self"
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    own = tree_of(files_below(folder))
    git(folder, "init", "-q")
    git(folder, "add", ".")
    assert git(folder, "write-tree").strip() == own


async def test_a_generation_is_a_read_only_folder_of_exactly_its_tree(generations: Generations) -> None:
    one = await add(generations)
    folder = await generations.folder(1)
    assert folder.name == one.tree == tree_of(files_below(folder))
    assert (folder / FILE).read_text().endswith("# louder\n")
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o222 for path in [folder, *folder.rglob("*")]}
    assert modes == {0}, "nobody may write"
    assert generations.home.ref("generations/1") == one.commit
    assert subprocess.run(
        ["git", "--git-dir", generations.home.git_dir, "fsck", "--full", "--strict"], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    assert "+# louder" in await generations.diff(1) and await generations.diff(0) == ""
    assert await add(generations) == one, "asked again, it is the same one"
    assert [each.number for each in generations.list()] == [0, 1]


@pytest.mark.parametrize("deed", ["change", "add", "link", "remove", "mode"])
async def test_a_folder_that_was_edited_by_hand_is_found_out(generations: Generations, deed: str) -> None:
    await add(generations)
    folder = await generations.folder(1)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    match deed:
        case "change":
            (folder / FILE).write_text("")
        case "add":
            (folder / "server" / "sitecustomize.py").write_text("")
        case "link":
            (folder / "more").symlink_to("/etc")
        case "remove":
            (folder / FILE).unlink()
        case "mode":
            (folder / FILE).chmod(0o755)
    with pytest.raises(StoreError, match=r"by hand|plain file"):
        await generations.folder(1)


async def test_the_lineage_is_chained_torn_tails_are_cut_and_meddling_is_found_out(generations: Generations) -> None:
    await add(generations)
    file = generations.home.root / "lineage.jsonl"
    with file.open("ab") as log:
        log.write(b'{"seq": 2, "torn')
    assert len(generations.list()) == 2
    generations.reject(run_id="r", tree="t", commit="c", suggestion=SUGGESTION, reason="No.", by="user")
    generations.reject(run_id="r", tree="t", commit="c", suggestion=SUGGESTION, reason="No.", by="user")
    (attempt,) = generations.attempts()
    assert attempt.reason == "No." and attempt.by == "user"
    lines = file.read_bytes().splitlines(keepends=True)
    for meddled in (lines[1:], lines[:1] + lines[2:], [lines[0], lines[1].replace(b"Louder.", b"Better."), *lines[2:]]):
        file.write_bytes(b"".join(meddled))
        with pytest.raises(StoreError, match="changed by hand or damaged"):
            generations.list()


async def test_what_the_supervisor_writes_is_noted_once(generations: Generations) -> None:
    one = await add(generations)
    outcome = {"number": 1, "tree": one.tree, "state": "rolled-back", "reason": "It crashed.", "at": "2026-01-01"}
    state = {"version": 1, "number": 1, "base": "0.1.0", "outcomes": [outcome, {"number": "x"}, 3]}
    (generations.home.root / "active.json").write_text(json.dumps(state))
    assert generations.active() == 1 and generations.get(1).state == "rolled-back", "before anybody has noted it"
    assert generations.note_outcomes() == [(1, "rolled-back", "It crashed.")]
    assert generations.note_outcomes() == []
    known = generations.get(1)
    assert (known.state, known.reason) == ("rolled-back", "It crashed.")
    (generations.home.root / "active.json").write_text(json.dumps({**state, "base": "0.0.9"}))
    assert generations.active() == 0, "another release serves itself"
    (generations.home.root / "active.json").write_text("{")
    assert generations.active() == 0 and generations.note_outcomes() == []


def test_only_one_evolution_at_a_time(tmp_path: Path) -> None:
    first, second = Home(tmp_path), Home(tmp_path)
    with first.lock(), pytest.raises(RequestFailed, match="Another evolution is under way"), second.lock():
        pass
    with second.lock():
        pass


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: to it, the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_one_sentence_and_leaves_no_half_of_anything(generations: Generations) -> None:
    await add(generations)
    before = generations.list()
    target = generations.home.folder(before[1].tree)
    moved = target.with_name("elsewhere")
    target.rename(moved)
    with full_disk(20), pytest.raises(SelfloopError, match=r"full|File too large"):
        await generations.folder(1)
    assert not target.exists() and not list(generations.home.generations.glob(".tmp-*"))
    with full_disk(20), pytest.raises(StoreError, match="full"):
        generations.reject(run_id="r", tree="t", commit="c", suggestion=SUGGESTION, reason="No.", by="user")
    with full_disk(20), pytest.raises(StoreError, match="full"):
        generations.home.keep_evidence("a", "b", {"layers": ["x" * 100]})
    assert generations.list() == before and generations.attempts() == []
    assert (await generations.folder(1)).is_dir(), "with room again, all is as it was"


def test_the_checkout_is_its_own_self() -> None:
    files = self_files()
    assert {"pyproject.toml", "AGENTS.md", "server/selfloop/__main__.py", "prompts/chat.md", "tests/scene.py"} <= set(
        files
    )
    assert not [path for path in files if "__pycache__" in path or path.endswith(".pyc") or "_self/" in path]


def test_a_wheel_puts_its_source_back_to_where_it_came_from(tmp_path: Path) -> None:
    folder = make_self(tmp_path / "self")
    package = tmp_path / "site" / "selfloop"
    for path, file in files_below(folder).items():
        inner = path.removeprefix("server/selfloop/")
        if inner == path:
            inner = f"_prompts/{path.removeprefix('prompts/')}" if path.startswith("prompts/") else f"_self/{path}"
        (package / inner).parent.mkdir(parents=True, exist_ok=True)
        (package / inner).write_bytes(file.read_bytes())
    assert tree_of(self_files(None, package)) == tree_of(self_files(folder))
    assert PACKAGE.name == "selfloop"


def test_a_folder_that_is_no_self_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no whole source of Selfloop"):
        self_files(tmp_path)


def test_the_prefix_is_a_function_of_the_files_and_shows_no_file(tmp_path: Path) -> None:
    folder = make_self(tmp_path / "self")
    fence = Fence("abc")
    shown = describe(folder, fence)
    assert shown == describe(folder, fence)
    assert f"{FILE}, " in shown and ": greet" in shown and "def greet" not in shown
    assert "prompts/memory/note.md" in shown and "Be brief." in shown
    (folder / "prompts" / "evolve.md").write_text("x")
    assert "prompts/evolve.md [sealed]" in describe(folder, fence)
    assert "server/selfloop/gate.py" not in evolvable(folder) and FILE in evolvable(folder)


def test_a_lineage_of_nothing_is_empty(tmp_path: Path) -> None:
    lineage = Lineage(tmp_path / "lineage.jsonl")
    assert lineage.records() == [] and lineage.add(lambda there: None) is None
    record = lineage.add(lambda there: ("base", {"text": "half \ud83d of a pair", "n": 1}))
    assert record is not None and lineage.records() == [record] and os.path.exists(tmp_path / "lineage.jsonl")
