"""The step `decide`: what a round would carry out, whether it was asked before, and who decides on it.

    answer and changes ─▶ wish ─▶ gate.decide (level, verdict, kind, paths, jail) ─▶ prepared actions
                                     └─ decided or asked before: not asked again

Invariant: a level or an allow list that the user has taken away since the round began counts as taken away. What the
user has rejected is neither asked again nor carried out, whichever round makes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from attrs import evolve, frozen

from selfloop.changes import FileChange, seal
from selfloop.gates.gate import GateRecord
from selfloop.loops.actions import Action, ActionFailed
from selfloop.loops.answers import read_comments, read_draft, read_title
from selfloop.loops.gate import CallbackGate, Escalate, Gate, Proceed, Proposed, Report, decide, gate_for
from selfloop.loops.kept import content_of, contents_of
from selfloop.loops.spec import ActionKind, LoopSpec, lower
from selfloop.loops.steps import Result, Round, touched_paths
from selfloop.storage.rounds import RoundRecord

OF_CHANGES: tuple[ActionKind, ...] = ("apply-patch", "commit", "open-pr")
_EARLIER_ROUNDS = 500
"""Rounds of a loop whose decisions are looked at."""
_TITLE_CHARS = 80

Prepare = Callable[[Action, Sequence[FileChange]], Awaitable[Action]]


@frozen
class Wish:
    """What a round would carry out."""

    kind: ActionKind
    summary: str
    """One line."""
    actions: tuple[Action, ...] = ()
    """None for `apply-patch`, which is the gates' own business."""


@frozen
class Known:
    """What became of the same wish in an earlier round."""

    note: str
    gate_id: str | None = None
    """The open gate that asks for it already; None: it was decided."""


def read_wish(spec: LoopSpec, run_id: str, answer: str, changes: Sequence[FileChange]) -> Wish | None:
    """Return what a round would carry out by its answer and its changes; None: there is nothing to carry out."""
    if spec.action == "comment" and (comments := read_comments(answer)):
        actions = tuple(
            Action(kind="comment", loop_id=spec.name, run_id=run_id, body=one.text, about=one.about, number=one.number)
            for one in comments
        )
        places = ", ".join(f"{one.about.replace('-', ' ')} #{one.number}" for one in comments)
        return Wish("comment", f"Comment on {places}", actions)
    if spec.action == "draft" and (draft := read_draft(answer)):
        action = Action(kind="draft", loop_id=spec.name, run_id=run_id, title=draft.title, body=draft.text)
        return Wish("draft", f"Draft: {draft.title}", (action,))
    if not changes:
        allowed = spec.action == "report" and "report" in spec.allow
        return (
            Wish("report", "A report", (Action(kind="report", loop_id=spec.name, run_id=run_id),)) if allowed else None
        )
    files = ", ".join(change.path for change in changes[:3])
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    title = read_title(answer) or _first_sentence(answer) or f"Changes in {files}{more}"
    if spec.action in ("commit", "open-pr"):
        action = Action(kind=spec.action, loop_id=spec.name, run_id=run_id, title=title, body=answer)
        return Wish(spec.action, title, (action,))
    return Wish("apply-patch", f"Change {files}{more}")


async def decide_round(one: Round, *, now: LoopSpec, prepare: Prepare) -> Result:
    """Decide on what a round would carry out, and prepare it so that it can be shown and sent.

    Args:
        one: the round.
        now: its loop as the user's settings have it by now.
        prepare: fills in what an action's preview shows.
    """
    made, checked = one.results["make"], one.results["check"]
    spec = _lowered(one.spec, now)
    changes = await asyncio.to_thread(one.changes)
    wish = read_wish(spec, one.run_id, made["text"], changes)
    decision = decide(
        spec,
        verified=checked["verified"],
        action=None if wish is None else (wish.kind, wish.summary),
        paths=touched_paths(one) if wish is not None and wish.kind in OF_CHANGES else (),
        isolation=(await one.means.isolation()).level,
        gate=_gate(spec, made["status"]),
    )
    if wish is None:
        return {"decision": "report"}
    action = {"kind": wish.kind, "summary": wish.summary}
    if isinstance(decision, Report):
        return {"decision": "report", "action": action}
    if wish.kind == "report" and not isinstance(decision, Proceed):
        return {"decision": "report", "action": action}
    reason = decision.reason if isinstance(decision, Escalate) else None
    known = _known(one, wish, changes)
    if known is not None and known.gate_id is None:
        return {"decision": "report", "action": {**action, "summary": f"{wish.summary}. {known.note}"}}
    if known is not None:
        reason = f"{reason or 'A human decides.'} {known.note}"
        return {"decision": "escalate", "reason": reason, "action": action, "gates": [known.gate_id]}
    actions, refusals = [], []
    for wished in wish.actions:
        try:
            actions.append(await prepare(wished, changes if wish.kind in OF_CHANGES else ()))
        except ActionFailed as error:
            refusals.append(one.means.redact(error.message))
    kind = wish.kind
    if refusals and not actions and kind in OF_CHANGES:
        # The work is not lost for want of a remote: it waits as changes to the files.
        kind = "apply-patch"
        action = {"kind": kind, "summary": f"{wish.summary}. {' '.join(refusals)}"}
        reason = " ".join([*([reason] if reason else []), *refusals])
    elif refusals:
        action = {**action, "summary": f"{wish.summary}. {' '.join(refusals)}"}
        if not actions:
            return {"decision": "report", "action": action}
    return {
        "decision": "escalate" if reason else "proceed",
        **({"reason": reason} if reason else {}),
        "action": {**action, "kind": kind},
        "actions": [prepared.to_json() for prepared in actions],
        "content": content_of(kind, changes) if kind in OF_CHANGES else "",
    }


def text_content(action: Action) -> str:
    """Return by what a text is known when a later round writes it again; a comment has no title that is sent."""
    title = "" if action.kind == "comment" else action.title
    return seal("text", action.kind, action.about, action.number, title, action.body)


def sessions_of(one: Round) -> list[str]:
    """Return the makers' sessions of a loop's rounds, this one's included."""
    rounds = one.rounds.recent(one.record.loop_id, _EARLIER_ROUNDS)
    return [session for each in rounds if (session := each.state.get("maker_session")) is not None]


def _lowered(spec: LoopSpec, now: LoopSpec) -> LoopSpec:
    allow = tuple(kind for kind in spec.allow if kind in now.allow)
    return evolve(spec, level=lower(spec.level, now.level), allow=allow)


def _gate(spec: LoopSpec, status: str) -> Gate:
    if status == "Done":
        return gate_for(spec)

    def doubtful(proposed: Proposed) -> Escalate:
        return Escalate(f"The maker itself ended with {status}, so a human decides.")

    return CallbackGate(doubtful)


def _known(one: Round, wish: Wish, changes: Sequence[FileChange]) -> Known | None:
    """Return what became of exactly this in an earlier round, if anything did."""
    gates = one.means.gates
    if wish.kind in OF_CHANGES:
        contents = set(contents_of(changes))
        if contents and contents <= gates.rejected(sessions_of(one)):
            return Known("The user has rejected exactly this before, so nobody was asked again.")
        content = content_of(wish.kind, changes)
        if wish.kind == "apply-patch":
            return _waiting(one, content)
        return _asked(gates.questions.latest("action", content))
    asked = [_asked(gates.questions.latest("action", text_content(action))) for action in wish.actions]
    if not asked or any(known is None for known in asked):
        return None
    return next((known for known in asked if known is not None and known.gate_id is not None), asked[0])


def _asked(record: GateRecord | None) -> Known | None:
    if record is None or record.state not in ("open", "resolved"):
        return None
    if record.state == "open":
        return Known("It was asked before and waits at the same gate.", record.gate_id)
    said = "approved" if record.resolved_by == "approve" else "rejected"
    return Known(f"Exactly this was {said} before, so nobody was asked again.")


def _waiting(one: Round, content: str) -> Known | None:
    """Return the open gate at which an earlier round's same changes wait."""
    for record in one.means.gates.list("open"):
        if record.subject_type == "changes" and record.run_id not in (None, one.run_id):
            earlier = _round(one, record.run_id or "")
            if (
                earlier is not None
                and earlier.loop_id == one.record.loop_id
                and earlier.state.get("content") == content
            ):
                return Known("It was asked before and waits at the same gate.", record.gate_id)
    return None


def _round(one: Round, run_id: str) -> RoundRecord | None:
    return next(
        (each for each in one.rounds.recent(one.record.loop_id, _EARLIER_ROUNDS) if each.run_id == run_id), None
    )


def _first_sentence(answer: str) -> str:
    line = next((line.strip("#*_> `") for line in answer.splitlines() if line.strip("#*_> `")), "")
    sentence = line.split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= _TITLE_CHARS else sentence[: _TITLE_CHARS - 1] + "…"
