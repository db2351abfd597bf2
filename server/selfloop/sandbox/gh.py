"""The forge, by the user's own `gh`: fixed calls on one named repository, JSON back, and failures as sentences.

Invariant: `gh` is told the repository (`--repo`) and finds no git around it, so that nothing in the folder that is
worked on decides whom it talks to beyond the host's name; it talks to a host only with what the user has logged in
there. A token from the environment for another host than the user's own is not handed on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Literal

from attrs import frozen

from selfloop.errors import RequestFailed
from selfloop.sandbox.remotes import Repository
from selfloop.sandbox.userprograms import MOST_BYTES, Ended, ProgramMissing, run_as_user

ForgeFailure = Literal[
    "missing", "logged-out", "rate-limited", "not-found", "no-forge", "offline", "slow", "refused", "garbage"
]

_READ_SECONDS = 45.0
_SIGNS: tuple[tuple[ForgeFailure, tuple[str, ...]], ...] = (
    ("rate-limited", ("rate limit", "http 429", "abuse detection", "submitted too quickly")),
    ("logged-out", ("gh auth login", "http 401", "bad credentials", "authentication required", "not logged in")),
    ("offline", ("error connecting to", "dial tcp", "no such host", "could not resolve host", "connection refused",
                 "network is unreachable", "tls handshake", "i/o timeout", "http 502", "http 503", "http 504")),
    ("not-found", ("http 404", "could not resolve to", "not found", "no pull requests found", "no default branch")),
)  # fmt: skip
_ADVICE: dict[ForgeFailure, str] = {
    "missing": "`gh` is not installed, so the forge was not asked; install it and run `gh auth login`.",
    "logged-out": "`gh` is not logged in to {host}, so nothing was done; run `gh auth login --hostname {host}`.",
    "rate-limited": "{host} has had too many requests for now, so nothing came of this one; try again in an hour.",
    "offline": "{host} could not be reached, so the forge was not asked; check the network and try again.",
    "slow": "{host} did not answer in time, so `gh` was ended; try again later.",
    "garbage": "`gh` answered with something that is not what was asked for; update `gh` and try again.",
}


class ForgeError(RequestFailed):
    """Raised when the forge could not be asked, or refused; `kind` says which, the message what to do."""

    reason = "forge"

    def __init__(self, message: str, *, kind: ForgeFailure) -> None:
        super().__init__(message)
        self.kind: ForgeFailure = kind


def no_forge() -> ForgeError:
    """Return the error of a folder whose remotes name no repository on a forge."""
    return ForgeError(
        "No remote of this repository is an owner/name on a forge, so the forge was not asked; add one with "
        "`git remote add`, or go on without it.",
        kind="no-forge",
    )


@frozen
class Forge:
    """One repository on a forge."""

    repository: Repository

    async def read(self, *arguments: str, fields: str, timeout_seconds: float = _READ_SECONDS) -> Any:
        """Run a reading call with `--json` and return what it answers.

        Raises:
            ForgeError: see its kinds.
        """
        ended = await self._call((*arguments, f"--json={fields}"), None, timeout_seconds, MOST_BYTES)
        if ended.cut:
            raise ForgeError(
                f"{self.repository.slug} answered with more than {MOST_BYTES >> 20} MiB, so nothing was read; ask for "
                "less at once.",
                kind="refused",
            )
        try:
            return json.loads(ended.output)
        except (ValueError, RecursionError) as error:
            raise self._error("garbage") from error

    async def run(
        self,
        *arguments: str,
        stdin: str | None = None,
        timeout_seconds: float = _READ_SECONDS,
        most_bytes: int = MOST_BYTES,
    ) -> str:
        """Run a call and return its output.

        Args:
            arguments: the command, its sub-command and flags; the repository is added.
            stdin: a text that it reads.
            timeout_seconds: after that long it is ended.
            most_bytes: how much of its output is kept.

        Raises:
            ForgeError: see its kinds.
        """
        return (await self._call(arguments, stdin, timeout_seconds, most_bytes)).output

    async def _call(
        self, arguments: Sequence[str], stdin: str | None, timeout_seconds: float, most_bytes: int
    ) -> Ended:
        command, sub, *rest = arguments
        try:
            ended = await run_as_user(
                "gh",
                command,
                sub,
                f"--repo={self.repository.slug}",
                *rest,
                stdin=stdin,
                variables=self._tokens(),
                timeout_seconds=timeout_seconds,
                most_bytes=most_bytes,
            )
        except ProgramMissing as error:
            raise self._error("missing") from error
        if ended.exit_code == 0:
            return ended
        raise self._failure(ended)

    def _tokens(self) -> dict[str, str]:
        """Return the enterprise token only for the host that the user named with it."""
        if os.environ.get("GH_HOST", "").lower() != self.repository.host:
            return {}
        names = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
        return {name: os.environ[name] for name in names if name in os.environ}

    def _failure(self, ended: Ended) -> ForgeError:
        if ended.exit_code is None:
            return self._error("slow")
        said = f"{ended.complaint}\n{ended.output}".lower()
        if ended.exit_code == 4:
            return self._error("logged-out")
        for kind, signs in _SIGNS:
            if any(sign in said for sign in signs):
                return self._error(kind, ended.complaint)
        return self._error("refused", ended.complaint)

    def _error(self, kind: ForgeFailure, complaint: str = "") -> ForgeError:
        advice = _ADVICE.get(kind)
        if advice is not None:
            return ForgeError(advice.format(host=self.repository.host), kind=kind)
        lines = [line.strip() for line in complaint.splitlines() if line.strip()]
        said = " ".join(lines)[:300].rstrip(".") or "it gave no reason"
        what = "has nothing of that number or name" if kind == "not-found" else "refused"
        return ForgeError(f"{self.repository.slug} {what}, so nothing was done ({said}).", kind=kind)
