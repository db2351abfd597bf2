"""A loop's file with the user's settings on top: what the loop really may do.

Invariant: a repository only lowers authority. Its loop has L2 at most and no allow list, whatever its file says, until
the user raises it; and what the user has given to one text of it does not pass on to another text. A setting that makes
no sense grants nothing. Whatever is taken away or ignored is said in one sentence.
"""

from __future__ import annotations

import hashlib
from typing import Any

from attrs import asdict, evolve

from selfloop.errors import InvalidInput
from selfloop.loops import specfile
from selfloop.loops.cadence import parse
from selfloop.loops.spec import Level, LoopBudget, LoopSpec, check_limits, lower, read_action
from selfloop.model.budget import Limits
from selfloop.storage.loop_settings import LoopSetting

REPOSITORY_LEVEL = Level.L2
REPOSITORY_DAY_TOKENS = 2_000_000
"""The most that a repository's loop can use on a day until the user gives it a budget."""
REPOSITORY_ITERATIONS = 50
"""The same, of a round."""


def digest(spec: LoopSpec) -> str:
    """Return the sha256 of all that a loop's file says."""
    return hashlib.sha256(specfile.write(spec).encode()).hexdigest()


def overlay(spec: LoopSpec, setting: LoopSetting) -> tuple[LoopSpec, bool, tuple[str, ...]]:
    """Return the loop as it runs, whether it is on, and what was taken from it or ignored, one sentence each."""
    said: list[str] = []
    written = spec
    if spec.origin == "workspace":
        spec = _bounded(spec, own_budget=setting.budget is not None, said=said)
        if setting != LoopSetting() and setting.origin != "workspace":
            said.append(
                f"What you set for another loop named {spec.name} does not count for the repository's; set it anew."
            )
            setting = LoopSetting()
    level, allow = _authority(written, spec, setting, said)
    budget = _budget(spec, setting, said)
    cadence = spec.cadence
    if setting.cadence is not None:
        try:
            cadence = parse(setting.cadence).text
        except InvalidInput as error:
            said.append(f"Your cadence for {spec.name} is ignored: {error.message}.")
    return evolve(spec, level=level, allow=allow, cadence=cadence, budget=budget), setting.enabled, tuple(said)


def _bounded(spec: LoopSpec, *, own_budget: bool, said: list[str]) -> LoopSpec:
    """Return a repository's loop without what it may not give itself."""
    level = lower(spec.level, REPOSITORY_LEVEL)
    if level is not spec.level:
        said.append(
            f"The file of {spec.name} asks for {spec.level}; a repository's loop has {level} until you raise it."
        )
    if spec.allow:
        said.append(f"The allow list in the file of {spec.name} is ignored; only you can allow actions.")
    budget = spec.budget
    if not own_budget:
        asked = budget.day.max_total_tokens
        if asked is None or asked > REPOSITORY_DAY_TOKENS:
            budget = evolve(budget, day=evolve(budget.day, max_total_tokens=REPOSITORY_DAY_TOKENS))
        if (budget.round.max_iterations or REPOSITORY_ITERATIONS + 1) > REPOSITORY_ITERATIONS:
            budget = evolve(budget, round=evolve(budget.round, max_iterations=REPOSITORY_ITERATIONS))
        if budget != spec.budget and asked is not None:
            said.append(f"The budget in the file of {spec.name} is lowered to what a repository's loop can have.")
    return evolve(spec, level=level, allow=(), budget=budget)


def _authority(
    written: LoopSpec, spec: LoopSpec, setting: LoopSetting, said: list[str]
) -> tuple[Level, tuple[Any, ...]]:
    """Return the level and the allow list as the user has set them, as far as that counts."""
    level, allow = spec.level, spec.allow
    if setting.level is not None:
        try:
            level = Level.read(setting.level)
        except InvalidInput:
            said.append(f"Your level for {spec.name}, {setting.level!r}, is none, so the file's stays.")
    if level.rank > spec.max_level.rank:
        level = spec.max_level
        said.append(f"Your level for {spec.name} is above the highest that its file allows, so it has {level}.")
    if setting.allow is not None:
        try:
            allow = tuple(read_action(kind) for kind in setting.allow if kind != "promote-generation")
        except InvalidInput as error:
            allow = ()
            said.append(f"Your allow list for {spec.name} is ignored: {error.message}.")
    if spec.origin != "workspace":
        return level, allow
    if (level.rank > REPOSITORY_LEVEL.rank or allow) and setting.authorised != digest(written):
        said.append(
            f"The repository's file of {spec.name} is not the one that you gave more authority to, so it has "
            f"{lower(level, REPOSITORY_LEVEL)} and no allow list; read it, and raise it again."
        )
        return lower(level, REPOSITORY_LEVEL), ()
    return level, allow


def _budget(spec: LoopSpec, setting: LoopSetting, said: list[str]) -> LoopBudget:
    if setting.budget is None:
        return spec.budget
    try:
        return read_budget(setting.budget)
    except InvalidInput as error:
        said.append(f"Your budget for {spec.name} is ignored: {error.message}.")
        return spec.budget


def written_budget(budget: LoopBudget) -> dict[str, Any]:
    """Return a budget as settings keep it."""
    return asdict(budget)


def read_budget(kept: dict[str, Any]) -> LoopBudget:
    """Read what `written_budget` wrote.

    Raises:
        InvalidInput: it is none; the message is a phrase without an end.
    """
    try:
        budget = LoopBudget(Limits(**kept.get("round", {})), Limits(**kept.get("day", {})))
    except TypeError as error:
        raise InvalidInput("the budget cannot be understood") from error
    check_limits(budget.round)
    check_limits(budget.day)
    return budget
