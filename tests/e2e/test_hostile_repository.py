"""A repository whose configuration, attributes, hooks and files would run code: opened, worked in, and none has run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hostile_room import Attack, hostile
from lsp_client import LspClient
from model_server import ModelServer
from scene import Starter, environment_for, git

HOOKS = (
    "applypatch-msg commit-msg fsmonitor-watchman post-applypatch post-checkout post-commit post-index-change "
    "post-merge post-receive post-rewrite post-update pre-applypatch pre-auto-gc pre-commit pre-merge-commit pre-push "
    "pre-rebase pre-receive prepare-commit-msg proc-receive push-to-checkout reference-transaction "
    "sendemail-validate update"
).split()
RAN = "EVIL-RAN"
LOOKS = (
    "git status",
    "git diff",
    "git log -p --stat -3",
    "git show HEAD",
    "git diff --stat HEAD; git blame greet.py; git ls-files -s; git branch -a; git stash list",
    "git submodule status; git submodule foreach true; git config -l",
    "cd nested && git status; cd ../bare && git log; cd ../linked && git status; cd ../pointed && git diff",
    "git add -A; git commit -m x; git checkout -- greet.py; git gc; git fetch; git push",
)
EDITED = "def greet(name):\n    return f'Hello {name}'\n"


class Trap:
    """Commands that leave a mark when they are run."""

    def __init__(self, folder: Path) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True)
        self._programs = folder / "programs"
        self._programs.mkdir()

    def program(self, name: str) -> str:
        """Return the path of a program that leaves the mark `name`."""
        path = self._programs / name
        path.write_text(f"#!/bin/sh\necho {RAN} {name} >&2\ntouch '{self.marks}/{name}'\nexec cat\n")
        path.chmod(0o755)
        return str(path)

    def sprung(self) -> list[str]:
        """Return the marks that were left."""
        return sorted(mark.name for mark in self.marks.iterdir())


def configuration(trap: Trap, place: str) -> str:
    """Return a git configuration in which everything that can be a command is one."""

    def of(name: str) -> str:
        return trap.program(f"{place}-{name}")

    return f"""
[core]
	fsmonitor = {of("fsmonitor")}
	hooksPath = {of("hooksPath")}.d
	pager = {of("pager")}
	editor = {of("editor")}
	sshCommand = {of("ssh")}
	gitProxy = {of("proxy")}
	askPass = {of("askpass")}
	alternateRefsCommand = {of("alternates")}
	untrackedCache = true
[alias]
	status = !{of("alias-status")}
	diff = !{of("alias-diff")}
	log = !{of("alias-log")}
[diff]
	external = {of("diff-external")}
[diff "evil"]
	command = {of("diff-command")}
	textconv = {of("textconv")}
	cachetextconv = true
[filter "evil"]
	clean = {of("clean")}
	smudge = {of("smudge")}
	required = true
[filter "long"]
	process = {of("process")}
	required = true
[filter "lfs"]
	clean = {of("lfs-clean")}
	smudge = {of("lfs-smudge")}
	process = {of("lfs-process")}
	required = true
[merge "evil"]
	driver = {of("merge-driver")}
[gpg]
	program = {of("gpg")}
[gpg "ssh"]
	program = {of("gpg-ssh")}
[log]
	showSignature = true
[commit]
	gpgSign = true
[credential]
	helper = !{of("credential")}
[pager]
	status = {of("pager-status")}
	diff = {of("pager-diff")}
	log = {of("pager-log")}
[interactive]
	diffFilter = {of("diff-filter")}
[sequence]
	editor = {of("sequence")}
[uploadpack]
	packObjectsHook = {of("pack-objects")}
[trailer "x"]
	command = {of("trailer")}
[protocol]
	allow = always
[protocol "ext"]
	allow = always
[remote "origin"]
	url = ext::{of("remote")}
	promisor = true
	partialclonefilter = blob:none
	fetch = +refs/heads/*:refs/remotes/origin/*
	vcs = evil
[extensions]
	partialClone = origin
[submodule "module"]
	url = ext::{of("submodule")}
	active = true
	update = !{of("submodule-update")}
[include]
	path = ../included
[includeIf "gitdir:/**"]
	path = ../included
"""


def arm_git_dir(trap: Trap, git_dir: Path, place: str) -> None:
    """Put commands wherever a git folder may name any."""
    with (git_dir / "config").open("a") as file:
        file.write(configuration(trap, place))
    (git_dir / "hooks").mkdir(exist_ok=True)
    for name in HOOKS:
        hook = git_dir / "hooks" / name
        hook.write_text(Path(trap.program(f"{place}-hook-{name}")).read_text())
        hook.chmod(0o755)
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text("* filter=evil diff=evil merge=evil\n")


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


@pytest.fixture
def repository(workspace: Path, trap: Trap) -> Path:
    """The small repository, turned hostile after its first commit."""
    (workspace / "greet.py").write_text("def greet(name):\n    return 'Hello ' + name\n")
    (workspace / ".gitattributes").write_text(
        "* filter=evil diff=evil merge=evil\n*.md filter=long ident\n*.bin filter=lfs -text\n*.py eol=crlf text\n"
    )
    (workspace / ".gitmodules").write_text(
        f'[submodule "module"]\n\tpath = module\n\turl = ext::{trap.program("gitmodules")}\n'
        f"\tupdate = !{trap.program('gitmodules-update')}\n"
    )
    (workspace / "included").write_text(f"[core]\n\tfsmonitor = {trap.program('included')}\n")
    (workspace / "big.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    for name in ("nested", "module"):
        folder = workspace / name
        folder.mkdir()
        git(folder, "init", "-q")
        (folder / "inner.py").write_text("x = 1\n")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "inner")
        (folder / "inner.py").write_text("x = 2\n")
    git(workspace, "add", ".gitattributes", ".gitmodules", "included", "big.bin", "greet.py", "nested", "module")
    git(workspace, "commit", "-qm", "second")
    for name in ("nested", "module"):
        arm_git_dir(trap, workspace / name / ".git", name)
    # A folder that git takes for a bare repository, a `.git` file, and a link: each names a configuration.
    bare = workspace / "bare"
    bare.mkdir()
    git(bare, "init", "-q", "--bare")
    arm_git_dir(trap, bare, "bare")
    for name, target in (("linked", "../bare"), ("pointed", "../nested/.git")):
        (workspace / name).mkdir()
        (workspace / name / "file.py").write_text("y = 1\n")
        if name == "pointed":
            (workspace / name / ".git").write_text(f"gitdir: {target}\n")
        else:
            (workspace / name / ".git").symlink_to(target)
    arm_git_dir(trap, workspace / ".git", "own")
    (workspace / ".git" / "config.worktree").write_text(configuration(trap, "worktree"))
    (workspace / "README.md").write_text("# Changed, so that filters would run\n")
    # Programs, modules and settings that bear the names of what is started or loaded.
    for name in ("git", "rg", "bwrap", "python", "python3", "sh", "bash", "node"):
        program = workspace / name
        program.write_text(Path(trap.program(f"program-{name}")).read_text())
        program.chmod(0o755)
    module = f"import pathlib\npathlib.Path({str(trap.marks)!r}, 'module-' + __name__).touch()\n"
    for name in ("json", "selfloop", "sitecustomize", "usercustomize", "litellm", "msgspec", "asyncio", "pygls"):
        (workspace / f"{name}.py").write_text(module)
    (workspace / "evil.pth").write_text(f"import os; os.system('touch {trap.marks}/pth')\n")
    (workspace / ".envrc").write_text(f"touch {trap.marks}/envrc\n")
    return workspace


@pytest.mark.parametrize("isolation", ["auto", "changes"])
async def test_nothing_that_a_repository_names_is_run(
    start: Starter, repository: Path, trap: Trap, tmp_path: Path, model: ModelServer, isolation: str
) -> None:
    person = tmp_path / "person"
    person.mkdir()
    (person / ".gitconfig").write_text(configuration(trap, "user"))
    client = await start(repository, env={"HOME": str(person)}, settings={"isolation": isolation})
    attack = Attack(client, model)
    session = await attack.session()
    async with attack.answering("approve") as asked:
        done = await attack.turn(
            [
                hostile("read_file", "read", path="greet.py"),
                hostile("edit_file", "edit", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
                hostile("write_file", "new", path="docs/new.md", content="# New\n"),
                hostile("write_file", "bin", path="other.bin", content="text\n"),
                hostile("search", "search", pattern="Hello"),
                *(hostile("shell", f"look{n}", command=command) for n, command in enumerate(LOOKS)),
            ],
            session=session,
        )
    assert not any(done.failed[name] for name in ("read", "edit", "new", "bin", "search"))
    assert len(asked) == (len(LOOKS) if isolation == "changes" else 0)
    assert RAN not in attack.outputs(), "not even inside the jail"
    await client.request("selfloop/changes/read", {"sessionId": session})
    read = await attack.gate(session)
    assert read is not None
    assert {Path(file["uri"]).name for file in read["files"]} == {"greet.py", "new.md", "other.bin"}
    assert (await attack.approve(session))["conflicts"] == []
    assert (repository / "greet.py").read_bytes() == EDITED.encode(), "bytes stay bytes, whatever attributes say"
    undone = await client.request("selfloop/change/undo", {"gateId": read["gate"]["gateId"]})
    assert undone["conflicts"] == [] and "+ name" in (repository / "greet.py").read_text()
    assert not (repository / "docs").exists() or not list((repository / "docs").iterdir())
    assert trap.sprung() == []


async def test_a_path_that_begins_in_the_workspace_starts_nothing_of_it(
    repository: Path, trap: Trap, model: ModelServer
) -> None:
    """An empty or relative entry of the PATH means the current folder, which is the repository."""
    program = Path(sys.executable).parent / "selfloop"
    env = {**environment_for(model), "PATH": f".::{repository}/bin:relative:{os.environ['PATH']}"}
    client = await LspClient.start(str(program), "serve", env=env, cwd=repository)
    try:
        await client.initialize(repository)
        attack = Attack(client, model)
        done = await attack.turn(
            [
                hostile("shell", "shell", command="echo hello"),
                hostile("search", "search", pattern="Hello"),
                hostile("edit_file", "edit", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            ]
        )
        assert not any(done.failed.values()), done
        assert (await attack.approve())["conflicts"] == []
    finally:
        await client.close()
    assert trap.sprung() == []


async def test_a_git_file_that_names_another_repository_is_not_believed(
    start: Starter, tmp_path: Path, model: ModelServer
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    git(private, "init", "-q", "-b", "main")
    (private / "plans.txt").write_text("private-plans-of-another-project\n")
    git(private, "add", ".")
    git(private, "commit", "-qm", "private-subject-of-another-project")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a\n")
    (folder / ".git").write_text(f"gitdir: {private}/.git\n")
    before = {path: path.read_bytes() for path in private.rglob("*") if path.is_file()}
    attack = Attack(await start(folder), model)
    await attack.turn(
        [
            hostile("shell", "log", command="git log -p; git show HEAD:plans.txt; git status; cat .git/HEAD"),
            hostile("list_files", "list"),
            hostile("write_file", "new", path="b.txt", content="b\n"),
        ]
    )
    assert "of-another-project" not in attack.heard()
    assert (await attack.approve())["conflicts"] == []
    assert (folder / "b.txt").read_text() == "b\n"
    assert {path: path.read_bytes() for path in private.rglob("*") if path.is_file()} == before


async def test_alternates_do_not_lend_the_agent_another_repository(
    start: Starter, workspace: Path, tmp_path: Path, model: ModelServer
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    git(private, "init", "-q", "-b", "main")
    (private / "plans.txt").write_text("private-plans-of-another-project\n")
    git(private, "add", ".")
    git(private, "commit", "-qm", "private-subject-of-another-project")
    commit = git(private, "rev-parse", "HEAD").strip()
    (workspace / ".git" / "objects" / "info" / "alternates").write_text(f"{private}/.git/objects\n")
    (workspace / ".git" / "refs" / "heads" / "main").write_text(commit + "\n")
    attack = Attack(await start(), model)
    await attack.turn(
        [hostile("shell", "log", command=f"git log -p; git show {commit}:plans.txt; git cat-file -p {commit}")]
    )
    assert "of-another-project" not in attack.heard()
