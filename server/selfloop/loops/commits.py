"""Commits and pushes in the user's own repository, by their git, with their hooks: the one place that writes there.

    a worktree of theirs in our cache ─▶ the changes, hunk by hunk ─▶ `git commit` ─▶ the worktree is removed again

Invariant: the user's working folder, index and checked-out branch are never touched; all that is left is the new
branch. Only an approved action, or one that level L3 lets through, comes here. The branch itself tells how far an
earlier try came: absent, at its base, or one commit ahead of it; so a try that was killed is finished, and none is
repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from selfloop.changes import FileChange, apply_hunks
from selfloop.errors import PathRefused, SelfloopError, Stale
from selfloop.loops.actions import Action, ActionFailed
from selfloop.sandbox.history import read_refs
from selfloop.sandbox.paths import Door
from selfloop.sandbox.remotes import Repository, valid_remote, without_user
from selfloop.sandbox.shadow import Shadow
from selfloop.sandbox.toolchains import find_dependencies
from selfloop.sandbox.userprograms import Ended, run_as_user
from selfloop.sandbox.worktree import delete_folder

_CHECKOUT_SECONDS = 600.0
_COMMIT_SECONDS = 1800.0
"""A hook may run the tests."""
_PUSH_SECONDS = 900.0
_QUICK_SECONDS = 120.0
_SAID_CHARS = 1_500
_QUIET = (
    "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "core.fsmonitor=false", "-c", "submodule.recurse=false",
    "-c", "advice.detachedHead=false",
)  # fmt: skip
"""What would leave something running behind a worktree that is soon gone."""
_ADDRESS = re.compile(r"https://[^\s\"'<>]+")


@frozen
class UserRepository:
    """The user's repository, for one action."""

    shadow: Shadow
    scratch: Path
    """A folder of ours in the cache, where its worktree lies for the time of the commit."""

    async def commit(self, action: Action, changes: Sequence[FileChange]) -> str:
        """Make the branch and its one commit, or find them, and return the commit's id.

        Raises:
            ActionFailed: nothing was committed; a hook's output is in it.
        """
        branch, base = _given(action.branch), _given(action.base_commit)
        place = self.scratch / f"selfloop-{branch.replace('/', '-')}"
        found = await self._found(branch, base)
        if found is not None:
            # A kill between the commit and the end has left its checkout.
            await self._clear(branch, base, place)
            return found
        try:
            await self._check_out(branch, base, place)
            await self._apply(changes, place, base)
            await self._record(action.message, place)
        finally:
            await asyncio.shield(asyncio.ensure_future(self._clear(branch, base, place)))
        found = await self._found(branch, base)
        if found is None:
            raise ActionFailed(f"git said that it committed, but {branch} holds no new commit; look at the repository.")
        return found

    async def push(self, action: Action, commit: str) -> str | None:
        """Push the branch, unless the remote has it; return the address at which the remote offers to go on.

        Raises:
            ActionFailed: it was not pushed, or not provably.
        """
        remote, branch, url = _given(action.remote), _given(action.branch), _given(action.remote_url)
        if not valid_remote(remote):
            raise ActionFailed(f"{remote[:80]!r} is no name of a remote, so nothing was pushed.")
        listed = await self._git("remote", "get-url", "--push", "--all", remote)
        if listed.exit_code != 0 or [without_user(line) for line in listed.output.splitlines()] != [url]:
            raise ActionFailed(f"{remote} no longer pushes to {url}, as was shown, so nothing was pushed; look again.")
        # Asked by its address: a remote may be fetched from elsewhere.
        address = listed.output.strip()
        if await self._on_remote(remote, address, branch, commit):
            return None
        arguments = ("push", "--porcelain", "--no-follow-tags", "--recurse-submodules=no", remote)
        pushed = await self._git(*arguments, f"{commit}:refs/heads/{branch}", seconds=_PUSH_SECONDS)
        if pushed.exit_code == 0:
            return _offered(pushed.complaint, action.repository)
        if pushed.exit_code is None and await self._on_remote(remote, address, branch, commit):
            return None
        raise _failed(
            f"{branch} was not pushed to {remote}", pushed, "the branch is kept here; mend this and ask again"
        )

    async def _found(self, branch: str, base: str) -> str | None:
        """Return the branch's commit if it is done, None if it is still to do.

        Raises:
            ActionFailed: there is a branch of that name that is something else.
        """
        there = await self._tip(branch)
        if there is None or there == base:
            return None
        with contextlib.suppress(SelfloopError):
            head = (await self.shadow.objects.read([there]))[there].partition(b"\n\n")[0]
            if [line[7:].decode() for line in head.split(b"\n") if line.startswith(b"parent ")] == [base]:
                return there
        raise ActionFailed(f"There is another branch {branch} already, so nothing was committed; rename or delete it.")

    async def _tip(self, branch: str) -> str | None:
        return (await asyncio.to_thread(read_refs, self.shadow.origin)).get(f"refs/heads/{branch}")

    async def _check_out(self, branch: str, base: str, place: Path) -> None:
        """Make the worktree; what an earlier try has left of it goes first."""
        await self._clear(branch, base, place)
        await asyncio.to_thread(place.parent.mkdir, parents=True, exist_ok=True)
        arguments = ("worktree", "add", "--quiet", "--no-track", "-b", branch, str(place), base)
        ended = await self._git(*arguments, seconds=_CHECKOUT_SECONDS)
        if ended.exit_code != 0:
            raise _failed("The branch could not be checked out beside your files", ended, "nothing was committed")

    async def _apply(self, changes: Sequence[FileChange], place: Path, base: str) -> None:
        prefix = self.shadow.area.prefix
        folder = place / prefix if prefix else place
        names = await asyncio.to_thread(_write, changes, folder)
        stdin = "".join(f"{prefix}{name}\0" for name in names)
        arguments = ("update-index", "--add", "--remove", "--replace", "-z", "--stdin")
        ended = await self._git(*arguments, cwd=place, stdin=stdin)
        if ended.exit_code != 0:
            raise _failed("The changes could not be added", ended, "nothing was committed")
        if (await self._git("diff-index", "--cached", "--quiet", base, "--", cwd=place)).exit_code == 0:
            raise ActionFailed("The commit that the branch stands on has these changes already; nothing was committed.")
        await asyncio.to_thread(_link_dependencies, self.shadow.workspace, folder)

    async def _record(self, message: str, place: Path) -> None:
        # Hooks are those of the user's own folder: a relative `core.hooksPath` would mean the checkout's, where a tool
        # that installs hooks has not put them, or where the very changes have put others.
        asked = await self._git("rev-parse", "--git-path", "hooks")
        if asked.exit_code != 0 or not asked.output.strip():
            raise _failed("git could not tell where your hooks are", asked, "nothing was committed")
        hooks = self.shadow.origin.top / asked.output.rstrip("\n")
        arguments = ("-c", f"core.hooksPath={hooks}", "commit", "--quiet", "--file=-", "--cleanup=whitespace")
        ended = await self._git(*arguments, cwd=place, stdin=message, seconds=_COMMIT_SECONDS)
        if ended.exit_code != 0:
            raise _failed("git, or a hook of yours, refused the commit", ended, "nothing was committed")

    async def _clear(self, branch: str, base: str, place: Path) -> None:
        """Remove the worktree, and the branch if there is nothing on it."""
        common = self.shadow.origin.common_dir
        noted = None if common is None else common / "worktrees" / place.name
        if noted is not None and await asyncio.to_thread(noted.exists):
            # Forced twice, since a kill may have left it locked.
            ended = await self._git("worktree", "remove", "--force", "--force", str(place))
            if ended.exit_code != 0:
                # What a kill has left half written is no worktree to git, and keeps it from nearly all it does.
                await asyncio.to_thread(delete_folder, noted)
        await asyncio.to_thread(delete_folder, place)
        await asyncio.to_thread(self._unlock, branch)
        if await self._tip(branch) == base:
            await self._git("update-ref", "-d", f"refs/heads/{branch}", base)

    def _unlock(self, branch: str) -> None:
        """Remove the lock that a git killed with us has left on the branch, which nobody else ever writes."""
        if self.shadow.origin.common_dir is not None:
            (self.shadow.origin.common_dir / "refs" / "heads" / f"{branch}.lock").unlink(missing_ok=True)

    async def _on_remote(self, remote: str, address: str, branch: str, commit: str) -> bool:
        """Tell whether the remote has the branch at this commit.

        Raises:
            ActionFailed: it could not be asked, or has another commit there.
        """
        ended = await self._git("ls-remote", "--quiet", "--", address, f"refs/heads/{branch}")
        if ended.exit_code != 0:
            raise _failed(f"{remote} could not be reached", ended, "the branch is kept here; nothing was pushed")
        found = ended.output.split()
        if found and found[0] != commit:
            raise ActionFailed(f"{remote} has another branch {branch}, so nothing was pushed; rename or delete it.")
        return bool(found)

    async def _git(
        self, *arguments: str, cwd: Path | None = None, stdin: str | None = None, seconds: float = _QUICK_SECONDS
    ) -> Ended:
        top = cwd or self.shadow.origin.top
        return await run_as_user("git", *_QUIET, *arguments, cwd=top, stdin=stdin, timeout_seconds=seconds)


def _write(changes: Sequence[FileChange], folder: Path) -> list[str]:
    """Apply all hunks of the changes to the files of a checkout, and return the paths that were written or deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    door = Door(folder)
    names: list[str] = []
    for change in changes:
        here = change.old_path or change.path
        try:
            content, mode = door.read_entry(here) or (None, None)
            result = apply_hunks(change, [hunk.id for hunk in change.hunks], content, mode)
            if result.removed is not None:
                door.delete(result.removed, link=True)
                names.append(result.removed)
            if result.content is None:
                if content is not None:
                    door.delete(result.path, link=True)
            else:
                door.write_bytes(result.path, result.content, result.mode or 0o100644)
            names.append(result.path)
        except Stale as error:
            raise ActionFailed(
                f"{here} is not the same in your folder and in the commit that the branch stands on, so nothing was "
                f"committed ({error.message.split('. ')[0].rstrip('.')}); commit your own changes first, or approve "
                "it into the files."
            ) from error
        except PathRefused as error:
            raise ActionFailed(
                f"{here} cannot be written in the branch ({error.message}), so nothing was committed."
            ) from error
    return names


def _link_dependencies(workspace: Path, folder: Path) -> None:
    """Let hooks find what they are made of (`node_modules`, `.venv`), which no checkout holds."""
    for relative in find_dependencies(workspace, folder):
        target = folder / relative
        with contextlib.suppress(OSError):
            if target.is_dir():
                target.rmdir()
            target.symlink_to(workspace / relative, target_is_directory=True)


def _given(value: str | None) -> str:
    if value is None:
        raise ActionFailed("The action was not prepared, so nothing was done; prepare it first.")
    return value


def _failed(what: str, ended: Ended, then: str) -> ActionFailed:
    said = ended.said.strip()
    if ended.exit_code is None:
        return ActionFailed(f"{what}: it took too long and was ended; {then}.", output=said)
    short = said if len(said) <= _SAID_CHARS else f"…{said[-_SAID_CHARS:]}"
    return ActionFailed(f"{what}; {then}. It said: {short or 'nothing'}", output=said)


def _offered(complaint: str, repository: str | None) -> str | None:
    """Return the address that the remote printed to open a pull request at, if it is the forge's own."""
    said = " ".join(line.removeprefix("remote:") for line in complaint.splitlines() if line.startswith("remote:"))
    host = (repository or "/").split("/")[0]
    return next((url for url in _ADDRESS.findall(said) if host and url.startswith(f"https://{host}/")), None)


def compare_address(action: Action) -> str | None:
    """Return where a browser opens the pull request by hand, as most forges have it; None without a forge."""
    if action.repository is None:
        return None
    return f"{Repository(*action.repository.split('/', 2)).web}/compare/{action.base_branch}...{action.head}?expand=1"
