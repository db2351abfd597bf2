"""A snapshot is what is on the disk, byte for byte, whatever the user's repository says."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from repositories import git, make_repository, write
from selfloop.errors import SandboxError
from selfloop.sandbox import area as area_module
from selfloop.sandbox.shadow import Shadow


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "home").mkdir()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


async def files(shadow: Shadow, tree: str) -> dict[str, bytes]:
    entries = await shadow.objects.list_tree(tree)
    contents = await shadow.objects.read(name for name, _ in entries.values())
    return {path: contents[name] for path, (name, _) in entries.items()}


async def snapshot(workspace: Path, cache: Path, overlay: dict[str, bytes] | None = None) -> dict[str, bytes]:
    shadow = await Shadow.open(workspace, cache)
    return await files(shadow, await shadow.snapshot(overlay))


async def test_a_folder_without_git_is_taken_as_it_is(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "ws", {"a.txt": "a", "b/c.txt": b"\0\xff", "node_modules/x.js": "no", "__pycache__/x.pyc": "no"})
    assert await snapshot(tmp_path / "ws", cache) == {"a.txt": b"a", "b/c.txt": b"\0\xff"}


async def test_untracked_changed_and_deleted_files_count_and_ignored_ones_do_not(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {".gitignore": "*.log\n/out/\n", "a": "1", "b": "2", "kept.log": "tracked"})
    write(ws, {"a": "changed", "new": "n", "x.log": "ignored", "out/y": "ignored"})
    (ws / "b").unlink()
    assert await snapshot(ws, cache) == {
        ".gitignore": b"*.log\n/out/\n", "a": b"changed", "new": b"n", "kept.log": b"tracked"
    }  # fmt: skip


async def test_the_users_own_exclude_files_are_respected(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    write(ws, {"global.tmp": "x", "local.tmp2": "x", "xdg.tmp3": "x"})
    write(tmp_path / "home", {".gitconfig": "[core]\n\texcludesFile = ~/excludes\n", "excludes": "*.tmp\n"})
    write(ws, {".git/info/exclude": "*.tmp2\n"})
    assert await snapshot(ws, cache) == {"a": b"1", "xdg.tmp3": b"x"}


async def test_what_becomes_ignored_leaves_and_what_is_added_by_force_comes(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    write(ws, {"x.log": "x"})
    shadow = await Shadow.open(ws, cache)
    assert set(await files(shadow, await shadow.snapshot())) == {"a", "x.log"}
    write(ws, {".gitignore": "*.log\n"})
    assert set(await files(shadow, await shadow.snapshot())) == {"a", ".gitignore"}
    git(ws, "add", "-f", "x.log")
    assert set(await files(shadow, await shadow.snapshot())) == {"a", ".gitignore", "x.log"}
    git(ws, "rm", "-q", "--cached", "x.log")
    assert set(await files(shadow, await shadow.snapshot())) == {"a", ".gitignore"}


@pytest.mark.parametrize(
    ("attributes", "config"),
    [
        ("* text=auto eol=crlf\n", {}),
        ("* text\n", {"core.autocrlf": "true"}),
        ("* ident\n", {}),
        ("*.txt working-tree-encoding=UTF-16LE\n", {}),
        ("*.txt filter=up\n", {"filter.up.clean": "tr a-z A-Z", "filter.up.smudge": "cat"}),
    ],
)
async def test_bytes_stay_bytes_under_every_conversion(
    tmp_path: Path, cache: Path, attributes: str, config: dict[str, str]
) -> None:
    ws = tmp_path / "ws"
    text = "one\r\n$Id: x$\r\ntwo\n"
    data = text.encode("utf-16-le" if "UTF-16" in attributes else "utf-8")
    ws.mkdir()
    git(ws, "init", "-q")
    for key, value in config.items():
        git(ws, "config", key, value)
    write(ws, {"a.txt": data, ".gitattributes": attributes})
    git(ws, "add", "-A")
    git(ws, "commit", "-q", "-m", "x")
    git(ws, "status")
    assert (await snapshot(ws, cache))["a.txt"] == data


async def test_a_same_size_edit_in_the_same_instant_is_seen(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {f"f{number}": "aaaa" for number in range(20)})
    for number in range(20):
        path = ws / f"f{number}"
        status = path.stat()
        path.write_text("bbbb")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert set((await snapshot(ws, cache)).values()) == {b"bbbb"}


async def test_flags_of_the_users_index_hide_nothing(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"assumed": "1", "skipped": "2", "gone": "3"})
    git(ws, "update-index", "--assume-unchanged", "assumed")
    git(ws, "update-index", "--skip-worktree", "skipped", "gone")
    write(ws, {"assumed": "changed", "skipped": "changed", "intended": "new"})
    (ws / "gone").unlink()
    git(ws, "add", "-N", "intended")
    assert await snapshot(ws, cache) == {"assumed": b"changed", "skipped": b"changed", "intended": b"new"}


@pytest.mark.parametrize("form", ["split", "version 4", "untracked cache", "sparse"])
async def test_every_form_of_index_is_understood(tmp_path: Path, cache: Path, form: str) -> None:
    ws = make_repository(
        tmp_path / "ws", {".gitignore": "*.log\n", "a/x": "1", "a/y": "2", "b/z": "3", "t.log": "tracked"}
    )
    expected = {".gitignore": b"*.log\n", "a/x": b"1", "a/y": b"changed", "b/z": b"3", "t.log": b"tracked"}
    if form == "split":
        git(ws, "update-index", "--split-index")
    elif form == "version 4":
        git(ws, "update-index", "--index-version", "4")
    elif form == "untracked cache":
        git(ws, "update-index", "--force-untracked-cache")
        git(ws, "status")
    else:
        git(ws, "sparse-checkout", "set", "--cone", "--sparse-index", "a")
        del expected["b/z"]
    write(ws, {"a/y": "changed"})
    assert await snapshot(ws, cache) == expected


async def test_a_torn_index_costs_a_rehash_and_no_more(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1", "b": "2"})
    index = ws / ".git" / "index"
    index.write_bytes(index.read_bytes()[:-30])
    shadow = await Shadow.open(ws, cache)
    assert await files(shadow, await shadow.snapshot()) == {"a": b"1", "b": b"2"}


async def test_a_repository_without_commits_and_one_in_a_merge(tmp_path: Path, cache: Path) -> None:
    ws = tmp_path / "new"
    ws.mkdir()
    git(ws, "init", "-q")
    write(ws, {"a": "1"})
    assert await snapshot(ws, cache) == {"a": b"1"}

    ws = make_repository(tmp_path / "merge", {"a": "base\n"})
    git(ws, "checkout", "-q", "-b", "other")
    write(ws, {"a": "other\n"})
    git(ws, "commit", "-q", "-am", "other")
    git(ws, "checkout", "-q", "main")
    write(ws, {"a": "main\n"})
    git(ws, "commit", "-q", "-am", "main")
    git(ws, "merge", "other", check=False)
    assert b"<<<<<<<" in (await snapshot(ws, tmp_path / "cache2"))["a"]


async def test_a_bare_repository_and_a_git_folder_are_refused_with_a_sentence(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    git(tmp_path, "clone", "-q", "--bare", str(ws), "bare")
    for folder in (tmp_path / "bare", ws / ".git", ws / ".git" / "refs", tmp_path / "missing"):
        with pytest.raises(SandboxError, match="no sandbox was opened"):
            await Shadow.open(folder, cache)


async def test_submodules_and_repositories_inside_are_left_out_with_a_sentence(tmp_path: Path, cache: Path) -> None:
    inner = make_repository(tmp_path / "inner", {"secret": "s"})
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    git(ws, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    make_repository(ws / "nested", {"b": "2"})
    shadow = await Shadow.open(ws, cache)
    assert set(await files(shadow, await shadow.snapshot())) == {"a", ".gitmodules"}
    assert any("'sub' is a submodule" in notice for notice in shadow.notices)
    assert any("'nested/' is another repository" in notice for notice in shadow.notices)


async def test_special_files_odd_names_and_huge_files_do_no_harm(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(area_module, "MAX_FILE_BYTES", 1 << 20)
    ws = make_repository(tmp_path / "ws", {"tracked": "1", "line\nbreak": "2", ":(glob)*": "3", "a\\b": "4"})
    os.mkfifo(ws / "fifo")
    here = Path.cwd()
    os.chdir(ws)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
    os.chdir(here)
    Path(os.fsdecode(os.fsencode(ws) + b"/latin\xe9")).write_text("x")
    (ws / "huge").write_bytes(b"x" * (1 << 20) + b"y")
    (ws / "tracked").unlink()
    os.mkfifo(ws / "tracked")
    shadow = await Shadow.open(ws, cache)
    found = await files(shadow, await shadow.snapshot({":(glob)*": b"unsaved"}))
    assert found == {"line\nbreak": b"2", ":(glob)*": b"unsaved", "a\\b": b"4"}
    assert any("not UTF-8" in notice for notice in shadow.notices)
    assert any("larger than" in notice for notice in shadow.notices)


async def test_an_unreadable_file_is_left_out_with_a_sentence(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1", "b": "2"})
    (ws / "b").write_text("changed")
    (ws / "b").chmod(0)
    shadow = await Shadow.open(ws, cache)
    root = os.geteuid() == 0  # Root reads every file.
    assert set(await files(shadow, await shadow.snapshot())) == ({"a", "b"} if root else {"a"})
    assert any("cannot be read" in notice for notice in shadow.notices) is not root


async def test_links_stay_links_and_modes_are_kept(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1", "run": "#!/bin/sh\n"})
    (ws / "run").chmod(0o755)
    (ws / "out").symlink_to("/etc/passwd")
    (ws / "folder").symlink_to("/etc")
    shadow = await Shadow.open(ws, cache)
    entries = await shadow.objects.list_tree(await shadow.snapshot())
    assert {path: mode for path, (_, mode) in entries.items()} == {
        "a": 0o100644, "run": 0o100755, "out": 0o120000, "folder": 0o120000
    }  # fmt: skip
    assert (await files(shadow, await shadow.snapshot()))["out"] == b"/etc/passwd"


async def test_a_folder_that_becomes_a_link_is_not_read_through(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "outside", {"x": "SECRET"})
    ws = make_repository(tmp_path / "ws", {"d/x": "1", "a": "1"})
    shadow = await Shadow.open(ws, cache)
    await shadow.snapshot()
    (ws / "d" / "x").unlink()
    (ws / "d").rmdir()
    (ws / "d").symlink_to(tmp_path / "outside")
    assert await files(shadow, await shadow.snapshot()) == {"a": b"1", "d": os.fsencode(tmp_path / "outside")}


async def test_unsaved_buffers_lie_over_the_disk(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(
        tmp_path / "ws", {".gitignore": "*.log\n.env\n", "a": "1", "d/b": "2", "kept.log": "t", "run": "x"}
    )
    (ws / "run").chmod(0o755)
    (ws / "link").symlink_to("d/b")
    (ws / "away").symlink_to("/etc/hostname")
    write(ws, {".env": "KEY=1"})
    overlay = {
        "a": b"A", "not/on/disk": b"N", ".env": b"KEY=2", "kept.log": b"T", "link": b"through", "away": b"no",
        ".git/config": b"no", ".evo/x": b"no", "../outside": b"no", "run": b"X", "x.log": b"no", "d": b"no",
    }  # fmt: skip
    for _ in range(2):
        shadow = await Shadow.open(ws, cache)
        tree = await shadow.snapshot(overlay)
        found = await files(shadow, tree)
        assert found == {
            ".gitignore": b"*.log\n.env\n", "a": b"A", "d/b": b"through", "kept.log": b"T", "run": b"X", "link": b"d/b",
            "away": b"/etc/hostname", "not/on/disk": b"N",
        }  # fmt: skip
        assert (await shadow.objects.list_tree(tree))["run"][1] == 0o100755
        assert await shadow.read_blob(tree, "a") == b"A"
        assert await shadow.read_blob(tree, "none") is None


async def test_a_second_snapshot_sees_what_has_changed_since(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1", "d/b": "2", "d/c": "3", "x/y": "4"})
    shadow = await Shadow.open(ws, cache)
    first = await shadow.snapshot()
    assert first == await shadow.snapshot()
    (ws / "d" / "b").unlink()
    (ws / "d" / "c").unlink()
    (ws / "d").rmdir()
    write(ws, {"d": "a file now", "x/new": "n", "a": "changed"})
    (ws / "x" / "y").unlink()
    (ws / "x" / "y").mkdir()
    write(ws, {"x/y/z": "a folder now"})
    expected = {"a": b"changed", "d": b"a file now", "x/new": b"n", "x/y/z": b"a folder now"}
    quick = await shadow.snapshot()
    assert await files(shadow, quick) == expected
    await shadow.settle()
    assert await shadow.snapshot() == quick
    # The trees that we write are those that git writes.
    git(ws, "add", "-A")
    assert git(ws, "write-tree").strip() == quick


async def test_the_users_repository_is_not_touched(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1", "b": "2"})
    write(ws, {"a": "changed", "new": "x"})

    def state() -> dict[str, tuple[int, int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_nlink, path.read_bytes())
            for path in sorted((ws / ".git").rglob("*"))
            if path.is_file()
        }

    before = state()
    await snapshot(ws, cache, {"b": b"unsaved"})
    assert state() == before


async def test_a_folder_inside_a_repository_obeys_the_rules_above_it(tmp_path: Path, cache: Path) -> None:
    top = make_repository(tmp_path / "top", {".gitignore": "*.log\n", "other/a": "1", "sub/b": "2", "sub/t.log": "t"})
    write(top, {"sub/x.log": "x", "sub/new": "n"})
    found = await snapshot(top / "sub", cache, {"b": b"B", "more/c": b"C"})
    assert found == {"b": b"B", "t.log": b"t", "new": b"n", "more/c": b"C"}


async def test_a_folder_that_the_repository_above_ignores_stands_for_itself(tmp_path: Path, cache: Path) -> None:
    top = make_repository(tmp_path / "top", {".gitignore": "*\n", "a": "1"})
    write(top, {"project/b": "2", "project/c/d": "3"})
    assert await snapshot(top / "project", cache) == {"b": b"2", "c/d": b"3"}


async def test_a_linked_worktree_and_a_submodule_borrow_from_their_repositories(tmp_path: Path, cache: Path) -> None:
    inner = make_repository(tmp_path / "inner", {"i": "1"})
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    git(ws, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    git(ws, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    linked = await Shadow.open(tmp_path / "linked", cache)
    assert linked.origin.objects == ws / ".git" / "objects"
    assert linked.origin.head()[1] is not None
    assert await files(linked, await linked.snapshot()) == {"a": b"1"}
    module = await Shadow.open(ws / "sub", tmp_path / "cache2")
    assert module.origin.objects == ws / ".git" / "modules" / "sub" / "objects"
    assert await files(module, await module.snapshot()) == {"i": b"1"}


async def test_a_git_file_that_names_a_strangers_repository_is_not_believed(tmp_path: Path, cache: Path) -> None:
    private = make_repository(tmp_path / "private", {"secret": "s"})
    for number, lure in enumerate(("file", "link", "worktree")):
        ws = tmp_path / f"ws{number}"
        write(ws, {"a": "1"})
        if lure == "link":
            (ws / ".git").symlink_to(private / ".git")
        else:
            (ws / ".git").write_text(f"gitdir: {private / '.git'}\n")
        shadow = await Shadow.open(ws, tmp_path / f"cache{number}")
        assert shadow.origin.objects is None
        assert shadow.origin.head() == (None, None)
        assert shadow.notices and "its history is left aside" in shadow.notices[0]
        assert await files(shadow, await shadow.snapshot()) == {"a": b"1"}


async def test_a_sha256_repository_works_the_same(tmp_path: Path, cache: Path) -> None:
    ws = tmp_path / "ws"
    ws.mkdir()
    git(ws, "init", "-q", "--object-format=sha256")
    write(ws, {"a": "1", "d/b": "2"})
    git(ws, "add", "-A")
    git(ws, "commit", "-q", "-m", "x")
    shadow = await Shadow.open(ws, cache)
    await shadow.snapshot()
    tree = await shadow.snapshot({"a": b"A"})
    assert len(tree) == 64
    assert await files(shadow, tree) == {"a": b"A", "d/b": b"2"}


async def test_the_users_gc_takes_nothing_away(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    write(ws, {"b": "only in the second commit"})
    git(ws, "add", "-A")
    git(ws, "commit", "-q", "-m", "second")
    shadow = await Shadow.open(ws, cache)
    first = await shadow.snapshot()
    await shadow.objects.keep([first])
    git(ws, "reset", "-q", "--hard", "HEAD~1")
    write(ws, {"b": "only in the second commit"})
    git(ws, "reflog", "expire", "--expire=now", "--all")
    git(ws, "gc", "-q", "--prune=now")
    assert (await files(shadow, first))["b"] == b"only in the second commit"
    again = await Shadow.open(ws, cache)
    assert await again.snapshot() == first


async def test_what_was_borrowed_and_is_gone_is_stored_anew(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {f"d{number}/f": f"{number}" for number in range(5)})
    shadow = await Shadow.open(ws, cache)
    await shadow.snapshot()
    git(ws, "checkout", "-q", "--orphan", "fresh")
    git(ws, "rm", "-rq", "--cached", ".")
    git(ws, "branch", "-q", "-D", "main")
    git(ws, "reflog", "expire", "--expire=now", "--all")
    git(ws, "gc", "-q", "--prune=now")
    write(ws, {"d0/f": "changed"})
    tree = await shadow.snapshot({"d1/f": b"unsaved"})
    expected = {f"d{number}/f": f"{number}".encode() for number in range(5)}
    assert await files(shadow, tree) == {**expected, "d0/f": b"changed", "d1/f": b"unsaved"}


async def test_the_cache_may_lie_in_the_workspace_and_may_be_cleared(tmp_path: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    cache = ws / "own [cache]"
    assert await snapshot(ws, cache) == {"a": b"1"}
    assert await snapshot(ws, cache) == {"a": b"1"}
    (cache / "shadow.git" / "selfloop-format").unlink()
    assert await snapshot(ws, cache) == {"a": b"1"}


async def test_a_lock_left_by_a_killed_git_is_no_obstacle(tmp_path: Path, cache: Path) -> None:
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    shadow = await Shadow.open(ws, cache)
    await shadow.snapshot()
    (cache / "shadow.git" / "workspace.index.lock").write_text("")
    write(ws, {"a": "2"})
    await shadow.settle()
    assert await files(shadow, await shadow.snapshot()) == {"a": b"2"}


async def test_no_git_is_said_plainly(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="git was not found on the PATH"):
        await Shadow.open(tmp_path, cache)
