"""The supervisor: between its windows and whoever serves them, which is a worker of its own or another supervisor.

    editor ── window 1 ──┐                       ┌── Worker   (we hold the workspace)
    joined ── window 2 ──┼── Supervisor ── upstream
    joined ── window 3 ──┘                       └── Link     (another supervisor holds it; then window 1 is all)

Invariants:
- Every request of a window gets exactly one answer, whatever dies in between (`ledger`, `delivery`).
- Nothing waits: every descriptor is non-blocking, every buffer has a bound, and there is one thread, but for a write to
  `active.json` while somebody is served.
- Nothing of a workspace is imported, run or read here.
"""

from __future__ import annotations

import os
import time

from selfloop.supervisor import jsonrpc
from selfloop.supervisor.channel import Channel
from selfloop.supervisor.contract import (
    CLIENT_FRAME_BYTES,
    DEATHS,
    PAUSE_BYTES,
    PING,
    RESEND,
    UPDATE,
    UPDATE_BYTES,
    WINDOW_BYTES,
    activated,
    is_restart,
)
from selfloop.supervisor.control import Control
from selfloop.supervisor.delivery import UNKNOWN, Delivery
from selfloop.supervisor.frames import Fault, frame
from selfloop.supervisor.generations import OURS, Shelf
from selfloop.supervisor.ledger import Entry
from selfloop.supervisor.link import GREETING, Link
from selfloop.supervisor.log import Log
from selfloop.supervisor.loop import Loop
from selfloop.supervisor.shown import CANCEL
from selfloop.supervisor.succession import Succession
from selfloop.supervisor.upstream import Upstream
from selfloop.supervisor.window import Window
from selfloop.supervisor.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any

    from selfloop.supervisor.frames import Message

NOT_SERVING = f"Selfloop's worker ended {DEATHS} times in a row and was not started again; run selfloop.restart to try."


class Supervisor:
    """Serves the editor on a pair of descriptors until it is gone."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        capabilities: bytes,
        data: str,
        stdin: int,
        stdout: int,
        package: str = OURS,
    ) -> None:
        """Prepare; nothing is started before the editor's `initialize`.

        Args:
            command: starts a worker.
            capabilities: the `InitializeResult` as JSON, recorded from a worker.
            data: the user's data folder.
            stdin: where the editor is read from. Both descriptors are owned, and made non-blocking.
            stdout: where it is written to.
            package: the folder of what is generation 0.
        """
        self._capabilities = capabilities
        self._exit_code = 1
        self._last_window = 0
        self._windows: dict[int, Window] = {}
        self._log = Log(os.path.join(data, "logs"))
        self._loop = Loop(on_error=self._log.error)
        shelf = Shelf(data, package)
        self._upstream = Upstream(self._loop, command, shelf, data, self._log)
        self._control = Control(self._upstream, self._loop, self._log)
        self._delivery = Delivery(self._upstream, self._control, self._windows, self._loop)
        self._succession = Succession(
            self._upstream, self._control, self._delivery, self._windows, shelf, capabilities, self._loop, self._log
        )
        self._swaps = self._succession.swaps
        self._swaps.on_message = self._from_upstream
        self._upstream.folders = self._folders
        self._upstream.on_message = self._from_upstream
        self._upstream.on_attached = self._delivery.attached
        self._upstream.on_lost = self._succession.lost
        self._upstream.on_left = self._succession.left
        self._upstream.on_given_up = self._given_up
        self._upstream.on_stopped = self._leave
        self._upstream.on_peer = self._joined
        self._upstream.on_trouble = lambda text: self._windows[1].show_error(text)
        self._open_window(stdin, stdout, joined=False)

    def run(self) -> int:
        """Serve; return the exit code (LSP: 0 after `shutdown`, else 1)."""
        self._loop.run()
        return self._exit_code

    # Windows

    def _open_window(self, reader: int, writer: int, *, joined: bool) -> Window:
        self._last_window += 1
        window = Window(self._last_window, joined=joined)
        window.channel = Channel(
            self._loop,
            reader,
            writer,
            limit_bytes=CLIENT_FRAME_BYTES,
            on_message=lambda message: self._from_client(window, message),
            on_end=lambda: self._close_window(window),
            ends_when_deaf=True,
        )
        window.channel.on_drained = lambda: self._delivery.window_drained(window)
        self._windows[window.number] = window
        return window

    def _joined(self, peer: socket.socket) -> None:
        reader = peer.detach()
        self._open_window(reader, os.dup(reader), joined=True).channel.send(frame(GREETING))

    def _close_window(self, window: Window) -> None:
        """End a window. The server ends with the editor that started it; a waiting window then goes on."""
        if not window.joined:
            # What came before the end begins first, and is answered.
            self._loop.soon(lambda: self._stop(0 if window.shut else 1))
            return
        window.channel.close()
        if self._windows.pop(window.number, None) is not None and window.introduced_as is not None:
            self._control.tell("control/windowClosed", {"window": window.number})
        self._swaps.closed(window)

    def _stop(self, exit_code: int, *, impatient: bool = False) -> None:
        """End in good order: no new work, then the worker, then `_leave`."""
        self._exit_code = exit_code
        for window in list(self._windows.values()):
            if window.joined and len(window.ledger):
                window.channel.stop_reading()  # It gets its answers first.
            elif window.joined:
                window.channel.drain(0.2)
                self._close_window(window)
        self._swaps.stop()
        self._upstream.stop(impatient=impatient)

    def _leave(self) -> None:
        for window in self._windows.values():
            if not window.joined:  # A joined one goes on elsewhere, with what is in flight.
                self._delivery.refuse_all(window, "The server ended.")
            window.channel.drain(1.0)
        self._upstream.release()
        for window in self._windows.values():
            window.channel.close()
        self._loop.stop()

    def _folders(self) -> list[str]:
        return [folder["path"] for window in self._windows.values() for folder in window.folders()]

    def _claim(self) -> None:
        new, folders = self._upstream.claim(), self._delivery.folders()
        if new or not all(folder["owned"] for folder in folders):  # What is another's, the worker must not open.
            self._control.tell("control/folders", {"folders": folders})

    # From a client

    def _from_client(self, window: Window, message: Message | Fault) -> None:
        if isinstance(message, Fault):
            window.refuse(None, message.code, message.text)
            return
        try:
            value = jsonrpc.check(message.value)
        except jsonrpc.Invalid as problem:
            window.refuse(problem.id, problem.code, problem.text)
            return
        try:
            if "method" not in value:
                self._client_answered(window, value)
            elif "id" in value:
                self._requested(window, value, message)
            else:
                self._notified(window, value, message)
        except Exception as error:  # A fault of ours may cost this message, and not the editor's server.
            self._log.error(error)
            if "method" in value and "id" in value:
                window.ledger.close(value["id"])
                window.refuse(value["id"], jsonrpc.INTERNAL_ERROR, f"The supervisor failed: {error}. {UNKNOWN}")
        upstream = self._upstream.current
        if upstream is not None and upstream.channel.backlog > PAUSE_BYTES:
            for other in self._windows.values():
                other.channel.pause(True)

    def _requested(self, window: Window, value: dict[str, Any], message: Message) -> None:
        id, method, params = value["id"], value["method"], value.get("params")
        if window.ledger.get(id) is not None:
            text = f"A request with the id {id!r} is not answered yet, so this one was not carried out."
            window.refuse(id, jsonrpc.INVALID_REQUEST, text)
        elif window.shut:
            window.refuse(id, jsonrpc.INVALID_REQUEST, "The server was shut down, so nothing more is carried out.")
        elif method == "initialize":
            self._initialize(window, value)
        elif window.initialize is None:
            window.refuse(id, jsonrpc.NOT_INITIALIZED, f"{method} was not carried out: send initialize first.")
        elif method == "shutdown":
            window.shut = True
            window.send(jsonrpc.result(id, None))
        elif method == PING and window.joined:
            window.send(jsonrpc.result(id, {}))
        elif self._upstream.given_up:
            self._requested_in_vain(window, id, method, params)
        elif self._succession.undone(window, id, activated(method, params)):
            return
        elif window.ledger.full:
            window.refuse(id, jsonrpc.FAILED, "Too much is unanswered, so this was not carried out; send it later.")
        else:
            key = message.key if window.joined and message.key else self._control.new_id()
            entry = Entry(id, method, params, message.body, key)
            window.ledger.open(entry)
            self._delivery.ask(window, entry)

    def _initialize(self, window: Window, value: dict[str, Any]) -> None:
        id = value["id"]
        if window.initialize is not None:
            text = "This window was initialized before, so this initialize changed nothing."
            window.refuse(id, jsonrpc.INVALID_REQUEST, text)
            return
        if not isinstance(value.get("params"), dict):
            window.refuse(id, jsonrpc.INVALID_PARAMS, "initialize needs params that are an object; nothing was done.")
            return
        window.begin(value)
        window.send(b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (jsonrpc.encode(id), self._capabilities))
        if not window.joined:
            self._loop.soon(self._begin)  # The answer leaves before the costlier part begins.
        elif self._upstream.given_up:
            window.show_error(self._given_up_text())
        elif self._upstream.open is not None:
            self._claim()
            self._delivery.introduce(window)
            self._swaps.opened(window)

    def _begin(self) -> None:
        self._watch_signals()
        self._control.watch(lambda: any(len(window.ledger) for window in self._windows.values()))
        self._upstream.seek()

    def _notified(self, window: Window, value: dict[str, Any], message: Message) -> None:
        method, params = value["method"], value.get("params")
        if method == "exit":
            window.channel.stop_reading()
            self._close_window(window)
        elif window.initialize is None or window.shut:
            return  # LSP: notifications before initialize and after shutdown are dropped, but for exit.
        elif method == "textDocument/didChange":
            changed = window.documents.changed(params)
            self._delivery.change(window, changed, message.body)
            self._swaps.mirror(window, method, message.body, changed)
        elif method == CANCEL:
            self._cancelled(window, params, message.body)
        elif method == RESEND and window.joined:
            window.lacks(params)
            self._delivery.window_drained(window)
        else:
            window.note(method, params, message.body)
            if method == "workspace/didChangeWorkspaceFolders":
                self._claim()
            self._delivery.forward(window, message.body)
            self._swaps.mirror(window, method, message.body)

    def _cancelled(self, window: Window, params: Any, body: bytes) -> None:
        entry = window.ledger.get(params.get("id")) if isinstance(params, dict) else None
        if entry is None:
            return
        if entry.asked == 0:
            window.ledger.close(entry.id)
            window.refuse(entry.id, jsonrpc.CANCELLED, "The request was cancelled before it began.")
        elif entry.at is self._upstream.current:
            self._delivery.forward(window, body)

    def _client_answered(self, window: Window, value: dict[str, Any]) -> None:
        body = window.shown.answered(value)
        if body is not None:
            self._delivery.answer(window, body)

    # From the upstream

    def _from_upstream(self, upstream: Worker | Link, message: Message) -> None:
        value = message.value
        if isinstance(upstream, Worker) and upstream is not self._upstream.current:
            if not self._swaps.heard(upstream, message) and isinstance(value, dict) and "method" not in value:
                if (window := self._windows.get(message.window)) is not None:
                    self._answered(upstream, window, value, message.body)  # Its last words; it writes nothing any more.
            return
        if not isinstance(value, dict):
            self._log.note("whoever serves has sent what is no message")
            return
        if self._control.answered(value):
            return
        if isinstance(upstream, Worker) and message.window == 0:
            params = value.get("params")
            self._succession.controlled(upstream, value.get("method"), params if isinstance(params, dict) else {})
            return
        window = self._windows.get(1 if isinstance(upstream, Link) else message.window)
        if window is None:
            return  # It was closed meanwhile.
        if "method" in value:
            self._told(window, value, message.body, withhold=isinstance(upstream, Worker))
        else:
            self._answered(upstream, window, value, message.body)
        if window.backlog > WINDOW_BYTES:
            self._log.note(f"window {window.number} does not read, so it was given up")
            self._close_window(window)
        elif isinstance(upstream, Link) and window.backlog > UPDATE_BYTES:
            upstream.channel.pause(True)  # Then the supervisor that serves is the one who withholds updates.

    def _told(self, window: Window, value: dict[str, Any], body: bytes, *, withhold: bool) -> None:
        if value["method"] != UPDATE:
            window.send(window.shown.follow(value) or body)
        elif window.passes(value.get("params"), withhold=withhold):
            window.send(body)

    def _answered(self, upstream: Worker | Link, window: Window, value: dict[str, Any], body: bytes) -> None:
        id = value.get("id")
        entry = window.ledger.get(id)
        if entry is not None and entry.at is upstream:
            if upstream is not self._upstream.current and entry.repeatable and "error" in value:
                return  # Its end may be why, so the next one is asked.
            window.ledger.close(id)
            self._upstream.answered()
            if entry.repeatable:
                self._succession.probation.answered(time.monotonic() - entry.asked_at)
            if "result" in value:
                window.note_result(entry.method, entry.params)
            window.send(body)
            if self._swaps.busy:
                self._swaps.step()
        elif id == window.introduced_as and isinstance(upstream, Worker):
            self._succession.introduced(upstream, window, value.get("result"))
        elif isinstance(upstream, Worker) and not self._control.made(id):
            self._succession.probation.strayed(upstream)

    # Without a worker

    def _given_up(self) -> None:
        for window in self._windows.values():
            window.show_error(self._given_up_text())
            self._delivery.refuse_all(window, NOT_SERVING)

    def _requested_in_vain(self, window: Window, id: int | str, method: str, params: Any) -> None:
        if is_restart(method, params):
            window.send(jsonrpc.result(id, {"restartId": self._control.new_id()}))
            self._upstream.revive()
        else:
            window.refuse(id, jsonrpc.FAILED, f"{NOT_SERVING} This was not done.", {"reason": "stopped"})

    def _given_up_text(self) -> str:
        return f"{NOT_SERVING} Documents are kept up to date; the reason stands in {self._log.path}."

    def _watch_signals(self) -> None:
        import signal

        def signalled(numbers: bytes) -> None:
            self._upstream.reap()
            if any(number != signal.SIGCHLD for number in numbers):
                self._stop(0, impatient=True)

        self._loop.watch_signals([signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], signalled)
