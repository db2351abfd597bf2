"""G1: what was changed may change, and hides nothing. Nothing of the candidate is run or imported here."""

from __future__ import annotations

from collections.abc import Iterator

from selfloop.evolution.layers.profile import Profile
from selfloop.evolution.layers.source_policy import new_findings
from selfloop.evolution.layers.stage import Entry
from selfloop.evolution.layers.text_policy import (
    LARGEST_FILE_BYTES,
    padding,
    prompt_findings,
    unseen,
    vital_findings,
)
from selfloop.supervisor.contract import may_evolve

_EVOLVED_TESTS = "tests/evolved/"
_NEVER = frozenset({"conftest.py", "sitecustomize.py", "usercustomize.py", "__main__.py", "__pycache__"})


def changed_paths(parent: dict[str, Entry], child: dict[str, Entry]) -> list[str]:
    """Return every path that differs in content, mode or existence; blocks on the disk."""
    found = []
    for path in sorted(parent.keys() | child.keys()):
        before, after = parent.get(path), child.get(path)
        if before is None or after is None or before.mode != after.mode or before.read() != after.read():
            found.append(path)
    return found


def static_findings(parent: dict[str, Entry], child: dict[str, Entry], profile: Profile) -> list[str]:
    """Return why a candidate's change may not be, one sentence each; none: it may. Blocks on the disk."""
    changed = changed_paths(parent, child)
    if not changed:
        return ["Nothing was changed, so there is nothing to judge."]
    found = [
        f"{path}: {reason}."
        for path in changed
        for reason in _of_file(path, parent.get(path), child.get(path), profile)
    ]
    lines = sum(_changed_lines(parent.get(path), child.get(path)) for path in changed)
    if lines > profile.largest_change_lines:
        found.append(f"{lines:,} lines are changed at once, more than {profile.largest_change_lines:,}.")
    folded: dict[str, str] = {}
    for path in child:
        if folded.setdefault(path.casefold(), path) != path:
            found.append(f"{path}: it differs from {folded[path.casefold()]} in case only.")
    return found


def _of_file(path: str, before: Entry | None, after: Entry | None, profile: Profile) -> Iterator[str]:
    if not may_evolve(path):
        yield "it may not evolve, and was " + ("deleted" if after is None else "added" if before is None else "changed")
        return
    if path.rpartition("/")[2] in _NEVER:
        yield "a file of this name runs without being asked for"
        return
    if path.startswith(_EVOLVED_TESTS) and before is not None:
        yield "it is a test that is there, so it is sealed"
        return
    if after is None:
        if not path.startswith("server/"):
            yield "it is deleted, and something may read it"
        return
    if after.mode not in (0o100644, before.mode if before is not None else 0):
        yield "it is a link, or can be executed" if after.mode else "it is no regular file"
        return
    if before is not None and before.mode != after.mode:
        yield "its mode is changed"
    data = after.read()
    if len(data) > LARGEST_FILE_BYTES:
        yield f"it has {len(data):,} bytes"
        return
    text, old = _text(after), _text(before) if before is not None else None
    if text is None or (before is not None and old is None):
        yield "it is no UTF-8 text"
        return
    yield from unseen(text, old or "")
    yield from padding(old, text)
    if path.endswith(".py"):
        yield from new_findings(old, text, test=path.startswith(_EVOLVED_TESTS))
    if path.startswith("prompts/"):
        yield from prompt_findings(path, old, text)
    yield from vital_findings(text, profile.vital.get(path, ()))


def _text(entry: Entry) -> str | None:
    try:
        data = entry.read()
        return None if b"\0" in data or b"\r" in data else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _changed_lines(before: Entry | None, after: Entry | None) -> int:
    """Return how many lines are not in the other, which is quick and near enough for a limit."""
    old = set(before.read().splitlines()) if before is not None and before.mode else set()
    new = set(after.read().splitlines()) if after is not None and after.mode else set()
    return len(old ^ new)
