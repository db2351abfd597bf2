"""Plain LSP is enough: diagnostics, code actions with resolve, code lenses, commands and shown documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lsp_client import LspClient, RpcError, to_path
from model_server import ModelServer, call, text, tools
from scene import GREETING, Starter

SHARED_SERVER = True


def place(line: int) -> dict[str, Any]:
    """Return an empty range at the start of a line."""
    return {"start": {"line": line, "character": 0}, "end": {"line": line, "character": 0}}


async def propose(client: LspClient, model: ModelServer) -> str:
    """Have the agent propose two hunks in greet.py, by commands alone; returns the gate's id."""
    model.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'"),
        ),
        text("Done."),
    )
    session = (await command(client, "selfloop.session.new", {}))["sessionId"]
    await command(client, "selfloop.session.prompt", {"sessionId": session, "text": "Use f-strings."})
    await client.idle(session)
    (gate,) = (await command(client, "selfloop.gate.list", {"state": "open"}))["gates"]
    return gate["gateId"]


async def command(client: LspClient, name: str, argument: dict[str, Any]) -> Any:
    """Run a command, as an editor without a plug-in does."""
    return await client.request("workspace/executeCommand", {"command": name, "arguments": [argument]})


async def actions(client: LspClient, uri: str, range_: dict[str, Any], **context: Any) -> list[dict[str, Any]]:
    """Ask for code actions and resolve each."""
    found = await client.request(
        "textDocument/codeAction",
        {"textDocument": {"uri": uri}, "range": range_, "context": {"diagnostics": [], **context}},
    )
    return [await client.request("codeAction/resolve", action) for action in found]


async def test_a_hunk_is_approved_by_its_code_action(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py", language="python")
    await propose(client, model)
    marks = await client.until(lambda: len(rows := client.diagnostics.get(uri, [])) == 2 and rows)
    assert all(mark["source"] == "selfloop" and mark["severity"] == 3 for mark in marks)
    assert [mark["range"]["start"]["line"] for mark in marks] == [1, 5]

    offered = await actions(client, uri, place(5))
    assert not any(action.get("isPreferred") for action in offered)
    assert not any(action["kind"].startswith(("quickfix", "source")) for action in offered)
    (approve,) = [action for action in offered if action["title"].startswith("Approve this hunk")]
    assert approve["kind"] == "selfloop.gate"
    await client.request("workspace/executeCommand", approve["command"])
    assert client.buffers[uri] == GREETING.replace("'Bye ' + name", "f'Bye {name}'")
    await client.until(lambda: len(client.diagnostics[uri]) == 1)
    assert await actions(client, uri, place(5), only=["selfloop.gate"]) == []


async def test_lenses_stand_above_each_hunk_and_decide_it(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
    await propose(client, model)
    lenses = await client.request("textDocument/codeLens", {"textDocument": {"uri": uri}})
    assert [lens["command"]["title"] for lens in lenses] == ["Approve", "Reject", "Diff"] * 2
    await client.request("workspace/executeCommand", lenses[1]["command"])
    assert client.buffers[uri] == GREETING
    await client.until(lambda: len(client.diagnostics.get(uri, [])) == 1)
    await client.until(lambda: any(r["method"] == "workspace/codeLens/refresh" for r in client.requests))


async def test_the_whole_diff_is_shown_and_decides_too(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    gate = await propose(client, model)
    shown = await command(client, "selfloop.gate.show", {"gateId": gate})
    assert client.shown[-1]["uri"] == shown["uri"]
    file = to_path(shown["uri"])
    assert file.parts[-3:] == (".evo", "gates", f"{gate}.diff")
    lines = file.read_text().splitlines()
    assert "+    return f'Bye {name}'" in lines
    uri = client.open(file, language="diff")
    offered = await actions(client, uri, place(lines.index("+    return f'Bye {name}'")))
    approve = [action for action in offered if action["title"].startswith("Approve this hunk")]
    assert len(approve) == 1, "only the hunk under the cursor"
    await client.request("workspace/executeCommand", approve[0]["command"])
    assert (workspace / "greet.py").read_text() == GREETING.replace("'Bye ' + name", "f'Bye {name}'")


async def test_a_selection_and_a_diagnostic_are_handed_to_the_agent(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
    problem = {
        "range": {"start": {"line": 1, "character": 4}, "end": {"line": 1, "character": 10}},
        "message": "Strings are glued together here",
        "source": "lint",
        "severity": 2,
    }
    offered = await actions(client, uri, problem["range"], diagnostics=[problem])
    titles = [action["title"] for action in offered]
    assert "Fix with Selfloop" in titles and "Explain with Selfloop" in titles
    model.extend(text("Fixed."))
    fix = offered[titles.index("Fix with Selfloop")]
    ack = await client.request("workspace/executeCommand", fix["command"])
    await client.idle(ack["sessionId"])
    told = str(model.requests[0].messages)
    assert "Strings are glued together here" in told and "greet.py" in told


async def test_a_command_that_fails_is_also_shown(start: Starter, workspace: Path) -> None:
    client = await start()
    with pytest.raises(RpcError, match="There is no gate"):
        await command(client, "selfloop.gate.read", {"gateId": "nope"})
    await client.until(lambda: any("There is no gate" in message["message"] for message in client.messages))


async def test_an_editor_without_versioned_edits_gets_plain_ones(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start(capabilities={})
    uri = client.open(workspace / "greet.py")
    gate = await propose(client, model)
    read = await command(client, "selfloop.gate.read", {"gateId": gate})
    answer = {"gateId": gate, "optionId": "approve", "digest": read["gate"]["digest"]}
    assert (await command(client, "selfloop.gate.resolve", answer))["applied"] == [uri]
    (edit,) = [r["params"]["edit"] for r in client.requests if r["method"] == "workspace/applyEdit"]
    assert "documentChanges" not in edit and list(edit["changes"]) == [uri]
    assert client.buffers[uri] == GREETING.replace("'Hello ' + name", "f'Hello {name}'").replace(
        "'Bye ' + name", "f'Bye {name}'"
    )
