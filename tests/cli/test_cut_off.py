"""Commands beside what is under way or was cut off by a kill: who only looks leaves it, who asks for it goes on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from loop_room import write_loop
from loop_scripts import AFTER, CHECKED, EDIT, plays, with_tests
from lsp_client import LspClient
from model_server import Hold, ModelServer, raw, text, tools
from processes import descendants, gone, kill
from scene import GREETING, environment_for
from terminal import Talk, selfloop

QUIET = text("All is quiet.\nStatus: Done")
LOOKS = (
    ("gate", "list"),
    ("session", "list"),
    ("status",),
    ("loop", "list"),
    ("loop", "show", "look"),
    ("run", "list"),
    ("run", "show"),
    ("rule", "list"),
    ("model", "list"),
    ("generation", "list"),
)


@pytest.fixture
def env(model: ModelServer, workspace: Path, own_home: Path) -> dict[str, str]:
    write_loop(own_home / "config" / "loops", "look", "Look around.", level="L1-report")
    with_tests(workspace)
    selfloop("trust", workspace)
    return environment_for(model)


@pytest.fixture
def held(model: ModelServer) -> Hold:
    """The model answers nothing before this is set."""
    hold = Hold()
    model._script = lambda request: raw(hold)
    return hold


def end_all(talk: Talk) -> None:
    """kill -9 for a command, its server and its worker: a power cut."""
    pids = [talk.process.pid, *descendants(talk.process.pid)]
    for pid in pids:
        kill(pid)
    talk.process.wait()
    assert all(gone(pid, 10) for pid in pids[1:])


def cut_off_round(workspace: Path, env: dict[str, str], model: ModelServer) -> None:
    with Talk("loop", "run", "look", cwd=workspace, env=env) as talk:
        model.wait(1, 60)
        end_all(talk)


def rounds(workspace: Path, env: dict[str, str]) -> dict[str, Any]:
    return json.loads(selfloop("run", "list", "--json", cwd=workspace, env=env).stdout)


def test_commands_that_look_leave_a_round_that_was_cut_off_and_loop_run_goes_on_with_it(
    workspace: Path, env: dict[str, str], model: ModelServer, held: Hold
) -> None:
    cut_off_round(workspace, env, model)
    asked = len(model.requests)
    before = rounds(workspace, env)["running"]
    for command in LOOKS:
        done = selfloop(*command, cwd=workspace, env=env)
        assert done.returncode == 0, (command, done.stderr)
        if command == ("run", "list"):
            assert "cut off: make" in done.stdout
        if command == ("run", "show"):
            assert f"{before[0]['runId']} was cut off: make" in done.stdout
    assert len(model.requests) == asked and rounds(workspace, env)["running"] == before

    model._script = plays([QUIET], CHECKED)
    again = selfloop("loop", "run", "look", cwd=workspace, env=env)
    assert again.returncode == 0 and again.stdout.startswith("[L1-report] loop `look` (reported)"), again.stderr
    assert again.stderr.startswith("A round of look was cut off; it goes on now.\n")
    assert [row["runId"] for row in rounds(workspace, env)["runs"]] == [before[0]["runId"]]
    fresh = selfloop("loop", "run", "look", cwd=workspace, env=env)
    assert fresh.returncode == 0 and "cut off" not in fresh.stderr


def test_a_round_that_was_cut_off_is_cancelled_without_a_call(
    workspace: Path, env: dict[str, str], model: ModelServer, held: Hold
) -> None:
    cut_off_round(workspace, env, model)
    asked = len(model.requests)
    done = selfloop("run", "cancel", cwd=workspace, env=env)
    assert done.returncode == 0 and "the user cancelled the round" in done.stdout, (done.stdout, done.stderr)
    assert len(model.requests) == asked
    none = selfloop("run", "cancel", cwd=workspace, env=env)
    assert none.returncode == 1
    assert none.stderr == "Error: No round is under way here, so nothing was cancelled.\n"
    (report,) = rounds(workspace, env)["runs"]
    ended = selfloop("run", "cancel", report["runId"], cwd=workspace, env=env)
    assert ended.returncode == 1 and "has ended (failed), so nothing was cancelled" in ended.stderr
    unknown = selfloop("run", "cancel", "nothing", cwd=workspace, env=env)
    assert unknown.returncode == 1 and "`selfloop run list` shows which there are" in unknown.stderr


def test_a_round_under_way_is_shown_refuses_a_second_one_and_is_cancelled_from_elsewhere(
    workspace: Path, env: dict[str, str], model: ModelServer, own_home: Path, held: Hold
) -> None:
    write_loop(own_home / "config" / "loops", "other", "Look around.", level="L1-report")
    with Talk("loop", "run", "look", cwd=workspace, env=env) as talk:
        model.wait(1, 60)
        shown = selfloop("run", "show", cwd=workspace, env=env)
        (run_id,) = [row["runId"] for row in rounds(workspace, env)["running"]]
        assert shown.returncode == 0 and shown.stdout == f"The round {run_id} is under way: make.\n", shown.stderr
        assert f"{run_id}  look  running: make" in selfloop("run", "list", cwd=workspace, env=env).stdout
        second = selfloop("loop", "run", "look", cwd=workspace, env=env)
        assert second.returncode == 1 and f"end it with `selfloop run cancel {run_id}`" in second.stderr
        with Talk("loop", "run", "other", cwd=workspace, env=env) as beside:
            model.wait(2, 60)
            which = selfloop("run", "cancel", cwd=workspace, env=env)
            assert which.returncode == 1 and "2 rounds are under way" in which.stderr and run_id in which.stderr
            done = selfloop("run", "cancel", run_id, cwd=workspace, env=env)
            assert done.returncode == 0, done.stderr
            assert talk.wait() == 5 and "the user cancelled the round" in talk.output
            assert selfloop("run", "cancel", cwd=workspace, env=env).returncode == 0
            assert beside.wait() == 5


def test_commands_that_look_leave_a_turn_that_was_cut_off_and_its_conversation_goes_on_with_it(
    workspace: Path, env: dict[str, str], model: ModelServer, held: Hold
) -> None:
    with Talk("chat", cwd=workspace, env=env) as talk:
        talk.send("say something")
        model.wait(1, 60)
        end_all(talk)
    asked = len(model.requests)
    before = selfloop("session", "show", "--json", cwd=workspace, env=env).stdout
    for command in LOOKS[:5]:
        assert selfloop(*command, cwd=workspace, env=env).returncode == 0, command
    assert len(model.requests) == asked
    assert selfloop("session", "show", "--json", cwd=workspace, env=env).stdout == before
    model._script = lambda request: text("It goes on.")
    (session,) = json.loads(selfloop("session", "list", "--json", cwd=workspace, env=env).stdout)["sessions"]
    with Talk("chat", "--session", session["sessionId"], cwd=workspace, env=env) as talk:
        talk.expect("It goes on.", 60)
        talk.end()
        talk.wait()


class Unplugged(LspClient):
    """An editor that goes down with its server, kill -9 for both, when it is asked to apply an edit."""

    def _apply(self, params: dict[str, Any]) -> dict[str, Any]:
        for pid in [*descendants(self.process.pid), self.process.pid]:
            kill(pid)
        return {"applied": False}


async def test_an_approval_that_was_cut_off_comes_to_its_end_even_for_a_command_that_looks(
    workspace: Path, env: dict[str, str], model: ModelServer
) -> None:
    model._script = plays([tools(EDIT), text("Done.")], CHECKED)
    client = await Unplugged.start(env=env)
    await client.initialize(workspace)
    client.open(workspace / "greet.py", GREETING)
    session = (await client.request("selfloop/session/new"))["sessionId"]
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Mend it."})
    await client.idle(session)
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    seen = await client.request("selfloop/gate/read", {"gateId": gate["gateId"]})
    answer = {"gateId": gate["gateId"], "optionId": "approve", "digest": seen["gate"]["digest"]}
    with pytest.raises(ConnectionError):
        await client.request("selfloop/gate/resolve", answer)
    await client.close()
    assert (workspace / "greet.py").read_text() == GREETING
    asked = len(model.requests)
    shown = await asyncio.to_thread(selfloop, "gate", "show", gate["gateId"], "--json", cwd=workspace, env=env)
    assert json.loads(shown.stdout)["gate"]["state"] == "resolved", shown.stdout
    assert (workspace / "greet.py").read_text() == AFTER and len(model.requests) == asked
