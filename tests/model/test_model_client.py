"""One call against a real HTTP server: what comes out, what was sent, what was charged."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_server import (
    DONE,
    USAGE,
    Answer,
    Call,
    Cut,
    Hold,
    ModelServer,
    Pause,
    call,
    chunk,
    cut,
    empty,
    event,
    garbage,
    raw,
    redirect,
    stall,
    status,
    text,
    tools,
    usage,
    whole,
)
from selfloop.config import Settings
from selfloop.errors import BudgetExceeded, ProviderError, StoreError
from selfloop.messages import Message, Reply, ToolCall, ToolSpec, Usage
from selfloop.model.budget import Budget, Limits
from selfloop.model.client import ModelClient
from selfloop.model.provider import Timeouts

READ = ToolSpec("read_file", "Read a file.", {"type": "object", "properties": {"path": {"type": "string"}}})
ASK = (Message("system", "You are a test."), Message("user", "Go on."))
PATIENT = Timeouts(connect_seconds=5, after_finish_seconds=0.2)
HASTY = Timeouts(connect_seconds=2, first_chunk_seconds=1.0, between_chunks_seconds=1.0)


class Asked:
    """A client, its server, and what came of the calls."""

    def __init__(self, server: ModelServer, **more: Any) -> None:
        self.server = server
        self.slept: list[float] = []
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.budget = Budget(Limits())
        given_settings = {"model": "any/name", "base_url": server.url, **more.pop("settings", {})}
        self.client = ModelClient(Settings(**given_settings), **{"timeouts": PATIENT, "sleep": self.sleep, **more})

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def __call__(self, messages: tuple[Message, ...] = ASK, **more: Any) -> Reply:
        arguments = {"budget": self.budget, "on_text": self.texts.append, "on_thought": self.thoughts.append, **more}
        return await self.client.complete(messages, arguments.pop("tools", (READ,)), **arguments)

    async def fails(self, kind: str, **more: Any) -> str:
        with pytest.raises(ProviderError) as failed:
            await self(**more)
        message = failed.value.message
        assert failed.value.kind == kind, message
        assert "\n" not in message and "Traceback" not in message and "litellm" not in message.lower()
        assert (message.endswith(".") and message[0].isupper()) or message.startswith("http")
        return message


@pytest.fixture
def played() -> Iterator[Callable[..., Asked]]:
    """Start a server with a script, and a client for it."""
    servers: list[ModelServer] = []

    def start(*script: Any, models: Any = ("scripted",), ollama: bool = False, **more: Any) -> Asked:
        server = ModelServer(script[0] if script and callable(script[0]) else script, models=models, ollama=ollama)
        servers.append(server.start())
        return Asked(server, **more)

    yield start
    for server in servers:
        server.close()
        assert not server.overrun


# What comes out


async def test_text_streams_and_comes_whole(played: Callable[..., Asked]) -> None:
    asked = played(text("Hel", "lo", thought="hm"))
    reply = await asked()
    assert asked.texts == ["Hel", "lo"] and asked.thoughts == ["hm"]
    assert reply == Reply(Message("assistant", "Hello"), "stop", Usage(100, 40, 10), "any/name")
    assert asked.budget.spent == Usage(100, 40, 10)


async def test_the_first_piece_arrives_before_the_second_is_sent(played: Callable[..., Asked]) -> None:
    hold = Hold()
    asked = played(raw(chunk({"content": "a"}), hold, chunk({"content": "b"}), chunk({}, finish="stop"), DONE))
    arrived = asyncio.Event()
    task = asyncio.create_task(asked(on_text=lambda _: arrived.set()))
    await asyncio.wait_for(arrived.wait(), 5)
    hold.event.set()
    assert (await task).message.content == "ab"


async def test_the_request_is_what_the_format_says(played: Callable[..., Asked]) -> None:
    history = (
        *ASK,
        Message("assistant", "", (ToolCall("c1", "read_file", '{"path": "é.py"}'),)),
        Message("tool", "text", tool_call_id="c1"),
    )
    asked = played(text("ok"), settings={"model": "openai/gpt-5-codex", "api_key": "the-key"})
    await asked(history)
    request = asked.server.requests[0]
    assert request.path == "/v1/chat/completions"
    assert request.body["model"] == "openai/gpt-5-codex"
    assert request.body["stream"] is True and request.body["stream_options"] == {"include_usage": True}
    assert request.body["messages"] == [message.to_wire() for message in history]
    assert request.body["tools"] == [READ.to_wire()]
    assert request.body["max_tokens"] == 16_384
    assert set(request.body) == {"model", "stream", "stream_options", "messages", "tools", "max_tokens"}
    assert request.headers["authorization"] == "Bearer the-key"
    assert not [name for name in request.headers if name.startswith("openai") or name == "x-stainless-os"]


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-5.4", "o1-pro", "responses/x", "custom_openai/x", "ollama/a:7b", "a"])
async def test_any_model_name_goes_over_the_wire_as_it_is(played: Callable[..., Asked], name: str) -> None:
    asked = played(text("ok"), settings={"model": name})
    assert (await asked()).model == name
    assert asked.server.requests[0].body["model"] == name
    assert asked.server.requests[0].body["max_tokens"] == 16_384


async def test_several_tool_calls_come_whole(played: Callable[..., Asked]) -> None:
    asked = played(tools(call("read_file", path="a"), call("read_file", path="漢😀"), text="I look."))
    reply = await asked()
    assert reply.finish_reason == "tool_calls" and reply.message.content == "I look."
    assert [json.loads(one.arguments) for one in reply.message.tool_calls] == [{"path": "a"}, {"path": "漢😀"}]
    assert len({one.id for one in reply.message.tool_calls}) == 2


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.text(), data=st.data())
async def test_tool_arguments_may_be_split_at_any_byte(
    played: Callable[..., Asked], content: str, data: st.DataObject
) -> None:
    expected = content.encode("utf-8", "replace").decode()
    answer = tools(Call("write", json.dumps({"content": expected}, ensure_ascii=False)))
    size = len(b"".join(piece for piece in answer.pieces if isinstance(piece, bytes)))
    cuts = data.draw(st.lists(st.integers(1, size - 1), max_size=30))
    reply = await played(answer.split(*cuts))()
    assert json.loads(reply.message.tool_calls[0].arguments) == {"content": expected}


async def test_every_byte_by_itself(played: Callable[..., Asked]) -> None:
    reply = await played(tools(call("write", content="é漢😀\u2028")).every(1))()
    assert json.loads(reply.message.tool_calls[0].arguments) == {"content": "é漢😀\u2028"}


HELLO = chunk({"content": "hello"})
END = chunk({}, finish="stop")
FINE: dict[str, Answer] = {
    "no usage": raw(HELLO, END, DONE),
    "no role, no done": raw(HELLO, END),
    "no finish reason, but done": raw(HELLO, DONE),
    "finish with the text": raw(chunk({"content": "hello"}, finish="stop"), DONE),
    "usage last with empty choices": raw(HELLO, END, chunk(None, usage=USAGE), DONE),
    "usage with null choices": raw(HELLO, END, {"choices": None, "usage": USAGE}, DONE),
    "usage in every chunk": raw(
        chunk({"content": "hello"}, usage=usage(1, 1)), chunk({}, finish="stop", usage=USAGE), DONE
    ),
    "comments between": raw(b": hi\n\n", HELLO, b": PROCESSING\n\n", END, DONE),
    "no empty lines": raw(*(event(one).replace(b"\n\n", b"\n") for one in (HELLO, END)), b"data: [DONE]\n"),
    "carriage returns": raw(*(event(one).replace(b"\n", b"\r\n") for one in (HELLO, END)), b"data: [DONE]\r\n\r\n"),
    "ends with the connection": Answer(raw(HELLO, END, DONE).pieces, chunked=False),
    "cut after the finish": raw(HELLO, END, Cut()),
    "reset after done": raw(HELLO, DONE, Cut(reset=True)),
    "stalls after the finish": raw(HELLO, END, Pause(30)),
    "stalls after done": raw(HELLO, DONE, Pause(30)),
    "no stream at all": whole({"content": "hello"}),
    "no stream, no usage": whole({"content": "hello"}, usage=None),
    "no stream, pretty": Answer((json.dumps({"choices": [{"message": {"content": "hello"}}]}, indent=2).encode(),)),
    "message instead of delta": raw({"choices": [{"message": {"role": "assistant", "content": "hello"}}]}, END, DONE),
    "wrong content type": Answer(raw(HELLO, END, DONE).pieces, headers=(("Content-Type", "text/plain"),)),
    "unknown finish reason": raw(HELLO, chunk({}, finish="eos"), DONE),
    "tool finish without a call": raw(HELLO, chunk({}, finish="tool_calls"), DONE),
    "error is null": raw({**HELLO, "error": None}, END, DONE),
}


@pytest.mark.parametrize("quirk", FINE)
async def test_a_whole_answer_comes_out_of_every_quirk(played: Callable[..., Asked], quirk: str) -> None:
    asked = played(FINE[quirk])
    started = time.monotonic()
    reply = await asked()
    assert reply.message == Message("assistant", "hello") and reply.finish_reason == "stop"
    assert "".join(asked.texts) == "hello"
    assert time.monotonic() - started < 5
    if not reply.usage_known:
        assert reply.usage == asked.budget.spent and reply.usage.output_tokens == 16_384


async def test_a_plain_json_answer_with_tool_calls_is_an_answer(played: Callable[..., Asked]) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "read_file", "arguments": '{"path": "a"}'}}]
    reply = await played(whole({"content": None, "tool_calls": calls}, finish="tool_calls"))()
    assert reply.message.tool_calls == (ToolCall("1", "read_file", '{"path": "a"}'),)
    assert reply.finish_reason == "tool_calls" and reply.usage == Usage(100, 40, 10)


async def test_a_call_is_a_call_whatever_the_finish_reason_says(played: Callable[..., Asked]) -> None:
    head = {"index": 0, "id": "1", "function": {"name": "read_file", "arguments": "{}"}}
    reply = await played(raw(chunk({"tool_calls": [head]}), chunk({}, finish="stop"), DONE))()
    assert reply.finish_reason == "tool_calls" and len(reply.message.tool_calls) == 1


async def test_length_is_told_even_with_a_call_that_it_cut_off(played: Callable[..., Asked]) -> None:
    head = {"index": 0, "id": "1", "function": {"name": "read_file", "arguments": '{"pa'}}
    reply = await played(raw(chunk({"tool_calls": [head]}), chunk({}, finish="length"), DONE))()
    assert reply.finish_reason == "length" and reply.message.tool_calls[0].arguments == '{"pa'


async def test_a_length_without_any_text_is_no_failure(played: Callable[..., Asked]) -> None:
    reply = await played(raw(chunk({"reasoning": "long"}), chunk({}, finish="length"), DONE))()
    assert reply.finish_reason == "length" and reply.message.content == ""


async def test_broken_arguments_do_not_break_the_next_request(played: Callable[..., Asked]) -> None:
    asked = played(text("ok"))
    calls = tuple(
        ToolCall(str(at), "f", text) for at, text in enumerate(['{"a": ', '{"a": "x\ny"}', "[1]", '{"a": 1}'])
    )
    await asked((*ASK, Message("assistant", "", calls), *(Message("tool", "?", tool_call_id=one.id) for one in calls)))
    sent = asked.server.requests[0].messages[2]["tool_calls"]
    assert [json.loads(one["function"]["arguments"]) for one in sent] == [
        {"unreadable": '{"a": '},
        {"a": "x\ny"},
        {"unreadable": "[1]"},
        {"a": 1},
    ]


async def test_half_characters_in_the_conversation_are_sent_replaced(played: Callable[..., Asked]) -> None:
    asked = played(text("ok"))
    await asked((Message("user", "a\ud83db"),))
    assert asked.server.requests[0].messages[0]["content"] == "a\ufffdb"


# What goes wrong

FAILS: dict[str, tuple[Answer, str, str]] = {
    "wrong key": (status(401, "Incorrect API key provided: the-key"), "auth", "refused the key"),
    "forbidden": (status(403, "no"), "auth", "refused the key"),
    "unknown model": (
        status(404, "The model `x` does not exist", error_code="model_not_found"),
        "no-model",
        "does not know",
    ),
    "unknown model by 400": (status(400, "x is not a valid model ID"), "no-model", "does not know"),
    "no such path": (Answer((b"<html>404</html>",), status=404), "no-model", "base URL"),
    "context": (
        status(400, "This model's maximum context length is 8192 tokens.", error_code="context_length_exceeded"),
        "context",
        "longer than the model",
    ),
    "context of llama.cpp": (status(400, "the request exceeds the available context size"), "context", "longer"),
    "credit": (status(429, "You exceeded your current quota", error_code="insufficient_quota"), "rate-limit", "credit"),
    "payment": (status(402, "add credit"), "rate-limit", "credit"),
    "asks to wait for an hour": (status(429, "slow", retry_after=3_600), "rate-limit", "no more requests"),
    "bad request": (status(400, "messages: invalid"), "bad-request", "refused the request"),
    "teapot": (status(418, "short and stout"), "bad-request", "short and stout"),
    "redirect": (redirect("http://203.0.113.9/v1/chat/completions"), "bad-request", "redirect"),
    "not implemented": (status(501, "no"), "server", "failed (501)"),
    "web page": (garbage(), "server", "web page"),
    "plain words": (garbage(b"Service is booting\n", "text/plain"), "server", "booting"),
    "other json": (garbage(b'{"detail": "Not Found"}', "application/json"), "server", "Not Found"),
    "a json number": (garbage(b"42", "application/json"), "server", "42"),
    "error in a whole answer": (garbage(b'{"error": {"message": "no", "code": 400}}'), "bad-request", "no"),
    "error text in a whole answer": (garbage(b'{"error": "model not loaded"}'), "server", "model not loaded"),
    "error first in a stream": (raw({"error": {"message": "bad tools", "code": 400}}), "bad-request", "bad tools"),
    "error event": (raw(b'event: error\ndata: {"message":"overheated","code":400}\n\n'), "bad-request", "overheated"),
    "error in the middle": (raw(HELLO, {"error": {"message": "boom", "code": 502}}), "stream", "boom"),
    "finish reason error": (raw(HELLO, chunk({}, finish="error"), DONE), "stream", "cut off"),
    "cut in the middle": (cut("a", "b"), "stream", "cut off"),
    "reset in the middle": (cut("a", "b", reset=True), "stream", "cut off"),
    "cut inside a chunk": (raw(HELLO, event(HELLO)[:25], Cut()), "stream", "cut off"),
    "cut inside a chunk, tidily": (Answer((event(HELLO), event(HELLO)[:25]), chunked=False), "stream", "cut off"),
    "ends without an end": (raw(HELLO), "stream", "cut off"),
    "cut inside tool arguments": (Answer((*tools(call("f", a="b" * 99)).pieces[:4], Cut())), "stream", "cut off"),
    "broken json": (raw(HELLO, b"data: {oops\n\n"), "stream", "no JSON"),
    "empty stream": (empty(), "empty", "empty answer"),
    "empty choices": (raw(chunk(None), chunk(None), DONE), "empty", "empty answer"),
    "empty text": (text(""), "empty", "empty answer"),
    "content filter": (raw(chunk({}, finish="content_filter"), DONE), "empty", "content filter"),
    "stalls at once": (stall(), "timeout", "sent nothing"),
    "stalls in the middle": (raw(HELLO, Pause(30)), "timeout", "not whole"),
    "only comments": (raw(*[part for _ in range(100) for part in (b": wait\n\n", Pause(0.05))]), "timeout", "nothing"),
}


@pytest.mark.parametrize("failure", FAILS)
async def test_every_failure_is_one_plain_sentence_and_the_next_call_works(
    played: Callable[..., Asked], failure: str
) -> None:
    answer, kind, said = FAILS[failure]
    retried = failure == "error text in a whole answer"
    timeouts = HASTY if kind == "timeout" else PATIENT
    asked = played(*[answer] * (4 if retried else 1), text("again"), settings={"api_key": "the-key"}, timeouts=timeouts)
    started = time.monotonic()
    message = await asked.fails(kind)
    assert said in message and "the-key" not in message
    assert time.monotonic() - started < 5
    assert len(asked.server.requests) == (4 if retried else 1)
    assert (await asked()).message.content == "again"


async def test_nothing_is_charged_for_what_was_refused_and_the_worst_for_what_was_lost(
    played: Callable[..., Asked],
) -> None:
    asked = played(status(401, "no"), cut("a"))
    await asked.fails("no-key")
    assert asked.budget.spent == Usage() and asked.budget.iterations == 0
    await asked.fails("stream")
    assert asked.budget.spent.output_tokens == 16_384 and asked.budget.iterations == 1


async def test_a_refused_connection_is_tried_again_then_said(played: Callable[..., Asked]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = played(settings={"base_url": f"http://127.0.0.1:{port}/v1"})
    message = await asked.fails("connection")
    assert f"http://127.0.0.1:{port}" in message and "connection refused" in message
    assert len(asked.slept) == 3 and asked.budget.spent == Usage()


async def test_a_host_that_is_none_is_said(played: Callable[..., Asked]) -> None:
    asked = played(settings={"base_url": "http://nowhere.invalid/v1", "api_key": "k"})
    assert "nowhere.invalid" in await asked.fails("connection")


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://127.0.0.1/v1", "http://", "http://u:p@127.0.0.1/v1", "x"])
async def test_a_base_url_that_is_none_is_said(played: Callable[..., Asked], url: str) -> None:
    message = await played(settings={"base_url": url}).fails("bad-request")
    assert "u:p" not in message


async def test_a_server_that_accepts_and_says_nothing_times_out(played: Callable[..., Asked]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = played(settings={"base_url": f"http://127.0.0.1:{silent.getsockname()[1]}/v1"}, timeouts=HASTY)
        assert "sent nothing" in await asked.fails("timeout")


async def test_what_a_listener_raises_is_not_taken_for_the_providers_fault(played: Callable[..., Asked]) -> None:
    def full(_: str) -> None:
        raise StoreError("The disk is full.")

    with pytest.raises(StoreError):
        await played(text("a"))(on_text=full)


# Asking again


async def test_a_busy_server_is_asked_again_after_the_time_it_names(played: Callable[..., Asked]) -> None:
    asked = played(status(429, retry_after=7), status(503, retry_after="0.5"), status(500), text("ok"))
    assert (await asked()).message.content == "ok"
    assert asked.slept[:2] == [7.0, 0.5] and 1.4 < asked.slept[2] < 2.6
    assert len(asked.server.requests) == 4 and asked.budget.spent == Usage(100, 40, 10)


async def test_a_date_to_retry_after_is_understood(played: Callable[..., Asked]) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    asked = played(status(429, retry_after=later), text("ok"))
    await asked()
    assert 17 < asked.slept[0] <= 20


async def test_it_gives_up_after_four_attempts(played: Callable[..., Asked]) -> None:
    asked = played(*[status(503, "down for repairs")] * 4)
    assert "down for repairs" in await asked.fails("server")
    assert len(asked.slept) == 3


async def test_a_connection_lost_before_the_first_chunk_is_tried_again(played: Callable[..., Asked]) -> None:
    asked = played(raw(Cut()), raw(Cut(reset=True)), raw(b": hello\n\n", Cut()), text("ok"))
    assert (await asked()).message.content == "ok"


async def test_nothing_is_asked_again_once_something_was_passed_on(played: Callable[..., Asked]) -> None:
    asked = played(raw(chunk({"reasoning": "hm"}), Cut()))
    await asked.fails("stream")
    assert asked.thoughts == ["hm"] and len(asked.server.requests) == 1


# What an endpoint refuses and we can do without


@pytest.mark.parametrize(
    ("words", "gone", "there"),
    [
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "max_tokens",
            "max_completion_tokens",
        ),
        ("stream_options is not permitted", "stream_options", "max_tokens"),
        ("registry/gemma:2b does not support tools", "tools", "messages"),
        ("No endpoints found that support tool use", "tools", "messages"),
        ('"auto" tool choice requires --enable-auto-tool-choice', "tools", "messages"),
        ("Tool calling is not supported by this model", "tools", "messages"),
        ("Function tools with reasoning_effort are not supported; set it to 'none'", "x", "reasoning_effort"),
    ],
)
async def test_what_is_refused_is_left_out_and_stays_out(
    played: Callable[..., Asked], words: str, gone: str, there: str
) -> None:
    asked = played(status(400, words), text("ok"), text("ok"))
    await asked()
    await asked()
    assert len(asked.server.requests) == 3 and not asked.slept
    for request in asked.server.requests[1:]:
        assert gone not in request.body and there in request.body


async def test_a_refusal_that_repeats_is_not_conceded_for_ever(played: Callable[..., Asked]) -> None:
    asked = played(*[status(400, "this endpoint does not support tools")] * 2)
    await asked.fails("bad-request")


async def test_tools_by_text_are_called_and_answered(played: Callable[..., Asked]) -> None:
    body = '{"path": "x", "content": "a </tool> b <tool name=\\"c\\">"}'
    asked = played(
        text(*f'I write. <tool name="write_file">{body}</tool>'), text("ok"), settings={"text_protocol": True}
    )
    reply = await asked()
    assert "".join(asked.texts) == "I write. "
    assert reply.finish_reason == "tool_calls" and reply.message.content == "I write."
    made = reply.message.tool_calls[0]
    assert (made.name, json.loads(made.arguments)["content"]) == ("write_file", 'a </tool> b <tool name="c">')
    await asked((*ASK, reply.message, Message("tool", "Done.", tool_call_id=made.id)))
    sent = asked.server.requests[1].messages
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert body in sent[2]["content"] and made.id in sent[3]["content"] and "Done." in sent[3]["content"]
    assert "read_file" in sent[0]["content"] and "tools" not in asked.server.requests[1].body


# Keys


async def test_a_local_endpoint_needs_no_key(played: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer somebody\nX-Mine: somebody")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    asked = played(text("ok"))
    await asked()
    headers = json.dumps(asked.server.requests[0].headers)
    assert "somebody" not in headers and "org-secret" not in headers


async def test_a_remote_endpoint_without_a_key_is_not_asked(played: Callable[..., Asked]) -> None:
    message = await played(settings={"base_url": "https://models.example.com/v1"}).fails("no-key")
    assert "https://models.example.com" in message and "setKey" in message


async def test_a_key_goes_to_the_origin_it_was_given_for_and_nowhere_else(played: Callable[..., Asked]) -> None:
    other = ModelServer([text("stolen")]).start()
    asked_for: list[str] = []

    def keys(origin: str) -> str | None:
        asked_for.append(origin)
        return "key-of-" + origin

    asked = played(redirect(other.url + "/chat/completions", 308), text("ok"), keys=keys)
    await asked.fails("bad-request")
    await asked()
    assert set(asked_for) == {asked.server.origin}
    assert [one.headers["authorization"] for one in asked.server.requests] == [
        "Bearer key-of-" + asked.server.origin
    ] * 2
    assert other.requests == [] and other.connections == 0
    other.close()


async def test_the_users_key_goes_before_the_environments(played: Callable[..., Asked]) -> None:
    asked = played(text("ok"), settings={"api_key": "environment"}, keys=lambda origin: "user")
    await asked()
    assert asked.server.requests[0].headers["authorization"] == "Bearer user"


async def test_a_key_is_trimmed_and_one_that_cannot_be_sent_is_not_quoted(played: Callable[..., Asked]) -> None:
    asked = played(text("ok"), settings={"api_key": " trimmed\n"})
    await asked()
    assert asked.server.requests[0].headers["authorization"] == "Bearer trimmed"
    for key in ("se\ncret", "se\u00e9cret"):
        message = await played(settings={"api_key": key}).fails("auth")
        assert "cret" not in message


async def test_without_a_model_nothing_is_asked(played: Callable[..., Asked]) -> None:
    assert "MODEL_NAME" in await played(settings={"model": None}).fails("no-model")


async def test_a_name_without_a_provider_is_said(played: Callable[..., Asked]) -> None:
    assert "provider" in await played(settings={"model": "nobody-knows-me", "base_url": None}).fails("no-model")


async def test_a_native_provider_without_a_key_is_said(played: Callable[..., Asked]) -> None:
    settings_ = {"model": "anthropic/claude-sonnet-4-5", "base_url": None, "api_key": "openrouters"}
    assert "ANTHROPIC_API_KEY" in await played(settings=settings_).fails("no-key")


async def test_a_proxy_of_the_environment_is_not_asked_for_what_is_local(
    played: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await played(text("ok"))()).message.content == "ok"


# Budget, cancelling, concurrency


async def test_the_budget_is_reserved_before_the_call_and_bounds_its_output(played: Callable[..., Asked]) -> None:
    asked = played(text("ok"))
    asked.budget = Budget(Limits(max_total_tokens=500))
    await asked()
    assert asked.server.requests[0].body["max_tokens"] < 500
    with pytest.raises(BudgetExceeded) as refused:
        await asked((Message("user", "x" * 4_000),))
    assert refused.value.limit == "total-tokens" and len(asked.server.requests) == 1


async def test_the_answer_is_bounded_by_the_callers_wish_and_by_the_context(played: Callable[..., Asked]) -> None:
    asked = played(text("ok"), text("ok"), settings={"context_tokens": 4_000})
    await asked(max_output_tokens=77)
    await asked((Message("user", "word " * 1_000),))
    assert asked.server.requests[0].body["max_tokens"] == 77
    assert asked.server.requests[1].body["max_tokens"] < 3_000


async def test_an_answer_that_ignores_its_limit_is_cut_and_charged_as_reserved(played: Callable[..., Asked]) -> None:
    words = [piece for _ in range(2_000) for piece in (chunk({"content": "word " * 50}), Pause(0.001))]
    asked = played(raw(*words, chunk({}, finish="stop"), DONE))
    reply = await asked(max_output_tokens=30)
    assert reply.finish_reason == "length" and 1_000 < len(reply.message.content) < 20_000
    assert asked.budget.spent.output_tokens == 30


async def test_when_the_seconds_run_out_the_call_ends_as_a_budget(played: Callable[..., Asked]) -> None:
    asked = played(raw(HELLO, Pause(30)), timeouts=PATIENT)
    asked.budget = Budget(Limits(max_seconds=0.4))
    with pytest.raises(BudgetExceeded) as over:
        await asked()
    assert over.value.limit == "seconds" and asked.server.requests[0].gone.wait(2)
    assert asked.budget.spent.output_tokens == 16_384


@pytest.mark.parametrize(
    "answer", [raw(HELLO, Pause(60)), stall(), Answer((), chunked=True)], ids=["mid", "first", "no"]
)
async def test_cancelling_closes_the_connection_at_once(played: Callable[..., Asked], answer: Answer) -> None:
    arrived = threading.Event()

    def reply(request: Any) -> Answer:
        arrived.set()
        if not answer.pieces:
            # Not even headers: the client hangs in its request.
            request.gone.wait(0.5)
        return answer

    asked = played(reply, timeouts=PATIENT)
    task = asyncio.create_task(asked())
    await asyncio.to_thread(arrived.wait, 5)
    await asyncio.sleep(0.05)
    task.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 0.2
    if answer.pieces:
        assert await asyncio.to_thread(asked.server.requests[0].gone.wait, 1)
    assert asked.budget.spent.output_tokens == 16_384 and asked.budget.iterations == 1


async def test_cancelling_at_any_moment_leaves_nothing_behind(played: Callable[..., Asked]) -> None:
    asked = played(lambda _: text(*"hello").paced(0.001), timeouts=PATIENT)
    await asked()
    for step in range(40):
        task = asyncio.create_task(asked())
        await asyncio.sleep(step * 0.0005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await asyncio.sleep(0.05)
    gc.collect()
    assert asked.budget.iterations == len(asked.server.requests) or asked.budget.iterations <= 41


async def test_calls_side_by_side_do_not_mix(played: Callable[..., Asked]) -> None:
    def echo(request: Any) -> Answer:
        word = request.messages[-1]["content"]
        return text(*[word] * 5).paced(0.002)

    asked = played(echo, timeouts=PATIENT)
    words = [f"w{number}" for number in range(12)]
    replies = await asyncio.gather(*(asked((Message("user", word),)) for word in words))
    assert [reply.message.content for reply in replies] == [word * 5 for word in words]
    assert asked.budget.spent == Usage(1_200, 480, 120)


async def test_a_hundred_equal_chunks_are_an_answer(played: Callable[..., Asked]) -> None:
    assert (await played(text(*["="] * 500))()).message.content == "=" * 500


# The rest


async def test_testing_a_model_says_what_is_wrong_or_that_it_works(played: Callable[..., Asked]) -> None:
    asked = played(text("ready"), status(401, "no"))
    ok, said, took = await asked.client.test()
    assert ok and "ready" in said and took >= 0
    ok, said, _ = await asked.client.test()
    assert not ok and "key" in said


async def test_models_are_listed_with_what_is_known_of_them(played: Callable[..., Asked]) -> None:
    asked = played(models=["a", "any/name"], settings={"api_key": "k"})
    asked.server.context_tokens = 9_000
    entries = await asked.client.list_models()
    assert [(one.id, one.origin, one.context_tokens) for one in entries] == [
        ("a", asked.server.origin, 9_000),
        ("any/name", asked.server.origin, 9_000),
    ]
    assert asked.client.context_limit() == 9_000
    assert asked.server.others[0].headers["authorization"] == "Bearer k"


async def test_ollama_tells_tools_and_context(played: Callable[..., Asked]) -> None:
    entries = await played(models=["llama3:8b"], ollama=True).client.list_models()
    assert (entries[0].tools, entries[0].context_tokens) == (True, 8_192)


async def test_a_listing_that_fails_is_said(played: Callable[..., Asked]) -> None:
    asked = played(settings={"base_url": "http://127.0.0.1:9/v1"})
    with pytest.raises(ProviderError) as failed:
        await asked.client.list_models()
    assert failed.value.kind == "connection"


SAMPLES = {  # What a common tokenizer makes of each, times a hundred.
    "def f(x):\n    return x\n": 8,
    '{"a":1,"b":[1,2,3]},': 13,
    "漢字仮名まじり文です。": 12,
    "Привет, как дела? ": 8,
    "The quick brown fox jumps over the lazy dog. ": 10,
    "😀🎉": 5,
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_tokens_are_estimated_near_and_hardly_below(sample: str) -> None:
    client = ModelClient(Settings(model="a"))
    estimate = client.count_tokens((Message("user", sample * 100),), ()) / (SAMPLES[sample] * 100)
    assert 0.8 <= estimate <= 2.3


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    """Every task and connection of a call ends with it."""
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left
