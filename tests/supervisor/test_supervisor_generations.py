"""What may evolve, and whether a generation's folder is what it claims to be."""

import os

import pytest

from generation_room import ROOT, active, git_tree, make_active, make_generation, thaw
from selfloop.supervisor.contract import may_evolve
from selfloop.supervisor.generations import INSTALLED, Generation, Refused, Shelf
from selfloop.supervisor.offered import covers
from selfloop.supervisor.trees import hash_tree

pytestmark = pytest.mark.unit

MAY = """
    prompts/chat.md prompts/tools.md prompts/loop_maker.md prompts/loops/ci-sweeper.md prompts/memory/notes/a.md
    AGENTS.md README.md CHANGELOG.md server/ARCHITECTURE.md
    server/selfloop/agent/turn.py server/selfloop/agent/tools/files.py server/selfloop/agent/tools/__init__.py
    server/selfloop/lsp/chat.py server/selfloop/lsp/chat_text.py server/selfloop/lsp/code_actions.py
    server/selfloop/cli/showing.py tests/evolved/test_a.py tests/evolved/data/a.json
"""
MAY_NOT = """
    prompts/loop_check.md prompts/loop_checker.md prompts/judge_task.md prompts/reflect.md prompts/evolve.md
    prompts/refine.md prompts/docs.md prompts/loops/self-evolution.md prompts/loops/evolve.md
    prompts/Loop_Check.md Prompts/chat.md prompts/chat.MD prompts/.hidden.md prompts/chat.py prompts.md prompts/
    prompts/../server/selfloop/lsp/hub.py /prompts/chat.md prompts//chat.md prompts/./chat.md
    server/selfloop/agent/tools/toolbox.py server/selfloop/agent/tools/toolbox/__init__.py
    server/selfloop/agent/tools/shell.py server/selfloop/agent/tools/verdicts.py server/selfloop/agent/fence.py
    server/selfloop/agent/fence/inner.py server/selfloop/agent.py server/selfloop/agent/turn.pyc
    server/selfloop/agent/turn.cpython-311.so server/selfloop/agent/Turn.py server/selfloop/lsp/hub.py
    server/selfloop/lsp/chat/__init__.py server/selfloop/lsp/protocol.py server/selfloop/supervisor/contract.py
    server/selfloop/evolution/judge.py server/selfloop/gates/deciding.py server/selfloop/cli/gates.py
    server/selfloop/conftest.py tests/conftest.py tests/agent/test_turns.py tests/evolved/conftest.py
    tests/evolved.py pyproject.toml Makefile .github/workflows/ci.yml sitecustomize.py README.MD
"""


@pytest.mark.parametrize("path", MAY.split())
def test_what_may_evolve(path):
    assert may_evolve(path)


@pytest.mark.parametrize(
    "path", [*MAY_NOT.split(), "", "prompts/chat\u202e.md", "prompts/chat.md\n", "prompts/ch at.md"]
)
def test_what_may_not(path):
    assert not may_evolve(path)


def test_each_place_in_the_list_is_there():
    assert all((ROOT / path).exists() for path in MAY.split() if path.startswith(("server/", "prompts/chat")))


def tree_of(folder):
    steps = hash_tree(str(folder), "", {})
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_folder_has_the_hash_that_git_gives_it(tmp_path):
    folder = tmp_path / "folder"
    for path, data in {
        "a.txt": b"a\n",
        "a/b.txt": b"",
        "a.b/c": b"\0\xff" * 200_000,
        "a0": b"after the folder a",
        "é/ü.md": "ü".encode(),
        "run.sh": b"#!/bin/sh\n",
    }.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / "run.sh").chmod(0o755)
    (folder / "empty").mkdir()
    assert tree_of(folder) == git_tree(folder)
    (folder / "a0").write_bytes(b"another")
    assert tree_of(folder) == git_tree(folder)
    (folder / "link").symlink_to("a0")
    with pytest.raises(OSError, match="link"):
        tree_of(folder)


def test_what_begins_is_watched_and_its_parent_is_the_last_good_one(tmp_path):
    shelf = Shelf(str(tmp_path / "data"), str(ROOT / "server" / "selfloop"))
    assert shelf.choose() == (INSTALLED, None)
    one, two = Generation(1, "1" * 40), Generation(2, "2" * 40)
    shelf.begin(one, "approval")
    shelf.begin(two, "approval")
    state = active(tmp_path)
    assert (state["number"], state["state"], state["lastGood"]["number"]) == (2, "probation", 0)
    shelf.settle(one)
    assert active(tmp_path) == state, "another serves by now"
    shelf.settle(two)
    assert active(tmp_path)["lastGood"]["number"] == 2
    shelf.begin(one, "user")
    shelf.roll_back(1, "It was bad.")
    state = active(tmp_path)
    assert (state["number"], state["tree"], state["rollbacks"]) == (2, "2" * 40, 1)
    assert [outcome["state"] for outcome in state["outcomes"]] == [
        "activated",
        "activated",
        "settled",
        "activated",
        "rolled-back",
    ]


def test_a_home_that_cannot_be_written_refuses_the_swap_and_serves_all_the_same(tmp_path):
    data = tmp_path / "data"
    data.write_text("no folder")
    shelf = Shelf(str(data), str(ROOT / "server" / "selfloop"))
    assert shelf.choose() == (INSTALLED, None)
    with pytest.raises(Refused, match="cannot be written"):
        shelf.begin(Generation(1, "1" * 40), "user")


def test_a_write_that_was_cut_off_leaves_what_was(tmp_path):
    make_active(tmp_path, 4, "4" * 40)
    (tmp_path / "data" / "self" / "active.json.new").write_text('{"version"')
    shelf = Shelf(str(tmp_path / "data"), str(ROOT / "server" / "selfloop"))
    assert shelf.active().number == 4
    shelf.roll_back(4, "It was bad.")
    assert shelf.active().number == 0
    assert not os.path.exists(tmp_path / "data" / "self" / "active.json.new")


@pytest.fixture
def grown(tmp_path):
    """A generation that can be started."""
    tree = make_generation(tmp_path, {"prompts/chat.md": lambda text: f"{text}\nIt grew.\n"})
    yield Generation(4, tree)
    thaw(tmp_path / "data" / "self" / "generations" / tree)


def test_starts_side_by_side_are_no_failures(tmp_path, grown):
    make_active(tmp_path, 4, grown.tree, boots=2, starting=[os.getppid(), 1])
    shelf = Shelf(str(tmp_path / "data"), str(ROOT / "server" / "selfloop"))
    assert shelf.choose()[0].number == 4, "the others are still at it"
    assert active(tmp_path)["boots"] == 3 and os.getpid() in active(tmp_path)["starting"]
    shelf.abandoned(grown)
    assert active(tmp_path)["boots"] == 2 and os.getpid() not in active(tmp_path)["starting"]
    shelf.booted(grown)
    assert (active(tmp_path)["boots"], active(tmp_path)["starting"]) == (0, [])

    make_active(tmp_path, 4, grown.tree, boots=2, starting=[2**22 + 1, 2**22 + 2])
    chosen, why = shelf.choose()
    assert chosen is INSTALLED and "failed to start 2 times" in why, "those who were at it are dead"


@pytest.mark.parametrize("starting", [[2**80], [0], [-1], ["1"], [True], 5, None])
def test_nonsense_about_who_starts_means_the_installed_package(tmp_path, starting):
    make_active(tmp_path, 4, "4" * 40, starting=starting)
    assert Shelf(str(tmp_path / "data"), str(ROOT / "server" / "selfloop")).choose() == (INSTALLED, None)


def test_where_nothing_can_be_written_a_bad_generation_is_left_all_the_same(tmp_path, grown):
    make_active(tmp_path, 4, grown.tree, state="probation")
    shelf = Shelf(str(tmp_path / "data"), str(ROOT / "server" / "selfloop"))
    lock = tmp_path / "data" / "self" / "active.lock"
    lock.mkdir()
    assert shelf.choose()[0].number == 4
    shelf.roll_back(4, "It was slow.")
    assert active(tmp_path)["number"] == 4, "the disk took nothing"
    chosen, why = shelf.choose()
    assert chosen is INSTALLED and "went wrong before" in why
    lock.rmdir()
    shelf.begin(grown, "user")
    assert shelf.choose()[0].number == 4, "who activates it again, has it"


def test_what_came_to_nothing_takes_nothing_of_anothers_back(tmp_path):
    shelf = Shelf(str(tmp_path / "data"), str(ROOT / "server" / "selfloop"))
    one = Generation(1, "1" * 40)
    shelf.begin(one, "approval")
    shelf.settle(one)
    before = shelf.begin(one, "restart")
    Shelf(str(tmp_path / "data"), str(ROOT / "server" / "selfloop")).begin(INSTALLED, "user")
    shelf.take_back(before, one)
    assert active(tmp_path)["number"] == 0, "a restart begins nothing, so nothing is taken back"
    two = Generation(2, "2" * 40)
    before = shelf.begin(two, "approval")
    shelf.take_back(before, two)
    assert active(tmp_path) == before


def test_more_covers_less():
    recorded = {"a": {"commands": ["x", "y"]}, "b": 1}
    assert covers({"a": {"commands": ["y", "x", "z"]}, "b": 1, "c": None}, recorded)
    assert not covers({"a": {"commands": ["x"]}, "b": 1}, recorded)
    assert not covers({"a": {"commands": ["x", "y"]}, "b": 2}, recorded)
    assert not covers({}, recorded) and not covers(None, recorded)
