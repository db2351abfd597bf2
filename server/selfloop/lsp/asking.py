"""The command `selfloop.ask`: what a click on a place, or on a change that is out of date, says to the agent.

It is a prompt like any other, so trust, the queue and the budget hold for it as they do for what the user types; or it
hands the place to a loop, as `run/start` does.
"""

from __future__ import annotations

from typing import Any

import msgspec
from lsprotocol import types

from selfloop.agent.context import OUT_OF_DATE
from selfloop.errors import Decided, InvalidInput, RequestFailed, Unknown
from selfloop.lsp.code_actions import words_for
from selfloop.lsp.convert import line_range
from selfloop.lsp.editor import WindowEditor
from selfloop.lsp.loop_messages import RunStartParams
from selfloop.lsp.protocol import AskParams, AskResult, ContextItem, SessionPromptParams, SessionPromptResult
from selfloop.lsp.server import SelfloopServer
from selfloop.wire import Wire

NOTHING = "Cancel"


async def ask(ls: SelfloopServer, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prompt about a place, or for a stale change once more; the result is an `AskResult`."""
    try:
        params = msgspec.convert(arguments, AskParams)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"The command selfloop.ask is wrong ({error}); nothing was asked.") from error
    if params.intent == "again":
        return await _again(ls, params)
    if params.intent == "loop":
        return await _hand_over(ls, params)
    text = params.prompt or words_for(params)
    if not text:
        raise InvalidInput("The command selfloop.ask needs an intent or a prompt; nothing was asked.")
    if params.uri is None:
        raise InvalidInput("The command selfloop.ask needs the uri of a file; nothing was asked.")
    session_id = params.session_id or ls.hub.last_session(ls.window)
    if session_id is None:
        ls.require_trust()  # Else a session would be made that nothing can be asked in.
        session_id = ls.hub.workspace_of(ls).create_session(None)
    place = ContextItem(uri=params.uri, range=params.range, text=params.text, diagnostics=params.diagnostics)
    return _prompt(ls, session_id, text, [place])


async def _hand_over(ls: SelfloopServer, params: AskParams) -> dict[str, Any]:
    """Begin a round of a loop with a place as its context; which loop, the user is asked where none is named."""
    ls.require_trust()
    loop_id = params.loop_id or await _chosen_loop(ls)
    context = []
    if params.uri is not None:
        place = ContextItem(uri=params.uri, range=params.range, text=params.text, diagnostics=params.diagnostics)
        context.append(place)
    started = ls.call("selfloop/run/start", RunStartParams(loop_id=loop_id, context=context))
    return msgspec.to_builtins(started if isinstance(started, Wire) else await started)


async def _chosen_loop(ls: SelfloopServer) -> str:
    """Ask the user which loop is meant. Only a title that was offered is an answer."""
    loops = ls.hub.workspace_of(ls).loops.catalogue.loops()
    names = [loop.spec.name for loop in sorted(loops, key=lambda loop: not loop.enabled)]
    answer = await ls.window_show_message_request_async(
        types.ShowMessageRequestParams(
            type=types.MessageType.Info,
            message="Which loop shall take this up? One round of it begins at once.",
            actions=[types.MessageActionItem(title=title) for title in (NOTHING, *names)],
        )
    )
    if answer is None or answer.title not in names:
        raise RequestFailed("No loop was chosen, so nothing was started.")
    return answer.title


async def _again(ls: SelfloopServer, params: AskParams) -> dict[str, Any]:
    """Ask a gate's session to make what is stale anew, on the text as it is now."""
    gate_id = params.gate_id or ""
    workspace = ls.hub.gate(gate_id)
    view = await workspace.gates.read(gate_id, WindowEditor(ls.hub, workspace.path, ls.window))
    if view.gate.state != "open":
        raise Decided(f"This proposal is {view.gate.state}, so nothing was asked; send a prompt to ask for more.")
    places = [
        (file, hunk)
        for file in view.files
        for hunk in file.hunks
        if (hunk.hunk_id == params.hunk_id if params.hunk_id is not None else hunk.status == "stale")
    ]
    if not places and params.hunk_id is not None:
        raise Unknown("Hunk", params.hunk_id)
    stale = [(file, hunk) for file, hunk in places if hunk.status == "stale"]
    if not stale:
        raise RequestFailed("This change still fits your text, so nothing was asked; approve it or reject it.")
    reasons = dict.fromkeys(f"- {file.path}: {hunk.reason}" for file, hunk in stale)
    text = (
        f"{OUT_OF_DATE}\n"
        + "\n".join(reasons)
        + "\nRead the text as it is now and make the change again there, as far as it is still wanted."
    )
    context = [
        ContextItem(uri=workspace.uri(file.path), range=line_range(file.lines, hunk.start, hunk.end))
        for file, hunk in stale
        if file.lines
    ]
    return _prompt(ls, view.gate.session_id, text, context)


def _prompt(ls: SelfloopServer, session_id: str, text: str, context: list[ContextItem]) -> dict[str, Any]:
    ack = ls.call("selfloop/session/prompt", SessionPromptParams(session_id=session_id, text=text, context=context))
    assert isinstance(ack, SessionPromptResult)  # noqa: S101 - the prompt's handler is synchronous
    result = AskResult(session_id=session_id, message_id=ack.message_id, turn_id=ack.turn_id, delivery=ack.delivery)
    return msgspec.to_builtins(result)
