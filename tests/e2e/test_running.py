"""While a turn runs: queue, steer, cancel, restart, keys; nothing that the user said is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from lsp_client import LspClient
from model_server import DONE, Answer, Hold, ModelServer, Request, call, chunk, raw, text, tools
from processes import descendants, kill, worker_of
from scene import Starter


def held() -> tuple[Hold, Answer]:
    """Return an answer that waits in its middle until the hold's event is set."""
    hold = Hold()
    return hold, raw(chunk({"content": "Begun. "}), hold, chunk({"content": "Ended."}, finish="stop"), DONE)


async def say(client: LspClient, session: str, words: str, **more: str) -> dict[str, str]:
    return await client.request("selfloop/session/prompt", {"sessionId": session, "text": words, **more})


async def test_what_is_said_meanwhile_waits_its_turn(start: Starter, model: ModelServer) -> None:
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    hold, answer = held()
    model._script = lambda request: answer if "first" in str(request.messages[-1]) else text("CONTINUE")
    assert (await say(client, session, "first"))["delivery"] == "start"
    await client.until(lambda: client.of_type("messageChunk", session))
    assert (await say(client, session, "second"))["delivery"] == "queue"
    hold.event.set()
    await client.idle(session, count=2)
    assert [m["text"] for m in client.of_type("message", session) if m["role"] == "user"] == ["first", "second"]
    assert "second" in str(model.requests[-1].messages)


async def test_a_steer_enters_the_running_turn_after_its_tools(start: Starter, model: ModelServer) -> None:
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    model.extend(tools(call("shell", command="sleep 1")), text("As you wish."))
    await say(client, session, "Wait a second.")
    await client.until(lambda: [c for c in client.of_type("toolCall", session) if c["status"] == "running"])
    assert (await say(client, session, "Rather stop.", delivery="steer"))["delivery"] == "steer"
    await client.idle(session)
    assert len(model.requests) == 2 and "Rather stop." in str(model.requests[1].messages[-1])


async def test_cancel_kills_everything_within_two_seconds(start: Starter, model: ModelServer, workspace: Path) -> None:
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    model.extend(tools(call("shell", command="(sleep 4711 & sleep 4711 & wait) & setsid sleep 4711 & sleep 4711")))
    await say(client, session, "Go.")
    await client.until(lambda: len(descendants(worker_of(client.process.pid))) >= 4)
    await asyncio.sleep(0.3)
    begun = time.monotonic()
    await client.request("selfloop/session/cancel", {"sessionId": session})
    idle = await client.idle(session)
    assert idle["stopReason"] == "cancelled" and time.monotonic() - begun < 2
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(client.process.pid)]
    assert not any(b"4711" in command for command in commands)
    model.extend(text("CONTINUE"), text("Ready."))
    await say(client, session, "And now?")
    assert (await client.idle(session, count=2))["stopReason"] == "end_turn"


async def test_cancel_closes_the_connection_to_the_model(start: Starter, model: ModelServer) -> None:
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    _, answer = held()
    model.extend(answer)
    await say(client, session, "Go.")
    await client.until(lambda: client.of_type("messageChunk", session))
    await client.request("selfloop/session/cancel", {"sessionId": session})
    assert (await client.idle(session))["stopReason"] == "cancelled"
    assert await asyncio.to_thread(model.requests[0].gone.wait, 2)


async def test_a_restart_is_not_noticed(start: Starter, model: ModelServer, workspace: Path) -> None:
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    hold, answer = held()
    later = text("CONTINUE")

    def script(request: Request) -> Answer:
        return answer if len(model.requests) == 1 else later

    model._script = script
    await say(client, session, "Go.")
    await client.until(lambda: client.of_type("messageChunk", session))
    before = worker_of(client.process.pid)
    restart = await client.request("selfloop/restart", {"when": "idle"})
    await asyncio.sleep(0.5)
    assert worker_of(client.process.pid) == before, "it waits for the turn"
    hold.event.set()
    await client.idle(session)
    done = await client.until(
        lambda: (
            [u for u in client.of_type("generation") if u.get("restartId") == restart["restartId"]][-1:]
            if worker_of(client.process.pid) != before
            else None
        )
    )
    assert done[0]["number"] == 0
    await say(client, session, "Still there?")
    assert (await client.idle(session, count=2))["stopReason"] == "end_turn"


async def test_a_restart_at_once_takes_the_running_turn_up_again(
    start: Starter, model: ModelServer, workspace: Path
) -> None:
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    _, answer = held()
    first = tools(call("edit_file", path="greet.py", old="Hello", new="Hi"))

    def script(request: Request) -> Answer:
        return {1: first, 2: answer}.get(len(model.requests), text("All done."))

    model._script = script
    await say(client, session, "Go.")
    await client.until(lambda: client.of_type("messageChunk", session))
    await client.request("selfloop/restart", {"when": "now"})
    idle = await client.idle(session)
    assert idle["stopReason"] == "end_turn"
    assert len(model.requests) == 3, "the edit is not made again; only the cut answer is asked anew"
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    assert gate["subject"]["type"] == "changes"


async def test_a_key_reaches_only_its_origin_and_outlives_the_worker(start: Starter, model: ModelServer) -> None:
    client = await start(env={"OPENROUTER_API_KEY": ""})
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    model._script = lambda request: text("Hello.")
    secret = "sk-a-key-given-by-the-editor"
    await client.request("selfloop/model/setKey", {"origin": "https://elsewhere.example", "key": "sk-not-for-this-one"})
    await client.request("selfloop/model/setKey", {"origin": model.url, "key": secret})
    await say(client, session, "One.")
    await client.idle(session)
    assert model.requests[0].headers["authorization"] == f"Bearer {secret}"
    kill(worker_of(client.process.pid))
    await client.request("selfloop/status", {})
    await say(client, session, "Two.")
    await client.idle(session, count=2)
    assert model.requests[-1].headers["authorization"] == f"Bearer {secret}"
    assert "sk-not-for-this-one" not in str(model.requests) and secret not in str(client.updates)


def with_a_command(request: Request) -> Answer:
    """Play a model that runs one command in each turn."""
    if request.messages[-1]["role"] == "tool":
        return text("Done.")
    return tools(call("shell", command="echo made > made.txt")) if request.tools else text("CONTINUE")


async def command_gate(client: LspClient, session: str, known: set[str]) -> dict[str, Any]:
    """Return the next open command gate."""

    def waiting() -> list[dict[str, Any]]:
        gates = [update["gate"] for update in client.of_type("gate", session)]
        return [g for g in gates if g["subject"]["type"] == "command" and g["gateId"] not in known]

    (gate, *_) = await client.until(waiting)
    known.add(gate["gateId"])
    return gate


async def test_a_command_without_a_jail_waits_at_a_gate_and_a_rule_is_remembered(
    start: Starter, model: ModelServer, workspace: Path
) -> None:
    client = await start(settings={"isolation": "changes"})
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    model._script = with_a_command
    known: set[str] = set()

    async def turn(count: int, option: str | None) -> str:
        await say(client, session, f"Go {count}.")
        if option:
            gate = await command_gate(client, session, known)
            assert "echo made > made.txt" in str(gate["subject"])
            if option == "always":
                (always,) = [one for one in gate["options"] if one["kind"] == "allow_always"]
                assert "echo made > made.txt" in always["rule"]
            answer = {"gateId": gate["gateId"], "optionId": option, "digest": gate["digest"]}
            await client.request("selfloop/gate/resolve", answer)
        await client.idle(session, count=count)
        ended = [card for card in client.of_type("toolCall", session) if card["status"] in ("completed", "failed")]
        return ended[-1]["status"]

    assert await turn(1, "reject") == "failed"
    assert await turn(2, "always") == "completed"
    assert await turn(3, None) == "completed"
    (rule,) = (await client.request("selfloop/rule/list", {}))["rules"]
    assert rule["uses"] >= 1
    await client.request("selfloop/rule/remove", {"ruleId": rule["ruleId"]})
    assert (await client.request("selfloop/rule/list", {}))["rules"] == []


async def test_the_environments_key_reaches_no_other_endpoint(start: Starter, model: ModelServer) -> None:
    client = await start()
    with ModelServer([text("ready")]) as other:
        await client.request("selfloop/model/select", {"model": "another", "baseUrl": other.url})
        await client.request("selfloop/model/list", {"baseUrl": model.url})
        assert (await client.request("selfloop/model/test", {}))["ok"]
        (asked,) = other.requests
        assert "key-for-tests" not in str(asked.headers)
