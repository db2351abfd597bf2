"""What went wrong with a call, as one plain sentence, and whether asking again can help.

Everything that litellm, the SDK, httpx or the endpoint itself can say comes through `from_exception`, `from_status` or
`from_payload` and leaves as a `Failure`. The provider's own words are quoted, shortened to one line, with the key
taken out; they are what helps most.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from selfloop.errors import ProviderError

_CONTEXT = re.compile(
    r"context[ _-]?(length|window|size|limit)|maximum context|(prompt|input) is too long|too many input tokens"
    r"|exceeds? the (maximum|model'?s?) (number of )?(input )?tokens|reduce the length of the (messages|prompt)"
    r"|request too large|input length .* exceeds?",
    re.IGNORECASE,
)
_QUOTA = re.compile(r"insufficient[_ ]quota|exceeded your current quota|credit balance|payment required", re.IGNORECASE)
_MODEL = re.compile(r"model[^.]*(not[ _]found|does not exist|unknown|not available|no longer)", re.IGNORECASE)
_UNKNOWN_MODEL = re.compile(
    r"model_not_found|no such model|unknown model|not a valid model|invalid model|try pulling", re.IGNORECASE
)
_RETRYABLE = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
# Names of exception classes instead of the classes: they lie in packages that must not be imported to get here.
_NOT_REACHED = {"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol", "InvalidURL"}
_LOST = {"PoolTimeout", "WriteTimeout", "WriteError", "ReadError", "ProtocolError", "NetworkError"}
_SILENT = {"ReadTimeout", "APITimeoutError", "Timeout", "TimeoutError"}


@frozen
class Failure:
    """One failed attempt."""

    error: ProviderError
    retryable: bool = False
    retry_after_seconds: float | None = None
    """How long the provider asks to wait."""
    billed: bool = False
    """The provider may have worked on the request, so its cost is unknown."""
    status: int | None = None
    detail: str = ""
    """The provider's own words, whole."""


class Failed(Exception):
    """Carries a failure up to the loop that decides about asking again; it never leaves this room."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error.message)
        self.failure = failure


def failure(kind: str, sentence: str, **more: Any) -> Failure:
    """Return a failure with this sentence."""
    return Failure(ProviderError(sentence, kind=kind), **more)


def from_exception(error: BaseException, *, where: str, model: str, key: str | None) -> Failure:
    """Say what an exception of litellm, the SDK or httpx means.

    litellm wraps the SDK's error, which wraps httpx's: the innermost one knows what happened, and the response that
    any of them holds is what the endpoint really said.
    """
    chain = list(_chain(error))
    for link in chain:
        response: Any = getattr(link, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int) and status >= 300 and _is_real(response):
            return from_status(status, _body(response), response.headers, where=where, model=model, key=key)
    names = {base.__name__ for link in chain for base in type(link).__mro__}
    text = " ".join(str(link) for link in chain)
    if names & _NOT_REACHED:
        return failure("connection", _connection(text, where), retryable="UnsupportedProtocol" not in names)
    if names & _LOST:
        return failure(
            "connection",
            f"The connection to {where} was lost before an answer began, so nothing was answered; try again.",
            retryable=True,
        )
    if names & _SILENT:
        return timed_out(where, None)
    status = getattr(error, "status_code", None)
    said = _quoted(str(getattr(error, "message", "") or error), key)
    if "AuthenticationError" in names and not key:
        return failure("no-key", no_key(where))
    if isinstance(status, int) and "APIConnectionError" not in names:
        return from_status(status, str(getattr(error, "message", "") or error), {}, where=where, model=model, key=key)
    return failure(
        "bad-request",
        f"The call to {where} could not be made{said}, so nothing was answered; check the model's name and settings.",
    )


def from_status(
    status: int, body: str, headers: Mapping[str, str], *, where: str, model: str, key: str | None
) -> Failure:
    """Say what an HTTP status and its body mean."""
    detail, code = _message(body)
    said = _quoted(detail, key)
    words = f"{detail} {code}"
    common: dict[str, Any] = {"status": status, "detail": words}
    if 300 <= status < 400:
        target = _quoted(headers.get("location", ""), key)
        return failure(
            "bad-request",
            f"{where} answers with a redirect{target}, and a key is never carried to another address, so nothing "
            "was sent there; set the base URL to where the model really is.",
            **common,
        )
    if status in (400, 413, 422, 500) and _CONTEXT.search(words):
        return failure(
            "context",
            f"The conversation is longer than the model {model} can read{said}, so it was not answered; begin a new "
            "session, or choose a model with a larger context.",
            **common,
        )
    if status == 402 or (status in (403, 429) and _QUOTA.search(words)):
        return failure(
            "rate-limit",
            f"{where} says that the account's credit is used up{said}, so nothing was answered; add credit, or "
            "choose another model.",
            **common,
        )
    if status in (401, 403):
        if key is None:
            return failure(
                "no-key",
                f"{where} asks for a key and none is set{said}, so nothing was answered; {_SET_KEY}.",
                **common,
            )
        return failure(
            "auth",
            f"{where} refused the key ({status}){said}, so nothing was answered; check the key and what it is "
            "allowed to use.",
            **common,
        )
    if status == 404 or _UNKNOWN_MODEL.search(words) or (status == 400 and _MODEL.search(words)):
        if detail and not body.lstrip().startswith("<"):
            return failure(
                "no-model",
                f"{where} does not know the model {model!r}{said}, so nothing was answered; choose another, "
                "selfloop/model/list shows which there are.",
                **common,
            )
        return failure(
            "no-model",
            f"There is no chat endpoint at {where} ({status}), so nothing was answered; check the base URL (most "
            "end in /v1) and the model's name.",
            **common,
        )
    if status == 429:
        return failure(
            "rate-limit",
            f"{where} takes no more requests for now (429){said}, so nothing was answered; wait a little, then send "
            "the message again.",
            retryable=True,
            retry_after_seconds=retry_after(headers),
            **common,
        )
    if status >= 500 or status in _RETRYABLE:
        return failure(
            "server",
            f"{where} failed ({status}){said}, so nothing was answered; try again a little later.",
            retryable=status in _RETRYABLE,
            retry_after_seconds=retry_after(headers),
            **common,
        )
    return failure(
        "bad-request",
        f"{where} refused the request ({status}){said}, so nothing was answered; check the model's name and settings.",
        **common,
    )


def from_payload(error: Any, *, where: str, model: str, key: str | None, heard: bool) -> Failure:
    """Say what an error object inside a successful stream means."""
    text = error if isinstance(error, str) else json.dumps({"error": error})
    status = error.get("code", error.get("status")) if isinstance(error, dict) else None
    if isinstance(status, str) and status.isdecimal():
        status = int(status)
    known = from_status(
        status if isinstance(status, int) and 400 <= status < 600 else 500, text, {}, where=where, model=model, key=key
    )
    if not heard:
        return known
    said = _quoted(_message(text)[0], key)
    return failure(
        "stream",
        f"{where} broke off its answer with an error{said}, so the answer is not whole; try again.",
        billed=True,
    )


def timed_out(where: str, seconds: float | None, *, heard: bool = False) -> Failure:
    """Say that nothing came for too long."""
    silence = f" for {seconds:,.0f} seconds" if seconds and seconds >= 1 else " for too long"
    rest = "so the answer is not whole" if heard else "so the call was given up"
    return failure(
        "timeout", f"{where} sent nothing{silence}, {rest}; try again, or choose a faster model.", billed=True
    )


def cut(where: str, *, heard: bool) -> Failure:
    """Say that the answer's end is missing."""
    if not heard:
        return failure(
            "stream",
            f"{where} closed the connection before its answer began, so nothing was answered; try again.",
            retryable=True,
        )
    return failure(
        "stream",
        f"The answer of {where} was cut off in the middle, so it is not whole and nothing of it was carried out; "
        "try again.",
        billed=True,
    )


def no_answer(where: str, body: str, key: str | None) -> Failure:
    """Say that a successful body holds no answer."""
    if body.lstrip().startswith("<"):
        return failure(
            "server",
            f"{where} sent a web page instead of an answer, so nothing was answered; check the base URL (most end "
            "in /v1).",
        )
    said = _quoted(_message(body)[0] or body, key)
    return failure(
        "server",
        f"{where} sent something that is no answer of a model{said}; check the base URL (most end in /v1).",
    )


def empty(where: str, finish: str | None) -> Failure:
    """Say that the answer holds neither text nor a tool call."""
    if finish == "content_filter":
        return failure(
            "empty",
            f"{where} withheld the answer because of its content filter, so there is none; put the request in other "
            "words.",
            billed=True,
        )
    return failure(
        "empty",
        f"{where} sent an empty answer, with neither text nor a tool call; send the message again, or choose "
        "another model.",
        billed=True,
    )


def no_key(where: str) -> str:
    """Return the sentence for a provider that needs a key where none is known."""
    return f"There is no API key for {where}, so the model was not called; {_SET_KEY}."


_SET_KEY = (
    "give one with selfloop/model/setKey, or set OPENROUTER_API_KEY (or the provider's own variable) in the environment"
)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds the headers ask to wait: milliseconds, seconds, or a date (RFC 9110, 10.2.3)."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    for text, unit in ((milliseconds, 1_000.0), (value, 1.0)):
        try:
            seconds = float(text or "") / unit
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value or "").timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _connection(text: str, where: str) -> str:
    lowered = text.lower()
    if re.search("name or service|getaddrinfo|nodename|name resolution", lowered):
        why = "its name cannot be resolved"
    elif "certificate" in lowered or "ssl" in lowered:
        why = "a secure connection could not be made"
    elif "refused" in lowered or "all connection attempts failed" in lowered:
        why = "connection refused"
    elif "protocol" in lowered or "invalid" in lowered:
        return (
            f"The base URL {where} is no usable address, so the model was not called; it must begin with http:// or "
            "https://."
        )
    else:
        why = "no connection"
    return (
        f"Nothing can be reached at {where} ({why}), so the model was not called; start the server, or check the "
        "base URL and the network."
    )


def _chain(error: BaseException) -> Any:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _is_real(response: Any) -> bool:
    """Tell a response that came over the wire from the empty ones that litellm makes up."""
    return _body(response) != "" or bool(getattr(response, "headers", None))


def _body(response: Any) -> str:
    try:
        return str(response.text)
    except Exception:
        # The body of a streamed error response was never read; its status still says enough.
        return ""


def _message(body: str) -> tuple[str, str]:
    """Return (message, code) of an error body, in whichever of the providers' forms it is."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ("" if body.lstrip().startswith("<") else body), ""
    if isinstance(value, list) and value:
        value = value[0]
    code = ""
    for _ in range(4):
        if not isinstance(value, dict):
            break
        code = code or str(value.get("code") or value.get("type") or "")
        value = value.get("error") or value.get("message") or value.get("detail") or value.get("errors") or ""
        if isinstance(value, list) and value:
            value = value[0]
    return (value if isinstance(value, str) else json.dumps(value)), code


def _quoted(text: str, key: str | None) -> str:
    """Return the provider's words as a short insertion: one line, without control characters, without the key."""
    if key:
        text = text.replace(key, "…")
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:2_000]).split())
    if not line:
        return ""
    return f" (“{line[:240]}…”)" if len(line) > 240 else f" (“{line}”)"
