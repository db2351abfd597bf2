"""What the layers of one judgement share: both selves, their stages, the jail, the seed, what is kept of parents."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field, frozen

from selfloop.evolution.layers.profile import Profile
from selfloop.evolution.layers.stage import Entry, make_stage
from selfloop.sandbox.fenced import PYTHON, SELF, WORK, Fence, Fenced

_INSIDE = Path(__file__).parent / "inside"
INSIDE = Path("/inside")
"""Where the judge's own programs stand in the jail."""


@frozen
class Finding:
    """What a layer came to."""

    passed: bool
    reason: str
    """One sentence."""
    details: tuple[str, ...] = ()


@define
class Bench:
    """One judgement's work space. Its folder is the judge's own and is removed with it, but for `kept`."""

    parent: dict[str, Entry]
    child: dict[str, Entry]
    parent_tree: str
    profile: Profile
    fence: Fence
    folder: Path
    kept: Path
    """Evidence on parents, by tree: each is run once."""
    seed: int
    canaries: dict[str, Any] = field(factory=dict)
    """The run of the candidate's canary, which two layers look at."""
    _stages: dict[str, Path] = field(factory=dict)

    def random(self, purpose: str) -> Random:
        """Return the randomness of one purpose, which nobody can foretell who does not know the seed."""
        return Random(f"{self.seed}:{purpose}")  # noqa: S311 - reproduced from the report's seed, as it must be

    def stage(self, which: str) -> Path:
        """Return the folder of the `parent` or the `child` as it is judged; made on first use, blocks on the disk."""
        if which not in self._stages:
            folder = self.folder / f"stage-{which}"
            make_stage(self.parent, self.parent if which == "parent" else self.child, folder)
            self._stages[which] = folder
        return self._stages[which]

    def work(self, name: str) -> Path:
        """Return a new writable folder for one run."""
        folder = self.folder / f"work-{name}-{secrets.token_hex(3)}"
        (folder / "tmp").mkdir(parents=True)
        return folder

    async def python(
        self,
        arguments: Sequence[str],
        *,
        stage: Path,
        work: Path,
        seconds: float,
        cwd: Path = SELF,
        environment: Mapping[str, str] | None = None,
        shown: Mapping[Path, Path] | None = None,
    ) -> Fenced:
        """Run Python, isolated, on a stage."""
        return await self.program(
            [str(PYTHON), "-I", *arguments],
            stage=stage, work=work, seconds=seconds, cwd=cwd, environment=environment, shown=shown,
        )  # fmt: skip

    async def program(
        self,
        argv: Sequence[str],
        *,
        stage: Path,
        work: Path,
        seconds: float,
        cwd: Path = SELF,
        environment: Mapping[str, str] | None = None,
        shown: Mapping[Path, Path] | None = None,
    ) -> Fenced:
        """Run a program on a stage."""
        return await self.fence.run(
            argv,
            shown={SELF: stage, INSIDE: _INSIDE, **(shown or {})},
            work=work,
            cwd=cwd,
            environment={"TMPDIR": str(WORK / "tmp"), "PYTHONHASHSEED": "0", **(environment or {})},
            timeout_seconds=seconds,
        )

    def recall(self, name: str) -> Any:
        """Return what was kept of the parent's run of a layer, None if there is nothing; blocks on the disk."""
        file = self.kept / f"{self.parent_tree}-{name}.json"
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def keep(self, name: str, value: Any) -> None:
        """Keep the parent's run of a layer; blocks on the disk."""
        self.kept.mkdir(parents=True, exist_ok=True)
        file = self.kept / f"{self.parent_tree}-{name}.json"
        fresh = file.with_name(f"{file.name}.{os.getpid()}.{secrets.token_hex(3)}")
        fresh.write_text(json.dumps(value), encoding="utf-8")
        fresh.replace(file)

    def close(self) -> None:
        """Remove the folder; blocks on the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


def last_lines(data: bytes, count: int = 12) -> tuple[str, ...]:
    """Return the end of a program's output, for a report."""
    lines = [line.rstrip()[:300] for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    return tuple(lines[-count:])
