"""Bad input gets one plain sentence and the right code; nothing is done, nothing is lost, the server serves on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from lsp_client import LspClient, RpcError, to_uri
from model_server import ModelServer, call, text, tools
from scene import GREETING, Starter, git

SHARED_SERVER = True


async def refused(client: LspClient, method: str, params: dict[str, Any]) -> RpcError:
    """Return the error of a request that must fail, after a look at its sentence."""
    with pytest.raises(RpcError) as caught:
        await client.request(method, params)
    message = caught.value.message
    assert "Traceback" not in message and "\n" not in message.strip() and message.strip().endswith((".", "!")), message
    assert (await client.request("selfloop/session/list", {}))["sessions"] is not None, "it serves on"
    return caught.value


async def open_gate(client: LspClient, model: ModelServer) -> tuple[str, dict[str, Any]]:
    """Run a turn that proposes two hunks; returns the session and the gate as read."""
    model.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'"),
        ),
        text("Done."),
    )
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    await client.idle(session)
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    return session, await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})


@pytest.mark.parametrize(
    ("method", "params", "reason"),
    [
        ("selfloop/session/prompt", {"sessionId": "nope", "text": "x"}, "unknownSession"),
        ("selfloop/session/resume", {"sessionId": "nope"}, "unknownSession"),
        ("selfloop/session/read", {"sessionId": "../../etc"}, "unknownSession"),
        ("selfloop/session/delete", {"sessionId": ""}, "unknownSession"),
        ("selfloop/session/cancel", {"sessionId": "nope"}, "unknownSession"),
        ("selfloop/session/rename", {"sessionId": "nope", "title": "t"}, "unknownSession"),
        ("selfloop/changes/read", {"sessionId": "nope"}, "unknownSession"),
        ("selfloop/gate/read", {"gateId": "nope"}, "unknownGate"),
        ("selfloop/gate/resolve", {"gateId": "nope", "optionId": "approve"}, "unknownGate"),
        ("selfloop/change/undo", {"gateId": "nope"}, "unknownGate"),
        ("selfloop/rule/remove", {"ruleId": "nope"}, "unknownRule"),
    ],
)
async def test_an_unknown_id_is_refused(start: Starter, method: str, params: dict[str, Any], reason: str) -> None:
    error = await refused(await start(), method, params)
    assert (error.code, error.reason) == (-32803, reason)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("selfloop/session/prompt", {}),
        ("selfloop/session/prompt", {"sessionId": 3, "text": "x"}),
        ("selfloop/session/prompt", {"sessionId": "a", "text": "x", "delivery": "never"}),
        ("selfloop/gate/resolve", {"gateId": "a"}),
        ("selfloop/gate/list", {"state": "ajar"}),
        ("selfloop/session/read", []),
        ("textDocument/codeAction", {"textDocument": 5}),
        ("workspace/executeCommand", {"command": "selfloop.gate.read", "arguments": [1, 2]}),
        ("workspace/executeCommand", {"command": "selfloop.gate.read", "arguments": [{}]}),
        ("workspace/executeCommand", {"command": "selfloop.model.setKey", "arguments": [{"origin": "x", "key": "y"}]}),
    ],
)
async def test_wrong_parameters_are_answered(start: Starter, method: str, params: Any) -> None:
    client = await start()
    with pytest.raises(RpcError) as caught:
        await client.request(method, params, timeout=10)
    assert caught.value.code == -32602, caught.value
    assert "Traceback" not in caught.value.message


async def test_a_prompt_in_an_untrusted_workspace_runs_nothing(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start(trusted=None)
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    error = await refused(client, "selfloop/session/prompt", {"sessionId": session, "text": "x"})
    assert (error.code, error.reason) == (-32803, "notTrusted")
    assert model.requests == []
    status = await client.request("selfloop/status", {})
    assert status["trusted"] is False and status["isolation"] == "none"


async def test_a_digest_that_no_longer_fits_changes_nothing(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    before = (workspace / "greet.py").read_text()
    _, read = await open_gate(client, model)
    gate = read["gate"]
    for wrong in ({"digest": "0" * 64}, {"hunks": [{"hunkId": read["files"][0]["hunks"][0]["hunkId"], "digest": "0"}]}):
        error = await refused(
            client, "selfloop/gate/resolve", {"gateId": gate["gateId"], "optionId": "approve", **wrong}
        )
        assert error.code == -32801
    assert (workspace / "greet.py").read_text() == before
    error = await refused(
        client, "selfloop/gate/resolve", {"gateId": gate["gateId"], "optionId": "perhaps", "digest": gate["digest"]}
    )
    assert error.reason == "unknownOption"


async def test_the_first_answer_of_a_gate_wins(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    _, read = await open_gate(client, model)
    gate = read["gate"]
    answer = {"gateId": gate["gateId"], "optionId": "approve", "digest": gate["digest"]}
    first = await client.request("selfloop/gate/resolve", answer)
    assert first["applied"] == [to_uri(workspace / "greet.py")]
    after = (workspace / "greet.py").read_text()
    again = await client.request("selfloop/gate/resolve", answer)
    assert again["gate"]["state"] == "resolved"
    assert (workspace / "greet.py").read_text() == after
    error = await refused(client, "selfloop/gate/resolve", {**answer, "optionId": "reject"})
    assert error.reason == "decided" and "approve" in error.message.lower()
    assert (workspace / "greet.py").read_text() == after


async def test_two_clicks_at_once_apply_once(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
    _, read = await open_gate(client, model)
    answer = {"gateId": read["gate"]["gateId"], "optionId": "approve", "digest": read["gate"]["digest"]}
    results = await asyncio.gather(*(client.request("selfloop/gate/resolve", answer) for _ in range(5)))
    assert all(result["gate"]["state"] == "resolved" for result in results)
    assert len([r for r in client.requests if r["method"] == "workspace/applyEdit"]) == 1
    assert client.buffers[uri].count("f'Hello {name}'") == 1


async def test_an_editor_that_refuses_the_edit_leaves_everything_pending(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
    before = client.buffers[uri]
    _, read = await open_gate(client, model)
    client.refuse_edits = "not now"
    answer = {"gateId": read["gate"]["gateId"], "optionId": "approve", "digest": read["gate"]["digest"]}
    result = await client.request("selfloop/gate/resolve", answer)
    assert result["applied"] == [] and "not now" in result["conflicts"][0]["reason"]
    assert client.buffers[uri] == before and result["gate"]["state"] == "open"
    client.refuse_edits = None
    result = await client.request("selfloop/gate/resolve", answer)
    assert result["applied"] == [uri] and result["gate"]["state"] == "resolved"


async def test_hunks_move_with_the_text_and_a_clash_is_stale(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
    _, read = await open_gate(client, model)
    gate_id = read["gate"]["gateId"]
    first, second = read["files"][0]["hunks"]
    client.edit(uri, (0, 0), (0, 0), "# A line above.\n# 𝔘nicode.\n")
    client.edit(uri, (3, 11), (3, 18), "'Good day '")
    text_now = client.buffers[uri]
    await asyncio.sleep(0.1)
    read = await client.request("selfloop/gate/read", {"gateId": gate_id})
    moved, shifted = read["files"][0]["hunks"]
    assert (moved["hunkId"], shifted["hunkId"]) == (first["hunkId"], second["hunkId"])
    assert moved["status"] == "stale" and moved["reason"]
    assert shifted["status"] == "pending" and shifted["range"]["start"]["line"] == second["range"]["start"]["line"] + 2
    both = [{"hunkId": hunk["hunkId"], "digest": hunk["digest"]} for hunk in (first, second)]
    result = await client.request("selfloop/gate/resolve", {"gateId": gate_id, "optionId": "approve", "hunks": both})
    assert result["applied"] == [] and [conflict["uri"] for conflict in result["conflicts"]] == [uri]
    assert client.buffers[uri] == text_now, "all or nothing for what was chosen"
    result = await client.request(
        "selfloop/gate/resolve", {"gateId": gate_id, "optionId": "approve", "hunks": both[1:]}
    )
    assert result["applied"] == [uri]
    assert client.buffers[uri] == text_now.replace("'Bye ' + name", "f'Bye {name}'")


async def test_a_workspace_that_is_no_folder_is_said_plainly(
    start: Starter, tmp_path: Path, model: ModelServer
) -> None:
    (tmp_path / "file").write_text("x")
    client = await start(tmp_path / "file")
    error = await refused(client, "selfloop/session/new", {})
    assert "folder" in error.message


async def test_a_bare_repository_is_said_plainly(start: Starter, tmp_path: Path, model: ModelServer) -> None:
    bare = tmp_path / "bare.git"
    bare.mkdir()
    git(bare, "init", "-q", "--bare")
    client = await start(bare)
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "x"})
    idle = await client.idle(session)
    assert idle["stopReason"] == "error"
    assert any("bare" in notice["text"] for notice in client.of_type("notice"))


@pytest.mark.parametrize("shape", ["no git", "no commits", "merging"])
async def test_every_shape_of_folder_can_be_worked_in(
    start: Starter, tmp_path: Path, model: ModelServer, shape: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "greet.py").write_text(
        "def greet(name):\n    return 'Hello ' + name\n\n\ndef bye(name):\n    return 'Bye ' + name\n"
    )
    if shape != "no git":
        git(folder, "init", "-q", "-b", "main")
    if shape == "merging":
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "one")
        git(folder, "checkout", "-qb", "side")
        (folder / "other").write_text("side\n")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "side")
        git(folder, "checkout", "-q", "main")
        (folder / "other").write_text("main\n")
        git(folder, "add", ".")
        git(folder, "commit", "-qm", "main")
        with pytest.raises(Exception, match="merge"):
            git(folder, "merge", "side")
    client = await start(folder)
    _, read = await open_gate(client, model)
    answer = {"gateId": read["gate"]["gateId"], "optionId": "approve", "digest": read["gate"]["digest"]}
    result = await client.request("selfloop/gate/resolve", answer)
    assert result["applied"] == [to_uri(folder / "greet.py")]
    assert "f'Hello {name}'" in (folder / "greet.py").read_text()


async def test_a_folder_whose_name_is_no_utf8_is_served(start: Starter, tmp_path: Path, model: ModelServer) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "greet.py").write_text(GREETING)
    client = await start(folder)
    _, read = await open_gate(client, model)
    answer = {"gateId": read["gate"]["gateId"], "optionId": "approve", "digest": read["gate"]["digest"]}
    assert (await client.request("selfloop/gate/resolve", answer))["conflicts"] == []
    assert "f'Hello {name}'" in (folder / "greet.py").read_text()
