"""Every feature of the server, registered in one place."""

from __future__ import annotations

from typing import Any

import msgspec
from lsprotocol import types

from selfloop.errors import InvalidInput, SelfloopError
from selfloop.lsp import asking, chat, chat_files, code_actions, evolution, gates, inbox, loops, system
from selfloop.lsp.closing import close_later
from selfloop.lsp.convert import uri_of_path
from selfloop.lsp.hub import Hub
from selfloop.lsp.protocol import COMMANDS, Wire, decode
from selfloop.lsp.server import RpcError, SelfloopServer, describe

HANDLERS = {**chat.HANDLERS, **gates.HANDLERS, **loops.HANDLERS, **evolution.HANDLERS, **system.HANDLERS}

GATE_SHOW = "selfloop.gate.show"
ASK = "selfloop.ask"


def create_server(hub: Hub[SelfloopServer], window: int) -> SelfloopServer:
    """Return the server of one window with every feature registered."""
    return register(SelfloopServer(hub, window))


def register(server: SelfloopServer) -> SelfloopServer:
    """Register every feature, and return the server."""
    for method, handler in HANDLERS.items():
        server.feature(method)(_bound(server, handler))
    for command, method in COMMANDS.items():
        server.command(command)(_command(server, method))
    server.command(GATE_SHOW)(_shown(server, _show_gate))
    server.command(ASK)(_shown(server, asking.ask))
    server.command(chat_files.NEW)(_shown(server, chat_files.new))
    server.command(chat_files.SEND)(_shown(server, chat_files.send))
    server.feature(types.INITIALIZE)(_initialize)
    server.feature(types.INITIALIZED)(_initialized)
    server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)(_folders_changed)
    server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(_configuration_changed)
    server.feature(types.TEXT_DOCUMENT_DID_SAVE)(_saved)
    server.feature(types.TEXT_DOCUMENT_CODE_LENS, types.CodeLensOptions())(_code_lens)
    server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION,
        types.CodeActionOptions(code_action_kinds=code_actions.KINDS, resolve_provider=True),  # pyrefly: ignore[bad-argument-type]
    )(code_actions.code_action)
    server.feature(types.CODE_ACTION_RESOLVE)(code_actions.resolve)
    return server


def _bound(server: SelfloopServer, handler: Any) -> Any:
    """Return the handler with its server: pygls would inspect each signature to find that out."""

    def bound(params: Wire) -> Any:
        return handler(server, params)

    return bound


def _command(server: SelfloopServer, method: str) -> Any:
    """Return a command that does what the method does, on its one object argument."""

    async def run(arguments: dict[str, Any]) -> Any:
        outcome = server.call(method, decode(method, arguments))
        result = outcome if isinstance(outcome, Wire) else await outcome
        return msgspec.to_builtins(result)

    return _shown_by_name(server, method, run)


def _shown(server: SelfloopServer, work: Any) -> Any:
    async def run(arguments: dict[str, Any]) -> Any:
        return await work(server, arguments)

    return _shown_by_name(server, work.__name__.strip("_"), run)


def _shown_by_name(server: SelfloopServer, name: str, run: Any) -> Any:
    """Make a command of `run`; its failure is also shown, since some clients swallow a command's error."""

    async def command(*arguments: Any) -> Any:
        try:
            if len(arguments) > 1 or (arguments and not isinstance(arguments[0], dict | None)):
                raise InvalidInput(f"The command {name} takes one object as its argument; nothing was done.")
            return await run((arguments[0] if arguments else None) or {})
        except (SelfloopError, msgspec.ValidationError) as error:
            message = describe(error, name)[1]
            server.window_show_message(types.ShowMessageParams(type=types.MessageType.Error, message=message))
            raise RpcError(error if isinstance(error, SelfloopError) else InvalidInput(message)) from error

    return command


async def _code_lens(ls: SelfloopServer, params: types.CodeLensParams) -> list[types.CodeLens]:
    """Return the lenses of a chat file, or those of the pending hunks of any other."""
    own = await chat_files.lenses(ls, params.text_document.uri)
    return await inbox.code_lens(ls, params) if own is None else own


async def _show_gate(ls: SelfloopServer, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write the gate's diff to its file and have the editor open it."""
    gate_id = str(arguments.get("gateId", ""))
    workspace = ls.hub.gate(gate_id)
    path = await workspace.write_gate_diff(gate_id)
    uri = uri_of_path(path)
    capability = ls.client_capabilities.window
    if capability and capability.show_document and capability.show_document.support:
        await ls.window_show_document_async(types.ShowDocumentParams(uri=uri, take_focus=True))
    return {"uri": uri}


# Plain LSP


def _initialize(ls: SelfloopServer, params: types.InitializeParams) -> None:
    options = params.initialization_options
    options = options if isinstance(options, dict) else {}
    trusted = options.get("trusted")
    ls.stated_trust = trusted if isinstance(trusted, bool) else None
    ls.passing = options.get("passing") is True
    settings = options.get("settings")
    ls.settings = settings if isinstance(settings, dict) else {}
    ls.shows_gate_diagnostics = ls.settings.get("gateDiagnostics") is not False


def _initialized(ls: SelfloopServer, params: types.InitializedParams) -> None:
    ls.ready = True
    if ls.hub.at_work:
        _open_all(ls)


def take_over(ls: SelfloopServer) -> None:
    """Open what a window has open, now that this worker serves: it knew the window before."""
    if ls.ready:
        _open_all(ls)
    for document in ls.documents.all():
        ls.document_changed(document.uri)


def _open_all(ls: SelfloopServer) -> None:
    for uri in ls.folder_uris():
        _open(ls, uri)


def _open(ls: SelfloopServer, uri: str) -> None:
    """Open a folder; what is wrong with it is said, and the server serves on."""
    try:
        workspace = ls.hub.open_workspace(uri, ls.settings)
    except SelfloopError as error:
        ls.window_show_message(types.ShowMessageParams(type=types.MessageType.Warning, message=error.message))
        return
    if ls.trusted:
        workspace.activate(passing=ls.passing)
        if (found := ls.hub.takeover.isolation) is not None:
            workspace.workshop.know_isolation(found)
    ls.hub.on_faces_changed(workspace.path)


def _folders_changed(ls: SelfloopServer, params: types.DidChangeWorkspaceFoldersParams) -> None:
    for folder in params.event.added if ls.hub.at_work else ():
        _open(ls, folder.uri)
    if params.event.removed:
        close_later(ls.hub)


def _configuration_changed(ls: SelfloopServer, params: types.DidChangeConfigurationParams) -> None:
    settings = params.settings
    own = settings.get("selfloop") if isinstance(settings, dict) else None
    if isinstance(own, dict) and isinstance(own.get("trusted"), bool):
        ls.stated_trust = own["trusted"]
        if ls.trusted and ls.hub.at_work:
            for uri in ls.folder_uris():
                ls.hub.open_workspace(uri, ls.settings).activate(passing=ls.passing)


def _saved(ls: SelfloopServer, params: types.DidSaveTextDocumentParams) -> None:
    if ls.hub.at_work:
        ls.hub.on_typed(params.text_document.uri, True)
