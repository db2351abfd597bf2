"""What the windows of one worker share: the pipe, the workspaces, and who is told what.

    supervisor ══ pipe ══ Hub ─┬─ SelfloopServer (window 1, 2, …)      one for each client
                               └─ Workspace (folder)                    one for each folder, built by `session.py`

The control channel (window 0) starts and stops the worker, and has it take over from another (`takeover.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from selfloop.agent.context import EditorSnapshot, OpenDocument
from selfloop.config import Folders, Settings, load_settings, origin_of
from selfloop.errors import InvalidInput, RequestFailed, SelfloopError, Unknown
from selfloop.gates.editor import ApplyOutcome, BufferEdit, Editor
from selfloop.lsp.convert import path_of_uri
from selfloop.lsp.documents import Documents
from selfloop.lsp.pipe import Frame, Pipe
from selfloop.lsp.protocol import UPDATE
from selfloop.lsp.takeover import Takeover
from selfloop.session import Workspace
from selfloop.storage.rules import Rules
from selfloop.storage.trust import TrustList
from selfloop.updates import Generation, UpdateEnvelope, encoder

logger = logging.getLogger(__name__)

_UPDATE_HEAD = b'{"jsonrpc":"2.0","method":"' + UPDATE.encode() + b'","params":'


class _Folder(msgspec.Struct):
    """A folder as the supervisor names it."""

    uri: str
    path: str
    owned: bool
    """False: another server serves it."""


class _Control(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: dict[str, Any] = {}


class Window(Protocol):
    """What the hub needs of the server of a window."""

    documents: Documents
    settings: dict[str, Any]

    @property
    def trusted(self) -> bool:
        """Whether commands, git and models may run in its workspace."""

    def receive(self, frame: Frame) -> None:
        """Take one message of the client."""

    def folder_uris(self) -> list[str]:
        """Return the URIs of the window's folders."""


W = TypeVar("W", bound=Window)


class NoEditor:
    """Stands for the windows while there is none: nothing is open."""

    def open_text(self, path: str) -> None:
        """Nothing is open."""

    async def apply(self, edits: Sequence[BufferEdit], *, label: str, prefer: int | None) -> ApplyOutcome:
        """Refuse: there is no editor."""
        return ApplyOutcome(False, "no editor is open")


class Hub(Generic[W]):
    """Everything that outlives a single window."""

    def __init__(self, read_fd: int, write_fd: int, create_server: Callable[[Hub[W], int], W]) -> None:
        self.folders = Folders.of_user()
        self.windows: dict[int, W] = {}
        self.workspaces: dict[Path, Workspace] = {}
        """By real path, in the order in which they were opened."""
        self.closing: set[Path] = set()
        """Folders that are just being closed."""
        self.closer: asyncio.Task[None] | None = None
        self.rules = Rules(self.folders.data)
        self.restarting: str | None = None
        """The id of the restart that is under way."""
        self.generation = 0
        """The generation that this worker is; 0 is the installed package."""
        self.takeover = Takeover(self)
        self.on_faces_changed: Callable[[Path | None], None] = lambda folder: None
        """Given by the inbox: gates (of a workspace) or documents (None) have changed, so its faces may have."""
        self.on_typed: Callable[[str, bool], None] = lambda uri, saved: None
        """Given by the inbox: a document was opened, edited or closed, or saved."""
        self.on_update: Callable[[UpdateEnvelope], None] = lambda envelope: None
        """Given by the chat files, like the next two: something was told to the clients."""
        self.on_document: Callable[[str], None] = lambda uri: None
        """A document was opened, edited or closed."""
        self.on_opened: Callable[[Workspace], None] = lambda workspace: None
        """A workspace was opened."""
        self.chat_writer: Any = None
        """Given by the worker: the `ChatWriter`, which stands above this file."""
        self.on_window_closed: Callable[[], None] = lambda: None
        """Given by the worker."""
        self.editor_of: Callable[[Path], Editor] = lambda folder: NoEditor()
        """Given by the features: the windows as the gates see them."""
        self.stopping = asyncio.Event()
        self._create_server = create_server
        self._foreign: set[Path] = set()
        self._keys: dict[str, str] = {}
        self._settings: Settings | None = None
        self._last_session: dict[int, str] = {}
        self._restarted: str | None = None
        """The restart that this worker was started for, until a workspace has told it."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._trust = TrustList(self.folders.data)
        self.pipe = Pipe(read_fd, write_fd, self._frame)

    # Messages

    def send(self, window: int, body: bytes) -> None:
        """Send a message to one window."""
        self.pipe.send(window, body)

    def publish(self, envelope: UpdateEnvelope) -> None:
        """Send an update to every window."""
        body = _UPDATE_HEAD + encoder.encode(envelope) + b"}"
        for window in self.windows:
            self.pipe.send(window, body)
        self.on_update(envelope)

    def publish_to(self, window: int, envelope: UpdateEnvelope) -> None:
        """Send an update to one window."""
        self.pipe.send(window, _UPDATE_HEAD + encoder.encode(envelope) + b"}")

    def tell_supervisor(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification over the control channel."""
        self.pipe.send(0, encoder.encode({"jsonrpc": "2.0", "method": method, "params": params}))

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something in the background; it is cancelled when the worker ends, and its failure is logged."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s failed", task.get_name(), exc_info=error)

    def _frame(self, frame: Frame) -> None:
        if frame.window == 0:
            try:
                # The standard decoder takes paths that are no UTF-8, which the other refuses.
                self._control(msgspec.convert(json.loads(frame.body), _Control))
            except (SelfloopError, KeyError, TypeError, ValueError) as error:
                logger.error("a control message was not carried out: %r", error)
        elif (server := self.windows.get(frame.window)) is not None:
            server.receive(frame)

    def _control(self, message: _Control) -> None:
        params = message.params
        match message.method:
            case "control/start":
                self._settings = None  # The user may have chosen another model since this worker was primed.
                self._know_folders(params)
                self.generation = int(params.get("generation", 0))
                self._restarted = params.get("restartId")
                self.takeover.start()
                self.tell_supervisor("control/ready", {})
            case "control/prime":
                self._reply(message, self.takeover.prime(model=bool(params.get("model"))))
            case "control/quiet":
                self._reply(message, self.takeover.quiet(float(params["patienceSeconds"])))
            case "control/yield":
                self._reply(message, self.takeover.let_go(force=bool(params.get("force"))))
            case "control/swapState":
                self.takeover.told(params)
            case "control/folders":
                self._know_folders(params)
            case "control/windowOpened":
                window = int(params["window"])
                self.windows[window] = self._create_server(self, window)
            case "control/windowClosed":
                self.windows.pop(int(params["window"]), None)
                self._last_session.pop(int(params["window"]), None)
                self.on_window_closed()
            case "control/resend":
                self._resend(int(params["window"]), params["sessionId"], int(params["after"]))
            case "control/outcomes":
                self.spawn(self._outcomes(message, params["keys"]), "outcomes")
            case "control/ping":
                self._answer(message, {})
            case "control/stop":
                self.stopping.set()

    def _know_folders(self, params: dict[str, Any]) -> None:
        folders = msgspec.convert(params["folders"], list[_Folder])
        self._foreign = {Path(folder.path).resolve() for folder in folders if not folder.owned}

    def _resend(self, window: int, session_id: str | None, after: int) -> None:
        """Send a window the updates of a stream that it has missed; a session that is gone has none."""
        for workspace in self.workspaces.values():
            if session_id is None or workspace.has_session(session_id):
                for envelope in workspace.updates(session_id).since(after):
                    self.publish_to(window, envelope)

    async def _outcomes(self, request: _Control, keys: list[str]) -> None:
        """Say which requests took effect, once what they had begun is finished."""
        await asyncio.gather(*(workspace.mended() for workspace in self.workspaces.values()))
        done = {key for workspace in self.workspaces.values() for key in workspace.store.outcomes(keys)}
        self._answer(request, {"done": sorted(done)})

    def _reply(self, request: _Control, work: Coroutine[Any, Any, dict[str, Any]]) -> None:
        """Answer a request of the supervisor's with what comes of some work, whatever that is."""

        async def reply() -> None:
            try:
                self._answer(request, await work)
            except Exception as error:
                logger.exception("%s failed", request.method)
                detail = {"code": RequestFailed.code, "message": f"{type(error).__name__}: {error}"}
                self.pipe.send(0, encoder.encode({"jsonrpc": "2.0", "id": request.id, "error": detail}))

        self.spawn(reply(), request.method)

    def _answer(self, request: _Control, result: dict[str, Any]) -> None:
        self.pipe.send(0, encoder.encode({"jsonrpc": "2.0", "id": request.id, "result": result}))

    # Workspaces

    def open_workspace(self, uri: str, settings: dict[str, Any]) -> Workspace:
        """Return the workspace of a folder, opening it if need be.

        Raises:
            SelfloopError: it cannot be served; the sentence says why.
        """
        path = path_of_uri(uri)
        if path is None:
            raise RequestFailed(f"{uri} is no local folder, so nothing was opened; open a folder on this machine.")
        real = path.resolve()
        if real in self.closing:
            raise RequestFailed(f"{path} is just being closed, so nothing was done in it; try again.")
        if real not in self.workspaces:
            if real in self._foreign:
                raise RequestFailed(
                    f"{path} is already served by another window's server, so it was not opened here; "
                    "use that window, or close it first."
                )
            self.workspaces[real] = Workspace(path, uri=uri, host=self, settings=self.settings(settings))
            if self._restarted is not None:
                self.workspaces[real].emit(
                    Generation(number=self.generation, state="active", restart_id=self._restarted)
                )
                self._restarted = None
            self.on_opened(self.workspaces[real])
        return self.workspaces[real]

    def workspace_of(self, server: W, folder: str | None = None) -> Workspace:
        """Return the workspace that a request of a window is about: the named folder, else the window's first."""
        uris = [folder] if folder else server.folder_uris()
        if not uris:
            raise RequestFailed("No folder is open in this window, so nothing was done; open a folder first.")
        return self.open_workspace(uris[0], {})

    def session(self, session_id: str) -> tuple[Workspace, str]:
        """Find the workspace that has a session.

        Raises:
            Unknown: no workspace has it.
        """
        for workspace in self.workspaces.values():
            if workspace.has_session(session_id):
                return workspace, session_id
        raise Unknown("Session", session_id)

    def gate(self, gate_id: str) -> Workspace:
        """Find the workspace that has a gate.

        Raises:
            Unknown: no workspace has it.
        """
        for workspace in self.workspaces.values():
            if workspace.has_gate(gate_id):
                return workspace
        raise Unknown("Gate", gate_id)

    def on_trust_list(self, uris: Sequence[str]) -> bool:
        """Tell whether the user's trust list covers every one of some folders, and at least one."""
        paths = [path_of_uri(uri) for uri in uris]
        return bool(paths) and all(path is not None and self._trust.is_trusted(path) for path in paths)

    def gates_changed(self, folder: Path) -> None:
        """Gates of a workspace were opened, decided or moved."""
        self.on_faces_changed(folder)

    def editor(self, folder: Path) -> Editor:
        """Return the windows as the gates see them."""
        return self.editor_of(folder)

    def snapshot(self, folder: Path) -> EditorSnapshot:
        """Return what all windows together show of a workspace; of a file in several, the first one's unsaved text."""
        documents: dict[str, OpenDocument] = {}
        for server in self.windows.values():
            for document in server.documents.snapshot(folder).documents:
                if document.path not in documents or (document.dirty and not documents[document.path].dirty):
                    documents[document.path] = document
        return EditorSnapshot(window=0, documents=tuple(documents.values()))

    # Models and keys

    def key(self, origin: str) -> str | None:
        """Return the key given for an origin."""
        return self._keys.get(origin)

    def set_key(self, origin: str, key: str) -> None:
        """Hold a key for exactly one origin (scheme, host, port); an empty key forgets it."""
        place = origin_of(origin)
        if place is None:
            raise InvalidInput(
                "The origin of a key must look like https://host or http://host:port; no key was stored, send it again."
            )
        if key:
            self._keys[place] = key
        else:
            self._keys.pop(place, None)

    def secrets(self) -> tuple[str, ...]:
        """Return the keys that are known, so that they are redacted wherever they turn up."""
        own = self._settings.api_key if self._settings is not None else None
        return (*self._keys.values(), *((own,) if own else ()))

    def model_name(self) -> str | None:
        """Return the name of the model in use."""
        return (self._settings.model or None) if self._settings is not None else None

    def use_settings(self, chosen: Settings) -> None:
        """Use other settings of the model in every folder from the next call on."""
        self._settings = chosen
        for workspace in self.workspaces.values():
            workspace.use_model(chosen)

    # Which session, and restarts

    def remember_session(self, window: int, session_id: str) -> None:
        """Note the session that a window has last prompted."""
        self._last_session[window] = session_id

    def last_session(self, window: int) -> str | None:
        """Return the session that a window has last prompted, if it still is there."""
        session_id = self._last_session.get(window)
        known = session_id and any(workspace.has_session(session_id) for workspace in self.workspaces.values())
        return session_id if known else None

    def restart(self, restart_id: str, *, when_idle: bool) -> None:
        """Ask the supervisor for a new worker, now or once no turn runs."""
        self.restarting = restart_id
        self.spawn(self._restart(restart_id, when_idle), "restart")

    async def _restart(self, restart_id: str, when_idle: bool) -> None:
        # Turns end in many ways; a look now and then sees them all.
        while when_idle and any(workspace.any_running() for workspace in self.workspaces.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        patience = {} if when_idle else {"patienceSeconds": 0}
        self.tell_supervisor("control/restart", {"restartId": restart_id, **patience})

    def swap(self, restart_id: str, *, number: int, tree: str, by: str) -> None:
        """Ask the supervisor to have another generation serve; `control/swapState` tells what becomes of it.

        Number 0 is the installed package, whose tree is empty; `by` is `approval` or `user`.
        """
        self.tell_supervisor("control/swap", {"restartId": restart_id, "number": number, "tree": tree, "by": by})

    @property
    def at_work(self) -> bool:
        """Whether this worker serves: it is not merely primed, and has not let go."""
        return self.takeover.at_work

    def settings(self, of_window: dict[str, Any] | None = None) -> Settings:
        """Return the user's settings, read when they are first needed.

        Args:
            of_window: what a window's `initializationOptions` say, which counts where nothing was read yet.
        """
        if self._settings is None:
            self._settings = load_settings(self.folders, of_window or {})
        return self._settings

    async def quiesce(self) -> None:
        """End what runs in the background, but for whoever asks and the canary that reads wait for."""
        own = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not own and task.get_name() != "isolation"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """End what runs, then write out what was sent."""
        await self.quiesce()
        for task in self._tasks:
            task.cancel()
        for workspace in self.workspaces.values():
            try:
                await workspace.close()
            except SelfloopError as error:
                logger.error("closing %s: %s", workspace.path, error.message)
        await self.pipe.drain()
