"""The remotes of the user's repository, read as data: where a branch would be pushed, and which forge knows it.

Invariant: the configuration files are parsed by git from standard input, on a repository of ours, and no file that they
include is opened; so nothing they name is run or read.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import urlsplit

from attrs import frozen

from selfloop.errors import SandboxError
from selfloop.sandbox.git import GitError, git, split_nul
from selfloop.sandbox.origin import Origin, read_small, user_configuration_files

_SCP = re.compile(r"(?:[^@/:]+@)?([A-Za-z0-9.-]+):(?!//)(.+)")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_USER_INFO = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/@]*@")
_REMOTE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,99}")


@frozen
class Repository:
    """A repository on a forge."""

    host: str
    owner: str
    name: str

    @property
    def slug(self) -> str:
        """`host/owner/name`, as `gh --repo` takes it."""
        return f"{self.host}/{self.owner}/{self.name}"

    @property
    def web(self) -> str:
        """Its address for a browser."""
        return f"https://{self.slug}"


@frozen
class Remote:
    """One remote."""

    name: str
    fetch_url: str
    push_urls: tuple[str, ...]
    """git pushes to all of them."""
    is_base: bool = False
    """`gh repo set-default` chose it as the repository that pull requests go to."""

    @property
    def push_url(self) -> str:
        """The first address that it pushes to; empty where there is none."""
        return next(iter(self.push_urls), "")

    @property
    def repository(self) -> Repository | None:
        """The forge's repository behind it, if its address looks like one."""
        return repository_of(self.fetch_url) or repository_of(self.push_url)


@frozen
class Remotes:
    """All remotes, and the one that a new branch is pushed to."""

    by_name: dict[str, Remote]
    push_name: str | None
    """None: there is no remote, or several and none is meant."""

    @property
    def base(self) -> Remote | None:
        """The remote whose repository pull requests belong to: the chosen one, `upstream`, or the one pushed to."""
        chosen = next((remote for remote in self.by_name.values() if remote.is_base), None)
        return chosen or self.by_name.get("upstream") or (self.by_name[self.push_name] if self.push_name else None)


async def read_remotes(origin: Origin, git_dir: Path) -> Remotes:
    """Read the remotes of the user's repository.

    Args:
        origin: the user's repository.
        git_dir: a repository of ours, on which git parses.

    Raises:
        SandboxError: the configuration cannot be parsed.
    """
    if origin.common_dir is None:
        return Remotes({}, None)
    config = origin.common_dir / "config"
    files = [config, *user_configuration_files()]
    texts = await asyncio.to_thread(lambda: [read_small(file) or b"" for file in files])
    own = await _parsed(texts[0], git_dir, config)
    everything: list[tuple[str, str]] = []
    for file, text in zip(files[1:], texts[1:], strict=True):
        everything += await _parsed(text, git_dir, file)
    everything += own
    values = dict(everything)
    fetched: dict[str, list[str]] = {}
    pushed: dict[str, list[str]] = {}
    for key, value in own:
        name, _, field = key.removeprefix("remote.").rpartition(".")
        if key.startswith("remote.") and field in ("url", "pushurl") and valid_remote(name):
            (fetched if field == "url" else pushed).setdefault(name, []).append(value)
    branch, _ = await asyncio.to_thread(origin.head)
    short = (branch or "").removeprefix("refs/heads/")
    found = {}
    for name in {**fetched, **pushed}:
        urls = [_rewritten(url, everything, "insteadof") for url in fetched.get(name, ())]
        # An address that is only for pushing is not rewritten by the rules that are only for pushing.
        push = [_rewritten(url, everything, "insteadof") for url in pushed.get(name, ())]
        push = push or [_rewritten(url, everything, "pushinsteadof", "insteadof") for url in fetched.get(name, ())]
        chosen = values.get(f"remote.{name}.gh-resolved") == "base"
        found[name] = Remote(name, next(iter(urls), ""), tuple(push), chosen)
    wishes = (
        values.get(f"branch.{short}.pushremote"),
        values.get("remote.pushdefault"),
        values.get(f"branch.{short}.remote"),
        "origin",
        next(iter(found)) if len(found) == 1 else None,
    )
    return Remotes(found, next((wish for wish in wishes if wish in found), None))


def repository_of(url: str) -> Repository | None:
    """Return the forge's repository that an address means, None where it is no `owner/name` on a host."""
    if "://" in url:
        try:
            parts = urlsplit(url)
            host = parts.hostname if parts.scheme in ("https", "http", "ssh", "git", "git+ssh") else None
        except ValueError:
            return None
        path = parts.path
    else:
        match = _SCP.fullmatch(url)
        host, path = (match[1], match[2]) if match else (None, "")
    names = path.strip("/").removesuffix(".git").split("/")
    if not host or not _HOST.fullmatch(host) or len(names) != 2 or not all(_NAME.fullmatch(name) for name in names):
        return None
    return Repository(host.lower(), names[0], names[1])


def without_user(url: str) -> str:
    """Return an address without a user's name and password, as it may be shown."""
    return _USER_INFO.sub(r"\1", url)


def valid_remote(name: str) -> bool:
    """Tell whether a remote's name may stand on a command line: it begins with no dash, and is no address."""
    return bool(_REMOTE.fullmatch(name)) and ".." not in name


async def valid_branch(name: str, git_dir: Path) -> bool:
    """Tell whether git takes a name for a branch, and whether it may stand on a command line."""
    if not name or name.startswith("-") or name == "HEAD" or "\0" in name or len(name) > 200:
        return False
    try:
        await git("check-ref-format", f"refs/heads/{name}", git_dir=git_dir)
    except GitError:
        return False
    return True


async def _parsed(text: bytes, git_dir: Path, file: Path) -> list[tuple[str, str]]:
    """Return the settings of a configuration file in order: section and key in lower case."""
    try:
        output = await git("config", "--file", "-", "--no-includes", "-z", "--list", git_dir=git_dir, stdin=text)
    except GitError as error:
        raise SandboxError(f"{file} cannot be read by git ({error.complaint[:200]}), so nothing was sent.") from error
    pairs = []
    for record in split_nul(output):
        key, _, value = record.decode("utf-8", "replace").partition("\n")
        pairs.append((key, value))
    return pairs


def _rewritten(url: str, settings: list[tuple[str, str]], *kinds: str) -> str:
    """Return an address as git would rewrite it by `url.<base>.insteadOf`: the longest match wins."""
    for kind in kinds:
        best = max(
            ((value, key) for key, value in settings if key.startswith("url.") and key.endswith(f".{kind}") and value),
            key=lambda pair: len(pair[0]) if url.startswith(pair[0]) else -1,
            default=("", ""),
        )
        if best[0] and url.startswith(best[0]):
            return best[1].removeprefix("url.").removesuffix(f".{kind}") + url.removeprefix(best[0])
    return url
