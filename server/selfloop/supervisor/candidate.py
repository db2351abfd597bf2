"""A worker that stands beside the one that serves and is brought to where that one is, without taking anything over.

It hears every window's `initialize`, documents, focus and keys, and each change of them as it comes, but no request and
no `control/start`. What it says to a window before it serves is kept, and delivered when it does.
"""

from __future__ import annotations

from selfloop.supervisor import jsonrpc
from selfloop.supervisor.contract import COALESCE_BYTES, KEPT_BYTES, PING, PRIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from selfloop.supervisor.control import Control
    from selfloop.supervisor.frames import Message
    from selfloop.supervisor.generations import Generation
    from selfloop.supervisor.offered import Offers
    from selfloop.supervisor.window import Window
    from selfloop.supervisor.worker import Worker

_MIRRORED = ("textDocument/did", "workspace/did", "notebookDocument/did", "initialized", "$/setTrace")


class Candidate:
    """See the module. `complaint` says what is wrong with it, None as long as nothing is."""

    def __init__(self, worker: Worker, generation: Generation, offers: Offers, control: Control) -> None:
        self.worker = worker
        self.generation = generation
        self.complaint: str | None = None
        self.kept: list[Message] = []
        """What it has said to windows, in order."""
        self.introduced: dict[int, str] = {}
        """Window → the id under which it was sent `initialize`."""
        self.offered: dict[int, Any] = {}
        """Window → its answer to that."""
        self.behind: dict[int, dict[str, None]] = {}
        """Window → documents whose newest text it has not been sent."""
        self._offers = offers
        self._control = control
        self._kept_bytes = 0
        self._asked: dict[str, str] = {}
        """Our requests that it has not answered, and their methods."""
        self._versions: dict[str, dict[str, Any]] = {}

    @property
    def gone(self) -> bool:
        """It is of no use any more."""
        if self.worker.faults:
            self.complaint = self.complaint or "it wrote what is no message"
        return self.worker.gone or self.worker.retiring or self.complaint is not None

    @property
    def primed(self) -> bool:
        """It has passed the canary."""
        return not self.gone and not self._asked and len(self.offered) == len(self.introduced)

    # What it is told

    def open(self, window: Window) -> None:
        """Tell it of a window."""
        if window.initialize is None:
            return
        self._tell("control/windowOpened", {"window": window.number})
        id = self.introduced[window.number] = self._control.new_id()
        self.behind[window.number] = {}
        for body in window.priming(id):
            self.worker.send(window.number, body)

    def close(self, window: Window) -> None:
        """Tell it that a window is gone."""
        if self.introduced.pop(window.number, None) is not None:
            self.offered.pop(window.number, None)
            self._tell("control/windowClosed", {"window": window.number})

    def mirror(self, window: Window, method: str, body: bytes, changed: str | None) -> None:
        """Tell it what a client has notified.

        Args:
            changed: the document that a `didChange` has changed.
        """
        behind = self.behind.get(window.number)
        if behind is None or not method.startswith(_MIRRORED):
            return
        if changed is not None and (changed in behind or self.worker.channel.backlog > COALESCE_BYTES):
            behind[changed] = None
            return
        self.catch_up(window)
        self.worker.send(window.number, body)

    def catch_up(self, window: Window) -> None:
        """Tell it the newest text of every document that was held back."""
        behind = self.behind.get(window.number, {})
        for uri in behind:
            if uri in window.documents:
                change = jsonrpc.notification("textDocument/didChange", window.documents.whole(uri))
                self.worker.send(window.number, change)
        behind.clear()

    def give_keys(self, window: Window) -> None:
        """Give it the keys of a window, some of which may have come after it was primed."""
        for body in window.keys(self._control.new_id):
            self.worker.send(window.number, body)

    def examine(self, windows: list[Window], *, with_model: bool) -> None:
        """Have it show that it is there, can import what a turn needs, and knows the documents.

        Args:
            windows: those that it was told of.
            with_model: have it load the model library too, which takes seconds; for when somebody chats.
        """
        self._versions = {str(window.number): window.documents.versions() for window in windows}
        for method in (PING, PRIME):
            id = self._control.new_id()
            self._asked[id] = method
            self.worker.send(0, jsonrpc.request(id, method, {"model": with_model}))

    # What it says

    def heard(self, message: Message) -> None:
        """Take in a message of it."""
        value = message.value
        if not isinstance(value, dict):
            self.complaint = "it sent what is no message"
        elif message.window == 0:
            self._controlled(value)
        elif "method" not in value and value.get("id") == self.introduced.get(message.window):
            self._introduced(message.window, value.get("result"))
        elif "method" in value:
            self.kept.append(message)
            self._kept_bytes += len(message.body)
            if self._kept_bytes > KEPT_BYTES:
                self.complaint = "it talked without being asked"
        elif not self._control.made(value.get("id")):
            self.complaint = "it answered what nobody had asked"

    def _introduced(self, window: int, result: Any) -> None:
        if window in self.offered:
            self.complaint = "it answered initialize twice"
        elif self.generation.number and not self._offers.complete(result):
            self.complaint = "it lacks capabilities that the editor was told of"
        self.offered[window] = result

    def _controlled(self, value: dict[str, Any]) -> None:
        if value.get("method") == "control/ready":
            self.worker.ready = True
        if "method" in value:
            return
        method = self._asked.pop(str(value.get("id")), None)
        if method is None:
            self.complaint = "it answered what nobody had asked"
        elif "error" in value:
            detail = value["error"].get("message") if isinstance(value["error"], dict) else None
            self.complaint = f"it could not import what a turn needs ({str(detail)[:300]})"
        elif method == PRIME:
            documents = value["result"].get("documents") if isinstance(value.get("result"), dict) else None
            if documents != self._versions:
                self.complaint = "it does not know the open documents as they are"

    def _tell(self, method: str, params: Any) -> None:
        self.worker.send(0, jsonrpc.notification(method, params))
