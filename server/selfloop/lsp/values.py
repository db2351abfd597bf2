"""Pieces that messages of several kinds are made of; `protocol.py` has the contract."""

from __future__ import annotations

from typing import Literal

from selfloop.updates import Range
from selfloop.wire import Wire


class Empty(Wire):
    """`{}`."""


class ContextDiagnostic(Wire):
    """A diagnostic that the client attaches; foreign fields are ignored."""

    message: str
    range: Range | None = None
    severity: int | None = None
    source: str | None = None
    code: str | int | None = None


class ContextItem(Wire):
    """Something attached to a prompt or a round: a file, a selection in it, or text."""

    uri: str
    range: Range | None = None
    text: str | None = None
    diagnostics: list[ContextDiagnostic] | None = None


class FileDiff(Wire):
    uri: str
    operation: Literal["create", "modify", "delete", "rename"]
    diff: str
