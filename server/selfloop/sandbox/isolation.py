"""What is really enforced on a command here, found out by trying to break it.

A canary runs in the very jail that commands will run in. It tries to read a secret, write outside, reach listeners on
this machine, see our processes and what stands in the user's home. What counts is also looked at *from outside*.
Invariant: `process` is only ever reported of a jail whose canary failed at everything but working in its own folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from attrs import frozen

from selfloop.config import Settings
from selfloop.sandbox.children import end, start
from selfloop.sandbox.git import find_program, git_program

Level = Literal["none", "changes", "process"]


@frozen
class Isolation:
    """What is enforced."""

    level: Level
    """`process`: commands are jailed. `changes`: they run on a copy, but as the user. `none`: there is no copy."""
    detail: str
    """One sentence that says why."""
    flags: tuple[str, ...] = ()
    """How bubblewrap is called here to enforce it."""


_COMMON = ("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL")
_PROC = ("--proc", "/proc")
# Best first. An old bubblewrap knows no --disable-userns; a container may forbid a new /proc, and root in one may be
# forbidden a user namespace. Without /proc commands still run, most of them.
_VARIANTS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((*_COMMON, "--unshare-user", "--disable-userns", *_PROC), ""),
    ((*_COMMON, "--unshare-user", *_PROC), " Nested namespaces are not forbidden."),
    ((*_COMMON, *_PROC), " Nested namespaces are not forbidden."),
    (
        (*_COMMON, "--unshare-user", "--disable-userns", "--dir", "/proc"),
        " /proc is empty, which some tools mind.",
    ),
    ((*_COMMON, "--dir", "/proc"), " /proc is empty, which some tools mind."),
)

_PREFIX = "selfloop-canary-"
_LEFT_SECONDS = 600
"""A canary takes a second or two: a folder this old is nobody's any more."""
_SILENT = "the canary did not come back"
_INTERPRETER = os.path.realpath(sys.executable)
_CANARY = r"""
import json, os, socket, sys
order = json.loads(sys.argv[1])
found = []
def attempt(name, act):
    try:
        if act() is not False:
            found.append(name)
    except Exception:
        pass
def reach(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(1)
        link.connect(address)
        link.sendall(b"canary")
attempt("read", lambda: open(order["secret"]).read() == order["word"])
attempt("write", lambda: open(order["outside"], "w").write("canary"))
attempt("tcp", lambda: reach(socket.AF_INET, ("127.0.0.1", order["port"])))
attempt("abstract", lambda: reach(socket.AF_UNIX, "\0" + order["abstract"]))
attempt("unix", lambda: reach(socket.AF_UNIX, order["unix"]))
attempt("processes", lambda: any(order["word"].encode() in open(f"/proc/{pid}/environ", "rb").read()
                                 for pid in os.listdir("/proc") if pid.isdigit()))
attempt("home", lambda: any(os.path.lexists(path) for path in order["home"]))
with open("done", "w") as file:
    json.dump(found, file)
"""


async def probe(settings: Settings | None = None) -> Isolation:
    """Find out what is enforced. It runs the canary a few times; no failure of it is an error."""
    if git_program() is None:
        return Isolation("none", "git was not found on the PATH, so there is no copy of the files to work on.")
    if settings is not None and settings.isolation == "changes":
        return Isolation("changes", "The setting `isolation` turns the jail off, so commands wait at a gate.")
    if not sys.platform.startswith("linux"):
        return Isolation("changes", f"{sys.platform} has no jail, so commands run on a copy and wait at a gate.")
    bwrap = find_program("bwrap")
    if bwrap is None:
        return Isolation(
            "changes", "bubblewrap (bwrap) is not installed, so commands run on a copy and wait at a gate; install it."
        )
    why = "bubblewrap could not be started"
    for flags, remark in _VARIANTS:
        outcome = await _try(bwrap, flags)
        if outcome is None:
            user = "root" if os.geteuid() == 0 else "an unprivileged user"
            return Isolation(
                "process",
                f"Commands run in a jail, started as {user}; a canary found no way out.{remark}",
                flags,
            )
        why = outcome
        if why == _SILENT:
            break
    return Isolation("changes", f"The jail does not hold here ({why}), so commands run on a copy and wait at a gate.")


async def _try(bwrap: str, flags: tuple[str, ...]) -> str | None:
    """Run the canary in one kind of jail; return why it does not hold, None if it does."""
    from selfloop.sandbox.mounts import canary_arguments

    folder = await asyncio.to_thread(_new_folder)
    try:
        with _Bait(folder) as bait:
            arguments = canary_arguments(flags, work=bait.work, shown=Path("/selfloop-canary"))
            order = json.dumps(bait.order)
            process = await start(
                bwrap, *arguments, "--", _INTERPRETER, "-I", "-S", "-c", _CANARY, order,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.defpath},
            )  # fmt: skip
            try:
                async with asyncio.timeout(20):
                    _, complaint = await process.communicate()
            except TimeoutError:
                return _SILENT
            finally:
                await end(process)
            said = complaint.decode("utf-8", "replace").strip().splitlines()
            return await asyncio.to_thread(bait.verdict, said[-1] if said else "it ended without a word")
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


def _new_folder() -> Path:
    """Return a new folder for a canary; those that killed servers have left go."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = left.lstat()
            if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _LEFT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_PREFIX))


class _Bait:
    """What the canary is to try for, and what of it was touched."""

    def __init__(self, folder: Path) -> None:
        self.word = secrets.token_hex(16)
        self.work = folder / "work"
        self.work.mkdir()
        self._folder = folder
        (folder / "secret").write_text(self.word, encoding="ascii")
        self._listeners = [
            socket.socket(family, socket.SOCK_STREAM) for family in (socket.AF_INET, socket.AF_UNIX, socket.AF_UNIX)
        ]
        tcp, abstract, unix = self._listeners
        tcp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0selfloop-{self.word}")
        unix.bind(str(folder / "unix"))
        for listener in self._listeners:
            listener.listen(4)
            listener.setblocking(False)
        # A process outside that carries the word, for the canary to look for.
        self._witness = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"],
            env={"SELFLOOP_CANARY": self.word},
            # Where we are killed it sleeps on for a while, and nobody may have to wait for it at the end of a pipe.
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.order = {
            "secret": str(folder / "secret"),
            "outside": str(folder / "written"),
            "port": tcp.getsockname()[1],
            "abstract": f"selfloop-{self.word}",
            "unix": str(folder / "unix"),
            "word": self.word,
            "home": _home_entries(),
        }

    def __enter__(self) -> _Bait:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()
        self._witness.kill()
        self._witness.wait()

    def verdict(self, said: str) -> str | None:
        """Return what got out, or why the canary did not even work; None if the jail holds."""
        touched = [
            name
            for name, listener in zip(("tcp", "abstract", "unix"), self._listeners, strict=True)
            if _called(listener)
        ]
        if (self._folder / "written").exists():
            touched.append("write")
        try:
            found = json.loads((self.work / "done").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return said
        touched += [name for name in found if name not in touched]
        return f"the canary got through: {', '.join(touched)}" if touched else None


def _home_entries() -> list[str]:
    """Return what stands in the user's home, without what leads to our own interpreter."""
    home = Path.home()
    try:
        entries = sorted(home.iterdir())[:200]
    except OSError:
        return []
    return [str(entry) for entry in entries if not Path(sys.base_prefix).is_relative_to(entry)]


def _called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True
