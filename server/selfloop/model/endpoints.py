"""Where a model is, and which key belongs there.

Invariant: a key goes to the origin that it was given for and to no other. The environment's key belongs to the origin
of the base URL; a key of the user's to the origin that they named with it; a native provider's own variables are
litellm's to read.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Final, Protocol
from urllib.parse import urlsplit

from attrs import field, frozen

from selfloop import config
from selfloop.errors import ProviderError
from selfloop.model import guards
from selfloop.model.failures import no_key

# Providers of litellm that speak the OpenAI format at an address which litellm knows.
_OPENAI_FORMAT: Final = {
    "cerebras", "deepinfra", "deepseek", "fireworks_ai", "groq", "hosted_vllm", "lm_studio", "mistral", "moonshot",
    "nvidia_nim", "openai", "openrouter", "sambanova", "together_ai", "xai",
}  # fmt: skip
_NATIVE_ORIGINS: Final = {
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "cohere": "https://api.cohere.com",
}
_PRICED_HOSTS: Final = {
    "openrouter.ai": "openrouter/",
    "api.openai.com": "",
    "api.groq.com": "groq/",
    "api.deepseek.com": "deepseek/",
    "api.mistral.ai": "mistral/",
    "api.x.ai": "xai/",
}


@frozen
class Endpoint:
    """Where a model is, and with which key."""

    model: str
    """The name on the wire, or litellm's name where it is native."""
    where: str
    """How the user knows it: its origin, or the provider's name."""
    base_url: str | None
    """None: native."""
    key: str | None = field(default=None, repr=False)
    listing: str | None = None
    """The model's name in litellm's price list, where the price of this very endpoint is known."""


class Keys(Protocol):
    """Gives the key that the user has set for an origin."""

    def __call__(self, origin: str, /) -> str | None: ...


def origin_of(url: str) -> str:
    """Return `scheme://host[:port]` of a URL, in lower case, default ports left out.

    Raises:
        ProviderError: it is no http or https URL, or it holds a user name or password.
    """
    origin = config.origin_of(url)
    if origin is None or "@" in urlsplit(url).netloc:
        raise ProviderError(
            f"The base URL {url.rsplit('@', 1)[-1]!r} is no plain http or https address, so the model was not called; "
            "set it like https://host/v1, without a user name.",
            kind="bad-request",
        )
    return origin


def is_local(origin: str) -> bool:
    """Tell whether an origin is on this machine or its own network, where models often need no key."""
    host = urlsplit(origin).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost", ".internal", ".lan", ".home.arpa"))
    return address.is_loopback or address.is_private or address.is_link_local


def locate(model: str | None, base_url: str | None, api_key: str | None, keys: Keys) -> Endpoint:
    """Find the endpoint of a model, and the key that belongs to its origin. `base_url` None needs litellm: blocks.

    Args:
        model: any name where `base_url` is set, else litellm's.
        base_url: an endpoint in the OpenAI format.
        api_key: the key of `base_url`'s origin, if the environment gave one.
        keys: the keys that the user has set, by origin.

    Raises:
        ProviderError: no model is set, the name is unknown, or a remote provider has no key.
    """
    if not model:
        raise ProviderError(
            "No model is set, so nothing was asked; set MODEL_NAME (and INFERENCE_BASE_URL for an endpoint of your "
            "own), or choose one with selfloop/model/select.",
            kind="no-model",
        )
    if base_url:
        return _direct(model, base_url, api_key, keys)
    return _known(model, keys)


def _direct(model: str, base_url: str, key: str | None, keys: Keys, listing: str | None = None) -> Endpoint:
    origin = origin_of(base_url)
    key = _usable(keys(origin) or key, origin)
    if not key and not is_local(origin):
        raise ProviderError(no_key(origin), kind="no-key")
    return Endpoint(model, origin, base_url.rstrip("/"), key, listing or listed_as(model, base_url))


def _usable(key: str | None, where: str) -> str | None:
    """Return a key as it can stand in a header: what a header refuses would be quoted, key and all, in an error."""
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable():
        raise ProviderError(
            f"The key for {where} holds characters that no key can have, so the model was not called; set it again.",
            kind="auth",
        )
    return key or None


def listed_as(model: str, base_url: str | None) -> str | None:
    """Return the name of a model in litellm's price list; None: nobody knows what it costs at this address."""
    if not base_url:
        return model
    prefix = _PRICED_HOSTS.get(urlsplit(base_url).hostname or "")
    return None if prefix is None else prefix + model


def _known(model: str, keys: Keys) -> Endpoint:
    """Find a model by litellm's name for it."""
    litellm = guards.load()
    if model.split("/", 1)[0] in ("ollama", "ollama_chat"):
        # Its OpenAI format streams tool calls and thoughts; litellm's own adapter for it does not.
        base = (os.environ.get("OLLAMA_API_BASE") or "http://localhost:11434").rstrip("/")
        return _direct(model.split("/", 1)[1], base if base.endswith("/v1") else base + "/v1", None, keys)
    try:
        name, provider, key, base_url = litellm.get_llm_provider(model)
    except Exception as error:  # litellm raises what it likes here; all of it means that the name says nothing to it.
        raise ProviderError(
            f"The model name {model!r} does not say which provider it belongs to, so nothing was asked; set "
            "INFERENCE_BASE_URL, or write the name with its provider, such as anthropic/… or openai/….",
            kind="no-model",
        ) from error
    if provider in _OPENAI_FORMAT:
        if provider == "openai":
            environment = os.environ
            base_url = environment.get("OPENAI_BASE_URL") or environment.get("OPENAI_API_BASE") or base_url
            base_url = base_url or "https://api.openai.com/v1"
            key = key or environment.get("OPENAI_API_KEY")
        if provider == "openrouter":
            base_url = base_url or "https://openrouter.ai/api/v1"
            key = key or os.environ.get("OPENROUTER_API_KEY")
        if base_url:
            return _direct(name, base_url, key, keys, model)
    # litellm reads a native provider's address and key from variables of its own. A key of the user's for the
    # provider's own origin is not given to an address that such a variable names.
    prefix = provider.upper()
    moved = any(os.environ.get(f"{prefix}_{suffix}") for suffix in ("API_BASE", "BASE_URL"))
    own = None if moved or provider not in _NATIVE_ORIGINS else _usable(keys(_NATIVE_ORIGINS[provider]), provider)
    if not own:
        missing = litellm.validate_environment(model).get("missing_keys") or []
        if missing:
            raise ProviderError(
                f"There is no API key for {provider}, so the model was not called; set {' and '.join(missing)} in the "
                "environment, or give one with selfloop/model/setKey.",
                kind="no-key",
            )
    return Endpoint(model, provider, None, own, model)
