"""The messages of generations: what Selfloop was, is, and could be again; `protocol.py` has the contract."""

from __future__ import annotations

from typing import Literal

import msgspec

from selfloop.updates import UsageInfo
from selfloop.wire import Wire


class GenerationInfo(Wire):
    """One self: the installed package (0), or one that came of it by a change that was judged and approved."""

    number: int
    commit: str
    tree: str
    state: Literal["verified", "active", "settled", "rolled-back"]
    """`active`: it serves on probation; `settled`: it has passed that; `verified`: it has not served yet."""
    created_at: str
    summary: str
    tokens: UsageInfo
    """What making it has used."""
    parent: int | None = None
    approved_by: str | None = None
    reason: str | None = None
    """Of `rolled-back`: why its parent was brought back."""


class GenerationListResult(Wire):
    generations: list[GenerationInfo]
    """By number."""
    active: int
    """The one that serves."""
    paused: str | None = None
    """Why nothing evolves at present, as one sentence."""


class GenerationRef(Wire):
    number: int


class LayerInfo(Wire):
    """What one layer of the judge has found."""

    name: str
    title: str
    passed: bool
    reason: str
    seconds: float
    details: list[str] = msgspec.field(default_factory=list)


class GenerationReadResult(Wire):
    generation: GenerationInfo
    diff: str
    """Against its parent, as a unified diff."""
    evidence: list[LayerInfo]
    origins: list[str]
    """The sessions that it has learned from."""
    learned: str | None = None
    """What was learned there."""
    verify: str | None = None
    """The command that failed before the change and passes after it."""


class GenerationGraphResult(Wire):
    svg: str
    """The lineage as a picture, a whole SVG document without scripts, links or outside parts."""
