"""What a round ends in, if it may: an action, what it would send, and the receipt that it was carried out.

    prepare ─▶ preview (an `action` gate shows it; its digest binds it) ─▶ act ─▶ receipt

Invariant: what is sent is what `preview` shows, and nothing is left to be found out afterwards: `prepare` fills in
branch, commit, remote and repository, and redacts every text. An action is done once: the intent is written down first,
and an executor that is asked again looks whether it was already done, at the place where it would do it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from attrs import evolve, frozen

from selfloop.changes import FileChange, content_digest, seal, unified_diff, visible
from selfloop.errors import RequestFailed, Stale
from selfloop.loops.spec import ActionKind
from selfloop.sandbox.history import open_history
from selfloop.sandbox.origin import Origin, read_small
from selfloop.sandbox.remotes import Remote, read_remotes, valid_branch, valid_remote, without_user

if TYPE_CHECKING:
    from selfloop.sandbox.shadow import Shadow

About = Literal["pull-request", "issue"]

LONGEST_BODY = 60_000
"""Characters; what forges take is a little more."""
_LONGEST_TITLE = 200
_MOST_CARRIED = 50
_TAG = re.compile(r"[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._/+-]{0,99}")


class ActionFailed(RequestFailed):
    """Raised when an action was not, or not provably, carried out. Asking again is safe: it looks first."""

    reason = "action"

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output
        """What a hook or a program said, for the report."""


@frozen
class Action:
    """One action. The maker and the loop give the first fields, `prepare` the others."""

    kind: ActionKind
    loop_id: str
    run_id: str
    title: str = ""
    """Of a commit, a pull request or a draft."""
    body: str = ""
    """The commit's message below its title, the pull request's or draft's text, or the comment."""
    about: About | None = None
    number: int | None = None
    """What a comment is put on."""
    tag: str | None = None
    """Of the release that a draft is for; None: the draft is a file."""
    branch: str | None = None
    """Short; None: `selfloop/<loop>/<run>`."""
    remote: str | None = None
    """A remote's name; None: where the checked-out branch is pushed to, or origin."""
    base_branch: str | None = None
    """What a pull request is to be merged into; None: the remote's default branch."""
    base_commit: str | None = None
    """What the commit stands on: the user's HEAD when it was prepared."""
    remote_url: str | None = None
    """Where the branch is pushed, without a user's name or password."""
    head: str | None = None
    """The branch as the forge names it: `owner:branch` if it lies in a fork."""
    repository: str | None = None
    """`host/owner/name` on the forge; None: no forge is known."""
    carried: tuple[str, ...] = ()
    """Commits of the user's own that a push brings along, since the remote does not have them."""
    changes_digest: str | None = None
    """Of the changes that belong to the action; they are kept elsewhere, and given with it."""

    @property
    def key(self) -> str:
        """By what it is known when it is asked for again."""
        parts = (self.run_id, self.kind, self.about, self.number, self.tag)
        return "/".join(str(part) for part in parts if part is not None)

    @property
    def marker(self) -> str:
        """What a comment, draft or pull request ends with, unseen, so that it is found again."""
        return f"<!-- selfloop:{seal('action', self.loop_id, self.key)[:32]} -->"

    @property
    def text(self) -> str:
        """The body as it is sent to a forge."""
        return f"{self.body.rstrip()}\n\n{self.marker}\n"

    @property
    def message(self) -> str:
        """The commit's whole message."""
        body = f"{self.body.strip()}\n\n" if self.body.strip() else ""
        return f"{self.title}\n\n{body}Selfloop-Loop: {self.loop_id}\nSelfloop-Run: {self.run_id}\n"

    @property
    def digest(self) -> str:
        """The sha256 over all of it; with `changes_digest` it covers the changes too."""
        return seal("action", msgspec.json.encode(self))

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return msgspec.to_builtins(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Action:
        """Read what `to_json` gave."""
        return msgspec.convert(data, Action)


@frozen
class Receipt:
    """That an action was carried out, and how far."""

    kind: ActionKind
    summary: str
    """One sentence, or two: what was done, and what was not."""
    at: str
    delivered: bool = True
    """False: the text waits in a file, or the branch is pushed but no pull request is open; `summary` says why."""
    uri: str | None = None
    """Where it can be seen, or opened by hand."""
    path: str | None = None
    """A file that holds the text."""
    branch: str | None = None
    commit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return msgspec.to_builtins(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Receipt:
        """Read what `to_json` gave."""
        return msgspec.convert(data, Receipt)


def preview(action: Action, changes: Sequence[FileChange] = ()) -> str:
    """Return what a prepared action would send, exactly, with every invisible character written out.

    Raises:
        Stale: these are not the changes that it was prepared with.
    """
    check_changes(action, changes)
    diff = "".join(unified_diff(change) for change in changes)
    repository = action.repository or "no forge: kept as a file"
    match action.kind:
        case "comment":
            what = "pull request" if action.about == "pull-request" else "issue"
            parts = [f"Comment on {what} #{action.number} ({repository}):", _quoted(action.text)]
        case "draft":
            place = f"as a draft release {action.tag} ({repository})" if action.tag else "as a file"
            parts = [f"Draft {place}: {action.title}", _quoted(action.text)]
        case "commit":
            parts = [_commit_head(action), _quoted(action.message), "Changes:", diff]
        case "open-pr":
            parts = [
                _commit_head(action),
                _quoted(action.message),
                f"Push it to {action.remote} ({action.remote_url}).",
                *(
                    ["It brings these commits of yours along:", _quoted("\n".join(action.carried))]
                    * bool(action.carried)
                ),
                f"Pull request ({repository}): {action.head} into {action.base_branch}, {action.title!r}:",
                _quoted(action.text),
                "Changes:",
                diff,
            ]
        case "apply-patch":
            parts = ["Change these files in the working folder:", diff]
        case _:
            parts = ["A report and nothing else; nothing is sent or changed."]
    return visible("\n\n".join(part.rstrip("\n") for part in parts)) + "\n"


def check_changes(action: Action, changes: Sequence[FileChange]) -> None:
    """Make sure that changes are those of an action.

    Raises:
        Stale: they are not.
    """
    there = content_digest(changes) if changes else None
    if action.changes_digest != there:
        raise Stale("The changes are not those that were shown, so nothing was done; look at the gate again.")


async def prepare(
    action: Action, changes: Sequence[FileChange], *, shadow: Shadow, redact: Callable[[str], str]
) -> Action:
    """Return the action with everything filled in that its preview shows. Only reads.

    Args:
        action: what is wished.
        changes: the maker's changes, those that belong to it.
        shadow: of the workspace.
        redact: takes secrets out of a text.

    Raises:
        ActionFailed: it cannot be done here; the sentence says why.
    """
    title = " ".join(redact(action.title).split()) or f"Changes by the loop {action.loop_id}"
    body = redact(action.body)
    if len(body) > LONGEST_BODY:
        body = f"{body[:LONGEST_BODY]}\n\n[The text was longer than {LONGEST_BODY:,} characters and ends here.]"
    digest = content_digest(changes) if changes else None
    action = evolve(action, title=title[:_LONGEST_TITLE], body=body, changes_digest=digest)
    if action.kind in ("commit", "open-pr", "apply-patch") and not changes:
        raise ActionFailed("There are no changes, so there is nothing to do.")
    if action.kind in ("comment", "draft"):
        return await _prepared_text(action, shadow)
    if action.kind == "commit":
        return await _prepared_commit(action, shadow)
    if action.kind == "open-pr":
        return await _prepared_request(await _prepared_commit(action, shadow), shadow)
    return action


async def _prepared_text(action: Action, shadow: Shadow) -> Action:
    if action.kind == "comment" and (action.about is None or action.number is None or action.number < 1):
        raise ActionFailed(
            "The comment names no pull request or issue, so it cannot be posted; name one by its number."
        )
    if action.tag is not None and not _TAG.fullmatch(action.tag):
        raise ActionFailed(f"{action.tag[:80]!r} is no name for a tag, so nothing was drafted; choose another.")
    if not action.body.strip():
        raise ActionFailed("The text is empty, so there is nothing to send.")
    base = (await read_remotes(shadow.origin, shadow.git_dir)).base
    repository = None if base is None or base.repository is None else base.repository.slug
    return evolve(action, repository=repository)


async def _prepared_commit(action: Action, shadow: Shadow) -> Action:
    _, commit = await asyncio.to_thread(shadow.origin.head)
    if shadow.origin.git_dir is None:
        raise ActionFailed("This folder is in no git repository, so nothing can be committed; approve into the files.")
    if commit is None:
        raise ActionFailed("The repository has no commit yet, so no branch can stand on it; make a first commit.")
    branch = action.branch or f"selfloop/{_part(action.loop_id)}/{_part(action.run_id)}"
    if not await valid_branch(branch, shadow.git_dir):
        raise ActionFailed(f"{branch[:120]!r} is no name for a branch, so nothing was committed; choose another.")
    return evolve(action, branch=branch, base_commit=commit)


async def _prepared_request(action: Action, shadow: Shadow) -> Action:
    remotes = await read_remotes(shadow.origin, shadow.git_dir)
    name = action.remote or remotes.push_name
    if name is None:
        raise ActionFailed("No remote is known that the branch could be pushed to, so nothing was done; add one.")
    remote = remotes.by_name.get(name) if valid_remote(name) else None
    if remote is None or not remote.push_url or remote.push_url.startswith("-"):
        raise ActionFailed(f"There is no remote {name[:80]!r} here, so nothing was pushed; choose another.")
    if len(remote.push_urls) > 1:
        raise ActionFailed(f"{name} pushes to several addresses at once, so nothing was pushed; choose another remote.")
    base = remotes.base or remote
    target, source = base.repository, remote.repository
    base_branch = action.base_branch or await asyncio.to_thread(default_branch, shadow.origin, base)
    if base_branch is None or not await valid_branch(base_branch, shadow.git_dir):
        raise ActionFailed(
            f"It is not known which branch of {base.name} to merge into, so nothing was done; name it, or run "
            f"`git remote set-head {base.name} --auto`."
        )
    history = await open_history(shadow)
    carried = await history.unpushed(action.base_commit or "", name, most=_MOST_CARRIED + 1)
    if len(carried) > _MOST_CARRIED:
        carried[_MOST_CARRIED:] = ["and more"]
    return evolve(
        action,
        remote=name,
        remote_url=without_user(remote.push_url),
        repository=target.slug if target else None,
        head=f"{source.owner}:{action.branch}" if source and target and source != target else action.branch,
        base_branch=base_branch,
        carried=tuple(carried),
    )


def default_branch(origin: Origin, remote: Remote) -> str | None:
    """Return the branch that a remote calls its default, else the checked-out one; reads the disk."""
    if origin.common_dir is not None:
        place = f"refs/remotes/{remote.name}/"
        text = (read_small(origin.common_dir / place / "HEAD", limit=4096) or b"").decode("utf-8", "replace").strip()
        if text.startswith(f"ref: {place}"):
            return text.removeprefix(f"ref: {place}")
    branch, _ = origin.head()
    return branch.removeprefix("refs/heads/") if branch else None


def _part(text: str) -> str:
    """Return a loop's or a run's name as a part of a branch's."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:60] or "run"


def _commit_head(action: Action) -> str:
    return (
        f"Commit on the new branch {action.branch}, on top of {(action.base_commit or '')[:12]}, with your git, your "
        "identity and your hooks. Your files, your index and the branch that is checked out stay as they are."
    )


def _quoted(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.rstrip("\n").split("\n"))
