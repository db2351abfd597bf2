"""The judge: whether a candidate may be shown to a human as the next self. It accepts nothing that it does not know.

    parent, child ─▶ G1 paths and text ─▶ G2 lint, types ─▶ G3 sealed tests ─▶ G4 canary ─▶ G5 probes ─▶ G6 leaks

Cheap layers first; the first that fails ends it. This code runs from the installed package; of the candidate, only
children in the jail ever see a line. Invariant: a layer that cannot say why it passed has failed, whatever went wrong
in it: a missing tool, a broken jail, an exception of ours.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from pathlib import Path

from selfloop.errors import SelfloopError
from selfloop.evolution.layers import behaviour, leaks, policy_probes, sealed_tests, static_checks
from selfloop.evolution.layers.bench import Bench, Finding
from selfloop.evolution.layers.change_policy import static_findings
from selfloop.evolution.layers.profile import read_profile
from selfloop.evolution.layers.stage import entries, tree_hash
from selfloop.evolution.report import LAYERS, JudgeReport, LayerResult
from selfloop.sandbox.fenced import Fence
from selfloop.sandbox.isolation import Isolation

__all__ = ["ALL", "CHEAP", "JudgeReport", "LayerResult", "judge"]

logger = logging.getLogger(__name__)

ALL = tuple(LAYERS)
CHEAP = ("G1", "G2", "G3")
"""What refining runs after each change."""
_LEFT_SECONDS = 24 * 3600.0
_KEPT_SECONDS = 30 * 24 * 3600.0
_TOOLS = ("selfloop", "pytest", "ruff", "pyrefly", "msgspec", "attrs")


async def judge(
    parent: Path,
    child: Path,
    *,
    isolation: Isolation,
    scratch: Path,
    seed: int | None = None,
    told: Callable[[str], None] = lambda sentence: None,
    layers: Collection[str] = ALL,
) -> JudgeReport:
    """Judge a candidate against its parent.

    Args:
        parent: the self that judges, laid out like the repository. Its pyproject.toml says how it is judged.
        child: the candidate, a clean export of its commit.
        isolation: what the probe found; anything but `process` is a rejection with its reason.
        scratch: a folder for the work and for what is kept of parents, by tree; made if it is not there.
        seed: of controls and probes; None: one that nobody can know.
        told: is told each layer's result as one sentence, as it comes.
        layers: which run. A report of fewer than all is never accepted.

    Returns:
        What was found. The judge does not raise for anything that a candidate can bring about.

    Raises:
        RequestFailed: the parent has no profile.
        OSError: the folders cannot be read, or the scratch cannot be written.
    """
    started, started_at = time.monotonic(), datetime.now(UTC)
    seed = secrets.randbits(48) if seed is None else seed
    profile = await asyncio.to_thread(read_profile, parent)
    ours = await asyncio.to_thread(entries, parent, profile.left_out)
    theirs = await asyncio.to_thread(entries, child, profile.left_out, export=True)
    tree, parent_tree = await asyncio.to_thread(lambda: (tree_hash(theirs), tree_hash(ours)))
    await asyncio.to_thread(scratch.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(_sweep, scratch)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="judge-", dir=scratch))
    fence = Fence(isolation, folder / "fence")
    bench = Bench(ours, theirs, parent_tree, profile, fence, folder, scratch / "kept", seed)
    results: list[LayerResult] = []
    try:
        for name in LAYERS:
            if name not in layers:
                continue
            result = await _layer(name, bench)
            results.append(result)
            told(f"{name} {'passed' if result.passed else 'failed'}: {result.reason}")
            if not result.passed:
                break
    finally:
        await asyncio.shield(asyncio.to_thread(bench.close))
    return JudgeReport(
        tree=tree,
        parent_tree=parent_tree,
        seed=seed,
        layers=tuple(results),
        versions=await asyncio.to_thread(_versions),
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
    )


async def _layer(name: str, bench: Bench) -> LayerResult:
    """Run one layer. Whatever goes wrong in it, the candidate has not passed it."""
    started = time.monotonic()
    try:
        if name != "G1":
            await asyncio.to_thread(bench.fence.furnish)
        finding = await _RUN[name](bench)
    except SelfloopError as error:
        finding = Finding(False, error.message)
    except Exception as error:
        logger.exception("The layer %s failed by a fault of ours.", name)
        finding = Finding(False, f"The judge itself failed ({type(error).__name__}: {error}), so it is unknown.")
    seconds = round(time.monotonic() - started, 3)
    return LayerResult(name, LAYERS[name], finding.passed, finding.reason, finding.details, seconds)


async def _changes(bench: Bench) -> Finding:
    found = await asyncio.to_thread(static_findings, bench.parent, bench.child, bench.profile)
    if found:
        more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
        return Finding(False, f"{found[0]}{more}", tuple(found[1:40]))
    return Finding(True, "Only what may change was changed, and all of it can be seen.")


_RUN: dict[str, Callable[[Bench], Awaitable[Finding]]] = {
    "G1": _changes,
    "G2": static_checks.run,
    "G3": sealed_tests.run,
    "G4": behaviour.run,
    "G5": policy_probes.run,
    "G6": leaks.run,
}


def _sweep(scratch: Path) -> None:
    """Remove what judgements that were killed have left, and what is kept of parents that are long gone."""
    now = time.time()
    for pattern, seconds in (("judge-*", _LEFT_SECONDS), ("kept/*", _KEPT_SECONDS)):
        for left in scratch.glob(pattern):
            if now - left.lstat().st_mtime > seconds:
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    """Return the versions of what judged."""
    found = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
