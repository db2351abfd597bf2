"""What two rooms each know of the protocol is the same."""

from __future__ import annotations

import json

import pytest

from selfloop.lsp.capabilities import RECORD, build
from selfloop.lsp.features import HANDLERS
from selfloop.lsp.protocol import COMMANDS, METHODS
from selfloop.supervisor.contract import READS

pytestmark = pytest.mark.unit


def test_the_recorded_capabilities_are_those_of_the_registered_features() -> None:
    assert json.loads(RECORD.read_text()) == build()


def test_every_method_has_one_handler() -> None:
    assert HANDLERS.keys() == METHODS.keys()


def test_the_supervisor_asks_again_exactly_what_only_reads() -> None:
    assert {name for name, method in METHODS.items() if method.reads} == READS


def test_every_verb_is_a_command_but_the_one_that_carries_a_key() -> None:
    assert set(METHODS) - set(COMMANDS.values()) == {"selfloop/model/setKey"}
    commands = json.loads(RECORD.read_text())["capabilities"]["executeCommandProvider"]["commands"]
    assert set(COMMANDS) <= set(commands)


def test_what_approves_is_no_quick_fix_and_no_source_action() -> None:
    kinds = json.loads(RECORD.read_text())["capabilities"]["codeActionProvider"]["codeActionKinds"]
    assert kinds and not any(kind.startswith(("quickfix", "source", "refactor")) for kind in kinds)
