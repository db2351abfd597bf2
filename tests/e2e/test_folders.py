"""Several folders in one window: each has its own sessions, gates and state; a prompt names its folder."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from lsp_client import RpcError, to_path, to_uri
from model_server import Answer, Hold, ModelServer, call, text, tools
from scene import GREETING, Starter


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second folder, without git."""
    folder = tmp_path / "other project ü"
    folder.mkdir()
    (folder / "greet.py").write_text(GREETING)
    return folder


async def test_a_session_works_in_the_folder_it_was_made_for(
    start: Starter, workspace: Path, other: Path, model: ModelServer
) -> None:
    client = await start(workspace, other)
    named = (await client.request("selfloop/session/new", {"workspaceFolder": to_uri(other)}))["sessionId"]
    first = (await client.request("selfloop/session/new", {}))["sessionId"]
    for session, word in ((named, "Servus"), (first, "Hi")):
        model.extend(tools(call("edit_file", path="greet.py", old="Hello", new=word)), text("Done."))
        await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
        await client.idle(session)
    gates = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    assert len(gates) == 2
    for gate in gates:
        await client.request(
            "selfloop/gate/resolve", {"gateId": gate["gateId"], "optionId": "approve", "digest": gate["digest"]}
        )
    assert (other / "greet.py").read_text() == GREETING.replace("Hello", "Servus")
    assert (workspace / "greet.py").read_text() == GREETING.replace("Hello", "Hi")
    assert (other / ".evo" / "sessions" / named).is_dir() and (workspace / ".evo" / "sessions" / first).is_dir()


async def test_a_folder_that_comes_later_is_served_too(
    start: Starter, workspace: Path, other: Path, model: ModelServer
) -> None:
    client = await start(workspace)
    folder = {"uri": to_uri(other), "name": "other"}
    client.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [folder], "removed": []}})
    session = (await client.request("selfloop/session/new", {"workspaceFolder": to_uri(other)}))["sessionId"]
    model.extend(text("Hello."))
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Hello?"})
    assert (await client.idle(session))["stopReason"] == "end_turn"


async def test_folders_that_come_and_go_quickly_end_as_the_window_has_them(
    start: Starter, workspace: Path, tmp_path: Path, model: ModelServer
) -> None:
    chance = random.Random(11)
    folders = [tmp_path / f"folder {number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
    client = await start(workspace)
    here = {workspace}
    for _ in range(30):
        folder = chance.choice(folders)
        client.set_folders(*([], [folder]) if folder in here else ([folder], []))
        here ^= {folder}
        await asyncio.sleep(chance.choice([0, 0.01, 0.3, 0.6]))
    wanted = {to_uri(folder) for folder in here}
    async with asyncio.timeout(20):
        while set((await client.request("selfloop/status", {}))["folders"]) != wanted:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.2)
    assert set((await client.request("selfloop/status", {}))["folders"]) == wanted, "and it stays so"
    for folder in here:
        await client.request("selfloop/session/new", {"workspaceFolder": to_uri(folder)})


async def test_a_chat_file_goes_on_when_its_folder_comes_back(
    start: Starter, workspace: Path, other: Path, model: ModelServer
) -> None:
    client = await start(other, workspace)
    made = {"command": "selfloop.chat.new", "arguments": [{}]}
    uri = client.open(to_path((await client.request("workspace/executeCommand", made))["uri"]), language="markdown")
    send = {"command": "selfloop.chat.send", "arguments": [{"uri": uri}]}
    client.change(uri, client.buffers[uri] + "Hello?\n")
    model.extend(text("I am here."))
    await client.request("workspace/executeCommand", send)
    await client.until(lambda: "<!-- selfloop: end" in client.buffers[uri])
    client.set_folders([], [other])
    async with asyncio.timeout(20):
        while len((await client.request("selfloop/status", {}))["folders"]) == 2:
            await asyncio.sleep(0.1)

    client.set_folders([other], [])
    client.change(uri, client.buffers[uri] + "And now?\n")
    model.extend(text("CONTINUE"), text("I still am."))
    await client.request("workspace/executeCommand", send)
    await client.until(lambda: client.buffers[uri].count("<!-- selfloop: end") == 2)
    assert client.buffers[uri].count("I still am.") == 1
    assert not [one for one in client.messages if one["type"] == 1]


async def test_a_window_without_a_folder_is_told_to_open_one(start: Starter, model: ModelServer) -> None:
    from lsp_client import LspClient

    client = await LspClient.start()
    await client.initialize()
    with pytest.raises(RpcError, match="open a folder"):
        await client.request("selfloop/session/new", {})
    await client.close()


async def test_a_folder_that_is_closed_is_not_served_any_more_and_comes_back_as_it_was(
    start: Starter, workspace: Path, other: Path, model: ModelServer
) -> None:
    client = await start(workspace, other)
    uri = client.open(other / "greet.py")
    session = (await client.request("selfloop/session/new", {"workspaceFolder": to_uri(other)}))["sessionId"]
    hold = Hold()
    edit = tools(call("edit_file", path="greet.py", old="Hello", new="Servus"))
    model.extend(Answer((hold, *edit.pieces)), text("Done."))
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    model.wait(1)

    client.set_folders([], [other])
    await asyncio.sleep(1.5)
    assert len((await client.request("selfloop/status", {}))["folders"]) == 2, "what is at work there goes on"
    hold.event.set()
    await client.idle(session)
    while len((status := await client.request("selfloop/status", {}))["folders"]) == 2:
        await asyncio.sleep(0.1)
    assert status["folders"] == [to_uri(workspace)] and status["gatesPending"] == 0
    assert (await client.request("selfloop/gate/list", {}))["gates"] == []
    await client.until(lambda: client.diagnostics.get(uri) == [])
    with pytest.raises(RpcError, match="session"):
        await client.request("selfloop/session/read", {"sessionId": session})

    client.set_folders([other], [])
    await client.until(lambda: client.diagnostics.get(uri))
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    assert gate["sessionId"] == session
    assert len((await client.request("selfloop/status", {}))["folders"]) == 2
