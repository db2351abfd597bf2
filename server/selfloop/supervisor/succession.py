"""One worker after another, as far as generations are concerned: who asks for it, who is watched, who comes back.

control/swap, control/restart, the user's undo ──▶ Swaps ──▶ flipped ──▶ Probation ──▶ settled, or the parent again
"""

from __future__ import annotations

import json

from selfloop.supervisor import jsonrpc
from selfloop.supervisor.contract import PATIENCE_SECONDS
from selfloop.supervisor.generations import Generation
from selfloop.supervisor.offered import Offers
from selfloop.supervisor.probation import Probation
from selfloop.supervisor.swap import Swaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from selfloop.supervisor.control import Control
    from selfloop.supervisor.delivery import Delivery
    from selfloop.supervisor.generations import Shelf
    from selfloop.supervisor.link import Link
    from selfloop.supervisor.log import Log
    from selfloop.supervisor.loop import Loop
    from selfloop.supervisor.upstream import Upstream
    from selfloop.supervisor.window import Window
    from selfloop.supervisor.worker import Worker

_WHO = ("approval", "user", "restart")


class Succession:
    """See the module."""

    def __init__(
        self,
        upstream: Upstream,
        control: Control,
        delivery: Delivery,
        windows: dict[int, Window],
        shelf: Shelf,
        recorded: bytes,
        loop: Loop,
        log: Log,
    ) -> None:
        """`recorded` is the `InitializeResult` that every editor is answered with."""
        self._upstream = upstream
        self._control = control
        self._delivery = delivery
        self._shelf = shelf
        self._recorded = json.loads(recorded)
        self._log = log
        self._offers = Offers(self._recorded)
        self.probation = Probation(control, shelf, windows, loop, log)
        self.probation.on_over = self._watched
        self.swaps = Swaps(upstream, control, delivery, windows, shelf, self._offers, loop, log)
        self.swaps.on_flipped = self._flipped

    def controlled(self, worker: Worker, method: Any, params: dict[str, Any]) -> None:
        """Take what the worker that serves says on the control channel."""
        restart = params.get("restartId")
        restart_id = restart if isinstance(restart, str) else None
        if method == "control/ready" and not worker.ready:
            worker.ready = True
            self.probation.begin(worker, self._upstream.generation)
            self._delivery.serves()
        elif method == "control/restart" and not worker.retiring:
            patience = params.get("patienceSeconds")
            patience = min(patience, PATIENCE_SECONDS) if isinstance(patience, int | float) else PATIENCE_SECONDS
            self.swaps.request(None, by="restart", restart_id=restart_id, patience_seconds=patience)
        elif method == "control/swap" and not worker.retiring:
            number, tree, by = params.get("number"), params.get("tree"), params.get("by")
            if type(number) is int and isinstance(tree, str) and by in _WHO:
                self.swaps.request(Generation(number, tree), by=by, restart_id=restart_id)
            else:
                self._log.note(f"worker {worker.pid} asked for a swap to nothing that can be")

    def introduced(self, worker: Worker, window: Window, result: Any) -> None:
        """Take the answer to `initialize` of a worker that was started cold."""
        if result != self._recorded:
            self._log.note("the worker's capabilities differ from the recorded ones, which the editor was told")
        generation = self._upstream.generation
        if generation.number and not self._offers.complete(result):
            self._shelf.failed(generation)
            worker.dismiss()
            return
        self._shelf.booted(generation)
        self._offers.tell(window, result)

    def lost(self, upstream: Worker | Link) -> None:
        """Note that whoever served has ended."""
        self.probation.lost(upstream)
        self._delivery.lost(upstream)
        self.swaps.lost()

    def left(self, worker: Worker) -> None:
        """Note that a worker has ended that was not serving."""
        self.swaps.step()
        self._delivery.left()

    def undone(self, window: Window, id: int | str, number: Any) -> bool:
        """Take back a generation on probation for the user, without its help.

        Args:
            window: whose request it is.
            id: of the request.
            number: the generation that the request activates, if it does that.

        Returns:
            Whether that was it; then it is answered.
        """
        if self.probation.worker is None or type(number) is not int:
            return False
        good = self._shelf.read()["lastGood"]
        if good["number"] != number:
            return False
        restart_id = self._control.new_id()
        window.send(jsonrpc.result(id, {"restartId": restart_id}))
        self.swaps.request(Generation(number, good["tree"]), by="user", restart_id=restart_id, patience_seconds=0.0)
        return True

    def _flipped(self, worker: Worker, before: Worker | None) -> None:
        self.probation.measure(before)
        self._shelf.booted(self._upstream.generation)
        self.probation.begin(worker, self._upstream.generation)

    def _watched(self, worker: Worker, generation: Generation, wrong: str | None) -> None:
        """Note the end of a probation: what failed is ended, and what is active by then is started."""
        if wrong is not None:
            self._upstream.pardon()
            worker.dismiss()
        self._delivery.tell_state(None, generation.number, "settled" if wrong is None else "rolled-back", wrong)
