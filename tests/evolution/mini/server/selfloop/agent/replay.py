"""A session's messages, read back from what was kept."""

from __future__ import annotations

from typing import Any


def messages_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages in order; what is no message is left out."""
    return [record["message"] for record in records if isinstance(record.get("message"), dict)]
