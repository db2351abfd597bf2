"""G3: the parent's tests on the candidate's code, isolated, without network, read off the junit report by test id.

The report is written by a process in which the candidate's code runs, so it is believed only where controls, whose end
is known beforehand, ended as they must: see `controls.py`. Invariant: a test that passes with the parent must pass with
the candidate; a skip counts only where the parent skipped that test for the same reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import xml.etree.ElementTree as xml
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from attrs import frozen

from selfloop.evolution.layers.bench import Bench, Finding, last_lines
from selfloop.evolution.layers.controls import Controls, sabotage, write_strangers
from selfloop.sandbox.fenced import WORK, Fenced

_REPORT = "report.xml"
_FAILED = (1,)
"""pytest's exit code where some test failed, which in a run with controls is the only right one."""
_SABOTAGED_FILES = 6
_SABOTAGED_TESTS = 2
"""In each of them."""


@frozen
class Outcome:
    """How one test ended."""

    state: str
    """`passed`, `failed` or `skipped`."""
    said: str
    """The first line of the failure, or the reason of the skip."""
    node: str
    """What pytest is given to run it alone."""


async def run(bench: Bench) -> Finding:
    """Run the tests, and compare them with the parent's own."""
    expected = await _expected(bench)
    if isinstance(expected, Finding):
        return expected
    stage = await asyncio.to_thread(bench.stage, "child")
    word = secrets.token_hex(6)
    controls, untouched = await asyncio.to_thread(_write_controls, bench, stage, expected, word)
    try:
        done, seen = await _tests(bench, stage, bench.profile.sealed)
    finally:
        await asyncio.to_thread(_restore, stage, controls, untouched)
    strangers, *sabotaged = controls
    wrong = _not_believed(done, seen, bench) or _controlled(seen, strangers)
    for one in sabotaged:
        wrong = wrong or _controlled(seen, one, word)
    if wrong is not None:
        return wrong
    left = {f"{one.file.removesuffix('.py').replace('/', '.')}::{name}" for one in sabotaged for name in one.must_fail}
    broken = _broken({key: one for key, one in expected.items() if key not in left}, seen)
    retried: list[str] = []
    if len(broken) <= bench.profile.retried and all(key in seen for key in broken):
        # A test of time fails now and then on a busy machine; one that fails alone, too, has failed.
        retried = sorted(broken)
        _, again = await _tests(bench, stage, [seen[key].node for key in sorted({*retried, *left})], workers=1)
        broken = _broken({key: expected[key] for key in (*retried, *left)}, again)
    if broken:
        details = tuple(f"{key}: {why}" for key, why in sorted(broken.items())[:40])
        return Finding(False, f"{len(broken)} of the parent's {len(expected)} tests do not hold any more.", details)
    passed = sum(one["state"] == "passed" for one in expected.values())
    unsound = sum(one["state"] == "failed" for one in expected.values())
    details = [f"{len(strangers.must_fail)} of {bench.profile.controls} new tests had to fail, and did."]
    details += [f"{len(left)} of the parent's tests were sabotaged and failed, and held when they were as they are."]
    details += [f"Failed once, and held when run alone: {key}" for key in retried]
    if unsound:
        details.append(f"{unsound} tests that fail with the parent in this jail, too, count for nothing.")
    return Finding(True, f"{passed} of the parent's tests hold.", tuple(details))


def _write_controls(
    bench: Bench, stage: Path, expected: dict[str, dict[str, str]], word: str
) -> tuple[list[Controls], dict[str, str]]:
    """Write the strangers and sabotage some tests; return both, strangers first, and the files as they were."""
    random = bench.random("controls")
    names = [key.rpartition("::")[2] for key in expected]
    controls = [write_strangers(stage, _folder(stage, bench.profile.sealed), names, bench.profile.controls, random)]
    plain: dict[str, set[str]] = {}
    for key, one in expected.items():
        group, _, name = key.rpartition("::")
        if one["state"] == "passed" and "[" not in name:
            plain.setdefault(f"{group.replace('.', '/')}.py", set()).add(name)
    files = sorted(file for file in plain if (stage / file).is_file())
    random.shuffle(files)
    untouched: dict[str, str] = {}
    for file in files[:_SABOTAGED_FILES]:
        text = (stage / file).read_text(encoding="utf-8")
        made = sabotage(stage, file, frozenset(plain[file]), _SABOTAGED_TESTS, word, random)
        if made is not None:
            untouched[file] = text
            controls.append(made)
    return controls, untouched


def _restore(stage: Path, controls: Sequence[Controls], untouched: Mapping[str, str]) -> None:
    (stage / controls[0].file).unlink()
    for file, text in untouched.items():
        (stage / file).write_text(text, encoding="utf-8")


async def _expected(bench: Bench) -> dict[str, dict[str, str]] | Finding:
    """Return how the parent's tests end with the parent; it is run once."""
    key = hashlib.sha256(msgspec.json.encode(bench.profile)).hexdigest()[:12]
    kept = await asyncio.to_thread(bench.recall, f"tests-{key}")
    if kept is not None:
        return kept
    stage = await asyncio.to_thread(bench.stage, "parent")
    done, seen = await _tests(bench, stage, bench.profile.sealed)
    sound = {name: one for name, one in seen.items() if one.state != "failed"}
    if done.exit_code not in (0, 1) or not seen or len(sound) < 0.9 * len(seen):
        failed = [f"{name}: {one.said}" for name, one in seen.items() if one.state == "failed"]
        return Finding(
            False,
            f"The parent's own tests do not run in the jail (exit code {done.exit_code}, {len(sound)} of {len(seen)} "
            "hold), so it is unknown what the candidate's would say.",
            (*failed[:20], *last_lines(done.output)),
        )
    value = {name: {"state": one.state, "said": one.said} for name, one in seen.items()}
    await asyncio.to_thread(bench.keep, f"tests-{key}", value)
    return value


async def _tests(
    bench: Bench, stage: Path, what: Sequence[str], *, workers: int | None = None
) -> tuple[Fenced, dict[str, Outcome]]:
    profile = bench.profile
    work = await asyncio.to_thread(bench.work, "tests")
    arguments = ["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={WORK / _REPORT}"]
    arguments += ["-o", "junit_family=xunit1", f"--basetemp={WORK / 'tmp' / 'pytest'}", "-o", "addopts="]
    for plugin in profile.plugins:
        arguments += ["-p", plugin]
    workers = profile.workers if workers is None else workers
    if workers > 1:
        arguments += ["-n", str(workers), "--dist", "loadfile"]
    for path in profile.ignored:
        arguments.append(f"--ignore={path}")
    for node in profile.deselected:
        arguments.append(f"--deselect={node}")
    if profile.marks:
        arguments += ["-m", profile.marks]
    environment = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(WORK / "tmp" / "hypothesis"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = await bench.python(
        [*arguments, *what], stage=stage, work=work, seconds=profile.tests_seconds, environment=environment
    )
    return done, await asyncio.to_thread(_read, work / _REPORT)


def _read(file: Path) -> dict[str, Outcome]:
    """Return every test of a junit report by `class::name`; nothing where there is no report that can be read."""
    try:
        root = xml.parse(file).getroot()  # noqa: S314 - Of our own making, in memory limits of its own, no entities.
    except (OSError, xml.ParseError):
        return {}
    found: dict[str, Outcome] = {}
    for case in root.iter("testcase"):
        state, said = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                state, said = "failed", (child.get("message") or child.text or "").strip().split("\n")[0][:300]
            elif child.tag == "skipped" and state == "passed":
                state, said = "skipped", (child.get("message") or "")[:300]
        path, name, group = case.get("file", ""), case.get("name", ""), case.get("classname", "")
        module = path.removesuffix(".py").replace("/", ".")
        inner = [part for part in group.removeprefix(module).split(".") if part]
        key = f"{group}::{name}"
        node = "::".join([path, *inner, name])
        if key in found and found[key].state == "failed":
            continue  # A failure in the teardown is a case of its own, after the test.
        found[key] = Outcome(state, said, node)
    return found


def _not_believed(done: Fenced, seen: dict[str, Outcome], bench: Bench) -> Finding | None:
    """Return why a run's report is worth nothing, None if it may be believed."""
    if done.exit_code is None:
        return Finding(False, f"The tests did not end within {bench.profile.tests_seconds:.0f} seconds.")
    if not seen or done.exit_code not in _FAILED:
        return Finding(
            False,
            f"The tests ended with exit code {done.exit_code} although some had to fail, so the report is not "
            "believed.",
            last_lines(done.output) + last_lines(done.complaint),
        )
    return None


def _controlled(seen: dict[str, Outcome], controls: Controls, word: str = "") -> Finding | None:
    module = controls.file.removesuffix(".py").replace("/", ".")
    states = {key.rpartition("::")[2]: one for key, one in seen.items() if key.startswith(f"{module}::")}
    for names, state in ((controls.must_fail, "failed"), (controls.must_pass, "passed")):
        for name in sorted(names):
            one = states.get(name)
            if one is None or one.state != state or (state == "failed" and word not in one.said):
                found = "is missing" if one is None else f"is reported as {one.state}"
                return Finding(False, f"A control that had to be {state} {found}, so no report is believed.", (name,))
    return None


def _broken(expected: dict[str, dict[str, str]], seen: dict[str, Outcome]) -> dict[str, str]:
    """Return every test that does not end as with the parent, and why."""
    broken: dict[str, str] = {}
    for key, before in expected.items():
        now = seen.get(key)
        if before["state"] == "failed":
            continue
        if now is None:
            broken[key] = "it did not run"
        elif now.state == "failed":
            broken[key] = f"it fails: {now.said}"
        elif now.state == "skipped" and (before["state"], before["said"]) != ("skipped", now.said):
            broken[key] = f"it is skipped: {now.said}"
    return broken


def _folder(stage: Path, sealed: Sequence[str]) -> str:
    """Return a folder of the sealed tests, for the strangers."""
    first = sealed[0]
    return first if (stage / first).is_dir() else first.rpartition("/")[0]
