"""What an evolving agent is shown of itself before anything else: short, and the same in every call.

    prompts (path, size, what for) ─ AGENTS.md ─ memory (path, what it is) ─ source (path, size, symbols)

Invariant: a function of the self's files alone, in a fixed order, so that it is the longest prefix that a provider's
cache can hold; what is in a file is read by range when it is needed. No clock, no id and no budget stands in it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from selfloop.agent.fence import Fence
from selfloop.evolution.source import is_litter
from selfloop.supervisor.contract import may_evolve

_RULES_CHARS = 12_000
_SYMBOLS = 14
_WORDS_CHARS = 110
_COMMENT = re.compile(r"\A\s*<!--(.*?)-->", re.DOTALL)


def describe(root: Path, fence: Fence) -> str:
    """Return what an agent is told of the self below `root`. Reads the disk.

    Args:
        root: laid out like the repository.
        fence: what we or an earlier generation have written in AGENTS.md and notes is data all the same.
    """
    files = {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and not is_litter(path.relative_to(root).as_posix())
    }
    prompts = [name for name in files if name.startswith("prompts/") and not name.startswith("prompts/memory/")]
    memory = [name for name in files if name.startswith("prompts/memory/")]
    source = [name for name in files if may_evolve(name) and not name.startswith("prompts/")]
    rules = _read(files["AGENTS.md"])[:_RULES_CHARS] if "AGENTS.md" in files else "There is none."
    chart = "\n".join(
        [
            "Prompts (path, characters, what it is):",
            *(_line(name, files[name], _purpose(files[name])) for name in prompts if name.endswith(".md")),
            "",
            "Memory notes:",
            *([_line(name, files[name], _purpose(files[name])) for name in memory] or ["There is none."]),
            "",
            "Source that may change (path, characters, what it defines):",
            *(_line(name, files[name], _symbols(files[name])) for name in source),
            "",
            "Everything else can be read and never changes; files by folder:",
            *_folders(name for name in files if not may_evolve(name)),
        ]
    )
    return "\n\n".join(
        [
            "You look at your own source. Paths are relative to its root.",
            f"AGENTS.md:\n{fence.data(rules, source='AGENTS.md')}",
            fence.data(chart, source="map of the source"),
            "Here the work begins.",
        ]
    )


def evolvable(root: Path) -> list[str]:
    """Return the files below a root that may evolve, by name. Reads the disk."""
    names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(name for name in names if may_evolve(name))


def _line(name: str, file: Path, words: str) -> str:
    mark = "" if may_evolve(name) else " [sealed]"
    return f"{name}{mark}, {len(_read(file))}" + (f": {words}" if words else "")


def _purpose(file: Path) -> str:
    """Return the first sentence of a prompt's comment, of a loop's front matter or of a note."""
    text = _read(file)
    found = _COMMENT.match(text)
    intent = re.search(r"^intent:\s*(.+)$", text, re.MULTILINE)
    words = intent[1] if intent and text.startswith("---") else found[1] if found else text.strip().lstrip("# ")
    words = " ".join((words.strip().split("\n\n") or [""])[0].split())
    return words if len(words) <= _WORDS_CHARS else words[: _WORDS_CHARS - 1] + "…"


def _symbols(file: Path) -> str:
    if file.suffix != ".py":
        return _purpose(file)
    try:
        tree = ast.parse(_read(file))
    except (SyntaxError, ValueError):
        return "does not parse"
    names = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    return " ".join(names[:_SYMBOLS]) + (" …" if len(names) > _SYMBOLS else "")


def _folders(names: Iterator[str]) -> list[str]:
    counts = Counter(name.rpartition("/")[0] or "." for name in names)
    return [f"{folder}/: {count}" for folder, count in sorted(counts.items())]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
