"""`selfloop trust` and what else needs no server, as child processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfloop.storage.trust import TrustList
from terminal import selfloop


def test_a_folder_is_trusted_and_no_longer(own_home: Path, workspace: Path) -> None:
    trusted = TrustList(own_home / "data")
    assert not trusted.is_trusted(workspace)
    assert selfloop("trust", workspace).returncode == 0
    assert trusted.is_trusted(workspace)
    assert json.loads(selfloop("trust", "--list", "--json").stdout) == {"trusted": [str(workspace)]}
    assert selfloop("trust", workspace, "--remove").returncode == 0
    assert not trusted.is_trusted(workspace)


def test_the_current_folder_is_meant_when_none_is_named(own_home: Path, workspace: Path) -> None:
    assert selfloop("trust", cwd=workspace).returncode == 0
    assert TrustList(own_home / "data").is_trusted(workspace)


@pytest.mark.parametrize(
    "arguments", [["trust", "missing"], ["trust", "--remove", "."], ["gate", "list", "-C", "missing"]]
)
def test_a_failure_is_one_plain_sentence(workspace: Path, arguments: list[str]) -> None:
    done = selfloop(*arguments, cwd=workspace)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert "so nothing was" in done.stderr


def test_chat_explains_an_untrusted_folder_and_starts_nothing(workspace: Path) -> None:
    done = selfloop("chat", workspace)
    assert done.returncode == 1
    assert "not trusted yet" in done.stderr and f"selfloop trust {workspace}" in done.stderr
    assert not (workspace / ".evo").exists()


def test_the_version_and_the_help_are_told_quickly() -> None:
    started = time.monotonic()
    assert selfloop("--version").stdout.startswith("selfloop ")
    listing = selfloop("--help").stdout
    assert all(name in listing for name in ("chat", "gate", "session", "trust", "status", "doctor", "demo", "serve"))
    assert time.monotonic() - started < 10  # Two interpreters; a heavy import would be seen in the test below.


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, selfloop.cli.main as main\n"
        "assert not {'asyncio', 'rich', 'prompt_toolkit', 'litellm', 'msgspec', 'lsprotocol'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_module_in_the_current_folder_is_not_imported(workspace: Path) -> None:
    """The terminal starts its server from a folder that may be hostile."""
    for name in ("selfloop.py", "msgspec.py", "sitecustomize.py"):
        (workspace / name).write_text("open('imported', 'w')\n")
    executable = Path(sys.executable).with_name("selfloop")
    subprocess.run([executable, "status"], cwd=workspace, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert not (workspace / "imported").exists()


def test_a_hostile_folder_name_does_nothing_to_the_terminal(workspace: Path) -> None:
    folder = workspace / "a\x1b[2J\u202eb"
    folder.mkdir()
    done = selfloop("trust", folder)
    assert done.returncode == 0
    assert "a‹U+001B›[2J‹U+202E›b is trusted" in done.stdout
    assert "\x1b" not in selfloop("chat", workspace / "b\x1b[2J").stderr


def test_closed_streams_are_no_reason_to_fail(workspace: Path) -> None:
    selfloop("trust", workspace)
    command = f"{sys.executable} -P -m selfloop chat <&- >&-"
    done = subprocess.run(command, shell=True, cwd=workspace, stderr=subprocess.PIPE, text=True, timeout=60)  # noqa: S602
    assert (done.returncode, done.stderr) == (0, "")


def test_serve_has_a_help_and_says_what_a_self_needs() -> None:
    helped = selfloop("serve", "--help")
    assert helped.returncode == 0 and "--self FOLDER" in helped.stdout
    refused = selfloop("serve", "--self")
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr == "--self needs the folder of a checkout; nothing was started.\n"
