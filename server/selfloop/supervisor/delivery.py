"""From the windows to whoever serves, and to the next one when that one has ended.

Invariant: a new upstream is told everything that the last one knew before anything new, and each request that was in
flight is then asked again, or answered with what became of it.
"""

from __future__ import annotations

import os
import time

from selfloop.supervisor import jsonrpc
from selfloop.supervisor.contract import CHATS, COALESCE_BYTES, LIGHT_READS, OUTCOMES, PING, RESEND, SWAP_STATE
from selfloop.supervisor.control import Control, new_epoch
from selfloop.supervisor.link import Link
from selfloop.supervisor.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from selfloop.supervisor.ledger import Entry
    from selfloop.supervisor.loop import Loop
    from selfloop.supervisor.upstream import Upstream
    from selfloop.supervisor.window import Window

MARKS_SECONDS = 3.0
"""How long a new worker has to publish diagnostics again before the old ones go."""

UNKNOWN = "Whether it took effect is not known, so look before you send it again."


class Delivery:
    """Brings messages of `windows` to the upstream, at once or when there is one."""

    def __init__(self, upstream: Upstream, control: Control, windows: dict[int, Window], loop: Loop) -> None:
        self._upstream = upstream
        self._control = control
        self._windows = windows
        self._loop = loop
        self.restart_id: str | None = None
        """The restart that the next worker comes from."""
        self.holding = False
        """Requests wait for the next worker, but for the lightest reads."""
        self.chats = False
        """Somebody has used a session."""
        self._states: list[dict[str, Any]] = []
        """What became of generations, for the next worker to tell."""

    # One message

    def forward(self, window: Window, body: bytes, key: str | None = None) -> None:
        """Pass a message on, after the newest text of every document that was held back."""
        upstream = self._open(window)
        if upstream is None:
            return  # What must not be lost stands in the ledger, or the window remembers it.
        if window.behind:
            self._catch_up(window, upstream)
        upstream.send(window.number, body, key)

    def ask(self, window: Window, entry: Entry) -> None:
        """Pass a request on, if it can be; else it stays in the ledger until somebody serves."""
        upstream = self._open(window)
        if upstream is None or (self.holding and entry.method not in LIGHT_READS):
            return
        self.chats = self.chats or entry.method in CHATS
        entry.asked += 1
        entry.asked_at = time.monotonic()
        entry.at = upstream
        if window.joined and entry.method == OUTCOMES:
            self._control.ask(OUTCOMES, entry.params, lambda result: self._pass_result(window, entry, result))
        else:
            self.forward(window, entry.body, entry.key)

    def answer(self, window: Window, body: bytes) -> None:
        """Pass on the answer to a question of the worker; one that is retiring may wait for just this."""
        upstream = self._upstream.current
        if upstream is not None and window.introduced_as is not None:
            # An edit's answer comes after the changes that it made, which the worker looks for.
            self._catch_up(window, upstream)
            upstream.send(window.number, body)

    def change(self, window: Window, uri: str | None, body: bytes) -> None:
        """Pass on the change of a document, or hold it back while the upstream is slow."""
        upstream = self._open(window)
        if upstream is None:
            return  # Whoever comes is told the text as it is then.
        if uri is not None and (uri in window.behind or upstream.channel.backlog > COALESCE_BYTES):
            window.behind[uri] = None
        else:
            self.forward(window, body)

    def refuse_all(self, window: Window, why: str) -> None:
        """Answer everything that is in flight, for nobody else will."""
        for entry in window.ledger:
            window.ledger.close(entry.id)
            begun = entry.asked and not entry.repeatable
            text = f"{why} {UNKNOWN if begun else 'This was not done.'}"
            window.refuse(entry.id, jsonrpc.FAILED, text, {"reason": "stopped"})

    def _open(self, window: Window) -> Worker | Link | None:
        """Return who can be sent something of a window; None: nobody serves, or nobody knows the window yet."""
        return self._upstream.open if window.introduced_as is not None else None

    def _catch_up(self, window: Window, upstream: Worker | Link) -> None:
        for uri in window.behind:
            if uri in window.documents:
                change = jsonrpc.notification("textDocument/didChange", window.documents.whole(uri))
                upstream.send(window.number, change)
        window.behind.clear()

    def _pass_result(self, window: Window, entry: Entry, result: Any) -> None:
        if window.ledger.close(entry.id) is not None:
            window.send(jsonrpc.result(entry.id, result))

    # One upstream after another

    def folders(self) -> list[dict[str, Any]]:
        """Return every window's folders once, and whether we hold them."""
        folders = {folder["uri"]: folder for window in self._windows.values() for folder in window.folders()}
        return [{**folder, "owned": self._upstream.owns(folder["path"])} for folder in folders.values()]

    def attached(self, upstream: Worker | Link) -> None:
        """Bring a new upstream to where the last one was."""
        upstream.channel.on_drained = self._upstream_drained
        self.holding = False
        if isinstance(upstream, Worker):
            upstream.send(0, self.start(self._upstream.generation.number, self.restart_id))
            self.restart_id = None
        for window in self._windows.values():
            self.introduce(window)
        self.tell_states()
        if isinstance(upstream, Link):
            self.serves()

    def start(self, number: int, restart_id: str | None) -> bytes:
        """Return what has a worker take over the workspaces.

        Args:
            number: the generation that it is.
            restart_id: the restart or swap that it comes from.
        """
        start = {"epoch": new_epoch(), "pid": os.getpid(), "folders": self.folders(), "generation": number}
        if restart_id is not None:
            start["restartId"] = restart_id
        return jsonrpc.notification("control/start", start)

    def tell_state(self, restart_id: str | None, number: int, state: str, reason: str | None = None) -> None:
        """Tell whoever serves, now or next, what became of a generation."""
        told = {"restartId": restart_id, "number": number, "state": state}
        self._states.append(told if reason is None else {**told, "reason": reason})
        self.tell_states()

    def tell_states(self) -> None:
        """Tell a worker what could not be told before."""
        if isinstance(self._upstream.open, Worker):
            states, self._states = self._states, []
            for state in states:
                self._control.tell(SWAP_STATE, state)

    def follow(self, upstream: Worker) -> None:
        """Go on with a worker that has been told everything already and serves from now on."""
        upstream.channel.on_drained = self._upstream_drained
        self._control.forget()  # What the last one was asked is asked anew where it still matters.
        self.release()
        for window in self._windows.values():
            self.window_drained(window)
        self.tell_states()
        self.serves()

    def release(self) -> None:
        """Ask what was held back."""
        self.holding = False
        for window in self._windows.values():
            for entry in window.ledger:
                if entry.asked == 0:
                    self.ask(window, entry)

    def left(self) -> None:
        """Note that a worker which was replaced has ended: what it has not answered is settled with the next one."""
        for window in self._windows.values():
            left = [entry for entry in window.ledger if entry.asked and entry.at is not self._upstream.current]
            self._settle_with_next(window, left)

    def serves(self) -> None:
        """Note that the upstream is at work: what the last one left in the editor goes, if it is not renewed soon."""
        self._loop.later(MARKS_SECONDS, self._withdraw_marks)

    def introduce(self, window: Window) -> None:
        """Tell the upstream of a window, then settle what is in flight from it."""
        upstream = self._upstream.open
        if upstream is None or window.initialize is None:
            return
        self._control.tell("control/windowOpened", {"window": window.number})
        for body in window.introduction(self._control.new_id):
            upstream.send(window.number, body)
        self._settle_with_next(window, window.ledger)
        self.window_drained(window)

    def _settle_with_next(self, window: Window, entries: Iterable[Entry]) -> None:
        unsettled: list[Entry] = []
        for entry in entries:
            if entry.askable:
                self.ask(window, entry)
            elif entry.repeatable:
                window.ledger.close(entry.id)
                text = f"The server ended each of the {entry.asked} times it was asked this, so it is not asked again."
                window.refuse(entry.id, jsonrpc.FAILED, text, {"reason": "restarted"})
            else:
                unsettled.append(entry)
        if unsettled:
            keys = {"keys": [entry.key for entry in unsettled]}
            self._control.ask(OUTCOMES, keys, lambda result: self._settle(window, unsettled, result))

    def lost(self, upstream: Worker | Link) -> None:
        """Note that an upstream has ended."""
        self._control.forget()
        for window in self._windows.values():
            window.introduced_as = None
            window.fetching = False
            if not upstream.ready:
                window.ledger.lost(upstream)  # It reads in order, so it has begun with nothing of a window.
            for body in window.shown.withdraw():
                window.send(body)
            window.channel.pause(False)

    def _settle(self, window: Window, entries: list[Entry], result: Any) -> None:
        """Say of requests that a dead worker may have begun with whether they took effect."""
        done = result.get("done") if isinstance(result, dict) else None
        self._upstream.answered()  # A worker that comes as far as this is no reason to give up.
        for entry in entries:
            if window.ledger.close(entry.id) is None:
                continue
            if not isinstance(done, list) or (entry.key not in done and entry.asked_at < window.left_folder_at):
                outcome = UNKNOWN  # Nobody answers for a folder that was left meanwhile.
            elif entry.key in done:
                outcome = "It took effect."
            else:
                outcome = "It did not take effect, so send it again."
            text = f"The server restarted while it worked on this request. {outcome}"
            window.refuse(entry.id, jsonrpc.FAILED, text, {"reason": "restarted"})

    def _withdraw_marks(self) -> None:
        for window in self._windows.values():
            for body in window.shown.withdraw_marks():
                window.send(body)

    # Pressure

    def _upstream_drained(self) -> None:
        for window in self._windows.values():
            upstream = self._open(window)
            if upstream is not None and window.behind:
                self._catch_up(window, upstream)
            window.channel.pause(False)

    def window_drained(self, window: Window) -> None:
        """Ask again for the updates that the client was not sent."""
        upstream = self._open(window)
        if isinstance(upstream, Link):
            upstream.channel.pause(False)
        if upstream is None or not window.withheld or window.fetching or window.backlog:
            return
        window.fetching = True
        resends = [
            {"window": window.number, "sessionId": session, "after": first - 1}
            for session, first in window.withheld.items()
        ]
        if isinstance(upstream, Link):
            # The other supervisor withholds these streams from the first line on, until it has fetched them.
            for resend in resends:
                self._control.tell(RESEND, resend)
        # Updates that are under way come before the answer to this, and are withheld like those before them.
        self._control.ask(PING, {}, lambda _: self._fetched(window))
        if isinstance(upstream, Worker):
            for resend in resends:
                self._control.tell(RESEND, resend)

    def _fetched(self, window: Window) -> None:
        window.fetching = False
        window.withheld.clear()
