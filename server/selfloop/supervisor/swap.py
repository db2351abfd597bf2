"""One worker takes over from another while the editor works on.

    check the folder ─▶ start beside ─▶ prime ─▶ canary ─▶ wait until no tool runs ─▶ hold ─▶ yield ─▶ start ─▶ flip
    └──────────── the old one serves everything ────────────────────────────┘ └─ it serves the lightest reads ─┘

Invariants: requests are held from a moment at which nothing but the lightest reads is in flight until the new one is
ready, and at no other; unless the patience has ended. The old one writes nothing after it has yielded, the new one
nothing before `control/start`. Whatever fails or dies on the way, somebody serves afterwards: before the yield the old
one as if nothing had been, after it whoever `active.json` names.
"""

from __future__ import annotations

import time

from selfloop.supervisor.candidate import Candidate
from selfloop.supervisor.contract import (
    CANARY_SECONDS,
    HOLD_SECONDS,
    LIGHT_READS,
    PATIENCE_SECONDS,
    QUIET,
    YIELD,
    YIELD_SECONDS,
)
from selfloop.supervisor.generations import Generation, Refused, name
from selfloop.supervisor.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from selfloop.supervisor.control import Control
    from selfloop.supervisor.delivery import Delivery
    from selfloop.supervisor.frames import Message
    from selfloop.supervisor.generations import Shelf
    from selfloop.supervisor.log import Log
    from selfloop.supervisor.loop import Aside, Loop
    from selfloop.supervisor.offered import Offers
    from selfloop.supervisor.upstream import Upstream
    from selfloop.supervisor.window import Window

    Steps = Generator[tuple[Callable[[], Any], float], bool, None]
    """Yields what it waits for, and for how many seconds at most; is sent whether that came true."""

UNDO_SECONDS = 0.5
"""How long a generation that the user takes back may take to yield."""
_WRITE_SECONDS = 2.0
"""How long a swap that ends waits for its own write of `active.json`."""
AGAIN_SECONDS = 0.1
"""Between two tries to find a moment in which nothing is in flight."""


class Swaps:
    """Carries out one swap at a time. `on_message` and `on_flipped` are set before the first."""

    def __init__(
        self,
        upstream: Upstream,
        control: Control,
        delivery: Delivery,
        windows: dict[int, Window],
        shelf: Shelf,
        offers: Offers,
        loop: Loop,
        log: Log,
    ) -> None:
        self._upstream = upstream
        self._control = control
        self._delivery = delivery
        self._windows = windows
        self._shelf = shelf
        self._offers = offers
        self._loop = loop
        self._log = log
        self.candidate: Candidate | None = None
        self.on_message: Callable[[Worker, Message], None]
        """Given what the new one has said before it served."""
        self.on_flipped: Callable[[Worker, Worker | None], None]
        """The first one serves now; it was the second before, or nobody."""
        self._steps: Steps | None = None
        self._until: tuple[Callable[[], Any], float] | None = None
        """What is waited for, and until when; None: the swap has not begun."""
        self._target: Generation | None = None
        self._restart_id: str | None = None
        self._by = ""
        self._before: dict[str, Any] | None = None
        """What `active.json` said before it named the target; None: it does not name it yet."""
        self._writing: Aside | None = None
        """The write that makes it name the target, while it is under way."""
        self._yielded = False
        self._stepping = False
        self._begun_at = self._held_at = 0.0

    @property
    def busy(self) -> bool:
        """A swap is under way."""
        return self._steps is not None

    def request(
        self, target: Generation | None, *, by: str, restart_id: str | None, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Begin a swap; what becomes of it is told by `control/swapState`.

        Args:
            target: the generation; None: the one that is active, as it is started anew after a crash too.
            by: `approval`, `user` or `restart`.
            restart_id: by which the swap is known to the user.
            patience_seconds: how long it waits for tools that run.
        """
        if self.busy:
            number = target.number if target is not None else self._upstream.generation.number
            self._delivery.tell_state(restart_id, number, "refused", "Another swap is under way, so none was begun.")
            return
        target = target or self._shelf.active()
        self._target, self._restart_id, self._by, self._before = target, restart_id, by, None
        self._yielded = False
        self._begun_at = time.monotonic()
        self._steps = self._swap(target, patience_seconds)
        self._until = None
        self._loop.soon(self.step)

    # What it hears of

    def heard(self, worker: Worker, message: Message) -> bool:
        """Take in a message of the candidate; return whether the worker is that."""
        candidate = self.candidate
        if candidate is None or candidate.worker is not worker:
            return False
        candidate.heard(message)
        self.step()
        return True

    def mirror(self, window: Window, method: str, body: bytes, changed: str | None = None) -> None:
        """Tell the candidate, if there is one, what a client has notified."""
        if self.candidate is not None:
            self.candidate.mirror(window, method, body, changed)

    def opened(self, window: Window) -> None:
        """Tell the candidate of a window that has come."""
        if self.candidate is not None:
            self.candidate.open(window)

    def closed(self, window: Window) -> None:
        """Tell the candidate that a window has gone."""
        if self.candidate is not None:
            self.candidate.close(window)

    def lost(self) -> None:
        """Note that whoever served has ended, and that another will be started cold.

        Where `active.json` names the target already, or it is the same generation, that start is the swap.
        """
        if not self.busy or self._target is None:
            return
        self._wait_for_write()
        same = self._target.number == self._upstream.generation.number
        if self._before is not None or same:
            self._delivery.restart_id = self._restart_id
            self._finish()
        else:
            self._end("The server ended meanwhile")

    def step(self) -> None:
        """Go on, if what is waited for is there or has taken too long."""
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._steps is not None:
                if self._until is None:
                    wanted, seconds = next(self._steps)
                else:
                    met = bool(self._until[0]())
                    if not met and time.monotonic() < self._until[1]:
                        return
                    wanted, seconds = self._steps.send(met)
                self._until = (wanted, time.monotonic() + seconds)
                self._loop.later(seconds, self.step)
                if seconds == 0.0:
                    return  # The windows come first.
        except StopIteration:
            self._finish()
        except Refused as problem:
            self._end(str(problem))
        except OSError as error:
            self._end(f"No worker could be started ({error.strerror})")
        except Exception as error:  # A fault of ours may cost this swap, and not the editor's server.
            self._log.error(error)
            self._end(f"The supervisor failed ({type(error).__name__})")
        finally:
            self._stepping = False

    # The swap

    def _swap(self, target: Generation, patience_seconds: float) -> Steps:
        self._delivery.tell_state(self._restart_id, target.number, "starting")
        try:
            for _ in self._shelf.check(target):
                yield _pass, 0.0
        except Refused:
            if self._by != "restart":
                raise
            target, trouble = self._shelf.choose()
            self._target = target
            self._upstream.on_trouble(trouble or "")
        candidate = self.candidate = Candidate(self._upstream.start(target), target, self._offers, self._control)
        yield from self._prime(candidate)
        yield from self._begin(target)
        yield from self._settle(candidate, patience_seconds)
        candidate.worker.send(0, self._delivery.start(target.number, self._restart_id))
        yield lambda: candidate.worker.ready or candidate.gone, YIELD_SECONDS
        if candidate.gone or not candidate.worker.ready:
            raise Refused(f"{name(target)} did not take over{_because(candidate)}")
        self._flip(candidate)

    def _begin(self, target: Generation) -> Steps:
        """Have `active.json` name the target, which waits for the disk, while the windows are served."""
        by = self._by
        writing = self._writing = self._loop.aside(lambda: self._shelf.begin(target, by), lambda _: self.step())
        yield lambda: writing.outcome, CANARY_SECONDS
        if not writing.outcome:
            raise Refused("The user's data folder does not answer")
        self._writing = None
        if isinstance(writing.outcome[0], Exception):
            raise writing.outcome[0]
        self._before = writing.outcome[0]

    def _wait_for_write(self) -> None:
        """Know what became of the write before anything else is decided: it cannot be called off."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.thread.join(_WRITE_SECONDS)
            if writing.outcome and not isinstance(writing.outcome[0], Exception):
                self._before = writing.outcome[0]

    def _prime(self, candidate: Candidate) -> Steps:
        windows = [window for window in self._windows.values() if window.initialize is not None]
        for window in windows:
            candidate.open(window)
            candidate.give_keys(window)
        candidate.examine(windows, with_model=self._delivery.chats)
        yield lambda: candidate.gone or candidate.primed, CANARY_SECONDS
        if not candidate.primed:
            late = "" if candidate.gone else f" (it was not ready after {CANARY_SECONDS:.0f} seconds)"
            raise Refused(f"{name(candidate.generation)} did not pass the canary{_because(candidate) or late}")

    def _settle(self, candidate: Candidate, patience_seconds: float) -> Steps:
        """Wait until the old one has let go of everything, as gently as the patience allows."""
        old = self._upstream.current
        end = time.monotonic() + patience_seconds
        limit = UNDO_SECONDS if patience_seconds == 0 and self._by == "user" else YIELD_SECONDS
        while not self._yielded:
            left = end - time.monotonic()
            if left > 0:
                yield lambda: candidate.gone or not self._unsettled(old), left
                yield from self._ask(
                    QUIET, {"patienceSeconds": max(0.0, end - time.monotonic())}, left + limit, candidate
                )
            force = time.monotonic() >= end
            if force or not self._unsettled(old):
                self._delivery.holding = True
                self._held_at = time.monotonic()
                if force:
                    yield lambda: candidate.gone or not self._unsettled(old), min(HOLD_SECONDS, limit)
                answer = yield from self._ask(YIELD, {"force": force}, limit, candidate)
                self._yielded = isinstance(answer, dict) and answer.get("yielded") is True
                if answer is None and not candidate.gone and isinstance(old, Worker):
                    self._log.note(f"worker {old.pid} does not let go, so it is killed")
                    old.kill()  # `lost` takes it from here.
                    yield lambda: False, YIELD_SECONDS
            if candidate.gone:
                raise Refused(f"{name(candidate.generation)} ended before it could take over{_because(candidate)}")
            if not self._yielded:
                self._delivery.release()
                yield _pass, AGAIN_SECONDS
        for window in self._windows.values():
            candidate.catch_up(window)
            candidate.give_keys(window)

    def _ask(
        self, method: str, params: dict[str, Any], seconds: float, candidate: Candidate
    ) -> Generator[tuple[Callable[[], Any], float], bool, Any]:
        """Ask the old one, and return its answer; None: it gave none, or the candidate is gone."""
        answers: list[Any] = []

        def take(result: Any) -> None:
            answers.append(result)
            self.step()

        self._control.ask(method, params, take)
        yield lambda: answers or candidate.gone, seconds
        return answers[0] if answers else None

    def _unsettled(self, old: object) -> bool:
        """Tell whether a request is in flight that the old one would not answer after it has yielded."""
        return any(
            entry.at is old and entry.asked and entry.method not in LIGHT_READS
            for window in self._windows.values()
            for entry in window.ledger
        )

    def _flip(self, candidate: Candidate) -> None:
        old = self._upstream.current
        self.candidate = None
        self._upstream.replace(candidate.worker, candidate.generation)
        for window in self._windows.values():
            if window.number in candidate.introduced:
                number = window.number
                window.taken_over(candidate.introduced[number], candidate.behind[number])
                self._offers.tell(window, candidate.offered.get(number))
        for message in candidate.kept:
            self.on_message(candidate.worker, message)
        self._delivery.follow(candidate.worker)
        now = time.monotonic()
        self._log.note(
            f"{name(candidate.generation)} took over after {now - self._begun_at:.1f} s; requests were held for "
            f"{1000 * (now - self._held_at):.0f} ms"
        )
        self._delivery.tell_state(self._restart_id, candidate.generation.number, "active")
        self.on_flipped(candidate.worker, old if isinstance(old, Worker) else None)

    # Its end

    def stop(self) -> None:
        """Everything ends, which is no verdict: what was approved or chosen is started by whoever comes next."""
        if not self.busy or self._target is None:
            return
        self._wait_for_write()
        if self._before is None and self._by != "restart":
            try:
                self._shelf.begin(self._target, self._by)  # It is verified before it starts, and then watched.
            except Refused as problem:
                self._log.note(str(problem))
        self._finish()

    def _finish(self) -> None:
        self._steps, self._target = None, None
        if self.candidate is not None:
            self.candidate.worker.kill()
            self.candidate = None

    def _end(self, reason: str) -> None:
        """Give the swap up: what was stays, or is started anew where it has let go already."""
        target, restart_id = self._target, self._restart_id
        self._wait_for_write()
        if self._before is not None and target is not None:
            self._shelf.take_back(self._before, target)
        self._shelf.booted(self._upstream.generation)
        self._finish()
        self._log.note(f"a swap was given up: {reason}")
        text = f"{reason.rstrip('.')}. Nothing was changed; the generation before goes on."
        self._delivery.tell_state(restart_id, target.number if target is not None else 0, "refused", text)
        current = self._upstream.current
        if self._yielded and isinstance(current, Worker):
            current.retire()  # It has let go of everything, so another of its generation starts.
        elif self._delivery.holding:
            self._delivery.release()


def _pass() -> bool:
    """Wait for the next round of the loop, or for the time given with it."""
    return False


def _because(candidate: Candidate) -> str:
    if candidate.complaint is not None:
        return f": {candidate.complaint}"
    return " (it ended)" if candidate.gone else ""
