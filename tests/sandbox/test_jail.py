"""A jailed command reaches its worktree and nothing else, and nothing of it outlives it."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from repositories import make_repository, write
from selfloop.errors import SandboxError
from selfloop.sandbox import jail
from selfloop.sandbox.isolation import Isolation, probe
from selfloop.sandbox.jail import CommandResult
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow
from selfloop.sandbox.worktree import Worktree

needs_jail = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
CHANGES = Isolation("changes", "as the test wants it")
Run = Callable[..., Awaitable[CommandResult]]


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    ws = make_repository(
        tmp_path / "home" / "ws",
        {
            "a.txt": "one\n",
            "conftest.py": "",
            "sub/package.json": "{}",
            ".env.test": "KEY=tracked",
            ".gitignore": ".env\n",
        },
    )
    write(ws, {".env": "KEY=secret"})
    return ws


@pytest.fixture
async def worktree(ws: Path, tmp_path: Path) -> AsyncIterator[Worktree]:
    pool = Pool(await Shadow.open(ws, tmp_path / "cache"), tmp_path / "cache")
    yield await pool.acquire()
    await pool.close()


@pytest.fixture(params=["process", "changes"])
async def isolation(request: pytest.FixtureRequest) -> Isolation:
    if request.param == "changes":
        return CHANGES
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    return await probe()


@pytest.fixture
def run(worktree: Worktree, ws: Path, tmp_path: Path) -> Run:
    async def run(command: str, isolation: Isolation, *, seconds: float = 30, network: bool = False) -> CommandResult:
        return await jail.run(
            command, worktree=worktree, workspace=ws, isolation=isolation, timeout_seconds=seconds, network=network,
            spill=tmp_path / "out" / "spill.txt",
        )  # fmt: skip

    return run


def marked(word: str) -> list[str]:
    """Return the processes whose command line holds a word."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if word.encode() in (folder / "cmdline").read_bytes():
                    found.append(folder.name)
            except OSError:
                continue
    return found


async def test_a_command_works_in_the_worktree(run: Run, worktree: Worktree, ws: Path, isolation: Isolation) -> None:
    result = await run("cat a.txt; echo two >> a.txt; echo oops >&2; exit 3", isolation)
    assert (result.exit_code, result.output, result.truncated) == (3, "one\noops\n", False)
    assert (worktree.path / "a.txt").read_text() == "one\ntwo\n"
    assert (ws / "a.txt").read_text() == "one\n"
    assert [change.path for change in await worktree.changes()] == ["a.txt"]


async def test_the_environment_holds_nothing_of_the_servers(
    run: Run, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-very-secret")
    monkeypatch.setenv("BASH_ENV", "/tmp/evil")
    everything = "env; cat /proc/self/environ /proc/1/environ /proc/$PPID/environ 2>/dev/null"
    result = await run(f"{everything} | tr '\\0' '\\n'", isolation)
    if isolation.level == "process":
        assert "sk-very-secret" not in result.output
    assert "sk-very-secret" not in (await run("env", isolation)).output
    assert "BASH_ENV" not in result.output


@needs_jail
async def test_the_jail_refuses_every_way_out(
    run: Run, ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"home/.ssh/id_rsa": "SECRET", "outside/secret": "SECRET", "home/other/x": "SECRET"})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (ws / ".git" / "marker-hook").write_text("SECRET")
    jailed = await probe()
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(os.path.relpath(tmp_path / "sock"))
        abstract.bind(f"\0selfloop-test-{os.getpid()}")
        for listener in (tcp, unix, abstract):
            listener.listen()
            listener.setblocking(False)
        port = tcp.getsockname()[1]
        out = tmp_path / "outside"
        python = "import socket; s = socket.socket(socket.AF_UNIX); s.connect"
        attempts = [
            f"cat {out}/secret", f"cat {tmp_path}/home/.ssh/id_rsa", f"ls {tmp_path}/home/other", "cat /etc/shadow",
            f"echo x > {out}/new", "cat .env && exit 0 || exit 1", "cat .git/marker-hook", "ls /root/.ssh",
            f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 2)'",
            f"echo x > /dev/tcp/127.0.0.1/{port}", "echo x > .git/hooks/pre-commit", "mkdir -p .git/hooks/x",
            f"python3 -c '{python}(\"{tmp_path}/sock\")'",
            f"python3 -c '{python}(\"\\0selfloop-test-{os.getpid()}\")'",
            f"kill -0 {os.getpid()}", f"ls /proc/{os.getpid()}/", "mount -t tmpfs none /mnt", "unshare -Ur true",
            "echo x > /usr/x", "echo x > /etc/x", "echo x > /x", "mknod dev c 1 3 && cat dev", "echo x > conftest.py",
            "echo x > sub/package.json", "rm -f conftest.py", "mv conftest.py x.py", "chroot / true",
        ]  # fmt: skip
        for attempt in attempts:
            result = await run(f"( {attempt} ) 2>/dev/null", jailed)
            assert result.exit_code != 0, attempt
            assert "SECRET" not in result.output, attempt
        for listener in (tcp, unix, abstract):
            with pytest.raises(BlockingIOError):
                listener.accept()
        # With the network, which the user was asked about, the listener is reached: the attempt itself is sound.
        assert (await run(f"echo x > /dev/tcp/127.0.0.1/{port}", jailed, network=True)).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["secret"]
    await run(f"touch {ws}/../escaped {tmp_path}/escaped; rm -rf {tmp_path}/outside {ws.parent}/other", jailed)
    assert not (ws.parent / "escaped").exists() and not (tmp_path / "escaped").exists()
    assert (out / "secret").exists() and (ws.parent / "other" / "x").exists()
    assert (await run("cat .env.test", jailed)).output == ""


@needs_jail
async def test_git_tells_inside_what_the_agent_has_changed(run: Run, ws: Path, worktree: Worktree) -> None:
    jailed = await probe()
    await run("echo two >> a.txt", jailed)
    result = await run("git status --short; git diff; git log --format=%s; git show HEAD:a.txt", jailed)
    assert " M a.txt\n" in result.output
    assert "+two\n" in result.output
    assert "first\none\n" in result.output
    assert (await run("git add a.txt", jailed)).exit_code != 0
    assert (await run("git cat-file --batch-all-objects --batch-check", jailed)).exit_code == 0


@needs_jail
async def test_pytest_of_a_projects_own_environment_runs(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        ".gitignore": ".venv/\n",
        "app.py": "def f():\n    return 41\n",
        "tests/test_app.py": "import app\n\n\ndef test_f():\n    assert app.f() == 42\n",
        "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['.']\n",
    }
    ws = make_repository(tmp_path / "ws", files)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(ws / ".venv")], check=True)
    (packages,) = (ws / ".venv" / "lib").glob("python3.*/site-packages")
    for name in ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        source = Path(str(__import__(name).__file__)).parent
        shutil.copytree(source, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(str(__import__("py").__file__), packages / "py.py")
    script = ws / ".venv" / "bin" / "pytest"
    script.write_text(f"#!{ws}/.venv/bin/python\nimport sys, pytest\nsys.exit(pytest.console_main())\n")
    script.chmod(0o755)
    pool = Pool(await Shadow.open(ws, tmp_path / "cache"), tmp_path / "cache", size=0)
    worktree = await pool.acquire()
    jailed = await probe()

    async def test() -> CommandResult:
        return await jail.run(
            "pytest -q", worktree=worktree, workspace=ws, isolation=jailed, timeout_seconds=60, network=False,
            spill=tmp_path / "spill",
        )  # fmt: skip

    failed = await test()
    assert failed.exit_code == 1 and "assert 41 == 42" in failed.output, failed.output
    worktree.door.write_bytes("app.py", b"def f():\n    return 42\n")
    passed = await test()
    assert passed.exit_code == 0 and "1 passed" in passed.output, passed.output
    assert [change.path for change in await worktree.changes()] == ["app.py"]
    await pool.close()


@needs_jail
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
async def test_npm_test_of_a_project_runs(tmp_path: Path) -> None:
    ws = make_repository(tmp_path / "ws", {
        ".gitignore": "node_modules/\n", "package.json": '{"name": "x", "scripts": {"test": "node test.js"}}',
        "test.js": "require('assert').equal(require('dep'), 42); console.log('fine')\n",
    })  # fmt: skip
    write(ws, {"node_modules/dep/index.js": "module.exports = 42\n"})
    pool = Pool(await Shadow.open(ws, tmp_path / "cache"), tmp_path / "cache", size=0)
    worktree = await pool.acquire()
    result = await jail.run(
        "npm test && ! touch node_modules/dep/x", worktree=worktree, workspace=ws, isolation=await probe(),
        timeout_seconds=60, network=False, spill=tmp_path / "spill",
    )  # fmt: skip
    assert result.exit_code == 0 and "fine" in result.output, result.output
    assert await worktree.changes() == []
    await pool.close()


@needs_jail
async def test_a_hostile_environment_folder_shows_nothing_of_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    write(home, {".ssh/id_rsa": "SECRET", "bin/python3": "x", "lib/python3.11/os.py": "x"})
    monkeypatch.setenv("HOME", str(home))
    ws = make_repository(tmp_path / "ws", {"a": "1"})
    write(ws, {".venv/pyvenv.cfg": f"home = {home}/bin\n", ".venv/bin/x": ""})
    (ws / ".venv" / "bin" / "python").symlink_to(home / "bin" / "python3")
    (ws / "node_modules").symlink_to(home)
    pool = Pool(await Shadow.open(ws, tmp_path / "cache"), tmp_path / "cache", size=0)
    result = await jail.run(
        f"cat {home}/.ssh/id_rsa node_modules/.ssh/id_rsa", worktree=await pool.acquire(), workspace=ws,
        isolation=await probe(), timeout_seconds=20, network=False, spill=tmp_path / "spill",
    )  # fmt: skip
    assert result.exit_code != 0 and "SECRET" not in result.output
    await pool.close()


async def test_background_children_die_with_the_command(run: Run, isolation: Isolation) -> None:
    word = f"3{os.getpid()}.5"
    started = time.monotonic()
    result = await run(
        f"sleep {word} & (setsid sleep {word} &) ; "
        f"nohup sh -c 'trap \"\" TERM HUP; (sleep {word} &) ; sleep {word}' & echo done",
        isolation,
    )
    assert (result.exit_code, "done" in result.output) == (0, True)
    assert time.monotonic() - started < 5
    assert marked(f"sleep\0{word}") == []


async def test_a_deadline_ends_everything(run: Run, isolation: Isolation) -> None:
    word = f"4{os.getpid()}.5"
    result = await run(f"echo begun; trap '' TERM; (setsid sleep {word} &); sleep {word}", isolation, seconds=1)
    assert (result.exit_code, result.timed_out, result.output) == (None, True, "begun\n")
    assert result.seconds < 3.5
    assert marked(f"sleep\0{word}") == []


async def test_cancelling_ends_everything_within_two_seconds(run: Run, isolation: Isolation) -> None:
    word = f"5{os.getpid()}.5"
    task = asyncio.create_task(run(f"trap '' TERM; (setsid sleep {word} &); sleep {word}", isolation))
    for _ in range(200):
        await asyncio.sleep(0.05)
        if len(marked(f"sleep\0{word}")) >= 2:
            break
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 2
    assert marked(f"sleep\0{word}") == []


async def test_a_killed_server_leaves_no_command_behind(tmp_path: Path, isolation: Isolation, ws: Path) -> None:
    word = f"6{os.getpid()}.5"
    script = f"""
import asyncio, sys
from pathlib import Path
from selfloop.sandbox import jail
from selfloop.sandbox.isolation import Isolation
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow
async def main():
    cache = Path({str(tmp_path / "cache3")!r})
    pool = Pool(await Shadow.open(Path({str(ws)!r}), cache), cache, size=0)
    await jail.run("(setsid sleep {word} &); sleep {word}", worktree=await pool.acquire(), workspace=Path({str(ws)!r}),
                   isolation=Isolation({isolation.level!r}, "", {isolation.flags!r}), timeout_seconds=60, network=False,
                   spill=cache / "spill")
asyncio.run(main())
"""
    server = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 20
        while len(marked(f"sleep\0{word}")) < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert marked(f"sleep\0{word}")
    finally:
        server.kill()
        server.wait()
    deadline = time.monotonic() + 2
    while marked(f"sleep\0{word}") and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert marked(f"sleep\0{word}") == []


async def test_long_output_is_cut_in_the_middle_and_kept_in_a_file(
    run: Run, isolation: Isolation, tmp_path: Path
) -> None:
    result = await run("echo FIRST; seq 100000; echo LÄST", isolation)
    assert result.output.startswith("FIRST\n1\n") and result.output.endswith("100000\nLÄST\n")
    assert result.truncated and len(result.output) < 10_100 and "bytes left out here" in result.output
    assert result.spilled == tmp_path / "out" / "spill.txt"
    assert result.spilled.read_text() == "FIRST\n" + "".join(f"{n}\n" for n in range(1, 100001)) + "LÄST\n"
    short = await run("printf 'a\\377b'", isolation)
    assert (short.output, short.truncated) == ("a\ufffdb", False)


@pytest.mark.slow
async def test_a_gigabyte_of_output_takes_no_memory(run: Run, isolation: Isolation) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = await run("head -c 1073741824 /dev/zero | tr '\\0' x; echo END", isolation, seconds=100)
    assert result.exit_code == 0 and result.output.endswith("END\n")
    assert result.spilled is not None and result.spilled.stat().st_size < 65 << 20
    assert b"bytes were not kept" in result.spilled.read_bytes()[-100:]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@needs_jail
@pytest.mark.slow
async def test_a_fork_bomb_is_held_and_ended(run: Run) -> None:
    result = await run("bomb() { bomb | bomb & }; bomb; sleep 30", await probe(), seconds=3)
    assert result.timed_out or result.exit_code is not None
    assert result.seconds < 15
    assert subprocess.run(["true"], check=True).returncode == 0
    assert marked("bomb") == []


async def test_a_stranger_in_the_repository_is_not_run_unasked(run: Run, ws: Path, tmp_path: Path) -> None:
    write(ws, {".venv/pyvenv.cfg": "", ".venv/bin/nl": f"#!/bin/sh\ntouch {tmp_path}/MARKER\n"})
    (ws / ".venv" / "bin" / "nl").chmod(0o755)
    result = await run("nl a.txt", CHANGES)
    assert (result.exit_code, result.output.split()) == (0, ["1", "one"])
    assert not (tmp_path / "MARKER").exists()


async def test_without_any_isolation_nothing_runs(run: Run) -> None:
    with pytest.raises(SandboxError, match="No command runs here"):
        await run("true", Isolation("none", "There is no git."))
    with pytest.raises(SandboxError, match="NUL"):
        await run("true\0", CHANGES)
