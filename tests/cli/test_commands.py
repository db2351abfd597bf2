"""`selfloop gate|session|status|model|rule` as child processes, beside an editor that has the folder open."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from lsp_client import LspClient
from model_server import ModelServer, call, text, tools
from scene import GREETING, Starter, environment_for
from selfloop.lsp import protocol
from terminal import Talk, selfloop

CHANGED = GREETING.replace("    return 'Hello '", "    '''Greet.'''\n    return 'Hello '").replace(
    "    return 'Bye '", "    '''Part.'''\n    return 'Bye '"
)

SHARED_SERVER = True


@pytest.fixture
def env(model: ModelServer, workspace: Path) -> dict[str, str]:
    selfloop("trust", workspace)
    return environment_for(model)


@pytest_asyncio.fixture(loop_scope="module")
async def editor(start: Starter, model: ModelServer) -> LspClient:
    """An editor whose agent has proposed two hunks."""
    model.extend(
        tools(call("read_file", path="greet.py")),
        tools(
            call("edit_file", path="greet.py", old="    return 'Hello '", new="    '''Greet.'''\n    return 'Hello '"),
            call("edit_file", path="greet.py", old="    return 'Bye '", new="    '''Part.'''\n    return 'Bye '"),
        ),
        text("Done."),
    )
    client: LspClient = await start()
    session = await client.request("selfloop/session/new")
    await client.request("selfloop/session/prompt", {"sessionId": session["sessionId"], "text": "document it"})
    await client.idle(session["sessionId"])
    return client


def printed(*arguments: str, cwd: Path, env: dict[str, str], code: int = 0) -> Any:
    """Run a command with --json and return what it printed: exactly one object."""
    done = selfloop(*arguments, "--json", cwd=cwd, env=env)
    assert done.returncode == code, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


async def test_a_gate_is_listed_and_shown_as_the_protocol_has_it(
    editor: LspClient, workspace: Path, env: dict[str, str]
) -> None:
    gates = printed("gate", "list", cwd=workspace, env=env)
    assert gates == await editor.request("selfloop/gate/list", {"state": "open"})
    gate_id = gates["gates"][0]["gateId"]
    shown = printed("gate", "show", gate_id, cwd=workspace, env=env)
    assert shown == await editor.request("selfloop/gate/read", {"gateId": gate_id})
    assert printed("gate", "show", cwd=workspace, env=env) == shown
    plain = selfloop("gate", "show", cwd=workspace, env=env).stdout
    assert gate_id in plain and shown["gate"]["digest"] in plain
    assert "+    '''Greet.'''" in plain and all(hunk["hunkId"] in plain for hunk in shown["files"][0]["hunks"])


async def test_one_hunk_is_approved_and_the_other_rejected(
    editor: LspClient, workspace: Path, env: dict[str, str]
) -> None:
    hunks = printed("gate", "show", cwd=workspace, env=env)["files"][0]["hunks"]
    first = printed("gate", "approve", "--hunk", hunks[1]["hunkId"], cwd=workspace, env=env)
    assert first["gate"]["state"] == "open" and first["applied"] == [(workspace / "greet.py").as_uri()]
    second = printed("gate", "reject", "--comment", "not this", cwd=workspace, env=env)
    assert second["gate"]["state"] == "resolved" and second["applied"] == []
    assert (workspace / "greet.py").read_text() == GREETING.replace(
        "    return 'Bye '", "    '''Part.'''\n    return 'Bye '"
    )


async def test_an_approval_reaches_the_open_buffer_of_the_editor(
    editor: LspClient, workspace: Path, env: dict[str, str]
) -> None:
    uri = editor.open(workspace / "greet.py", "# unsaved\n" + GREETING)
    done = await asyncio.to_thread(selfloop, "gate", "approve", cwd=workspace, env=env)  # The editor must answer.
    assert done.returncode == 0, done.stderr
    assert done.stdout == "applied: greet.py\nThe gate is resolved (approve).\n"
    assert editor.buffers[uri] == "# unsaved\n" + CHANGED
    assert (workspace / "greet.py").read_text() == GREETING


async def test_an_approval_is_taken_back(editor: LspClient, workspace: Path, env: dict[str, str]) -> None:
    gate_id = printed("gate", "approve", cwd=workspace, env=env)["gate"]["gateId"]
    assert (workspace / "greet.py").read_text() == CHANGED
    undone = selfloop("gate", "undo", gate_id, cwd=workspace, env=env).stdout
    (again,) = printed("gate", "list", cwd=workspace, env=env)["gates"]
    assert undone == f"restored: greet.py\nIt waits for you again: `selfloop gate show {again['gateId']}`.\n"
    assert (workspace / "greet.py").read_text() == GREETING
    twice = selfloop("gate", "undo", gate_id, cwd=workspace, env=env)
    assert (twice.returncode, twice.stdout) == (0, "Nothing of this gate is in the files, so nothing was taken back.\n")


async def test_a_digest_that_no_longer_fits_decides_nothing(
    editor: LspClient, workspace: Path, env: dict[str, str]
) -> None:
    done = selfloop("gate", "approve", "--digest", "0" * 64, cwd=workspace, env=env)
    assert done.returncode == 1
    assert "nothing was decided" in done.stderr
    assert (workspace / "greet.py").read_text() == GREETING
    digest = printed("gate", "show", cwd=workspace, env=env)["gate"]["digest"]
    assert printed("gate", "approve", "--digest", digest, cwd=workspace, env=env)["gate"]["state"] == "resolved"


async def test_a_conflict_is_told_and_the_exit_code_is_one(
    editor: LspClient, workspace: Path, env: dict[str, str]
) -> None:
    (workspace / "greet.py").write_text("Nothing of it is left.\n")
    done = selfloop("gate", "approve", cwd=workspace, env=env)
    assert done.returncode == 1
    assert "greet.py" in done.stderr and "applied" not in done.stdout
    assert (workspace / "greet.py").read_text() == "Nothing of it is left.\n"


async def test_the_same_answer_again_is_no_error_and_another_is_refused(
    editor: LspClient, workspace: Path, env: dict[str, str]
) -> None:
    gate_id = printed("gate", "approve", cwd=workspace, env=env)["gate"]["gateId"]
    assert printed("gate", "approve", gate_id, cwd=workspace, env=env)["gate"]["resolvedBy"] == "approve"
    done = selfloop("gate", "reject", gate_id, cwd=workspace, env=env)
    assert done.returncode == 1 and done.stderr.startswith("Error: ")
    assert (workspace / "greet.py").read_text() == CHANGED


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["gate", "show", "nonsense"],
            "There is no gate 'nonsense' here, so nothing was done; `selfloop gate list` shows which there are.",
        ),
        (["gate", "approve"], "No gate is open here, so nothing was done"),
        (["gate", "undo", "nonsense"], "There is no gate 'nonsense' here"),
        (["session", "show", "nonsense"], "There is no session 'nonsense' here"),
        (["session", "show"], "There is no session here yet"),
        (["rule", "remove", "nonsense"], "There is no rule 'nonsense' here"),
    ],
)
def test_what_is_not_there_is_one_plain_sentence(
    workspace: Path, env: dict[str, str], arguments: list[str], sentence: str
) -> None:
    done = selfloop(*arguments, cwd=workspace, env=env)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Error: {sentence}") and done.stderr.count("\n") == 1


def test_at_a_terminal_a_gate_is_shown_before_it_is_decided(
    workspace: Path, env: dict[str, str], model: ModelServer
) -> None:
    model.extend(tools(call("write_file", path="new.txt", content="fresh\n")), text("Done."))
    selfloop("chat", cwd=workspace, env=env, input="write it\nd\n")
    with Talk("gate", "approve", cwd=workspace, env=env, tty=True) as talk:
        shown = talk.expect("Approve this gate?")
        assert "+fresh" in shown
        talk.send("n")
        assert talk.wait() == 1
    assert not (workspace / "new.txt").exists()
    with Talk("gate", "approve", cwd=workspace, env=env, tty=True) as talk:
        talk.expect("Approve this gate?")
        talk.send("y")
        assert talk.wait() == 0
    assert (workspace / "new.txt").read_text() == "fresh\n"


async def test_sessions_are_listed_and_shown(editor: LspClient, workspace: Path, env: dict[str, str]) -> None:
    listed = printed("session", "list", cwd=workspace, env=env)
    assert listed == await editor.request("selfloop/session/list")
    session_id = listed["sessions"][0]["sessionId"]
    shown = printed("session", "show", session_id, cwd=workspace, env=env)
    assert [update["seq"] for update in shown["updates"]] == sorted(update["seq"] for update in shown["updates"])
    assert len(shown["updates"]) >= len([params for params in editor.updates if params.get("sessionId") == session_id])
    plain = selfloop("session", "show", cwd=workspace, env=env).stdout
    assert "› document it" in plain and "Done." in plain and "✓ " in plain and "◆ gate" in plain


async def test_the_status_is_the_protocols(editor: LspClient, workspace: Path, env: dict[str, str]) -> None:
    status = printed("status", cwd=workspace, env=env)
    assert status == await editor.request("selfloop/status")
    assert status["gatesPending"] == 1 and status["trusted"] is True and status["model"] == "scripted"
    assert "open gates  1" in selfloop("status", cwd=workspace, env=env).stdout


def test_an_untrusted_folder_has_a_status_and_no_model(workspace: Path, model: ModelServer) -> None:
    env = environment_for(model)
    assert printed("status", cwd=workspace, env=env)["trusted"] is False
    done = selfloop("model", "test", cwd=workspace, env=env)
    assert done.returncode == 1 and "not trusted" in done.stderr
    assert model.requests == []


def test_what_the_server_says_names_the_terminals_commands(workspace: Path, env: dict[str, str]) -> None:
    unset = {**env, "INFERENCE_BASE_URL": "", "OPENROUTER_API_KEY": "", "MODEL_NAME": ""}
    for name, said in (
        ("", "`selfloop model select NAME`"),
        ("groq/llama-3.1-8b-instant", "not called; set OPENROUTER_API_KEY"),
    ):
        done = selfloop("model", "test", cwd=workspace, env={**unset, "MODEL_NAME": name})
        assert done.returncode == 1 and said in done.stdout + done.stderr, (done.stdout, done.stderr)
        assert "selfloop/" not in done.stdout + done.stderr


def test_models_are_listed_tested_and_selected(workspace: Path, env: dict[str, str], model: ModelServer) -> None:
    models = printed("model", "list", cwd=workspace, env=env)
    assert models["current"] == "scripted" and [row["id"] for row in models["models"]] == ["scripted"]
    assert selfloop("model", "list", cwd=workspace, env=env).stdout.startswith("*  scripted")
    model.extend(text("ok"))
    assert printed("model", "test", cwd=workspace, env=env)["ok"] is True
    assert printed("model", "test", cwd=workspace, env=env, code=1)["ok"] is False  # The script has ended.
    assert printed("model", "select", "another", "--base-url", model.url, cwd=workspace, env={}) == {}
    assert printed("status", cwd=workspace, env={})["model"] == "another"


def test_a_rule_is_remembered_listed_and_removed(workspace: Path, env: dict[str, str], model: ModelServer) -> None:
    model.extend(tools(call("shell", command="echo twice", network=True)), text("Ran it."))
    done = selfloop("chat", cwd=workspace, env=env, input="run it\na\n")
    assert "Ran it." in done.stdout, done.stdout
    rules = printed("rule", "list", cwd=workspace, env=env)["rules"]
    assert len(rules) == 1 and "echo twice" in rules[0]["rule"]
    model.extend(tools(call("shell", command="echo twice", network=True)), text("Ran it unasked."))
    done = selfloop("chat", cwd=workspace, env=env, input="again\n")
    assert "Ran it unasked." in done.stdout and "Allow it?" not in done.stdout
    assert printed("rule", "remove", rules[0]["ruleId"], cwd=workspace, env=env) == {}
    assert printed("rule", "list", cwd=workspace, env=env) == {"rules": []}


def test_every_method_of_the_protocol_that_the_terminal_asks_is_in_its_table() -> None:
    """`Client.ask` is given method and result apart; here the two are held together."""
    import ast

    root = Path(protocol.__file__).parent.parent / "cli"
    asked = 0
    for file in root.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "ask":
                if len(node.args) != 3:
                    continue  # A screen's `ask`.
                method, params, result = node.args
                assert isinstance(method, ast.Constant) and isinstance(result, ast.Name)
                row = protocol.METHODS[str(method.value)]
                assert row.result.__name__ == result.id
                if isinstance(params, ast.Call) and isinstance(params.func, ast.Name):
                    assert row.params.__name__ == params.func.id
                asked += 1
    assert asked > 20
