"""The worker's part in a swap: being primed beside the one that serves, taking over from it, and letting go again.

    primed (passive) ── control/start ──▶ at work ── control/yield ──▶ yielded (answers the lightest reads) ── end

Invariant: only between the start and the yield is anything opened, written or sent that nobody has asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from selfloop.errors import SelfloopError
from selfloop.updates import Generation

if TYPE_CHECKING:
    from pathlib import Path

    from selfloop.config import Settings
    from selfloop.lsp.pipe import Pipe
    from selfloop.sandbox.isolation import Isolation
    from selfloop.session import Workspace

logger = logging.getLogger(__name__)

QUIET_POLL_SECONDS = 0.02


MODEL_SECONDS = 20.0
"""How long the model library is waited for; a turn that needs it waits for the rest."""


def import_all() -> None:
    """Import what a turn, a gate and a round need, but for the model library, and raise what they raise."""
    import importlib
    import pkgutil

    import selfloop.agent
    import selfloop.agent.tools

    for package in (selfloop.agent, selfloop.agent.tools):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    for name in ("workshop", "loops.service", "loops.means", "loops.engine", "gates.gates", "storage.secrets"):
        importlib.import_module(f"selfloop.{name}")


def load_model_library() -> None:
    """Import the model library, which takes seconds."""
    from selfloop.model import guards

    guards.load()


class Served(Protocol):
    """What is taken over and let go of: the hub, as far as this is concerned."""

    windows: dict[int, Any]
    workspaces: dict[Path, Workspace]
    pipe: Pipe
    restarting: str | None

    def settings(self, of_window: dict[str, Any] | None = None) -> Settings:
        """Return the user's settings."""

    async def quiesce(self) -> None:
        """End what runs in the background."""


class Takeover:
    """See the module."""

    def __init__(self, hub: Served) -> None:
        self._hub = hub
        self._started = False
        self._yielded = False
        self.isolation: Isolation | None = None
        """What the canary has found while this worker was primed."""
        self.on_primed: Callable[[], None] = lambda: None
        """Given by the worker: clears up, while nobody waits for this worker yet."""
        self.on_start: Callable[[Any], None] = lambda server: None
        """Given by the worker: opens what a window has open."""
        self.on_state: Callable[[dict[str, Any]], None] = lambda state: None
        """Told what became of a swap: `restartId`, `number`, `state` and, where there is one, `reason`."""

    @property
    def at_work(self) -> bool:
        """Whether this worker is the one that serves."""
        return self._started and not self._yielded

    def start(self) -> None:
        """Take over: open what the windows have open."""
        self._started = True
        for server in list(self._hub.windows.values()):
            self.on_start(server)

    def prime(self, *, model: bool) -> Coroutine[Any, Any, dict[str, Any]]:
        """Import what a turn needs, and return what was known of the documents when this was called.

        Args:
            model: load the model library too.
        """
        documents = {
            str(number): {document.uri: document.version for document in server.documents.all()}
            for number, server in self._hub.windows.items()
        }
        return self._primed(documents, model)

    async def _primed(self, documents: dict[str, Any], model: bool) -> dict[str, Any]:
        await asyncio.to_thread(import_all)
        if model:
            await asyncio.wait([asyncio.ensure_future(asyncio.to_thread(load_model_library))], timeout=MODEL_SECONDS)
        if any(server.trusted for server in self._hub.windows.values()):
            from selfloop.sandbox.isolation import probe

            first = next(iter(self._hub.windows.values()))
            self.isolation = await probe(self._hub.settings(first.settings))
        self.on_primed()
        return {"documents": documents}

    async def quiet(self, patience_seconds: float) -> dict[str, Any]:
        """Wait until no tool runs, but no longer than that; say whether none does."""
        end = asyncio.get_running_loop().time() + patience_seconds
        # Tools end in many ways; a look now and then sees them all.
        while self._tools_running() and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
            await asyncio.sleep(QUIET_POLL_SECONDS)
        return {"quiet": not self._tools_running()}

    async def let_go(self, *, force: bool) -> dict[str, Any]:
        """Stop everything that writes, where the next worker takes it up; refuse while a tool runs, unless forced."""
        if not force and self._tools_running():
            return {"yielded": False}
        self._yielded = True
        await self._hub.quiesce()
        for workspace in self._hub.workspaces.values():
            try:
                await workspace.suspend()
            except SelfloopError as error:
                logger.error("suspending %s: %s", workspace.path, error.message)
        await self._hub.pipe.drain()
        return {"yielded": True}

    def told(self, state: dict[str, Any]) -> None:
        """Pass on what became of a swap; that a generation serves is told by itself, when it opens a workspace."""
        if state.get("state") in ("refused", "active"):
            self._hub.restarting = None
        self.on_state(state)
        workspace = next(iter(self._hub.workspaces.values()), None)
        if workspace is not None and state["state"] != "active":
            workspace.emit(
                Generation(
                    number=state["number"],
                    state=state["state"],
                    restart_id=state.get("restartId"),
                    reason=state.get("reason"),
                )
            )

    def _tools_running(self) -> bool:
        return any(workspace.tools_running() for workspace in self._hub.workspaces.values())
