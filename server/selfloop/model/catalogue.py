"""Which models an endpoint has: `GET {base}/models`, and Ollama's own listing where the endpoint is one.

Everything read here is untrusted and best effort: a field that is missing or of another type is simply not known.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
from attrs import evolve, frozen

from selfloop.errors import ProviderError
from selfloop.model import failures
from selfloop.model.endpoints import Endpoint, origin_of
from selfloop.model.provider import PLACEHOLDER_KEY, Timeouts, http_client

_PATIENCE_SECONDS = 10.0
_MOST_MODELS = 2_000
_MOST_SHOWN = 40
"""Ollama is asked about each model by itself; beyond this many only the names are told."""
_GLANCE_SECONDS = 1.5
"""For servers that nobody named: somebody looks at a page, and waits no longer for what may not be there."""
_CONTEXT_KEYS = ("context_length", "max_model_len", "context_window", "max_context_length")


@frozen
class ModelEntry:
    """One model of an endpoint."""

    id: str
    origin: str
    tools: bool | None = None
    """None: not told."""
    context_tokens: int | None = None


@frozen
class Discovered:
    """A model server that was found."""

    name: str
    base_url: str
    """Its endpoint in the OpenAI format."""
    models: tuple[ModelEntry, ...]


async def list_models(endpoint: Endpoint, timeouts: Timeouts) -> list[ModelEntry]:
    """Return the models of an endpoint in the OpenAI format, in its own order.

    Raises:
        ProviderError: it cannot be reached, or refuses.
    """
    import httpx

    if endpoint.base_url is None:
        return [ModelEntry(endpoint.model, endpoint.where)]
    origin = origin_of(endpoint.base_url)
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS), http_client(origin, timeouts) as http:
            http.headers["Authorization"] = f"Bearer {endpoint.key or PLACEHOLDER_KEY}"
            response = await http.get(f"{endpoint.base_url}/models")
            if response.status_code != 200:
                raise failures.from_status(
                    response.status_code,
                    response.text,
                    response.headers,
                    where=origin,
                    model=endpoint.model,
                    key=endpoint.key,
                ).error
            entries = _entries(_json(response.content), origin)
            if not any(entry.context_tokens for entry in entries):
                entries = await _ollama(http, origin, entries)
            return entries
    except TimeoutError as error:
        raise failures.timed_out(origin, _PATIENCE_SECONDS).error from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise failures.from_exception(error, where=origin, model=endpoint.model, key=endpoint.key).error from error


def _entries(body: Any, origin: str) -> list[ModelEntry]:
    rows = body.get("data") or body.get("models") if isinstance(body, dict) else body
    entries: list[ModelEntry] = []
    for row in rows[:_MOST_MODELS] if isinstance(rows, list) else []:
        name = row.get("id") or row.get("name") if isinstance(row, dict) else row
        if not isinstance(name, str) or not name:
            continue
        entry = ModelEntry(name, origin)
        if isinstance(row, dict):
            parameters = row.get("supported_parameters")
            tools = "tools" in parameters if isinstance(parameters, list) else None
            sizes = (row.get(key) for key in _CONTEXT_KEYS)
            context = next((size for size in sizes if _is_size(size)), None)
            entry = evolve(entry, tools=tools, context_tokens=context)
        entries.append(entry)
    return entries


async def discover(address: str | None = None) -> list[Discovered]:
    """Return the model servers that run without having been asked for: a local Ollama.

    Args:
        address: where Ollama listens, as `OLLAMA_HOST` says it; None: where it does by default.

    Nothing there, or something else, is no error: then there is none.
    """
    import httpx

    origin = ollama_origin(address or "")
    if origin is None:
        return []
    try:
        async with asyncio.timeout(_GLANCE_SECONDS), http_client(origin, Timeouts()) as http:
            tags = await http.get(f"{origin}/api/tags")
            body = _json(tags.content)
            rows = body.get("models") if isinstance(body, dict) else None
            if tags.status_code != 200 or not isinstance(rows, list):
                return []
            entries = _entries({"models": rows}, origin)
            with contextlib.suppress(TimeoutError, httpx.HTTPError):
                # What each can do is worth a moment, and not more: the names are what matters.
                async with asyncio.timeout(_GLANCE_SECONDS * 0.6):
                    entries = await asyncio.gather(*(_shown(http, origin, one) for one in entries[:_MOST_SHOWN]))
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL):
        return []
    return [Discovered("Ollama", f"{origin}/v1", tuple(entries))]


def ollama_origin(host: str) -> str | None:
    """Return the origin that a value of `OLLAMA_HOST` means to a client of it; None: it means nothing.

    An address that a server listens on everywhere by (`0.0.0.0`) is reached on this machine.
    """
    scheme, separator, rest = host.strip().strip("\"'").rpartition("://")
    scheme = scheme or "http"
    rest = rest.split("/", 1)[0]
    name, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not colon:
        name, port = rest, ""
    port = port or ({"http": "80", "https": "443"}.get(scheme, "") if separator else "11434")
    name = "127.0.0.1" if name in ("", "0.0.0.0") else "[::1]" if name in ("::", "[::]") else name  # noqa: S104
    try:
        return origin_of(f"{scheme}://{name}:{port}")
    except ProviderError:
        return None


async def _ollama(http: Any, origin: str, entries: list[ModelEntry]) -> list[ModelEntry]:
    """Ask Ollama what it knows of each model; any other server answers 404 to the first question."""
    tags = await http.get(f"{origin}/api/tags")
    if tags.status_code != 200 or not isinstance(_json(tags.content), dict):
        return entries
    detailed = [await _shown(http, origin, entry) for entry in entries[:_MOST_SHOWN]]
    return detailed + entries[_MOST_SHOWN:]


async def _shown(http: Any, origin: str, entry: ModelEntry) -> ModelEntry:
    """Return a model with what Ollama tells of it."""
    response = await http.post(f"{origin}/api/show", json={"model": entry.id})
    shown = _json(response.content)
    if response.status_code != 200 or not isinstance(shown, dict):
        return entry
    able, info = shown.get("capabilities"), shown.get("model_info")
    facts = info.items() if isinstance(info, dict) else ()
    sizes = (value for name, value in facts if isinstance(name, str) and name.endswith(".context_length"))
    return evolve(
        entry,
        tools="tools" in able if isinstance(able, list) else None,
        context_tokens=next((size for size in sizes if _is_size(size)), None),
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000_000


def _json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
