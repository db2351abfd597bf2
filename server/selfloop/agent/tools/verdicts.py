"""How a checker and a reflection end: with a verdict whose evidence was executed, with suggestions that can be
verified.

Invariant: evidence counts only if that very command ran in this turn with that exit code, and only if it can prove
something. Only a role that is given these tools holds them; a chat does not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from selfloop.agent.tools.tool import Call, Observation, Params, Ran, Tool

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
    r"|warning: no python files",
    re.IGNORECASE,
)
_SOMETHING = re.compile(
    r"\b[1-9]\d* (?:tests? )?(?:passed|failed|passing|failing)|running [1-9]\d* tests?|^ok\s",
    re.IGNORECASE | re.MULTILINE,
)


def check_kind(command: str) -> CheckKind | None:
    """Return which kind of check a plain command is; None: it is none, or not plain enough to be sure."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if any(mark in command for mark in (";", "|", "&", "`", "$(", "\n", ">")):
        # What follows or hides the check may decide the exit code.
        return None
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("env", "time")):
        words = words[1:]
    if len(words) >= 3 and re.fullmatch(r"python[\d.]*", words[0].rpartition("/")[2]) and words[1] == "-m":
        words = words[2:]
    if not words:
        return None
    program = words[0].rpartition("/")[2]
    if program in _PROGRAMS:
        return None if {"--version", "--help", "-h", "--collect-only", "--co"} & set(words) else _PROGRAMS[program]
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


def did_something(ran: Ran) -> bool:
    """Tell whether a check looked at anything: a run that collected no test proves nothing."""
    return _NOTHING.search(ran.output) is None or _SOMETHING.search(ran.output) is not None


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
