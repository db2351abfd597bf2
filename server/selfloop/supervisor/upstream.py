"""Whoever serves: a worker of our own where we hold the workspace, else the supervisor that does; and its successor.

    seek ── we take the lock ──────────── Worker ── ends ──┐
      │  └─ another holds it, joined ──── Link ──── ends ──┤
      └──── in a moment ───────────────────────────────────┘      five deaths in a row: given up, until `revive`

Invariant: at most one worker of ours serves. Beside it stand, for a moment, a candidate that is being primed or a
worker that was replaced and says its last answers; after a death the next one starts when nobody is left.
"""

from __future__ import annotations

import os
import time

from selfloop.supervisor.claims import Claims, same_user
from selfloop.supervisor.contract import BOOTS, CANARY_SECONDS, DEATHS
from selfloop.supervisor.generations import INSTALLED
from selfloop.supervisor.link import Link
from selfloop.supervisor.loop import READABLE
from selfloop.supervisor.worker import Worker, adopt_orphans

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from selfloop.supervisor.frames import Message
    from selfloop.supervisor.generations import Generation, Shelf
    from selfloop.supervisor.log import Log
    from selfloop.supervisor.loop import Loop

RETRY_SECONDS = 0.05
"""Between two looks at a workspace whose holder does not answer yet."""
PATIENCE_SECONDS = 10.0
"""After this long the user is told of it."""
BACK_OFF_SECONDS = (0.0, 0.05, 0.1, 0.2)
"""Before the next worker, by the number of deaths in a row before this one."""


class Upstream:
    """Keeps somebody serving. What happens is told by the callbacks, set before `seek`."""

    def __init__(self, loop: Loop, command: Sequence[str], shelf: Shelf, data: str, log: Log) -> None:
        self._loop = loop
        self._command = command
        self._shelf = shelf
        self._log = log
        self._claims = Claims(data)
        self._deaths = 0
        self._stopping = False
        self._workers: dict[int, Worker] = {}
        """Every worker whose process is not reaped yet, by its id."""
        self._joining: Link | None = None
        """A connection that was not greeted yet."""
        self._seeking_since: float | None = None
        self._warned: set[str] = set()
        self._unlockable: set[str] = set()
        self.current: Worker | Link | None = None
        """Who serves now; None in between."""
        self.generation: Generation = INSTALLED
        """The generation that our own worker is of, or was."""
        self.given_up = False
        """No worker is started any more."""
        self.folders: Callable[[], list[str]]
        """Gives the paths of all windows' folders, the one that decides first."""
        self.on_message: Callable[[Worker | Link, Message], None]
        self.on_attached: Callable[[Worker | Link], None]
        """Somebody serves from now on and has been told nothing yet."""
        self.on_lost: Callable[[Worker | Link], None]
        self.on_left: Callable[[Worker], None]
        """A worker that was not serving (any more) has ended."""
        self.on_given_up: Callable[[], None]
        self.on_stopped: Callable[[], None]
        self.on_peer: Callable[[socket.socket], None]
        """Another window has come by a socket."""
        self.on_trouble: Callable[[str], None]
        """One sentence for the user."""

    @property
    def open(self) -> Worker | Link | None:
        """Who can be given something new; None: it must wait."""
        return None if self.current is None or self.current.retiring else self.current

    def seek(self) -> None:
        """Find somebody to serve, unless somebody does."""
        if self._stopping or self.given_up or self.current is not None:
            return
        folders = self.folders()
        if folders and self._joining is None:
            self._take(folders[0])
        if folders and not self.owns(folders[0]):
            self._join(folders[0])
            return
        if self._workers:
            return  # Somebody may still write to the workspace; we are called again when the last one is gone.
        self.claim()
        self._seeking_since = None
        generation, trouble = self._shelf.choose()
        if trouble is not None:
            self._trouble(trouble)
        try:
            worker = self.start(generation)
        except OSError as error:
            self._log.note(f"no worker could be started: {error}")
            self._died()
            return
        adopt_orphans()
        self.current, self.generation = worker, generation
        if generation.number:
            self._loop.later(CANARY_SECONDS, lambda: None if worker.ready else worker.kill())
        self.on_attached(worker)

    def start(self, generation: Generation) -> Worker:
        """Start a worker of a generation; who serves stays as it is.

        Raises:
            OSError: it could not be started.
        """
        worker = Worker(
            self._loop,
            self._shelf.command(self._command, generation),
            inherited=self._claims.locks,
            log=self._log,
            on_message=self.on_message,
            on_end=self._ended,
        )
        self._workers[worker.pid] = worker
        return worker

    def replace(self, worker: Worker, generation: Generation) -> None:
        """Have another worker serve from now on; the one before is told to end."""
        before = self.current
        self.current, self.generation = worker, generation
        self._deaths = 0
        if isinstance(before, Worker):
            before.channel.on_drained = None
            before.retire()

    def claim(self) -> bool:
        """Take every folder of every window that nobody holds; return whether there was one."""
        return any([self._take(folder) for folder in self.folders()])

    def owns(self, folder: str) -> bool:
        """Tell whether a folder is ours to serve."""
        return self._claims.holds(folder) or folder in self._unlockable

    def answered(self) -> None:
        """Note that a request was answered: the deaths before it are no row any more."""
        self._deaths = 0

    def pardon(self) -> None:
        """Count no deaths so far: the next worker is of another generation."""
        self._deaths = 0

    def reap(self) -> None:
        """Look which workers have ended. Other children were left behind by one that lives, and only need reaping."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                worker.finish(status, list(self._workers))

    def revive(self) -> None:
        """Try again after having given up."""
        self._deaths = 0
        self.given_up = False
        self.seek()

    def stop(self, *, impatient: bool = False) -> None:
        """End the worker in good order; `on_stopped` is called when that is done. The impatient wait only once."""
        for worker in self._workers.values():
            if worker is not self.current or (self._stopping and impatient):
                worker.kill()
        if isinstance(self.current, Worker):
            self.current.retire()
        if self._stopping:
            return
        self._stopping = True
        if isinstance(self.current, Worker) and not self.current.ready:
            self._shelf.abandoned(self.generation)
        for claim in self._claims:
            if claim.listener is not None:
                self._loop.unwatch(claim.listener.fileno())
            claim.close()
        if not self._workers:
            self._loop.soon(self.on_stopped)

    def release(self) -> None:
        """Let go of the folders, so that a waiting window can go on."""
        self._claims.release()

    def _take(self, folder: str) -> bool:
        """Take a folder if nobody holds it; return whether it is newly ours."""
        try:
            claim = self._claims.take(folder)
        except OSError as error:
            self._unlockable.add(folder)  # Nobody else can lock it either, so it is served all the same.
            self._trouble(f"The folder {folder} could not be locked ({error.strerror}), so do not open it twice.")
            return False
        if claim is not None and claim.listener is not None:
            listener = claim.listener
            self._loop.watch(listener.fileno(), READABLE, lambda: self._accept(listener))
        elif claim is not None:
            self._trouble(f"No socket could be made for {folder}, so other windows cannot join this one.")
        return claim is not None

    def _join(self, folder: str) -> None:
        """Knock at the supervisor that holds a folder, and look again in a moment."""
        if self._joining is None and (peer := self._claims.join(folder)) is not None:
            self._joining = Link(
                self._loop, peer, on_ready=self._greeted, on_message=self.on_message, on_end=self._ended
            )
        now = time.monotonic()
        self._seeking_since = self._seeking_since or now
        if now - self._seeking_since > PATIENCE_SECONDS:
            self._trouble(f"Another Selfloop serves {folder} but does not answer; end it, and this window goes on.")
        self._loop.later(RETRY_SECONDS, self.seek)

    def _greeted(self, link: Link) -> None:
        self.current, self._joining = link, None
        self._seeking_since = None
        self.on_attached(link)

    def _accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:  # Whoever called has gone again.
            return
        if same_user(peer):
            self.on_peer(peer)
        else:
            peer.close()

    def _ended(self, upstream: Worker | Link) -> None:
        if upstream is self._joining:
            self._joining = None
            return
        served = upstream is self.current
        if served:
            self.current = None
            self.on_lost(upstream)
        elif isinstance(upstream, Worker):
            self.on_left(upstream)
        if self._stopping:
            if not self._workers:
                self.on_stopped()
        elif self.current is not None:
            return
        elif not served or isinstance(upstream, Link) or upstream.retiring:
            self.seek()
        else:
            self._died()

    def _died(self) -> None:
        self._deaths += 1
        if self._deaths >= BOOTS:
            self._shelf.failed(self.generation)
        if self._deaths >= DEATHS:
            self.given_up = True
            self._log.note(f"{DEATHS} workers ended in a row; no more are started")
            self.on_given_up()
        else:
            self._loop.later(BACK_OFF_SECONDS[self._deaths - 1], self.seek)

    def _trouble(self, text: str) -> None:
        self._log.note(text)
        if text not in self._warned:
            self._warned.add(text)
            self.on_trouble(text)
