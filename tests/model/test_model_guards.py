"""What litellm would do on its own, and does not: read a `.env`, print, fetch, log, follow redirects with a key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_server import Answer, ModelServer, Pause, cut, event, garbage, redirect, status, text, tools
from selfloop.config import Settings
from selfloop.errors import ProviderError
from selfloop.messages import Message, ToolCall, ToolSpec, Usage
from selfloop.model.budget import Budget, Limits
from selfloop.model.client import ModelClient

PROGRAM = """
import asyncio, json, logging, os, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
for name in ("asyncio", "selfloop"):
    logging.getLogger(name).setLevel(logging.WARNING)
from selfloop.config import Settings
from selfloop.errors import ProviderError
from selfloop.messages import Message
from selfloop.model.budget import Budget, Limits
from selfloop.model.client import ModelClient

async def main():
    client = ModelClient(Settings(model="m", base_url=sys.argv[1], api_key="sk-" + "very-secret"))
    client.preload()
    seen = []
    for _ in range(int(sys.argv[2])):
        try:
            reply = await client.complete([Message("user", "hi")], budget=Budget(Limits()))
            seen.append(reply.message.content)
        except ProviderError as error:
            seen.append(error.kind)
    await client.close()
    with open(sys.argv[3], "w") as file:
        json.dump([seen, os.environ.get("SELFLOOP_TEST_STOLEN"), sorted(os.environ)], file)

asyncio.run(main())
"""


def test_nothing_is_printed_logged_or_loaded_from_a_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SELFLOOP_TEST_STOLEN=yes\nOPENAI_BASE_URL=http://203.0.113.9/v1\n")
    script, result = tmp_path / "program.py", tmp_path / "result.json"
    script.write_text(PROGRAM)
    answers = [text("one"), status(401, "bad"), status(400, "bad"), garbage(), cut("a"), text("two")]
    with ModelServer(answers) as server:
        environment = {**os.environ, "LITELLM_LOG": "DEBUG", "LITELLM_MODE": "DEV", "PYTHON_DOTENV_DISABLED": "0"}
        done = subprocess.run(
            [sys.executable, str(script), server.url, str(len(answers)), str(result)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert b"very-secret" not in done.stderr and done.stderr == b""
    seen, stolen, names = json.loads(result.read_text())
    assert seen == ["one", "auth", "bad-request", "server", "stream", "two"]
    assert stolen is None and "SELFLOOP_TEST_STOLEN" not in names


def test_importing_the_room_imports_nothing_heavy() -> None:
    code = "import sys, selfloop.model.client, selfloop.offline; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"litellm", "openai", "httpx", "tiktoken", "pydantic", "aiohttp"} & set(done.stdout.split())


# Native providers, played over their own wire format


def anthropic_events(*events: dict[str, Any]) -> Answer:
    return Answer(tuple(f"event: {one['type']}\n".encode() + event(one) for one in events))


START = {
    "type": "message_start",
    "message": {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 20, "output_tokens": 1, "cache_read_input_tokens": 5},
    },
}
END = (
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)
WORDS = (
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I look."}},
    {"type": "content_block_stop", "index": 0},
)
CALLED = (
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"path":'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ' "é"}'}},
    {"type": "content_block_stop", "index": 1},
)
READ = ToolSpec("read_file", "Read it.", {"type": "object", "properties": {"path": {"type": "string"}}})


class Native(ModelServer):
    """Plays Anthropic's endpoint."""

    def answer(self, request: Any) -> Answer:
        if request.path.endswith("/messages"):
            self.requests.append(request)
            return self._script.pop(0)  # type: ignore[union-attr]
        return super().answer(request)


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start it, and a client whose key is the environment's."""
    servers: list[Native] = []

    def start(*script: Answer, **more: Any) -> tuple[Native, ModelClient]:
        server = Native(script)
        servers.append(server.start())
        monkeypatch.setenv("ANTHROPIC_API_KEY", "native-key")
        monkeypatch.setenv("ANTHROPIC_API_BASE", server.origin)
        return server, ModelClient(Settings(model="anthropic/claude-sonnet-4-5", api_key="not-for-anthropic"), **more)

    yield start
    for server in servers:
        server.close()


async def test_a_native_provider_streams_text_tool_calls_and_usage(native: Any) -> None:
    server, client = native(anthropic_events(START, *WORDS, *CALLED, *END))
    texts: list[str] = []
    budget = Budget(Limits())
    reply = await client.complete([Message("user", "hi")], [READ], budget=budget, on_text=texts.append)
    assert texts == ["I look."] and reply.message.content == "I look."
    assert [(one.id, one.name, json.loads(one.arguments)) for one in reply.message.tool_calls] == [
        ("toolu_1", "read_file", {"path": "é"})
    ]
    assert reply.finish_reason == "tool_calls" and reply.usage_known
    assert (reply.usage.input_tokens, reply.usage.cached_tokens, reply.usage.output_tokens) == (25, 5, 9)
    assert reply.usage.cost_usd and budget.spent == reply.usage
    assert server.requests[0].headers["x-api-key"] == "native-key"
    assert "not-for-anthropic" not in json.dumps(server.requests[0].headers)


async def test_a_native_prompt_is_marked_for_the_cache_at_its_system_text_and_its_end(native: Any) -> None:
    server, client = native(anthropic_events(START, *WORDS, *END))
    history = [
        Message("system", "Rules."),
        Message("user", "hi"),
        Message("assistant", "", (ToolCall("toolu_0", "read_file", "{}"),)),
        Message("tool", "text", tool_call_id="toolu_0"),
    ]
    await client.complete(history, [READ], budget=Budget(Limits()))
    body = server.requests[0].body
    assert "cache_control" in body["system"][-1]
    assert "cache_control" in body["messages"][-1]["content"][-1]
    assert json.dumps(body).count("cache_control") == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (status(401, "invalid x-api-key"), "auth"),
        (status(404, "model: claude-x not found"), "no-model"),
        (status(400, "prompt is too long: 300000 tokens > 200000 maximum"), "context"),
        (anthropic_events(START, *WORDS), "stream"),
        (Answer((*anthropic_events(START, *WORDS).pieces, Pause(30))), "timeout"),
    ],
    ids=["key", "model", "context", "cut", "stall"],
)
async def test_a_native_providers_failures_are_plain_sentences(native: Any, answer: Answer, kind: str) -> None:
    from selfloop.model.provider import Timeouts

    _, client = native(answer, timeouts=Timeouts(first_chunk_seconds=1, between_chunks_seconds=0.5))
    with pytest.raises(ProviderError) as failed:
        await client.complete([Message("user", "hi")], budget=Budget(Limits()))
    assert failed.value.kind == kind, failed.value.message
    assert "litellm" not in failed.value.message.lower() and "native-key" not in failed.value.message


async def test_no_redirect_of_a_native_provider_carries_the_key(native: Any) -> None:
    with ModelServer([text("stolen")]) as other:
        _, client = native(redirect(other.origin + "/v1/messages"))
        with pytest.raises(ProviderError):
            await client.complete([Message("user", "hi")], budget=Budget(Limits()))
        assert other.requests == [] and other.others == []


async def test_providers_in_the_openai_format_are_found_by_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with ModelServer([text("ok"), tools()]) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "own")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        reply = await ModelClient(Settings(model="gpt-4o")).complete([Message("user", "x")], budget=Budget(Limits()))
        assert reply.message.content == "ok" and reply.usage == Usage(100, 40, 10, reply.usage.cost_usd)
        assert server.requests[0].headers["authorization"] == "Bearer own"
        assert server.requests[0].body["model"] == "gpt-4o"
        monkeypatch.setenv("OLLAMA_API_BASE", server.origin)
        server.extend(text("ok"))
        server._script.pop(0)  # type: ignore[union-attr]
        await ModelClient(Settings(model="ollama/qwen3:4b")).complete([Message("user", "x")], budget=Budget(Limits()))
        assert server.requests[1].body["model"] == "qwen3:4b" and server.requests[1].path == "/v1/chat/completions"
