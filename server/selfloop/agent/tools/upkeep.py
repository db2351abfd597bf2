"""Reading the local repository for its upkeep: history, branches, marks left in the code, and dependencies.

Invariant: the user's repository is read as data, and no text of the model's or of a file is more than one argument of a
fixed command. Only `list_outdated` leaves the machine, by the user's own package managers.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Literal

from selfloop.agent.tools.manifests import Requirement, admits, read_manifest
from selfloop.agent.tools.outside import brief, not_a_number, one_line, shown
from selfloop.agent.tools.text import read_text
from selfloop.agent.tools.tool import Call, Observation, Params, Tool, Workbench, refused
from selfloop.errors import PathRefused
from selfloop.sandbox import ripgrep
from selfloop.sandbox.history import open_history
from selfloop.sandbox.registries import Ecosystem, newest_versions

_MOST_COMMITS = 200
_MOST_DIFFS = 20
_MOST_BRANCHES = 300
_MOST_TODOS = 300
_MOST_DATED_FILES = 25
_DATING_SECONDS = 15.0
_MOST_PACKAGES = 80
_MANIFEST_BYTES = 1 << 20
_BODY_CHARS = 1_000
_SHOWN_FILES = 30
_TODO = r"\b(TODO|FIXME|XXX|HACK)\b"


class GitLog(Params):
    limit: int = 30
    since: str | None = None
    after: str | None = None
    branch: str | None = None
    path: str | None = None
    files: bool = False
    diff: bool = False


class ListBranches(Params):
    merged: Literal["merged", "unmerged", "all"] = "all"
    remote: bool = False


class ListTodos(Params):
    path: str = "."


class ListOutdated(Params):
    path: str = "."
    all: bool = False


async def git_log(call: Call, params: GitLog) -> Observation:
    """Show commits, newest first."""
    if (refusal := not_a_number("limit", params.limit, _MOST_COMMITS)) is not None:
        return refusal
    history = await open_history(call.bench.worktree.shadow)
    commits = await history.log(
        most=params.limit,
        since=params.since,
        after=params.after,
        until=params.branch,
        path=params.path,
        files=params.files,
    )
    if not commits:
        return Observation("No commit fits.")
    lines = []
    for number, commit in enumerate(commits):
        names = f" ({commit.names})" if commit.names else ""
        lines.append(f"{commit.id[:12]} {commit.at} {one_line(commit.author)}{names}: {one_line(commit.subject)}")
        lines += [f"    {line}" for line in brief(commit.body, _BODY_CHARS).splitlines()]
        lines += [f"    touches {file}" for file in commit.files[:_SHOWN_FILES]]
        if len(commit.files) > _SHOWN_FILES:
            lines.append(f"    and {len(commit.files) - _SHOWN_FILES} files more")
        if params.diff and number < _MOST_DIFFS:
            lines += ["", await history.diff(commit.id, params.path)]
    if params.diff and len(commits) > _MOST_DIFFS:
        lines.append(f"Only the diffs of the first {_MOST_DIFFS} are shown; ask for the others by `branch`.")
    more = " There may be more: raise `limit`, or give `since`." if len(commits) == params.limit else ""
    return await shown(call, "git_log", f"{len(commits)} commits.{more}", "\n".join(lines), source="git history")


async def list_branches(call: Call, params: ListBranches) -> Observation:
    """List branches with their age, and whether they are merged."""
    history = await open_history(call.bench.worktree.shadow)
    wanted = {"merged": (True,), "unmerged": (False,), "all": (True, False)}[params.merged]
    found = [branch for branch in await history.branches(remote=params.remote) if branch.merged in wanted]
    if not found:
        return Observation(f"There are no {'' if params.merged == 'all' else params.merged + ' '}branches.")
    here = f" Checked out is {history.branch}." if history.branch else " No branch is checked out."
    lines = [
        f"{branch.name} · {'merged' if branch.merged else 'not merged'} · last commit {branch.at} "
        f"({_age(datetime.fromisoformat(branch.at))} ago) by {one_line(branch.author)}: {one_line(branch.subject)}"
        for branch in found[:_MOST_BRANCHES]
    ]
    head = f"{len(found)} branches, those untouched for longest first."
    if len(found) > _MOST_BRANCHES:
        head += f" The first {_MOST_BRANCHES} are listed."
    head += f"{here} A branch that was squashed or rebased when it was merged counts as not merged."
    return await shown(call, "list_branches", head, "\n".join(lines), source="git branches")


async def list_todos(call: Call, params: ListTodos) -> Observation:
    """List what was left to do in the code, the oldest first as far as ages are known."""
    bench = call.bench
    if not ripgrep.has_ripgrep():
        return refused("ripgrep (rg) is not installed, so nothing was searched; install it, or use `search`.")
    found = await ripgrep.search(bench.door, _TODO, params.path, literal=False)
    todos = [_todo(line) for line in found.lines]
    if not todos:
        return Observation(f"There is no TODO, FIXME, XXX or HACK in {params.path}.")
    ages = await _ages(bench, [path for path, _, _ in todos])
    unknown = datetime.max.replace(tzinfo=UTC)
    dated = [(ages.get(path, {}).get(text.strip()), path, number, text) for path, number, text in todos]
    dated.sort(key=lambda item: item[0] or unknown)
    lines = [
        f"{path}:{number}: {one_line(text)}" + (f" ({_age(at)} old)" if at else "")
        for at, path, number, text in dated[:_MOST_TODOS]
    ]
    head = f"{len(todos)}{' or more' if found.cut else ''} lines, the oldest first; a line without an age is not "
    head += "committed, or was not dated."
    if len(todos) > _MOST_TODOS:
        head += f" The first {_MOST_TODOS} are listed."
    return await shown(call, "list_todos", head, "\n".join(lines), source="marks in the code")


async def list_outdated(call: Call, params: ListOutdated) -> Observation:
    """List the dependencies of a folder with their newest versions."""
    requirements, notes = await asyncio.to_thread(_requirements, call.bench, params.path)
    if not requirements:
        said = f" {' '.join(notes)}" if notes else ""
        return Observation(
            f"{params.path} has no dependency that a package index would know (pyproject.toml, requirements*.txt, "
            f"package.json, Cargo.toml and go.mod are read).{said}"
        )
    names: dict[Ecosystem, dict[str, None]] = {}
    for requirement in requirements:
        names.setdefault(requirement.ecosystem, {})[requirement.name] = None
    asked = {kind: list(found)[:_MOST_PACKAGES] for kind, found in names.items()}
    answers = dict(
        zip(asked, await asyncio.gather(*(newest_versions(kind, found) for kind, found in asked.items())), strict=True)
    )
    lines: list[str] = []
    failures: dict[str, list[str]] = {}
    current = 0
    for item in requirements:
        answer = answers[item.ecosystem].get(item.name)
        written = item.constraint or "any version"
        if answer is None or answer.version is None:
            why = f"only the first {_MOST_PACKAGES} are asked about" if answer is None else answer.why
            failures.setdefault(why, []).append(f"{item.name} ({written}, {item.file})")
            continue
        fits = admits(item.ecosystem, item.constraint, answer.version)
        mark = {True: "lets it in", False: "leaves it out", None: "cannot be compared"}[fits]
        current += fits is True
        if fits is not True or params.all:
            lines.append(f"{item.name}: newest {answer.version}, {item.file} says {written} ({mark})")
    for why, which in failures.items():
        lines.append(f"not known, because {why}: {', '.join(which[:20])}" + (" …" if len(which) > 20 else ""))
    head = f"{len(requirements)} dependencies; {current} let the newest version in"
    head += "." if params.all or not current else ", and are not listed (`all` lists them)."
    return await shown(
        call, "list_outdated", " ".join((head, *notes)), "\n".join(lines), source="manifests and package indexes"
    )


UPKEEP_TOOLS = (
    Tool("git_log", "read", GitLog, git_log, lambda p: "Read the history", deadline_seconds=90.0),
    Tool("list_branches", "read", ListBranches, list_branches, lambda p: "List branches", deadline_seconds=90.0),
    Tool("list_todos", "search", ListTodos, list_todos, lambda p: "List TODOs", deadline_seconds=90.0),
    Tool("list_outdated", "read", ListOutdated, list_outdated, lambda p: "Look for newer dependencies",
         deadline_seconds=600.0),
)  # fmt: skip


def _todo(line: str) -> tuple[str, int, str]:
    """Return path, line and text of a match; a path may hold colons, so the first number between two of them counts."""
    parts = line.split(":")
    place = next((index for index, part in enumerate(parts) if index and part.isdecimal()), 1)
    number = int(parts[place]) if place < len(parts) and parts[place].isdecimal() else 0
    return ":".join(parts[:place]), number, ":".join(parts[place + 1 :])


async def _ages(bench: Workbench, paths: list[str]) -> dict[str, dict[str, datetime]]:
    """Return when lines were last changed, of as many files as a few seconds are enough for."""
    shadow = bench.worktree.shadow
    if shadow.origin.git_dir is None or shadow.origin.head()[1] is None:
        return {}
    history = await open_history(shadow)
    started = time.monotonic()
    ages: dict[str, dict[str, datetime]] = {}
    for path in list(dict.fromkeys(paths))[:_MOST_DATED_FILES]:
        if time.monotonic() - started > _DATING_SECONDS:
            break
        ages[path] = await history.line_ages(path)
    return ages


def _requirements(bench: Workbench, folder: str) -> tuple[list[Requirement], list[str]]:
    """Return what the manifests directly in a folder name, and a sentence on each that cannot be read."""
    found: list[Requirement] = []
    notes: list[str] = []
    for entry in bench.door.list(folder):
        path = entry.name if folder in ("", ".") else f"{folder.rstrip('/')}/{entry.name}"
        if entry.kind != "file" or not _is_manifest(entry.name):
            continue
        try:
            found += read_manifest(path, read_text(bench.door, path, _MANIFEST_BYTES).text)
        except (ValueError, PathRefused, RecursionError) as error:
            notes.append(f"{path} could not be read ({one_line(error)}), so it is left out.")
    return found, notes


def _is_manifest(name: str) -> bool:
    listed = name in ("pyproject.toml", "package.json", "Cargo.toml", "go.mod")
    return listed or (name.startswith("requirements") and name.endswith((".txt", ".in")))


def _age(at: datetime) -> str:
    days = max(0, (datetime.now(UTC) - at).days)
    if days < 60:
        return f"{days} day{'' if days == 1 else 's'}"
    return f"{days // 30} months" if days < 730 else f"{days // 365} years"
