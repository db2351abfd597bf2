"""An LSP client for the terminal: `selfloop serve` as a child on stdio, typed by the protocol's table.

    async with connect(folder, Window()) as client:
        status = await client.ask("selfloop/status", Empty(), StatusResult)

The server that is started joins by itself one that already serves the folder, so nothing here knows which it is.

Invariant: whatever goes wrong, the caller gets a `SelfloopError` of one plain sentence, and the child is gone at the
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import click
import msgspec

import selfloop
from selfloop.cli.showing import said, visible
from selfloop.config import Folders
from selfloop.errors import CONTENT_MODIFIED, INVALID_PARAMS, InvalidInput, RequestFailed, SelfloopError, Stale
from selfloop.lsp.protocol import METHODS, UPDATE
from selfloop.updates import Notice, UpdateEnvelope, Wire, encoder, envelope_decoder

logger = logging.getLogger(__name__)

Severity = Literal["error", "warning", "info"]
Result = TypeVar("Result", bound=Wire)

_METHOD_NOT_FOUND = -32601
_SEVERITIES: dict[int, Severity] = {1: "error", 2: "warning"}
_ANSWER_SECONDS = 120.0
_FAREWELL_SECONDS = 10.0


class NotSupported(Exception):
    """Raised by a window for a request of the server that it has no answer to."""


class Window:
    """What a client does with what the server sends unasked. As it stands: a terminal, which holds no documents."""

    capabilities: ClassVar[Mapping[str, Any]] = {}
    options: ClassVar[Mapping[str, Any]] = {}
    """`initializationOptions`. The terminal states no trust of its own: the user's list decides."""

    def update(self, envelope: UpdateEnvelope) -> None:
        """Take an update. Called in order, from the loop."""
        if isinstance(envelope.update, Notice):
            self.message(envelope.update.severity, envelope.update.text)

    def message(self, severity: Severity, text: str) -> None:
        """Show a sentence of the server."""
        if severity != "info":
            click.echo(f"{severity}: {visible(said(text))}", err=True)

    def answer(self, method: str, params: Any) -> Any:
        """Return the result of a request of the server.

        Raises:
            NotSupported: the client has no such method.
        """
        match method:
            case "workspace/applyEdit":
                return {"applied": False, "failureReason": "The terminal holds no documents."}
            case "window/showDocument":
                return {"success": False}
            case "workspace/configuration":
                return [None] * len(params["items"])
            case (
                "client/registerCapability"
                | "client/unregisterCapability"
                | "window/showMessageRequest"
                | "window/workDoneProgress/create"
            ):
                return None
        raise NotSupported


class Visitor(Window):
    """A terminal that looks and goes: what was cut off is not taken up for it, to be cut off again when it goes."""

    options: ClassVar[Mapping[str, Any]] = {"passing": True}


class Onlooker(Window):
    """A window that waits for what it is told; `update` of a subclass ends with `stir`."""

    def __init__(self) -> None:
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        """Have whoever waits look again."""
        self._stirred.set()

    async def until(self, condition: Callable[[], Any], seconds: float) -> Any:
        """Wait until a condition has a value, and return it.

        Raises:
            RequestFailed: it had none for so long.
        """
        try:
            async with asyncio.timeout(seconds):
                while not (value := condition()):
                    self._stirred.clear()
                    await self._stirred.wait()
                return value
        except TimeoutError as error:
            raise RequestFailed(f"Nothing came for {seconds:g} s, so nobody waits any more; try again.") from error


@contextlib.asynccontextmanager
async def connect(
    folder: Path, window: Window, *, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> AsyncIterator[Client]:
    """Start a server on a folder and open it as one window; at the end it is shut down.

    Args:
        folder: the workspace, as an absolute path.
        window: what is done with what the server sends unasked.
        environment: variables for the server, over this process's own.
        arguments: more of `selfloop serve`.

    Raises:
        SelfloopError: the folder cannot be opened, or the server does not start.
    """
    if not await asyncio.to_thread(folder.is_dir):
        raise InvalidInput(f"{folder} is no folder, so nothing was opened; name one that is there.")
    try:
        # -P: a file of the current folder must never be imported in place of ours. A session of its own: Ctrl-C is for
        # the terminal's client, which then ends the server in good order.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "selfloop", "serve", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise RequestFailed(f"The server could not be started ({error.strerror}), so nothing was done.") from error
    client = Client(process, window)
    try:
        await client.initialize(folder)
        yield client
    finally:
        await client.close()


class Client:
    """One open window on a running server."""

    def __init__(self, process: asyncio.subprocess.Process, window: Window) -> None:
        self._process = process
        self._window = window
        self.folder: str | None = None
        """The URI of the folder that it has open."""
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._ended = asyncio.Event()
        self._complaints: deque[str] = deque(maxlen=20)
        self._reader = asyncio.create_task(self._read(), name="server's messages")
        self._listener = asyncio.create_task(self._listen(), name="server's complaints")

    # Requests

    async def initialize(self, folder: Path) -> None:
        """Open the window."""
        self.folder = folder.as_uri()
        await self._request(
            "initialize",
            {
                "processId": os.getpid(),
                "clientInfo": {"name": "selfloop-terminal", "version": selfloop.__version__},
                "rootUri": self.folder,
                "workspaceFolders": [{"uri": self.folder, "name": _text(folder.name)}],
                "capabilities": self._window.capabilities,
                "initializationOptions": self._window.options,
            },
        )
        self.notify("initialized", {})

    async def ask(self, method: str, params: Wire, result: type[Result]) -> Result:
        """Ask for one of the methods of `lsp.protocol` and return its result.

        Raises:
            SelfloopError: the server refused (its own sentence), ended, or did not answer.
        """
        assert METHODS[method].result is result  # noqa: S101 - the table is the contract
        answer = await self._request(method, params)
        try:
            return msgspec.json.decode(answer, type=result)
        except msgspec.ValidationError as error:
            raise RequestFailed(
                f"The server answered {method} in a form that this version does not know ({error}); "
                "end the other Selfloop servers of this folder, and try again."
            ) from error

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        self._send({"method": method, "params": params})

    async def ended(self) -> None:
        """Wait until the server has ended by itself."""
        await self._ended.wait()

    async def close(self) -> None:
        """Shut the server down as an editor does; it is killed when it does not go."""
        if not self._ended.is_set():
            with contextlib.suppress(SelfloopError):
                await self._request("shutdown", None, seconds=_FAREWELL_SECONDS)
                self.notify("exit", None)
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _FAREWELL_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.gather(self._reader, self._listener)

    async def _request(self, method: str, params: Any, seconds: float = _ANSWER_SECONDS) -> msgspec.Raw:
        if self._ended.is_set():
            raise self._gone()
        number = next(self._ids)
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"id": number, "method": method, "params": params})
            return await asyncio.wait_for(answer, seconds)
        except TimeoutError as error:
            raise RequestFailed(
                f"The server has not answered {method} for {seconds:g} s; it may still take effect. Try again, or "
                f"look into {Folders.of_user().data / 'logs'}."
            ) from error
        finally:
            self._pending.pop(number, None)

    # Messages

    def _send(self, message: dict[str, Any]) -> None:
        if message.get("params", ...) is None:
            del message["params"]
        try:
            body = encoder.encode({"jsonrpc": "2.0", **message})
        except UnicodeEncodeError as error:
            raise InvalidInput("The text holds bytes that are no UTF-8, so it was not sent; write it anew.") from error
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None  # noqa: S101 - it was asked for
        try:
            while True:
                head = await stream.readuntil(b"\r\n\r\n")
                self._take(_decoder.decode(await stream.readexactly(_length(head))))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, msgspec.DecodeError) as error:
            logger.debug("the server's stream has ended: %s", error)
        finally:
            self._ended.set()
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(self._gone())

    async def _listen(self) -> None:
        """Keep the last lines that the server wrote to stderr: the reason, when it does not come up."""
        stream = self._process.stderr
        assert stream is not None  # noqa: S101 - it was asked for
        while chunk := await stream.read(65536):
            self._complaints.extend(chunk.decode("utf-8", "replace").splitlines()[-20:])

    def _take(self, message: _Message) -> None:
        if message.method is None:
            self._settle(message)
        elif message.id is not None:
            self._send({"id": message.id, **self._reply(message)})
        elif message.method == UPDATE:
            try:
                envelope = envelope_decoder.decode(message.params)
            except msgspec.ValidationError as error:
                logger.debug("an update of an unknown kind was left out: %s", error)
            else:
                self._window.update(envelope)
        elif message.method == "window/showMessage":
            params = msgspec.json.decode(message.params)
            self._window.message(_SEVERITIES.get(params["type"], "info"), params["message"])

    def _settle(self, message: _Message) -> None:
        future = self._pending.get(message.id) if isinstance(message.id, int) else None
        if future is None or future.done():
            return  # The caller no longer waits for it.
        if message.error is not None:
            future.set_exception(message.error.to_exception())
        else:
            future.set_result(message.result)

    def _reply(self, message: _Message) -> dict[str, Any]:
        try:
            return {"result": self._window.answer(str(message.method), msgspec.json.decode(message.params))}
        except NotSupported:
            return {"error": {"code": _METHOD_NOT_FOUND, "message": f"The client has no {message.method}."}}

    def _gone(self) -> SelfloopError:
        reason = next((line.strip() for line in reversed(self._complaints) if line.strip()), None)
        return RequestFailed(
            f"The server has ended{f' ({reason})' if reason else ''}, so this was not done; try again, or look into "
            f"{Folders.of_user().data / 'logs'}."
        )


class _Error(msgspec.Struct):
    code: int
    message: str
    data: Any = None

    def to_exception(self) -> SelfloopError:
        """Return the error as the rest of Selfloop knows it; the sentence is the server's, in the terminal's terms."""
        error: SelfloopError
        message = said(self.message)
        match self.code:
            case code if code == INVALID_PARAMS:
                error = InvalidInput(message)
            case code if code == CONTENT_MODIFIED:
                error = Stale(message)
            case _:
                error = RequestFailed(message)
        if isinstance(self.data, dict) and isinstance(self.data.get("reason"), str):
            error.reason = self.data["reason"]
        return error


class _Message(msgspec.Struct):
    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"null")
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_Message)


def _text(name: str) -> str:
    """Return a file's name as valid text, whatever bytes it has."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    raise ConnectionError("a message without a length")
