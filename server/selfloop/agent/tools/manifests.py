"""What a project's files say it depends on: Python, Node, Rust and Go. Pure functions over text.

Invariant: nothing of a manifest is run. A dependency without a version of an index (a path, a git address, a link to a
workspace) is left out: there is nothing newer to find.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from selfloop.sandbox.registries import Ecosystem

_PYTHON = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?\s*([^;@#()]*)")
_GO = re.compile(r"^\s*(?:require\s+)?([A-Za-z0-9][^\s()]*\.[^\s()]*)\s+(v\d\S*)([^\n]*)$", re.MULTILINE)
_CLAUSE = re.compile(r"(===|==|~=|!=|>=|<=|>|<|\^|~|=)?\s*v?(\d+(?:\.\d+)*)((?:\.[*xX])?)[^\s,|]*")


@frozen
class Requirement:
    """One dependency as one file names it."""

    ecosystem: Ecosystem
    name: str
    constraint: str
    """As it is written; empty: any version."""
    file: str


def read_manifest(file: str, text: str) -> list[Requirement]:
    """Return what a manifest depends on; nothing where the file is none that is known.

    Args:
        file: its path; only the last name decides.
        text: its content.

    Raises:
        ValueError: it is no valid TOML or JSON; the message says why.
    """
    name = file.rpartition("/")[2]
    if re.fullmatch(r"requirements[\w.-]*\.(?:txt|in)", name):
        pairs = _requirements(text)
        return [Requirement("python", *pair, file) for pair in pairs]
    reader = _READERS.get(name)
    if reader is None:
        return []
    ecosystem, read = reader
    return [Requirement(ecosystem, *pair, file) for pair in dict.fromkeys(read(text))]


def admits(ecosystem: Ecosystem, constraint: str, version: str) -> bool | None:
    """Tell whether a constraint lets a version in; None where it is written in a way that is not understood."""
    there = _numbers(version)
    if not constraint.strip() or constraint.strip() in ("*", "latest", "x"):
        return True
    if not there:
        return None
    for alternative in constraint.split("||"):
        clauses = list(_CLAUSE.finditer(alternative))
        if not clauses or " - " in alternative:
            return None
        if all(_holds(_operator(ecosystem, clause), _numbers(clause[2]), there) for clause in clauses):
            return True
    return False


def _operator(ecosystem: Ecosystem, clause: re.Match[str]) -> str:
    if clause[3]:
        return "*"
    return clause[1] or {"rust": "^", "go": "=="}.get(ecosystem, "==")


def _holds(operator: str, wanted: tuple[int, ...], there: tuple[int, ...]) -> bool:
    size = max(len(wanted), len(there), 3)
    low, at = wanted + (0,) * (size - len(wanted)), there + (0,) * (size - len(there))
    match operator:
        case "==" | "===" | "=":
            return at == low
        case "*":
            return at[: len(wanted)] == wanted
        case "!=":
            return at != low
        case ">=":
            return at >= low
        case "<=":
            return at <= low
        case ">":
            return at > low
        case "<":
            return at < low
        case "~=":
            return at >= low and at[: max(1, len(wanted) - 1)] == wanted[: max(1, len(wanted) - 1)]
        case "~":
            return at >= low and at[: min(2, len(wanted))] == wanted[:2]
        case _:
            # A caret lets in what keeps the first number that is not zero.
            fixed = next((place for place, number in enumerate(wanted) if number), len(wanted) - 1) + 1
            return at >= low and at[:fixed] == wanted[:fixed]


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _requirements(text: str) -> Iterator[tuple[str, str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "-")):
            yield from _python(re.split(r"\s--?\w", line)[0])


def _python(line: str) -> Iterator[tuple[str, str]]:
    found = _PYTHON.match(line)
    if found and "@" not in line.split(";")[0] and "://" not in line:
        yield found[1], found[2].strip()


def _pyproject(text: str) -> Iterator[tuple[str, str]]:
    data = tomllib.loads(text)
    project = _table(data, "project")
    lines = [*_list(project, "dependencies"), *_list(_table(data, "build-system"), "requires")]
    for group in (_table(project, "optional-dependencies"), _table(data, "dependency-groups")):
        for name in group:
            lines += _list(group, name)
    for line in lines:
        if isinstance(line, str):
            yield from _python(line)
    poetry = _table(_table(data, "tool"), "poetry")
    tables = [_table(poetry, "dependencies"), _table(poetry, "dev-dependencies")]
    tables += [_table(group, "dependencies") for group in _table(poetry, "group").values() if isinstance(group, dict)]
    for table in tables:
        yield from ((name, constraint) for name, constraint in _versions(table) if name != "python")


def _package_json(text: str) -> Iterator[tuple[str, str]]:
    data = json.loads(text)
    for kind in ("dependencies", "devDependencies", "optionalDependencies"):
        for name, constraint in _table(data, kind).items():
            if isinstance(constraint, str) and ":" not in constraint and "/" not in constraint:
                yield name, constraint


def _cargo(text: str) -> Iterator[tuple[str, str]]:
    data = tomllib.loads(text)
    places = [data, _table(data, "workspace"), *_table(data, "target").values()]
    for place in places:
        for kind in ("dependencies", "dev-dependencies", "build-dependencies"):
            yield from _versions(_table(place, kind))


def _go(text: str) -> Iterator[tuple[str, str]]:
    blocks = re.findall(r"^require\s*\(([^)]*)\)", text, re.MULTILINE)
    singles = re.findall(r"^require\s+[^(\n]+$", text, re.MULTILINE)
    for match in _GO.finditer("\n".join((*blocks, *singles))):
        if "// indirect" not in match[3]:
            yield match[1], match[2]


def _versions(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what Poetry and Cargo write: a text, or a table with a version; what comes from elsewhere is left out."""
    for name, value in table.items():
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict) and isinstance(value.get("version"), str) and not {"path", "git"} & set(value):
            named = value.get("package")
            yield (named if isinstance(named, str) else name), value["version"]


def _table(data: object, name: str) -> dict[str, Any]:
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def _list(data: dict[str, Any], name: str) -> list[Any]:
    value = data.get(name)
    return value if isinstance(value, list) else []


_READERS: Mapping[str, tuple[Ecosystem, Callable[[str], Iterator[tuple[str, str]]]]] = {
    "pyproject.toml": ("python", _pyproject),
    "package.json": ("node", _package_json),
    "Cargo.toml": ("rust", _cargo),
    "go.mod": ("go", _go),
}
