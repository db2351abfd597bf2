"""Pending hunks where the user works, in plain LSP: a diagnostic on each, and code lenses above it.

Diagnostics are pushed, some milliseconds after the last change of a gate or of a document that a gate is about, to
every window that wants them. A window keeps what it was last told, so that nothing is sent twice and what is gone is
cleared.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lsprotocol import types

from selfloop.errors import SelfloopError
from selfloop.lsp.convert import line_range, path_of_uri
from selfloop.lsp.editor import WindowEditor
from selfloop.lsp.hub import Hub
from selfloop.lsp.server import SelfloopServer
from selfloop.session import Workspace
from selfloop.updates import GateInfo

if TYPE_CHECKING:
    from selfloop.gates.review import FileView, HunkView

SOURCE = "selfloop"
SETTLE_SECONDS = 0.15


class Pending(NamedTuple):
    """A hunk that waits, and where it is from."""

    workspace: Workspace
    gate: GateInfo
    file: FileView
    hunk: HunkView

    def range(self) -> types.Range:
        """Return where the hunk lies in the user's text now."""
        span = line_range(self.file.lines, self.hunk.start, self.hunk.end)
        return types.Range(
            types.Position(span.start.line, span.start.character), types.Position(span.end.line, span.end.character)
        )

    def sentence(self) -> str:
        """Return what approving the hunk would do, in a line."""
        verb = {"create": "create this file", "delete": "delete this file", "rename": "rename this file"}.get(
            self.file.operation
        )
        first = next((line.strip() for line in self.hunk.new_text.splitlines() if line.strip()), "")
        what = verb or (f"change this to: {first[:80]}" if first else "remove this")
        return f"Selfloop wants to {what} ({self.gate.title})"


async def pending(hub: Hub[SelfloopServer], server: SelfloopServer) -> list[Pending]:
    """Return every pending hunk of every open gate, placed in the texts as this window's server sees them."""
    found = []
    for workspace in hub.workspaces.values():
        editor = WindowEditor(hub, workspace.path, server.window)
        for record in workspace.gates.list("open"):
            if record.subject_type != "changes":
                continue
            try:
                view = await workspace.gates.read(record.gate_id, editor)
            except SelfloopError:
                continue  # Decided or deleted while we looked: the next refresh follows at once.
            info = workspace.gate_info(view.gate)
            found += [
                Pending(workspace, info, file, hunk)
                for file in view.files
                for hunk in file.hunks
                if hunk.status == "pending"
            ]
    return found


async def pending_in(ls: SelfloopServer, uri: str) -> list[Pending]:
    """Return the pending hunks of one document."""
    path = path_of_uri(uri)
    if path is None or not any(workspace.gates.list("open") for workspace in ls.hub.workspaces.values()):
        return []
    return [item for item in await pending(ls.hub, ls) if item.workspace.path / item.file.path == path]


class Inbox:
    """Keeps every window's diagnostics and lenses in step with the gates."""

    def __init__(self, hub: Hub[SelfloopServer]) -> None:
        self._hub = hub
        self._told: dict[int, dict[str, list[types.Diagnostic]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._again = False
        hub.on_faces_changed = self.changed

    def changed(self, folder: Path | None) -> None:
        """Note that gates (of a workspace) or documents (None) have changed."""
        if folder is None and not any(self._told.values()) and not self._any_open():
            return
        self._again = True
        if self._task is None or self._task.done():
            self._task = self._hub.spawn(self._refresh(), "inbox")

    def _any_open(self) -> bool:
        return any(workspace.gates.list("open") for workspace in self._hub.workspaces.values())

    async def _refresh(self) -> None:
        while self._again:
            self._again = False
            await asyncio.sleep(SETTLE_SECONDS)
            for window, server in list(self._hub.windows.items()):
                await self._tell(window, server)
            for window in self._told.keys() - self._hub.windows.keys():
                del self._told[window]

    async def _tell(self, window: int, server: SelfloopServer) -> None:
        if not server.ready:
            return
        wanted: dict[str, list[types.Diagnostic]] = {}
        if server.shows_gate_diagnostics:
            for item in await pending(self._hub, server):
                uri = server.documents.uri_of(item.workspace.path / item.file.path)
                wanted.setdefault(uri, []).append(
                    types.Diagnostic(
                        range=item.range(),
                        message=item.sentence(),
                        severity=types.DiagnosticSeverity.Information,
                        source=SOURCE,
                        code=item.hunk.hunk_id,
                        data={"gateId": item.gate.gate_id, "hunkId": item.hunk.hunk_id},
                    )
                )
        told = self._told.setdefault(window, {})
        for uri in {**told, **wanted}:
            rows = wanted.get(uri, [])
            if told.get(uri, []) != rows:
                server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri=uri, diagnostics=rows))
        changed = told != wanted
        self._told[window] = wanted
        capability = server.client_capabilities.workspace
        if changed and capability and capability.code_lens and capability.code_lens.refresh_support:
            server.workspace_code_lens_refresh(None)


async def code_lens(ls: SelfloopServer, params: types.CodeLensParams) -> list[types.CodeLens]:
    """Return approve, reject and diff above each pending hunk."""
    lenses = []
    for item in await pending_in(ls, params.text_document.uri):
        place = item.range()
        for command in (decide(item, "approve"), decide(item, "reject"), show(item)):
            lenses.append(types.CodeLens(range=place, command=command))
    return lenses


def decide(item: Pending, option_id: str) -> types.Command:
    """Return the command that decides one hunk, bound to its digest."""
    return types.Command(
        title={"approve": "Approve", "reject": "Reject"}[option_id],
        command="selfloop.gate.resolve",
        arguments=[
            {
                "gateId": item.gate.gate_id,
                "optionId": option_id,
                "hunks": [{"hunkId": item.hunk.hunk_id, "digest": item.hunk.digest}],
            }
        ],
    )


def decide_all(gate: GateInfo, option_id: str, title: str) -> types.Command:
    """Return the command that decides everything that is pending, bound to the gate's digest."""
    return types.Command(
        title=title,
        command="selfloop.gate.resolve",
        arguments=[{"gateId": gate.gate_id, "optionId": option_id, "digest": gate.digest}],
    )


def show(item: Pending) -> types.Command:
    """Return the command that opens the whole proposal as a diff."""
    return types.Command(title="Diff", command="selfloop.gate.show", arguments=[{"gateId": item.gate.gate_id}])
