"""litellm, imported behind guards and off the start path. Each guard stands against something measured:

it loads a `.env` that it finds (a stranger's base URL would get the key), fetches a price list from the network, prints
to stdout, which belongs to the editor, keeps log handlers of its own, and ends a stream in which 100 pieces are equal.

Invariant: whoever needs litellm gets it from `load`, and nothing else imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Final

from selfloop.model.budget import Price

log = logging.getLogger(__name__)

_WANTED_BY_THE_FIRST_CALL: Final = (
    "httpx",
    "openai.resources.chat",
    "litellm.litellm_core_utils.default_encoding",
    "litellm.proxy.openai_files_endpoints.common_utils",
)
_NOISY_LOGGERS: Final = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "httpcore", "openai")


def load() -> Any:
    """Import litellm behind its guards and return it. Blocks for seconds the first time: call it in a thread."""
    if _guarded.is_set():
        return sys.modules["litellm"]
    with _loading:
        os.environ.update(
            DISABLE_AIOHTTP_TRANSPORT="True",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            LITELLM_LOG="ERROR",
            LITELLM_MODE="PRODUCTION",
            LITELLM_OFFLINE_MODE="true",
            PYTHON_DOTENV_DISABLED="1",
        )
        for name in _NOISY_LOGGERS:
            # Before the import, which logs what it sets up. The others name addresses, which may hold a key.
            logger = logging.getLogger(name)
            logger.disabled = name.startswith("LiteLLM")
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings(), _uncollected():
            warnings.simplefilter("ignore")
            import litellm

            if not _guarded.is_set():
                litellm.suppress_debug_info = True
                litellm.set_verbose = False
                litellm.disable_aiohttp_transport = True
                litellm.REPEATED_STREAMING_CHUNK_LIMIT = 1_000_000_000
                _warm(litellm)
                _guarded.set()
        # litellm's types warn about themselves when they are first used; stderr is the user's log.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydantic\.")
        return litellm


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector away from an import: half a million objects that stay, walked again and again.

    That is a quarter of its time; and afterwards each full collection would hold up the editor for 0.4 seconds.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


_loading = threading.RLock()
_guarded = threading.Event()


def loaded() -> Any | None:
    """Return litellm if it has been loaded, without waiting for it."""
    return sys.modules["litellm"] if _guarded.is_set() else None


def _warm(litellm: Any) -> None:
    """Import what the first call would, and build the types of a chunk: a second that the user would wait for."""
    litellm.ModelResponseStream()
    for name in _WANTED_BY_THE_FIRST_CALL:
        try:
            importlib.import_module(name)
        except ImportError:
            log.debug("There is no %s in this litellm; the first call imports what it needs.", name)


async def load_in_thread() -> None:
    """Load litellm without holding up the event loop."""
    if not _guarded.is_set():
        await asyncio.to_thread(load)


def facts(*names: str | None) -> dict[str, Any]:
    """Return what litellm's price list knows under the first of these names; nothing before litellm is loaded."""
    litellm = loaded()
    for name in names:
        entry = litellm.model_cost.get(name) if litellm is not None and name else None
        if isinstance(entry, dict):
            return entry
    return {}


def price_of(listing: str | None) -> Price | None:
    """Return the price of a model, or None if it is not known."""
    entry = facts(listing, listing.removeprefix("openai/") if listing else None)
    fresh, output = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if not isinstance(fresh, int | float) or not isinstance(output, int | float):
        return None
    cached = entry.get("cache_read_input_token_cost")
    return Price(fresh, cached if isinstance(cached, int | float) else fresh, output)
