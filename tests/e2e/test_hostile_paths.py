"""Every hostile path of the corpus as a real call over the wire: judged by the disk, and by what the model was told."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hostile_room import TOKEN, Attack, Done, corpus, hostile, picture, risks
from lsp_client import to_uri
from model_server import Call, ModelServer, text
from path_fixture import build
from scene import Starter

CASES = corpus("path_confinement.jsonl")
TEXT = "written = 1\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The corpus's folders, with a secret outside that is found wherever it turns up."""
    root = tmp_path / "tree"
    root.mkdir()
    workspace = build(root)
    (root / "outside" / "secret").write_text(TOKEN)
    (root / "ws-evil" / "f").write_text(TOKEN)
    return workspace


def cases(tree: Path) -> list[dict[str, Any]]:
    outside = str(tree.parent / "outside")
    return [{**case, "path": case["path"].replace("{OUTSIDE}", outside)} for case in CASES]


def world(tree: Path) -> Mapping[str, tuple[Any, ...]]:
    return picture(tree.parent, without=(".evo",))


@pytest.fixture
async def attack(start: Starter, model: ModelServer, tree: Path) -> Attack:
    return Attack(await start(tree, settings={"contextTokens": 2_000_000}), model)


def not_plain(done: Done) -> list[str]:
    """Return the answers that are no plain sentence."""
    return [said for said in done.said.values() if "Traceback" in said or "by a fault in Selfloop" in said]


async def test_no_path_reads_or_lists_anything_outside(attack: Attack, tree: Path) -> None:
    before = world(tree)
    reads = await attack.turn([hostile("read_file", case["id"], path=case["path"]) for case in cases(tree)])
    lists = await attack.turn([hostile("list_files", case["id"], path=case["path"]) for case in cases(tree)])
    finds = await attack.turn([hostile("search", c["id"], pattern="honey|root:", path=c["path"]) for c in cases(tree)])
    ranges = await attack.turn(
        [hostile("read_file", case["id"], path=case["path"], start=0, end=10**9) for case in cases(tree)]
    )
    assert TOKEN not in attack.heard() and "root:x:" not in attack.heard()
    assert world(tree) == before, "reading changes nothing"
    for done in (reads, lists, finds, ranges):
        assert not_plain(done) == []
        assert len(done.said) == len(CASES)
    for case in cases(tree):
        refused, said = reads.failed[case["id"]], reads.said[case["id"]]
        if case["expect"] == "deny":
            assert refused, (case, said)
            # A folder is listed, and `src` is one inside.
            assert lists.failed[case["id"]] or case["cls"] == "special:dir-as-file", (case, lists.said[case["id"]])
        elif case["expect"] == "allow" and case["cls"] != "plain:new":
            assert not refused and "\nok" in said, (case, said)
        assert ranges.failed[case["id"]] == refused


async def test_no_path_writes_anything_outside_or_without_a_gate(attack: Attack, tree: Path) -> None:
    before = world(tree)
    session = await attack.session()
    done = await attack.turn(
        [hostile("write_file", case["id"], path=case["path"], content=TEXT) for case in cases(tree)],
        session=session,
    )
    assert not_plain(done) == [] and len(done.said) == len(CASES)
    assert world(tree) == before, "nothing is written before the click"
    read = await attack.gate(session)
    assert read is not None
    risk = risks(read)
    written = [case for case in cases(tree) if not done.failed[case["id"]]]
    for case in cases(tree):
        if case["expect"] == "deny":
            assert done.failed[case["id"]], (case, done.said[case["id"]])
        elif case["expect"] == "allow":
            assert not done.failed[case["id"]], (case, done.said[case["id"]])
        elif case["expect"] == "gate" and not done.failed[case["id"]]:
            (uri,) = [uri for uri in risk if uri == to_uri(tree / case["path"])]
            assert risk[uri] == {"high"}, (case, risk[uri])
    assert any(case["expect"] == "gate" for case in written)
    assert risk[to_uri(tree / "src/new.py")] == {"low"}

    result = await attack.approve(session)
    assert result["conflicts"] == []
    after = world(tree)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    inside = {path for path in changed if path.startswith(str(tree) + "/")}
    assert changed == inside, "only the workspace is written"
    assert not any("/.git/" in path[len(str(tree)) :] for path in inside), "git's own folder is never written"
    for name in ("src/a.py", "src/new.py", ".vscode/settings.json", "package.json"):
        assert (tree / name).read_text() == TEXT


async def test_no_path_edits_or_deletes_anything_outside(attack: Attack, tree: Path) -> None:
    before = world(tree)
    edits = await attack.turn(
        [hostile("edit_file", case["id"], path=case["path"], old="o", new="0") for case in cases(tree)]
    )
    session = await attack.session()
    deletes = await attack.turn(
        [hostile("delete_file", case["id"], path=case["path"]) for case in cases(tree)], session=session
    )
    assert world(tree) == before
    assert TOKEN not in attack.heard()
    for done in (edits, deletes):
        assert not_plain(done) == [] and len(done.said) == len(CASES)
        for case in cases(tree):
            if case["expect"] == "deny":
                assert done.failed[case["id"]], (case, done.said[case["id"]])
    assert (await attack.approve(session))["conflicts"] == []
    after = world(tree)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed and all(path.startswith(str(tree) + "/") for path in changed)
    assert not any("/.git/" in path[len(str(tree)) :] for path in changed)


def in_shell(paths: list[str], forms: Sequence[str], *, at_once: int) -> list[Call]:
    """Return calls of `shell` that run every form on every path, some paths in each."""
    calls = []
    for at in range(0, len(paths), at_once):
        lines = [form.replace("PATH", shlex.quote(path)) for path in paths[at : at + at_once] for form in forms]
        calls.append(hostile("shell", f"s{at}", command="\n".join(lines), timeout_seconds=30))
    return calls


async def test_no_path_in_a_shell_command_leaves_the_workspace(attack: Attack, tree: Path) -> None:
    before = world(tree)
    chosen = [case for case in cases(tree) if "\0" not in case["path"] and case["id"] != "P145"]
    reading = (
        "timeout 2 cat -- PATH",
        "ls -lad -- PATH",
        "timeout 2 head -c 50 PATH/secret",
        "timeout 0.3 grep -rs honey -- PATH",
    )
    writing = (
        "echo pwned > PATH",
        "echo pwned | tee -a -- PATH",
        "mkdir -p PATH/x",
        "echo pwned > PATH/pwned",
        "ln -f src/a.py PATH",
        "cp -f a\\ b.txt PATH",
        "chmod 777 PATH",
        "mv -f -- PATH moved",
        "rm -rf -- PATH",
    )
    await attack.turn(in_shell([case["path"] for case in chosen], reading, at_once=4))
    session = await attack.session()
    # What removes the tree's root or the way to it is last, so that the others still have something to break.
    ordered = sorted(chosen, key=lambda case: case["path"] in (".", "..", "/", "src", "l_parent"))
    await attack.turn(in_shell([case["path"] for case in ordered], writing, at_once=8), session=session)
    assert TOKEN not in attack.heard()
    assert "root:x:0:0:root:/root" not in attack.outputs(), "the machine's accounts are not the jail's"
    assert world(tree) == before, "a command changes the worktree alone"
    read = await attack.gate(session)
    assert read is not None
    assert {"high"} in risks(read).values(), "what commands wrote under protected names is of high risk"


async def test_links_made_by_the_agent_are_not_followed_outside(attack: Attack, tree: Path) -> None:
    outside = tree.parent / "outside"
    links = f"ln -s {outside}/secret one; ln -s {outside} two; ln -s ../outside three"
    before = world(tree)
    session = await attack.session()
    done = await attack.turn(
        [
            hostile("shell", "make", command=links),
            hostile("read_file", "r1", path="one"),
            hostile("read_file", "r2", path="two/secret"),
            hostile("write_file", "w1", path="one", content="pwned"),
            hostile("write_file", "w2", path="two/new", content="pwned"),
            hostile("write_file", "w3", path="three/new", content="pwned"),
            hostile("delete_file", "d1", path="two/secret"),
            hostile("list_files", "l1", path="two"),
            hostile("search", "s1", pattern="honey", path="two"),
        ],
        session=session,
    )
    assert all(done.failed[name] for name in ("r1", "r2", "w1", "w2", "w3", "d1", "l1")), done
    assert TOKEN not in attack.heard()
    read = await attack.gate(session)
    assert read is not None
    assert list(risks(read).values()) == [{"high"}] * 3, "a link that leads outside is of high risk"
    assert TOKEN not in str(read)
    assert world(tree) == before
    # Approved, they are links; what is written next by their names is still refused.
    assert (await attack.approve(session))["conflicts"] == []
    assert (tree / "two").is_symlink()
    again = await attack.turn(
        [
            hostile("write_file", "w4", path="two/new", content="pwned"),
            hostile("shell", "w5", command="echo pwned > two/new; echo pwned > one"),
        ],
        session=session,
    )
    assert again.failed["w4"]
    assert picture(outside) == {path: entry for path, entry in before.items() if path.startswith(str(outside) + "/")}


async def test_what_is_shown_to_the_model_unasked_comes_from_inside(
    start: Starter, tree: Path, model: ModelServer
) -> None:
    outside = tree.parent / "outside"
    (tree / "AGENTS.md").symlink_to(outside / "secret")
    (tree / "README.md").symlink_to("../outside/secret")
    client = await start(tree)
    attack = Attack(client, model)
    client.open(outside / "secret")
    places = [outside / "secret", tree / "l_file_abs", tree / "l_dir" / "secret", tree / "src/../../outside/secret"]
    context = [{"uri": to_uri(place)} for place in places]
    context += [{"uri": to_uri(tree / "src")}, {"uri": "untitled:Untitled-1"}, {"uri": "http://example.com/a"}]
    model.extend(text("Done."))
    session = await attack.session()
    params = {"sessionId": session, "text": "Go.", "context": context}
    await client.request("selfloop/session/prompt", params)
    assert (await client.idle(session))["stopReason"] == "end_turn"
    assert TOKEN not in attack.outputs()


async def test_dependency_folders_that_lead_outside_are_not_shown_in_the_jail(
    start: Starter, workspace: Path, tmp_path: Path, model: ModelServer
) -> None:
    private = tmp_path / "private"
    for name in ("bin/python3", "bin/secret", "lib/secret", "node_modules/secret"):
        (private / name).parent.mkdir(parents=True, exist_ok=True)
        (private / name).write_text(TOKEN)
        (private / name).chmod(0o755)
    (workspace / ".gitignore").write_text("node_modules\n.venv\nvenv\nvendor\n")
    (workspace / "node_modules").symlink_to(private / "bin")
    (workspace / "vendor").mkdir()
    (workspace / "vendor" / "inner").symlink_to(private)
    (workspace / "sub").symlink_to(private)
    for name in (".venv", "venv"):
        (workspace / name / "bin").mkdir(parents=True)
        (workspace / name / "pyvenv.cfg").write_text(f"home = {private}/bin\nexecutable = {private}/bin/python3\n")
        for program in ("python", "python3"):
            (workspace / name / "bin" / program).symlink_to(private / "bin" / "python3")
        (workspace / name / "lib").symlink_to(private / "lib")
    attack = Attack(await start(), model)
    command = f"grep -ras honey- . {private} ; cat node_modules/* vendor/inner/*/* .venv/*/* venv/*/* sub/*/*; ls -l"
    done = await attack.turn([hostile("shell", "look", command=command)])
    assert "greet.py" in done.said["look"] and TOKEN not in attack.outputs()
