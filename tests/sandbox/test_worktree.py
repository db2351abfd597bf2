"""The agent works on a copy: what it changes is found, and what the user types meanwhile is brought in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from repositories import git, make_repository, write
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow
from selfloop.sandbox.worktree import Worktree

FILES: dict[str, str | bytes] = {
    ".gitignore": "*.log\n",
    "a.txt": "one\ntwo\nthree\nfour\nfive\nsix\nseven\n",
    "b.txt": "b\n",
    "d/c.txt": "c\n" * 30,
    "bin": b"\0\1\2",
    "crlf.txt": b"x\r\ny\r\n",
}


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "ws", FILES)


@pytest.fixture
async def pool(ws: Path, tmp_path: Path) -> AsyncIterator[Pool]:
    pool = Pool(await Shadow.open(ws, tmp_path / "cache"), tmp_path / "cache")
    yield pool
    await pool.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if (path.is_file() or path.is_symlink()) and ".git" not in path.relative_to(folder).parts
    }


async def summary(worktree: Worktree) -> dict[str, tuple[str, str | None]]:
    return {change.path: (change.operation, change.old_path) for change in await worktree.changes()}


async def test_a_worktree_holds_what_the_user_sees(pool: Pool, ws: Path) -> None:
    write(ws, {"b.txt": "dirty\n", "new/x": "untracked\n", "x.log": "ignored"})
    for _ in range(2):  # The first is made, the second comes from the pool.
        worktree = await pool.acquire({"a.txt": b"unsaved\n", "not/yet": b"new\n"})
        expected = {**{name: data if isinstance(data, bytes) else data.encode() for name, data in FILES.items()}}
        expected |= {"b.txt": b"dirty\n", "new/x": b"untracked\n", "a.txt": b"unsaved\n", "not/yet": b"new\n"}
        assert contents(worktree.path) == expected
        assert await worktree.changes() == []
        await pool.settle()


async def test_every_kind_of_change_is_found(pool: Pool) -> None:
    worktree = await pool.acquire()
    root = worktree.path
    (root / "a.txt").write_text("one\nTWO\nthree\nfour\nfive\nSIX\nseven\n")
    (root / "b.txt").unlink()
    (root / "d" / "c.txt").rename(root / "moved.txt")
    (root / "bin").write_bytes(b"\0\1\3")
    (root / "crlf.txt").chmod(0o755)
    (root / "link").symlink_to("/etc/passwd")
    worktree.door.write_bytes("sub/new.txt", b"n\r\n")
    (root / "made.log").write_text("by a command, ignored")
    worktree.door.write_bytes("meant.log", b"by the agent, ignored\n")
    changes = {change.path: change for change in await worktree.changes()}
    assert {path: (change.operation, change.old_path) for path, change in changes.items()} == {
        **dict.fromkeys(("a.txt", "bin", "crlf.txt"), ("modify", None)),
        **dict.fromkeys(("link", "sub/new.txt", "meant.log"), ("create", None)),
        "b.txt": ("delete", None),
        "moved.txt": ("rename", "d/c.txt"),
    }
    assert len(changes["a.txt"].hunks) == 2
    assert (changes["crlf.txt"].pre_mode, changes["crlf.txt"].post_mode) == (0o100644, 0o100755)
    assert (changes["link"].post, changes["link"].post_mode) == (b"/etc/passwd", 0o120000)
    assert changes["sub/new.txt"].post == b"n\r\n"
    assert changes["bin"].pre == b"\0\1\2"


async def test_the_users_text_is_merged_with_the_agents(pool: Pool, ws: Path) -> None:
    worktree = await pool.acquire()
    (worktree.path / "a.txt").write_text("ONE\ntwo\nthree\nfour\nfive\nsix\nseven\n")
    write(ws, {"a.txt": "one\ntwo\nthree\nfour\nfive\nsix\nSEVEN\n", "b.txt": "user\n", "fresh": "f"})
    (ws / "d" / "c.txt").unlink()
    assert await worktree.sync({"crlf.txt": b"x\r\nunsaved\r\n"}) == []
    assert (worktree.path / "a.txt").read_text() == "ONE\ntwo\nthree\nfour\nfive\nsix\nSEVEN\n"
    assert (worktree.path / "b.txt").read_text() == "user\n"
    assert (worktree.path / "crlf.txt").read_bytes() == b"x\r\nunsaved\r\n"
    assert (worktree.path / "fresh").exists() and not (worktree.path / "d").exists()
    (change,) = await worktree.changes()
    assert change.path == "a.txt"
    assert change.pre == b"one\ntwo\nthree\nfour\nfive\nsix\nSEVEN\n"


async def test_a_clash_leaves_both_as_they_were(pool: Pool, ws: Path) -> None:
    worktree = await pool.acquire()
    (worktree.path / "a.txt").write_text("agent\n")
    (worktree.path / "bin").write_bytes(b"\0agent")
    (worktree.path / "b.txt").unlink()
    (worktree.path / "fresh").mkdir()
    write(worktree.path, {"fresh/x": "agent", "both": "same"})
    write(
        ws, {"a.txt": "user\n", "bin": b"\0user", "b.txt": "user\n", "fresh": "user", "both": "same", "d/c.txt": "u\n"}
    )
    assert await worktree.sync() == ["a.txt", "b.txt", "bin", "fresh"]
    assert (worktree.path / "a.txt").read_text() == "agent\n"
    assert (worktree.path / "d" / "c.txt").read_text() == "u\n"
    changes = {change.path: change for change in await worktree.changes()}
    assert set(changes) == {"a.txt", "b.txt", "bin", "fresh/x"}
    assert changes["a.txt"].pre == FILES["a.txt"].encode()  # type: ignore[union-attr]
    # The user comes round to the agent's text: no clash is left.
    write(ws, {"a.txt": "agent\n", "bin": b"\0agent"})
    (ws / "b.txt").unlink()
    (ws / "fresh").unlink()
    assert await worktree.sync() == []
    assert await summary(worktree) == {"fresh/x": ("create", None)}


async def test_what_was_approved_becomes_part_of_the_base(pool: Pool, ws: Path) -> None:
    worktree = await pool.acquire()
    worktree.door.write_bytes("a.txt", b"agent\n")
    worktree.door.write_bytes("secret.log", b"agent\n")
    write(ws, {"a.txt": "agent\n", "secret.log": "agent\n"})
    assert await worktree.sync() == []
    assert await worktree.changes() == []


async def test_a_file_can_be_put_back(pool: Pool) -> None:
    worktree = await pool.acquire()
    worktree.door.write_bytes("deep/er/x", b"x")
    worktree.door.write_bytes("b.txt", b"agent\n")
    (worktree.path / "crlf.txt").unlink()
    (worktree.path / "crlf.txt").symlink_to("/etc/passwd")
    await worktree.restore("deep/er/x", None, None)
    await worktree.restore("b.txt", b"b\n", 0o100644)
    await worktree.restore("crlf.txt", b"x\r\ny\r\n", 0o100644)
    await worktree.restore("not/there", None, None)
    assert await worktree.changes() == []
    assert not (worktree.path / "deep").exists()


async def test_a_worktree_is_found_again_by_its_id(pool: Pool, ws: Path, tmp_path: Path) -> None:
    worktree = await pool.acquire({"a.txt": b"unsaved\n"})
    worktree.door.write_bytes("b.txt", b"agent\n")
    worktree.door.write_bytes("kept.log", b"agent\n")
    later = Pool(await Shadow.open(ws, tmp_path / "cache"), tmp_path / "cache")
    again = await later.reopen(worktree.id)
    assert again is not None and again.base == worktree.base
    assert await summary(again) == {"b.txt": ("modify", None), "kept.log": ("create", None)}
    for wrong in ("../../etc", "", "0" * 16, worktree.id.upper()):
        assert await later.reopen(wrong) is None or wrong == worktree.id
    (worktree.folder / "state.json").write_text('{"base": "not a tree"}')
    other = Pool(await Shadow.open(ws, tmp_path / "cache"), tmp_path / "cache")
    assert await other.reopen(worktree.id) is None
    await later.close()
    await other.close()


async def test_what_is_given_back_is_reset_whatever_was_done_to_it(pool: Pool, ws: Path, tmp_path: Path) -> None:
    worktree = await pool.acquire()
    await pool.settle()
    for ready in list(pool._ready):  # The pool is emptied, so that this very one is taken back.
        pool._ready.remove(ready)
        await ready.delete()
    write(worktree.path, {"junk/x.log": "x", "junk/.git/config": "x", "a.txt": "agent", "b.log": "x"})
    (worktree.path / "d" / "c.txt").unlink()
    (worktree.path / "d").rmdir()
    (worktree.path / "d").symlink_to(tmp_path)
    (worktree.path / "locked").mkdir()
    (worktree.path / "locked").chmod(0)
    await pool.release(worktree)
    again = await pool.acquire()
    assert contents(again.path) == contents(ws)
    assert await again.changes() == []


async def test_a_pool_of_an_earlier_run_is_used_only_if_it_is_what_it_was(pool: Pool, ws: Path, tmp_path: Path) -> None:
    await pool.refill()
    (left,) = pool._ready
    (left.path / "a.txt").write_text("meddled with")
    (left.path / "extra").write_text("x")
    later = Pool(await Shadow.open(ws, tmp_path / "cache"), tmp_path / "cache")
    await later.refill()
    worktree = await later.acquire()
    assert worktree.id == left.id
    assert contents(worktree.path) == contents(ws)
    await later.close()


async def test_worktrees_that_no_session_needs_are_pruned(pool: Pool) -> None:
    first, second = await pool.acquire(), await pool.acquire()
    await pool.settle()
    pool._held.clear()
    await pool.prune({second.id})
    assert not first.folder.exists() and second.folder.exists()


async def test_no_worktree_is_ever_two_peoples(pool: Pool) -> None:
    random, taken = Random(5), set[str]()

    async def works() -> None:
        for _ in range(6):
            worktree = await pool.acquire({"a.txt": b"%d\n" % random.randrange(99)})
            assert worktree.id not in taken
            taken.add(worktree.id)
            worktree.door.write_bytes("b.txt", worktree.id.encode())
            await asyncio.sleep(random.random() / 20)
            (change,) = await worktree.changes()
            assert change.post == worktree.id.encode()
            taken.remove(worktree.id)
            await pool.release(worktree)

    async def fills() -> None:
        for _ in range(60):
            await pool.refill()
            await asyncio.sleep(random.random() / 30)

    await asyncio.gather(works(), works(), works(), fills())


async def test_sessions_side_by_side_do_not_disturb_each_other(pool: Pool, ws: Path) -> None:
    worktrees = await asyncio.gather(*(pool.acquire({"a.txt": b"%d\n" % number}) for number in range(4)))
    for number, worktree in enumerate(worktrees):
        worktree.door.write_bytes("b.txt", b"agent %d\n" % number)
    write(ws, {"d/c.txt": "user\n"})
    synced = await asyncio.gather(*(w.sync({"a.txt": b"%d again\n" % n}) for n, w in enumerate(worktrees)))
    assert synced == [[]] * 4
    for number, worktree in enumerate(worktrees):
        (change,) = await worktree.changes()
        assert (change.path, change.post) == ("b.txt", b"agent %d\n" % number)
        assert (worktree.path / "a.txt").read_bytes() == b"%d again\n" % number


async def test_the_users_gc_breaks_no_worktree(pool: Pool, ws: Path) -> None:
    write(ws, {"late": "only in the second commit\n"})
    git(ws, "add", "-A")
    git(ws, "commit", "-qm", "second")
    worktree = await pool.acquire()
    await pool.settle()
    worktree.door.write_bytes("late", b"agent\n")
    git(ws, "reset", "-q", "--hard", "HEAD~1")
    git(ws, "reflog", "expire", "--expire=now", "--all")
    git(ws, "gc", "-q", "--prune=now")
    (change,) = await worktree.changes()
    assert change.pre == b"only in the second commit\n"
    assert await worktree.sync() == ["late"]
    other = await pool.acquire()
    assert contents(other.path) == contents(ws)


async def test_a_folder_of_a_repository_keeps_the_rules_above_it(tmp_path: Path) -> None:
    top = make_repository(tmp_path / "top", {".gitignore": "*.log\n", "sub/a": "1\n", "other": "2"})
    pool = Pool(await Shadow.open(top / "sub", tmp_path / "cache"), tmp_path / "cache")
    for _ in range(2):
        worktree = await pool.acquire({"b": b"unsaved"})
        assert contents(worktree.path) == {"a": b"1\n", "b": b"unsaved"}
        write(worktree.path, {"x.log": "ignored", "new": "n"})
        assert await summary(worktree) == {"new": ("create", None)}
        write(top, {"sub/a": "user\n"})
        assert await worktree.sync({"b": b"unsaved"}) == []
        assert (worktree.path / "a").read_text() == "user\n"
        await pool.settle()
        write(top, {"sub/a": "1\n"})
    await pool.close()


async def test_a_large_move_goes_by_git(pool: Pool, ws: Path) -> None:
    worktree = await pool.acquire()
    worktree.door.write_bytes("b.txt", b"agent\n")
    write(ws, {f"many/{number // 100}/f{number}": f"{number}\n" for number in range(1200)})
    assert await worktree.sync() == []
    assert len(contents(worktree.path / "many")) == 1200
    assert await summary(worktree) == {"b.txt": ("modify", None)}
    for number in range(1200):
        (ws / "many" / str(number // 100) / f"f{number}").unlink()
    assert await worktree.sync() == []
    assert not (worktree.path / "many").exists()
    assert await summary(worktree) == {"b.txt": ("modify", None)}


async def test_a_read_only_workspace_is_no_obstacle(pool: Pool, ws: Path) -> None:
    for folder in (ws, ws / ".git", ws / "d"):
        folder.chmod(0o555)
    try:
        worktree = await pool.acquire({"a.txt": b"unsaved"})
        worktree.door.write_bytes("b.txt", b"agent")
        assert await summary(worktree) == {"b.txt": ("modify", None)}
    finally:
        for folder in (ws, ws / ".git", ws / "d"):
            folder.chmod(0o755)
