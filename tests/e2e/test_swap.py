"""The hot restart as an editor sees it: another self serves, nothing typed, asked or running is lost or done twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from generation_room import TITLE, activate, active, adopt, generation_of, retitled, states, titles, until_generation
from lsp_client import LspClient, RpcError
from model_server import DONE, Answer, Hold, ModelServer, Pause, Request, call, chunk, raw, text, tools
from processes import children, kill, worker_of
from scene import GREETING, Starter

pytestmark = pytest.mark.timeout(300)
SWAPS = int(os.environ.get("SELFLOOP_TEST_SWAPS", "5"))
EDIT = call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'")


class Load:
    """An editor's traffic: a read each 25 ms, a write each 250 ms, and typing, until it is stopped."""

    def __init__(self, client: LspClient, uri: str) -> None:
        self.client, self.uri = client, uri
        self.reads: list[asyncio.Future[Any]] = []
        self.writes: list[asyncio.Future[Any]] = []
        self._stop = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        count = 0
        while not self._stop:
            count += 1
            self.reads.append(self.client.ask("selfloop/status", {}))
            if count % 10 == 0:
                self.writes.append(self.client.ask("selfloop/session/new", {}))
            if count % 5 == 0:
                end = self.client.buffers[self.uri].count("\n")
                self.client.edit(self.uri, (end, 0), (end, 0), f"# typed {count}\n")
            await asyncio.sleep(0.025)

    async def stop(self) -> None:
        """End it, and assert that every request had its one answer."""
        self._stop = True
        await self._task
        for answer in await asyncio.wait_for(asyncio.gather(*self.reads), 60):
            assert "generation" in answer
        made = [answer["sessionId"] for answer in await asyncio.wait_for(asyncio.gather(*self.writes), 60)]
        rows = (await self.client.request("selfloop/session/list", {}))["sessions"]
        assert set(made) <= {row["sessionId"] for row in rows} and len(set(made)) == len(made)


def streaming(words: int = 40) -> Answer:
    """Return an answer that takes its time."""
    pieces = [piece for number in range(words) for piece in (chunk({"content": f"word {number} "}), Pause(0.05))]
    return raw(*pieces, chunk({}, finish="stop"), DONE)


async def say(client: LspClient, session: str, words: str) -> None:
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": words})


@pytest.mark.timeout(300 + 30 * SWAPS)
async def test_swaps_under_a_load_lose_and_double_nothing(
    start: Starter, workspace: Path, model: ModelServer, own_home: Path
) -> None:
    numbers = [await adopt(own_home, retitled(number)) for number in (1, 2)]
    client = await start()
    uri = client.open(workspace / "greet.py", GREETING)
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    model._script = lambda request: streaming()
    load = Load(client, uri)
    for swap in range(SWAPS):
        number = numbers[swap % 2]
        if swap == 0 or client.of_type("state", session)[-1]["state"] == "idle":
            await say(client, session, f"Speak, {swap}.")
        told = await activate(client, number)
        await client.until(lambda told=told: set(states(client, told)) & {"active", "refused"}, 90)
        assert states(client, told) == ["starting", "active"], client.of_type("generation")[-1]
        assert f"{TITLE}, generation {number}" in await titles(client, uri), "the new source answers"
    await load.stop()
    lines = client.buffers[uri].splitlines()
    look = call("read_file", path="greet.py", start=len(lines))
    model._script = lambda request: text("Seen.") if request.messages[-1]["role"] == "tool" else tools(look)
    await client.until(lambda: client.of_type("state", session)[-1]["state"] == "idle", 180)
    await say(client, session, "Read it.")
    await client.until(lambda: "Seen." in str(client.of_type("message", session)[-1:]), 180)
    assert lines[-1] in model.requests[-1].messages[-1]["content"], "the agent sees what was typed last"
    ends = [update["stopReason"] for update in client.of_type("state", session) if update["state"] == "idle"]
    assert set(ends) == {"end_turn"}
    seqs = [params["seq"] for params in client.updates if params.get("sessionId") == session]
    assert seqs == list(range(1, len(seqs) + 1)), "every update once, in order"
    assert len(children(client.process.pid)) == 1


async def test_a_swap_in_a_turn_asks_the_model_again_and_repeats_no_tool(
    start: Starter, workspace: Path, model: ModelServer, own_home: Path
) -> None:
    number = await adopt(own_home, retitled(1))
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    hold = Hold()
    cut = raw(chunk({"content": "Begun. "}), hold, chunk({"content": "Ended."}, finish="stop"), DONE)

    def script(request: Request) -> Answer:
        return {1: tools(EDIT), 2: cut}.get(len(model.requests), text("All done."))

    model._script = script
    await say(client, session, "Go.")
    await client.until(lambda: "Begun." in str(client.of_type("messageChunk", session)))
    await activate(client, number)
    assert (await client.idle(session, timeout=180))["stopReason"] == "end_turn"
    hold.event.set()
    assert await generation_of(client) == number
    assert len(model.requests) == 3, "only the answer that was cut is asked anew"
    assert [m["text"] for m in client.of_type("message", session) if m.get("status") == "interrupted"] == ["Begun. "]
    calls = {update["toolCallId"] for update in client.of_type("toolCall", session)}
    assert len(calls) == 1
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    read = await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    assert read["files"][0]["diff"].count("+    return f'Hello {name}'") == 1


async def test_a_swap_waits_for_the_tool_that_runs(
    start: Starter, workspace: Path, model: ModelServer, own_home: Path
) -> None:
    number = await adopt(own_home, retitled(1))
    (own_home / "config").mkdir()
    (own_home / "config" / "settings.toml").write_text('model = "scripted"\n')
    client = await start(env={"MODEL_NAME": ""})
    if (await client.request("selfloop/status", {}))["isolation"] != "process":
        pytest.skip("commands wait at a gate without a jail")
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    model.extend(tools(call("shell", command="sleep 6; echo once >> ran.txt")), text("Done."))
    await say(client, session, "Run it.")
    await client.until(lambda: [c for c in client.of_type("toolCall", session) if c["status"] == "running"])
    await activate(client, number)
    await asyncio.sleep(3)  # By now it is primed, and waits.
    await client.request("selfloop/model/select", {"model": "another"})
    await client.idle(session, timeout=180)
    await until_generation(client, number)
    assert (await client.request("selfloop/status", {}))["model"] == "another", "what was chosen meanwhile counts"
    (call_,) = {update["toolCallId"] for update in client.of_type("toolCall", session)}
    ends = [u["status"] for u in client.of_type("toolCall", session) if u["toolCallId"] == call_]
    assert ends[-1] == "completed"
    assert len(model.requests) <= 3
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    read = await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    assert [file["diff"].count("+once") for file in read["files"]] == [1]


async def test_an_undo_brings_the_parent_back_at_once(start: Starter, workspace: Path, own_home: Path) -> None:
    number = await adopt(own_home, retitled(1))
    client = await start()
    uri = client.open(workspace / "greet.py")
    await activate(client, number)
    await until_generation(client, number)
    told = await activate(client, 0)
    await until_generation(client, 0, timeout=20)
    assert TITLE in await titles(client, uri)
    await client.until(lambda: "active" in states(client, told), 90)
    state = active(own_home)
    assert (state["number"], state["state"], state["rollbacks"]) == (0, "settled", 1)
    assert state["outcomes"][-1]["state"] == "rolled-back" and "took it back" in state["outcomes"][-1]["reason"]


async def test_a_generation_that_stands_is_settled_and_serves_the_next_start(
    start: Starter, workspace: Path, own_home: Path
) -> None:
    number = await adopt(own_home, retitled(1))
    client = await start(env={"SELFLOOP_PROBATION_SECONDS": "2"})
    await activate(client, number)
    await client.until(lambda: "settled" in states(client), 120)
    state = active(own_home)
    assert (state["number"], state["state"], state["lastGood"]["number"]) == (number, "settled", number)
    await client.close()
    client = await start()
    assert await generation_of(client) == number
    uri = client.open(workspace / "greet.py")
    assert f"{TITLE}, generation {number}" in await titles(client, uri)
    kill(worker_of(client.process.pid))
    assert await generation_of(client) == number, "a settled one is started anew like any other"


async def test_both_windows_go_over_together(start: Starter, workspace: Path, own_home: Path) -> None:
    number = await adopt(own_home, retitled(1))
    first, second = await start(), await start()
    uris = [client.open(workspace / "greet.py") for client in (first, second)]
    await second.request("selfloop/session/list", {})
    loads = [Load(client, uri) for client, uri in zip((first, second), uris, strict=True)]
    await activate(second, number)
    for client, uri in zip((first, second), uris, strict=True):
        await until_generation(client, number)
        assert f"{TITLE}, generation {number}" in await titles(client, uri)
    for load in loads:
        await load.stop()
    await first.close()
    await second.request("selfloop/session/list", {})
    await until_generation(second, number)


async def test_a_supervisor_that_is_killed_in_a_swap_leaves_what_the_next_start_goes_on_from(
    start: Starter, workspace: Path, own_home: Path
) -> None:
    numbers = [await adopt(own_home, retitled(number)) for number in (1, 2)]
    for delay in (0.1, 0.5, 1.0, 1.5, 2.0, 3.0):
        client = await start()
        session = (await client.request("selfloop/session/new", {}))["sessionId"]
        serving = await generation_of(client)
        with contextlib.suppress(RpcError):
            await activate(client, next(number for number in (*numbers, 0) if number != serving))
        await asyncio.sleep(delay)
        client.kill()
        client = await start()
        assert await generation_of(client) in (0, *numbers)
        rows = (await client.request("selfloop/session/list", {}))["sessions"]
        assert session in [row["sessionId"] for row in rows]
        await client.close()
