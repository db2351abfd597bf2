"""What is remembered, and what the user has allowed: recall, rules, trust."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfloop.config import Folders
from selfloop.errors import InvalidInput, Unknown
from selfloop.storage.memory import Memory
from selfloop.storage.rules import Rules
from selfloop.storage.store import Store
from selfloop.storage.trust import TrustList


@pytest.fixture
def store(place: Path, folders: Folders) -> Iterator[Store]:
    opened = Store.open(place, folders)
    yield opened
    opened.close()


def test_notes_are_recalled_by_their_words(store: Store) -> None:
    memory = Memory(store)
    memory.remember("The tests run with `pytest -q`, never with tox", ["testing"])
    memory.remember("Die Prüfung läuft über CI", ["testing", "ci"], source="loop:ci-sweeper")
    memory.remember("記憶は大切です。テストは速い")
    memory.remember("parse_config reads settings.toml")

    def found(query: str) -> list[str]:
        return [note.text[:10] for note in memory.recall(query)]

    assert found("how do I run the TESTS?") == ["The tests "]
    assert found("prufung") == ["Die Prüfun"]
    assert found("記憶") == found("大切") == ["記憶は大切です。テス"]
    assert found("config") == ["parse_conf"]
    assert found("pars") == ["parse_conf"]
    assert found("nothing of this") == []
    assert found("!!! ???") == []
    assert len(found("")) == 4
    assert len(memory.recall("", limit=2)) == 2
    assert [note.tags for note in memory.recall("", tags=["testing"])] == [("testing", "ci"), ("testing",)]
    assert memory.recall("run", tags=["ci"]) == []
    assert memory.recall("CI")[0].source == "loop:ci-sweeper"
    with pytest.raises(InvalidInput):
        memory.remember(" \n")
    assert memory.forget(memory.recall("toml")[0].id)
    assert found("toml") == []
    assert not memory.forget(999)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(text=st.text(min_size=1, max_size=60), query=st.text(max_size=60))
def test_any_text_can_be_remembered_and_any_text_is_a_legal_query(store: Store, text: str, query: str) -> None:
    memory = Memory(store)
    memory.recall(query)
    memory.recall(f'"{query}" AND (NEAR OR * -{query}: ^')
    if text.strip():
        memory.remember(text, [query])
        memory.recall(text)


@pytest.mark.parametrize("word", ["snake_case", "CamelCase", "naïve", "straße", "ﬁne", "e\u0301tude", "日本", "x86"])
def test_a_remembered_word_is_found_by_itself(store: Store, word: str) -> None:
    memory = Memory(store)
    memory.remember(f"about {word} and others")
    assert len(memory.recall(word)) == 1


# Rules and trust


def test_a_rule_allows_exactly_what_was_shown(tmp_path: Path, place: Path) -> None:
    rules = Rules(tmp_path / "data")
    assert rules.list() == []
    rule = rules.add(place, "make check", network=False, origin="gate-1")
    assert rules.add(place, "make check", network=False, origin="gate-2") == rule
    matched = Rules(tmp_path / "data").match(place, "make check", network=False)
    assert matched is not None
    assert (matched.id, matched.uses) == (rule.id, 1)
    for other, command, network in (
        (place, "make check", True), (place, "make  check", False), (place, "make check ", False),
        (place / "inner", "make check", False), (tmp_path, "make check", False),
    ):  # fmt: skip
        assert rules.match(other, command, network=network) is None
    link = tmp_path / "link"
    link.symlink_to(place)
    assert rules.match(link, "make check", network=False) is not None
    assert [found.uses for found in rules.list(place)] == [2]
    assert rules.list(tmp_path) == []
    rules.remove(rule.id)
    assert rules.match(place, "make check", network=False) is None
    with pytest.raises(Unknown, match="selfloop/rule/list"):
        rules.remove(rule.id)


def test_a_spoilt_file_of_rules_grants_nothing_and_is_kept(tmp_path: Path, place: Path) -> None:
    rules = Rules(tmp_path / "data")
    rules.add(place, "a", network=False, origin="g")
    file = tmp_path / "data" / "rules.json"
    file.write_text(file.read_text()[:-20])
    assert rules.list() == []
    assert rules.match(place, "a", network=False) is None
    rules.add(place, "b", network=False, origin="g")
    assert [rule.command for rule in rules.list()] == ["b"]
    assert len(list(file.parent.glob("rules.json.broken-*"))) == 1
    file.write_text(file.read_text().replace('"network": false', '"network": 1'))
    assert rules.list() == []


ADDER = """
import sys
from pathlib import Path
from selfloop.storage.rules import Rules
rules = Rules(Path(sys.argv[1]) / "data")
for n in range(15):
    rules.add(Path(sys.argv[1]), f"{sys.argv[2]} {n}", network=False, origin="g")
"""


def test_rules_of_two_servers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", ADDER, str(tmp_path), name]) for name in "ab"]
    assert [child.wait() for child in children] == [0, 0]
    assert len(Rules(tmp_path / "data").list()) == 30


def test_trust_holds_for_what_lies_inside_and_follows_links(tmp_path: Path, place: Path) -> None:
    trust = TrustList(tmp_path / "data")
    inner = place / "inner"
    inner.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (place / "way-out").symlink_to(outside)
    assert not trust.is_trusted(place)
    assert trust.add(place) == place.resolve()
    trust.add(place)
    assert trust.list() == [place.resolve()]
    assert trust.is_trusted(place)
    assert trust.is_trusted(inner)
    assert trust.is_trusted(inner / "not-there-yet")
    assert not trust.is_trusted(place / "way-out")
    assert not trust.is_trusted(place / ".." / "outside")
    assert not trust.is_trusted(tmp_path)
    assert not trust.is_trusted(tmp_path / "place-2")
    assert not trust.remove(inner)
    assert trust.remove(place)
    assert not trust.is_trusted(place)
    with pytest.raises(InvalidInput, match="is no folder"):
        trust.add(tmp_path / "nowhere")


def test_a_folder_whose_name_is_no_text_can_be_trusted(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd-\xff"))
    odd.mkdir()
    trust = TrustList(tmp_path / "data")
    trust.add(odd)
    assert trust.is_trusted(odd)
    assert not trust.is_trusted(tmp_path)
