"""What a reflection is shown of the sessions: a stripped summary first, and whole trajectories to read ranges of.

    traj.jsonl ─▶ stage ─▶ @sessions/<id>/traj.jsonl   clean lines, read-only; what is no event is left out and counted
                       └─▶ summary                     the user's words, failures, decisions, each with its place

Invariant: no trajectory can end a reflection: torn lines, foreign bytes and whole files that cannot be read are told in
a sentence and passed over. No secret is staged. Sizes are bounded, so that one long session does not hide the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from selfloop.agent.fence import mend
from selfloop.errors import StoreError
from selfloop.evolution.ledger import Heard
from selfloop.storage.disk import saying, write_file
from selfloop.storage.trajectories import Event, read_events

MOST_SESSIONS = 20
"""Learned from at once, the oldest first; the rest waits for the next reflection."""
STAGED_CHARS = 4_000_000
SUMMARY_CHARS = 4_000
_SAID_CHARS = 400
_FAILED_CHARS = 240
_MOST_SAID = 8
_MOST_FAILED = 8
_NOT_STAGED = frozenset({"context", "llm_request", "usage", "fence"})
"""What we told the model ourselves, and book-keeping."""


@frozen
class Lesson:
    """One session as it is shown."""

    session: str
    summary: str
    """Fenced by whoever shows it."""
    readable: bool
    note: str | None = None
    """A sentence about what was left out, or why nothing can be read."""


def heard(root: Path, states: Callable[[str], Mapping[str, Any]], is_own: Callable[[str], bool]) -> list[Heard]:
    """Return the sessions of a workspace that have something to learn from, oldest first. Reads the disk.

    Args:
        root: `.evo`.
        states: what is kept for a session: `run` and `role` of a round's, `running` while a turn runs.
        is_own: tells of a round's id whether it was an evolution: nobody learns from looking at himself look.
    """
    found = []
    folder = root / "sessions"
    with saying(f"The sessions in {folder} could not be listed"):
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        file = folder / name / "traj.jsonl"
        state = states(name)
        run_id = state.get("run")
        if state.get("running") or state.get("role") == "checker" or (run_id and is_own(run_id)):
            continue
        try:
            size = file.stat().st_size
        except OSError:
            continue  # Nothing was ever said in it.
        if size:
            found.append(Heard(name, size))
    return found


def stage(session: str, file: Path, folder: Path, redact: Callable[[str], str]) -> Lesson:
    """Put a clean copy of a trajectory where it can be read by range, and return its summary.

    Args:
        session: its id.
        file: its trajectory.
        folder: what `@sessions` is.
        redact: takes secrets out of a text.

    Raises:
        StoreError: the copy could not be written.
    """
    lines: list[str] = []
    places: list[tuple[int, Event]] = []
    length = left_out = 0
    try:
        for event in read_events(file):
            if event.kind in _NOT_STAGED:
                continue
            line = redact(
                mend(json.dumps({"ts": event.ts, "kind": event.kind, "data": event.data}, ensure_ascii=False))
            )
            if length + len(line) > STAGED_CHARS:
                left_out += 1
                continue
            places.append((length, event))
            lines.append(line)
            length += len(line) + 1
    except StoreError as error:
        return Lesson(session, "", False, error.message)
    if not places:
        return Lesson(session, "", False, f"The trajectory of {session} holds no event that can be read.")
    target = folder / session / "traj.jsonl"
    with saying("The copy of a trajectory could not be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
    note = f"{left_out} events at its end are left out: it is too long." if left_out else None
    return Lesson(session, _summary(session, places, length, redact), True, note)


def _summary(session: str, places: Sequence[tuple[int, Event]], length: int, redact: Callable[[str], str]) -> str:
    kinds = Counter(event.kind for _, event in places)
    tools = Counter(str(event.data.get("name")) for _, event in places if event.kind == "tool_call")
    first, last = places[0][1].ts, places[-1][1].ts
    parts = [
        f"@sessions/{session}/traj.jsonl, {length} characters, {first} to {last}",
        "events: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
    ]
    if tools:
        parts.append("tool calls: " + ", ".join(f"{name} {count}" for name, count in tools.most_common(12)))
    said = [(at, _text(event, "text")) for at, event in places if event.kind in ("user_input", "requeued")]
    parts += _rows("the user said", [(at, text) for at, text in said if text], _MOST_SAID, _SAID_CHARS, redact)
    failed = [
        (at, f"{event.data.get('name')}: {_text(event, 'content')}")
        for at, event in places
        if event.kind == "tool_result" and event.data.get("status") == "failed"
    ]
    parts += _rows("failed", failed, _MOST_FAILED, _FAILED_CHARS, redact)
    decided = [
        (at, json.dumps(event.data, ensure_ascii=False)) for at, event in places if event.kind == "gate_resolved"
    ]
    parts += _rows("decided", decided, _MOST_FAILED, _FAILED_CHARS, redact)
    ended = Counter(str(event.data.get("stop_reason")) for _, event in places if event.kind == "turn_end")
    if ended:
        parts.append("turns ended: " + ", ".join(f"{why} {count}" for why, count in sorted(ended.items())))
    answers = [(at, _answer(event)) for at, event in places if event.kind == "llm_response" and _answer(event)]
    parts += _rows("last answer", answers[-1:], 1, _SAID_CHARS, redact)
    text = "\n".join(parts)
    return text if len(text) <= SUMMARY_CHARS else text[: SUMMARY_CHARS - 1] + "…"


def _rows(
    label: str, rows: Sequence[tuple[int, str]], most: int, chars: int, redact: Callable[[str], str]
) -> Iterable[str]:
    """Return lines such as `failed at 1200: …`; of too many, the first and the last ones."""
    chosen = rows if len(rows) <= most else [*rows[: most // 2], *rows[-(most - most // 2) :]]
    for at, text in chosen:
        line = " ".join(redact(mend(text)).split())
        yield f"{label} at {at}: {line if len(line) <= chars else line[: chars - 1] + '…'}"


def _text(event: Event, name: str) -> str:
    value = event.data.get(name)
    return value if isinstance(value, str) else ""


def _answer(event: Event) -> str:
    message = event.data.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
