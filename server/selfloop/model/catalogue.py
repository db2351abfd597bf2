"""Which models an endpoint has: `GET {base}/models`, and Ollama's own listing where the endpoint is one.

Everything read here is untrusted and best effort: a field that is missing or of another type is simply not known.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from attrs import evolve, frozen

from selfloop.model import failures
from selfloop.model.endpoints import Endpoint, origin_of
from selfloop.model.provider import PLACEHOLDER_KEY, Timeouts, http_client

_PATIENCE_SECONDS = 10.0
_MOST_MODELS = 2_000
_MOST_SHOWN = 40
"""Ollama is asked about each model by itself; beyond this many only the names are told."""
_CONTEXT_KEYS = ("context_length", "max_model_len", "context_window", "max_context_length")


@frozen
class ModelEntry:
    """One model of an endpoint."""

    id: str
    origin: str
    tools: bool | None = None
    """None: not told."""
    context_tokens: int | None = None


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


async def _ollama(http: Any, origin: str, entries: list[ModelEntry]) -> list[ModelEntry]:
    """Ask Ollama what it knows of each model; any other server answers 404 to the first question."""
    tags = await http.get(f"{origin}/api/tags")
    if tags.status_code != 200 or not isinstance(_json(tags.content), dict):
        return entries
    detailed: list[ModelEntry] = []
    for entry in entries[:_MOST_SHOWN]:
        response = await http.post(f"{origin}/api/show", json={"model": entry.id})
        shown = _json(response.content)
        if response.status_code == 200 and isinstance(shown, dict):
            able = shown.get("capabilities")
            info = shown.get("model_info")
            facts = info.items() if isinstance(info, dict) else ()
            sizes = (value for name, value in facts if name.endswith(".context_length"))
            entry = evolve(
                entry,
                tools="tools" in able if isinstance(able, list) else None,
                context_tokens=next((size for size in sizes if _is_size(size)), None),
            )
        detailed.append(entry)
    return detailed + entries[_MOST_SHOWN:]


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000_000


def _json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
