"""kill -9 at any moment: the editor sees no exit, nothing is lost, nothing is applied twice or without approval."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from lsp_client import LspClient, RpcError, require, to_uri
from model_server import Answer, ModelServer, Request, call, text, tools
from processes import descendants, gone, kill, worker_of
from scene import GREETING, Starter

LIVES = int(os.environ.get("SELFLOOP_TEST_LIVES", "4"))
EDIT = call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'")
CREATE = call("write_file", path="new.txt", content="made by the agent\n")
AFTER = GREETING.replace("'Hello ' + name", "f'Hello {name}'")


def played(request: Request) -> Answer:
    """Play the same agent however often it is asked: what comes next depends on what it has been told."""
    results = [message for message in request.messages if message["role"] == "tool"]
    if not results:
        return tools(call("read_file", path="greet.py"))
    if len(results) == 1:
        return tools(EDIT)
    if len(results) == 2:
        return tools(CREATE)
    return text("All ", "done.")


async def wait_for_gate(client: LspClient) -> str:
    """Return the id of the open gate once there is one."""
    for _ in range(400):
        gates = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
        if gates:
            return gates[0]["gateId"]
        await asyncio.sleep(0.05)
    raise AssertionError(f"no gate was opened: {client.updates[-10:]}")


async def test_the_editor_sees_nothing_of_a_worker_that_dies(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    model._script = played
    client = await start()
    uri = client.open(workspace / "greet.py", GREETING + "# unsaved\n")
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    await client.idle(session)
    gate = await wait_for_gate(client)
    before = await client.request("selfloop/gate/read", {"gateId": gate})

    for _ in range(3):
        kill(worker_of(client.process.pid))
        after = await client.request("selfloop/gate/read", {"gateId": gate})
        assert after == before, "the gate is still open, on the same unsaved text"
    assert client.process.returncode is None
    answer = {"gateId": gate, "optionId": "approve", "digest": before["gate"]["digest"]}
    result = await client.request("selfloop/gate/resolve", answer)
    assert sorted(result["applied"]) == sorted([uri, to_uri(workspace / "new.txt")])
    assert client.buffers[uri] == AFTER + "# unsaved\n"


async def test_reads_in_flight_are_asked_again_and_other_requests_are_told(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    client = await start()
    for _ in range(5):
        await client.request("selfloop/status", {})
        worker = worker_of(client.process.pid)
        reads = [client.ask("selfloop/session/list", {}) for _ in range(20)]
        writes = [client.ask("selfloop/session/new", {}) for _ in range(20)]
        kill(worker)
        for read in reads:
            assert "sessions" in await asyncio.wait_for(read, 20)
        made = 0
        for write in writes:
            try:
                made += "sessionId" in await asyncio.wait_for(write, 20)
            except RpcError as error:
                assert error.code == -32803
                took = "It took effect" in error.message
                assert took or "did not take effect" in error.message, error.message
                made += took
        sessions = (await client.request("selfloop/session/list", {}))["sessions"]
        assert len(sessions) == made, "what was said of each request is true"
        for row in sessions:
            await client.request("selfloop/session/delete", {"sessionId": row["sessionId"]})


async def test_a_dead_supervisor_takes_its_worker_along_and_the_next_start_finds_everything(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    model._script = played
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    await client.idle(session)
    gate = await wait_for_gate(client)
    everyone = descendants(client.process.pid)
    client.kill()
    assert everyone and all(gone(pid, 2) for pid in everyone)

    client = await start()
    assert [row["sessionId"] for row in (await client.request("selfloop/session/list", {}))["sessions"]] == [session]
    read = await client.request("selfloop/gate/read", {"gateId": gate})
    assert (workspace / "greet.py").read_text() == GREETING
    await client.request(
        "selfloop/gate/resolve", {"gateId": gate, "optionId": "approve", "digest": read["gate"]["digest"]}
    )
    assert (workspace / "greet.py").read_text() == AFTER
    resumed = await client.request("selfloop/session/resume", {"sessionId": session, "after": 0})
    await client.until(lambda: client.updates and client.updates[-1]["seq"] >= resumed["seq"])
    seqs = [params["seq"] for params in client.updates if params.get("sessionId") == session]
    assert sorted(set(seqs)) == list(range(1, max(seqs) + 1)), "the stream has no hole"


async def one_life(client: LspClient, workspace: Path, model: ModelServer, seed: int) -> None:
    """Do the whole way once, and kill the worker at three moments of it."""
    chance = random.Random(seed)
    asked_before = len(model.requests)
    kills = sorted(chance.uniform(0, 1.2) for _ in range(3))

    async def killer() -> None:
        begun = asyncio.get_running_loop().time()
        for moment in kills:
            await asyncio.sleep(max(0.0, begun + moment - asyncio.get_running_loop().time()))
            kill(await asyncio.to_thread(worker_of, client.process.pid))

    task = asyncio.create_task(killer())
    session = await insisted(client, "selfloop/session/new", {}, lambda: newest_session(client))
    assert session
    prompt = {"sessionId": session["sessionId"], "text": "Go."}
    await insisted(client, "selfloop/session/prompt", prompt, lambda: asyncio.sleep(0, {"messageId": "known"}))
    gate = await wait_for_gate(client)
    for name in ("greet.py", "new.txt"):
        path = workspace / name
        assert (path.read_text() if path.exists() else None) == (GREETING if name == "greet.py" else None)
    await task
    await client.until(
        lambda: [
            update
            for params in client.updates
            if params.get("sessionId") == session["sessionId"]
            and (update := params["update"])["type"] == "state"
            and update["state"] == "idle"
        ],
        60,
    )
    second = asyncio.create_task(_kill_soon(client, chance.uniform(0, 0.05)))
    for _ in range(20):
        read = await client.request("selfloop/gate/read", {"gateId": gate})
        if read["gate"]["state"] == "resolved":
            break
        try:
            await client.request(
                "selfloop/gate/resolve", {"gateId": gate, "optionId": "approve", "digest": read["gate"]["digest"]}
            )
        except RpcError as error:
            assert error.code in (-32803, -32801), error
    await second
    for _ in range(100):
        if (workspace / "new.txt").exists() and (workspace / "greet.py").read_text() == AFTER:
            break
        await asyncio.sleep(0.05)
    assert (workspace / "greet.py").read_text() == AFTER
    assert (workspace / "new.txt").read_text() == "made by the agent\n"
    # Four calls do the work; a killed worker may have asked each once more, and nothing may be asked for ever.
    assert 4 <= len(model.requests) - asked_before <= 4 + 4 * (len(kills) + 1)


async def _kill_soon(client: LspClient, seconds: float) -> None:
    await asyncio.sleep(seconds)
    kill(await asyncio.to_thread(worker_of, client.process.pid))


async def newest_session(client: LspClient) -> dict[str, str] | None:
    rows = (await client.request("selfloop/session/list", {}))["sessions"]
    return rows[0] if rows else None


async def insisted(client, method, params, known):  # type: ignore[no-untyped-def]
    """Send a request until it took effect, believing what the server says of it."""
    for _ in range(20):
        try:
            return await client.request(method, params)
        except RpcError as error:
            assert error.code == -32803, error
            if "It took effect" in error.message:
                return await known()
            assert "did not take effect" in error.message, error.message
    raise AssertionError(f"{method} never took effect")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_worker_killed_at_random_moments_does_the_work_exactly_once(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    """Four kills in each life, at seeded moments; `make proof` lives fifty lives, which is 200 moments."""
    model._script = played
    client = await start()
    for seed in range(LIVES):
        (workspace / "greet.py").write_text(GREETING)
        (workspace / "new.txt").unlink(missing_ok=True)
        await one_life(client, workspace, model, seed)
        for row in (await client.request("selfloop/session/list", {}))["sessions"]:
            await insisted(
                client, "selfloop/session/delete", {"sessionId": row["sessionId"]}, lambda: asyncio.sleep(0, {})
            )
    assert client.process.returncode is None


STORE_WRITES = "write,pwrite64,rename,renameat,renameat2,unlink,fsync,fdatasync"


async def doomed(worker: int, moment: int) -> asyncio.subprocess.Process:
    """Have the kernel kill a worker at the `moment`-th write of its main thread from now on."""
    tracer = await asyncio.create_subprocess_exec(
        require("strace"),
        *("-p", str(worker), "-o", "/dev/null", "-e", f"trace={STORE_WRITES}"),
        *("-e", f"inject={STORE_WRITES}:signal=KILL:when={moment}"),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert tracer.stderr is not None
    assert b"attached" in await asyncio.wait_for(tracer.stderr.readline(), 10)
    return tracer


async def whole_way(client: LspClient, workspace: Path) -> None:
    """Prompt, wait for the gate, approve: insisting, as a user would, on what was said not to have taken effect."""
    session = await insisted(client, "selfloop/session/new", {}, lambda: newest_session(client))
    assert session
    prompt = {"sessionId": session["sessionId"], "text": "Go."}
    await insisted(client, "selfloop/session/prompt", prompt, lambda: asyncio.sleep(0, {}))
    gate = await wait_for_gate(client)
    assert (workspace / "greet.py").read_text() == GREETING and not (workspace / "new.txt").exists()
    for _ in range(20):
        read = await client.request("selfloop/gate/read", {"gateId": gate})
        if read["gate"]["state"] == "resolved":
            break
        answer = {"gateId": gate, "optionId": "approve", "digest": read["gate"]["digest"]}
        try:
            await client.request("selfloop/gate/resolve", answer)
        except RpcError as error:
            assert error.code in (-32803, -32801), error
    assert (workspace / "greet.py").read_text() == AFTER
    assert (workspace / "new.txt").read_text() == "made by the agent\n"


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_a_worker_killed_at_any_write_does_the_work_exactly_once(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    """Every so many-th write of the whole way; `make proof` takes every single one, until a life outlives its kill."""
    model._script = played
    client = await start()
    moment, stride = 1, int(os.environ.get("SELFLOOP_TEST_STRIDE", "29"))
    while True:
        (workspace / "greet.py").write_text(GREETING)
        (workspace / "new.txt").unlink(missing_ok=True)
        await client.request("selfloop/status", {})
        asked = len(model.requests)
        worker = worker_of(client.process.pid)
        tracer = await doomed(worker, moment)
        await whole_way(client, workspace)
        killed = worker_of(client.process.pid) != worker
        assert 4 <= len(model.requests) - asked <= (6 if killed else 4), f"moment {moment}"
        if tracer.returncode is None:
            tracer.kill()
        await tracer.wait()
        for row in (await client.request("selfloop/session/list", {}))["sessions"]:
            await insisted(
                client, "selfloop/session/delete", {"sessionId": row["sessionId"]}, lambda: asyncio.sleep(0, {})
            )
        if not killed:
            break
        moment += stride
    assert moment > 60 and client.process.returncode is None
