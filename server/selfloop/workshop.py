"""What turns are made with: the model, the worktrees, the jail, the prompts. One for each workspace that runs any.

It is a module of its own because it is heavy to import: the worker does so only once a workspace is trusted.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from selfloop.agent.conversation import Conversation, Parts
from selfloop.agent.prompts import Prompts
from selfloop.agent.repomap import RepositoryMap
from selfloop.config import Settings
from selfloop.errors import SelfloopError
from selfloop.gates.gates import Gates
from selfloop.host import Host
from selfloop.model.client import ModelClient
from selfloop.sandbox.git import distrust
from selfloop.sandbox.isolation import Isolation, probe
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow
from selfloop.storage.journal import UpdateJournal
from selfloop.storage.memory import Memory
from selfloop.storage.sessions import SessionRecord, Sessions
from selfloop.storage.store import Store
from selfloop.updates import MessageChunk, MessageUpdate, Update

if TYPE_CHECKING:
    from selfloop.evolution.report import JudgeReport
    from selfloop.loops.flows import Flow
    from selfloop.loops.service import LoopService
    from selfloop.loops.spec import ActionKind

logger = logging.getLogger(__name__)


class Premises(Protocol):
    """What the workshop needs of its workspace."""

    path: Path
    settings: Settings
    store: Store
    sessions: Sessions

    @property
    def gates(self) -> Gates:
        """The workspace's gates."""

    def emit(self, update: Update, session_id: str | None = None, *, run_id: str | None = None) -> None:
        """Number an update, write it down, and send it."""

    def notice(self, severity: str, text: str, session_id: str | None = None) -> None:
        """Tell the user one sentence."""

    def updates(self, session_id: str | None) -> UpdateJournal:
        """Return the journal of a session."""

    def uri(self, path: str) -> str:
        """Return the URI of a path relative to the workspace."""

    def redact(self, text: str) -> str:
        """Return the text without secrets."""


class Workshop:
    """See the module."""

    def __init__(self, premises: Premises, host: Host) -> None:
        self._premises, self._host = premises, host
        distrust(premises.path)
        self._prompts = Prompts.load()
        self._map = RepositoryMap()
        self._isolation: asyncio.Future[Isolation] | None = None
        self._pool: asyncio.Future[Pool] | None = None
        self._shadow: Shadow | None = None
        self._told: set[str] = set()
        self.model = ModelClient(premises.settings, keys=host.key)

    def use_model(self, settings: Settings) -> None:
        """Use other settings of the model from the next call on."""
        self.model = ModelClient(settings, keys=self._host.key)

    async def warm(self) -> None:
        """Find out how well commands are fenced, and have a worktree ready, before the first prompt needs them."""
        await self.isolation()
        try:
            await self.pool()
        except SelfloopError as error:
            logger.warning("%s: %s", self._premises.path, error.message)  # The first prompt will say it to the user.

    async def isolation(self) -> Isolation:
        """Return what the canary found, once for the life of the worker."""
        if self._isolation is None:
            self._isolation = self._host.spawn(probe(self._premises.settings), "isolation")
        return await asyncio.shield(self._isolation)

    def know_isolation(self, found: Isolation) -> None:
        """Take what a canary has found in this process before."""
        self._isolation = asyncio.get_running_loop().create_future()
        self._isolation.set_result(found)

    async def pool(self) -> Pool:
        """Return the pool of worktrees, made when first needed; a failure is tried again the next time."""
        if self._pool is None or (self._pool.done() and (self._pool.cancelled() or self._pool.exception())):
            self._pool = asyncio.ensure_future(self._open_pool())
        self._tell_what_is_left_out()
        return await asyncio.shield(self._pool)

    async def _open_pool(self) -> Pool:
        cache = self._host.folders.workspace_cache(self._premises.path)
        self._shadow = shadow = await Shadow.open(self._premises.path, cache)
        pool = Pool(shadow, cache)
        self._host.spawn(self._fill(pool), "pool")
        return pool

    async def _fill(self, pool: Pool) -> None:
        try:
            await pool.refill()
        finally:
            self._tell_what_is_left_out()

    def _tell_what_is_left_out(self) -> None:
        """Tell the user what the agent does not see, each once; the sandbox finds it out as it takes files in."""
        for sentence in self._shadow.notices if self._shadow is not None else ():
            if sentence not in self._told:
                self._told.add(sentence)
                self._premises.notice("info", sentence)

    async def shadow(self) -> Shadow:
        """Return the shadow repository, made with the pool when first needed."""
        await self.pool()
        assert self._shadow is not None  # noqa: S101  The pool is made of it.
        return self._shadow

    def open_loops(self) -> LoopService:
        """Return the workspace's loops; nothing of them runs yet."""
        from selfloop.evolution.flow import SelfEvolution
        from selfloop.evolution.generations import Generations
        from selfloop.evolution.promoting import Promotion
        from selfloop.loops.means import Means
        from selfloop.loops.service import LoopService

        premises, host = self._premises, self._host
        means = Means(
            workspace=premises.path,
            store=premises.store,
            sessions=premises.sessions,
            gates=premises.gates,
            rules=host.rules,
            parts=self.parts,
            pool=self.pool,
            shadow=self.shadow,
            isolation=self.isolation,
            snapshot=lambda: host.snapshot(premises.path),
            editor=lambda: host.editor(premises.path),
            emit=premises.emit,
            say=premises.notice,
            redact=premises.redact,
            known_secrets=host.secrets,
            uri=premises.uri,
            retention_days=lambda: premises.settings.retention_days,
            scratch=host.folders.workspace_cache(premises.path) / "commits",
        )
        generations = Generations(host.folders.data, premises.settings.self_folder)
        promotion = Promotion(
            means,
            generations,
            lambda number, tree: host.swap(uuid.uuid4().hex[:12], number=number, tree=tree, by="approval"),
        )
        evolution = SelfEvolution(
            means, generations, promotion, _judge, host.folders.cache / "self", lambda: premises.settings
        )
        flows: Mapping[ActionKind, Flow] = {"promote-generation": evolution}
        loops = LoopService(means, builtin=self._prompts.folder / "loops", folders=host.folders, flows=flows)
        promotion.receipt = loops.acting.add_receipt
        return loops

    def open_conversation(self, record: SessionRecord) -> Conversation:
        """Return a session's conversation, rebuilt from its trajectory."""
        return Conversation(self.parts(record))

    def parts(self, record: SessionRecord) -> Parts:
        """Return what turns in a session are made with; whoever is given it closes the trajectory."""
        premises, session_id = self._premises, record.id
        trajectory = premises.sessions.trajectory(session_id)
        if trajectory.repaired:
            premises.notice("warning", trajectory.repaired, session_id)
        return Parts(
            workspace=premises.path,
            session=record,
            sessions=premises.sessions,
            trajectory=trajectory,
            model=self.model,
            prompts=self._prompts,
            pool=self.pool,
            gates=premises.gates,
            memory=Memory(premises.store),
            settings=premises.settings,
            isolation=self.isolation,
            emit=lambda update: premises.emit(update, session_id),
            redact=premises.redact,
            outputs=premises.sessions.outputs(session_id),
            uri=premises.uri,
            secrets=self._host.secrets,
            streamed=lambda message_id: self._streamed(session_id, message_id),
            repository_map=self._map,
        )

    def _streamed(self, session_id: str, message_id: str) -> str:
        """Return what clients were told of a message that was being written; "" once they were told that it ended."""
        text = ""
        for envelope in self._premises.updates(session_id).since(0):
            update = envelope.update
            if isinstance(update, MessageChunk) and update.message_id == message_id:
                text += update.text
            elif isinstance(update, MessageUpdate) and update.message_id == message_id:
                text = ""
        return text

    async def close(self) -> None:
        """Close the pool, if there is one."""
        pool = self._pool
        if pool is not None and not pool.done():
            pool.cancel()
            await asyncio.gather(pool, return_exceptions=True)  # A git that it runs must not outlive it.
        elif pool is not None and not pool.cancelled() and pool.exception() is None:
            await pool.result().close()


async def _judge(parent: Path, child: Path, **more: Any) -> JudgeReport:
    """Judge a candidate; what judges is imported when there is something to judge."""
    from selfloop.evolution.judge import judge

    return await judge(parent, child, **more)
