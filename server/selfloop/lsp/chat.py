"""Sessions: make, list, resume, prompt, read, rename, delete, cancel; and what a running turn has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from selfloop.agent.context import EditorSnapshot
from selfloop.errors import InvalidInput
from selfloop.lsp.protocol import (
    ChangesReadResult,
    Empty,
    FileDiff,
    SessionInfo,
    SessionListParams,
    SessionListResult,
    SessionNewParams,
    SessionPromptParams,
    SessionPromptResult,
    SessionQueueResult,
    SessionReadParams,
    SessionReadResult,
    SessionRef,
    SessionRenameParams,
    SessionRequeueParams,
    SessionResumeParams,
    SessionResumeResult,
)
from selfloop.lsp.server import SelfloopServer
from selfloop.session import Workspace
from selfloop.storage.sessions import SessionRecord

MOST_UPDATES = 1000
"""A page of `session/read` has no more, so that an answer stays well below the frame's cap."""


def new(ls: SelfloopServer, params: SessionNewParams) -> SessionRef:
    """Make a session in the named folder, or in the window's first."""
    workspace = ls.hub.workspace_of(ls, params.workspace_folder)
    session_id = workspace.create_session(ls.request_key)
    if ls.trusted:
        # A prompt will follow. Loaded any sooner, the model library would sit in the memory of every idle editor.
        workspace.workshop.model.preload()
    return SessionRef(session_id=session_id)


def list_(ls: SelfloopServer, params: SessionListParams) -> SessionListResult | Awaitable[SessionListResult]:
    """List the sessions of every folder, newest first; with a query, those that speak of all its words."""
    if params.query is not None and params.query.strip():
        return _find(ls, params.query)
    return _listed([(each, record) for each in ls.hub.workspaces.values() for record in each.sessions.list()])


async def _find(ls: SelfloopServer, query: str) -> SessionListResult:
    workspaces = list(ls.hub.workspaces.values())
    return _listed(
        [(each, record) for each in workspaces for record in await asyncio.to_thread(each.sessions.find, query)]
    )


def _listed(found: Sequence[tuple[Workspace, SessionRecord]]) -> SessionListResult:
    rows = [
        SessionInfo(
            session_id=record.id,
            title=record.title,
            created_at=record.created_at,
            updated_at=record.updated_at,
            state="running" if workspace.is_running(record.id) else "idle",
            input_tokens=record.input_tokens,
            output_tokens=record.output_tokens,
        )
        for workspace, record in found
    ]
    return SessionListResult(sessions=sorted(rows, key=lambda row: row.updated_at, reverse=True))


def resume(ls: SelfloopServer, params: SessionResumeParams) -> SessionResumeResult:
    """Tell where the session's stream stands, and send again what came after `after`."""
    workspace, session_id = ls.hub.session(params.session_id)
    journal = workspace.updates(session_id)
    if params.after is not None:
        for envelope in journal.since(params.after):
            ls.hub.publish_to(ls.window, envelope)
    return SessionResumeResult(session_id=session_id, seq=journal.last_seq)


def prompt(ls: SelfloopServer, params: SessionPromptParams) -> SessionPromptResult:
    """Take the user's words; they are recorded before this answers."""
    workspace, session_id = ls.hub.session(params.session_id)
    if not params.text.strip() and not params.context:
        raise InvalidInput("The prompt is empty, so nothing was started; write what you want done.")

    def seen() -> EditorSnapshot:
        return ls.documents.snapshot(workspace.path, params.context)

    workspace.take_over(session_id)
    ack = workspace.conversation(session_id).prompt(
        params.text,
        seen(),
        delivery=params.delivery,
        key=ls.request_key,
        snapshot_now=seen,
    )
    ls.hub.remember_session(ls.window, session_id)
    return SessionPromptResult(message_id=ack.message_id, turn_id=ack.turn_id, delivery=ack.delivery)


def queue(ls: SelfloopServer, params: SessionRef) -> SessionQueueResult:
    """Return what waits in the session for a turn."""
    workspace, session_id = ls.hub.session(params.session_id)
    # A session that is not known to run has nothing that waits, and need not be opened for it.
    return SessionQueueResult(
        entries=workspace.conversation(session_id).queue() if workspace.is_running(session_id) else []
    )


def requeue(ls: SelfloopServer, params: SessionRequeueParams) -> SessionQueueResult:
    """Edit or remove a message that waits; it is recorded before this answers."""
    workspace, session_id = ls.hub.session(params.session_id)
    entries = workspace.conversation(session_id).requeue(params.message_id, params.text or "", key=ls.request_key)
    return SessionQueueResult(entries=entries)


def read(ls: SelfloopServer, params: SessionReadParams) -> SessionReadResult:
    """Return a page of the session's updates, going backwards from `before`."""
    workspace, session_id = ls.hub.session(params.session_id)
    limit = MOST_UPDATES if params.limit is None else params.limit
    if limit < 1:
        raise InvalidInput(f"The limit must be at least 1, not {limit}; nothing was read.")
    updates, more = workspace.updates(session_id).page(params.before, min(limit, MOST_UPDATES))
    return SessionReadResult(updates=updates, more=more)


def rename(ls: SelfloopServer, params: SessionRenameParams) -> Empty:
    """Give the session a title."""
    workspace, session_id = ls.hub.session(params.session_id)
    title = " ".join(params.title.split())[:200]
    if not title:
        raise InvalidInput("The title is empty, so the session keeps its own; give at least one letter.")
    workspace.rename_session(session_id, title, ls.request_key)
    return Empty()


async def delete(ls: SelfloopServer, params: SessionRef) -> Empty:
    """Cancel what runs in the session and remove it, with its open gates."""
    workspace, session_id = ls.hub.session(params.session_id)
    await workspace.delete_session(session_id, ls.request_key)
    return Empty()


async def cancel(ls: SelfloopServer, params: SessionRef) -> Empty:
    """Cancel the running turn and everything it has started; nothing runs: nothing happens."""
    workspace, session_id = ls.hub.session(params.session_id)
    await asyncio.shield(workspace.cancel_session(session_id))
    return Empty()


async def changes(ls: SelfloopServer, params: SessionRef) -> ChangesReadResult:
    """Return the running turn's changes so far."""
    workspace, session_id = ls.hub.session(params.session_id)
    return ChangesReadResult(
        files=[
            FileDiff(uri=workspace.uri(change.path), operation=change.operation, diff=workspace.diff(change))
            for change in await workspace.conversation(session_id).changes()
        ]
    )


HANDLERS = {
    "selfloop/session/new": new,
    "selfloop/session/list": list_,
    "selfloop/session/resume": resume,
    "selfloop/session/prompt": prompt,
    "selfloop/session/queue": queue,
    "selfloop/session/requeue": requeue,
    "selfloop/session/read": read,
    "selfloop/session/rename": rename,
    "selfloop/session/delete": delete,
    "selfloop/session/cancel": cancel,
    "selfloop/changes/read": changes,
}
