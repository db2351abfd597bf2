"""Whatever a provider does, the turn ends with one plain sentence, and the session goes on."""

from __future__ import annotations

import pytest

from lsp_client import LspClient
from model_server import (
    Answer,
    Call,
    ModelServer,
    call,
    cut,
    empty,
    garbage,
    raw,
    redirect,
    status,
    text,
    tools,
    whole,
)
from scene import Starter

SHARED_SERVER = True

CONTEXT = "This model's maximum context length is 8192 tokens, however you requested 90000 tokens"


async def say(client: LspClient, session: str, words: str, count: int) -> dict:
    """Prompt and wait for the end of the turn."""
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": words})
    return await client.idle(session, count=count, timeout=60)


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (status(401, "Incorrect API key provided"), "key"),
        (status(403, "Forbidden"), ""),
        (status(404, "The model `scripted` does not exist"), "model"),
        (status(400, CONTEXT, error_code="context_length_exceeded"), ""),
        (cut("Half an ans"), ""),
        (cut("Half", reset=True), ""),
        (empty(), ""),
        (garbage(), ""),
        (garbage(b"", "text/event-stream"), ""),
        (garbage(b"data: {not json\n\n", "text/event-stream"), ""),
        (redirect("http://127.0.0.1:9/v1/chat/completions"), ""),
        (raw({"error": {"message": "overloaded", "code": 529}}), ""),
    ],
    ids=lambda value: None if isinstance(value, Answer) else value or "any",
)
async def test_a_failure_is_one_sentence_and_the_session_goes_on(
    start: Starter, model: ModelServer, failure: Answer, word: str
) -> None:
    replies = [failure] * 12
    model.extend(*replies)
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    idle = await say(client, session, "Hello?", 1)
    assert idle["stopReason"] == "error"
    sentences = [notice["text"] for notice in client.of_type("notice", session)]
    assert sentences, client.updates
    assert word in sentences[-1] and "Traceback" not in sentences[-1] and "\n" not in sentences[-1], sentences
    assert "key-for-tests" not in str(client.updates)
    model._script = lambda request: text("Here I am.")
    idle = await say(client, session, "And now?", 2)
    assert idle["stopReason"] == "end_turn"
    assert client.of_type("message", session)[-1]["text"] == "Here I am."


@pytest.mark.parametrize(
    "odd",
    [
        tools(Call("read_file", "{not json")),
        tools(Call("read_file", '{"path": 5}')),
        tools(Call("read_file", '["greet.py"]')),
        tools(Call("read_file", "")),
        tools(Call("no_such_tool", "{}")),
        tools(Call("", "{}")),
        tools(Call("read_file", '{"path": "greet.py"}', id="")),
        tools(call("read_file", id="same", path="greet.py"), call("read_file", id="same", path="README.md")),
        tools(Call("read_file", '{"path": "' + "x" * 200_000 + '"}')),
        whole(
            {
                "content": None,
                "tool_calls": [{"type": "function", "function": {"name": "list_files", "arguments": "{}"}}],
            }
        ),
    ],
    ids=range(10),
)
async def test_an_odd_tool_call_is_answered_and_the_turn_goes_on(
    start: Starter, model: ModelServer, odd: Answer
) -> None:
    model.extend(odd, text("Sorry."))
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    idle = await say(client, session, "Go.", 1)
    assert idle["stopReason"] == "end_turn", client.updates
    sent = model.requests[1].messages
    ids = [item["id"] for message in sent if message["role"] == "assistant" for item in message.get("tool_calls", [])]
    answered = [message["tool_call_id"] for message in sent if message["role"] == "tool"]
    assert ids and len(set(ids)) == len(ids) and ids == answered, "each call has an id of its own, and one result"


async def test_without_a_model_a_prompt_says_what_to_do(start: Starter, model: ModelServer) -> None:
    client = await start(env={"INFERENCE_BASE_URL": "", "MODEL_NAME": "", "OPENROUTER_API_KEY": ""})
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    idle = await say(client, session, "Hello?", 1)
    assert idle["stopReason"] == "error"
    assert "MODEL_NAME" in client.of_type("notice", session)[-1]["text"]


async def test_a_refused_connection_is_said(start: Starter, model: ModelServer) -> None:
    client = await start(env={"INFERENCE_BASE_URL": "http://127.0.0.1:9/v1"})
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    idle = await say(client, session, "Hello?", 1)
    assert idle["stopReason"] == "error"
    assert "127.0.0.1:9" in client.of_type("notice", session)[-1]["text"]


async def test_tools_by_text_where_the_model_has_no_calls(start: Starter, model: ModelServer) -> None:
    model.extend(
        status(400, "registry.ollama.ai/library/small does not support tools"),
        text('I look.\n<tool name="read_file">{"path": "greet.py"}</tool>'),
        text('<tool name="edit_file">{"path": "greet.py", "old": "Hello", "new": "Hi"}</tool>'),
        text("Changed."),
    )
    client = await start()
    session = (await client.request("selfloop/session/new", {}))["sessionId"]
    idle = await say(client, session, "Say hi instead.", 1)
    assert idle["stopReason"] == "end_turn", client.updates
    assert "tools" not in model.requests[1].body and "def greet" in str(model.requests[2].messages[-1])
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    read = await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    assert "Hi" in read["files"][0]["hunks"][0]["newText"]
