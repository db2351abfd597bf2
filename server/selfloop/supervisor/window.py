"""One client of the server, as far as the supervisor knows it: what it said that a new worker must be told again.

A window is the editor on our own stdio, or another supervisor that joined by the socket on behalf of its editor. It
answers for one promise: whoever serves next can be brought to where the last one was.
"""

from __future__ import annotations

import time

from selfloop.supervisor import jsonrpc
from selfloop.supervisor.claims import uri_path
from selfloop.supervisor.contract import DELETE, SET_KEY, UPDATE_BYTES
from selfloop.supervisor.documents import Documents
from selfloop.supervisor.frames import frame
from selfloop.supervisor.ledger import Ledger
from selfloop.supervisor.shown import Shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from selfloop.supervisor.channel import Channel

REMEMBERED = frozenset({"textDocument/didFocus", "$/setTrace", "workspace/didChangeConfiguration"})
"""Notifications whose newest one is told to every new worker."""


class Window:
    """State and voice of one client."""

    def __init__(self, number: int, *, joined: bool) -> None:
        self.number = number
        self.joined = joined
        """It came by the socket: it may name its requests' keys and ask for outcomes."""
        self.channel: Channel
        """Its bytes; set as soon as the window is opened."""
        self.initialize: dict[str, Any] | None = None
        """The client's own `initialize`, with the folders as they are now."""
        self.initialized: bytes | None = None
        self.shut = False
        """It has sent `shutdown`."""
        self.introduced_as: str | None = None
        """The id under which the present worker was sent `initialize`."""
        self.documents = Documents()
        self.ledger = Ledger()
        self.shown = Shown()
        self.behind: dict[str, None] = {}
        """Documents whose newest text the worker has not been sent."""
        self.withheld: dict[str | None, int] = {}
        """Session → the first update that the client has not been sent. None stands for the workspace's stream."""
        self.fetching = False
        """The withheld updates were asked for again."""
        self.left_folder_at = 0.0
        """When a folder was last closed, on the monotonic clock."""
        self._seen: dict[str, int] = {}
        """Session → the newest update that the client was sent."""
        self._remembered: dict[str, bytes] = {}
        self._keys: dict[str, dict[str, Any]] = {}

    # To the client

    def send(self, body: bytes) -> None:
        """Send a message to the client."""
        self.channel.send(frame(body))

    def refuse(self, id: int | str | None, code: int, text: str, data: Any = None) -> None:
        """Answer a request with an error, `text` being one plain sentence."""
        self.send(jsonrpc.error(id, code, text, data))

    def show_error(self, text: str) -> None:
        """Show a sentence to the user (LSP: window/showMessage, type 1)."""
        self.send(jsonrpc.notification("window/showMessage", {"type": 1, "message": text}))

    @property
    def backlog(self) -> int:
        """How many bytes the client has not taken."""
        return self.channel.backlog

    def passes(self, params: Any, *, withhold: bool) -> bool:
        """Tell whether an update goes to the client now; what does not is asked for again later, in its order.

        Args:
            params: of the `selfloop/update`.
            withhold: begin to keep updates from a client that does not read.
        """
        if not isinstance(params, dict) or type(params.get("seq")) is not int:
            return True
        session, seq = params.get("sessionId"), params["seq"]
        if not (session is None or isinstance(session, str)):
            return True
        if session in self.withheld or (withhold and self.backlog > UPDATE_BYTES):
            self.withheld[session] = min(seq, self.withheld.get(session, seq))
            return False
        if session is not None:
            self._seen[session] = max(seq, self._seen.get(session, seq))
        return True

    def lacks(self, params: Any) -> None:
        """Note that the client lacks the updates of a session after the one that it names."""
        if isinstance(params, dict) and type(params.get("after")) is int:
            session, first = params.get("sessionId"), params["after"] + 1
            if session is None or isinstance(session, str):
                self.withheld[session] = min(first, self.withheld.get(session, first))

    # What it has said

    def begin(self, message: dict[str, Any]) -> None:
        """Note the client's `initialize`, with its folder among the workspace folders, however it was named."""
        params = message["params"]
        folders = _folders(params.get("workspaceFolders"))
        root, path = params.get("rootUri"), params.get("rootPath")
        if not root and isinstance(path, str) and path:
            root = _path_uri(path)
        if not folders and isinstance(root, str) and root:
            folders = [{"uri": root, "name": root.rstrip("/").rpartition("/")[2]}]
        self.initialize = {**message, "params": {**params, "workspaceFolders": folders}}

    def taken_over(self, id: str, behind: dict[str, None]) -> None:
        """Note that another worker serves the window, to which it was introduced by `id`.

        Args:
            behind: documents whose newest text that worker has not been sent.
        """
        self.introduced_as = id
        self.behind = behind
        self.fetching = False
        for body in self.shown.withdraw():
            self.send(body)

    def note(self, method: str, params: Any, body: bytes) -> None:
        """Note a notification of the client that a new worker must be told of."""
        if method == "initialized":
            self.initialized = body
        elif method == "textDocument/didOpen":
            self.documents.opened(params)
        elif method == "textDocument/didClose":
            self.documents.closed(params)
        elif method in REMEMBERED:
            self._remembered[method] = body
        elif method == "workspace/didChangeWorkspaceFolders":
            self._change_folders(params)

    def note_result(self, method: str, params: Any) -> None:
        """Note a request that was carried out, and that a new worker must be told of, or must not be asked about.

        Keys are held in memory only, and never logged.
        """
        if not isinstance(params, dict):
            return
        if method == SET_KEY:
            self._keys[str(params.get("origin"))] = params
        elif method == DELETE:
            self._seen.pop(str(params.get("sessionId")), None)

    def folders(self) -> list[dict[str, Any]]:
        """Return the window's workspace folders that are on this machine, as `{uri, path}`."""
        items = self.initialize["params"]["workspaceFolders"] if self.initialize is not None else []
        paths = [(item["uri"], uri_path(item["uri"])) for item in items]
        return [{"uri": uri, "path": path} for uri, path in paths if path is not None]

    def introduction(self, new_id: Callable[[], str]) -> Iterator[bytes]:
        """Return the messages that bring a new worker to where the last one was."""
        if self.initialize is None:
            return
        self.behind.clear()  # Every document is told with its text as it is now.
        for session, seq in self._seen.items():
            # The last worker may have stored updates that it had no time to send.
            self.withheld.setdefault(session, seq + 1)
        self.introduced_as = new_id()
        yield from self.priming(self.introduced_as)
        yield from self.keys(new_id)

    def priming(self, id: str) -> Iterator[bytes]:
        """Return the messages that tell a worker of the window as it is now; `id` is that of its `initialize`."""
        yield jsonrpc.encode({**(self.initialize or {}), "id": id})
        if self.initialized is not None:
            yield self.initialized
        for item in self.documents.items():
            yield jsonrpc.notification("textDocument/didOpen", {"textDocument": item})
        yield from self._remembered.values()

    def keys(self, new_id: Callable[[], str]) -> Iterator[bytes]:
        """Return the requests that give a worker the user's keys."""
        for params in self._keys.values():
            yield jsonrpc.request(new_id(), SET_KEY, params)

    def _change_folders(self, params: Any) -> None:
        event = params.get("event") if isinstance(params, dict) else None
        if self.initialize is None or not isinstance(event, dict):
            return
        before = self.initialize["params"]
        added = _folders(event.get("added"))
        left = {folder["uri"] for folder in [*added, *_folders(event.get("removed"))]}
        kept = [folder for folder in before["workspaceFolders"] if folder["uri"] not in left]
        if len(kept) < len(before["workspaceFolders"]):
            self.left_folder_at = time.monotonic()
        self.initialize = {**self.initialize, "params": {**before, "workspaceFolders": [*kept, *added]}}


def _folders(value: Any) -> list[dict[str, Any]]:
    """Return what is a workspace folder in a list that a client sent."""
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict) and isinstance(item.get("uri"), str)]


def _path_uri(path: str) -> str:
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/"
    raw = path.encode("utf-8", "surrogateescape")
    return "file://" + "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in raw)
