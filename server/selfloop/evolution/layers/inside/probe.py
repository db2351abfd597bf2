"""Asks the policy core of the self at /self random questions: `python -I probe.py FILE SEED COUNT`.

Everything of the self is imported first, so that what an import changes has changed. For each probe of the parent's
FILE (`PROBES`: name → (make, run)), COUNT inputs are made from the seed and answered. The answers go to stdout, one
line of JSON for each probe: [name, [[input, answer], …]].
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import runpy
import sys
from random import Random
from typing import Any

_NOT_IMPORTED = (
    "selfloop.supervisor",
    "selfloop.__main__",
    "selfloop.evolution.layers.inside",
    "selfloop.sandbox.keeper",
)
"""Programs of their own, that are never imported."""


def main() -> None:
    """Import, ask, write the answers."""
    file, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    failed = import_all()
    probes: dict[str, tuple[Any, Any]] = runpy.run_path(file)["PROBES"]
    for name, (make, run) in probes.items():
        random = Random(f"{seed}:{name}")  # noqa: S311 - Made again from the seed, as it must be.
        asked = []
        for _ in range(count):
            value = make(random)
            asked.append([value, _answer(run, value)])
        answers.write(json.dumps([name, asked]) + "\n")
    answers.write(json.dumps(["modules that cannot be imported", [["", failed]]]) + "\n")
    answers.write(json.dumps(["end", []]) + "\n")
    answers.flush()
    os._exit(0)


def import_all() -> list[str]:
    """Import every module of the self; return those that cannot be, with the reason."""
    import selfloop

    failed = []
    for module in sorted(found.name for found in pkgutil.walk_packages(selfloop.__path__, "selfloop.")):
        if not module.startswith(_NOT_IMPORTED):
            try:
                importlib.import_module(module)
            except Exception as error:
                failed.append(f"{module}: {type(error).__name__}: {error}")
    return failed


def _answer(run: Any, value: Any) -> Any:
    """Return the answer as JSON has it; an exception is an answer too, by its type."""
    try:
        return json.loads(json.dumps(run(value), sort_keys=True, default=repr))
    except Exception as error:
        return f"raised {type(error).__name__}"


if __name__ == "__main__":
    main()
