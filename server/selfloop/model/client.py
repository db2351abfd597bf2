"""One call to the model, whole: reserve the budget, ask, ask again where that helps, assemble, settle.

    complete ──▶ reserve ──▶ attempt ──▶ chunks ──▶ on_text, on_thought ──▶ Reply
                               ▲   │ failed before anything was heard: wait, or concede, and ask again
                               └───┘

Invariant: a request leaves this machine only inside a reservation, and each reservation is settled or released exactly
once, also when the task is cancelled. Nothing is asked again after the first piece of an answer was passed on. What
comes out is a `Reply` or a `ProviderError` with one plain sentence; nothing of litellm, the SDK or httpx leaves here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from selfloop.config import Settings
from selfloop.errors import BudgetExceeded, ProviderError
from selfloop.messages import Message, Reply, ToolSpec, Usage
from selfloop.model import endpoints, guards, provider, textprotocol
from selfloop.model.assembly import Assembly
from selfloop.model.budget import Budget, Limits, Reservation
from selfloop.model.catalogue import ModelEntry, list_models
from selfloop.model.endpoints import Endpoint, Keys
from selfloop.model.failures import Failed, Failure, cut, empty, from_exception, from_payload, no_answer, timed_out
from selfloop.model.provider import Timeouts
from selfloop.model.request import Dialect, count_tokens

if TYPE_CHECKING:
    import anyio
    import httpx

log = logging.getLogger(__name__)

DEFAULT_TIMEOUTS: Final = Timeouts()
DEFAULT_CONTEXT_TOKENS: Final = 32_768
DEFAULT_OUTPUT_TOKENS: Final = 16_384
_LEAST_OUTPUT_TOKENS: Final = 1_024
"""Asked for even where the estimate says that the context is full: the estimate may be wrong, the provider knows."""
_ATTEMPTS: Final = 4
_CHARACTERS: Final = 40  # No answer has tokens so long on the average: one that goes on beyond that ignores its limit.
_LONGEST_WAIT_SECONDS: Final = 60.0
_LONGEST_GOODBYE_SECONDS: Final = 1.0
"""How long a cancelled call waits for its connection to be closed, which takes a few milliseconds."""


def _ignore(_: str) -> None:
    """Take a piece of an answer that nobody asked for."""


class ModelClient:
    """The model that the settings name."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys: Keys = lambda origin: None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take what the user has set.

        Args:
            settings: model, base URL, and the key that the environment gave for it.
            keys: the key that the user has given for an origin, if any; it goes before `settings.api_key`.
            timeouts: how long silence may last.
            sleep: how to wait before asking again.
        """
        self._settings = settings
        self._keys = keys
        self._timeouts = timeouts
        self._sleep = sleep
        self._dialect = Dialect(text_protocol=settings.text_protocol)
        self._context: int | None = None
        self._clients: dict[tuple[str, asyncio.AbstractEventLoop], httpx.AsyncClient] = {}
        self._connecting = asyncio.Lock()

    @property
    def name(self) -> str:
        """The model's name as the user has set it; "" if none is."""
        return self._settings.model or ""

    @property
    def base_url(self) -> str | None:
        """The endpoint's base URL; None: the provider's own."""
        return self._settings.base_url

    def preload(self) -> None:
        """Import litellm in a thread, off the way of whatever is happening now."""
        threading.Thread(target=guards.load, name="load litellm", daemon=True).start()

    async def ready(self) -> None:
        """Wait until litellm is loaded; after that `context_limit` knows what litellm knows of the model."""
        await guards.load_in_thread()

    def context_limit(self) -> int:
        """Return how many tokens the model can read and write together."""
        known = self._settings.context_tokens or self._context
        if known is None:
            entry = self._facts()
            known = entry.get("max_input_tokens") or entry.get("max_tokens")
        return known if isinstance(known, int) and known > 0 else DEFAULT_CONTEXT_TOKENS

    def count_tokens(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        """Estimate the input's tokens, rather too high than too low, at a speed that costs nothing."""
        return count_tokens(messages, tools)

    async def complete(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        budget: Budget,
        on_text: Callable[[str], None] = _ignore,
        on_thought: Callable[[str], None] = _ignore,
        max_output_tokens: int | None = None,
    ) -> Reply:
        """Ask the model, and pass on its answer as it comes. Cancelling the task closes the connection at once.

        Args:
            messages: the conversation, its system message first.
            tools: what it may call.
            budget: what the call is charged to, before it is made.
            on_text: takes each piece of the text; never a piece of a tool call.
            on_thought: takes each piece of the reasoning, where the provider shows it.
            max_output_tokens: the most that the answer may have, below what the settings and the budget allow.

        Returns:
            The whole answer. A finish reason of `length` may come with tool calls, the last of them cut off.

        Raises:
            ProviderError: no answer, or not a whole one.
            BudgetExceeded: the call would cross a limit and was not made, or it ran out of seconds.
        """
        await self.ready()
        endpoint = await self._endpoint()
        if tools and not provider.takes_tools(endpoint):
            self._dialect.without_tools()
        estimate = self.count_tokens(messages, tools)
        reservation = budget.reserve(
            estimate, self._wanted_output(estimate, max_output_tokens), guards.price_of(endpoint.listing)
        )
        call = _Call(on_text, on_thought, _CHARACTERS * (64 + reservation.output_tokens))
        clock = asyncio.timeout(budget.seconds_left())
        try:
            try:
                async with clock:
                    await self._ask(endpoint, messages, tools, reservation, call)
            except TimeoutError:
                if not clock.expired():
                    raise
                raise BudgetExceeded(
                    "The time that the budget allows ran out while the model was answering, so the answer was given "
                    "up; raise the limit of seconds, or go on with a new message.",
                    limit="seconds",
                ) from None
        except BaseException:
            if call.billed:
                budget.settle(reservation, None)
            else:
                budget.release(reservation)
            raise
        usage = budget.settle(reservation, call.answer.usage)
        return self._reply(endpoint, messages, call, usage)

    async def test(self) -> tuple[bool, str, int]:
        """Ask the model for one word; return (it works, one plain sentence, milliseconds)."""
        started = time.monotonic()
        question = [Message("user", "Answer with the one word: ready")]
        try:
            reply = await self.complete(question, budget=Budget(Limits()), max_output_tokens=256)
        except (ProviderError, BudgetExceeded) as error:
            return False, error.message, round(1_000 * (time.monotonic() - started))
        took = round(1_000 * (time.monotonic() - started))
        return True, f"{self.name} answers: {' '.join(reply.message.content.split())[:80]!r}, after {took} ms.", took

    async def list_models(self, base_url: str | None = None) -> list[ModelEntry]:
        """Return the models of another endpoint, or of the one in use, whose context size is remembered if told."""
        settings = self._settings
        if base_url and base_url != settings.base_url:
            endpoint = endpoints.locate("unnamed", base_url, settings.key_for(base_url), self._keys)
            return await list_models(endpoint, self._timeouts)
        if not settings.base_url:
            await self.ready()
        endpoint = await self._endpoint(settings.model or "unnamed")
        entries = await list_models(endpoint, self._timeouts)
        told = next((entry.context_tokens for entry in entries if entry.id == self._settings.model), None)
        self._context = told or self._context
        return entries

    async def close(self) -> None:
        """Close the connections that are kept open."""
        loop = asyncio.get_running_loop()
        clients, self._clients = self._clients, {}
        for (_, its_loop), client in clients.items():
            if its_loop is loop:
                await client.aclose()

    async def _endpoint(self, model: str | None = None) -> Endpoint:
        settings = self._settings
        if settings.base_url:
            own = settings.key_for(settings.base_url)
            return endpoints.locate(model or settings.model, settings.base_url, own, self._keys)
        # The environment's key belongs to the base URL's origin, and there is none: litellm finds its own.
        return await asyncio.to_thread(endpoints.locate, settings.model, None, None, self._keys)

    def _facts(self) -> dict[str, Any]:
        """Return what is known of the model wherever it is: unlike its price, its size is the same everywhere."""
        model = self._settings.model or ""
        return guards.facts(endpoints.listed_as(model, self._settings.base_url), model, model.rsplit("/", 1)[-1])

    def _wanted_output(self, estimate: int, most: int | None) -> int:
        wanted = self._settings.max_output_tokens
        if wanted is None:
            known = self._facts().get("max_output_tokens")
            wanted = min(known, DEFAULT_OUTPUT_TOKENS) if isinstance(known, int) and known else DEFAULT_OUTPUT_TOKENS
        if most is not None:
            wanted = min(wanted, most)
        room = max(_LEAST_OUTPUT_TOKENS, self.context_limit() - estimate)
        return max(1, min(wanted, room))

    async def _ask(
        self,
        endpoint: Endpoint,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        reservation: Reservation,
        call: _Call,
    ) -> None:
        """Ask until there is an answer, or asking again cannot help."""
        attempt = 0
        while True:
            # Until the endpoint refuses, what is cancelled or lost from here on may have been worked on.
            billed, call.billed = call.billed, True
            try:
                await self._attempt(endpoint, self._dialect.body(messages, tools, reservation.output_tokens), call)
                return
            except Failed as failed:
                failure = failed.failure
            call.billed = billed or failure.billed
            if call.answer.heard:
                raise failure.error
            if self._dialect.concede(failure, tools=bool(tools)):
                continue
            attempt += 1
            wait = _wait_seconds(failure, attempt)
            if wait is None:
                raise failure.error
            log.info(
                "The model's endpoint failed (%s); attempt %d follows in %.1f s.", failure.error.kind, attempt + 1, wait
            )
            await self._sleep(wait)

    async def _attempt(self, endpoint: Endpoint, body: dict[str, Any], call: _Call) -> None:
        """Send one request and read its answer to the end, in a task of its own.

        httpx closes a connection under the shields of anyio's cancel scopes, which asyncio's own `Task.cancel` breaks:
        a connection would now and then stay open. So the task that owns it is only ever cancelled by a scope.

        Raises:
            Failed: it did not work out; the failure says whether asking again can help.
        """
        import anyio

        call.answer = Assembly(most_characters=call.most_characters)
        call.visible = textprotocol.Visible() if self._dialect.tools_by_text else None
        scope = anyio.CancelScope(deadline=anyio.current_time() + self._timeouts.first_chunk_seconds)
        exchange = asyncio.create_task(self._exchange(endpoint, body, call, scope))
        try:
            await asyncio.shield(exchange)
        except asyncio.CancelledError:
            scope.cancel()
            await asyncio.wait({exchange}, timeout=_LONGEST_GOODBYE_SECONDS)
            if exchange.done() and not exchange.cancelled():
                exchange.exception()
            raise

    async def _exchange(self, endpoint: Endpoint, body: dict[str, Any], call: _Call, scope: anyio.CancelScope) -> None:
        # A native provider's key may be litellm's own find; there is one, else `locate` would have said so.
        key = endpoint.key if endpoint.base_url else endpoint.key or ""
        told = {"where": endpoint.where, "model": endpoint.model, "key": key}
        loop = asyncio.get_running_loop()
        stream: provider.Stream | None = None
        with scope:
            try:
                stream = await self._open(endpoint, body, told)
                newest = loop.time()
                while not call.answer.full and (chunks := await self._read(stream, call, told)) is not None:
                    now = loop.time()
                    for chunk in chunks:
                        self._take(chunk, call, told)
                        newest = now
                    scope.deadline = self._deadline(stream, call, now, newest)
            finally:
                if stream is not None:
                    await stream.close()
        if scope.cancelled_caught and not _ended(stream, call):
            timeouts = self._timeouts
            silence = timeouts.between_chunks_seconds if call.answer.heard else timeouts.first_chunk_seconds
            raise Failed(timed_out(endpoint.where, silence, heard=call.answer.heard))
        self._end(endpoint, stream, call)

    async def _open(self, endpoint: Endpoint, body: dict[str, Any], told: dict[str, Any]) -> provider.Stream:
        try:
            if endpoint.base_url is None:
                return await provider.open_native(endpoint, body, self._timeouts)
            sdk = provider.sdk_client(endpoint, await self._client(endpoint.where))
            return await provider.open_direct(endpoint, sdk, body, self._timeouts)
        except Exception as error:  # litellm and the SDK raise what they like; `from_exception` knows what it means.
            raise Failed(from_exception(error, **told)) from error

    async def _client(self, origin: str) -> httpx.AsyncClient:
        """Return the HTTP client of an origin; making one reads certificates, which takes a while."""
        place = (origin, asyncio.get_running_loop())
        async with self._connecting:
            if place not in self._clients:
                self._clients[place] = await asyncio.to_thread(provider.http_client, origin, self._timeouts)
            return self._clients[place]

    async def _read(self, stream: provider.Stream, call: _Call, told: dict[str, Any]) -> list[dict[str, Any]] | None:
        try:
            return await stream.read()
        except ProviderError as error:
            raise Failed(Failure(error, billed=True)) from error
        except Exception as error:  # As above; and a connection that is lost after the answer's end loses nothing.
            if _ended(stream, call):
                return None
            if stream.decoder is None and not call.answer.heard:
                raise Failed(from_exception(error, **told)) from error
            raise Failed(cut(told["where"], heard=call.answer.heard)) from error

    def _take(self, chunk: dict[str, Any], call: _Call, told: dict[str, Any]) -> None:
        error = chunk.get("error")
        if error or chunk.get("object") == "error":
            raise Failed(from_payload(error or chunk, heard=call.answer.heard, **told))
        try:
            text, thought = call.answer.feed(chunk)
        except ProviderError as error:
            raise Failed(Failure(error, billed=True)) from error
        if thought:
            call.on_thought(thought)
        if text:
            shown = text if call.visible is None else call.visible.feed(text)
            if shown:
                call.on_text(shown)

    def _end(self, endpoint: Endpoint, stream: provider.Stream | None, call: _Call) -> None:
        """Check that the answer is whole, and pass on what only its end makes certain."""
        answer = call.answer
        decoder = stream.decoder if stream is not None else None
        if not _ended(stream, call):
            if decoder is not None and not answer.heard and decoder.text:
                raise Failed(no_answer(endpoint.where, decoder.text.decode("utf-8", "replace"), endpoint.key))
            raise Failed(cut(endpoint.where, heard=answer.heard))
        if answer.finish == "error":
            raise Failed(cut(endpoint.where, heard=True))
        rest = answer.tail()
        if call.visible is not None:
            rest = call.visible.feed(rest) + call.visible.rest()
        if rest:
            call.on_text(rest)

    def _deadline(self, stream: provider.Stream, call: _Call, now: float, newest: float) -> float:
        """Return until when the next piece may take: comments keep a connection alive, but not for ever."""
        timeouts = self._timeouts
        if stream.done:
            # Nothing more can come; only a body that is read to its end leaves a connection that can be used again.
            return now + 0.1
        if call.answer.finish:
            return newest + timeouts.after_finish_seconds
        if not call.answer.heard:
            return newest + timeouts.first_chunk_seconds
        return min(now + timeouts.between_chunks_seconds, newest + timeouts.first_chunk_seconds)

    def _reply(self, endpoint: Endpoint, messages: Sequence[Message], call: _Call, usage: Usage) -> Reply:
        answer = call.answer
        text = answer.text
        calls = answer.tool_calls({call.id for message in messages for call in message.tool_calls})
        if self._dialect.tools_by_text:
            text, by_text = textprotocol.parse(text)
            calls += by_text
        reason = answer.finish_reason(calls)
        if not calls and not text.strip() and reason != "length":
            raise empty(endpoint.where, answer.finish).error
        message = Message("assistant", text, calls)
        return Reply(message, reason, usage, endpoint.model, usage_known=answer.usage is not None)


class _Call:
    """One call under way, over all of its attempts."""

    def __init__(self, on_text: Callable[[str], None], on_thought: Callable[[str], None], most: int) -> None:
        self.on_text, self.on_thought = on_text, on_thought
        self.most_characters = most
        self.answer = Assembly()
        self.visible: textprotocol.Visible | None = None
        self.billed = False
        """A provider may have worked on it without saying what that cost."""


def _ended(stream: provider.Stream | None, call: _Call) -> bool:
    """Tell whether the answer is whole: it has a finish reason, or its stream said that it was done."""
    return bool(call.answer.finish) or (stream is not None and stream.done)


def _wait_seconds(failure: Failure, attempt: int) -> float | None:
    """Return how long to wait before the next attempt, or None to give up."""
    if not failure.retryable or attempt >= _ATTEMPTS:
        return None
    asked = failure.retry_after_seconds
    if asked is not None and asked > _LONGEST_WAIT_SECONDS:
        return None
    backoff = 0.5 * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # noqa: S311 - spreads the load, guards nothing.
    return backoff if asked is None else max(asked, 0.05)
