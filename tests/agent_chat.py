"""A conversation on real parts: store, shadow repository, gates, a model on loopback. Only the editor is missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field

from model_server import ModelServer, Request
from selfloop.agent.context import EditorSnapshot, OpenDocument
from selfloop.agent.conversation import Conversation, Parts, PromptAck
from selfloop.agent.prompts import Prompts
from selfloop.config import Folders, Settings
from selfloop.gates.editor import ApplyOutcome, OpenText
from selfloop.gates.gates import Gates
from selfloop.model.client import ModelClient
from selfloop.sandbox.isolation import Isolation, probe
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow
from selfloop.storage.memory import Memory
from selfloop.storage.rules import Rules
from selfloop.storage.secrets import redact
from selfloop.storage.sessions import Sessions
from selfloop.storage.store import Store
from selfloop.storage.trajectories import Event, read_events
from selfloop.updates import MessageUpdate, Notice, State, ToolCallUpdate, Update


class NoEditor:
    """A user whose editor has no file open, so everything approved goes to the disk."""

    def open_text(self, path: str) -> OpenText | None:
        return None

    async def apply(self, edits: Any, *, label: str, prefer: int | None) -> ApplyOutcome:
        raise AssertionError(f"no document is open, yet {[edit.path for edit in edits]} were to be edited")


@define
class Chat:
    """A conversation, and what its user sees and does."""

    workspace: Path
    folders: Folders
    server: ModelServer
    settings: Settings
    store: Store
    sessions: Sessions
    session_id: str
    updates: list[Update] = field(factory=list)
    documents: dict[str, str] = field(factory=dict)
    """Unsaved texts by path."""
    isolated: Isolation | None = None
    """None: what a probe finds."""
    opened: list[Conversation] = field(factory=list)
    pools: list[Pool] = field(factory=list)
    conversation: Conversation = field(init=False)
    gates: Gates = field(init=False)

    def open(self) -> Conversation:
        """Build everything anew on the same store, as a new worker does."""
        pool: list[asyncio.Future[Pool]] = []
        isolation: list[asyncio.Future[Isolation]] = []

        async def make_pool() -> Pool:
            cache = self.folders.workspace_cache(self.workspace)
            made = Pool(await Shadow.open(self.workspace, cache), cache)
            self.pools.append(made)
            return made

        async def the_pool() -> Pool:
            if not pool:
                pool.append(asyncio.ensure_future(make_pool()))
            return await asyncio.shield(pool[0])

        async def the_isolation() -> Isolation:
            if self.isolated is not None:
                return self.isolated
            if not isolation:
                isolation.append(asyncio.ensure_future(probe(self.settings)))
            self.isolated = await asyncio.shield(isolation[0])
            return self.isolated

        self.gates = Gates(
            self.store,
            self.workspace,
            rules=Rules(self.folders.data),
            publish=lambda record: self.conversation.gate_published(record),
            on_decided=lambda decision: self.conversation.decided(decision),
        )
        self.conversation = Conversation(
            Parts(
                workspace=self.workspace,
                session=self.sessions.get(self.session_id),
                sessions=self.sessions,
                trajectory=self.sessions.trajectory(self.session_id),
                model=ModelClient(self.settings, keys=lambda origin: None),
                prompts=Prompts.load(),
                pool=the_pool,
                gates=self.gates,
                memory=Memory(self.store),
                settings=self.settings,
                isolation=the_isolation,
                emit=self.updates.append,
                redact=redact,
                outputs=self.sessions.outputs(self.session_id),
                uri=lambda path: f"file:///project/{path}",
            )
        )
        self.opened.append(self.conversation)
        return self.conversation

    def snapshot(self, **more: Any) -> EditorSnapshot:
        """Return what the editor shows."""
        documents = tuple(
            OpenDocument(path=path, text=text, version=1, dirty=True, language="")
            for path, text in self.documents.items()
        )
        return EditorSnapshot(window=1, documents=documents, **more)

    def say(self, text: str, delivery: Any = None, **more: Any) -> PromptAck:
        """Send a prompt."""
        return self.conversation.prompt(
            text, self.snapshot(**more), delivery=delivery, key=None, snapshot_now=self.snapshot
        )

    async def ask(self, text: str, **more: Any) -> State:
        """Send a prompt and wait until the conversation is idle."""
        self.say(text, **more)
        return await self.idle()

    async def idle(self, seconds: float = 30.0) -> State:
        """Wait until nothing runs; return the last state."""
        async with asyncio.timeout(seconds):
            while self.conversation.running:
                await asyncio.sleep(0.01)
        return self.states()[-1]

    async def until(self, holds: Callable[[], Any], seconds: float = 20.0) -> Any:
        """Wait until something holds."""
        async with asyncio.timeout(seconds):
            while not (found := holds()):
                await asyncio.sleep(0.01)
        return found

    def states(self) -> list[State]:
        return self.of(State)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the updates of a kind."""
        return [update for update in self.updates if isinstance(update, kind)]

    def notices(self) -> list[str]:
        return [notice.text for notice in self.of(Notice)]

    def answers(self) -> list[str]:
        return [message.text for message in self.of(MessageUpdate) if message.role == "assistant"]

    def calls(self) -> list[ToolCallUpdate]:
        """Return the calls that have ended."""
        return [call for call in self.of(ToolCallUpdate) if call.status in ("completed", "failed")]

    def events(self, *kinds: str) -> list[Event]:
        """Return the recorded events of these kinds."""
        path = self.sessions.folder(self.session_id) / "traj.jsonl"
        return [event for event in read_events(path) if not kinds or event.kind in kinds]

    def results(self, request: int = -1) -> list[str]:
        """Return the tool results of a request."""
        return [m["content"] for m in self.server.requests[request].messages if m["role"] == "tool"]

    async def close(self) -> None:
        for conversation in self.opened:
            await conversation.close()
            await conversation.parts.model.close()
        for pool in self.pools:
            await pool.close()
        self.store.close()


def assert_well_formed(messages: list[dict[str, Any]]) -> None:
    """Check that a request is one that every provider takes: each call answered at once, in order, and nothing else."""
    assert messages[0]["role"] == "system"
    waiting: list[str] = []
    for before, message in zip([None, *messages], messages, strict=False):
        if message["role"] == "tool":
            assert waiting and message["tool_call_id"] == waiting.pop(0)
            continue
        assert not waiting, f"{waiting} have no result before {message['role']}"
        if before is not None and message["role"] == "user":
            assert before["role"] != "user"
        for call in message.get("tool_calls") or ():
            json.loads(call["function"]["arguments"])
            waiting.append(call["id"])
    assert not waiting


def assert_extends(shorter: Request, longer: Request) -> None:
    """Check that a request begins with another, so that the provider's cache fits."""
    assert longer.body.get("tools") == shorter.body.get("tools")
    assert longer.messages[: len(shorter.messages)] == shorter.messages
