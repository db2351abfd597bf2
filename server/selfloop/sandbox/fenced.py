"""A jail for the judge: one program over made-up folders, without network, and nothing of it outlives the call.

It is the jail of the agent's commands (`mounts.py`) with two differences: what is shown is said by the caller, not
found around a workspace, and namespaces may be nested, because what is judged has a jail of its own to start.
Invariant: the environment is made up, nothing of the user's home is there, only `work` is writable.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from selfloop.errors import SandboxError
from selfloop.sandbox import keeper
from selfloop.sandbox.children import end, start
from selfloop.sandbox.git import find_program
from selfloop.sandbox.isolation import Isolation
from selfloop.sandbox.limits import make_groups, remove_groups, resource_limits
from selfloop.sandbox.mounts import HOME, JailPlan, jail_arguments, jail_environment, write_etc
from selfloop.sandbox.toolchains import SYSTEM_FOLDERS, Toolchain

WORK = Path("/judge")
"""Where the one writable folder stands."""
PYTHON = Path("/venv/bin/python")
"""The interpreter inside: ours, with the self's own `server/` before the installed packages."""
SELF = Path("/self")
"""Where the self that is judged stands, read-only."""
_PACKAGES = Path("/packages")
_TOOLS = Path("/tools")
_MOST_OUTPUT_BYTES = 8 << 20
_UID = 1000


@frozen
class Fenced:
    """What came of a program."""

    exit_code: int | None
    """None: it was killed at its deadline."""
    output: bytes
    complaint: bytes
    """What it wrote to stderr."""
    seconds: float


@frozen
class Fence:
    """The jail's furniture, the same for every program of one judgement."""

    isolation: Isolation
    folder: Path
    """Of ours, for what the jail shows of an interpreter and of /etc."""
    tools: tuple[str, ...] = ("ruff", "pyrefly")
    """Programs shown beside the interpreter, where they are installed beside ours."""

    def furnish(self) -> None:
        """Write the virtual environment and the files of /etc; blocks on the disk.

        The environment's one `.pth` file puts `/self/server` before the installed packages, so that in every process
        of the jail, isolated ones too, `selfloop` is the self that is judged.
        """
        etc = self.folder / "etc"
        write_etc(etc)
        if self._someone():
            passwd = f"user:x:{_UID}:{_UID}:user:{HOME}:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n"
            (etc / "passwd").write_text(passwd, encoding="ascii")
            (etc / "group").write_text(f"user:x:{_UID}:\nnogroup:x:65534:\n", encoding="ascii")
        environment = self.folder / "venv"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        site = environment / "lib" / f"python{version}" / "site-packages"
        site.mkdir(parents=True, exist_ok=True)
        (environment / "bin").mkdir(exist_ok=True)
        real = os.path.realpath(sys.executable)
        for name in ("python", "python3", f"python{version}"):
            link = environment / "bin" / name
            if not link.is_symlink():
                link.symlink_to(real)
        (environment / "pyvenv.cfg").write_text(
            f"home = {Path(real).parent}\ninclude-system-site-packages = false\n"
            f"version = {'.'.join(map(str, sys.version_info[:3]))}\n",
            encoding="utf-8",
        )
        lines = [str(SELF / "server"), *(str(place) for _, place in _packages())]
        (site / "self.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")

    async def run(
        self,
        argv: Sequence[str],
        *,
        shown: Mapping[Path, Path],
        work: Path,
        cwd: Path = WORK,
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Fenced:
        """Run a program. Cancelling the task kills it before CancelledError is raised.

        Args:
            argv: the program, by its path inside.
            shown: read-only folders and files: where it stands inside, and where it is.
            work: the folder that is writable, at `/judge`.
            cwd: inside.
            environment: variables besides the made-up ones.
            timeout_seconds: after that long it is killed.

        Raises:
            SandboxError: there is no jail, or it could not be started.
        """
        if self.isolation.level != "process":
            raise SandboxError(
                f"A candidate is only run in a jail, so nothing was judged. {self.isolation.detail} Install bubblewrap "
                "(bwrap) where it may make namespaces, then try again."
            )
        bwrap = find_program("bwrap")
        if bwrap is None:
            raise SandboxError("bubblewrap is gone, so nothing was judged; install it again, then try again.")
        plan = self._plan(shown, work)
        arguments = [*jail_arguments(plan)[:-2], "--chdir", str(cwd)]
        variables = {**jail_environment(plan), **(environment or {})}
        for name, value in variables.items():
            arguments += ["--setenv", name, value]
        command = [bwrap, *arguments, "--", *argv]
        groups = await asyncio.to_thread(make_groups)
        started = time.monotonic()
        try:
            joining = [str(group / "cgroup.procs") for group in groups]
            order = {"argv": command, "supervise": False, "limits": resource_limits(), "groups": joining}
            process = await start(
                sys.executable, "-I", "-S", keeper.__file__, json.dumps(order), cwd="/", env={"PATH": os.defpath},
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            code: int | None = None
            output, complaint = bytearray(), bytearray()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await asyncio.gather(_drain(process.stdout, output), _drain(process.stderr, complaint))
                    code = await process.wait()
            except TimeoutError:
                code = None
            finally:
                await end(process)
        except OSError as error:
            raise SandboxError(
                f"The judge's jail could not be started ({error.strerror}), nothing was judged."
            ) from error
        finally:
            if groups:
                await asyncio.shield(asyncio.to_thread(remove_groups, groups))
        return Fenced(code, bytes(output), bytes(complaint), time.monotonic() - started)

    def _someone(self) -> bool:
        """Tell whether the jail has a user namespace in which root is to be somebody else."""
        return os.geteuid() == 0 and "--unshare-user" in self.isolation.flags

    def _flags(self) -> tuple[str, ...]:
        """Return how bubblewrap is called: namespaces may be nested, since what is judged starts a jail of its own.

        Inside one it could not as root: since Linux 5.12 nobody maps user 0 of a namespace without CAP_SETFCAP there.
        """
        flags = tuple(flag for flag in self.isolation.flags if flag != "--disable-userns")
        return (*flags, "--uid", str(_UID), "--gid", str(_UID)) if self._someone() else flags

    def _plan(self, shown: Mapping[Path, Path], work: Path) -> JailPlan:
        folders: dict[Path, Path] = {}
        for prefix in dict.fromkeys((Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parent.parent)):
            if not any(prefix.is_relative_to(system) for system in SYSTEM_FOLDERS):
                folders[prefix] = prefix
        folders[Path("/venv")] = self.folder / "venv"
        for folder, place in _packages():
            folders[place] = folder
        found = {name: find_tool(name) for name in self.tools}
        folders.update({_TOOLS / name: tool for name, tool in found.items() if tool is not None})
        if ripgrep := find_program("rg"):
            folders.setdefault(_TOOLS / "rg", Path(os.path.realpath(ripgrep)))
        folders.update(shown)
        return JailPlan(
            flags=self._flags(),
            files=work,
            workspace=WORK,
            top=WORK,
            etc=self.folder / "etc",
            toolchain=Toolchain(
                tuple((source, place) for place, source in folders.items()), (), ("/venv/bin", str(_TOOLS))
            ),
            dependencies=(),
            protected=(),
            git_view=None,
            objects=None,
            borrowed=None,
            network=False,
        )


def find_tool(name: str) -> Path | None:
    """Return a program that is installed beside our interpreter, else one on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    return Path(os.path.realpath(found)) if found else None


def tool(name: str) -> str:
    """Return a tool's path inside the jail."""
    return str(_TOOLS / name)


def _packages() -> list[tuple[Path, Path]]:
    """Return the folders of installed packages: where each is, and where it is shown."""
    folders = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return [(folder, _PACKAGES / str(index)) for index, folder in enumerate(folders) if folder.is_dir()]


async def _drain(stream: asyncio.StreamReader | None, into: bytearray) -> None:
    """Read to the end; what is beyond the cap is read and dropped."""
    while stream is not None and (piece := await stream.read(1 << 16)):
        if len(into) < _MOST_OUTPUT_BYTES:
            into += piece
