"""`selfloop doctor`: what Selfloop needs, what is there, and how to mend what is not.

Invariant: nothing is taken for granted that can be tried. A real server is started on an empty folder of its own, so
that the jail's canary runs, and the model is really asked; the user's folder is only looked at.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import click
from attrs import asdict, frozen

from selfloop.cli import showing, system
from selfloop.cli.client import Severity, Window, connect
from selfloop.config import Folders, Settings, load_settings
from selfloop.errors import SelfloopError
from selfloop.lsp.protocol import Empty, ModelTestResult, StatusResult

_OLDEST_PYTHON = (3, 11)
_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "missing": ("✗", "red")}


@frozen
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "missing"]
    """`warning`: Selfloop works, but less well or less safely."""
    detail: str
    mend: str | None = None


def run(folder: Path, *, as_json: bool) -> int:
    """Check everything, print it, and return the exit code: 1 when something needed is missing."""
    checks = asyncio.run(_check_all(folder))
    good = all(check.state != "missing" for check in checks)
    if as_json:
        click.echo(json.dumps({"ok": good, "checks": [asdict(check) for check in checks]}))
        return 0 if good else 1
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark, colour = _MARKS[check.state]
        click.echo(f"{click.style(mark, colour)} {check.name.ljust(width)}  {showing.visible(check.detail)}")
        if check.mend is not None and check.state != "ok":
            click.echo(f"  {' ' * width}  → {showing.visible(check.mend)}")
    return 0 if good else 1


async def _check_all(folder: Path) -> list[Check]:
    folders = Folders.of_user()
    checks = [_python(), await _git(), _ripgrep(), *_writable(folders), _workspace(folder)]
    try:
        settings = load_settings(folders)
    except SelfloopError as error:
        return [*checks, Check("settings", "missing", error.message, f"Mend {folders.config / 'settings.toml'}.")]
    return [*checks, *await _served(settings, folders)]


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= _OLDEST_PYTHON
    return Check("python", "ok" if good else "missing", version, "Install Selfloop with Python 3.11 or newer.")


async def _git() -> Check:
    from selfloop.sandbox.git import git

    mend = f"Install git: {_install('git')}."
    with tempfile.TemporaryDirectory(prefix="selfloop-doctor-") as empty:
        try:
            version = await git("--version", git_dir=Path(empty), timeout_seconds=10)
        except SelfloopError as error:
            return Check("git", "missing", error.message, mend)
    return Check("git", "ok", version.decode("utf-8", "replace").strip().removeprefix("git version "))


def _ripgrep() -> Check:
    found = shutil.which("rg")
    if found is None:
        mend = f"Install ripgrep, with which the agent searches: {_install('ripgrep')}."
        return Check("ripgrep", "missing", "rg was not found on the PATH", mend)
    return Check("ripgrep", "ok", found)


def _writable(folders: Folders) -> list[Check]:
    checks = []
    for name, path in (("data folder", folders.data), ("cache folder", folders.cache)):
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as probe:
                probe.write(b"x")
        except OSError as error:
            mend = "Make it writable, or set SELFLOOP_HOME to a folder that is."
            checks.append(Check(name, "missing", f"{path} cannot be written ({error.strerror})", mend))
        else:
            checks.append(Check(name, "ok", str(path)))
    return checks


def _workspace(folder: Path) -> Check:
    if not folder.is_dir():
        return Check("workspace", "missing", f"{folder} is no folder", "Name an existing folder with --folder.")
    if not os.access(folder, os.W_OK):
        return Check("workspace", "missing", f"{folder} cannot be written", "Change its permissions, or copy it.")
    try:
        trusted = system.is_trusted(folder)
    except SelfloopError as error:
        return Check("workspace", "missing", error.message, "Mend the data folder.")
    if not trusted:
        detail = f"{folder} is not trusted, so no model, git or command runs there"
        return Check("workspace", "warning", detail, f"Look at what is in it, then: selfloop trust {folder}")
    return Check("workspace", "ok", f"{folder} is trusted")


class _Quiet(Window):
    """A window on an empty folder, which may be trusted since nothing is in it."""

    options: ClassVar[Mapping[str, Any]] = {"trusted": True}

    def message(self, severity: Severity, text: str) -> None:
        """Leave it out: what matters comes with the answers."""


async def _served(settings: Settings, folders: Folders) -> list[Check]:
    """Check what only a running server can tell."""
    checks = [_model(settings, folders), _key(settings, folders)]
    with tempfile.TemporaryDirectory(prefix="selfloop-doctor-") as empty:
        try:
            async with connect(Path(empty), _Quiet()) as client:
                status = await client.ask("selfloop/status", Empty(), StatusResult)
                checks[:0] = [Check("server", "ok", f"version {status.version}"), _jail(status)]
                if settings.model is not None:
                    checks.append(_reached(await client.ask("selfloop/model/test", Empty(), ModelTestResult)))
        except SelfloopError as error:
            mend = f"Look into {folders.data / 'logs'}; installing Selfloop again may help."
            checks.insert(0, Check("server", "missing", error.message, mend))
        finally:
            await asyncio.to_thread(shutil.rmtree, folders.workspace_cache(Path(empty)), ignore_errors=True)
    return checks


def _jail(status: StatusResult) -> Check:
    if not status.folders:
        return Check("jail", "warning", "not tried, since the server could not open a folder", "Mend the rest first.")
    if status.isolation == "process":
        return Check("jail", "ok", status.isolation_detail)
    mend = "Commands will ask you one by one. "
    if sys.platform == "linux":
        mend += f"For the jail, install bubblewrap ({_install('bubblewrap')}) and let users make namespaces."
    else:
        mend += "The jail needs Linux."
    return Check("jail", "warning", status.isolation_detail, mend)


def _model(settings: Settings, folders: Folders) -> Check:
    if settings.model is None:
        mend = (
            "Set MODEL_NAME, and INFERENCE_BASE_URL for an endpoint of your own, in the environment or in "
            f"{folders.config / '.env'}; or: selfloop model select NAME [--base-url URL]. To look around without: "
            "selfloop demo."
        )
        return Check("model", "missing", "no model is set", mend)
    return Check("model", "ok", f"{settings.model}{f' at {settings.base_url}' if settings.base_url else ''}")


def _key(settings: Settings, folders: Folders) -> Check:
    mend = (
        f"Set OPENROUTER_API_KEY (or your provider's own variable) in the environment or in {folders.config / '.env'}."
    )
    if settings.key_for(settings.base_url) is not None:
        return Check("key", "ok", "set")
    if settings.base_url is not None:
        host = urlsplit(settings.base_url).hostname or ""
        if host == "localhost" or host.startswith("127.") or host == "::1":
            return Check("key", "ok", "none is set; a model on this machine needs none")
        return Check("key", "warning", f"none is set for {showing.visible(host)}", mend)
    provider = (settings.model or "").split("/", 1)[0].upper()
    if settings.model is not None and "/" in settings.model and os.environ.get(f"{provider}_API_KEY"):
        return Check("key", "ok", f"{provider}_API_KEY is set")
    return Check("key", "warning", "none is set", mend)


def _reached(result: ModelTestResult) -> Check:
    if result.ok:
        return Check("answer", "ok", f"{result.message} ({result.latency_ms} ms)")
    return Check("answer", "missing", showing.said(result.message), "Mend what it says, then: selfloop model test")


def _install(package: str) -> str:
    """Return how a package is installed on this kind of machine."""
    if sys.platform == "darwin":
        return f"brew install {package}"
    if sys.platform == "win32":
        return {"git": "winget install Git.Git", "ripgrep": "winget install BurntSushi.ripgrep.MSVC"}.get(
            package, package
        )
    for manager, command in (
        ("apt-get", "apt-get install"),
        ("dnf", "dnf install"),
        ("pacman", "pacman -S"),
        ("zypper", "zypper install"),
        ("apk", "apk add"),
    ):
        if shutil.which(manager):
            return f"sudo {command} {package}"
    return f"the package {package} of your system"
