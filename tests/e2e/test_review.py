"""What a person is shown before approving, over the wire; and the sessions and models to choose from."""

from __future__ import annotations

import time
from pathlib import Path

from lsp_client import LspClient, to_uri
from model_server import ModelServer, call, text, tools
from scene import Starter

SHARED_SERVER = True


async def say(client: LspClient, words: str, session: str | None = None, *, count: int = 1) -> str:
    """Prompt, wait for the end of the turn, and return the session."""
    session = session or (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": words})
    await client.idle(session, count=count)
    return session


async def test_a_gate_comes_with_its_card(start: Starter, workspace: Path, model: ModelServer) -> None:
    client = await start()
    model.extend(
        tools(
            call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'"),
            call("write_file", path="requirements.txt", content="evil\nworse\n"),
        ),
        text("Done."),
    )
    session = await say(client, "Use f-strings.")
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    isolation = (await client.request("selfloop/status", {}))["isolation"]
    read = await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    (flag,) = read["card"].pop("flags")
    assert read["card"] == {
        "request": "Use f-strings.",
        "files": 2,
        "added": 3,
        "removed": 1,
        "isolation": isolation,
    }
    assert (flag["kind"], flag["uri"]) == ("dependency", to_uri(workspace / "requirements.txt"))
    assert read["evidence"] == [], "nothing ran, so nothing was tested"

    model.extend(
        text("CONTINUE"),
        tools(call("delete_file", path="requirements.txt"), call("shell", command="true")),
        text("Gone."),
    )
    await say(client, "No new dependencies!", session, count=2)
    read = await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    assert read["card"]["request"] == "Use f-strings.\n\nNo new dependencies!"
    assert read["card"]["flags"] == [] and read["card"]["files"] == 1
    if isolation == "process":
        assert [(item["command"], item["exitCode"]) for item in read["evidence"]] == [("true", 0)]


async def test_a_command_gate_says_all_of_it_and_its_rule_is_the_one_that_is_listed(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start(settings={"isolation": "changes"})
    model.extend(tools(call("shell", command="make it", network=False)), text("Done."))
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Make it."})
    (gate,) = await client.until(lambda: [u["gate"] for u in client.of_type("gate", session)])
    subject = gate["subject"]
    assert subject["type"] == "command" and subject["command"] == "make it"
    assert subject["cwd"] == to_uri(workspace) and subject["network"] is False
    assert subject["isolation"] in ("none", "changes") and subject["reason"]
    (always,) = [option for option in gate["options"] if option["kind"] == "allow_always"]
    read = await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    assert "card" not in read
    answer = {"gateId": gate["gateId"], "optionId": always["optionId"], "digest": gate["digest"]}
    await client.request("selfloop/gate/resolve", answer)
    await client.idle(session)
    (rule,) = (await client.request("selfloop/rule/list", {}))["rules"]
    assert rule["rule"] == always["rule"] and "make it" in rule["rule"]


async def test_sessions_are_found_by_all_their_words(start: Starter, model: ModelServer) -> None:
    client = await start()
    model._script = lambda request: text("CONTINUE") if not request.tools else text("Well.")
    first = await say(client, "Mend the Straße parser.\nIt fails on tabs.")
    await say(client, "And the printer", first, count=2)
    second = await say(client, "Mend the clock.")

    async def found(query: str) -> list[str]:
        rows = (await client.request("selfloop/session/list", {"query": query}))["sessions"]
        return [row["sessionId"] for row in rows]

    assert await found("mend") == [second, first]
    assert await found("TABS printer mend") == [first]
    assert await found("strasse") == [first]
    assert await found("mend nothing") == []
    assert await found("well") == [], "what the agent said is not searched"
    assert await found("  ") == await found("mend")
    await client.request("selfloop/session/rename", {"sessionId": second, "title": "Time"})
    await say(client, "Set the Hands right.", second, count=2)
    assert await found("hands time") == [second], "words that were added are found, and those of the title"


async def test_a_local_ollama_is_found(start: Starter, workspace: Path) -> None:
    with ModelServer(models=["small", "large"], ollama=True, context_tokens=8192) as ollama:
        client = await start(trusted=False, env={"OLLAMA_HOST": ollama.origin})
        (found,) = (await client.request("selfloop/model/discover", {}))["endpoints"]
    assert found["name"] == "Ollama" and found["baseUrl"] == ollama.url
    assert [row["id"] for row in found["models"]] == ["small", "large"]
    assert all(row["tools"] is True and row["contextTokens"] == 8192 for row in found["models"])


async def test_where_no_ollama_is_there_is_none(start: Starter, model: ModelServer) -> None:
    silent = await start(env={"OLLAMA_HOST": "127.0.0.1:9"})
    began = time.monotonic()
    assert (await silent.request("selfloop/model/discover", {}))["endpoints"] == []
    assert time.monotonic() - began < 3
    await silent.close()
    other = await start(env={"OLLAMA_HOST": model.origin})
    assert (await other.request("selfloop/model/discover", {}))["endpoints"] == [], "another server is no Ollama"
