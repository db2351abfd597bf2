"""Two windows on one folder: each a full client of one server, and one goes on when the other ends."""

from __future__ import annotations

from pathlib import Path

from model_server import ModelServer, call, text, tools
from processes import children
from scene import GREETING, Starter

SCRIPT = [
    tools(call("read_file", path="greet.py")),
    tools(call("edit_file", path="greet.py", old="'Bye ' + name", new="f'Bye {name}'")),
    text("Done."),
]


async def test_a_second_window_is_a_full_client(start: Starter, workspace: Path, model: ModelServer) -> None:
    first, second = await start(), await start()
    model.extend(*SCRIPT)
    uri = second.open(workspace / "greet.py", GREETING.replace("Hello", "Servus"))
    session = (await second.request("selfloop/session/new", {}))["sessionId"]
    assert [row["sessionId"] for row in (await first.request("selfloop/session/list", {}))["sessions"]] == [session]
    await second.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    await second.idle(session)
    await first.idle(session)
    assert "Servus" in model.requests[1].messages[-1]["content"], "the prompt sees the text of its own window"
    await first.until(lambda: first.diagnostics.get(uri))
    await second.until(lambda: second.diagnostics.get(uri))
    (gate,) = (await first.request("selfloop/gate/list", {"state": "open"}))["gates"]
    result = await first.request(
        "selfloop/gate/resolve", {"gateId": gate["gateId"], "optionId": "approve", "digest": gate["digest"]}
    )
    assert result["applied"] == [uri]
    assert "f'Bye {name}'" in second.buffers[uri], "the edit goes to the window that holds the document"
    assert not any(request["method"] == "workspace/applyEdit" for request in first.requests)
    assert (workspace / "greet.py").read_text() == GREETING


async def test_a_document_dirty_in_two_windows_is_stale(start: Starter, workspace: Path, model: ModelServer) -> None:
    first, second = await start(), await start()
    model.extend(*SCRIPT)
    uri = first.open(workspace / "greet.py", GREETING + "# first\n")
    second.open(workspace / "greet.py", GREETING + "# second\n")
    session = (await first.request("selfloop/session/new", {}))["sessionId"]
    await first.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    await first.idle(session)
    (gate,) = (await first.request("selfloop/gate/list", {"state": "open"}))["gates"]
    read = await first.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    (hunk,) = read["files"][0]["hunks"]
    assert hunk["status"] == "stale" and "two windows" in hunk["reason"]
    result = await first.request(
        "selfloop/gate/resolve",
        {
            "gateId": gate["gateId"],
            "optionId": "approve",
            "hunks": [{"hunkId": hunk["hunkId"], "digest": hunk["digest"]}],
        },
    )
    assert result["applied"] == [] and result["conflicts"][0]["uri"] == uri
    assert first.buffers[uri].endswith("# first\n") and second.buffers[uri].endswith("# second\n")


async def test_when_the_serving_window_ends_the_other_goes_on(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    first, second = await start(), await start()
    model.extend(*SCRIPT)
    session = (await first.request("selfloop/session/new", {}))["sessionId"]
    await first.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    await second.idle(session)
    (gate,) = (await second.request("selfloop/gate/list", {}))["gates"]
    assert children(first.process.pid)
    await first.close()
    read = await second.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    assert read["gate"]["state"] == "open"
    result = await second.request(
        "selfloop/gate/resolve", {"gateId": gate["gateId"], "optionId": "approve", "digest": read["gate"]["digest"]}
    )
    assert len(result["applied"]) == 1
    assert "f'Bye {name}'" in (workspace / "greet.py").read_text()


async def test_when_the_serving_window_is_killed_the_other_goes_on(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    first, second = await start(), await start()
    session = (await first.request("selfloop/session/new", {}))["sessionId"]
    first.kill()
    rows = (await second.request("selfloop/session/list", {}))["sessions"]
    assert [row["sessionId"] for row in rows] == [session]
