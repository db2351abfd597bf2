"""A message becomes an approved edit: the whole way, over the wire, on real parts."""

from __future__ import annotations

from pathlib import Path

from lsp_client import to_uri
from model_server import ModelServer, call, text, tools
from scene import GREETING, Starter

SHARED_SERVER = True


async def test_a_prompt_becomes_an_edit_only_after_the_click(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    file = workspace / "greet.py"
    unsaved = GREETING.replace("Hello", "Hi")
    uri = client.open(file, unsaved, "python")
    model.extend(
        tools(call("read_file", path="greet.py")),
        tools(
            call("edit_file", path="greet.py", old="'Hi ' + name", new="f'Hi {name}'"),
            call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'"),
        ),
        text("Both ", "functions use f-strings now."),
    )
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    ack = await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Use f-strings."})
    assert ack["delivery"] == "start"
    idle = await client.idle(session)
    assert idle["stopReason"] == "end_turn", client.updates

    seen = model.requests[1].messages[-1]
    assert seen["role"] == "tool" and "'Hi ' + name" in seen["content"], "the agent works on the unsaved text"
    assert (
        "".join(part["text"] for part in client.of_type("messageChunk", session)) == "Both functions use f-strings now."
    )
    assert file.read_text() == GREETING and client.buffers[uri] == unsaved, (
        "nothing touches the user's text before the click"
    )

    gates = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    assert len(gates) == 1 and gates[0]["default"] == "reject"
    read = await client.request("selfloop/gate/read", {"gateId": gates[0]["gateId"]})
    (shown,) = read["files"]
    assert shown["uri"] == uri and len(shown["hunks"]) == 2
    first, second = shown["hunks"]
    assert first["range"] == {"start": {"line": 1, "character": 0}, "end": {"line": 2, "character": 0}}
    await client.until(lambda: len(client.diagnostics.get(uri, [])) == 2)

    result = await client.request(
        "selfloop/gate/resolve",
        {
            "gateId": gates[0]["gateId"],
            "optionId": "approve",
            "hunks": [{"hunkId": second["hunkId"], "digest": second["digest"]}],
        },
    )
    assert result["applied"] == [uri] and result["conflicts"] == [] and result["gate"]["state"] == "open"
    assert client.buffers[uri] == unsaved.replace("'Bye ' + name", "f'Bye {name}'")
    assert len([r for r in client.requests if r["method"] == "workspace/applyEdit"]) == 1, "one undoable edit"
    assert file.read_text() == GREETING, "an open document is the editor's to save"

    result = await client.request(
        "selfloop/gate/resolve",
        {
            "gateId": gates[0]["gateId"],
            "optionId": "reject",
            "hunks": [{"hunkId": first["hunkId"], "digest": first["digest"]}],
        },
    )
    assert result["gate"]["state"] == "resolved"
    await client.until(lambda: client.diagnostics.get(uri) == [])

    model.extend(text("Understood."))
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Thanks."})
    await client.idle(session, count=2)
    told = str(model.requests[-1].messages)
    assert "reject" in told.lower(), "the model is told what was rejected"


async def test_a_new_file_and_a_file_that_is_not_open_are_written_by_the_server(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    model.extend(
        tools(
            call("write_file", path="src/new.py", content="X = 1\n"),
            call("edit_file", path="README.md", old="# Greetings", new="# Hello"),
        ),
        text("Done."),
    )
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    await client.idle(session)
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    assert not (workspace / "src").exists()
    result = await client.request(
        "selfloop/gate/resolve", {"gateId": gate["gateId"], "optionId": "approve", "digest": gate["digest"]}
    )
    assert sorted(result["applied"]) == [to_uri(workspace / "README.md"), to_uri(workspace / "src/new.py")]
    assert (workspace / "src/new.py").read_text() == "X = 1\n"
    assert (workspace / "README.md").read_text() == "# Hello\n"

    undone = await client.request("selfloop/change/undo", {"gateId": gate["gateId"]})
    assert len(undone["applied"]) == 2
    assert not (workspace / "src/new.py").exists()
    assert (workspace / "README.md").read_text() == "# Greetings\n"


async def test_after_a_clash_the_agent_sees_the_users_lines_and_can_change_them(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
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
    mine = GREETING.replace("'Hello ' + name", "'Good day ' + name")
    client.change(uri, mine)
    model.extend(
        text("CONTINUE"),
        tools(call("read_file", path="greet.py")),
        tools(call("edit_file", path="greet.py", old="'Good day ' + name", new="f'Good day {name}'")),
        text("Done."),
    )
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Once more, please."})
    await client.idle(session, count=2)
    seen = next(m["content"] for m in reversed(model.requests[-2].messages) if m["role"] == "tool")
    assert "'Good day ' + name" in seen and "f'Bye {name}'" in seen, (
        "the user's lines, and the agent's that do not clash"
    )
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    await client.request(
        "selfloop/gate/resolve", {"gateId": gate["gateId"], "optionId": "approve", "digest": gate["digest"]}
    )
    assert client.buffers[uri] == mine.replace("'Good day ' + name", "f'Good day {name}'").replace(
        "'Bye ' + name", "f'Bye {name}'"
    )
