"""One client's language server: pygls, with our own messages typed and on a fast path.

    frame ─┬─ selfloop/*, document changes ── msgspec ── handler ── msgspec ─┐
           └─ every other LSP message ─────── lsprotocol, pygls ─────────────┴─ frame

Both ways end at handlers that are registered as pygls features; the fast path only spares the detour that costs pygls
ten times as much (a class for each message, three thread hops, runtime protocols). A leaf: it imports no handler.

Invariant: every request that arrives is answered exactly once, whatever the handler does.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any

import msgspec
from lsprotocol import converters, types
from pygls.capabilities import ServerCapabilitiesBuilder
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol
from pygls.protocol.language_server import lsp_method

import selfloop
from selfloop.errors import InvalidInput, NotTrusted, SelfloopError
from selfloop.lsp.documents import Documents
from selfloop.lsp.hub import Hub
from selfloop.lsp.pipe import Frame
from selfloop.lsp.protocol import DID_FOCUS, METHODS, FocusParams, Wire
from selfloop.updates import encoder

logger = logging.getLogger(__name__)

INTERNAL_ERROR = -32603
METHOD_NOT_FOUND = -32601


class _Head(msgspec.Struct):
    """What decides where a message goes."""

    method: str | None = None
    id: int | str | None = None
    params: msgspec.Raw = msgspec.Raw(b"null")


ACTIVATING = frozenset(
    {
        "selfloop/session/prompt",
        "selfloop/session/requeue",
        "selfloop/session/cancel",
        "selfloop/gate/resolve",
        "selfloop/change/undo",
        "selfloop/loop/configure",
        "selfloop/run/start",
        "selfloop/run/cancel",
    }
)
"""What a window that only passes by may still ask for: before it is done, the workspace takes up what was cut off."""

_request_key: ContextVar[str | None] = ContextVar("request_key", default=None)
"""A task takes over the value of the message that it was made for, so a later message changes nothing of it."""

_head = msgspec.json.Decoder(_Head)
_params = {name: msgspec.json.Decoder(method.params) for name, method in METHODS.items()}
_focus = msgspec.json.Decoder(FocusParams)


class RpcError(JsonRpcException):
    """A `SelfloopError` on its way through pygls."""

    def __init__(self, error: SelfloopError) -> None:
        super().__init__(error.message, error.code, {"reason": error.reason})


def error_body(request_id: int | str, code: int, message: str, reason: str | None = None) -> bytes:
    """Return an error response as it goes over the wire."""
    error: dict[str, Any] = {"code": code, "message": message}
    if reason is not None:
        error["data"] = {"reason": reason}
    return encoder.encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def _without_halves(body: bytes) -> bytes:
    """Return a message with "?" for each half of a surrogate pair: to editors that is JSON, and both are as long."""
    return json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace")


class SelfloopProtocol(LanguageServerProtocol):
    """pygls' protocol, fed with whole messages instead of a stream."""

    _server: SelfloopServer  # pyrefly: ignore[bad-override-mutable-attribute]

    def receive(self, frame: Frame) -> None:
        """Take one message of the client; its answer follows by the writer."""
        _request_key.set(frame.key)
        try:
            head = _head.decode(frame.body)
        except (msgspec.DecodeError, msgspec.ValidationError):
            try:
                frame = frame._replace(body=_without_halves(frame.body))
                head = _head.decode(frame.body)
            except (ValueError, RecursionError, msgspec.MsgspecError):
                logger.warning("a message of window %d is no JSON-RPC and was dropped", self._server.window)
                return
        method = head.method
        if method is None:
            self._ordinary(frame.body, head)
        elif method in _params:
            self._fast(method, head)
        elif method.startswith("selfloop/") and head.id is not None:
            self._answer(error_body(head.id, METHOD_NOT_FOUND, f"There is no method {method!r}; nothing was done."))
        elif method.startswith("textDocument/did") and self._document(method, head.params):
            return
        else:
            self._ordinary(frame.body, head)

    def _fast(self, method: str, head: _Head) -> None:
        request_id = head.id
        try:
            params = _params[method].decode(head.params if bytes(head.params) != b"null" else b"{}")
            outcome = self._server.call(method, params)
        except Exception as error:
            self._fail(request_id, method, error)
            return
        if isinstance(outcome, Wire):
            self._succeed(request_id, outcome)
            return
        task = asyncio.ensure_future(outcome)
        if request_id is not None:
            self._request_futures[request_id] = task  # pyrefly: ignore[unsupported-operation]
        task.add_done_callback(lambda done: self._finish(request_id, method, done))

    def _finish(self, request_id: int | str | None, method: str, task: asyncio.Future[Wire]) -> None:
        if request_id is not None:
            self._request_futures.pop(request_id, None)
        if task.cancelled():
            if request_id is not None:
                self._answer(error_body(request_id, types.LSPErrorCodes.RequestCancelled, "The request was cancelled."))
        elif (error := task.exception()) is not None:
            self._fail(request_id, method, error)
        else:
            self._succeed(request_id, task.result())

    def _succeed(self, request_id: int | str | None, result: Wire) -> None:
        if request_id is not None:
            self._answer(
                b'{"jsonrpc":"2.0","id":' + encoder.encode(request_id) + b',"result":' + encoder.encode(result) + b"}"
            )

    def _fail(self, request_id: int | str | None, method: str, error: BaseException) -> None:
        code, message, reason = describe(error, method)
        if request_id is not None:
            self._answer(error_body(request_id, code, message, reason))

    def _answer(self, body: bytes) -> None:
        assert self.writer is not None  # noqa: S101 - set before the first frame is read
        self.writer.write(body)

    def _document(self, method: str, params: msgspec.Raw) -> bool:
        """Keep the open documents; True when the message has been dealt with."""
        try:
            if method == DID_FOCUS:
                self._server.documents.focus = _focus.decode(params)
                return True
            changed = self._server.documents.notice(method, params)
        except msgspec.DecodeError as error:
            logger.warning("%s of window %d was dropped: %s", method, self._server.window, error)
            return True
        if changed is not None:
            self._server.document_changed(changed)
        return changed is not None

    def _ordinary(self, body: bytes, head: _Head) -> None:
        """Hand a message of plain LSP to pygls; one that does not fit its type is answered, never swallowed."""
        try:
            message = self.structure_message(json.loads(body))
        except JsonRpcException as error:
            if head.method is not None and head.id is not None:
                fits = isinstance(error, JsonRpcInvalidParams)
                code = types.ErrorCodes.InvalidParams if fits else types.ErrorCodes.InvalidRequest
                self._answer(
                    error_body(head.id, code, f"The parameters of {head.method} do not fit LSP; nothing was done.")
                )
            elif head.id is not None and (future := self._request_futures.pop(head.id, None)) is not None:
                # The client answered one of our requests with something unreadable: nobody may wait for it for ever.
                future.set_exception(error)
            return
        self.handle_message(message)

    @lsp_method(types.INITIALIZE)
    def lsp_initialize(self, params: types.InitializeParams) -> Generator[Any, Any, types.InitializeResult]:
        """Answer the same for every client, because the supervisor has already answered so."""
        yield from super().lsp_initialize(params)
        self.server_capabilities = capabilities(self)
        return types.InitializeResult(capabilities=self.server_capabilities, server_info=self.server_info)

    @lsp_method(types.EXIT)
    def lsp_exit(self, *args: Any) -> None:  # pyrefly: ignore[bad-override]
        """Do nothing: the supervisor decides when the worker ends."""


def capabilities(protocol: LanguageServerProtocol) -> types.ServerCapabilities:
    """Return what the registered features amount to. Positions are UTF-16 always."""
    manager = protocol.fm
    found = ServerCapabilitiesBuilder(
        types.ClientCapabilities(),
        {*manager.features, *manager.builtin_features},
        manager.feature_options,
        list(manager.commands),
        types.TextDocumentSyncKind.Incremental,
        None,
        types.PositionEncodingKind.Utf16,
    ).build()
    folders = types.WorkspaceFoldersServerCapabilities(supported=True, change_notifications=True)
    found.workspace = types.WorkspaceOptions(workspace_folders=folders)
    return found


def describe(error: BaseException, method: str) -> tuple[int, str, str | None]:
    """Return code, sentence and reason for what a handler raised."""
    if isinstance(error, SelfloopError):
        return error.code, error.message, error.reason
    if isinstance(error, msgspec.ValidationError):
        return InvalidInput.code, f"The parameters of {method} are wrong ({error}); nothing was done.", None
    if isinstance(error, msgspec.DecodeError):
        return InvalidInput.code, f"The parameters of {method} cannot be read ({error}); nothing was done.", None
    logger.error("%s failed", method, exc_info=error)
    return (
        INTERNAL_ERROR,
        f"Selfloop itself failed at {method} ({type(error).__name__}: {error}); see its log, and try again.",
        None,
    )


class SelfloopServer(LanguageServer):
    """The server of one window. What windows share is in the `Hub`."""

    protocol: SelfloopProtocol  # pyrefly: ignore[bad-override-mutable-attribute]

    def __init__(self, hub: Hub[SelfloopServer] | None, window: int) -> None:
        """Make the server of a window; without a hub it can only be asked what it offers."""
        super().__init__(
            "selfloop",
            selfloop.__version__,
            text_document_sync_kind=types.TextDocumentSyncKind.Incremental,
            protocol_cls=SelfloopProtocol,
            converter_factory=converters.get_converter,
        )
        self.window = window
        self._hub = hub
        self.documents = Documents(window)
        self.stated_trust: bool | None = None
        """What `initializationOptions.trusted` says; None: the user's trust list decides."""
        self.settings: dict[str, Any] = {}
        """`initializationOptions.settings`."""
        self.passing = False
        """`initializationOptions.passing`: it looks and goes, so what a crash cut off is not taken up for it."""
        self.shows_gate_diagnostics = True
        self.ready = False
        """The client has said `initialized`: it may be sent requests."""
        if hub is not None:
            self.protocol.set_writer(_WindowWriter(hub, window), include_headers=False)

    @property
    def request_key(self) -> str | None:
        """The key of the request that is being carried out; each handler's task has its own."""
        return _request_key.get()

    @property
    def hub(self) -> Hub[SelfloopServer]:
        """What all windows share."""
        assert self._hub is not None  # noqa: S101 - only a server that is never served has none
        return self._hub

    def call(self, method: str, params: Wire) -> Wire | Awaitable[Wire]:
        """Run the handler of a `selfloop/*` method, after the check of trust."""
        if METHODS[method].needs_trust:
            self.require_trust()
        handler: Callable[[Wire], Any] = self.protocol.fm.features[method]
        if self.passing and self.trusted:
            return self._passed(handler, params, activating=method in ACTIVATING)
        return handler(params)

    async def _passed(self, handler: Callable[[Wire], Any], params: Wire, *, activating: bool) -> Wire:
        """Do something for a window that passes by: once approvals are recovered or, activating, everything runs."""
        if activating:
            self.passing = False
            for uri in self.folder_uris():
                await self.hub.workspace_of(self, uri).governed()
        else:
            # It may be gone in a moment, so it is told what is so in the end. What fails there is logged there.
            every = [workspace.mended() for workspace in self.hub.workspaces.values()]
            await asyncio.gather(*every, return_exceptions=True)
        outcome = handler(params)
        return outcome if isinstance(outcome, Wire) else await outcome

    def require_trust(self) -> None:
        """Raise `NotTrusted` where the user has not trusted the workspace."""
        if not self.trusted:
            raise NotTrusted(
                "This workspace is not trusted, so nothing was run; trust it in the editor or run "
                "`selfloop trust <folder>`, then try again."
            )

    @property
    def trusted(self) -> bool:
        """Whether this window may have commands, git and models run in the workspace."""
        if self.stated_trust is not None:
            return self.stated_trust
        return self.hub.on_trust_list(self.folder_uris())

    def folder_uris(self) -> list[str]:
        """Return the URIs of the window's folders."""
        return [folder.uri for folder in self.workspace.folders.values()]

    def receive(self, frame: Frame) -> None:
        """Take one message of the client; whatever is wrong with it, the next one is taken too."""
        try:
            self.protocol.receive(frame)
        except Exception:
            logger.exception("a message of window %d was not carried out", self.window)

    def document_changed(self, uri: str) -> None:
        """Note that a document was opened, edited or closed."""
        if self.hub.at_work:
            self.hub.on_typed(uri, False)
            self.hub.on_document(uri)


class _WindowWriter:
    """pygls' writer for one window."""

    def __init__(self, hub: Hub[SelfloopServer], window: int) -> None:
        self._hub, self._window = hub, window

    def write(self, data: bytes) -> None:
        self._hub.send(self._window, data)

    def close(self) -> None:
        """Nothing to close: the pipe is the hub's."""
