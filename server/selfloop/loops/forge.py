"""What an approved action writes on the forge, by the user's own `gh`: a pull request, a comment, a draft release.

Invariant: each looks first whether it is there already, by the branch or by the unseen marker, and looks again when the
forge's answer was lost; so it is written once, however often it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from attrs import frozen

from selfloop.errors import RequestFailed
from selfloop.loops.actions import Action
from selfloop.sandbox.gh import Forge, ForgeError, ForgeFailure
from selfloop.sandbox.remotes import Repository

_WRITE_SECONDS = 90.0
_NOTHING_SENT: frozenset[ForgeFailure] = frozenset({"missing", "logged-out", "rate-limited", "not-found", "no-forge"})
_ADDRESS = re.compile(r"https://[^\s\"'<>]+")


class AnswerLost(RequestFailed):
    """Raised when it is not known whether the forge has taken something."""

    reason = "forge"


@frozen
class Written:
    """What stands on the forge now."""

    url: str | None
    before: bool
    """It was there already."""


def forge_of(action: Action) -> Forge | None:
    """Return the forge that a prepared action goes to."""
    return None if action.repository is None else Forge(Repository(*action.repository.split("/", 2)))


async def open_pull_request(forge: Forge, action: Action, *, again: bool = False) -> Written:
    """Open the pull request of a pushed branch.

    Raises:
        AnswerLost: it may be open.
        ForgeError: it is not.
    """
    flags = (f"--head={action.head}", f"--base={action.base_branch}", f"--title={action.title}", "--body-file=-")
    return await _once(forge, action, _request, ("pr", "create", *flags), again=again)


async def post_comment(forge: Forge, action: Action, *, again: bool = False) -> Written:
    """Put a comment on a pull request or an issue.

    Raises:
        AnswerLost: it may be there.
        ForgeError: it is not.
    """
    return await _once(
        forge, action, _comment, (_command(action), "comment", str(action.number), "--body-file=-"), again=again
    )


async def draft_release(forge: Forge, action: Action, *, again: bool = False) -> Written:
    """Make a draft release; one of the same tag that somebody else has made is left as it is.

    Raises:
        AnswerLost: it may be there.
        ForgeError: it is not.
    """
    flags = (action.tag or "", "--draft", f"--title={action.title}", "--notes-file=-")
    return await _once(forge, action, _release, ("release", "create", *flags), again=again)


async def _once(
    forge: Forge,
    action: Action,
    look: Callable[[Forge, Action], Awaitable[Written | None]],
    call: Sequence[str],
    *,
    again: bool,
) -> Written:
    """Make a writing call, unless what it writes is there; `again`: an earlier try may have made it."""
    try:
        found = await look(forge, action)
    except ForgeError as error:
        if again:
            raise AnswerLost(error.message) from error
        raise
    if found is not None:
        return found
    try:
        output = await forge.run(*call, stdin=action.text, timeout_seconds=_WRITE_SECONDS)
    except ForgeError as error:
        surely_not = error.kind in _NOTHING_SENT
        try:
            found = await look(forge, action)
        except ForgeError as other:
            if surely_not:
                raise error from other
            raise AnswerLost(error.message) from error
        if found is not None:
            return found
        if error.kind == "slow":
            # What `gh` had sent may still be on its way.
            raise AnswerLost(error.message) from error
        raise
    return Written(_address(forge, output), before=False)


async def _request(forge: Forge, action: Action) -> Written | None:
    flags = (f"--head={action.branch}", "--state=all", "--limit=20")
    rows = await forge.read("pr", "list", *flags, fields="number,url,headRefName")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("headRefName") == action.branch:
            return Written(_address(forge, row.get("url")), before=True)
    return None


async def _comment(forge: Forge, action: Action) -> Written | None:
    answer = await forge.read(_command(action), "view", str(action.number), fields="comments,url")
    comments = answer.get("comments") if isinstance(answer, dict) else None
    if not isinstance(comments, list):
        # Not to know whether it is there is a reason not to write it.
        raise ForgeError("`gh` did not say which comments there are, so nothing was posted; update it.", kind="garbage")
    for comment in comments:
        # Somebody else may have copied the text with its marker.
        mine = isinstance(comment, dict) and comment.get("viewerDidAuthor") is not False
        if mine and action.marker in str(comment.get("body")):
            return Written(_address(forge, comment.get("url")), before=True)
    return None


async def _release(forge: Forge, action: Action) -> Written | None:
    try:
        answer = await forge.read("release", "view", action.tag or "", fields="body,url,isDraft")
    except ForgeError as error:
        if error.kind == "not-found":
            return None
        raise
    if isinstance(answer, dict) and action.marker in str(answer.get("body")):
        return Written(_address(forge, answer.get("url")), before=True)
    raise ForgeError(
        f"There is a release {action.tag} already, so none was drafted; choose another tag.", kind="refused"
    )


def _command(action: Action) -> str:
    return "pr" if action.about == "pull-request" else "issue"


def _address(forge: Forge, text: Any) -> str | None:
    """Return the forge's own address in an answer."""
    found = _ADDRESS.findall(text) if isinstance(text, str) else []
    return next((url for url in reversed(found) if url.startswith(f"https://{forge.repository.host}/")), None)
