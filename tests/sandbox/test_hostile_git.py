"""Nothing that a repository's configuration names is ever run: each vector would touch a marker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repositories import git, make_repository, write
from selfloop.sandbox.git import distrust, find_program
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow

HOOKS = (
    "pre-commit", "post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman", "post-merge",
    "pre-auto-gc", "post-rewrite", "pre-applypatch", "prepare-commit-msg",
)  # fmt: skip


PROGRAMS = """
    core.fsmonitor core.pager core.editor core.sshCommand core.askPass core.gitProxy core.alternateRefsCommand
    diff.external diff.evil.textconv diff.evil.command filter.evil.clean filter.evil.smudge filter.evil.process
    merge.evil.driver
    credential.helper gpg.program uploadpack.packObjectsHook alias.status alias.diff-files alias.ls-files
    sequence.editor interactive.diffFilter submodule.sub.update remote.origin.url
"""


def booby_trap(ws: Path, marker: Path) -> None:
    """Fill a repository's configuration with everything that git might run."""
    run = f"sh -c 'touch {marker}; cat'"
    settings = {
        **dict.fromkeys(PROGRAMS.split(), run),
        "core.hooksPath": str(ws / "hooks"),
        "core.attributesFile": str(ws / "attrs"),
        "core.untrackedCache": "true",
        "core.splitIndex": "true",
        "filter.evil.required": "true",
        "log.showSignature": "true",
        "status.submoduleSummary": "true",
        "diff.submodule": "log",
        "submodule.recurse": "true",
        "trace2.eventTarget": str(marker),
        "include.path": str(ws / "included"),
        "includeIf.gitdir:/.path": str(ws / "included"),
    }
    with (ws / ".git" / "config").open("a") as file:
        for key, value in settings.items():
            section, _, name = key.rpartition(".")
            head, _, sub = section.partition(".")
            title = f'[{head} "{sub}"]' if sub else f"[{head}]"
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            file.write(f'{title}\n\t{name} = "{escaped}"\n')
    drivers = "* filter=evil diff=evil merge=evil"
    files: dict[str, str | bytes] = {
        "included": f'[core]\n\tfsmonitor = "touch {marker}"\n[filter "evil"]\n\tclean = "touch {marker}; cat"\n',
        "attrs": f"{drivers}\n",
        ".git/info/attributes": f"{drivers}\n",
        ".gitattributes": f"{drivers} text eol=crlf ident\n",
        ".git/config.worktree": f"[core]\n\tfsmonitor = touch {marker}\n",
    }
    write(ws, files)
    for folder in (ws / "hooks", ws / ".git" / "hooks"):
        folder.mkdir(exist_ok=True)
        for name in HOOKS:
            hook = folder / name
            hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
            hook.chmod(0o755)


@pytest.mark.parametrize("command", [("status",), ("diff",), ("add", "."), ("commit", "-aqm", "x")])
def test_the_traps_are_live_for_plain_git(tmp_path: Path, command: tuple[str, ...]) -> None:
    ws = make_repository(tmp_path / "ws", {"a.txt": "one\n"})
    booby_trap(ws, tmp_path / "MARKER")
    write(ws, {"a.txt": "two\n"})
    git(ws, *command, check=False)
    assert (tmp_path / "MARKER").exists()


@pytest.mark.parametrize("kind", ["plain", "submodule", "nested", "linked", "sub folder"])
async def test_a_hostile_repository_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    marker = tmp_path / "MARKER"
    ws = make_repository(tmp_path / "ws", {"a.txt": "one\n$Id$\n", "d/b.txt": "two\n", "d/c.txt": "three\n"})
    inner = make_repository(tmp_path / "inner", {"i.txt": "inner\n"})
    if kind == "submodule":
        git(ws, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
        git(ws, "commit", "-qm", "sub")
        booby_trap_module = ws / ".git" / "modules" / "sub"
        booby_trap(ws / "sub" if (ws / "sub" / ".git").is_dir() else _as_plain(ws / "sub", booby_trap_module), marker)
        write(ws, {"sub/i.txt": "changed\n"})
    if kind == "nested":
        nested = make_repository(ws / "nested", {"n.txt": "n\n"})
        booby_trap(nested, marker)
        write(nested, {"n.txt": "changed\n"})
    workspace = ws
    if kind == "linked":
        workspace = tmp_path / "linked"
        git(ws, "worktree", "add", "-q", "--detach", str(workspace))
    booby_trap(ws, marker)
    if kind == "sub folder":
        workspace = ws / "d"
    # The user's own configuration and environment are no better.
    home = tmp_path / "owner"
    write(home, {".gitconfig": f"[core]\n\tfsmonitor = touch {marker}\n\tpager = touch {marker}\n"})
    monkeypatch.setenv("HOME", str(home))
    for name in ("GIT_EXTERNAL_DIFF", "GIT_PAGER", "GIT_EDITOR", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_PROXY_COMMAND"):
        monkeypatch.setenv(name, f"touch {marker}")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"touch {marker}")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor'='touch {marker}'")
    monkeypatch.setenv("GIT_DIR", str(ws / ".git"))
    monkeypatch.setenv("GIT_TRACE2", str(marker))
    monkeypatch.setenv("GIT_TRACE", str(marker))

    changed = "b.txt" if kind == "sub folder" else "d/b.txt"
    write(workspace, {changed: "changed\r\n", "new.txt": "new\n"})
    pool = Pool(await Shadow.open(workspace, tmp_path / "cache"), tmp_path / "cache")
    first = await pool.acquire({changed: b"unsaved\n"})
    await pool.settle()
    second = await pool.acquire()
    (first.path / changed).write_text("mine\nunsaved\n")
    write(first.path, {"sub/.git/config": "[core]\n\tfsmonitor = touch x\n"})
    await first.changes()
    write(workspace, {changed: "unsaved\nuser\n"})
    await first.sync({changed: b"unsaved\nuser\n"})
    assert {change.path for change in await first.changes()} <= {changed, "sub"}
    await pool.release(second)
    await pool.settle()
    await pool.close()
    assert not marker.exists()


def _as_plain(work_tree: Path, git_dir: Path) -> Path:
    """Give a submodule its repository as a folder of its own, which is the worse case."""
    (work_tree / ".git").unlink()
    os.rename(git_dir, work_tree / ".git")
    return work_tree


def test_no_program_of_ours_is_taken_from_a_folder_that_is_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "project" / ".venv" / "bin"
    planted.mkdir(parents=True)
    (planted / "git").write_text("#!/bin/sh\ntouch /tmp/planted\n")
    (planted / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{planted}{os.pathsep}{os.environ['PATH']}")
    assert find_program("git") == str(planted / "git"), "the test's own premise"
    distrust(tmp_path / "project")
    found = find_program("git")
    assert found is not None and not found.startswith(str(tmp_path))
