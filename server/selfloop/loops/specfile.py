"""A loop's file: Markdown with front matter ⇄ `LoopSpec`.

    ---
    intent: See what changed since yesterday and say what needs a decision.
    level: L1-report
    cadence: daily 09:00
    budget: {iterations: 10, day: {total_tokens: 500k}}
    action: report
    ---

    # Maker
    …
    # Checker
    …

The front matter is YAML between `---` lines: it is what editors colour, forges render and people expect at the head of
a Markdown file. PyYAML reads it: small, kept, and in every installation already, since the model library needs it. It
is imported with the first file, not at the start, and only composes nodes: scalars are taken as they are written, so
`09:00`, `on` and `off` mean themselves, and each error knows its line.

Invariant: reading what was written gives the same spec. A file is taken whole or not at all; the reason is one sentence
that names the file and the line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfloop.agent.tools.verdicts import proves_nothing
from selfloop.errors import InvalidInput
from selfloop.loops.spec import (
    DEFAULT_ITERATIONS,
    FORGE_TOOLS,
    HEADING,
    TOOLS,
    ActionKind,
    Level,
    LoopBudget,
    LoopSpec,
    Origin,
    check_limits,
    plain_line,
    read_action,
)
from selfloop.model.budget import Limits

LARGEST_BYTES = 256 * 1024
LONGEST_MATTER = 16_384
"""Characters of front matter."""
_DEEP = re.compile(r"(?:[\[{][ \t\n]*|[-?:][ \t]+){20}")
"""What opens so many collections at once is no loop, and the reader's time grows with the square of the depth."""

_KEYS = (
    "name",
    "intent",
    "level",
    "max_level",
    "cadence",
    "budget",
    "action",
    "allow",
    "tools",
    "checks",
)
_LIMITS = ("input_tokens", "output_tokens", "total_tokens", "cost_usd", "seconds", "iterations")


class _Fault(Exception):
    """Raised when a line of the file cannot be used."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def read_file(path: Path, origin: Origin, *, shown: str | None = None) -> LoopSpec:
    """Read a loop's file; without `name`, the file's own name is the loop's.

    Args:
        path: the file. A repository's must be a plain file: a link could show any file of the user's to a model.
        origin: whose file it is.
        shown: how errors name it; None: by its name.

    Raises:
        InvalidInput: it cannot be read; the sentence names the file, the line and the reason.
    """
    file = shown or path.name
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if origin == "workspace" else 0)
    try:
        descriptor = os.open(path, flags)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidInput(f"{file} is no plain file, so this loop was not loaded; put a text file there.")
            data = stream.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read ({error.strerror or error}), so this loop was not loaded; mend the file."
        ) from error
    if len(data) > LARGEST_BYTES:
        raise InvalidInput(_sentence(file, 1, f"the file is larger than {LARGEST_BYTES // 1024} KiB"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInput(_sentence(file, line, "the text is not UTF-8")) from error
    return read(text, name=path.stem, origin=origin, file=file)


def read(text: str, *, name: str, origin: Origin, file: str | None = None) -> LoopSpec:
    """Read a loop's text.

    Args:
        text: the whole file.
        name: the loop's name where the text gives none.
        origin: whose file it is.
        file: how errors name it; None: `name` with `.md`.

    Raises:
        InvalidInput: it cannot be used; the sentence names the file, the line and the reason.
    """
    try:
        return _read(text, name, origin)
    except _Fault as fault:
        raise InvalidInput(_sentence(file or f"{name}.md", fault.line, fault.reason)) from fault


def _sentence(file: str, line: int, reason: str) -> str:
    return f"{file}, line {line}: {reason}, so this loop was not loaded; mend that line."


def _read(text: str, name: str, origin: Origin) -> LoopSpec:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[0].rstrip() != "---":
        raise _Fault("the file does not begin with front matter, a line `---`", 1)
    end = next((place for place, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise _Fault("the front matter has no end, a second line `---`", 1)
    nodes = _compose("\n".join(lines[1:end]))
    values: dict[str, Any] = {"name": name, "origin": origin}
    placed = {key: node.start_mark.line + 2 for key, node in nodes.items()}
    for key, node in nodes.items():
        values[key] = _READERS[key](node)
    values["maker"], values["checker"], heads = _texts(lines[end + 1 :], end + 2)
    try:
        return LoopSpec(**values)
    except InvalidInput as error:
        # The spec's phrase begins with what it is about; that tells the line.
        raise _Fault(error.message, _line_of(error.message, {**placed, **heads})) from error


_ABOUT = (
    ("the name", "name"),
    ("the intent", "intent"),
    ("the level", "level"),
    ("the cadence", "cadence"),
    ("the budget", "budget"),
    ("the action", "action"),
    ("there is no action", "action"),
    ("there is no tool", "tools"),
    ("the check ", "checks"),
    ("the checks ", "checks"),
    ("the maker", "maker"),
    ("the checker", "checker"),
)


def _line_of(message: str, placed: dict[str, int]) -> int:
    key = next((key for start, key in _ABOUT if message.startswith(start)), "")
    return placed.get(key, 1)


# The front matter


def _compose(text: str) -> dict[str, Any]:
    """Return the nodes of the front matter by key."""
    import yaml

    if len(text) > LONGEST_MATTER:
        raise _Fault(f"the front matter is longer than {LONGEST_MATTER:,} characters", 1)
    deep = _DEEP.search(text)
    if deep is not None:
        raise _Fault("the front matter is nested too deeply", text.count("\n", 0, deep.start()) + 2)
    try:
        # The front matter begins in the file's second line, hence + 2 wherever a mark is told.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "it means nothing"
        raise _Fault(f"the front matter is no valid YAML ({reason})", mark.line + 2 if mark else 2) from error
    except RecursionError as error:
        raise _Fault("the front matter is nested too deeply", 2) from error
    if root is None:
        raise _Fault("the intent is missing", 1)
    nodes = _mapping(root, "the front matter", _KEYS)
    if "intent" not in nodes:
        raise _Fault("the intent is missing", 1)
    return nodes


def _line(node: Any) -> int:
    return node.start_mark.line + 2


def _mapping(node: Any, what: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if node.id != "mapping":
        raise _Fault(f"{what} must be made of lines `key: value`", _line(node))
    found: dict[str, Any] = {}
    for key, value in node.value:
        if key.id != "scalar":
            raise _Fault(f"{what} has a key that is no word", _line(key))
        if known is not None and key.value not in known:
            raise _Fault(f"{what} knows no {key.value[:80]!r}; it can hold {', '.join(known)}", _line(key))
        if key.value in found:
            raise _Fault(f"{what} has {key.value[:80]!r} twice", _line(key))
        found[key.value] = value
    return found


def _scalar(node: Any, what: str) -> str:
    if node.id != "scalar":
        raise _Fault(f"{what} must be one value", _line(node))
    return node.value


def _items(node: Any, what: str) -> list[Any]:
    if node.id == "scalar" and not node.value:
        return []
    if node.id != "sequence":
        raise _Fault(f"{what} must be a list such as [one, two]", _line(node))
    return node.value


def _level(node: Any) -> Level:
    text = _scalar(node, "the level")
    try:
        return Level.read(text)
    except InvalidInput as error:
        raise _Fault(f"there is no level {text[:80]!r}; the levels are {', '.join(Level)}", _line(node)) from error


def _kind(node: Any, what: str) -> ActionKind:
    try:
        return read_action(_scalar(node, what))
    except InvalidInput as error:
        raise _Fault(error.message, _line(node)) from error


_THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}


def _number(node: Any, name: str) -> int | float:
    text = _scalar(node, f"the budget's {name}")
    whole = re.fullmatch(r"(-?[0-9][0-9_]*)([kKmM]?)", text)
    if whole:
        return int(whole[1].replace("_", "")[:20]) * _THOUSANDS[whole[2].lower()]
    if name in ("cost_usd", "seconds") and re.fullmatch(r"-?[0-9]{1,15}\.[0-9]{1,15}", text):
        return float(text)
    kind = "a number" if name in ("cost_usd", "seconds") else "a whole number such as 400000 or 400k"
    raise _Fault(f"the budget's {name} is {text[:80]!r}, but must be {kind}", _line(node))


def _limits(nodes: dict[str, Any], default_iterations: int | None) -> Limits:
    values: dict[str, Any] = {"max_iterations": default_iterations}
    for name, node in nodes.items():
        values[f"max_{name}"] = _number(node, name)
        try:
            check_limits(Limits(**{f"max_{name}": values[f"max_{name}"]}))
        except InvalidInput as error:
            raise _Fault(error.message, _line(node)) from error
    return Limits(**values)


def _budget(node: Any) -> LoopBudget:
    nodes = _mapping(node, "the budget", (*_LIMITS, "day"))
    day = nodes.pop("day", None)
    of_day = _mapping(day, "the day's budget", _LIMITS) if day is not None else {}
    return LoopBudget(_limits(nodes, DEFAULT_ITERATIONS), _limits(of_day, None))


def _tool(node: Any) -> str:
    name = _scalar(node, "a tool")
    if name not in TOOLS:
        known = ", ".join(sorted(FORGE_TOOLS))
        raise _Fault(f"there is no tool {name[:80]!r}; a loop can name {known}", _line(node))
    return name


def _checks(node: Any) -> tuple[tuple[str, str], ...]:
    checks = []
    for name, each in _mapping(node, "the list of checks").items():
        command = _scalar(each, f"the check {name[:80]!r}")
        if command.strip() and proves_nothing(command):
            shown = plain_line(command)[:80]
            raise _Fault(f"the check {name[:80]!r} is {shown!r}, which proves nothing about a change", _line(each))
        checks.append((name, command))
    return tuple(checks)


_READERS: dict[str, Callable[[Any], Any]] = {
    "name": lambda node: _scalar(node, "the name"),
    "intent": lambda node: _scalar(node, "the intent"),
    "level": _level,
    "max_level": _level,
    "cadence": lambda node: _scalar(node, "the cadence"),
    "budget": _budget,
    "action": lambda node: _kind(node, "the action"),
    "allow": lambda node: tuple(_kind(item, "an action") for item in _items(node, "the allow list")),
    "tools": lambda node: tuple(_tool(item) for item in _items(node, "the list of tools")),
    "checks": _checks,
}


# The texts below


def _texts(lines: list[str], first: int) -> tuple[str, str, dict[str, int]]:
    """Return the maker's and the checker's text, and the line at which each begins.

    Without headings, all of it is the maker's.
    """
    heads = [(place, match[1].lower()) for place, line in enumerate(lines) if (match := HEADING.fullmatch(line))]
    names = [name for _, name in heads]
    if not heads:
        return "\n".join(lines), "", {"maker": first, "checker": first}
    if names not in (["maker"], ["maker", "checker"]):
        place = heads[-1][0] + first
        raise _Fault("the texts must be one part `# Maker` and then at most one `# Checker`", place)
    before = heads[0][0]
    if re.sub(r"<!--.*?-->", "", "\n".join(lines[:before]), flags=re.DOTALL).strip():
        raise _Fault("there is text between the front matter and `# Maker`, which nobody would read", first)
    parts = [place for place, _ in heads] + [len(lines)]
    texts = {name: "\n".join(lines[start + 1 : stop]) for (start, name), stop in zip(heads, parts[1:], strict=True)}
    placed = {name: place + first for place, name in heads}
    return texts["maker"], texts.get("checker", ""), placed


def write(spec: LoopSpec) -> str:
    """Return a loop's file. What has its default value is left out; `read` gives the same spec for the same origin."""
    import yaml

    matter: dict[str, Any] = {"name": spec.name, "intent": spec.intent, "level": str(spec.level)}
    if spec.max_level is not Level.L3:
        matter["max_level"] = str(spec.max_level)
    matter["cadence"] = spec.cadence
    budget = _written_limits(spec.budget.round, DEFAULT_ITERATIONS)
    day = _written_limits(spec.budget.day, None)
    if budget or day:
        matter["budget"] = {**budget, **({"day": day} if day else {})}
    matter["action"] = spec.action
    for key, words in (("allow", spec.allow), ("tools", spec.tools)):
        if words:
            matter[key] = list(words)
    if spec.checks:
        matter["checks"] = dict(spec.checks)
    head = yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=1_000_000)
    checker = f"\n# Checker\n\n{spec.checker}\n" if spec.checker else ""
    return f"---\n{head}---\n\n# Maker\n\n{spec.maker}\n{checker}"


def _written_limits(limits: Limits, default_iterations: int | None) -> dict[str, Any]:
    values = {name: getattr(limits, f"max_{name}") for name in _LIMITS}
    if values["iterations"] == default_iterations:
        del values["iterations"]
    return {name: value for name, value in values.items() if value is not None}
