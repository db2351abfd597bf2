"""Commands that the user allowed always: each rule is one exact command, in one workspace, with or without network.

Nothing is matched by pattern, and network is never implied. Rules lie in the user's data folder, out of a repository's
reach.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from attrs import asdict, fields_dict, frozen

from selfloop.errors import Unknown
from selfloop.storage.disk import now
from selfloop.storage.shared import SharedList


@frozen
class RuleRecord:
    """One remembered rule."""

    id: str
    workspace: str
    """The real path of the workspace that it holds in."""
    command: str
    """The exact text of the command."""
    network: bool
    origin: str
    """The gate that the user answered with "always"."""
    example: str
    """What was shown when the rule was made."""
    uses: int
    created_at: str

    def sentence(self) -> str:
        """Return the rule as the user is shown it, before it is made and in the list of rules."""
        return rule_sentence(self.command, network=self.network, workspace=self.workspace)


def rule_sentence(command: str, *, network: bool, workspace: Path | str) -> str:
    """Return what a rule allows, with every character that cannot be seen written out."""
    from selfloop.changes import visible  # The worker starts without it.

    how = "with" if network else "without"
    return f"run exactly this command {how} network in {os.path.realpath(workspace)}: {visible(command)}"


class Rules:
    """The rules of this user, for all workspaces."""

    def __init__(self, data: Path) -> None:
        self._file = SharedList(data / "rules.json")

    def list(self, workspace: Path | None = None) -> list[RuleRecord]:
        """Return the rules, oldest first; only a workspace's, if one is given."""
        rules = [rule for item in self._file.read() if (rule := _rule(item))]
        return [rule for rule in rules if workspace is None or rule.workspace == _place(workspace)]

    def add(self, workspace: Path, command: str, *, network: bool, origin: str, example: str = "") -> RuleRecord:
        """Remember a rule and return it; the same rule is kept only once."""
        with self._file.change() as items:
            for item in items:
                rule = _rule(item)
                if rule is not None and _fits(rule, workspace, command, network):
                    return rule
            rule = RuleRecord(
                id=f"rule-{secrets.token_hex(4)}",
                workspace=_place(workspace),
                command=command,
                network=network,
                origin=origin,
                example=example or command,
                uses=0,
                created_at=now(),
            )
            items.append(asdict(rule))
        return rule

    def match(self, workspace: Path, command: str, *, network: bool) -> RuleRecord | None:
        """Return the rule that allows this command, and count the use; None if there is none."""
        if not any(_fits(rule, workspace, command, network) for rule in self.list()):
            return None
        with self._file.change() as items:
            for place, item in enumerate(items):
                rule = _rule(item)
                if rule is not None and _fits(rule, workspace, command, network):
                    items[place] = {**item, "uses": rule.uses + 1}
                    return _rule(items[place])
        return None

    def remove(self, rule_id: str) -> None:
        """Forget a rule.

        Raises:
            Unknown: there is none of this id.
        """
        with self._file.change() as items:
            kept = [item for item in items if not (isinstance(item, dict) and item.get("id") == rule_id)]
            if len(kept) == len(items):
                raise Unknown("Rule", rule_id)
            items[:] = kept


def _fits(rule: RuleRecord, workspace: Path, command: str, network: bool) -> bool:
    return rule.workspace == _place(workspace) and rule.command == command and rule.network is network


def _place(workspace: Path) -> str:
    return os.path.realpath(workspace)


def _rule(item: Any) -> RuleRecord | None:
    """Read a rule; None for what is none, so that one spoilt entry grants nothing and hides no other."""
    types = {"network": bool, "uses": int}
    names = fields_dict(RuleRecord)
    if not isinstance(item, dict) or any(type(item.get(name)) is not types.get(name, str) for name in names):
        return None
    return RuleRecord(**{name: item[name] for name in names})
