"""Carries out prepared actions, each once, and gives a receipt.

    known already? ─▶ its receipt      else: intend ─▶ look, then act ─▶ settled ─▶ receipt

Invariant: one action at a time for each workspace. The intent is written before anything is sent and the receipt after
it; what a kill in between leaves open is looked up where it would have been done. Where the forge cannot be used, the
text is kept in a file, and the receipt says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from selfloop.changes import FileChange
from selfloop.loops.actions import Action, ActionFailed, Receipt, check_changes, prepare
from selfloop.loops.commits import UserRepository, compare_address
from selfloop.loops.forge import AnswerLost, Written, draft_release, forge_of, open_pull_request, post_comment
from selfloop.sandbox.gh import Forge, ForgeError, no_forge
from selfloop.storage.disk import now, saying, write_file

if TYPE_CHECKING:
    from selfloop.sandbox.shadow import Shadow


def _nothing_known(_key: str) -> Mapping[str, Any] | None:
    return None


@define
class Executors:
    """The executors of one workspace."""

    shadow: Callable[[], Awaitable[Shadow]]
    scratch: Path
    """A folder of ours in the cache, for worktrees of the user's repository."""
    outputs: Path
    """The folder of `.evo/outputs/` where texts are kept that could not be sent."""
    redact: Callable[[str], str]
    intend: Callable[[str, dict[str, Any]], bool]
    """Writes down, for good, that the action of this key is about to be carried out, and returns whether that stood
    there already: then an earlier try may have got through."""
    settled: Callable[[str, dict[str, Any]], None]
    """Writes down the receipt of this key."""
    known: Callable[[str], Mapping[str, Any] | None] = _nothing_known
    """Returns the receipt of this key, if there is one."""
    apply_patch: Callable[[Action, Sequence[FileChange]], Awaitable[Receipt]] | None = None
    """The gates' own way into the user's files."""
    _one_at_a_time: asyncio.Lock = field(factory=asyncio.Lock, init=False)

    async def prepare(self, action: Action, changes: Sequence[FileChange] = ()) -> Action:
        """See `actions.prepare`."""
        return await prepare(action, changes, shadow=await self.shadow(), redact=self.redact)

    async def act(self, action: Action, changes: Sequence[FileChange] = ()) -> Receipt:
        """Carry out a prepared action, or find that it was.

        Args:
            action: as `prepare` gave it, and as it was approved.
            changes: those that it was prepared with.

        Raises:
            Stale: the changes are others; nothing was done.
            ActionFailed: it was not, or not provably, carried out; it may be asked for again.
        """
        check_changes(action, changes)
        async with self._one_at_a_time:
            if (receipt := self.known(action.key)) is not None:
                return Receipt.from_json(dict(receipt))
            again = self.intend(action.key, action.to_json())
            receipt = await self._carry_out(action, changes, again=again)
            self.settled(action.key, receipt.to_json())
            return receipt

    async def _carry_out(self, action: Action, changes: Sequence[FileChange], *, again: bool) -> Receipt:
        match action.kind:
            case "report":
                return Receipt(action.kind, "The report is made; nothing was sent or changed.", now())
            case "comment":
                return await self._send(action, post_comment, f"The comment on {_target(action)}", "posted", again)
            case "draft" if action.tag is not None:
                return await self._send(action, draft_release, f"The draft release {action.tag}", "made", again)
            case "draft":
                path = await self._keep(action)
                return Receipt(action.kind, f"The draft is in {path}.", now(), path=path)
            case "commit":
                return await self._commit(action, changes)
            case "open-pr":
                return await self._open_request(action, changes)
            case "apply-patch" if self.apply_patch is not None:
                return await self.apply_patch(action, changes)
            case _:
                raise ActionFailed(f"There is nothing here that carries out {action.kind}, so nothing was done.")

    async def _commit(self, action: Action, changes: Sequence[FileChange]) -> Receipt:
        commit = await UserRepository(await self.shadow(), self.scratch).commit(action, changes)
        summary = f"Committed {commit[:12]} on the branch {action.branch}; your files are as they were."
        return Receipt(action.kind, summary, now(), branch=action.branch, commit=commit)

    async def _open_request(self, action: Action, changes: Sequence[FileChange]) -> Receipt:
        repository = UserRepository(await self.shadow(), self.scratch)
        commit = await repository.commit(action, changes)
        offered = await repository.push(action, commit)
        try:
            written = await open_pull_request(_forge(action), action)
        except (ForgeError, AnswerLost) as error:
            path = await self._keep(action)
            address = offered or compare_address(action)
            by_hand = f"open it at {address}" if address else "open it by hand"
            summary = (
                f"{action.branch} is pushed to {action.remote}, but no pull request is known to be open: "
                f"{error.message} Or {by_hand}; its text is in {path}."
            )
            return Receipt(action.kind, summary, now(), False, address, path, action.branch, commit)
        place = f" at {written.url}" if written.url else ""
        summary = f"The pull request of {action.branch} is open{place}."
        return Receipt(action.kind, summary, now(), uri=written.url, branch=action.branch, commit=commit)

    async def _send(
        self, action: Action, send: Callable[..., Awaitable[Written]], what: str, done: str, again: bool
    ) -> Receipt:
        try:
            written = await send(_forge(action), action, again=again)
        except AnswerLost as error:
            raise ActionFailed(f"{what} may be {done}, or not: {error.message} Asked again, it looks first.") from error
        except ForgeError as error:
            path = await self._keep(action)
            summary = f"{what} was not {done}: {error.message} Its text is in {path}."
            return Receipt(action.kind, summary, now(), delivered=False, path=path)
        place = f" at {written.url}" if written.url else ""
        return Receipt(action.kind, f"{what} is {done}{place}.", now(), uri=written.url)

    async def _keep(self, action: Action) -> str:
        """Write the text into the folder of outputs, and return the file's path."""
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(action.key.split("/")[1:])) or action.kind
        file = self.outputs / f"{name}.md"
        text = (
            f"# {action.title}\n\n{action.body.rstrip()}\n" if action.kind != "comment" else f"{action.body.rstrip()}\n"
        )

        def write() -> None:
            with saying(f"The text could not be kept in {file}"):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_file(file, text.encode("utf-8", "replace"))

        await asyncio.to_thread(write)
        return str(file)


def _forge(action: Action) -> Forge:
    forge = forge_of(action)
    if forge is None:
        raise no_forge()
    return forge


def _target(action: Action) -> str:
    return f"{'pull request' if action.about == 'pull-request' else 'issue'} #{action.number}"
