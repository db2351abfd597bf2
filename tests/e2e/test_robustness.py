"""Garbage, floods, and a client that does not read: the server answers on, and its memory stays bounded."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from model_server import ModelServer, call, text, tools
from processes import descendants, resident_bytes
from scene import Starter

MIB = 1024 * 1024


def memory(pid: int) -> int:
    """Return the resident memory of a process and all below it."""
    return sum(resident_bytes(process) for process in (pid, *descendants(pid)))


def frame(body: bytes, header: bytes = b"Content-Length: %d\r\n\r\n") -> bytes:
    return header % len(body) + body


async def test_malformed_frames_are_survived(start: Starter) -> None:
    client = await start()
    tiny = json.dumps({"jsonrpc": "2.0", "method": "$/nothing", "params": {}}).encode()
    for junk in (
        frame(tiny, b"content-length: %d\r\n\r\n"),
        frame(tiny, b"CONTENT-LENGTH:%d\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n"),
        frame(b"{not json"),
        frame(b"[]"),
        frame(b"5"),
        frame(b'"text"'),
        frame(b"\xff\xfe{}"),
        b"Content-Length: 1000000000000\r\n\r\n",
        b"Content-Length: -5\r\n\r\n",
        b"Content-Length: abc\r\n\r\n{}",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(random.Random(7).randrange(256) for _ in range(4000)),
        b"\r\n\r\n\r\n",
        frame(tiny, b"Content-Length: %d\n\n"),
    ):
        client.send_raw(junk)
        assert "sessions" in await client.request("selfloop/session/list", {}, timeout=10), junk[:40]
    client.answers.clear()  # Parse errors are answered with id null, as JSON-RPC says.


async def test_half_a_surrogate_pair_is_no_reason_to_fall_silent(start: Starter, workspace: Path) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py", "x")
    half = {"textDocument": {"uri": uri, "version": 2}, "contentChanges": [{"text": "a\ud83db"}]}
    client.send_raw(frame(json.dumps({"jsonrpc": "2.0", "method": "textDocument/didChange", "params": half}).encode()))
    other = {"uri": (workspace / "README.md").as_uri(), "languageId": "markdown", "version": 1, "text": "\udc00"}
    opened = {"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument": other}}
    client.send_raw(frame(json.dumps(opened).encode()))
    body = {"jsonrpc": "2.0", "id": "half", "method": "selfloop/session/new", "params": {"idempotencyKey": "\ud83d"}}
    client.send_raw(frame(json.dumps(body).encode()))
    await client.until(lambda: client.answers)
    assert client.answers.pop()["id"] == "half"
    await client.request("selfloop/restart", {})
    await client.until(lambda: [one for one in client.of_type("generation") if one["state"] != "starting"], 60)
    assert client.of_type("generation")[-1]["state"] == "active"


async def test_a_frame_may_come_in_any_pieces(start: Starter) -> None:
    client = await start()
    for size in (1, 2, 3, 7, 40):
        body = json.dumps({"jsonrpc": "2.0", "id": f"split-{size}", "method": "selfloop/session/list", "params": {}})
        data = frame(body.encode())
        for at in range(0, len(data), size):
            client.send_raw(data[at : at + size])
            await asyncio.sleep(0.001)
        await client.until(lambda: client.answers)
        assert client.answers.pop()["id"] == f"split-{size}"


async def test_every_request_is_answered_exactly_once(start: Starter) -> None:
    client = await start()
    asked = [client.ask("selfloop/session/list" if n % 3 else "selfloop/nothing", {}) for n in range(500)]
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert len(done) == 500
    await asyncio.sleep(0.3)
    assert client.answers == []


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_hundred_thousand_edits_arrive_and_memory_stays_bounded(start: Starter, workspace: Path) -> None:
    client = await start()
    uri = client.open(workspace / "greet.py")
    await client.request("selfloop/status", {})
    before = memory(client.process.pid)
    for n in range(100_000):
        client.versions[uri] += 1
        client.notify(
            "textDocument/didChange",
            {
                "textDocument": {"uri": uri, "version": client.versions[uri]},
                "contentChanges": [
                    {
                        "range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": n > 0}},
                        "text": "xy"[n % 2],
                    }
                ],
            },
        )
        if n % 2000 == 0:
            assert client.process.stdin
            await client.process.stdin.drain()
    assert "sessions" in await client.request("selfloop/session/list", {}, timeout=120)
    assert memory(client.process.pid) - before < 64 * MIB


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_client_that_stops_reading_does_not_stop_the_server(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    deaf, other = await start(), await start()
    await deaf.request("selfloop/status", {})
    await other.request("selfloop/status", {})
    session = (await other.request("selfloop/session/new", {}))["sessionId"]
    before = memory(deaf.process.pid) + memory(other.process.pid)
    transport = deaf.process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
    transport.pause_reading()
    words = "word " * 4000
    model.extend(*(text(*[words] * 100) for _ in range(40)))
    for turn in range(1, 41):
        await other.request("selfloop/session/prompt", {"sessionId": session, "text": "More."})
        await other.idle(session, count=turn, timeout=60)
        other.updates = [params for params in other.updates if params["update"]["type"] == "state"]
    assert memory(deaf.process.pid) + memory(other.process.pid) - before < 400 * MIB
    transport.resume_reading()
    assert "sessions" in await deaf.request("selfloop/session/list", {}, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_gibibyte_of_tool_output_is_capped(start: Starter, model: ModelServer) -> None:
    client = await start()
    await client.request("selfloop/status", {})
    before = memory(client.process.pid)
    model.extend(tools(call("shell", command="head -c 1073741824 /dev/zero | tr '\\0' 'x'")), text("Done."))
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Go."})
    most = 0
    waiting = asyncio.ensure_future(client.idle(session, timeout=200))
    while not waiting.done():
        most = max(most, memory(client.process.pid))
        assert "sessions" in await client.request("selfloop/session/list", {}, timeout=5), "it answers meanwhile"
        await asyncio.sleep(0.2)
    assert (await waiting)["stopReason"] == "end_turn"
    assert most - before < 500 * MIB
    result = model.requests[1].messages[-1]["content"]
    assert len(result) < 40_000 and "@outputs/" in result
