"""Rounds as work-done progress, in every window whose editor shows it: begun, told phase by phase, cancellable.

Invariant: a progress that was begun is ended, whatever became of its round. An editor that does not show progress, or
refuses one, is told nothing here; the updates tell it all the same.
"""

from __future__ import annotations

import asyncio
import logging

from attrs import define, field
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from selfloop.lsp.hub import Hub
from selfloop.lsp.server import SelfloopServer
from selfloop.reports import Phase
from selfloop.updates import RunUpdate, UpdateEnvelope

logger = logging.getLogger(__name__)

CREATE_SECONDS = 10.0
_SAID: dict[Phase, str] = {
    "recall": "remembering earlier rounds",
    "sandbox": "making its copy of the files",
    "make": "the maker is at work",
    "check": "the checker is at work",
    "gate": "deciding what happens with it",
    "act": "carrying it out",
    "record": "writing the report",
    "done": "done",
    "reflect": "learning from what was done",
    "evolve": "changing its own source",
    "refine": "mending what does not pass",
    "verify": "the judge is at work",
    "docs": "bringing the docs up to date",
    "swap": "starting as its new self",
    "probation": "watching the new self",
}


@define
class _Shown:
    """One round's progress."""

    phases: asyncio.Queue[Phase] = field(factory=asyncio.Queue)


class RunProgress:
    """The progress of all rounds, in all windows."""

    def __init__(self, hub: Hub[SelfloopServer]) -> None:
        self._hub = hub
        self._shown: dict[str, list[_Shown]] = {}
        before = hub.on_update

        def told(envelope: UpdateEnvelope) -> None:
            before(envelope)
            if isinstance(envelope.update, RunUpdate):
                self._told(envelope.update)

        hub.on_update = told

    def _told(self, update: RunUpdate) -> None:
        if update.phase != "done" and update.run_id not in self._shown:
            self._shown[update.run_id] = []
            for server in list(self._hub.windows.values()):
                if _shows_progress(server):
                    shown = _Shown()
                    self._shown[update.run_id].append(shown)
                    self._hub.spawn(self._show(server, update, shown), f"progress of {update.run_id}")
        for shown in self._shown.get(update.run_id, ()):
            shown.phases.put_nowait(update.phase)
        if update.phase == "done":
            self._shown.pop(update.run_id, None)

    async def _show(self, server: SelfloopServer, update: RunUpdate, shown: _Shown) -> None:
        token = f"selfloop-{update.run_id}"
        progress = server.work_done_progress
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                await progress.create_async(token)
        except (TimeoutError, JsonRpcException) as error:
            logger.info("window %d shows no progress of %s: %r", server.window, update.run_id, error)
            return
        title = f"Selfloop: {update.loop_id}"
        progress.begin(token, types.WorkDoneProgressBegin(title=title, cancellable=True))
        progress.tokens[token].add_done_callback(lambda done: self._cancelled(update.run_id, done.cancelled()))
        try:
            while (phase := await shown.phases.get()) != "done":
                progress.report(token, types.WorkDoneProgressReport(message=_SAID[phase], cancellable=True))
        finally:
            progress.end(token, types.WorkDoneProgressEnd())
            progress.tokens.pop(token, None)

    def _cancelled(self, run_id: str, cancelled: bool) -> None:
        """The user has cancelled the progress in an editor: the round ends."""
        if not cancelled:
            return
        for workspace in self._hub.workspaces.values():
            service = workspace.loops_if_read
            if service is not None and run_id in service.engine.running():
                service.cancel(run_id)


def _shows_progress(server: SelfloopServer) -> bool:
    window = server.client_capabilities.window if server.ready else None
    return bool(window and window.work_done_progress)
