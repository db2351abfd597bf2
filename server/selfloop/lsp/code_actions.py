"""Code actions: decide a pending hunk, and hand a selection, a diagnostic or a file to the agent.

Nothing that approves is ever preferred, a quick fix or a source action: editors run those on save or with one key.
"""

from __future__ import annotations

from typing import Any

from lsprotocol import types

from selfloop.lsp import chat_files
from selfloop.lsp.convert import path_of_uri
from selfloop.lsp.inbox import (
    SOURCE,
    Pending,
    ask_again,
    decide,
    decide_all,
    pending,
    sealed,
    show,
    undecided_in,
    why_stale,
)
from selfloop.lsp.protocol import AskParams
from selfloop.lsp.server import SelfloopServer

GATE = "selfloop.gate"
ASK = "selfloop.ask"
KINDS = [GATE, ASK]

INTENTS = {
    "explain": "Explain the selected code: what it does, why it is so, and what to watch out for. Change nothing.",
    "fix": "Fix the problem that the attached diagnostics report, with the smallest change that is right.",
    "improve": "Improve the selected code without changing what it does, and say what is better now.",
    "test": "Write a test for the selected code in the project's own style, and run it.",
    "about": "Give a short account of this file: its purpose, its main parts, how the rest uses it. Change nothing.",
}

OF_A_FILE = {
    "improve": "Improve this file without changing what it does, and say what is better now.",
    "test": "Write a test for this file in the project's own style, and run it.",
}
"""What an intent means where nothing is selected."""


def words_for(params: AskParams) -> str | None:
    """Return the prompt of an intent; None: it has none of its own."""
    if params.intent is None:
        return None
    selected = params.range is not None and params.range.start != params.range.end
    own = None if selected or params.text else OF_A_FILE.get(params.intent)
    return own or INTENTS.get(params.intent)


async def code_action(ls: SelfloopServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    """Return what can be done at a place; `codeAction/resolve` fills in the command."""
    uri = params.text_document.uri
    hunks = await gate_file_hunks(ls, uri, params.range) or [
        item for item in await undecided_in(ls, uri) if _touches(item.range(), params.range)
    ]
    actions = [action for item in hunks for action in _gate_actions(item)]
    workspaces = {item.gate.gate_id: item.workspace for item in hunks if not item.is_stale}
    for gate_id, workspace in workspaces.items():
        gate = await sealed(ls, workspace, gate_id)
        if gate is None:
            continue
        for option, title in (("approve", "Approve all pending hunks"), ("reject", "Reject all pending hunks")):
            actions.append(_action(f"{title} · {gate.title}", GATE, decide_all(gate, option, title)))
    only = params.context.only
    if (chat := await chat_files.actions(ls, params)) is not None:
        actions += [_action(title, kind, command) for title, kind, command in chat]
    elif path_of_uri(uri) is not None:
        actions += _ask_actions(ls, params)
    return [action for action in actions if not only or any(_within(str(action.kind), str(kind)) for kind in only)]


def resolve(ls: SelfloopServer, params: types.CodeAction) -> types.CodeAction:
    """Fill in the command that was kept in the action's data."""
    data: Any = params.data
    if params.command is None and isinstance(data, dict) and "command" in data:
        params.command = types.Command(
            title=params.title, command=str(data["command"]), arguments=list(data.get("arguments", []))
        )
    return params


def _gate_actions(item: Pending) -> list[types.CodeAction]:
    place = f"{item.file.path}:{item.hunk.start + 1}"
    if item.is_stale:
        why = why_stale(item)
        return [
            _action(why.title, GATE, why),
            _action(f"Ask again for this change ({place})", GATE, ask_again(item)),
            _action(f"Reject this hunk ({place})", GATE, decide(item, "reject")),
        ]
    return [
        _action(f"Approve this hunk ({place})", GATE, decide(item, "approve")),
        _action(f"Reject this hunk ({place})", GATE, decide(item, "reject")),
        _action("Show the whole diff", GATE, show(item)),
    ]


async def gate_file_hunks(ls: SelfloopServer, uri: str, place: types.Range) -> list[Pending]:
    """Return the pending hunks at a place of a gate's diff file (`.evo/gates/<id>.diff`); all of them in its head."""
    path = path_of_uri(uri)
    document = ls.documents.at(path) if path is not None else None
    if path is None or document is None or path.suffix != ".diff" or path.parts[-3:-1] != (".evo", "gates"):
        return []
    from selfloop.gates.rendering import hunk_spans

    spans = hunk_spans(document.text)
    here = {span.hunk_id for span in spans if span.start <= place.end.line and place.start.line < span.end}
    waiting = [item for item in await pending(ls.hub, ls) if item.gate.gate_id == path.stem]
    return [item for item in waiting if item.hunk.hunk_id in here] if here else waiting


def _ask_actions(ls: SelfloopServer, params: types.CodeActionParams) -> list[types.CodeAction]:
    foreign = [item for item in params.context.diagnostics if item.source != SOURCE]
    selected = params.range.start != params.range.end
    offers = []
    if foreign:
        offers.append(("fix", "Fix with Selfloop"))
    if selected or foreign:
        offers.append(("explain", "Explain with Selfloop"))
    if selected:
        offers += [("improve", "Improve with Selfloop"), ("test", "Write a test with Selfloop")]
    else:
        offers += [
            ("test", "Write a test for this file with Selfloop"),
            ("improve", "Improve this file with Selfloop"),
        ]
    if selected or foreign:
        offers.append(("loop", "Hand to a loop"))
    offers.append(("about", "Ask Selfloop about this file"))
    converter = ls.protocol._converter
    base: dict[str, Any] = {"uri": params.text_document.uri, "range": converter.unstructure(params.range)}
    if foreign:
        base["diagnostics"] = [converter.unstructure(item) for item in foreign]
    return [
        _action(title, ASK, types.Command(title=title, command="selfloop.ask", arguments=[{**base, "intent": intent}]))
        for intent, title in offers
    ]


def _action(title: str, kind: str, command: types.Command) -> types.CodeAction:
    # The command travels in the data too, for clients that resolve before they run.
    return types.CodeAction(
        title=title,
        kind=types.CodeActionKind(kind) if kind in {item.value for item in types.CodeActionKind} else kind,
        command=command,
        data={"command": command.command, "arguments": command.arguments},
    )


def _touches(hunk: types.Range, place: types.Range) -> bool:
    return hunk.start.line <= place.end.line and place.start.line <= max(hunk.end.line, hunk.start.line)


def _within(kind: str, wanted: str) -> bool:
    return kind == wanted or kind.startswith(wanted + ".")
