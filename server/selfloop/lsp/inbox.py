"""Pending hunks where the user works, in plain LSP: a diagnostic on each, and code lenses above it.

Diagnostics are pushed, some milliseconds after the first of some changes of a gate or of a document that a gate is
about, to every window that wants them. A window keeps what it was last told, so that nothing is sent twice and what is
gone is cleared. Before that the gates look at what was edited: an undo makes an approved hunk pending again.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lsprotocol import types

from selfloop.errors import SelfloopError
from selfloop.lsp.convert import line_range, path_of_uri, relative
from selfloop.lsp.editor import WindowEditor
from selfloop.lsp.hub import Hub
from selfloop.lsp.server import SelfloopServer
from selfloop.session import Workspace
from selfloop.updates import GateInfo

if TYPE_CHECKING:
    from selfloop.gates.review import FileView, HunkView

logger = logging.getLogger(__name__)

SOURCE = "selfloop"
SETTLE_SECONDS = 0.15


class Pending(NamedTuple):
    """A hunk that waits, or would if it were not out of date, and where it is from."""

    workspace: Workspace
    gate: GateInfo
    file: FileView
    hunk: HunkView

    def range(self) -> types.Range:
        """Return where the hunk lies in the user's text now."""
        span = line_range(self.file.lines, self.hunk.start, self.hunk.end, has_returns=self.file.has_returns)
        return types.Range(
            types.Position(span.start.line, span.start.character), types.Position(span.end.line, span.end.character)
        )

    @property
    def is_stale(self) -> bool:
        """Whether it no longer fits the user's text; `hunk.reason` says why."""
        return self.hunk.status == "stale"

    def sentence(self) -> str:
        """Return what approving the hunk would do, in a line."""
        verb = {"create": "create this file", "delete": "delete this file", "rename": "rename this file"}.get(
            self.file.operation
        )
        first = next((line.strip() for line in self.hunk.new_text.splitlines() if line.strip()), "")
        what = verb or (f"change this to: {first[:80]}" if first else "remove this")
        return f"Selfloop wants to {what} ({self.gate.title})"


async def undecided(hub: Hub[SelfloopServer], server: SelfloopServer, path: Path | None = None) -> list[Pending]:
    """Return every hunk that nobody has decided, the stale ones too, placed in the texts as a window sees them.

    Args:
        hub: the workspaces.
        server: the window's.
        path: only the hunks of this file; gates that have none there are not even read.
    """
    found = []
    for workspace in list(hub.workspaces.values()):
        editor = WindowEditor(hub, workspace.path, server.window)
        for record in workspace.gates.list("open"):
            files = record.subject.get("files", ())
            if record.subject_type != "changes" or not (
                path is None or any(workspace.path / file["path"] == path for file in files)
            ):
                continue
            try:
                view = await workspace.gates.read(record.gate_id, editor, sealed=False)
            except SelfloopError:
                continue  # Decided or deleted while we looked: the next refresh follows at once.
            info = workspace.gate_info(view.gate)
            found += [
                Pending(workspace, info, file, hunk)
                for file in view.files
                if path is None or workspace.path / file.path == path
                for hunk in file.hunks
                if hunk.status in ("pending", "stale")
            ]
    return found


async def pending(hub: Hub[SelfloopServer], server: SelfloopServer) -> list[Pending]:
    """Return every pending hunk of every open gate; the stale ones are left out."""
    return [item for item in await undecided(hub, server) if not item.is_stale]


async def sealed(ls: SelfloopServer, workspace: Workspace, gate_id: str) -> GateInfo | None:
    """Return a gate with the digest of what it would do now; None: it is gone."""
    try:
        view = await workspace.gates.read(gate_id, WindowEditor(ls.hub, workspace.path, ls.window))
    except SelfloopError:
        return None
    return workspace.gate_info(view.gate)


async def undecided_in(ls: SelfloopServer, uri: str) -> list[Pending]:
    """Return the hunks of one document that nobody has decided."""
    path = path_of_uri(uri)
    return [] if path is None else await undecided(ls.hub, ls, path)


class Inbox:
    """Keeps every window's diagnostics and lenses in step with the gates."""

    def __init__(self, hub: Hub[SelfloopServer]) -> None:
        self._hub = hub
        self._told: dict[int, dict[str, list[types.Diagnostic]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._marks: dict[int, list[tuple[str, str, types.Range]]] = {}
        """What the lenses of each window were about, when they were last said to be out of date."""
        self._touched: dict[Path, bool] = {}
        """The documents that were edited since the last look and that a decision may concern; True: saved."""
        hub.on_faces_changed = self.changed
        hub.on_typed = self.typed

    def changed(self, folder: Path | None) -> None:
        """Note that gates (of a workspace) or documents (None) have changed."""
        if folder is None and not any(self._told.values()) and not self._any_open():
            return
        self._look()

    def typed(self, uri: str, saved: bool) -> None:
        """Note that a document was edited or saved. It is looked at once the user has had time for more."""
        path = path_of_uri(uri)
        if path is not None and any(
            (inside := relative(workspace.path, path)) is not None and workspace.gates.watches(inside)
            for workspace in self._hub.workspaces.values()
        ):
            self._touched[path] = saved or self._touched.get(path, False)
            self._look()
        else:
            self.changed(None)

    def _look(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = self._hub.spawn(self._refresh(), "inbox")

    def _any_open(self) -> bool:
        return any(workspace.gates.list("open") for workspace in self._hub.workspaces.values())

    async def _refresh(self) -> None:
        while self._again:
            self._again = False
            await asyncio.sleep(SETTLE_SECONDS)
            touched, self._touched = self._touched, {}
            for path, saved in touched.items():
                await self._notice(path, saved)
            for window, server in list(self._hub.windows.items()):
                await self._tell(window, server)
            for window in self._told.keys() - self._hub.windows.keys():
                del self._told[window]
                self._marks.pop(window, None)

    async def _notice(self, path: Path, saved: bool) -> None:
        for workspace in list(self._hub.workspaces.values()):
            inside = relative(workspace.path, path)
            if inside is not None:
                try:
                    await workspace.noticed(inside, saved=saved)
                except SelfloopError as error:
                    logger.warning("what was edited in %s was not looked at: %s", path, error.message)

    async def _tell(self, window: int, server: SelfloopServer) -> None:
        if not server.ready:
            return
        capability = server.client_capabilities.workspace
        lenses = bool(capability and capability.code_lens and capability.code_lens.refresh_support)
        if not lenses and not server.shows_gate_diagnostics:
            return
        wanted: dict[str, list[types.Diagnostic]] = {}
        marks: list[tuple[str, str, types.Range]] = []
        for item in await undecided(self._hub, server):
            uri = server.documents.uri_of(item.workspace.path / item.file.path)
            marks.append((uri, f"{item.hunk.hunk_id} {item.hunk.reason or ''}", item.range()))
            if server.shows_gate_diagnostics and not item.is_stale:
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
        self._told[window] = wanted
        changed = self._marks.get(window, []) != marks
        self._marks[window] = marks
        if changed and lenses:
            server.workspace_code_lens_refresh(None)


async def code_lens(ls: SelfloopServer, params: types.CodeLensParams) -> list[types.CodeLens]:
    """Return approve, reject and diff above each pending hunk; above a stale one, why, and what can be done."""
    lenses = []
    for item in await undecided_in(ls, params.text_document.uri):
        place = item.range()
        commands = (
            (why_stale(item), ask_again(item), decide(item, "reject"))
            if item.is_stale
            else (decide(item, "approve"), decide(item, "reject"), show(item))
        )
        lenses += [types.CodeLens(range=place, command=command) for command in commands]
    return lenses


def why_stale(item: Pending) -> types.Command:
    """Return the command whose title says why a hunk is out of date, and which opens the proposal."""
    return types.Command(
        title=f"Out of date: {item.hunk.reason}",
        command="selfloop.gate.show",
        arguments=[{"gateId": item.gate.gate_id}],
    )


def ask_again(item: Pending) -> types.Command:
    """Return the command that asks the session to make a stale hunk anew."""
    return types.Command(
        title="Ask again",
        command="selfloop.ask",
        arguments=[{"intent": "again", "gateId": item.gate.gate_id, "hunkId": item.hunk.hunk_id}],
    )


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
