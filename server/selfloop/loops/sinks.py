"""Where reports go besides the editor: standard output, a file, a web hook.

    [[reports]]                       # in the user's settings.toml; a repository has no say
    to = "webhook"                    # or "file", "stdout"
    url = "https://chat.example/hook" # of a web hook
    headers = { Authorization = "…" } # of a web hook, may be left out
    path = "~/reports.md"             # of a file; a name ending in .jsonl gets JSON, one report a line
    loops = ["ci-sweeper"]            # only these; left out: all
    all = true                        # also rounds that went ahead cleanly; left out: false

Invariant: a report is redacted before it leaves, a sink that fails is said in one sentence and holds up nothing, and
neither the sentence nor the log shows a hook's address, which often is its secret.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO
from urllib.parse import urlsplit

import msgspec
from attrs import field, frozen

from selfloop.config import Folders
from selfloop.errors import InvalidInput, RequestFailed
from selfloop.loops.report import RoundReport
from selfloop.storage.disk import PRIVATE_FILE, failure, write_all
from selfloop.storage.secrets import redact, redact_data

logger = logging.getLogger(__name__)

ATTEMPTS = 5
HOOK_SECONDS = 10.0
"""Of one attempt."""
WORTH_RETRYING = frozenset({408, 425, 429, 500, 502, 503, 504})


@frozen
class Parcel:
    """A report as it leaves: redacted."""

    run_id: str
    rendered: str
    report: dict[str, Any]


class Sink(Protocol):
    """A place where reports go."""

    async def send(self, parcel: Parcel) -> None:
        """Take a report.

        Raises:
            RequestFailed: it was not taken; the sentence says why.
        """
        ...


@frozen
class Route:
    """A sink, and what it gets."""

    sink: Sink
    loops: frozenset[str] = frozenset()
    """Empty: every loop."""
    everything: bool = False
    """Also rounds that went ahead cleanly, of which nobody need be told."""

    def wants(self, report: RoundReport) -> bool:
        """Tell whether a report goes this way."""
        return (self.everything or report.should_deliver()) and (not self.loops or report.loop_id in self.loops)


@frozen
class StreamSink:
    """Standard output, or another stream of text."""

    stream: TextIO | None = None

    async def send(self, parcel: Parcel) -> None:
        """Write the rendered report."""
        stream = self.stream or sys.stdout
        try:
            stream.write(parcel.rendered + "\n")
            stream.flush()
        except (OSError, ValueError) as error:
            raise RequestFailed(
                f"A report could not be written to the terminal ({error}); read it in the list."
            ) from error


@frozen
class FileSink:
    """A file that reports are added to: rendered, or as JSON where its name ends in `.jsonl`."""

    path: Path

    async def send(self, parcel: Parcel) -> None:
        """Add the report in one write."""
        if self.path.suffix == ".jsonl":
            data = msgspec.json.encode(parcel.report) + b"\n"
        else:
            data = (parcel.rendered + "\n").encode("utf-8", "replace")
        await asyncio.to_thread(self._append, data)

    def _append(self, data: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE_FILE)
            try:
                write_all(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise failure(error, f"A report could not be added to {self.path}") from error


@frozen
class HookSink:
    """A web hook: one POST of `{"text": …, "report": {…}}` for each report, tried again while that may help.

    `text` is what the chat services' incoming hooks show. The header `Idempotency-Key` is the round's id, so that a
    receiver can tell a second attempt from a second report. Redirects are not followed: they would take the headers to
    strangers.
    """

    url: str = field(repr=False)
    headers: dict[str, str] = field(factory=dict, repr=False)
    attempts: int = ATTEMPTS
    longest_wait_seconds: float = 30.0

    async def send(self, parcel: Parcel) -> None:
        """Post the report."""
        # Both are imported with the first report that is sent; together they cost more than the rest of a start.
        import httpx
        import stamina

        def again(error: Exception) -> bool:
            if isinstance(error, httpx.HTTPStatusError):
                return error.response.status_code in WORTH_RETRYING
            return isinstance(error, httpx.TransportError)

        headers = {**self.headers, "Idempotency-Key": parcel.run_id}
        body = {"text": parcel.rendered, "report": parcel.report}
        retries = stamina.retry_context(
            on=again, attempts=self.attempts, timeout=None, wait_max=self.longest_wait_seconds
        )
        try:
            async with httpx.AsyncClient(timeout=HOOK_SECONDS, follow_redirects=False) as client:
                async for attempt in retries:
                    with attempt:
                        answer = await client.post(self.url, json=body, headers=headers)
                        if not answer.is_success:
                            raise httpx.HTTPStatusError("refused", request=answer.request, response=answer)
        except httpx.HTTPStatusError as error:
            raise RequestFailed(
                f"The web hook at {self._host()} answered {error.response.status_code}, so a report was not delivered; "
                "look at its address in your settings."
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RequestFailed(
                f"The web hook at {self._host()} could not be reached ({type(error).__name__}), so a report was not "
                "delivered; it stays in the list of runs."
            ) from None

    def _host(self) -> str:
        return urlsplit(self.url).hostname or "no host"


async def deliver(report: RoundReport, routes: Sequence[Route], *, known_secrets: Collection[str] = ()) -> list[str]:
    """Send a report wherever it goes, side by side, and return one sentence for each sink that did not take it.

    Args:
        report: the report.
        routes: as `read_routes` gave them.
        known_secrets: values that are secret whatever they look like.
    """
    wanted = [route for route in routes if route.wants(report)]
    if not wanted:
        return []
    parcel = Parcel(
        report.run_id,
        redact(report.render(), known_secrets),
        redact_data(msgspec.to_builtins(report), known_secrets),
    )
    sentences = await asyncio.gather(*(_send(route.sink, parcel) for route in wanted))
    return [sentence for sentence in sentences if sentence]


async def _send(sink: Sink, parcel: Parcel) -> str:
    try:
        await sink.send(parcel)
    except RequestFailed as error:
        logger.warning("The report of %s was not delivered: %s", parcel.run_id, error.message)
        return error.message
    return ""


_KEYS = {
    "stdout": {"to", "loops", "all"},
    "file": {"to", "loops", "all", "path"},
    "webhook": {"to", "loops", "all", "url", "headers"},
}


def read_routes(folders: Folders, *, stream: TextIO | None = None) -> tuple[Route, ...]:
    """Read where reports go from the user's `settings.toml`.

    Raises:
        InvalidInput: the settings say something that cannot be; no report goes anywhere.
    """
    file = folders.config / "settings.toml"
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")).get("reports", [])
    except FileNotFoundError:
        return ()
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read ({error}), so no report is sent on; mend the file.") from error
    if not isinstance(tables, list):
        raise InvalidInput(f"{file}: `reports` must be written as [[reports]], so no report is sent on; mend the file.")
    routes = []
    for number, table in enumerate(tables, 1):
        try:
            routes.append(_route(table, stream))
        except ValueError as error:
            raise InvalidInput(
                f"{file}: [[reports]] number {number} {error}, so no report is sent on; mend it."
            ) from error
    return tuple(routes)


def _route(table: Any, stream: TextIO | None) -> Route:
    """Read one table.

    Raises:
        ValueError: the phrase says what is wrong.
    """
    kind = table.get("to") if isinstance(table, dict) else None
    if kind not in _KEYS:
        raise ValueError("must have `to` as one of stdout, file, webhook")
    odd = sorted(set(table) - _KEYS[kind])
    if odd:
        raise ValueError(f"knows no `{odd[0]}` for {kind}")
    loops, everything = table.get("loops", []), table.get("all", False)
    if not isinstance(loops, list) or not all(isinstance(loop, str) for loop in loops):
        raise ValueError("must have `loops` as a list of names")
    if not isinstance(everything, bool):
        raise ValueError("must have `all` as true or false")
    return Route(_sink(kind, table, stream), frozenset(loops), everything)


def _sink(kind: str, table: dict[str, Any], stream: TextIO | None) -> Sink:
    if kind == "stdout":
        return StreamSink(stream)
    if kind == "file":
        path = table.get("path")
        if not isinstance(path, str) or not path or not Path(path).expanduser().is_absolute():
            raise ValueError("must have `path` as an absolute path, or one that begins with ~/")
        return FileSink(Path(path).expanduser())
    url, headers = table.get("url"), table.get("headers", {})
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError("must have `url` as an address such as https://host/hook")
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise ValueError("must have `headers` as a table of texts")
    return HookSink(url, headers)
