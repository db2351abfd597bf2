"""The history of the user's repository, to be read: commits, branches, tags, and who wrote a line when.

Invariant: git works on a repository of ours that holds nothing but the names of the user's branches and tags, read as
data, and borrows the user's objects. So what the user's configuration or attributes name is never run, and nothing is
written where the user works.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from selfloop.errors import SandboxError
from selfloop.sandbox.git import GitError, git
from selfloop.sandbox.origin import Origin, read_small

if TYPE_CHECKING:
    from selfloop.sandbox.shadow import Shadow

_MOST_REFS = 20_000
_MOST_PACKED_BYTES = 64 << 20
_MOST_DIFF_LINES = 5_000
_BIG_FILE = "1m"
_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/(?:heads|remotes|tags)/(?!.*(?:\.\.|//|/\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]+(?<!\.lock)(?<!/)")
_PACKED = re.compile(rb"^([0-9a-f]{40}|[0-9a-f]{64}) (refs/(?:heads|remotes|tags)/[^\n]+)$", re.MULTILINE)
_NAME = re.compile(r"(?![-.@/])(?!.*(?:\.\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]{1,200}")
_CONFIG = "[core]\n\trepositoryformatversion = {version}\n\tbare = false\n\thooksPath = /dev/null\n{extensions}"
_FIELD, _RECORD = "\x1f", "\x1e"


@frozen
class Commit:
    """One commit."""

    id: str
    author: str
    at: str
    """ISO 8601, by the author's clock."""
    names: str
    """Branches and tags that stand on it, as git writes them."""
    subject: str
    body: str
    files: tuple[str, ...]
    """What it touched, where that was asked for."""


@frozen
class Branch:
    """One branch, here or on a remote as it was last fetched."""

    name: str
    """Short: `topic`, `origin/topic`."""
    commit: str
    at: str
    author: str
    subject: str
    merged: bool
    """All of its commits are in the base branch too."""


@frozen
class History:
    """See the module. Open it with `open_history` for each look: branches move."""

    git_dir: Path
    prefix: str
    """The workspace's place in the repository: empty, or ending with a slash."""
    branch: str | None
    """The branch that is checked out, short; None where none is."""
    commit: str
    """What is checked out."""
    base: str
    """The branch that others are merged into, as far as the names tell; else what is checked out."""

    async def log(
        self,
        *,
        most: int,
        since: str | None = None,
        after: str | None = None,
        until: str | None = None,
        path: str | None = None,
        files: bool = False,
    ) -> list[Commit]:
        """Return commits, newest first.

        Args:
            most: how many at most.
            since: a date as git reads it, such as `2026-01-31` or `2 weeks ago`.
            after: a branch, tag or commit whose own history is left out.
            until: where to begin; None: what is checked out.
            path: a file or folder of the workspace.
            files: whether to name what each commit touched.

        Raises:
            SandboxError: a name is no commit here.
        """
        form = _FIELD.join(("%H", "%an", "%aI", "%D", "%s", "%b", ""))
        arguments = ["log", f"--format={_RECORD}{form}", f"--max-count={most}", "--no-show-signature"]
        arguments += ["--name-only", "--diff-merges=first-parent"] if files else []
        arguments += [f"--since={since}"] if since else []
        arguments += [await self.resolve(until) if until else self.commit]
        arguments += [f"^{await self.resolve(after)}"] if after else []
        place = self.prefix + (path or "")
        arguments += ["--", *([f":(literal){place}"] if place not in ("", ".") else [])]
        output = (await self._git(*arguments)).decode("utf-8", "replace")
        commits = []
        for record in output.split(_RECORD)[1:]:
            fields = record.split(_FIELD)
            if len(fields) == 7:
                touched = tuple(line for line in fields[6].split("\n") if line)
                name, author, at, names, subject, body, _ = fields
                commits.append(Commit(name, author, at, names, subject, body.strip(), touched))
        return commits

    async def diff(self, commit: str, path: str | None = None) -> str:
        """Return what a commit changed against its first parent, as a unified diff; of a large one, only the counts.

        Args:
            commit: its id.
            path: only this file or folder of the workspace.
        """
        place = self.prefix + (path or "")
        within = ["--", *([f":(literal){place}"] if place not in ("", ".") else [])]
        show = ["show", "--format=", "--diff-merges=first-parent", "-M", "--no-color", "--no-ext-diff", "--no-textconv"]
        # A file above the threshold is told as binary, without its lines.
        config = {"core.bigFileThreshold": _BIG_FILE}
        counts = await git(*show, "--numstat", commit, *within, git_dir=self.git_dir, config=config)
        lines = sum(int(count) for row in counts.splitlines() for count in row.split(b"\t")[:2] if count.isdigit())
        if lines > _MOST_DIFF_LINES:
            return f"{lines:,} lines changed, added and removed by file:\n{counts.decode('utf-8', 'replace')}"
        return (await git(*show, "--patch", commit, *within, git_dir=self.git_dir, config=config)).decode(
            "utf-8", "replace"
        )

    async def branches(self, *, remote: bool) -> list[Branch]:
        """Return the branches, those untouched for longest first."""
        places = ("refs/heads", "refs/remotes") if remote else ("refs/heads",)
        merged = await self._git("for-each-ref", f"--merged={self.base}", "--format=%(refname)", *places)
        done = set(merged.decode("utf-8", "replace").splitlines())
        form = "%1f".join(
            f"%({name})"
            for name in (
                "refname", "refname:short", "objectname", "committerdate:iso-strict", "authorname", "contents:subject",
            )
        )  # fmt: skip
        output = await self._git("for-each-ref", "--sort=committerdate", f"--format={form}", *places)
        rows = [line.split(_FIELD) for line in output.decode("utf-8", "replace").splitlines()]
        return [Branch(*row[1:], merged=row[0] in done) for row in rows if len(row) == 6]

    async def unpushed(self, commit: str, remote: str, *, most: int) -> list[str]:
        """Return, newest first, the id and subject of the commits that a remote did not have when last fetched."""
        arguments = ("log", "--format=%h %s", f"--max-count={most}", commit, "--not", f"--remotes={remote}")
        return (await self._git(*arguments)).decode("utf-8", "replace").splitlines()

    async def line_ages(self, path: str) -> dict[str, datetime]:
        """Return when each line of a committed file was last changed, by its text; of equal lines the oldest."""
        try:
            place = f"{self.prefix}{path}"
            output = await git("blame", "--line-porcelain", self.commit, "--", place, git_dir=self.git_dir,
                               timeout_seconds=10.0)  # fmt: skip
        except SandboxError:
            return {}  # A file that is not committed has no ages, and one whose history is too long is not worth them.
        ages: dict[str, datetime] = {}
        at = datetime.now(UTC)
        for line in output.decode("utf-8", "replace").split("\n"):
            if line.startswith("author-time "):
                at = datetime.fromtimestamp(int(line.removeprefix("author-time ")), UTC)
            elif line.startswith("\t"):
                text = line[1:].strip()
                ages[text] = min(at, ages.get(text, at))
        return ages

    async def resolve(self, name: str) -> str:
        """Return the commit that a name stands for.

        Raises:
            SandboxError: it stands for none.
        """
        if not _NAME.fullmatch(name):
            raise SandboxError(f"{name[:80]!r} is no name of a branch, tag or commit, so nothing was read.")
        try:
            output = await self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        except GitError as error:
            raise SandboxError(
                f"There is no branch, tag or commit {name[:80]!r} here, so nothing was read; list_branches and git_log "
                "show which there are."
            ) from error
        # Older gits print the mark that ends the options too.
        return output.decode().split()[-1]

    async def _git(self, *arguments: str) -> bytes:
        return await git(*arguments, git_dir=self.git_dir, timeout_seconds=60.0)


async def open_history(shadow: Shadow) -> History:
    """Open the history as the user's branches stand now.

    Raises:
        SandboxError: there is no repository, or no commit in it.
    """
    origin = shadow.origin
    branch, commit = await asyncio.to_thread(origin.head)
    if origin.common_dir is None or origin.objects is None:
        raise SandboxError("This folder is in no git repository, so there is no history to read.")
    if commit is None:
        raise SandboxError("This repository has no commit yet, so there is no history to read.")
    folder = shadow.cache / "history.git"
    refs = await asyncio.to_thread(read_refs, origin)
    await asyncio.to_thread(_lay_out, folder, origin, shadow.git_dir / "objects", refs, branch, commit)
    names = ("refs/remotes/origin/HEAD", "refs/heads/main", "refs/heads/master", "refs/heads/trunk")
    base = next((refs[name] for name in names if name in refs), commit)
    return History(folder, shadow.area.prefix, branch and branch.removeprefix("refs/heads/"), commit, base)


def read_refs(origin: Origin) -> dict[str, str]:
    """Return the branches and tags of the user's repository with the objects they name; reads the disk."""
    if origin.common_dir is None:
        return {}
    packed = read_small(origin.common_dir / "packed-refs", limit=_MOST_PACKED_BYTES) or b""
    found = {os.fsdecode(match[2]): match[1].decode() for match in _PACKED.finditer(packed)}
    symbolic: dict[str, str] = {}
    for name, file in _loose(origin.common_dir):
        text = (read_small(file, limit=4096) or b"").decode("utf-8", "replace").strip()
        if _OBJECT_ID.fullmatch(text):
            found[name] = text
        elif text.startswith("ref:"):
            symbolic[name] = text.removeprefix("ref:").strip()
    found |= {name: found[target] for name, target in symbolic.items() if target in found}
    return {name: found[name] for name in sorted(found)[:_MOST_REFS] if _REF.fullmatch(name)}


def _loose(common_dir: Path) -> Iterator[tuple[str, Path]]:
    """Yield the loose branches and tags; links are not followed."""
    seen = 0
    for kind in ("heads", "remotes", "tags"):
        for folder, inner, names in os.walk(common_dir / "refs" / kind, followlinks=False):
            inner[:] = [name for name in inner if not os.path.islink(f"{folder}/{name}")]  # noqa: PTH114
            for name in names:
                seen += 1
                if seen > _MOST_REFS:
                    return
                file = Path(folder) / name
                yield file.relative_to(common_dir).as_posix(), file


def _lay_out(
    folder: Path, origin: Origin, own_objects: Path, refs: Mapping[str, str], branch: str | None, commit: str
) -> None:
    for inner in ("objects/info", "refs/heads", "info"):
        (folder / inner).mkdir(parents=True, exist_ok=True, mode=0o700)
    sha256 = origin.object_format == "sha256"
    known = {**refs, **({branch: commit} if branch else {})}
    shallow = read_small(origin.common_dir / "shallow") if origin.common_dir else None
    files = {
        "HEAD": f"ref: {branch}\n" if branch else f"{commit}\n",
        "config": _CONFIG.format(
            version=int(sha256), extensions="[extensions]\n\tobjectFormat = sha256\n" if sha256 else ""
        ),
        "packed-refs": "".join(f"{known[name]} {name}\n" for name in sorted(known)),
        "objects/info/alternates": f"{origin.objects}\n{own_objects}\n",
        # Without it, git would look for parents that a shallow clone never had.
        "shallow": (shallow or b"").decode("ascii", "replace"),
    }
    for name, text in files.items():
        temporary = folder / f"{name}.{os.urandom(4).hex()}"
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
        temporary.replace(folder / name)
    if not files["shallow"]:
        (folder / "shallow").unlink(missing_ok=True)
