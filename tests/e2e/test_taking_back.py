"""An approved hunk is taken back in the editor, and a proposal goes out of date: over the wire, on real parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lsp_client import LspClient, RpcError
from model_server import ModelServer, call, text, tools
from scene import GREETING, Starter

SHARED_SERVER = True

FIRST = GREETING.replace("'Hello ' + name", "f'Hello {name}'")
BOTH = FIRST.replace("'Bye ' + name", "f'Bye {name}'")


async def proposed(client: LspClient, model: ModelServer) -> tuple[str, str]:
    """Have the agent propose two hunks in greet.py; return the session and the gate."""
    model.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'"),
        ),
        text("Done."),
    )
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Use f-strings."})
    await client.idle(session)
    return session, (await open_gate(client))["gateId"]


async def open_gate(client: LspClient) -> dict[str, Any]:
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    return gate


async def hunks(client: LspClient, gate_id: str) -> list[dict[str, Any]]:
    files = (await client.request("selfloop/gate/read", {"gateId": gate_id}))["files"]
    return [hunk for file in files for hunk in file["hunks"]]


async def approve(client: LspClient, gate_id: str, *numbers: int) -> None:
    found = await hunks(client, gate_id)
    chosen = [{"hunkId": found[n]["hunkId"], "digest": found[n]["digest"]} for n in numbers or range(len(found))]
    answer = {"gateId": gate_id, "optionId": "approve", "hunks": chosen}
    assert (await client.request("selfloop/gate/resolve", answer))["conflicts"] == []


async def until_statuses(client: LspClient, wanted: list[str]) -> dict[str, Any]:
    """Wait until the one open gate's hunks have these statuses, and return it."""
    seen = 0

    def told() -> bool:
        return len(client.of_type("gate")) > seen

    while True:
        seen = len(client.of_type("gate"))
        gates = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
        if gates and [hunk["status"] for hunk in await hunks(client, gates[-1]["gateId"])] == wanted:
            return gates[-1]
        await client.until(told)


async def test_the_editors_undo_and_redo(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
    session, gate = await proposed(client, model)
    await approve(client, gate, 0)
    client.change(uri, GREETING)
    assert (await until_statuses(client, ["pending", "pending"]))["gateId"] == gate
    await client.until(lambda: len(client.diagnostics.get(uri, [])) == 2)
    client.change(uri, FIRST)
    await until_statuses(client, ["approved", "pending"])
    await approve(client, gate, 1)
    assert client.buffers[uri] == BOTH

    client.change(uri, GREETING)
    again = await until_statuses(client, ["pending", "pending"])
    assert again["gateId"] != gate and again["sessionId"] == session
    model.extend(text("CONTINUE"), tools(call("read_file", path="greet.py")), text("I see."))
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "What now?"})
    await client.idle(session, count=2)
    assert "has taken them back" in str(model.requests[-2].messages), "the agent is told"
    assert "f'Bye {name}'" in model.requests[-1].messages[-1]["content"], "its own copy keeps what it proposes"
    assert (await until_statuses(client, ["pending", "pending"]))["gateId"] == again["gateId"], "a turn keeps it"
    await approve(client, again["gateId"])
    assert client.buffers[uri] == BOTH


async def test_a_change_that_is_undone_waits_in_the_next_gate(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    session, gate = await proposed(client, model)
    await approve(client, gate)
    assert (workspace / "greet.py").read_text() == BOTH
    undone = await client.request("selfloop/change/undo", {"gateId": gate})
    assert len(undone["applied"]) == 1 and undone["conflicts"] == []
    assert (workspace / "greet.py").read_text() == GREETING
    again = await until_statuses(client, ["pending", "pending"])
    assert again["gateId"] != gate and again["sessionId"] == session
    card = (await client.request("selfloop/gate/read", {"gateId": again["gateId"]}))["card"]
    assert card["request"] == "Use f-strings."


async def test_an_undo_that_one_file_refuses_is_none(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    model.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            call("edit_file", path="README.md", old="# Greetings", new="# Hello"),
        ),
        text("Done."),
    )
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    await client.idle(session)
    gate = (await open_gate(client))["gateId"]
    await approve(client, gate)
    (workspace / "README.md").write_text("# Mine\n")
    undone = await client.request("selfloop/change/undo", {"gateId": gate})
    assert undone["applied"] == []
    assert [one["uri"].rpartition("/")[2] for one in undone["conflicts"]] == ["README.md"]
    assert (workspace / "greet.py").read_text() == FIRST


async def test_a_stale_hunk_says_why_and_is_asked_for_again(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start(settings={"gateDiagnostics": False})
    uri = client.open(workspace / "greet.py")
    session, gate = await proposed(client, model)
    mine = GREETING.replace("'Hello ' + name", "'Good day ' + name")
    client.change(uri, mine)
    lenses = await client.request("textDocument/codeLens", {"textDocument": {"uri": uri}})
    titles = [lens["command"]["title"] for lens in lenses]
    assert titles[0].startswith("Out of date: The lines that it changes in greet.py")
    assert titles[1:] == ["Ask again", "Reject", "Approve", "Reject", "Diff"]
    assert lenses[0]["command"]["command"] == "selfloop.gate.show"
    assert client.diagnostics.get(uri, []) == []
    await client.until(lambda: any(r["method"] == "workspace/codeLens/refresh" for r in client.requests))

    place = {"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 0}}
    offered = await client.request(
        "textDocument/codeAction", {"textDocument": {"uri": uri}, "range": place, "context": {"diagnostics": []}}
    )
    assert not any(action.get("isPreferred") for action in offered)
    titles = [action["title"] for action in offered if action["kind"] == "selfloop.gate"]
    assert [title.split(" (")[0].split(":")[0] for title in titles] == [
        "Out of date",
        "Ask again for this change",
        "Reject this hunk",
    ]
    model.extend(
        text("CONTINUE"),
        tools(call("edit_file", path="greet.py", old="'Good day ' + name", new="f'Good day {name}'")),
        text("Done."),
    )
    ack = await client.request("workspace/executeCommand", lenses[1]["command"])
    assert ack["sessionId"] == session and ack["delivery"] == "start" and ack["messageId"] and ack["turnId"]
    await client.idle(session, count=2)
    asked = next(m["text"] for m in reversed(client.of_type("message", session)) if m["role"] == "user")
    assert "greet.py: The lines that it changes" in asked
    assert [hunk["status"] for hunk in await hunks(client, gate)] == ["pending", "pending"]
    with pytest.raises(RpcError, match="still fits"):
        await client.request(
            "workspace/executeCommand",
            lenses[1]["command"]
            | {"arguments": [{"intent": "again", "gateId": gate, "hunkId": (await hunks(client, gate))[0]["hunkId"]}]},
        )


async def test_a_whole_file_is_handed_to_the_agent(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
    place = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}
    offered = await client.request(
        "textDocument/codeAction", {"textDocument": {"uri": uri}, "range": place, "context": {"diagnostics": []}}
    )
    by_title = {action["title"]: action for action in offered}
    assert list(by_title) == [
        "Write a test for this file with Selfloop",
        "Improve this file with Selfloop",
        "Ask Selfloop about this file",
    ]
    model.extend(text("A test."))
    ack = await client.request("workspace/executeCommand", offered[0]["command"])
    await client.idle(ack["sessionId"])
    assert "Write a test for this file" in str(model.requests[0].messages)
    assert set(ack) == {"sessionId", "messageId", "turnId", "delivery"}
