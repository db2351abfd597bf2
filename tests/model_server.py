"""A real HTTP server on loopback that plays a model from a script, in the OpenAI wire format.

    with ModelServer([tools(call("read_file", path="a.py")), text("Done.")]) as server:
        ...  # point INFERENCE_BASE_URL at server.url
        assert server.requests[1].messages[-1]["role"] == "tool"

A script is a sequence of replies, one for each chat request, or one function that makes a reply from each `Request`.
A reply is an `Answer`, or a function from the request to an `Answer`. A request beyond the script is answered with
status 400 and noted in `overrun`: a test that asks too often cannot pass by luck. GET `…/models` and Ollama's
`/api/tags` and `/api/show` are answered from `models` and never use up the script.

The server runs in threads of its own, so synchronous tests, asyncio tests and child processes can all use it. What it
sends is exact to the byte: a reply is a list of pieces, and a piece is bytes, or a `Pause`, a `Hold`, a `Cut`, or a
function that makes the bytes when they are sent.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from attrs import evolve, field, frozen

DONE = b"data: [DONE]\n\n"
"""The last event of a well-behaved stream."""


@frozen
class Pause:
    """Wait before the next piece, unless the client goes or the server is closed."""

    seconds: float


@frozen
class Hold:
    """Wait before the next piece until the test sets the event."""

    event: threading.Event = field(factory=threading.Event)


@frozen
class Cut:
    """Close the connection here, in the middle of the answer; with `reset` by RST instead of FIN."""

    reset: bool = False


Late = Callable[[], bytes]
"""A piece that is made at the moment at which it is sent."""

Piece = bytes | Late | Pause | Hold | Cut


@frozen
class Answer:
    """One HTTP answer."""

    pieces: tuple[Piece, ...]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/event-stream; charset=utf-8"),)
    chunked: bool = True
    """False: the body ends with the connection, as old servers do, so that a cut cannot be told from an end."""

    def split(self, *cuts: int) -> Answer:
        """Return the answer with its bytes sent in pieces that end at these offsets of the whole body."""
        body = b"".join(piece for piece in self.pieces if isinstance(piece, bytes))
        bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(body)}), len(body)]
        return evolve(self, pieces=tuple(body[a:b] for a, b in itertools.pairwise(bounds)))

    def every(self, size: int) -> Answer:
        """Return the answer with its bytes sent in pieces of this size."""
        body = b"".join(piece for piece in self.pieces if isinstance(piece, bytes))
        return evolve(self, pieces=tuple(body[at : at + size] for at in range(0, len(body), size)))

    def paced(self, seconds: float) -> Answer:
        """Return the answer with a pause before each of its pieces."""
        return evolve(self, pieces=tuple(part for piece in self.pieces for part in (Pause(seconds), piece)))

    def with_headers(self, **headers: str) -> Answer:
        """Return the answer with more headers; `_` in a name stands for `-`."""
        return evolve(self, headers=(*self.headers, *((k.replace("_", "-"), v) for k, v in headers.items())))


@frozen
class Call:
    """A tool call of a reply."""

    name: str
    arguments: str
    id: str | None = None
    """None: the server makes one; "": the call is sent without an id."""


def call(name: str, /, *, id: str | None = None, **arguments: Any) -> Call:
    """Return a tool call with these arguments."""
    return Call(name, json.dumps(arguments, ensure_ascii=False), id)


def event(data: dict[str, Any] | str) -> bytes:
    """Return one server-sent event."""
    payload = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {payload}\n\n".encode()


def chunk(
    delta: dict[str, Any] | None, *, finish: str | None = None, usage: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return one streamed chunk; `delta` None: empty `choices`."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "scripted",
        "choices": choices,
    }
    if usage is not None:
        body["usage"] = usage
    return body


def usage(input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> dict[str, Any]:
    """Return the usage as OpenAI reports it."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


USAGE = usage(100, 10, 40)


def raw(*parts: dict[str, Any] | str | Piece) -> Answer:
    """Return a stream of exactly these parts: a dict or text becomes one event, bytes go as they are."""
    return Answer(tuple(event(part) if isinstance(part, dict | str) else part for part in parts))


def text(*deltas: str, thought: str = "", finish: str = "stop", usage: dict[str, Any] | None = USAGE) -> Answer:
    """Return a streamed text, one chunk for each delta."""
    return raw(*_opening(thought), *(chunk({"content": delta}) for delta in deltas), *_ending(finish, usage))


def tools(*calls: Call, text: str = "", thought: str = "", usage: dict[str, Any] | None = USAGE) -> Answer:
    """Return streamed tool calls, as OpenAI does it: the name first, then the arguments in pieces of 16 characters."""
    chunks: list[dict[str, Any]] = [chunk({"content": text})] if text else []
    for index, item in enumerate(calls):
        head: dict[str, Any] = {"index": index, "type": "function", "function": {"name": item.name, "arguments": ""}}
        if item.id != "":
            head["id"] = item.id or f"call_{time.monotonic_ns():x}_{index}"
        chunks.append(chunk({"tool_calls": [head]}))
        for at in range(0, len(item.arguments), 16):
            piece = {"index": index, "function": {"arguments": item.arguments[at : at + 16]}}
            chunks.append(chunk({"tool_calls": [piece]}))
    return raw(*_opening(thought), *chunks, *_ending("tool_calls", usage))


def whole(message: dict[str, Any], *, finish: str = "stop", usage: dict[str, Any] | None = USAGE) -> Answer:
    """Return a plain JSON completion, as servers send that ignore `stream`."""
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "scripted",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
    }
    if usage is not None:
        body["usage"] = usage
    return Answer((json.dumps(body).encode(),), headers=(("Content-Type", "application/json"),))


def status(
    code: int,
    message: str = "scripted failure",
    *,
    error_code: str | None = None,
    retry_after: str | float | None = None,
) -> Answer:
    """Return an error in OpenAI's form."""
    body = {"error": {"message": message, "type": "scripted", "param": None, "code": error_code}}
    headers = [("Content-Type", "application/json")]
    if retry_after is not None:
        headers.append(("Retry-After", str(retry_after)))
    return Answer((json.dumps(body).encode(),), status=code, headers=tuple(headers))


def redirect(location: str, code: int = 307) -> Answer:
    """Return a redirect."""
    return Answer((b"",), status=code, headers=(("Location", location),))


def stall(seconds: float = 3_600.0) -> Answer:
    """Return an answer whose headers come at once and whose first byte does not."""
    return Answer((Pause(seconds),))


def cut(*deltas: str, reset: bool = False) -> Answer:
    """Return a streamed text whose connection is lost after these deltas."""
    return raw(chunk({"role": "assistant", "content": ""}), *(chunk({"content": d}) for d in deltas), Cut(reset))


def empty() -> Answer:
    """Return a stream that says nothing but its end."""
    return raw(DONE)


def garbage(body: bytes = b"<html><body>Bad gateway</body></html>", content_type: str = "text/html") -> Answer:
    """Return a successful answer that is no completion at all."""
    return Answer((body,), headers=(("Content-Type", content_type),))


def _opening(thought: str) -> Iterable[dict[str, Any]]:
    yield chunk({"role": "assistant", "content": ""})
    if thought:
        yield chunk({"reasoning_content": thought})


def _ending(finish: str, usage: dict[str, Any] | None) -> Iterable[dict[str, Any] | bytes]:
    yield chunk({}, finish=finish)
    if usage is not None:
        yield chunk(None, usage=usage)
    yield DONE


@frozen
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: dict[str, Any]
    at: float
    """`time.monotonic()` of its arrival."""
    gone: threading.Event = field(factory=threading.Event, eq=False, repr=False)
    """Set once the client has closed the connection before the answer was whole."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body.get("messages", [])

    @property
    def tools(self) -> list[str]:
        """The names of the tools it offers."""
        return [tool["function"]["name"] for tool in self.body.get("tools", [])]


Reply = Answer | Callable[[Request], Answer]


class ModelServer:
    """The server. A context manager; `start` and `close` do the same for fixtures."""

    def __init__(
        self,
        script: Sequence[Reply] | Callable[[Request], Answer] = (),
        *,
        models: Sequence[str] = ("scripted",),
        ollama: bool = False,
        context_tokens: int | None = None,
    ) -> None:
        self.requests: list[Request] = []
        """Every chat request, in order of arrival."""
        self.others: list[Request] = []
        """Every other request."""
        self.overrun: list[Request] = []
        """Chat requests for which the script had no reply."""
        self.models = list(models)
        self.ollama = ollama
        self.context_tokens = context_tokens
        self.connections = 0
        """How many connections were accepted."""
        self._script = script if callable(script) else list(script)
        self._lock = threading.Condition()
        self._closing = threading.Event()
        self._sockets: set[socket.socket] = set()
        owner = self

        class Handler(_Handler):
            server_owner = owner

        self._http = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def origin(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        """The base URL for a client: `<origin>/v1`."""
        return f"{self.origin}/v1"

    def extend(self, *replies: Reply) -> None:
        """Add replies to the end of the script."""
        with self._lock:
            if callable(self._script):
                raise TypeError("this server plays a function, not a list")
            self._script.extend(replies)

    def wait(self, count: int, timeout_seconds: float = 10.0) -> list[Request]:
        """Wait until this many chat requests have arrived, and return them."""
        with self._lock:
            if not self._lock.wait_for(lambda: len(self.requests) >= count, timeout_seconds):
                raise AssertionError(f"{len(self.requests)} of {count} chat requests came in {timeout_seconds} s")
            return list(self.requests)

    def start(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        self._closing.set()
        self._http.shutdown()
        with self._lock:
            open_sockets = list(self._sockets)
        for connection in open_sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self) -> None:
        """Forget the script and what was asked, for another test."""
        with self._lock:
            self._script = []
            for kept in (self.requests, self.others, self.overrun):
                kept.clear()

    def answer(self, request: Request) -> Answer:
        """Return the answer to any request. Called from a thread of the connection."""
        path = request.path.split("?")[0]
        if request.method == "POST" and path.endswith("/chat/completions"):
            with self._lock:
                self.requests.append(request)
                self._lock.notify_all()
                reply = self._script if callable(self._script) else self._script.pop(0) if self._script else None
                if reply is None:
                    self.overrun.append(request)
                    return status(400, "The script has no reply to this request.")
            return reply(request) if callable(reply) else reply
        with self._lock:
            self.others.append(request)
        if path.endswith("/models"):
            return _json({"object": "list", "data": [self._model(name) for name in self.models]})
        if self.ollama and path == "/api/tags":
            return _json({"models": [{"name": name, "model": name} for name in self.models]})
        if self.ollama and path == "/api/show":
            info = {"general.architecture": "llama", "llama.context_length": self.context_tokens or 8_192}
            return _json({"capabilities": ["completion", "tools"], "model_info": info})
        return status(404, f"There is no {path} here.")

    def _model(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"id": name, "object": "model"}
        if self.context_tokens:
            entry["context_length"] = self.context_tokens
        return entry


def _json(body: dict[str, Any]) -> Answer:
    return Answer((json.dumps(body).encode(),), headers=(("Content-Type", "application/json"),))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the tests, so nothing is printed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_owner: ModelServer

    def setup(self) -> None:
        super().setup()
        with self.server_owner._lock:
            self.server_owner._sockets.add(self.connection)
            self.server_owner.connections += 1

    def finish(self) -> None:
        with self.server_owner._lock:
            self.server_owner._sockets.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed: stdout belongs to the test."""

    def do_GET(self) -> None:
        self._serve({})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._serve(json.loads(data or b"{}"))

    def _serve(self, body: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body, time.monotonic())
        answer = self.server_owner.answer(request)
        try:
            self._send(answer, request)
        except OSError:
            request.gone.set()
            self.close_connection = True

    def _send(self, answer: Answer, request: Request) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header(*(("Transfer-Encoding", "chunked") if answer.chunked else ("Connection", "close")))
        self.end_headers()
        for piece in answer.pieces:
            if isinstance(piece, Cut):
                return self._drop(piece.reset)
            if isinstance(piece, Pause | Hold):
                self._wait(piece, request)
                if request.gone.is_set() or self.server_owner._closing.is_set():
                    return self._drop(False)
            elif data := piece() if callable(piece) else piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if answer.chunked else data)
        if answer.chunked:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def _wait(self, piece: Pause | Hold, request: Request) -> None:
        """Wait, and notice at once when the client hangs up."""
        deadline = time.monotonic() + (piece.seconds if isinstance(piece, Pause) else 3_600.0)
        while not self.server_owner._closing.is_set() and (left := deadline - time.monotonic()) > 0:
            if isinstance(piece, Hold) and piece.event.is_set():
                return
            readable, _, _ = select.select([self.connection], [], [], min(left, 0.005))
            if readable and not self._alive():
                request.gone.set()
                return

    def _alive(self) -> bool:
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _drop(self, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
