"""What many tests play with: a small project, the user's git, and the way to a model."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_server import ModelServer

GREETING = "def greet(name):\n    return 'Hello ' + name\n\n\ndef part(name):\n    return 'Bye ' + name\n"

Starter = Callable[..., Any]
"""Starts a server on a workspace: the fixture `start`."""


def git(folder: Path, *arguments: str) -> str:
    """Run the user's git in a folder, as the user would."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.com",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.com",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


def environment_for(model: ModelServer) -> dict[str, str]:
    """Return the variables that point a server at a model."""
    return {"INFERENCE_BASE_URL": model.url, "OPENROUTER_API_KEY": "key-for-tests", "MODEL_NAME": "scripted"}
