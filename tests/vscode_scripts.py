"""Replies of a model that tests in the real VS Code share."""

from __future__ import annotations

from model_server import DONE, USAGE, Answer, Hold, Pause, chunk, raw


def held(*parts: str | Hold | Pause) -> Answer:
    """Return a streamed text that waits where a `Hold` or a `Pause` stands."""
    pieces = [chunk({"content": part}) if isinstance(part, str) else part for part in parts]
    return raw(*pieces, chunk({}, finish="stop"), chunk(None, usage=USAGE), DONE)
