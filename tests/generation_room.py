"""Generations for tests: folders made of this checkout's own source with some files changed, and the way to one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import selfloop
from lsp_client import LspClient
from selfloop.evolution.generations import Generations
from selfloop.evolution.source import self_files
from selfloop.messages import Usage

ROOT = Path(selfloop.__file__).resolve().parents[2]
CODE_ACTIONS = "server/selfloop/lsp/code_actions.py"
TITLE = "Ask Selfloop about this file"
"""A title that `code_actions.py` sends to editors, so that a generation can be seen on the wire."""

Edits = dict[str, Callable[[str], str]]


def retitled(number: int) -> Edits:
    """Return the edits of a generation that can be told from others on the wire."""

    def change(text: str) -> str:
        changed = text.replace(TITLE, f"{TITLE}, generation {number}")
        assert changed != text
        return changed

    return {CODE_ACTIONS: change}


def prefixed(path: str, code: str) -> Edits:
    """Return the edits of a generation in which some code stands at the end of a module."""
    return {path: lambda text: f"{text}\n\n{code}\n"}


def make_generation(home: Path, edits: Edits) -> str:
    """Put a generation into the user's data folder, as a verified one lies there; returns its tree."""
    shelf = home / "data" / "self" / "generations"
    stage = home / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "server" / "selfloop", stage / "server" / "selfloop", ignore=skip)
    shutil.copytree(ROOT / "prompts", stage / "prompts", ignore=skip)
    for path, change in edits.items():
        file = stage / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(change(file.read_text() if file.exists() else ""))
    tree = git_tree(stage)
    shelf.mkdir(parents=True, exist_ok=True)
    if not (shelf / tree).exists():
        stage.rename(shelf / tree)
        for folder, _, names in os.walk(shelf / tree):
            for name in names:
                (Path(folder) / name).chmod(0o444)
            Path(folder).chmod(0o555)
    return tree


async def adopt(home: Path, edits: Edits) -> int:
    """Put a generation into the user's lineage, as if it had been judged and approved; returns its number."""
    generations = Generations(home / "data")
    base = await generations.base()
    files = self_files()
    changed = home / "changed"
    for path, change in edits.items():
        file = changed / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(change(files[path].read_text() if path in files else ""))
        files[path] = file
    tree = await generations.home.take_in(files)
    one = await generations.add(
        tree=tree,
        commit=await generations.home.commit(tree, (base.commit,), "A generation for a test"),
        parent=0,
        parent_tree=base.tree,
        run_id=uuid.uuid4().hex,
        summary="A generation for a test",
        suggestion={},
        evidence={"layers": []},
        tokens=Usage(),
        approved_by="test",
        origins=[],
    )
    return one.number


async def activate(client: LspClient, number: int) -> str:
    """Ask for a generation as a user does; returns the id by which updates tell what becomes of it."""
    return (await client.request("selfloop/generation/activate", {"number": number}))["restartId"]


def states(client: LspClient, restart_id: str | None = None) -> list[str]:
    """Return what was told of generations so far (of one swap)."""
    return [one["state"] for one in client.of_type("generation") if restart_id in (None, one.get("restartId"))]


def git_tree(folder: Path) -> str:
    """Return the hash that git itself gives to a folder's content."""
    environment = {
        **os.environ,
        "GIT_DIR": f"{folder}.git",
        "GIT_WORK_TREE": str(folder),
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], env=environment, cwd=folder, check=True, capture_output=True, text=True
        ).stdout

    shutil.rmtree(f"{folder}.git", ignore_errors=True)
    git("init", "-q")
    git("add", "-A", "-f")
    return git("write-tree").strip()


def thaw(folder: Path) -> None:
    """Make a generation's folder writable again."""
    for inner, _, names in os.walk(folder):
        Path(inner).chmod(0o755)
        for name in names:
            (Path(inner) / name).chmod(0o644)


def active(home: Path) -> dict[str, Any]:
    """Return what `active.json` says."""
    return json.loads((home / "data" / "self" / "active.json").read_text())


def make_active(home: Path, number: int, tree: str, *, state: str = "settled", **more: Any) -> None:
    """Write `active.json`, as the supervisor would have left it; it descends from the installed package."""
    value = {
        "version": 1,
        "number": number,
        "tree": tree,
        "parent": 0,
        "base": selfloop.__version__,
        "state": state,
        "boots": 0,
        "lastGood": {"number": 0, "tree": ""},
        "rollbacks": 0,
        "outcomes": [],
        **more,
    }
    path = home / "data" / "self" / "active.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


async def generation_of(client: LspClient) -> int:
    """Return the number of the generation that serves."""
    return (await client.request("selfloop/status", {}))["generation"]


async def until_generation(client: LspClient, number: int, timeout: float = 60) -> None:
    """Wait until a generation serves."""
    end = asyncio.get_running_loop().time() + timeout
    while await generation_of(client) != number:
        assert asyncio.get_running_loop().time() < end, f"generation {number} does not serve"
        await asyncio.sleep(0.02)


async def titles(client: LspClient, uri: str) -> list[str]:
    """Return the titles of the code actions on a document's first line."""
    place = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}
    params = {"textDocument": {"uri": uri}, "range": place, "context": {"diagnostics": []}}
    return [action["title"] for action in await client.request("textDocument/codeAction", params)]
