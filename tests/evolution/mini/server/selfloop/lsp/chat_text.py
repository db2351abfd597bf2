"""How a session is written out for people."""

from __future__ import annotations

from typing import Any


def as_markdown(messages: list[dict[str, Any]]) -> str:
    """Return the conversation as Markdown; tools are left out."""
    blocks = []
    for message in messages:
        if message["role"] in ("user", "assistant") and message["content"]:
            blocks.append(f"**{message['role']}**\n\n{message['content']}")
    return "\n\n".join(blocks)
