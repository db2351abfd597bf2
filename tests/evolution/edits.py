"""Self-edits as data: `adversarial/*.toml` must be rejected by the layer that each names, `honest/*.toml` accepted.

An edit is one of: `find` and `replace` (which must stand there exactly once), `content`, `append` (some `times`),
`delete`, `link`; and `mode` besides. More can be added without a line of code.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import attrs

HERE = Path(__file__).parent
MINI = HERE / "mini"


@attrs.frozen
class Case:
    """One self-edit."""

    name: str
    edits: list[dict[str, Any]]
    kind: str = ""
    """Its class in the design's list."""
    layers: tuple[str, ...] = ()
    """Those that must reject it; the first one is where the judge stops."""
    test: str = ""
    """Of an honest one that changes behaviour: it fails before and passes after."""


def read_cases(folder: str) -> list[Case]:
    """Return every case of a folder."""
    found = []
    for file in sorted((HERE / folder).glob("*.toml")):
        for one in tomllib.loads(file.read_text(encoding="utf-8"))["case"]:
            layers = tuple(one.get("layers", ()))
            found.append(Case(one["name"], one["edits"], one.get("class", ""), layers, one.get("test", "")))
    return found


def make_child(case: Case, into: Path) -> Path:
    """Copy the miniature self and apply a case to it."""
    ignored = shutil.ignore_patterns("__pycache__", ".ruff_cache", ".pytest_cache")
    shutil.copytree(MINI, into, ignore=ignored)
    for edit in case.edits:
        target = into / edit["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if "find" in edit:
            text = target.read_text(encoding="utf-8")
            assert text.count(edit["find"]) >= 1, f"{case.name}: {edit['find']!r} does not stand in {edit['path']}"
            target.write_text(text.replace(edit["find"], edit["replace"], 1), encoding="utf-8")
        if "content" in edit:
            target.write_text(edit["content"], encoding="utf-8")
        if "append" in edit:
            with target.open("a", encoding="utf-8") as file:
                file.write(edit["append"] * edit.get("times", 1))
        if edit.get("delete") or "link" in edit:
            target.unlink()
        if "link" in edit:
            target.symlink_to(edit["link"])
        if "mode" in edit:
            target.chmod(edit["mode"])
    return into
