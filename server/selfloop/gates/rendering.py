"""A whole gate as a text file, `.evo/gates/<id>.diff`, for editors that have nothing better.

Invariant: a line that begins with `# hunk ` names a hunk, and everything up to the next such line or the next file
belongs to it. No content can fake one: in a diff its lines begin with a blank, a plus or a minus.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from selfloop.changes import visible
from selfloop.gates.gate import EvidenceItem, GateRecord
from selfloop.gates.review import FileReview

_HUNK = re.compile(r"# hunk ([0-9a-f]{16}): ")


@frozen
class DiffSpan:
    """The lines [start, end) of a gate's diff file that are about one hunk."""

    start: int
    end: int
    hunk_id: str


def render(record: GateRecord, reviews: Sequence[FileReview], evidence: Sequence[EvidenceItem]) -> str:
    """Return the text of a gate's diff file."""
    lines = [
        f"# {visible(record.title)}".replace("\n", " "),
        f"# gate {record.gate_id}: {record.state}" + (f" by {record.resolved_by}" if record.resolved_by else ""),
        f"# risk: {record.risk}",
    ]
    if record.state == "open":
        lines.append(f"# Decide by the code actions on a hunk, or by: selfloop gate approve {record.gate_id}")
    if preview := _preview(record.subject):
        # Set in, so that no line of it can pass for the head of a hunk.
        lines += ["", *(f"  {visible(line)}".rstrip() for line in preview.split("\n"))]
    for item in evidence:
        code = "killed" if item.exit_code is None else f"exit code {item.exit_code}"
        lines.append(f"# ran: {visible(item.command)} ({code})".replace("\n", " "))
    for one in reviews:
        lines += ["", *_file(one)]
    return "\n".join(lines) + "\n"


def _preview(subject: dict[str, Any]) -> str:
    """Return exactly what an approval would bring about, where that is no change of the user's files."""
    if subject.get("type") != "evolution":
        return str(subject.get("preview") or "")
    layers = [
        f"{layer['name']} {layer['title']}: {'passed' if layer['passed'] else 'FAILED'}. {layer['reason']}"
        for layer in subject.get("layers", ())
    ]
    parts = [
        f"What was learned: {subject.get('learned', '')}",
        f"What failed before and passes after it: {subject.get('verify', '')}",
        "\n".join(["Learned from:", *map(str, subject.get("origins", ()))]),
        "\n".join(["What proves it:", *layers]),
        f"The change of generation {subject.get('parent', 0)}:\n{subject.get('diff', '')}",
    ]
    return "\n\n".join(parts)


def hunk_spans(text: str) -> list[DiffSpan]:
    """Return where the hunks are in the text of a gate's diff file."""
    spans: list[DiffSpan] = []
    start, hunk_id = 0, ""
    lines = [*text.split("\n"), "diff --git"]
    for number, line in enumerate(lines):
        match = _HUNK.match(line)
        if match or line.startswith("diff --git") or line == "":
            if hunk_id:
                spans.append(DiffSpan(start, number, hunk_id))
            start, hunk_id = number, match.group(1) if match else ""
    return spans


def _file(one: FileReview) -> list[str]:
    marked: set[str] = set()
    lines = []
    for line in one.diff():
        if line.hunk_id is not None and line.hunk_id not in marked:
            marked.add(line.hunk_id)
            lines.append(_mark(one, line.hunk_id))
        lines.append(line.text)
    if not lines:
        lines.append(f"diff --git a/{visible(one.change.old_path or one.change.path)} b/{visible(one.change.path)}")
    for hunk in one.change.hunks:
        if hunk.id not in marked:
            lines.append(_mark(one, hunk.id))
            if one.status(hunk.id) == "stale":
                lines += [f"-{visible(line)}" for line in hunk.old.split("\n")]
                lines += [f"+{visible(line)}" for line in hunk.new.split("\n")]
    return lines


def _mark(one: FileReview, hunk_id: str) -> str:
    reason = one.reason(hunk_id)
    text = f"# hunk {hunk_id}: {one.status(hunk_id)}, {one.states[hunk_id].risk} risk"
    return visible(f"{text}. {reason}" if reason else text).replace("\n", " ")
