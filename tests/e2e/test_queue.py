"""What waits for a turn: shown as it changes, edited, removed, and there again after a kill."""

from __future__ import annotations

from typing import Any

import pytest

from lsp_client import LspClient, RpcError
from model_server import DONE, Answer, Hold, ModelServer, Request, chunk, raw, text
from processes import kill, worker_of
from scene import Starter

SHARED_SERVER = True


class Held:
    """A model that says nothing in its first turn until it is let go, and then one word for each turn."""

    def __init__(self, model: ModelServer) -> None:
        self.hold = Hold()
        model._script = self.answer

    def answer(self, request: Request) -> Answer:
        if not request.tools:
            return text("CONTINUE")
        if not self.hold.event.is_set():
            return raw(chunk({"content": "Begun. "}), self.hold, chunk({"content": "Ended."}, finish="stop"), DONE)
        return text("Well.")


async def begun(client: LspClient, model: ModelServer) -> tuple[str, Held]:
    """Return a session whose first turn runs until it is let go."""
    held = Held(model)
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    await say(client, session, "first")
    await client.until(lambda: client.of_type("messageChunk", session), 60)
    return session, held


async def say(client: LspClient, session: str, words: str, **more: str) -> str:
    ack = await client.request("selfloop/session/prompt", {"sessionId": session, "text": words, **more})
    return ack["messageId"]


def queues(client: LspClient, session: str) -> list[list[str]]:
    """Return the texts of the queue, each time that it was told."""
    return [[entry["text"] for entry in update["entries"]] for update in client.of_type("queue", session)]


async def waiting(client: LspClient, session: str) -> list[dict[str, Any]]:
    return (await client.request("selfloop/session/queue", {"sessionId": session}))["entries"]


async def test_the_queue_is_told_as_it_changes(start: Starter, model: ModelServer) -> None:
    client = await start()
    session, held = await begun(client, model)
    assert await waiting(client, session) == [] and queues(client, session) == []
    second = await say(client, session, "second")
    third = await say(client, session, "third", delivery="steer")
    assert await waiting(client, session) == [
        {"messageId": second, "text": "second", "delivery": "queue"},
        {"messageId": third, "text": "third", "delivery": "steer"},
    ]
    edit = {"sessionId": session, "messageId": second, "text": "second, but better"}
    entries = (await client.request("selfloop/session/requeue", edit))["entries"]
    assert [entry["text"] for entry in entries] == ["second, but better", "third"]
    held.hold.event.set()
    await client.idle(session, count=2)
    assert queues(client, session) == [
        ["second"],
        ["second", "third"],
        ["second, but better", "third"],
        ["second, but better"],
        [],
    ]
    said = [(m["messageId"], m["text"]) for m in client.of_type("message", session) if m["role"] == "user"]
    assert (second, "second, but better") in said, "clients show the words that are sent"
    asked = str(model.requests[-1].messages)
    assert "second, but better" in asked


async def test_a_removed_message_is_never_asked(start: Starter, model: ModelServer) -> None:
    client = await start()
    session, held = await begun(client, model)
    second = await say(client, session, "second")
    remove = {"sessionId": session, "messageId": second}
    assert (await client.request("selfloop/session/requeue", remove))["entries"] == []
    with pytest.raises(RpcError, match="waits no longer") as refused:
        await client.request("selfloop/session/requeue", remove)
    assert (refused.value.code, refused.value.reason) == (-32803, "decided")
    held.hold.event.set()
    await client.idle(session)
    assert client.of_type("message", session)[-1]["text"] != "second"
    assert "second" not in str([request.messages for request in model.requests])
    assert [m for m in client.of_type("message", session) if m.get("status") == "removed"]


async def test_a_message_that_has_begun_or_is_unknown_is_not_edited(start: Starter, model: ModelServer) -> None:
    client = await start()
    session, held = await begun(client, model)
    first = client.of_type("message", session)[0]["messageId"]
    with pytest.raises(RpcError, match="waits no longer"):
        await client.request("selfloop/session/requeue", {"sessionId": session, "messageId": first, "text": "x"})
    with pytest.raises(RpcError, match="There is no message") as unknown:
        await client.request("selfloop/session/requeue", {"sessionId": session, "messageId": "nope", "text": "x"})
    assert unknown.value.reason == "unknownMessage"
    held.hold.event.set()
    await client.idle(session)


async def test_after_a_cancel_the_queue_goes_on_and_is_told(start: Starter, model: ModelServer) -> None:
    client = await start()
    session, held = await begun(client, model)
    await say(client, session, "second")
    held.hold.event.set()
    await client.request("selfloop/session/cancel", {"sessionId": session})
    await client.idle(session, count=2)
    assert queues(client, session) == [["second"], []]


async def test_an_edited_queue_survives_a_kill(start: Starter, model: ModelServer) -> None:
    client = await start()
    session, held = await begun(client, model)
    second, third = await say(client, session, "second"), await say(client, session, "third")
    for message, words in ((second, "changed"), (third, "")):
        await client.request("selfloop/session/requeue", {"sessionId": session, "messageId": message, "text": words})
    kill(worker_of(client.process.pid))
    assert [entry["text"] for entry in await waiting(client, session)] == ["changed"]
    held.hold.event.set()
    await client.idle(session, count=2, timeout=60)
    asked = str(model.requests[-1].messages)
    assert "changed" in asked and "third" not in asked
    assert await waiting(client, session) == []
    assert queues(client, session)[-1] == []
