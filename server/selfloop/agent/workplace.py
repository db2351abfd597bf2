"""The session's worktree over its turns: opened on what the user sees, kept in step with it, and put before the user.

Invariant: what the agent does happens in the worktree; what the user has is touched by gates alone. The worktree is
found again after a restart by the id in the session's state.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from selfloop.agent.tools.tool import Ran
from selfloop.agent.tools.verdicts import check_kind
from selfloop.changes import FileChange, Placed, apply_hunks, carry, taken_back
from selfloop.errors import PathRefused, Stale
from selfloop.gates.gate import EvidenceItem, GateRecord
from selfloop.sandbox.paths import Door
from selfloop.updates import FileStat

if TYPE_CHECKING:
    from selfloop.gates.gates import Gates
    from selfloop.sandbox.pool import Pool
    from selfloop.sandbox.worktree import Worktree
    from selfloop.storage.sessions import Sessions

_TITLE_CHARS = 80
_RULES_BYTES = 256 * 1024


@define
class Workplace:
    """See the module."""

    session_id: str
    workspace: Path
    sessions: Sessions
    gates: Gates
    pool: Callable[[], Awaitable[Pool]]
    uri: Callable[[str], str]
    redact: Callable[[str], str]
    _worktree: Worktree | None = field(default=None, init=False)
    _lock: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    """Held while the worktree is opened, synchronised or taken back."""

    async def open(self, overlay: Mapping[str, bytes] | None, *, yielding: bool) -> tuple[Worktree, list[str]]:
        """Return the worktree with the user's text as it is now, and the paths that could not be brought together.

        Args:
            overlay: the unsaved buffers; None: what the editor shows is not known, so an open worktree stays as it is.
            yielding: where both have changed the same lines, the user's replace the agent's.

        Raises:
            SandboxError: there is none and none can be made; nothing was done.
        """
        async with self._lock:
            worktree = await self._reopened()
            if worktree is not None:
                return worktree, [] if overlay is None else await self._sync(worktree, overlay, yielding=yielding)
            pool = await self.pool()
            self._worktree = worktree = await pool.acquire(overlay or {})
            self.sessions.set_state(self.session_id, worktree=worktree.id)
            await self._bring_back(worktree)
            return worktree, []

    @property
    def is_open(self) -> bool:
        """Whether there is a worktree, so that something can have changed."""
        return self._worktree is not None

    async def sync(self, overlay: Mapping[str, bytes] | None) -> None:
        """Bring in what the user has typed since, if there is a worktree."""
        async with self._lock:
            if self._worktree is not None and overlay is not None:
                await self._sync(self._worktree, overlay)

    async def changes(self) -> list[FileChange]:
        """Return what the session has changed and the user does not have; nothing where there is no worktree."""
        async with self._lock:
            worktree = await self._reopened()
            return [] if worktree is None else await worktree.changes()

    async def withdraw(self, changes: Sequence[FileChange]) -> None:
        """Take rejected hunks out of the worktree; what the agent has changed there since stays as it is."""
        async with self._lock:
            worktree = await self._reopened()
            if worktree is None:
                return
            for change in changes:
                with contextlib.suppress(Stale, PathRefused):
                    await _apply(worktree, change, [hunk.id for hunk in change.hunks])

    async def propose(
        self,
        changes: Sequence[FileChange],
        *,
        title: str,
        words: Sequence[str],
        ran: Sequence[Ran],
        turn_id: str,
        outputs: Path,
    ) -> GateRecord | None:
        """Put the session's changes before the user, in its one gate; `words` is what the user said in this turn."""
        files = f"{len(changes)} file{'s' if len(changes) != 1 else ''}"
        heading = " ".join(title.split())
        heading = heading if len(heading) <= _TITLE_CHARS else heading[: _TITLE_CHARS - 1] + "…"
        return self.gates.propose(
            self.session_id,
            changes,
            title=f"{heading} ({files})" if heading else f"Changes in {files}",
            evidence=[self._evidence(item, outputs) for item in ran],
            words=words,
            turn_id=turn_id,
        )

    async def stats(self) -> list[FileStat]:
        """Return the changed files with their lines added and removed."""
        return [
            FileStat(
                uri=self.uri(change.path),
                added=sum(_lines(hunk.new) for hunk in change.hunks),
                removed=sum(_lines(hunk.old) for hunk in change.hunks),
            )
            for change in await self.changes()
        ]

    def rules(self, overlay: Mapping[str, bytes] | None) -> str | None:
        """Return the user's AGENTS.md, not the agent's copy: the agent does not set its own rules. Reads the disk."""
        data = (overlay or {}).get("AGENTS.md")
        if data is None:
            try:
                data = Door(self.workspace).read_bytes("AGENTS.md", limit=_RULES_BYTES)
            except PathRefused:
                return None
        return data.decode("utf-8", "replace").removeprefix("\ufeff")

    async def discard(self) -> None:
        """Give the worktree back: the session is deleted."""
        worktree = await self.let_go()
        if worktree is not None:
            await (await self.pool()).release(worktree)

    async def let_go(self) -> Worktree | None:
        """Return the worktree, which is no longer the session's: its next turn has a new one. None: it has none."""
        async with self._lock:
            worktree = await self._reopened()
            self._worktree = None
            self.sessions.set_state(self.session_id, worktree=None)
            return worktree

    async def _sync(self, worktree: Worktree, overlay: Mapping[str, bytes], *, yielding: bool = False) -> list[str]:
        """Bring in what the user has, but for hunks that the user took back: they wait as a proposal, so they stay."""
        kept = await self._taken_back(worktree)
        conflicts = await worktree.sync(overlay, yielding=yielding)
        for change, hunk_ids, standing in kept:
            entry = await asyncio.to_thread(_entry, worktree, change, change.path)
            content, mode = entry if entry is not None else (None, None)
            gone = taken_back(change, content, mode, applied=standing)
            if gone & hunk_ids:
                with contextlib.suppress(Stale, PathRefused):
                    await _apply(worktree, change, gone & hunk_ids, standing - gone)
        return conflicts

    async def _taken_back(self, worktree: Worktree) -> list[tuple[FileChange, set[str], set[str]]]:
        """Return the files with hunks that the user took back: these hunks, and all that stand in the worktree.

        One that the agent itself has removed there since does not stand, and is not brought again.
        """
        proposal = self.gates.proposed(self.session_id)
        found = []
        for change in proposal.files if proposal is not None else ():
            states = proposal.state_of(change).values() if proposal is not None else ()
            wanted = {state.hunk_id for state in states if state.taken_back and state.status == "pending"}
            if not wanted:
                continue
            entry = await asyncio.to_thread(_entry, worktree, change, change.path)
            content, mode = entry if entry is not None else (None, None)
            mine = {state.hunk_id for state in states if state.status != "rejected"}
            places = carry(change, content, mode, applied=mine)
            standing = {name for name in mine if isinstance(place := places[name], Placed) and place.already}
            found.append((change, wanted & standing, standing))
        return found

    async def _bring_back(self, worktree: Worktree) -> None:
        """Put into a new worktree what waits at the session's gate: the old one is gone with the cache."""
        proposal = self.gates.proposed(self.session_id)
        if proposal is None:
            return
        for change in proposal.files:
            waiting = [state.hunk_id for state in proposal.state_of(change).values() if state.status == "pending"]
            with contextlib.suppress(Stale, PathRefused):
                await _apply(worktree, change, waiting, proposal.applied())

    async def _reopened(self) -> Worktree | None:
        if self._worktree is None and (kept := self.sessions.state(self.session_id).get("worktree")):
            self._worktree = await (await self.pool()).reopen(kept)
        return self._worktree

    def _evidence(self, ran: Ran, outputs: Path) -> EvidenceItem:
        path = None
        if ran.spilled is not None and outputs.is_relative_to(self.workspace):
            path = (outputs / ran.spilled).relative_to(self.workspace).as_posix()
        return EvidenceItem(check_kind(ran.command) or "command", self.redact(ran.command), ran.exit_code, path)


def _entry(worktree: Worktree, change: FileChange, path: str) -> tuple[bytes, int] | None:
    """Return the worktree's own file of a change; where it was renamed back, that one."""
    door = worktree.door
    try:
        entry = door.read_entry(path)
        return door.read_entry(change.old_path) if entry is None and change.old_path is not None else entry
    except PathRefused:
        return None


async def _apply(
    worktree: Worktree, change: FileChange, hunk_ids: Collection[str], applied: Collection[str] = ()
) -> None:
    """Apply hunks to the worktree's own file.

    Raises:
        Stale: the file is no longer what they belong to.
    """
    here = change.old_path or change.path
    entry = await asyncio.to_thread(worktree.door.read_entry, here)
    content, mode = entry if entry is not None else (None, None)
    result = apply_hunks(change, hunk_ids, content, mode, applied=applied)
    if result.removed is not None:
        await worktree.restore(result.removed, None, None)
    await worktree.restore(result.path, result.content, result.mode)


def _lines(text: str) -> int:
    return text.count("\n") + (1 if text and not text.endswith("\n") else 0)
