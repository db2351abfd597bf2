"""What maker and checker say in tests of rounds, and a small project with a test that really runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_server import Answer, Request, call, text, tools
from scene import GREETING, git

EDIT = call("edit_file", path="greet.py", old="'Hello ' + name", new="f'Hello {name}'")
AFTER = GREETING.replace("'Hello ' + name", "f'Hello {name}'")
TEST = "python3 -m unittest -q test_greet"
VERIFIED = call(
    "submit_verdict",
    verdict="verified",
    summary="It greets.",
    evidence=[{"check": "test", "command": TEST, "exit_code": 0}],
)
MADE = "The greeting is an f-string now.\n\nTitle: Greet by an f-string\n\nStatus: Done"
CHECKED = [tools(call("shell", command=TEST)), tools(VERIFIED), text("Done.")]
_TESTS = """import unittest
from greet import greet


class Test(unittest.TestCase):
    def test_greet(self):
        self.assertEqual(greet('you'), 'Hello you')
"""


def with_tests(workspace: Path) -> Path:
    """Give the small repository a test, and a user who can commit."""
    (workspace / "test_greet.py").write_text(_TESTS)
    git(workspace, "add", ".")
    git(workspace, "commit", "-q", "-m", "test")
    git(workspace, "config", "user.name", "Una")
    git(workspace, "config", "user.email", "una@example.com")
    return workspace


def is_checker(request: Request) -> bool:
    """Tell whether a request is a checker's."""
    return ":checker" in request.messages[0]["content"]


def plays(maker: list[Answer], checker: list[Answer]) -> Callable[[Request], Answer]:
    """Play maker and checker, each by how many replies of its own the request holds."""

    def answer(request: Request) -> Answer:
        said = sum(message["role"] == "assistant" for message in request.messages)
        script = checker if is_checker(request) else maker
        return script[min(said, len(script) - 1)]

    return answer


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
