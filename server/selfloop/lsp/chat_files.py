"""Chat without a client: Markdown files under `.evo/chat/`, sent by a command, a code action or a code lens.

The form of a file is `chat_text`'s, what an answer looks like `chat_answer`'s, and how it gets into the file
`chat_writer`'s business. Here is what the user does: make a file, send, stop, decide.

Invariant: what is sent is what the user wrote below the last mark of the file, once.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from lsprotocol import types

from selfloop.errors import InvalidInput, RequestFailed
from selfloop.lsp import chat_text
from selfloop.lsp.chat_writer import ChatFile, ChatWriter
from selfloop.lsp.editor import WindowEditor
from selfloop.lsp.inbox import decide_all
from selfloop.lsp.protocol import SessionPromptParams, Wire
from selfloop.lsp.server import SelfloopServer
from selfloop.storage.chats import Owed
from selfloop.updates import Range

NEW = "selfloop.chat.new"
SEND = "selfloop.chat.send"
ASK_KIND = "selfloop.ask"
GATE_KIND = "selfloop.gate"

PLACE_SECONDS = 3.0
"""How long a send waits for the answer's place, so that a second click finds nothing left to send."""
SHOW_SECONDS = 5.0


async def new(ls: SelfloopServer, arguments: dict[str, Any]) -> dict[str, Any]:
    """Make a chat file in the named folder, or the window's first, and have the editor open it."""
    folder = arguments.get("workspaceFolder")
    if folder is not None and not isinstance(folder, str):
        raise InvalidInput("The workspaceFolder of selfloop.chat.new must be a URI, so no chat file was made.")
    workspace = ls.hub.workspace_of(ls, folder)
    chats = _writer(ls).chats(workspace)
    path = await asyncio.to_thread(chats.create, chat_text.HEAD, key=ls.request_key)
    uri = workspace.uri(path.relative_to(workspace.path).as_posix())
    if not await _shown(ls, uri):
        ls.window_show_message(
            types.ShowMessageParams(
                type=types.MessageType.Info, message=f"A chat file was made; open it to write: {path}"
            )
        )
    return {"uri": uri}


async def _shown(ls: SelfloopServer, uri: str) -> bool:
    capability = ls.client_capabilities.window
    if not (capability and capability.show_document and capability.show_document.support):
        return False
    try:
        async with asyncio.timeout(SHOW_SECONDS):
            return (await ls.window_show_document_async(types.ShowDocumentParams(uri=uri, take_focus=True))).success
    except TimeoutError:
        return False


async def send(ls: SelfloopServer, arguments: dict[str, Any]) -> dict[str, Any]:
    """Send what the user wrote below the last answer, or the selection, as a prompt of the file's session."""
    uri = arguments.get("uri")
    file = _writer(ls).find(uri)
    if file is None:
        raise InvalidInput(
            f"{uri} is no chat file of an open folder (.evo/chat/<name>.md), so nothing was sent; selfloop.chat.new "
            "makes one."
        )
    ls.require_trust()
    try:
        span = msgspec.convert(arguments.get("range"), Range | None)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The range of selfloop.chat.send is wrong ({error}); nothing was sent.") from error
    async with file.sending:
        words, text = await _words(ls, file, span)
        session_id = _session(ls, file, text)
        after = file.workspace.updates(session_id).last_seq
        prompt = words.text.replace("\r\n", "\n")
        ack = ls.call("selfloop/session/prompt", SessionPromptParams(session_id=session_id, text=prompt))
        assert isinstance(ack, Wire)  # noqa: S101 - the prompt's handler is synchronous
        told = msgspec.to_builtins(ack)
        file.window = ls.window
        placed = _writer(ls).owe(file, Owed(told["turnId"], session_id, file.name, words.text, after))
        try:
            await asyncio.wait_for(placed.wait(), PLACE_SECONDS)
        except TimeoutError:
            pass  # The editor is slow, or the user types on; the writer goes on trying.
    return {"sessionId": session_id, **told}


async def _words(ls: SelfloopServer, file: ChatFile, span: Range | None) -> tuple[chat_text.Words, str]:
    """Return what is to be sent, and the file's text."""
    document = file.document_of(ls)
    text = document.text if document is not None else await asyncio.to_thread(file.chats.read, file.name)
    if text is None:
        raise RequestFailed(f"{file.shown} cannot be read as a text file, so nothing was sent; open another chat file.")
    if span is not None and span.start != span.end:
        start, end = (chat_text.offset_of(text, at.line, at.character) for at in (span.start, span.end))
        words = chat_text.chosen(text, start, end)
        if words is None:
            raise InvalidInput(
                "The selection is empty or not wholly below the last answer, so nothing was sent; select what you "
                "wrote below it, or nothing."
            )
        return words, text
    words = chat_text.waiting(text)
    if words is None:
        raise InvalidInput(
            "Nothing is written below the last answer, so nothing was sent; write there what you want done, then send."
        )
    return words, text


def _session(ls: SelfloopServer, file: ChatFile, text: str) -> str:
    """Return the session that the file is bound to; a new one when it names none, or one that is not here."""
    named = chat_text.session_of(text)
    if named is not None and file.workspace.has_session(named):
        return named
    if named is not None:
        message = (
            f"{file.shown} names the session {named}, which is not in this folder, so a new session was begun; it does "
            "not know what stands above."
        )
        ls.window_show_message(types.ShowMessageParams(type=types.MessageType.Warning, message=message))
    return file.workspace.create_session(None)


# Lenses and actions


async def lenses(ls: SelfloopServer, uri: str) -> list[types.CodeLens] | None:
    """Return the code lenses of a chat file; None when it is none."""
    file, text = _open_file(ls, uri)
    if file is None:
        return None
    stops, words = _stops(file, text), chat_text.waiting(text)
    found = [_lens(text, at, command) for _, command, at in stops]
    if words is not None:
        found.append(_lens(text, words.end, _send(uri, None)[1]))
    bottom = words.end if words is not None else stops[0][2] if stops else len(text)
    return found + [_lens(text, bottom, command) for _, _, command in await _decisions(ls, file, text)]


async def actions(ls: SelfloopServer, params: types.CodeActionParams) -> list[tuple[str, str, types.Command]] | None:
    """Return title, kind and command of what can be done in a chat file; None when it is none."""
    uri, span = params.text_document.uri, params.range
    file, text = _open_file(ls, uri)
    if file is None:
        return None
    found: list[tuple[str, str, types.Command]] = []
    start, end = (chat_text.offset_of(text, at.line, at.character) for at in (span.start, span.end))
    if start != end and chat_text.chosen(text, start, end) is not None:
        title, command = _send(uri, span)
        found.append((f"{title}: the selection", ASK_KIND, command))
    elif chat_text.waiting(text) is not None:
        title, command = _send(uri, None)
        found.append((title, ASK_KIND, command))
    found += [(title, ASK_KIND, command) for title, command, _ in _stops(file, text)]
    return found + await _decisions(ls, file, text)


def _open_file(ls: SelfloopServer, uri: str) -> tuple[ChatFile | None, str]:
    file = _writer(ls).find(uri)
    document = file.document_of(ls) if file is not None else None
    return (file, document.text) if document is not None else (None, "")


def _send(uri: str, span: types.Range | None) -> tuple[str, types.Command]:
    arguments: dict[str, Any] = {"uri": uri}
    if span is not None:
        arguments["range"] = {
            name: {"line": at.line, "character": at.character}
            for name, at in (("start", span.start), ("end", span.end))
        }
    title = "Send to Selfloop"
    return title, types.Command(title=title, command=SEND, arguments=[arguments])


def _stops(file: ChatFile, text: str) -> list[tuple[str, types.Command, int]]:
    """Return title, command and offset of a way to stop each answer that is being written."""
    found = []
    for owed in file.chats.owed(file.name):
        at = chat_text.position(text, owed.turn_id)
        if at is not None:
            title = "Stop Selfloop"
            command = types.Command(
                title=title, command="selfloop.session.cancel", arguments=[{"sessionId": owed.session_id}]
            )
            found.append((title, command, at[0]))
    return found[:1]  # One turn of a session runs at a time; what waits behind it goes on when it is stopped.


async def _decisions(ls: SelfloopServer, file: ChatFile, text: str) -> list[tuple[str, str, types.Command]]:
    """Return what decides the open gates of the file's session, bound to the digest of what is asked now."""
    session_id, workspace = chat_text.session_of(text), file.workspace
    found: list[tuple[str, str, types.Command]] = []
    records = [record for record in workspace.gates.list() if record.session_id == session_id] if session_id else []
    proposals = [record for record in records if record.subject_type == "changes"]
    if proposals and proposals[-1].state == "resolved" and proposals[-1].resolved_by in ("approve", "mixed"):
        title = "Take back what was approved last"
        undo = types.Command(title=title, command="selfloop.change.undo", arguments=[{"gateId": proposals[-1].gate_id}])
        found.append((title, GATE_KIND, undo))
    for record in records:
        if record.state != "open":
            continue
        view = await workspace.gates.read(record.gate_id, WindowEditor(ls.hub, workspace.path, ls.window))
        gate = workspace.gate_info(view.gate)
        if record.subject_type == "changes":
            title = "Show the proposal"
            show = types.Command(title=title, command="selfloop.gate.show", arguments=[{"gateId": gate.gate_id}])
            found.append((title, GATE_KIND, show))
            names = {"approve": "Approve the whole proposal", "reject": "Reject the whole proposal"}
        else:
            names = {option.option_id: f"{option.name} · {gate.title}" for option in gate.options}
        for option in gate.options:
            title = names.get(option.option_id, option.name)
            found.append((title, GATE_KIND, decide_all(gate, option.option_id, title)))
    return found


def _lens(text: str, offset: int, command: types.Command) -> types.CodeLens:
    at = types.Position(*chat_text.position_of(text, offset))
    return types.CodeLens(range=types.Range(at, at), command=command)


def _writer(ls: SelfloopServer) -> ChatWriter:
    return ls.hub.chat_writer
