"""Loads and fills the prompts."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"\{\{(\w+)\}\}")
_COMMENT = re.compile(r"^<!--.*?-->\n?", re.DOTALL | re.MULTILINE)
FOLDER = Path(__file__).resolve().parents[3] / "prompts"


def render(name: str, **values: str) -> str:
    """Return a prompt with every name filled."""
    text = _COMMENT.sub("", (FOLDER / f"{name}.md").read_text(encoding="utf-8"))
    if set(_NAME.findall(text)) != set(values):
        raise ValueError(f"the prompt {name} and what fills it do not fit")
    return _NAME.sub(lambda match: values[match[1]], text).strip()


def tool_text(name: str) -> str:
    """Return what is said of a tool."""
    text = (FOLDER / "tools.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name].strip()
