"""What the judge has to know of a self: `[tool.selfloop.judge]` of the *parent's* pyproject.toml.

Invariant: the candidate's own file is never read, so that no candidate can choose how it is judged.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from selfloop.errors import RequestFailed

_FILE = "pyproject.toml"


def _static() -> list[list[str]]:
    return [["ruff", "check", "--no-cache", "."], ["pyrefly", "check"]]


class Canary(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """How the canary drives the worker."""

    seconds: float = 120.0
    """For the whole canary."""
    slower: float = 4.0
    """A turn may take this many times what the parent's takes …"""
    slack_seconds: float = 0.5
    """… and this much more."""
    first_turn_seconds: float = 90.0
    """The first turn may take this long: a worker imports the model library with it."""
    turns: int = 3
    """Plain chat turns; the median counts."""


class Profile(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """A self as the judge sees it. Paths are relative to its root."""

    sealed: list[str]
    """Files and folders of tests that the candidate must pass."""
    probes: str
    """A Python file of the parent's with `PROBES`; see the layer."""
    ignored: list[str] = []
    """Below `sealed`, what is not run: what needs a browser, or would judge the judge."""
    deselected: list[str] = []
    """Single tests that do not run in a jail without network."""
    marks: str = ""
    """A pytest mark expression."""
    plugins: list[str] = []
    """Modules of pytest plugins that the tests need; no other is loaded."""
    workers: int = 1
    """Processes side by side; above 1 the plugin `xdist.plugin` must be listed."""
    tests_seconds: float = 600.0
    controls: int = 8
    """Negative controls in each run, about half of which must fail."""
    retried: int = 5
    """At most so many tests that failed are run once more, alone: a busy machine makes tests of time fail."""
    static: list[list[str]] = msgspec.field(default_factory=_static)
    """Commands of lint and types; their programs are those that came with the installed package."""
    static_seconds: float = 120.0
    probe_inputs: int = 200
    """Random inputs for each probe."""
    probe_seconds: float = 120.0
    left_out: list[str] = []
    """Top-level entries, or paths, that are not part of the self, such as build results."""
    vital: dict[str, list[str]] = {}
    """Texts that must go on standing in a file, such as rules of a prompt."""
    largest_change_lines: int = 1500
    canary: Canary = msgspec.field(default_factory=Canary)


def read_profile(folder: Path) -> Profile:
    """Return a self's profile; blocks on the disk.

    Raises:
        RequestFailed: there is none, or it cannot be read.
    """
    try:
        document = tomllib.loads((folder / _FILE).read_text(encoding="utf-8"))
        return msgspec.convert(document["tool"]["selfloop"]["judge"], Profile)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, msgspec.ValidationError) as error:
        raise RequestFailed(
            f"The parent's {_FILE} has no [tool.selfloop.judge] that can be read ({type(error).__name__}: {error}), so "
            "nothing was judged; mend it, or install Selfloop again."
        ) from error
