"""The user's editors, as the gates see them: which text is open, and one versioned edit that is verified.

Implements `gates.review.Editor` over the windows of the hub. A document that is open in several windows belongs to
the one in which it is dirty; dirty in two, nobody can say which text is the user's: stale.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from selfloop.errors import Stale
from selfloop.gates.editor import ApplyOutcome, BufferEdit, OpenText
from selfloop.lsp.convert import line_range
from selfloop.lsp.documents import Document, split_lines
from selfloop.lsp.hub import Hub
from selfloop.lsp.server import SelfloopServer

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 30
"""How long an editor may take to answer an edit: it may ask its user first."""
SETTLE_SECONDS = 3
"""How long the change notifications of an applied edit may take to arrive."""


class WindowEditor:
    """All windows, seen from the one that asks."""

    def __init__(self, hub: Hub[SelfloopServer], folder: Path, window: int | None = None) -> None:
        self._hub, self._folder, self._window = hub, folder, window

    def open_text(self, path: str) -> OpenText | None:
        """Return the open text of a file, relative to the workspace; None when no window has it open.

        Raises:
            Stale: two windows hold different unsaved texts of it.
        """
        found = self._holder(path)
        if found is None:
            return None
        server, document, dirty = found
        return OpenText(text=document.text, version=document.version, dirty=dirty, window=server.window)

    def _holder(self, path: str) -> tuple[SelfloopServer, Document, bool] | None:
        absolute = self._folder / path
        holders = [
            (server, document)
            for server in self._hub.windows.values()
            if (document := server.documents.at(absolute)) is not None
        ]
        if not holders:
            return None
        dirty = [(server, document) for server, document in holders if document.differs_from_disk()]
        if len(dirty) > 1 and len({document.text for _, document in dirty}) > 1:
            raise Stale(
                f"{path} has different unsaved texts in two windows, so nothing was applied to it; "
                "save or revert one of them, then decide again."
            )
        candidates = dirty or holders
        server, document = next((item for item in candidates if item[0].window == self._window), candidates[0])
        return server, document, bool(dirty)

    async def apply(self, edits: Sequence[BufferEdit], *, label: str, prefer: int | None = None) -> ApplyOutcome:
        """Apply edits to open documents, one `workspace/applyEdit` for each window, and verify the buffers."""
        by_window: dict[int, list[tuple[BufferEdit, Document]]] = {}
        for edit in edits:
            found = self._holder(edit.path)
            if found is None:
                return ApplyOutcome(False, f"{edit.path} was closed in the meantime")
            server, document, _ = found
            if edit.version is not None and document.version != edit.version:
                return ApplyOutcome(False, f"{edit.path} was edited in the meantime")
            by_window.setdefault(server.window, []).append((edit, document))
        for window, group in by_window.items():
            outcome = await self._apply_in(self._hub.windows[window], group, label)
            if not outcome.applied:
                return outcome
        return ApplyOutcome(True, None)

    async def _apply_in(
        self, server: SelfloopServer, group: list[tuple[BufferEdit, Document]], label: str
    ) -> ApplyOutcome:
        rows = []
        for edit, document in group:
            lines = split_lines(document.text)
            rows.append((document, [(_range(lines, piece.start, piece.end), piece.text) for piece in edit.edits]))
        try:
            refusal = await send_edit(server, rows, label)
        except TimeoutError:
            return await self._settled(server, group, "the editor did not answer the edit")
        if refusal is not None:
            return ApplyOutcome(False, refusal)
        return await self._settled(server, group, "the editor said that it applied the edit, but its text is another")

    async def _settled(
        self, server: SelfloopServer, group: list[tuple[BufferEdit, Document]], otherwise: str
    ) -> ApplyOutcome:
        """Wait until the buffers hold what was meant: the answer to an edit is read, but not believed."""
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while any(document.text != edit.expected_text for edit, document in group):
            if asyncio.get_running_loop().time() > deadline:
                return ApplyOutcome(False, otherwise)
            await asyncio.sleep(0.01)
        return ApplyOutcome(True, None)


async def send_edit(
    server: SelfloopServer, rows: Sequence[tuple[Document, Sequence[tuple[types.Range, str]]]], label: str | None
) -> str | None:
    """Ask an editor for one edit of open documents, bound to the versions that they have now.

    Args:
        server: of the window that has them open.
        rows: each document with the ranges of its text as it is now, and what becomes of them.
        label: what the editor may call it; None: it is not worth a mention.

    Returns:
        Why it was refused; None when the editor says that it was applied, which is not yet a proof.

    Raises:
        TimeoutError: the editor did not answer.
    """
    able = _edit_capability(server)
    annotated = bool(label and able and able.document_changes and able.change_annotation_support)
    edits: dict[str, list[Any]] = {
        document.uri: [_text_edit(span, text, annotated) for span, text in pieces] for document, pieces in rows
    }
    if able and able.document_changes:
        changes = [
            types.TextDocumentEdit(
                text_document=types.OptionalVersionedTextDocumentIdentifier(uri=document.uri, version=document.version),
                edits=edits[document.uri],
            )
            for document, _ in rows
        ]
        annotations = {"selfloop": types.ChangeAnnotation(label=label or "")} if annotated else None
        workspace_edit = types.WorkspaceEdit(document_changes=changes, change_annotations=annotations)
    else:
        # An editor that knows no versions: they were compared before, and the text is verified afterwards.
        workspace_edit = types.WorkspaceEdit(changes=edits)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await server.workspace_apply_edit_async(
                types.ApplyWorkspaceEditParams(edit=workspace_edit, label=label)
            )
    except JsonRpcException as error:
        return f"the editor refused the edit ({error.message})"
    return None if answer.applied else answer.failure_reason or "the editor refused the edit"


def _edit_capability(server: SelfloopServer) -> types.WorkspaceEditClientCapabilities | None:
    workspace = server.client_capabilities.workspace
    return workspace.workspace_edit if workspace else None


def _range(lines: Sequence[str], start: int, end: int) -> types.Range:
    span = line_range(lines, start, end)
    return types.Range(
        types.Position(span.start.line, span.start.character), types.Position(span.end.line, span.end.character)
    )


def _text_edit(span: types.Range, text: str, annotated: bool) -> types.TextEdit | types.AnnotatedTextEdit:
    if annotated:
        return types.AnnotatedTextEdit(annotation_id="selfloop", range=span, new_text=text)
    return types.TextEdit(range=span, new_text=text)
