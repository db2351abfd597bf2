"""How a checker and a reflection end: with a verdict whose evidence was executed, with suggestions that can be
verified.

Invariant: evidence counts only if that very command ran in this turn with that exit code, on the files that are checked
as they were given, with nothing of the checker's own making, and only if it can prove something. Only a role that is
given these tools holds them; a chat does not.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import re
import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from selfloop.agent.tools.tool import Call, Observation, Params, Ran, Tool, Workbench
from selfloop.changes import FileChange
from selfloop.sandbox.protected import is_protected, is_shadow, is_test

CheckKind = Literal["test", "lint", "build"]


class EvidenceOf(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    check: str
    command: str
    exit_code: int


class SubmitVerdict(Params):
    verdict: Literal["verified", "concerns", "failed"]
    summary: str
    evidence: list[EvidenceOf]


class SuggestImprovement(Params):
    file: str
    improvement: str
    verify: str


_PROGRAMS: dict[str, CheckKind] = {
    "pytest": "test", "tox": "test", "nox": "test", "jest": "test", "vitest": "test", "mocha": "test", "ctest": "test",
    "ruff": "lint", "mypy": "lint", "pyrefly": "lint", "pyright": "lint", "flake8": "lint", "eslint": "lint",
    "biome": "lint", "shellcheck": "lint", "clippy-driver": "lint", "tsc": "build", "mvn": "test", "gradle": "test",
    "gradlew": "test",
}  # fmt: skip
_VERBS: dict[str, CheckKind] = {
    "test": "test", "tests": "test", "check": "test", "lint": "lint", "clippy": "lint", "vet": "lint", "build": "build",
    "typecheck": "lint", "nextest": "test",
}  # fmt: skip
_RUNNERS = {
    "npm",
    "pnpm",
    "yarn",
    "bun",
    "cargo",
    "go",
    "make",
    "just",
    "dotnet",
    "deno",
    "hatch",
    "poetry",
    "uv",
    "npx",
}
_NOTHING = re.compile(
    r"no tests ran|no tests? (?:were )?(?:found|collected|to run)|collected 0 items|ran 0 tests|\b0 (?:tests|passing)\b"
    r"|no test files|running 0 tests|tests:\s+0 total|no (?:python )?files? (?:found|to check|matched|were matched)"
    r"|warning: no python files|\btests 0$|^[= ]*\d+ (?:skipped|deselected)[^\n]* in [\d.]+s",
    re.IGNORECASE | re.MULTILINE,
)
# The last is a package that `go test` has tested, beside others that have no tests.
_SOMETHING = re.compile(
    r"\b[1-9]\d* (?:tests? )?(?:passed|failed|passing|failing)|(?:running|ran) [1-9]\d* tests?\b"
    r"|(?-i:^ok[ \t]+\S+[ \t]+(?:[\d.]+s|\(cached\))(?!.*\[no tests to run\]))",
    re.IGNORECASE | re.MULTILINE,
)
_HARMLESS = frozenset(
    {
        "CI", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "PY_COLORS", "CARGO_TERM_COLOR", "TERM",
        "COLUMNS", "LINES", "LANG", "LC_ALL", "TZ", "NODE_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED",
        "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "RUST_BACKTRACE", "SOURCE_DATE_EPOCH",
    }
)  # fmt: skip
"""Variables that cannot decide what a check runs or imports."""
_ONLY_SHOWS = frozenset(
    {"--version", "--help", "-h", "--collect-only", "--co", "--no-run", "--dry-run", "--just-print", "--show-only"}
)
_IDLE = frozenset(
    {":", "true", "false", "echo", "printf", "exit", "return", "test", "[", "[[", "pwd", "cd", "sleep", "set"}
)
_AROUND = frozenset({"command", "builtin", "exec", "env", "time", "nice", "!", "{", "}", "(", ")"})
_ENVIRONMENTS = frozenset({".venv", "venv", "env", "node_modules"})
_ON_THE_PATH = (".venv/bin", "venv/bin", "env/bin", "node_modules/.bin")
"""Folders of the workspace whose programs run by their name alone."""
_LEFT_BEHIND = frozenset(
    {
        "__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", ".tox", ".nox", "node_modules",
        ".venv", "venv", "target", "dist", "build", ".coverage", ".eggs", ".cache", ".gradle", ".next", ".parcel-cache",
    }
)  # fmt: skip
"""Folders and files that tests and builds make."""


def check_kind(command: str) -> CheckKind | None:
    """Return which kind of check a plain command is; None: it is none, or not plain enough to be sure."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if any(mark in command for mark in (";", "|", "&", "`", "$", "\n", ">")):
        # What follows or hides the check may decide the exit code.
        return None
    plain = _without_assignments(words)
    if any(word.partition("=")[0] not in _HARMLESS for word in words[: len(words) - len(plain)] if "=" in word):
        return None
    words = plain
    if len(words) >= 3 and re.fullmatch(r"python[\d.]*", words[0].rpartition("/")[2]) and words[1] == "-m":
        words = words[2:]
    if not words or _ONLY_SHOWS & set(words):
        return None
    program = words[0].rpartition("/")[2]
    if program in _PROGRAMS:
        return _PROGRAMS[program]
    if program == "unittest":
        return "test"
    if program in _RUNNERS:
        for word in words[1:]:
            if word in _VERBS:
                return _VERBS[word]
            if word in _PROGRAMS:
                return _PROGRAMS[word]
            if not word.startswith("-") and word not in ("run", "exec", "x"):
                return None
    return None


def _without_assignments(words: Sequence[str]) -> list[str]:
    start = 0
    while start < len(words) and (re.match(r"\w+=", words[start]) or words[start] in ("env", "time")):
        start += 1
    return list(words[start:])


def _program_path(command: str) -> str | None:
    """Return the program of a plain command if it is written as a path; None: it is none, or a name of the PATH."""
    try:
        words = _without_assignments(shlex.split(command))
    except ValueError:
        return None
    return words[0] if words and "/" in words[0] else None


def proves_nothing(command: str) -> bool:
    """Tell whether a command ends the same whatever it is run on: `true`, `echo fine`, `pytest || true`."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:
        return False
    parts: list[tuple[str, list[str]]] = [("", [])]
    for word in words:
        if word.startswith("#"):
            break
        if word and set(word) <= set(";&|()"):
            parts.append((word, []))
        elif parts[-1][1] or not (word in _AROUND or re.match(r"\w+=", word)):
            parts[-1][1].append(word)
    commands = [(mark, simple) for mark, simple in parts if simple]
    if all(_is_idle(simple) for _, simple in commands):
        return True
    # What stands last decides the exit code, unless it runs only after what succeeded.
    mark, last = commands[-1]
    return mark != "&&" and (last[0] in ("true", ":") or last == ["exit", "0"])


def _is_idle(words: Sequence[str]) -> bool:
    program = words[0].rpartition("/")[2]
    if program in ("sh", "bash", "dash") and len(words) > 2 and words[1] == "-c":
        return proves_nothing(words[2])
    return program in _IDLE


def did_something(ran: Ran) -> bool:
    """Tell whether a check looked at anything: a run that collected no test proves nothing."""
    return _NOTHING.search(ran.output) is None or _SOMETHING.search(ran.output) is not None


def tampered(changed: Iterable[FileChange]) -> list[str]:
    """Return the files that a checker had no business to change.

    What was there may not be another by then; of what is new, tests, what runs by itself and what runs in place of a
    test runner count, since they could prove anything. What tests and builds leave behind does not.
    """
    touched = []
    for change in changed:
        parts = PurePosixPath(change.path).parts
        litter = _LEFT_BEHIND & set(parts)
        # Of such folders, only in `target` do Python's test runners look.
        if litter and not (litter == {"target"} and change.path.endswith(".py")):
            continue
        if any(part.endswith(".egg-info") for part in parts):
            continue
        new_matters = is_protected(change.path) or is_test(change.path) or is_shadow(change.path)
        if change.operation != "create" or new_matters:
            touched.append(change.path)
    return touched


def some(paths: Sequence[str]) -> str:
    """Return paths as words of a sentence: the first three, and how many more there are."""
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


async def why_void(bench: Workbench, command: str) -> str | None:
    """Return why a check that is about to run proves nothing, as one sentence; None: nothing speaks against it.

    It has to be asked right before the command runs. What is no check is not looked at, since it costs a look at all
    files.

    Raises:
        SandboxError: the worktree could not be read.
    """
    named = {one.strip() for one in bench.checks.values()}
    if command.strip() not in named and (named or check_kind(command) is None):
        return None
    changes = await bench.worktree.compared()
    if touched := tampered(changes[1]):
        return f"`{command}` ran on files that had been changed before it ran ({some(touched)})."
    return await _own_making(bench, command, {change.path for change in changes[1]}, by_the_user=bool(named))


async def _own_making(bench: Workbench, command: str, changed: set[str], *, by_the_user: bool) -> str | None:
    """Return which of what a command runs or names is no file of the tree that is checked, as one sentence."""
    workspace = await asyncio.to_thread(os.path.realpath, bench.workspace)
    named = [path for word in _names(command) if (path := _relative(word, workspace)) is not None]
    there = await asyncio.to_thread(_standing, bench.worktree.path, [*named, *_ON_THE_PATH])
    files = await bench.worktree.shadow.objects.list_tree(bench.worktree.base, *there.values()) if there else {}
    known = {path: mode for path, (_, mode) in files.items() if path not in changed}
    made = {place for place in there.values() if not any(f"{path}/".startswith(f"{place}/") for path in known)}
    made |= {
        path for path in changed if _decides(path) and any(path.startswith(f"{place}/") for place in there.values())
    }
    if made:
        return f"`{command}` ran with {some(sorted(made))}, which the checked files do not hold."
    if (program := _program_path(command)) is not None:
        path = _relative(program, workspace)
        if path is None and by_the_user and program.startswith("/"):
            return (
                None  # A program of the system's that the user has named; what a checker makes lies in the workspace.
            )
        # What does not stand in the worktree, and runs all the same, is what the jail shows of the user's own folders.
        shown = path is not None and path not in there and bool(_ENVIRONMENTS & set(path.split("/")[:-1]))
        if path is None or not (shown or stat.S_ISREG(known.get(path, 0))):
            return f"`{command}` ran {program}, which the checked files do not hold."
    return None


def _decides(path: str) -> bool:
    """Tell whether a runner that is pointed at its folder would take a file for a test, or for settings."""
    name = path.rpartition("/")[2]
    return not name.endswith(".pyc") and (is_test(name) or is_protected(name))


def _standing(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return by path what stands there: itself, or the first link on the way to it."""
    found = {}
    for path in paths:
        parts = path.split("/")
        ahead = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        link = next((place for place in ahead if (folder / place).is_symlink()), None)
        if link is not None or os.path.lexists(folder / path):
            found[path] = link or path
    return found


def _names(command: str) -> list[str]:
    """Return the words of a command that may name what it runs: files and, for Python's test runners, modules."""
    try:
        words = _without_assignments(shlex.split(command))
    except ValueError:
        words = command.split()
    runs_modules = bool({"pytest", "unittest"} & {word.rpartition("/")[2] for word in words[:3]})
    names = []
    for word in words:
        plain = word.partition("=")[2] if word.startswith("-") else word.partition("::")[0]
        if wildcard := re.search(r"[*?\[{]", plain):
            plain = plain[: wildcard.start()].rpartition("/")[0] + "/"
        if "/" in plain or "." in plain or runs_modules:
            names.append(plain)
        if runs_modules and re.fullmatch(r"\w+(?:\.\w+)+|\w+", plain):
            first = plain.partition(".")[0]
            names += [first, f"{first}.py"]
    return names


def _relative(word: str, workspace: str) -> str | None:
    """Return a word of a command as a path within the workspace; None: it is the workspace itself, or leads out."""
    if not word or ".." in word.split("/"):
        return None
    path = posixpath.relpath(word, workspace) if word.startswith("/") else posixpath.normpath(word)
    return None if path == "." or path.startswith("..") else path


def doubts(evidence: Sequence[EvidenceOf], ran: Sequence[Ran], named: Mapping[str, str] | None = None) -> list[str]:
    """Return why pieces of evidence do not count, one sentence each; none for those that do.

    Args:
        evidence: what the checker claims.
        ran: the commands of its turn.
        named: the checks that the loop's spec or the user's configuration names, with their commands. Without any, a
            test, build or lint command of the project counts.
    """
    sentences = []
    for item in evidence:
        last = next((one for one in reversed(ran) if one.command.strip() == item.command.strip()), None)
        if last is None:
            sentences.append(f"`{item.command}` did not run in this turn.")
        elif last.exit_code != item.exit_code:
            sentences.append(f"`{item.command}` ended with exit code {last.exit_code}, not {item.exit_code}.")
        elif named and named.get(item.check, "").strip() != item.command.strip():
            sentences.append(f"`{item.command}` is not the command of the check {item.check!r}.")
        elif not named and check_kind(item.command) is None:
            sentences.append(f"`{item.command}` is no test, build or lint command.")
        elif last.void is not None:
            sentences.append(last.void)
        elif not did_something(last):
            sentences.append(f"`{item.command}` looked at no test and no file.")
    return sentences


async def submit_verdict(call: Call, params: SubmitVerdict) -> Observation:
    """Take a checker's verdict; what its evidence is worth is said, and decided by whoever asked for it."""
    call.bench.submitted.append(params)
    said = doubts(params.evidence, call.bench.ran, call.bench.checks)
    return Observation("The verdict is taken." + (" These do not count: " + " ".join(said) if said else ""), bool(said))


async def suggest_improvement(call: Call, params: SuggestImprovement) -> Observation:
    """Take one suggestion."""
    call.bench.submitted.append(params)
    return Observation("The suggestion is taken.")


CHECKER_TOOLS = (Tool("submit_verdict", "other", SubmitVerdict, submit_verdict, lambda p: f"Verdict: {p.verdict}"),)
REFLECTION_TOOLS = (
    Tool("suggest_improvement", "other", SuggestImprovement, suggest_improvement, lambda p: f"Suggest for {p.file}"),
)
