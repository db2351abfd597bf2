"""Parts of the layers, one by one: what counts as a leak, as noise, as a stage."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from edits import MINI, Case, make_child

from selfloop.errors import SandboxError
from selfloop.evolution.layers.behaviour import frame_faults
from selfloop.evolution.layers.canary_run import CanaryRun
from selfloop.evolution.layers.change_policy import static_findings
from selfloop.evolution.layers.profile import read_profile
from selfloop.evolution.layers.stage import entries, make_stage
from selfloop.evolution.layers.text_policy import prompt_findings, unseen
from selfloop.evolution.layers.traces import leaks_of, place_of, touches_of
from selfloop.sandbox.fenced import PYTHON, SELF, Fence, Fenced
from selfloop.sandbox.isolation import Isolation

TOKEN = "0123456789abcdef0123456789abcdef01234567"


def frame(value: object, window: int = 1) -> bytes:
    body = json.dumps(value).encode()
    return b"Content-Length: %d\r\nSelfloop-Window: %d\r\n\r\n%b" % (len(body), window, body)


def a_run(tmp_path: Path, **worker: bytes) -> CanaryRun:
    seen = {"requests": [{"path": "/v1/x", "headers": {}, "bearer": f"Bearer {TOKEN}", "body": "{}"}]}
    return CanaryRun(Fenced(0, b"", b"", 1.0), seen, [worker], {"OPENROUTER_API_KEY": TOKEN}, {}, tmp_path)


@pytest.mark.unit
def test_an_answer_given_twice_is_found_and_another_windows_is_not() -> None:
    once = frame({"id": 1, "result": None}) + frame({"id": 1, "result": None}, 2) + frame({"method": "x", "id": 1})
    assert list(frame_faults(once)) == []
    assert "twice" in next(frame_faults(once + frame({"id": 1, "error": {}})))


@pytest.mark.unit
@pytest.mark.parametrize(
    "noise", [b"hello\r\n\r\n", b"Content-Length: 2\r\n\r\n{}", b"Content-Length: 1\r\nSelfloop-Window: 1\r\n\r\nx"]
)
def test_what_is_no_message_is_found(noise: bytes) -> None:
    assert list(frame_faults(frame({"id": 1, "result": None}) + noise))


@pytest.mark.unit
@pytest.mark.parametrize(
    "said",
    [
        TOKEN,
        TOKEN.upper(),
        TOKEN[::-1],
        TOKEN[:20],
        "-".join(TOKEN),
        base64.b64encode(f"the key is {TOKEN}".encode()).decode(),
        base64.urlsafe_b64encode(f"!{TOKEN}".encode()).decode(),
        TOKEN.encode().hex(),
        "".join(chr((ord(c) - 97 + 13) % 26 + 97) if c.isalpha() else c for c in TOKEN),
    ],
)
def test_a_token_is_known_in_every_dress(said: str, tmp_path: Path) -> None:
    assert leaks_of(a_run(tmp_path, stdout=f"x {said} y".encode())) == {
        ("OPENROUTER_API_KEY", "what it told the editor")
    }


@pytest.mark.unit
def test_the_key_may_go_into_its_own_header_and_nothing_else_is_a_leak(tmp_path: Path) -> None:
    assert leaks_of(a_run(tmp_path, stdout=b"nothing of it", stderr=b"0123456789")) == set()


@pytest.mark.unit
def test_what_an_audit_heard_is_named_by_place() -> None:
    lines = [
        ["read", "/usr/lib/python3/x.py"], ["read", "/judge/home/.ssh/id_ed25519"], ["write", "/judge/own/data/x"],
        ["write", "/judge/project/.evo/store.db"], ["write", "/judge/project/Makefile"],
        ["write", "name-below-a-folder"], ["socket.connect", "('127.0.0.1', 8123)"],
        ["socket.connect", "('10.0.0.1', 443)"],
        ["subprocess.Popen", "/usr/bin/curl -d x"], ["os.fork", ""],
    ]  # fmt: skip
    audit = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    touched = touches_of(a_run(Path("/nowhere"), audit=audit))
    assert touched == {
        ("it reads", "home/.ssh/id_ed#"),
        ("it writes", "project/Makefile"),
        ("it reaches", "connect ('127.0.0.1', 8123)"),
        ("it reaches", "connect ('10.0.0.1', 443)"),
        ("it starts", "curl"),
        ("it calls", "os.fork"),
    }
    assert place_of("/proc/4711/environ") == "/proc/#/environ"


def test_whatever_a_candidate_holds_only_what_may_evolve_reaches_the_stage(tmp_path: Path) -> None:
    edits = [
        {"path": "server/selfloop/loops/gate.py", "content": "evil = True\n"},
        {"path": "tests/test_policy.py", "delete": True},
        {"path": "tests/evolved/test_mine.py", "content": "def test_x() -> None: ...\n"},
        {"path": "server/selfloop/agent/titles.py", "find": "40", "replace": "41"},
        {"path": "server/sitecustomize.py", "content": "evil = True\n"},
        {"path": "server/selfloop/agent/extra.py", "content": '"""New."""\n'},
        {"path": "prompts/loop_check.md", "content": "evil\n"},
    ]
    child = make_child(Case("all", edits), tmp_path / "child")
    make_stage(entries(MINI), entries(child, export=True), tmp_path / "stage")
    stage, parent = entries(tmp_path / "stage", export=True), entries(MINI)
    different = {path for path in stage.keys() | parent.keys() if path not in stage or path not in parent}
    different |= {path for path in stage.keys() & parent.keys() if stage[path].read() != parent[path].read()}
    assert different == {"server/selfloop/agent/titles.py", "server/selfloop/agent/extra.py"}


@pytest.mark.unit
def test_bytecode_in_an_export_is_seen(tmp_path: Path) -> None:
    child = make_child(Case("p", []), tmp_path / "child")
    cached = child / "server/selfloop/agent/__pycache__"
    cached.mkdir()
    (cached / "titles.cpython-311.pyc").write_bytes(b"\0evil")
    found = static_findings(entries(MINI), entries(child, export=True), read_profile(MINI))
    assert found and "may not evolve" in found[0]


@pytest.mark.unit
def test_plain_typography_and_other_scripts_are_no_disguise() -> None:
    assert unseen("“Quotes” – and … ☃ привет, 世界, naïve, 5 µs") == []
    assert unseen("pаssword") and unseen("a\u200db") and unseen("x\u2066y")
    assert unseen("a\u200db", before="\u200d") == [], "what was there stays"


@pytest.mark.unit
def test_a_prompt_keeps_what_fills_it_and_may_be_said_better() -> None:
    before = "You are in {{workspace}}.\n\n<!-- vital: why -->\n- The user decides.\n\nBe short.\n"
    assert not list(prompt_findings("prompts/chat.md", before, before.replace("Be short.", "Be brief, and be kind.")))
    assert list(prompt_findings("prompts/chat.md", before, before.replace("decides", "may decide")))
    assert list(prompt_findings("prompts/chat.md", before, before + "{{key}}\n"))
    assert list(prompt_findings("prompts/loops/mine.md", None, "---\nlevel: L3\n---\nDo.\n"))
    assert not list(prompt_findings("prompts/memory/note.md", None, "---\ndescription: A note\n---\nText.\n"))


_TRIES = """
import os, pathlib, socket, selfloop
home = pathlib.Path.home()
print(selfloop.__file__, sorted(os.environ), home.exists() and list(home.iterdir()))
pathlib.Path("made").write_text("x")
for act in (
    lambda: pathlib.Path("/self/x").write_text("x"),
    lambda: socket.create_connection(("1.1.1.1", 80), 1),
):
    try:
        act()
        print("GOT THROUGH")
    except OSError as error:
        print(type(error).__name__)
"""


async def test_in_the_judges_jail_there_is_no_network_no_home_and_nothing_to_write_but_work(
    tmp_path: Path, isolation: Isolation
) -> None:
    fence = Fence(isolation, tmp_path / "fence")
    fence.furnish()
    work = tmp_path / "work"
    work.mkdir()
    done = await fence.run(
        [str(PYTHON), "-I", "-c", _TRIES], shown={SELF: MINI}, work=work, timeout_seconds=30, environment={"MINE": "1"}
    )
    said = done.output.decode()
    assert done.exit_code == 0, done.complaint
    assert "/self/server/selfloop/__init__.py" in said and "GOT THROUGH" not in said
    assert "MINE" in said and "SELFLOOP_HOME" not in said and "INFERENCE" not in said
    assert (work / "made").read_text() == "x"


async def test_what_never_ends_is_ended_and_no_jail_is_a_refusal(tmp_path: Path, isolation: Isolation) -> None:
    fence = Fence(isolation, tmp_path / "fence")
    fence.furnish()
    done = await fence.run(["/bin/sleep", "60"], shown={}, work=tmp_path, timeout_seconds=1)
    assert done.exit_code is None and done.seconds < 10
    with pytest.raises(SandboxError, match="only run in a jail"):
        none = Fence(Isolation("changes", "None."), tmp_path)
        await none.run(["/bin/true"], shown={}, work=tmp_path, timeout_seconds=1)
