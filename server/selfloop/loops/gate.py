"""Whether a round's action goes ahead or a human decides: pure decisions, nothing is carried out here.

    decide ──▶ ask the gate, exactly once
       L1 ──▶ Report      whatever it answered
       L2 ──▶ Escalate    whatever it answered
       L3 ──▶ Proceed     if the gate and every rule of ours say so, else Escalate with the first reason

Invariant: a gate can only take away. No gate, no verdict and no allow list lets an action go ahead below L3, without
executed evidence, off the user's allow list, on a protected path, on the tests that are to prove it or on what runs
them, or where commands are not really jailed.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from typing import Literal, Protocol

from attrs import field, frozen

from selfloop.loops.spec import ActionKind, Level, LoopSpec
from selfloop.sandbox.protected import is_protected, is_shadow, is_test

logger = logging.getLogger(__name__)

Isolation = Literal["none", "changes", "process"]


@frozen
class Proposed:
    """What a round would carry out."""

    kind: ActionKind
    summary: str
    """One line."""
    level: Level
    verified: bool
    """The checker's strict verdict with executed evidence."""
    paths: tuple[str, ...] = ()
    """Every path that it touches, relative to the workspace; both names of a rename."""


@frozen
class Proceed:
    """It goes ahead."""


@frozen
class Escalate:
    """A human decides."""

    reason: str
    """One plain sentence."""


@frozen
class Report:
    """It ends in the report; nothing is carried out, and nobody is asked."""


Decision = Proceed | Escalate | Report
Answer = Proceed | Escalate
"""What a gate can say."""


class Gate(Protocol):
    """Whoever is asked before an action goes ahead."""

    def answer(self, proposed: Proposed) -> Answer:
        """Return whether it may go ahead, as far as this gate is concerned."""
        ...


@frozen
class AlwaysEscalate:
    """The default at every level: a human decides."""

    def answer(self, proposed: Proposed) -> Answer:
        """Escalate."""
        return Escalate(f"A human decides on every {proposed.kind} of this loop.")


@frozen
class AllowlistGate:
    """Lets verified actions of some kinds go ahead at L3: asks for the level, then the verdict, then the kind."""

    allowed: frozenset[ActionKind] = field(converter=frozenset)

    def answer(self, proposed: Proposed) -> Answer:
        """Proceed, or escalate with the first reason against it."""
        if proposed.level is not Level.L3:
            return Escalate(f"At {proposed.level} a human decides.")
        if not proposed.verified:
            return Escalate("The checker did not verify it with checks that it ran.")
        if proposed.kind not in self.allowed:
            return Escalate(f"The action {proposed.kind} is not on the loop's allow list.")
        return Proceed()


@frozen
class CallbackGate:
    """Asks a function of the caller's. One that fails has not agreed."""

    ask: Callable[[Proposed], Answer]

    def answer(self, proposed: Proposed) -> Answer:
        """Return the function's answer; escalate if it raises or answers with something else."""
        try:
            answer = self.ask(proposed)
        except Exception as error:
            logger.exception("The gate's function failed for a %s.", proposed.kind)
            return Escalate(f"The loop's gate failed ({type(error).__name__}), so a human decides.")
        if isinstance(answer, Proceed | Escalate):
            return answer
        return Escalate("The loop's gate gave no answer that counts, so a human decides.")


def gate_for(spec: LoopSpec) -> Gate:
    """Return the gate that a spec asks for: its allow list at L3, else a human."""
    return AllowlistGate(frozenset(spec.allow)) if spec.level is Level.L3 and spec.allow else AlwaysEscalate()


def decide(
    spec: LoopSpec,
    *,
    verified: bool,
    action: tuple[ActionKind, str] | None,
    paths: Collection[str],
    isolation: Isolation,
    gate: Gate,
) -> Decision:
    """Decide on a round's action.

    Args:
        spec: the loop as the user's settings have left it.
        verified: whether the checker verified it with executed evidence.
        action: its kind and, in one line, what it is; None: the round found nothing to do, so nobody is asked.
        paths: every path that it touches, both names of a rename.
        isolation: what the canary found to be enforced.
        gate: asked exactly once, whatever the level, unless there is no action.
    """
    if action is None:
        return Report()
    kind, summary = action
    proposed = Proposed(kind, summary, spec.level, verified, tuple(paths))
    answer = gate.answer(proposed)
    if spec.level is Level.L1:
        return Report()
    if spec.level is Level.L2:
        return answer if isinstance(answer, Escalate) else Escalate(f"At {Level.L2} a human decides.")
    if isinstance(answer, Escalate):
        return answer
    reason = _against(spec, proposed, isolation)
    return Escalate(reason) if reason else Proceed()


def _against(spec: LoopSpec, proposed: Proposed, isolation: Isolation) -> str | None:
    """Return the first reason why nothing may go ahead unattended, whatever a gate says."""
    own = AllowlistGate(frozenset(spec.allow)).answer(proposed)
    if isinstance(own, Escalate):
        return own.reason
    if proposed.kind == "promote-generation":
        return "A new generation is always decided by a human."
    protected = [path for path in proposed.paths if is_protected(path)]
    if protected:
        return f"It touches protected files ({_some(protected)}), which a human decides."
    tests = [path for path in proposed.paths if is_test(path)]
    if tests:
        return f"It changes tests ({_some(tests)}), which are what should prove it, so a human decides."
    shadows = [path for path in proposed.paths if is_shadow(path)]
    if shadows:
        return (
            f"It changes files that run in place of a test runner or of Python's own modules ({_some(shadows)}), so a "
            "human decides."
        )
    named = {path: None for _, command in spec.checks for path in _named(command, proposed.paths)}
    if named:
        return f"It changes what the checks run ({_some([*named])}), which should prove it, so a human decides."
    if isolation != "process":
        return f"Commands are not jailed here (isolation is {isolation}), so a human decides."
    return None


def _named(command: str, paths: Collection[str]) -> list[str]:
    """Return the files that a command names, as a path from wherever it goes, or as a module of Python."""
    words = set(re.split(r"[\s;&|()<>\"'`=,:]+", command))
    with contextlib.suppress(ValueError):
        words.update(shlex.split(command))
    words = {posixpath.normpath(word).casefold() for word in words if word}
    found = []
    for path in paths:
        plain = path.casefold()
        module = plain.removesuffix(".py").removesuffix("/__main__").removesuffix("/__init__").replace("/", ".")
        called = plain.endswith(".py") and "-m" in words and any(f"{word}.".startswith(f"{module}.") for word in words)
        runs = called or plain.removesuffix("/__main__.py") in words
        if runs or any(word == plain or word.endswith(f"/{plain}") or plain.endswith(f"/{word}") for word in words):
            found.append(path)
    return found


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def raised(before: LoopSpec, after: LoopSpec) -> tuple[str, ...]:
    """Return what a change would let a loop do more by itself, one sentence each; none: the change needs no gate."""
    sentences = []
    if after.level.rank > before.level.rank:
        sentences.append(f"The level of {after.name} is raised from {before.level} to {after.level}.")
    wider = [kind for kind in after.allow if kind not in before.allow]
    if wider:
        sentences.append(f"At {Level.L3}, {after.name} may carry out by itself: {', '.join(wider)}.")
    return tuple(sentences)
