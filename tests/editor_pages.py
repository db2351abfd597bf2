"""The configuration blocks of the editors' pages, so that what users copy is what the tests load."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from model_server import ModelServer
from scene import environment_for

PAGES = Path(__file__).parent.parent / "server" / "editors"
_BLOCK = re.compile(
    r"<!-- block: (?P<name>[\w.-]+) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_COMMAND = re.compile(r"selfloop\.[a-z]+\.[a-zA-Z]+")


def page(name: str) -> str:
    """Return a page's text."""
    return (PAGES / name).read_text(encoding="utf-8")


def block(name: str, wanted: str) -> str:
    """Return one configuration block of a page."""
    found = [match["text"] for match in _BLOCK.finditer(page(name)) if match["name"] == wanted]
    assert len(found) == 1, f"{name} has {len(found)} blocks {wanted!r}"
    return found[0]


def commands_named(name: str) -> set[str]:
    """Return every command of ours that a page names."""
    return set(_COMMAND.findall(page(name)))


def environment(model: ModelServer, home: Path) -> dict[str, str]:
    """Return the environment of an editor: a home of its own, and `selfloop` of this environment on its PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **environment_for(model), "PATH": path, "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
