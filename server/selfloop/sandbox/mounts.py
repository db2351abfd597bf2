"""What a jail consists of: the arguments of bubblewrap.

    read-only   the system's programs and a few files of /etc, toolchains, dependency folders, protected files, `.git`
    writable    the worktree, shown at the workspace's own path; private /tmp, /run, /var/tmp and /dev/shm
    not there   everything else: home, the rest of /etc, other projects, sockets, the real `.git`

Invariant: nothing is bound through a link that a command could have made.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from selfloop.sandbox.gitview import JAIL_BORROWED, JAIL_OBJECTS
from selfloop.sandbox.limits import TMP_BYTES
from selfloop.sandbox.protected import masked_in_jail
from selfloop.sandbox.toolchains import SYSTEM_FOLDERS, Toolchain

HOME = "/tmp/home"  # noqa: S108 - the jail's own /tmp
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_MOST_PROTECTED = 1500

# Nothing of it is secret; accounts and hosts are given made-up files.
_ETC = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "alternatives", "localtime", "timezone", "mime.types",
    "protocols", "services", "magic", "terminfo", "fonts", "ssl/certs", "ssl/openssl.cnf", "ca-certificates", "pki",
    "crypto-policies", "java", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "maven", "os-release",
    "debian_version", "perl", "python3", "python3.11", "python3.12", "python3.13", "gai.conf", "bash.bashrc", "inputrc",
)  # fmt: skip


@frozen
class JailPlan:
    """All that one jail shows."""

    flags: tuple[str, ...]
    """How the probe found that bubblewrap holds."""
    files: Path
    """The worktree's folder."""
    workspace: Path
    """Where it is shown."""
    top: Path
    """Where `.git` is shown: the workspace, or the folder above it that is the repository's top."""
    etc: Path
    """A folder with made-up `passwd`, `group`, `hosts`, `nsswitch.conf` and an `empty` file."""
    toolchain: Toolchain
    dependencies: tuple[str, ...]
    protected: tuple[str, ...]
    git_view: Path | None
    objects: Path | None
    borrowed: Path | None
    network: bool


def jail_arguments(plan: JailPlan) -> list[str]:
    """Return bubblewrap's arguments, up to the command."""
    arguments = [*_system(plan.flags, plan.etc, plan.network)]
    for target, place in plan.toolchain.links:
        arguments += ["--symlink", target, str(place)]
    for folder, place in plan.toolchain.folders:
        if not place.is_relative_to(plan.workspace):
            arguments += ["--ro-bind", str(folder), str(place)]
    workspace = str(plan.workspace)
    arguments += ["--bind", str(plan.files), workspace]
    for name in plan.dependencies:
        arguments += ["--ro-bind", f"{workspace}/{name}", f"{workspace}/{name}"]
    for name in plan.protected:
        source = plan.etc / "empty" if masked_in_jail(name) else plan.files / name
        arguments += ["--ro-bind", str(source), f"{workspace}/{name}"]
    if plan.git_view is not None and plan.objects is not None:
        arguments += ["--ro-bind", str(plan.git_view), str(plan.top / ".git")]
        arguments += _objects(plan.objects, JAIL_OBJECTS, plan.etc)
        arguments += _objects(plan.borrowed, JAIL_BORROWED, plan.etc) if plan.borrowed else ["--dir", JAIL_BORROWED]
    return [*arguments, "--remount-ro", "/", "--chdir", workspace]


def canary_arguments(flags: tuple[str, ...], *, work: Path, shown: Path) -> list[str]:
    """Return the arguments of the jail that the probe's canary runs in: the same system, and our own interpreter."""
    arguments = _system(flags, None, network=False)
    for folder in dict.fromkeys((Path(sys.base_prefix), Path(os.path.realpath(sys.executable)).parent.parent)):
        if not any(folder.is_relative_to(system) for system in SYSTEM_FOLDERS):
            arguments += ["--ro-bind", str(folder), str(folder)]
    return [*arguments, "--bind", str(work), str(shown), "--remount-ro", "/", "--chdir", str(shown)]


def jail_environment(plan: JailPlan) -> dict[str, str]:
    """Return the variables of a command in the jail; there are no others."""
    environment = plain_environment((*plan.toolchain.path, *SYSTEM_PATH))
    environment["HOME"] = HOME
    environment["TMPDIR"] = "/tmp"  # noqa: S108 - the jail's own
    for name in (".venv", "venv", "env"):
        if str(plan.workspace / name / "bin") in plan.toolchain.path:
            environment["VIRTUAL_ENV"] = str(plan.workspace / name)
            break
    return environment


def plain_environment(path: Iterable[str]) -> dict[str, str]:
    """Return the variables that every command gets."""
    environment = {
        "PATH": os.pathsep.join(dict.fromkeys(path)),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        "PAGER": "cat",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "SHELL": "/bin/sh",
        "USER": "user",
        "LOGNAME": "user",
        # What a command leaves behind would be shown as the agent's change.
        "PYTHONDONTWRITEBYTECODE": "1",
        "npm_config_update_notifier": "false",
        "npm_config_fund": "false",
        "npm_config_audit": "false",
    }
    if zone := os.environ.get("TZ"):
        environment["TZ"] = zone
    return environment


def write_etc(folder: Path) -> None:
    """Write the made-up files of /etc."""
    folder.mkdir(parents=True, exist_ok=True)
    uid, gid = os.geteuid(), os.getegid()
    files = {
        "passwd": f"user:x:{uid}:{gid}:user:{HOME}:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
        "group": f"user:x:{gid}:\nnogroup:x:65534:\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "empty": "",
    }
    for name, text in files.items():
        target = folder / name
        if not target.is_file() or target.read_text(encoding="ascii") != text:
            target.write_text(text, encoding="ascii")


def standing(files: Path, places: Iterable[str]) -> tuple[str, ...]:
    """Return the protected places (a folder before what is masked in it) that stand in `files` as themselves."""
    return tuple(place for place in places if _stands(files, place))[:_MOST_PROTECTED]


def _system(flags: tuple[str, ...], etc: Path | None, network: bool) -> list[str]:
    arguments = [*flags, *(["--share-net"] if network else []), "--clearenv", "--hostname", "selfloop", "--dev", "/dev"]
    for folder in SYSTEM_FOLDERS:
        place = Path(folder)
        if place.is_symlink():
            arguments += ["--symlink", str(place.readlink()), folder]
        elif place.is_dir():
            arguments += ["--ro-bind", folder, folder]
    for name in _ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    if etc is not None:
        for name in ("passwd", "group", "hosts", "nsswitch.conf"):
            arguments += ["--ro-bind", str(etc / name), f"/etc/{name}"]
    if network:
        arguments += ["--ro-bind-try", os.path.realpath("/etc/resolv.conf"), "/etc/resolv.conf"]
    arguments += ["--ro-bind-try", "/sys/devices/system/cpu", "/sys/devices/system/cpu"]
    for place in ("/tmp", "/var/tmp", "/dev/shm", "/run"):  # noqa: S108 - the jail's own
        arguments += ["--size", str(TMP_BYTES), "--perms", "0755" if place == "/run" else "1777", "--tmpfs", place]
    return [*arguments, "--dir", HOME]


def _objects(source: Path, place: str, etc: Path) -> list[str]:
    """Show a folder of objects, but not where it borrows from in turn."""
    arguments = ["--ro-bind", str(source), place]
    if (source / "info" / "alternates").is_file():
        arguments += ["--ro-bind", str(etc / "empty"), f"{place}/info/alternates"]
    return arguments


def _stands(files: Path, place: str) -> bool:
    """Tell whether a file or folder is there, and neither it nor a folder above it is a link."""
    path = files
    kind = 0
    for part in place.split("/"):
        path = path / part
        try:
            kind = os.lstat(path).st_mode
        except OSError:
            return False
        if stat.S_ISLNK(kind):
            return False
    return stat.S_ISREG(kind) or stat.S_ISDIR(kind)
