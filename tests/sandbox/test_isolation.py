"""What the probe reports is what a canary found, on every kind of machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from selfloop.config import Settings
from selfloop.sandbox.isolation import probe

needs_jail = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


async def test_the_probe_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    assert (await probe()).level == "none"
    (tools / "git").symlink_to(shutil.which("git", path="/usr/bin:/bin:/usr/local/bin") or "/usr/bin/git")
    found = await probe()
    assert found.level == "changes" and "not installed" in found.detail
    # A jail that jails nothing is seen through.
    loose = 'while [ "$1" != -- ]; do [ "$1" = --bind ] && cd "$2"; shift; done; shift; exec "$@"'
    (tools / "bwrap").write_text(f"#!/bin/sh\n{loose}\n")
    (tools / "bwrap").chmod(0o755)
    found = await probe()
    assert found.level == "changes" and "read" in found.detail and "write" in found.detail and "tcp" in found.detail
    # One that cannot be started, too.
    (tools / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    found = await probe()
    assert found.level == "changes" and "No permissions" in found.detail
    assert (await probe(Settings(isolation="changes"))).level == "changes"


@needs_jail
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_what_killed_probes_have_left_is_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, age in (("selfloop-canary-old", 3600), ("selfloop-canary-new", 0), ("other", 3600)):
        (tmp_path / name / "work").mkdir(parents=True)
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    await probe()
    assert {path.name for path in tmp_path.iterdir()} == {"selfloop-canary-new", "other"}


def test_the_probe_is_honest_where_namespaces_are_forbidden() -> None:
    script = "import asyncio; from selfloop.sandbox.isolation import probe; print(asyncio.run(probe()))"
    outer = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--"]
    done = subprocess.run([*outer, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "level='changes'" in done.stdout, done.stdout + done.stderr
    assert "does not hold" in done.stdout


@needs_jail
def test_the_jail_holds_inside_another(tmp_path: Path) -> None:
    script = "import asyncio; from selfloop.sandbox.isolation import probe; print(asyncio.run(probe()))"
    outer = ["bwrap", "--dev-bind", "/", "/", "--unshare-all", "--proc", "/proc", "--"]
    done = subprocess.run([*outer, sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "level='process'" in done.stdout, done.stdout + done.stderr


@needs_jail
def test_where_no_proc_can_be_mounted_the_jail_does_without_and_says_so() -> None:
    """A container's /proc has parts masked; then the kernel lets nobody inside mount a whole one."""
    script = "import asyncio; from selfloop.sandbox.isolation import probe; print(asyncio.run(probe()))"
    masked = 'mount -t proc proc /proc && mount -t tmpfs none /proc/sys && exec "$0" -c "$1"'
    command = ["unshare", "-Umr", "--pid", "--fork", "sh", "-c", masked, sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "/proc is empty" in done.stdout or "level='changes'" in done.stdout, done.stdout + done.stderr
    assert "--proc" not in done.stdout
