"""The user's own programs, started as the user would: git with its hooks, `gh`, and the package managers.

    commit, push ─▶ run_as_user("git", …) in the user's repository      after an approval only: its hooks run
    forge tools  ─▶ run_as_user("gh", …)  at `/`, with GIT_DIR nowhere   no configuration of a repository is read
    outdated     ─▶ run_as_user("pip" …)  at `/`                         nor a project's `.npmrc` or `pip.conf`

Invariant: the arguments are fixed by us, text goes in by standard input, and there is no shell. Of the environment only
what such a program needs is kept, so that no key of a model reaches a hook. Memory is bounded, and when the call
returns, ends at its deadline, is cancelled, or this process dies, nothing of what was started lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from attrs import frozen

from selfloop.errors import SandboxError
from selfloop.sandbox import keeper
from selfloop.sandbox.children import end, start
from selfloop.sandbox.git import absolute_path_entries, find_program, trusted_path_entries

UserProgram = Literal["git", "gh", "pip", "npm", "cargo", "go"]

NOWHERE = Path("/")
"""Where programs run that must not find a project around them."""
MOST_BYTES = 4 << 20
_MOST_COMPLAINT_BYTES = 64 << 10
_GRACE_SECONDS = 1.0

_COMMON = (
    "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", r"LC_\w+", "TZ", "TMPDIR", r"XDG_\w+",
    "(?i:https?_proxy|no_proxy|all_proxy)", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
_FORGE = ("GH_TOKEN", "GITHUB_TOKEN", "GH_HOST", "GH_CONFIG_DIR", "DBUS_SESSION_BUS_ADDRESS")
_KEPT: Mapping[UserProgram, tuple[str, ...]] = {
    "git": (
        "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", r"GIT_AUTHOR_\w+",
        r"GIT_COMMITTER_\w+", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", r"GIT_SSL_\w+",
        "GNUPGHOME", "DISPLAY", "WAYLAND_DISPLAY", "KRB5CCNAME", *_FORGE,
    ),
    "gh": _FORGE,
    "pip": (r"PIP_\w+",),
    "npm": (r"(?i:npm_config_\w+)", "NPM_TOKEN", "NODE_EXTRA_CA_CERTS", r"NVM_\w+", "VOLTA_HOME"),
    "cargo": ("CARGO_HOME", r"CARGO_(?:REGISTR|NET|HTTP|SOURCE)\w+", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"),
    "go": ("GOPATH", "GOROOT", "GOCACHE", "GOMODCACHE", "GOENV", "GOPROXY", "GOPRIVATE", r"GONO\w+", "GOSUMDB",
           "GOINSECURE", "GOAUTH"),
}  # fmt: skip
_SET: Mapping[UserProgram, Mapping[str, str]] = {
    # Nobody sits at a terminal: what would ask fails at once instead of waiting for its deadline.
    "git": {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "false", "SSH_ASKPASS": "false", "GIT_EDITOR": "false",
            "GIT_PAGER": "cat"},
    "gh": {"GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1", "GH_NO_EXTENSION_UPDATE_NOTIFIER": "1",
           "GH_PAGER": "cat", "GIT_DIR": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull},
    "pip": {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    "npm": {"NPM_CONFIG_UPDATE_NOTIFIER": "false", "NPM_CONFIG_FUND": "false"},
    "cargo": {"CARGO_TERM_COLOR": "never"},
    "go": {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOWORK": "off"},
}  # fmt: skip


@frozen
class Ended:
    """How a program ended."""

    exit_code: int | None
    """None: it was ended at its deadline."""
    output: str
    """What it wrote to stdout, up to the cap."""
    complaint: str
    """What it wrote to stderr, its end if that is long."""
    cut: bool = False
    """There was more on stdout than the cap."""

    @property
    def said(self) -> str:
        """Both streams, for a person: hooks write to either."""
        return "\n".join(part for part in (self.output.strip(), self.complaint.strip()) if part)


class ProgramMissing(SandboxError):
    """Raised when a program of the user's is not installed, or could not be started."""


def has_program(program: UserProgram) -> bool:
    """Tell whether a program is installed outside the folders that are worked on."""
    return find_program(program) is not None


async def run_as_user(
    program: UserProgram,
    *arguments: str,
    cwd: Path = NOWHERE,
    stdin: str | None = None,
    variables: Mapping[str, str] | None = None,
    timeout_seconds: float,
    most_bytes: int = MOST_BYTES,
) -> Ended:
    """Run a program of the user's and return how it ended, whatever its exit code.

    Args:
        program: which one.
        arguments: fixed by the caller; a text of a model's or a file's goes in by `stdin` or as `--flag=text`.
        cwd: where it runs.
        stdin: what it reads; None closes its stdin.
        variables: more of the environment, for this call.
        timeout_seconds: after that long it is killed with all that it has started.
        most_bytes: how much of stdout is kept; what writes more is read on and dropped.

    Raises:
        ProgramMissing: it is not installed, or could not be started; nothing was done.
    """
    path = find_program(program)
    if path is None:
        raise ProgramMissing(f"{program} was not found on the PATH, so nothing was done; install it and try again.")
    order = {"argv": [path, *arguments], "supervise": True, "limits": {"CORE": 0}, "groups": []}
    try:
        process = await start(
            sys.executable,
            "-I",
            "-S",
            keeper.__file__,
            json.dumps(order),
            cwd=cwd,
            env={**user_environment(program), **(variables or {})},
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise ProgramMissing(f"{program} could not be started ({error.strerror}), so nothing was done.") from error
    assert process.stdout is not None and process.stderr is not None  # noqa: S101  Both are pipes.
    feeding = asyncio.create_task(_feed(process, stdin))
    output, complaint = bytearray(), bytearray()
    reading = asyncio.gather(_read(process.stdout, output, most_bytes, 0), _read(process.stderr, complaint, 0, 1))
    timed_out = False
    cut = False
    try:
        async with asyncio.timeout(timeout_seconds):
            # The keeper ends only when nothing that could still write is left, so the streams end too.
            cut, _ = await reading
            await process.wait()
    except TimeoutError:
        timed_out = True
    finally:
        feeding.cancel()
        reading.cancel()
        await asyncio.gather(feeding, reading, return_exceptions=True)
        await end(process, grace_seconds=_GRACE_SECONDS)
    return Ended(
        None if timed_out else process.returncode,
        output.decode("utf-8", "replace"),
        complaint.decode("utf-8", "replace"),
        cut,
    )


def user_environment(program: UserProgram) -> dict[str, str]:
    """Return the variables that a program of the user's gets."""
    kept = re.compile("|".join((*_COMMON, *_KEPT[program])))
    environment = {name: value for name, value in os.environ.items() if kept.fullmatch(name)}
    # A hook may need the project's own tools; what is no hook must not meet a program that a repository planted.
    entries = absolute_path_entries() if program == "git" else trusted_path_entries()
    return {**environment, "PATH": os.pathsep.join(entries), "NO_COLOR": "1", "TERM": "dumb", **_SET[program]}


async def _feed(process: asyncio.subprocess.Process, text: str | None) -> None:
    if process.stdin is None or text is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(text.encode("utf-8", "replace"))
        await process.stdin.drain()
    process.stdin.close()


async def _read(stream: asyncio.StreamReader, into: bytearray, most_bytes: int, tail: int) -> bool:
    """Read to the end; keep the beginning, or with `tail` the end. Return whether something was dropped."""
    cut = False
    while piece := await stream.read(1 << 16):
        if tail:
            into += piece
            if len(into) > 2 * _MOST_COMPLAINT_BYTES:
                del into[:-_MOST_COMPLAINT_BYTES]
                cut = True
            continue
        room = most_bytes - len(into)
        into += piece[:room]
        cut = cut or len(piece) > room
    return cut
