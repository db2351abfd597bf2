"""Where the model is, and where things lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What the user has set."""

    base_url: str
    api_key: str
    model: str
    turn_tokens: int
    home: Path


def load_settings() -> Settings:
    """Read the environment."""
    return Settings(
        os.environ.get("INFERENCE_BASE_URL", "http://127.0.0.1:1/v1"),
        os.environ.get("OPENROUTER_API_KEY", ""),
        os.environ.get("MODEL_NAME", "none"),
        200_000,
        Path(os.environ.get("SELFLOOP_HOME", "/nonexistent")),
    )
