"""Negative controls: tests that must fail, and tests that must pass, which nobody can tell from the others.

Two kinds. *Strangers* are new tests under names made of the parent's own words. *Sabotaged* ones are some of the
parent's real tests, by their real names and among all the others, with a failure put at their start, so that what
reports known names as passed is found too; they are run again as they are.
Invariant: if a single one ends otherwise than it must, the whole report is worth nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from random import Random

from attrs import frozen

_WAYS = (
    "    assert {left} + {right} == {wrong}\n",
    "    assert '{word}'.upper() == '{word}'\n",
    "    raise ValueError('{word}')\n",
    "    values = list(range({left}))\n    assert values[{left}] == {right}\n",
)
_RIGHT = (
    "    assert {left} + {right} == {sum}\n",
    "    assert '{word}'.upper().lower() == '{word}'\n",
    "    values = list(range({left}))\n    assert len(values) == {left}\n",
)


@frozen
class Controls:
    """Tests and how each must end."""

    file: str
    """Relative to the stage."""
    must_pass: frozenset[str]
    """Names of tests."""
    must_fail: frozenset[str]


def write_strangers(stage: Path, folder: str, names: Iterable[str], count: int, random: Random) -> Controls:
    """Write a file of new tests into a stage; blocks on the disk.

    Args:
        stage: the candidate's files.
        folder: of the sealed tests, relative to the stage.
        names: of the parent's tests; their words make the new names.
        count: how many tests; at least one must fail and one must pass.
        random: decides which.
    """
    words = sorted({word for name in names for word in name.split("[")[0].split("_")[1:] if word.isalpha()})
    words = words or ["a", "plain", "thing", "holds"]
    fails = [True, False, *(random.random() < 0.5 for _ in range(max(0, count - 2)))]
    random.shuffle(fails)
    text = '"""What holds besides."""\n\nfrom __future__ import annotations\n'
    made: dict[str, bool] = {}
    for failing in fails:
        name = f"test_{'_'.join(random.choice(words) for _ in range(5))}"
        while name in made:
            name += f"_{random.choice(words)}"
        made[name] = failing
        left, right = random.randint(3, 90), random.randint(3, 90)
        way = random.choice(_WAYS if failing else _RIGHT)
        body = way.format(left=left, right=right, wrong=left + right + random.randint(1, 9), sum=left + right,
                          word=random.choice(words).lower())  # fmt: skip
        text += f"\n\ndef {name}() -> None:\n{body}"
    file = f"{folder}/test_{'_'.join(random.choice(words) for _ in range(3))}_{random.randrange(1000)}.py"
    (stage / file).write_text(text, encoding="utf-8")
    passing = frozenset(name for name, failing in made.items() if not failing)
    return Controls(file, passing, frozenset(made) - passing)


def sabotage(stage: Path, file: str, names: frozenset[str], count: int, word: str, random: Random) -> Controls | None:
    """Put a failure at the start of a few tests of a real file; blocks on the disk.

    Args:
        stage: the candidate's files.
        file: relative to it.
        names: of the tests that may be chosen.
        count: how many at most.
        word: what the failure says, which nobody can know.
        random: chooses.

    Returns:
        The tests that must fail; None: the file has no plain ones.
    """
    target = stage / file
    text = target.read_text(encoding="utf-8")
    plain = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in names
    ]
    if not plain:
        return None
    chosen = random.sample(plain, min(count, len(plain)))
    lines = text.splitlines(keepends=True)
    for node in sorted(chosen, key=lambda one: -one.body[0].lineno):
        first = node.body[0]
        lines.insert(first.lineno - 1, f"{' ' * first.col_offset}raise AssertionError({word!r})\n")
    target.write_text("".join(lines), encoding="utf-8")
    return Controls(file, frozenset(), frozenset(node.name for node in chosen))
