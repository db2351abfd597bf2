"""From sessions to suggestions: what a reflection reads, what it suggests, and which of it is worth trying.

    prepare ─▶ reflect (summaries first, ranges on demand) ─▶ suggestions ─▶ weigh (VERIFY must fail now) ─▶ one leads

Invariant: a suggestion counts only if it names what may evolve and its VERIFY, run by us in the jail on the present
self, fails; what is dropped is kept with its reason and shown to the next reflection. A session counts as learned from
only when all of that is done.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import msgspec

from selfloop.agent.fence import Fence
from selfloop.agent.tools.verdicts import SuggestImprovement
from selfloop.errors import SandboxError, Unknown
from selfloop.evolution.bench import VERIFY_SECONDS, last_line
from selfloop.evolution.ledger import Heard, Ledger
from selfloop.evolution.lessons import Lesson, stage
from selfloop.evolution.undertaking import Undertaking, ending
from selfloop.loops.crew import Brief
from selfloop.loops.report import reported
from selfloop.loops.spec import EVOLUTION, Level
from selfloop.loops.steps import Result, carried
from selfloop.supervisor.contract import may_evolve

logger = logging.getLogger(__name__)

REFLECT = "reflect failed"
MOST_SUGGESTIONS = 12
"""More is no choice but a list without end."""
_LONGEST_VERIFY = 2_000
_LONGEST_IMPROVEMENT = 8_000
_EARLIER = 12
_NO_COMMAND = (126, 127)
"""What a shell answers where there is no such program: that fails for every change."""
_BROKEN = "INTERNALERROR>"
"""What pytest prints when it is itself that failed, and no test."""
_SUMMARIES_CHARS = 40_000
_OUTPUT_CHARS = 1_500
_DELIVERED = ("end_turn", "stuck", "max_tokens")
"""How a turn stops that has come to its end."""
HOLDS = frozenset({"read_file", "list_files", "search", "suggest_improvement"})


async def reflect(under: Undertaking) -> Result:
    """Have an agent read the sessions and suggest; return what it suggested."""
    one = under.one
    desk = under.desk("reflector")
    root = desk.parts.outputs / "reflected"
    sessions = [Heard(name, size) for name, size in under.base["sessions"]]
    ledger = Ledger(one.means.store.root)

    def staged() -> list[Lesson]:
        folder = one.means.store.root / "sessions"
        return [stage(each.session, folder / each.session / "traj.jsonl", root, one.means.redact) for each in sessions]

    lessons = await asyncio.to_thread(staged)
    dumb = {lesson.session: lesson.note or "" for lesson in lessons if not lesson.readable}
    for each in sessions:
        if each.session in dumb:
            await asyncio.to_thread(ledger.mark, [each], "failed", one.run_id, dumb[each.session])
    if len(dumb) == len(lessons):
        why = next(iter(dumb.values()), "")
        return ending(reported(), f"None of the {len(dumb)} sessions could be read, so nothing was learned. {why}")
    member = under.member("reflector", HOLDS, _is_endless, {"sessions": root})
    isolation = under.bench.isolation
    ends = [event.data["stop_reason"] for event in desk.parts.trajectory.events() if event.kind == "turn_end"]
    if ends and desk.state.turn_id is None and ends[-1] in _DELIVERED:
        stop, ended = ends[-1], None  # A kill came after the turn and before its result was stored.
    else:
        worktree = await under.bench.fresh()
        try:
            task = _task(under, [lesson for lesson in lessons if lesson.readable], desk.fence())
            stop, ended = await carried(
                one, member, REFLECT, lambda: member.run(worktree, isolation, lambda: Brief("reflect", {}, task))
            )
        finally:
            await under.bench.release(worktree)
    suggestions = _suggested(desk.parts.trajectory.events())
    desk.record("reflect_result", {"suggestions": suggestions, "stop_reason": stop})
    heard = [each for each in sessions if each.session not in dumb]
    if ended:
        why = (ended.get("error") or ended.get("limit") or "it was ended") if isinstance(ended, dict) else ""
        await asyncio.to_thread(ledger.mark, heard, "failed", one.run_id, str(why))
        return {"ended": ended, "said": member.last_words()}
    if len(suggestions) > MOST_SUGGESTIONS:
        said = (
            f"The reflection suggested {len(suggestions)} improvements without coming to an end, so none was tried; "
            "the sessions will be reflected on again."
        )
        await asyncio.to_thread(ledger.mark, heard, "failed", one.run_id, said)
        return ending(reported(), said)
    return {"suggestions": suggestions, "read": [each.session for each in heard], "text": member.last_words()}


async def weigh(under: Undertaking, level: Level) -> Result:
    """Run each suggestion's VERIFY on the present self; the first that fails leads. Marks the sessions as learned."""
    one = under.one
    suggestions = one.results["reflect"]["suggestions"]
    dropped: list[dict[str, str]] = []
    kept: list[dict[str, str]] = []
    known = {_content(attempt.suggestion) for attempt in under.generations.attempts() if attempt.by == "user"}
    seen: set[str] = set()
    worktree = await under.bench.fresh() if suggestions else None
    try:
        for number, each in enumerate(suggestions):
            reason = _unfit(each, known, seen)
            seen.add(_content(each))
            if reason is None and worktree is not None:
                await worktree.reset()
                try:
                    result = await under.bench.run(each["verify"], worktree, under.spill(f"verify-before-{number}"))
                except SandboxError as error:
                    reason = error.message
                else:
                    if result.timed_out:
                        reason = f"its VERIFY did not end within {VERIFY_SECONDS:.0f} seconds"
                    elif result.exit_code == 0:
                        reason = "its VERIFY passes already, so it proves nothing"
                    elif result.exit_code in _NO_COMMAND or _BROKEN in result.output:
                        reason = f"its VERIFY cannot be run here ({last_line(one.means.redact(result.output))})"
                    else:
                        shown = one.means.redact(result.output)[-_OUTPUT_CHARS:]
                        kept.append({**each, "before": f"exit code {result.exit_code}\n{shown}"})
            if reason is not None:
                dropped.append({**each, "reason": reason})
    finally:
        if worktree is not None:
            await under.bench.release(worktree)
    await asyncio.to_thread(_learned, under)
    if not suggestions:
        return ending(reported(), "The reflection found nothing to improve, so nothing was changed.")
    if not kept:
        reasons = "; ".join(f"{each['file']}: {each['reason']}" for each in dropped[:5])
        said = f"None of the {len(dropped)} suggestions can be proven, so nothing was changed ({reasons})."
        return {**ending(reported(), said), "dropped": dropped}
    if level is Level.L1:
        listed = "\n".join(f"- {each['file']}: {each['improvement']} VERIFY: {each['verify']}" for each in kept)
        return {**ending(reported(), f"Suggested, and not tried at {Level.L1}:\n{listed}"), "dropped": dropped}
    return {"leading": kept[0], "left": kept[1:], "dropped": dropped}


def _learned(under: Undertaking) -> None:
    """Note that the sessions were learned from, and move the watermark. Writes the disk."""
    one = under.one
    ledger = Ledger(one.means.store.root)
    read = set(one.results["reflect"]["read"])
    sessions = [Heard(name, size) for name, size in under.base["sessions"]]
    ledger.mark([each for each in sessions if each.session in read], "done", one.run_id)
    ledger.move_watermark([Heard(name, size) for name, size in under.base["heard"]])


def _unfit(each: dict[str, str], rejected: set[str], seen: set[str]) -> str | None:
    """Return why a suggestion is not even tried; None: it may be."""
    if not may_evolve(each["file"]):
        return "it names a file that may not evolve"
    if not each["improvement"].strip() or not each["verify"].strip():
        return "it lacks the improvement or the VERIFY command"
    if len(each["verify"]) > _LONGEST_VERIFY or len(each["improvement"]) > _LONGEST_IMPROVEMENT:
        return "it is far too long"
    if _content(each) in rejected:
        return "the user has rejected exactly this before"
    return "it was suggested twice" if _content(each) in seen else None


def _content(suggestion: dict[str, Any]) -> str:
    """Return by what a suggestion is known when it is made again."""
    words = (" ".join(str(suggestion.get(name, "")).split()).casefold() for name in ("file", "improvement", "verify"))
    return "\0".join(words)


def _suggested(events: list[Any]) -> list[dict[str, str]]:
    """Return what was suggested, by the trajectory: a reflection that a kill has cut off loses nothing of it."""
    asked: dict[str, str] = {}
    found = []
    for event in events:
        if event.kind == "tool_call" and event.data.get("name") == "suggest_improvement":
            asked[event.data["tool_call_id"]] = event.data["arguments"]
        elif event.kind == "tool_result" and event.data.get("tool_call_id") in asked:
            arguments = asked.pop(event.data["tool_call_id"])
            if event.data.get("status") == "completed":
                try:
                    given = msgspec.convert(json.loads(arguments, strict=False), SuggestImprovement, strict=False)
                except (ValueError, msgspec.ValidationError):
                    logger.warning("A suggestion in the trajectory cannot be read.")
                    continue
                plain = {"file": given.file, "improvement": given.improvement, "verify": given.verify}
                found.append({name: value.strip() for name, value in plain.items()})
    return found


def _is_endless(bench: Any) -> bool:
    return len(bench.submitted) > MOST_SUGGESTIONS


# What the agent is shown


def _task(under: Undertaking, lessons: list[Lesson], fence: Fence) -> str:
    shown: list[str] = []
    left = _SUMMARIES_CHARS
    for lesson in lessons:
        note = f"\n({lesson.note})" if lesson.note else ""
        text = fence.data(lesson.summary, source=f"summary of {lesson.session}") + note
        if len(text) > left:
            shown.append(f"@sessions/{lesson.session}/traj.jsonl: read it by range; its summary had no room here.")
            continue
        left -= len(text)
        shown.append(text)
    before = _before(under)
    past = fence.data(before, source="earlier evolutions") if before else "There was none."
    return "\n\n".join(
        [
            f"These {len(lessons)} sessions were not learned from yet, the oldest first. Each summary names its file; "
            "a number after `at` is the character at which that event begins there.",
            *shown,
            f"What earlier evolutions tried, and what became of it:\n{past}",
            "Reflect on them now.",
        ]
    )


def _before(under: Undertaking) -> str:
    """Return what became of earlier suggestions: adopted, rolled back, rejected, dropped, or left for another time."""
    rows = [
        f"generation {each.number} ({each.state}): {each.suggestion.get('file')}: {each.summary}"
        + (f" Reason: {each.reason}" if each.reason else "")
        for each in under.generations.list()
        if each.number
    ][-_EARLIER:]
    rows += [
        f"rejected by {each.by}: {each.suggestion.get('file')}: {each.suggestion.get('improvement')} "
        f"Reason: {each.reason}"
        for each in under.generations.attempts()
    ][-_EARLIER:]
    for record in under.one.rounds.recent(EVOLUTION, _EARLIER):
        if record.run_id == under.one.run_id:
            continue
        try:
            step = under.one.rounds.steps(record.run_id).get("weigh")
        except Unknown:
            continue
        weighed = (step.result if step is not None else None) or {}
        rows += [f"dropped: {each['file']}: {each['improvement']} Reason: {each['reason']}"
                 for each in weighed.get("dropped", ())]  # fmt: skip
        rows += [f"left for another time: {each['file']}: {each['improvement']} VERIFY: {each['verify']}"
                 for each in weighed.get("left", ())]  # fmt: skip
    return "\n".join(row[:600] for row in rows)
