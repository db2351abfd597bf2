"""Writes the answers into chat files while they come, some times a second: where the file is open by
`workspace/applyEdit` on the version that the editor has, else on the disk.

    update, edit, open, close ──► wake ──► plan on the text as it is now ──► one edit ──► look whether it took

Invariant: every step is planned anew from three things that survive a killed worker: what is owed (the store), what
happened (the session's journal), and how far the file has come (its own marks). So a step that was refused, undone, or
cut off is simply planned again, and nothing is written twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field
from lsprotocol import types

from selfloop.errors import SelfloopError
from selfloop.lsp import chat_text
from selfloop.lsp.chat_answer import AnswerText
from selfloop.lsp.convert import path_of_uri
from selfloop.lsp.documents import Document
from selfloop.lsp.editor import send_edit
from selfloop.lsp.hub import Hub
from selfloop.lsp.server import SelfloopServer
from selfloop.session import Workspace
from selfloop.storage.chats import FOLDER, Chats, Owed
from selfloop.storage.ownership import STATE_FOLDER
from selfloop.updates import UpdateEnvelope

logger = logging.getLogger(__name__)

STEP_SECONDS = 0.4
"""Between two edits of a file: fast enough to read along, slow enough to type and to undo in between."""
SETTLE_SECONDS = 3.0
"""How long an editor may take to tell of an edit that it has applied."""
DISK_SECONDS = 2.0
"""After a start nothing is written to the disk for so long: the editor may still be telling what it has open."""
SLOWEST_SECONDS = 5.0
"""The longest wait before a refused edit is tried again."""


@define(eq=False)
class ChatFile:
    """A chat file that somebody uses."""

    workspace: Workspace
    chats: Chats
    name: str
    not_on_disk_before: float
    """By the loop's clock."""
    window: int | None = None
    """The window that has sent from it."""
    sending: asyncio.Lock = field(factory=asyncio.Lock)
    """Held from reading the words until their answer has a place, so that nothing is sent twice."""
    awake: asyncio.Event = field(factory=asyncio.Event)
    answers: dict[str, AnswerText] = field(factory=dict)
    """By turn, what has been read of the journal."""
    placed: dict[str, asyncio.Event] = field(factory=dict)
    """By turn, for whoever waits until the file has the answer's place."""
    task: asyncio.Task[None] | None = None

    @property
    def shown(self) -> str:
        """The file's name for people."""
        return f"{STATE_FOLDER}/{FOLDER}/{self.name}"

    @property
    def paths(self) -> tuple[Path, Path]:
        """Where it lies: as the client spells the folder, and really."""
        inner = (STATE_FOLDER, FOLDER, self.name)
        return self.workspace.path.joinpath(*inner), self.workspace.path.resolve().joinpath(*inner)

    def document_of(self, server: SelfloopServer) -> Document | None:
        """Return the open document in a window."""
        return next((found for path in self.paths if (found := server.documents.at(path)) is not None), None)


class ChatWriter:
    """All chat files of all workspaces."""

    def __init__(self, hub: Hub[SelfloopServer]) -> None:
        self._hub = hub
        self._files: dict[tuple[Path, str], ChatFile] = {}
        self._of_session: dict[str, ChatFile] = {}
        self._begun = asyncio.get_running_loop().time()
        hub.on_update = self._updated
        hub.on_document = self._touched
        hub.on_opened = self._opened

    def find(self, uri: object) -> ChatFile | None:
        """Return the chat file of a URI; None when it is none of an open workspace."""
        path = path_of_uri(uri) if isinstance(uri, str) else None
        if path is None or path.parts[-3:-1] != (STATE_FOLDER, FOLDER) or path.suffix != ".md":
            return None
        top = path.parent.parent.parent
        for workspace in self._hub.workspaces.values():
            if top in (workspace.path, workspace.path.resolve()):
                return self._file(workspace, path.name)
        return None

    def chats(self, workspace: Workspace) -> Chats:
        """Return the chat files of a workspace."""
        known = next((file.chats for file in self._files.values() if file.workspace is workspace), None)
        return known or Chats(workspace.store)

    def owe(self, file: ChatFile, owed: Owed) -> asyncio.Event:
        """Begin to write an answer; the event is set once the file has a place for it."""
        file.chats.owe(owed)
        file.placed[owed.turn_id] = event = asyncio.Event()
        self._follow(file, owed.session_id)
        return event

    def writes(self, workspace: Workspace) -> bool:
        """Tell whether an answer is being written in a workspace."""
        tasks = [file.task for file in self._files.values() if file.workspace is workspace]
        return any(task is not None and not task.done() for task in tasks)

    def say(self, text: str, kind: types.MessageType = types.MessageType.Info) -> None:
        """Show the user one sentence, in every window."""
        for server in self._hub.windows.values():
            if server.ready:
                server.window_show_message(types.ShowMessageParams(type=kind, message=text))

    # What wakes it

    def _updated(self, envelope: UpdateEnvelope) -> None:
        if envelope.session_id is not None and (file := self._of_session.get(envelope.session_id)) is not None:
            file.awake.set()

    def _touched(self, uri: str) -> None:
        if self._of_session and f"/{FOLDER}/" in uri and (file := self.find(uri)) is not None:
            file.awake.set()

    def _opened(self, workspace: Workspace) -> None:
        """Take up what a worker that was killed still owed."""
        if not (workspace.store.root / FOLDER).is_dir():
            return
        for owed in self.chats(workspace).owed():
            self._follow(self._file(workspace, owed.file), owed.session_id)

    def _file(self, workspace: Workspace, name: str) -> ChatFile:
        key = (workspace.path, name)
        known = self._files.get(key)
        if known is None or known.workspace is not workspace:  # It was closed and opened again.
            self._files[key] = ChatFile(workspace, self.chats(workspace), name, self._begun + DISK_SECONDS)
        return self._files[key]

    def _follow(self, file: ChatFile, session_id: str) -> None:
        self._of_session[session_id] = file
        file.awake.set()
        if file.task is None or file.task.done():
            file.task = self._hub.spawn(self._write(file), f"chat file {file.name}")

    # Writing

    async def _write(self, file: ChatFile) -> None:
        """Write until nothing more is owed to the file."""
        failures = 0
        try:
            while file.chats.owed(file.name):
                file.awake.clear()
                done = await self._step(file)
                if done is None:
                    failures = 0
                    await file.awake.wait()
                elif done:
                    failures = 0
                    await asyncio.sleep(STEP_SECONDS)
                else:
                    failures += 1
                    await asyncio.sleep(min(0.05 * 2**failures, SLOWEST_SECONDS))
        except SelfloopError as error:
            # What is owed stays written down, so that the next message to the file, or the next start, goes on.
            logger.error("chat file %s: %s", file.name, error.message)
            self.say(error.message, types.MessageType.Error)
        finally:
            for session_id in [one for one, other in self._of_session.items() if other is file]:
                del self._of_session[session_id]
            file.answers.clear()
            for event in file.placed.values():
                event.set()
            file.placed.clear()

    async def _step(self, file: ChatFile) -> bool | None:
        """Write what is there to be written; None when nothing is, False when it did not take."""
        rows = file.chats.owed(file.name)
        holder = self._holder(file, rows)
        wait = file.not_on_disk_before - asyncio.get_running_loop().time()
        if holder is None and wait > 0:
            await asyncio.sleep(wait)
            return True
        text = holder[1].text if holder is not None else await asyncio.to_thread(file.chats.read, file.name)
        if text is None:
            self._gone(file, rows)
            return None
        edits: list[chat_text.Edit] = []
        touched: list[Owed] = []
        for owed in rows:
            if (edit := self._plan(file, owed, text, is_open=holder is not None)) is None:
                continue
            if not edit:
                file.chats.paid(owed.turn_id)
            elif not touched or owed.placed:
                edits += edit
                touched.append(owed)
        if not edits:
            return None if len(rows) == len(file.chats.owed(file.name)) else True
        if holder is not None:
            took = await self._edit(file, holder, edits, touched)
        else:
            after = chat_text.apply(text, edits)
            took = await asyncio.to_thread(file.chats.replace, file.name, text, after)
        if took:
            for owed in touched:
                self._took(file, owed)
        return took

    def _plan(self, file: ChatFile, owed: Owed, text: str, *, is_open: bool) -> list[chat_text.Edit] | None:
        """Return the edits that one answer needs; none: it is settled; None: it has to wait."""
        answer = self._answer(file, owed)
        at = chat_text.position(text, owed.turn_id)
        if at is not None:
            more = answer.since(at[1])
            if not more and not answer.ended:
                self._took(file, owed)
                return None
            edit = chat_text.grow(text, owed.turn_id, more, answer.seq, last=answer.ended)
            return [edit] if edit is not None else None
        if chat_text.ended(text, owed.turn_id):
            return [] if answer.ended else None
        if owed.placed and is_open:
            # The user took the place away, perhaps by undoing, and may bring it back.
            if not answer.ended:
                return None
            self.say(
                f"The place of an answer in {file.shown} was removed, so the rest was not written there; "
                f"`selfloop session show {owed.session_id}` has all of it."
            )
            return []
        bound = chat_text.bind(text, owed.session_id)
        return [*([bound] if bound else []), chat_text.place(text, owed.turn_id, owed.words, owed.after)]

    def _answer(self, file: ChatFile, owed: Owed) -> AnswerText:
        """Return an answer as far as the journal tells it."""
        answer = file.answers.setdefault(owed.turn_id, AnswerText(owed.turn_id, owed.after))
        workspace = file.workspace
        if answer.ended:
            return answer
        if not workspace.has_session(owed.session_id):
            answer.close("The session was deleted, so the answer ends here.")
            return answer
        for envelope in workspace.updates(owed.session_id).since(answer.seq):
            answer.take(envelope)
        running = workspace.is_running(owed.session_id) or workspace.sessions.state(owed.session_id).get("running")
        if not running and not answer.ended:
            answer.close(
                "The answer ends here."
                if answer.begun
                else "This was taken back before the agent began with it, so it was not carried out; send it again."
            )
        return answer

    async def _edit(
        self,
        file: ChatFile,
        holder: tuple[SelfloopServer, Document],
        edits: Sequence[chat_text.Edit],
        touched: Sequence[Owed],
    ) -> bool:
        """Have an editor apply edits, and see whether its text shows them; its word is not believed."""
        server, document = holder
        text = document.text
        wanted = chat_text.apply(text, edits)
        pieces = [(_range(text, edit), edit.new) for edit in edits]
        try:
            refusal = await send_edit(server, [(document, pieces)], None)
        except TimeoutError:
            refusal = "it did not answer"
        if refusal is not None:
            logger.info("an edit of %s was refused: %s", file.name, refusal)
            return False
        marks = [(chat_text.position(wanted, owed.turn_id) or (0, -1))[1] for owed in touched]
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        while True:
            now = document.text
            if [(chat_text.position(now, owed.turn_id) or (0, -1))[1] for owed in touched] == marks:
                return True
            if asyncio.get_running_loop().time() > deadline or file.document_of(server) is not document:
                return False
            await asyncio.sleep(0.01)

    def _took(self, file: ChatFile, owed: Owed) -> None:
        """Note that the file has the place of an answer."""
        if not owed.placed:
            file.chats.placed(owed.turn_id)
        if (event := file.placed.pop(owed.turn_id, None)) is not None:
            event.set()

    def _holder(self, file: ChatFile, rows: Sequence[Owed]) -> tuple[SelfloopServer, Document] | None:
        """Return the window that has the file open; of several, the one whose text has come furthest."""

        def progress(server: SelfloopServer, document: Document) -> tuple[int, bool]:
            come = 0
            for owed in rows:
                at = chat_text.position(document.text, owed.turn_id)
                come += 1 << 53 if chat_text.ended(document.text, owed.turn_id) else at[1] + 1 if at else 0
            return come, server.window == file.window

        found = [
            (server, document)
            for server in self._hub.windows.values()
            if (document := file.document_of(server)) is not None
        ]
        return max(found, key=lambda one: progress(*one), default=None)

    def _gone(self, file: ChatFile, rows: Sequence[Owed]) -> None:
        for owed in rows:
            file.chats.paid(owed.turn_id)
        self.say(
            f"The chat file {file.shown} is not there any more or cannot be read, so the answer was not written to it; "
            f"`selfloop session show {rows[0].session_id}` has it."
        )
        file.awake.set()


def _range(text: str, edit: chat_text.Edit) -> types.Range:
    start, end = chat_text.position_of(text, edit.start), chat_text.position_of(text, edit.end)
    return types.Range(types.Position(*start), types.Position(*end))
