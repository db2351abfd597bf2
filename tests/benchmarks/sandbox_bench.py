"""How long a sandbox takes to be ready, against a fresh `git worktree add` of the same repository in the same run.

The repository has 50,000 files; before each round 200 of them are changed anew, and 20 are open and unsaved.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Figure, ratio
from selfloop.sandbox.pool import Pool
from selfloop.sandbox.shadow import Shadow

FILES, DIRTY, BUFFERS, ROUNDS = 50_000, 200, 20, 5


def run() -> list[Figure]:
    """Measure in a repository of many files, some of them changed anew before each round, some open and unsaved."""
    folder = Path(tempfile.mkdtemp(prefix="selfloop-bench-"))
    try:
        return asyncio.run(_measure(folder, FILES, DIRTY, BUFFERS, ROUNDS))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(folder: Path, files: int, dirty: int, buffers: int, rounds: int) -> list[Figure]:
    workspace, chance = folder / "workspace", random.Random(1)
    names = await asyncio.to_thread(_build, workspace, files)
    baseline: list[float] = []
    empty: list[float] = []
    warm: list[float] = []
    for number in range(rounds):
        await asyncio.to_thread(_git, workspace, "checkout", "-q", "-f", "HEAD")
        await asyncio.to_thread(_settle)
        started = time.perf_counter()
        await asyncio.to_thread(_git, workspace, "worktree", "add", "-q", "--detach", str(folder / f"plain{number}"))
        baseline.append(time.perf_counter() - started)
        overlay = _dirty(workspace, names, chance, dirty, buffers)
        await asyncio.to_thread(_settle)
        cache = folder / f"cache{number}"
        started = time.perf_counter()
        shadow = await Shadow.open(workspace, cache)
        pool = Pool(shadow, cache)
        await pool.acquire(overlay)
        empty.append(time.perf_counter() - started)
        await pool.settle()
        overlay = _dirty(workspace, names, chance, dirty, buffers)
        await asyncio.to_thread(_settle)
        started = time.perf_counter()
        await pool.acquire(overlay)
        warm.append(time.perf_counter() - started)
        await pool.close()
        for left in (cache, folder / f"plain{number}"):
            await asyncio.to_thread(shutil.rmtree, left, True)
        await asyncio.to_thread(_git, workspace, "worktree", "prune")
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    against = f"git worktree add ({git.removeprefix('git version ')})"
    plain = [1000 * seconds for seconds in baseline]
    return [
        ratio("sandbox ready, warm", 0.1, [1000 * seconds for seconds in warm], plain, against),
        ratio("sandbox ready, empty pool", 1.2, [1000 * seconds for seconds in empty], plain, against),
    ]


def _build(workspace: Path, files: int) -> list[str]:
    names = []
    for number in range(files):
        name = f"p{number % 50:02d}/m{number // 50 % 20:02d}/f{number}.py"
        names.append(name)
        path = workspace / name
        if number < 1000:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# file {number}\n" + "".join(f"x{line} = {number * line}\n" for line in range(40)))
    for arguments in (
        ("init", "-q"),
        ("config", "gc.auto", "0"),
        ("add", "."),
        ("commit", "-q", "-m", "x"),
        ("gc", "-q"),
    ):
        _git(workspace, *arguments)
    return names


def _dirty(workspace: Path, names: list[str], chance: random.Random, dirty: int, buffers: int) -> dict[str, bytes]:
    for name in chance.sample(names, min(dirty, len(names))):
        with (workspace / name).open("a") as file:
            file.write(f"# {chance.random()}\n")
    return {
        name: (workspace / name).read_bytes() + b"# unsaved\n"
        for name in chance.sample(names, min(buffers, len(names)))
    }


def _git(workspace: Path, *arguments: str) -> None:
    person = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    subprocess.run(["git", *arguments], cwd=workspace, check=True, env={**os.environ, **person}, capture_output=True)


def _settle() -> None:
    """Let the disk write what is waiting, so that no figure pays for another's."""
    os.sync()
    time.sleep(0.2)
