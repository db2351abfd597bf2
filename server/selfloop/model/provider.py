"""A request goes to litellm, a stream of chunks comes back.

Two ways, both through `litellm.acompletion`:

- **direct**, for every endpoint in the OpenAI format (any base URL, and the providers that litellm knows as such):
  litellm builds and sends the request through an HTTP client of ours, and the body of its answer is read by
  `events.py`. litellm's own stream wrapper is left aside: it costs 0.4 ms of CPU a chunk, makes up a finish reason for
  a stream that was cut, and takes a JSON answer or a web page for an empty stream. The model's name goes in by
  `extra_body`, under litellm's provider `custom_openai`, because names such as `gpt-5-codex` or `responses/x` would
  make it rewrite parameters or choose another API.
- **native**, for the others (Anthropic, Gemini, Bedrock …): their format is litellm's business, so its wrapper is read.

Invariant: no retries but the client's own; no redirect is followed, so that none can carry a key; headers that the SDK
adds about this machine, or from the environment for another origin, are taken off; nothing is cached or called back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from attrs import define, frozen

from selfloop.model import guards
from selfloop.model.endpoints import Endpoint, is_local
from selfloop.model.events import EventDecoder

if TYPE_CHECKING:
    import httpx
    import openai

PLACEHOLDER_KEY: Final = "none"
"""Sent to a local endpoint that has no key: the SDK insists on one."""

# The last one is how the SDK tells itself that the body is ours to read.
_SENT_HEADERS: Final = {
    "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host",
    "transfer-encoding", "x-stainless-raw-response",
}  # fmt: skip


@frozen
class Timeouts:
    """How long silence may last, in seconds."""

    connect_seconds: float = 10.0
    first_chunk_seconds: float = 300.0
    """Until the first chunk, and between chunks that are only kept alive by comments. Local models load for minutes."""
    between_chunks_seconds: float = 120.0
    after_finish_seconds: float = 3.0
    """After the finish reason, for the usage and `[DONE]` that some servers never send."""


def takes_tools(endpoint: Endpoint) -> bool:
    """Tell whether litellm can hand tools to a native model; it would leave them out in silence otherwise."""
    if endpoint.base_url is not None:
        return True
    supported = guards.load().get_supported_openai_params(endpoint.model)
    return supported is None or "tools" in supported


def http_client(origin: str, timeouts: Timeouts) -> httpx.AsyncClient:
    """Return the HTTP client for one origin: no redirects, no chatter, and no proxy for what is local."""
    import httpx

    from selfloop import __version__

    async def trim(request: httpx.Request) -> None:
        await _note_start(request)
        for name in [name for name in request.headers if name.lower() not in _SENT_HEADERS]:
            del request.headers[name]
        request.headers["User-Agent"] = f"selfloop/{__version__}"

    local = is_local(origin)
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=not local,
        timeout=httpx.Timeout(timeouts.connect_seconds, read=None, pool=None),
        # A local connection costs nothing to make anew, and a kept one is often dead when it is needed.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0 if local else 8, keepalive_expiry=30.0),
        event_hooks={"request": [trim]},
    )


def sdk_client(endpoint: Endpoint, http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    """Return the SDK's client that litellm sends the request with."""
    import openai

    key = endpoint.key or PLACEHOLDER_KEY
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=endpoint.base_url,
        http_client=http,
        max_retries=0,
        # The SDK also takes headers from the environment, which are meant for another origin; this goes before them.
        default_headers={"Authorization": f"Bearer {key}"},
    )


@define
class Stream:
    """An open answer. `read` returns chunks as they come, an empty list for a sign of life, None at the end."""

    _blocks: AsyncIterator[Any]
    _decode: Callable[[Any], list[dict[str, Any]]]
    _end: Callable[[], list[dict[str, Any]]]
    _close: Callable[[], Awaitable[None]]
    decoder: EventDecoder | None = None
    """For a direct answer: what else its body told."""
    _ended: bool = False

    @property
    def done(self) -> bool:
        """The answer has said itself that it is whole."""
        return self.decoder is not None and self.decoder.done

    async def read(self) -> list[dict[str, Any]] | None:
        """Return the next chunks."""
        if self._ended:
            return None
        try:
            block = await anext(self._blocks)
        except StopAsyncIteration:
            self._ended = True
            return self._end()
        return self._decode(block)

    async def close(self) -> None:
        """Close the connection, whether the answer has been read or not."""
        await self._close()


async def open_direct(endpoint: Endpoint, sdk: openai.AsyncOpenAI, body: dict[str, Any], timeouts: Timeouts) -> Stream:
    """Send a request in the OpenAI format and return its answer."""
    import httpx

    wrapper = await _acompletion(
        model="selfloop",
        custom_llm_provider="custom_openai",
        client=sdk,
        api_base=endpoint.base_url,
        api_key=sdk.api_key,
        messages=body["messages"],
        stream=True,
        timeout=httpx.Timeout(timeouts.connect_seconds, read=None, pool=None),
        extra_body={name: value for name, value in {**body, "model": endpoint.model}.items() if name != "messages"},
    )
    response = getattr(wrapper.completion_stream, "response", None)
    if not isinstance(response, httpx.Response):
        # Where litellm answers by itself (it does so for one of OpenAI's errors), there is no response to read.
        return _wrapped(wrapper)
    decoder = EventDecoder()
    blocks = response.aiter_bytes()

    async def close() -> None:
        await response.aclose()

    return Stream(blocks, decoder.feed, decoder.close, close, decoder)


async def open_native(endpoint: Endpoint, body: dict[str, Any], timeouts: Timeouts) -> Stream:
    """Send a request through litellm's own adapter and return its answer."""
    import httpx
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    handler = AsyncHTTPHandler(
        timeout=httpx.Timeout(timeouts.connect_seconds, read=None, pool=None), event_hooks={"request": [_note_start]}
    )
    handler.client.follow_redirects = False
    try:
        wrapper = await _acompletion(
            model=endpoint.model,
            api_key=endpoint.key,
            client=None if endpoint.where.startswith("azure") else handler,
            stream=True,
            timeout=timeouts.first_chunk_seconds,
            drop_params=True,
            **(_MARKS_FOR_THE_CACHE if endpoint.where in _MARKED else {}),
            **body,
        )
    except BaseException:
        await handler.client.aclose()
        raise
    return _wrapped(wrapper, handler.client.aclose)


# What litellm must not do on its own. `_skip_mcp_handler`: with tools it would import a package that is not there.
_ALONE: Final[dict[str, Any]] = {"num_retries": 0, "max_retries": 0, "caching": False, "_skip_mcp_handler": True}
# These providers cache a prompt only up to marks in it: after the system text, and after the newest message.
_MARKED: Final = {"anthropic"}
_MARKS_FOR_THE_CACHE: Final[dict[str, Any]] = {
    "cache_control_injection_points": [{"location": "message", "role": "system"}, {"location": "message", "index": -1}]
}
_preparing: Final[ContextVar[Any]] = ContextVar("preparing", default=None)


async def _acompletion(**arguments: Any) -> Any:
    """Call litellm. Cancelling takes effect once the request is under way.

    litellm prepares a request in a thread, for a few milliseconds. Cancelled there, it would leave a coroutine behind
    that nobody ever awaits.
    """
    import anyio

    with anyio.CancelScope(shield=True) as scope:
        _preparing.set(scope)
        return await guards.load().acompletion(**arguments, **_ALONE)


async def _note_start(_: object) -> None:
    """Note that the request of this task is about to be sent."""
    scope = _preparing.get()
    if scope is not None:
        scope.shield = False


def _wrapped(wrapper: Any, close_client: Callable[[], Awaitable[None]] | None = None) -> Stream:
    """Return litellm's stream as ours, without the finish reason that it makes up where none has come."""

    def decode(chunk: Any) -> list[dict[str, Any]]:
        payload = chunk.model_dump(exclude_none=True)
        for choice in payload.get("choices") or []:
            choice.pop("finish_reason", None)
        return [payload]

    def end() -> list[dict[str, Any]]:
        reason = wrapper.received_finish_reason or wrapper.intermittent_finish_reason
        return [{"choices": [{"delta": {}, "finish_reason": reason}]}] if reason else []

    async def close() -> None:
        response = getattr(wrapper.completion_stream, "response", None)
        inner = getattr(response or wrapper.completion_stream, "aclose", None)
        if inner is not None:
            await inner()
        if close_client is not None:
            await close_client()

    return Stream(aiter(wrapper), decode, end, close)
