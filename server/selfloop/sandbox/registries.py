"""The newest version of a package, by the package manager's own reading command: the user's configuration counts.

Invariant: a name comes from a repository's file, so it is checked by the ecosystem's own grammar before it stands on a
command line; the command runs outside the project, whose `.npmrc`, `pip.conf` or `.cargo` have no say.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import frozen

from selfloop.sandbox.userprograms import Ended, ProgramMissing, UserProgram, run_as_user

Ecosystem = Literal["python", "node", "rust", "go"]

_SIDE_BY_SIDE = 4
_SECONDS = 30.0
_ANSWER_BYTES = 256 << 10
_VERSION = re.compile(r"v?\d[0-9A-Za-z.+!_-]{0,63}")
_PROGRAMS: Mapping[Ecosystem, UserProgram] = {"python": "pip", "node": "npm", "rust": "cargo", "go": "go"}
_NAMES: Mapping[Ecosystem, re.Pattern[str]] = {
    "python": re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?"),
    "node": re.compile(r"(?:@[a-z0-9~_][a-z0-9._~-]{0,98}/)?[a-zA-Z0-9~_][a-zA-Z0-9._~-]{0,98}"),
    "rust": re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}"),
    "go": re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9._~-]+)*"),
}


@frozen
class Newest:
    """What a package index said."""

    version: str | None
    """None: it did not say; `why` does."""
    why: str = ""


async def newest_versions(ecosystem: Ecosystem, names: Sequence[str]) -> dict[str, Newest]:
    """Ask for the newest versions of some packages, a few at a time."""
    turn = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def ask(name: str) -> Newest:
        async with turn:
            return await _newest(ecosystem, name)

    answers = await asyncio.gather(*(ask(name) for name in names))
    return dict(zip(names, answers, strict=True))


def _command(ecosystem: Ecosystem, name: str) -> tuple[str, ...]:
    match ecosystem:
        case "python":
            return ("index", "versions", "--no-color", name)
        case "node":
            return ("view", "--json", name, "version")
        case "rust":
            return ("search", "--limit=1", "--", name)
        case "go":
            return ("list", "-m", "-json", f"{name}@latest")


async def _newest(ecosystem: Ecosystem, name: str) -> Newest:
    if not _NAMES[ecosystem].fullmatch(name):
        return Newest(None, "this is no name that the package index could know")
    program = _PROGRAMS[ecosystem]
    try:
        ended = await run_as_user(
            program, *_command(ecosystem, name), timeout_seconds=_SECONDS, most_bytes=_ANSWER_BYTES
        )
    except ProgramMissing:
        return Newest(None, f"{program} is not installed")
    if ended.exit_code is None:
        return Newest(None, f"{program} did not answer within {_SECONDS:.0f} seconds")
    version = _version(ecosystem, name, ended)
    if version is not None and _VERSION.fullmatch(version):
        return Newest(version)
    lines = [line.strip() for line in ended.complaint.splitlines() if line.strip()]
    named = (line for line in lines if re.match(r"(?:npm )?err", line, re.IGNORECASE))
    said = next(named, lines[-1] if lines else "it gave no version")[:200]
    return Newest(None, f"{program}: {said}")


def _version(ecosystem: Ecosystem, name: str, ended: Ended) -> str | None:
    """Return the version in an answer, None where there is none."""
    if ended.exit_code != 0:
        return None
    text = ended.output
    if ecosystem == "python":
        found = re.match(r"\s*\S+ \(([^)\s]+)\)", text)
        return found[1] if found else None
    if ecosystem == "rust":
        # A search also finds what is called alike.
        found = re.search(rf'^{re.escape(name)} = "([^"\s]+)"', text, re.MULTILINE)
        return found[1] if found else None
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if ecosystem == "go":
        answer = answer.get("Version") if isinstance(answer, dict) else None
    elif isinstance(answer, list):
        answer = answer[-1] if answer else None
    return answer if isinstance(answer, str) else None
