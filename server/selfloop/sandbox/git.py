"""The one function that runs git.

Invariant: git always works on a repository of ours (`git_dir`), with a configuration of ours. The user's repository is
read as data, its configuration is never obeyed, and nothing that it names is ever executed: no hook, filter, fsmonitor,
external diff, textconv, pager, editor, credential helper or remote.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from selfloop.errors import SandboxError
from selfloop.sandbox.children import end, start

# Said on every call rather than kept in the shadow's file, so that a cache someone has meddled with decides nothing.
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.symlinks": "true",
    "core.fileMode": "true",
    "core.protectHFS": "false",
    "core.protectNTFS": "false",
    "core.quotePath": "false",
    "core.bare": "false",
    # The cache may be cleared at any time, so a crash of the machine may cost a rebuild but never a wait for the disk.
    "core.fsync": "none",
    "core.looseCompression": "1",
    "core.preloadIndex": "true",
    "index.threads": "true",
    "index.sparse": "false",
    "checkout.workers": "0",
    "checkout.thresholdForParallelism": "400",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "diff.ignoreSubmodules": "all",
    "diff.external": "",
    "protocol.allow": "never",
    "credential.helper": "",
    "advice.detachedHead": "false",
}


class GitError(SandboxError):
    """Raised when git ends with an exit code that the caller does not expect."""

    def __init__(self, message: str, *, exit_code: int, output: bytes, complaint: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.output = output
        self.complaint = complaint

    @property
    def objects_are_missing(self) -> bool:
        """Whether git could not find an object, as after the user's own `git gc` removed what was borrowed."""
        signs = ("invalid object", "unable to read", "missing", "not a valid object", "bad object", "could not read")
        complaint = self.complaint.lower()
        return any(sign in complaint for sign in signs)

    @property
    def index_is_locked(self) -> bool:
        """Whether another git holds the index: one that a killed server has left behind, and that soon ends."""
        signs = (".lock", "remove the file manually", "write new index")
        return any(sign in self.complaint for sign in signs)


async def git(
    *arguments: str,
    git_dir: Path,
    work_tree: Path | None = None,
    index: Path | None = None,
    stdin: bytes | None = None,
    config: Mapping[str, str] | None = None,
    accept: Collection[int] = (0,),
    timeout_seconds: float = 300.0,
) -> bytes:
    """Run git on a repository of ours and return what it writes to stdout.

    Args:
        arguments: the sub-command and its arguments, as a list; there is no shell.
        git_dir: the shadow repository (or a folder of ours where it is about to be made).
        work_tree: the folder that paths are relative to; it is also where git runs.
        index: the index file to use instead of the repository's own.
        stdin: what git reads; None closes its stdin.
        config: further settings for this call.
        accept: the exit codes that are no error.
        timeout_seconds: after that long git is killed.

    Raises:
        GitError: git ended with another exit code.
        SandboxError: there is no git, it could not be started, or it took too long.
    """
    program = git_program()
    if program is None:
        raise SandboxError("git was not found on the PATH, so the sandbox was not opened; install git and try again.")
    environment = _environment(git_dir, work_tree, index, {**_CONFIG, **(config or {})})
    try:
        process = await start(
            program,
            *arguments,
            cwd=work_tree or git_dir,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SandboxError(f"git could not be started ({error.strerror}), so nothing was changed.") from error
    try:
        async with asyncio.timeout(timeout_seconds):
            output, complaints = await process.communicate(stdin)
    except TimeoutError as error:
        raise SandboxError(
            f"git {arguments[0]} took longer than {timeout_seconds:g} s and was ended; try again."
        ) from error
    finally:
        await end(process)
    code = process.returncode
    if code is None or code not in accept:
        complaint = complaints.decode("utf-8", "replace").strip()
        last = complaint.splitlines()[-1] if complaint else f"exit code {code}"
        raise GitError(
            f"git {arguments[0]} failed in the sandbox ({last}); the workspace was not changed.",
            exit_code=-1 if code is None else code,
            output=output,
            complaint=complaint,
        )
    return output


def let_go(process: asyncio.subprocess.Process) -> None:
    """Close the pipes of a child that is being ended.

    Nobody reads them any more, and asyncio tells of an end only once they are closed too: with output left in a pipe
    it would be waited for without end.
    """
    transport = getattr(process, "_transport", None)
    for descriptor in (1, 2):
        pipe = None if transport is None else transport.get_pipe_transport(descriptor)
        if pipe is not None:
            pipe.close()


def git_program() -> str | None:
    """Return the absolute path of git, or None where there is none."""
    return find_program("git")


def find_program(name: str) -> str | None:
    """Return the absolute path of a program on the PATH.

    Relative entries of the PATH (`.` or an empty one) are passed over: they would mean the folder that is worked on. So
    are entries inside such a folder, like an activated environment's: a repository could have planted the program.
    """
    entries = trusted_path_entries()
    found = shutil.which(name, path=os.pathsep.join(entries))
    return str(Path(found).absolute()) if found else None


_distrusted: set[Path] = set()


def distrust(folder: Path) -> None:
    """Never again take a program that we run ourselves from below a folder."""
    _distrusted.add(folder.resolve())


def _within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in folders)


def trusted_path_entries() -> Sequence[str]:
    """Return the entries of the PATH from which a program that we run ourselves may be taken."""
    return [entry for entry in absolute_path_entries() if not _within(Path(entry), _distrusted)]


def absolute_path_entries() -> Sequence[str]:
    """Return the entries of the PATH that do not depend on the current folder."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return [entry for entry in entries if Path(entry).is_absolute()]


def split_nul(output: bytes) -> list[bytes]:
    """Return the records of a NUL-terminated listing."""
    records = output.split(b"\0")
    return records[:-1] if records and not records[-1] else records


def _environment(
    git_dir: Path, work_tree: Path | None, index: Path | None, config: Mapping[str, str]
) -> dict[str, str]:
    environment = {
        "PATH": os.pathsep.join(absolute_path_entries()),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_DIR": str(git_dir),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "GIT_EDITOR": "false",
        "GIT_PAGER": "cat",
        "GIT_SSH_COMMAND": "false",
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_AUTHOR_NAME": "Selfloop",
        "GIT_AUTHOR_EMAIL": "selfloop@localhost",
        "GIT_COMMITTER_NAME": "Selfloop",
        "GIT_COMMITTER_EMAIL": "selfloop@localhost",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for number, (key, value) in enumerate(config.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    if work_tree is not None:
        environment["GIT_WORK_TREE"] = str(work_tree)
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    return environment
