"""An evolution that is killed (kill -9) anywhere is taken up where it was, and asks, adds and spends once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loop_scripts import until
from model_server import Answer, Hold, ModelServer, Request, raw
from self_room import AFTER, EVOLVED, FILE, REFLECTED, is_reflection, make_self, open_self_room, plays
from selfloop.storage.loop_spend import LoopSpend
from selfloop.storage.rounds import Rounds

PROGRAM = Path(__file__).parents[1] / "self_room.py"
STEPS = ("prepare", "reflect", "weigh", "evolve", "refine", "verify", "docs", "reverify", "gate")
POINTS = [f"{step}{moment}" for step in STEPS for moment in ("", ":done")]
SAMPLE = ("reflect:done", "evolve", "verify:done", "gate")
CHOSEN = POINTS if os.environ.get("SELFLOOP_TEST_ALL") else SAMPLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(workspace: Path, home: Path, model: ModelServer, folder: Path, *rest: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, str(PROGRAM), str(workspace), str(home), model.url, str(folder), *rest]
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parent)}
    return subprocess.Popen(arguments, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def prepare(workspace: Path, home: Path, model: ModelServer, folder: Path) -> None:
    room = open_self_room(workspace, home, model.url, make_self(folder))
    room.say("Greet with a comma.")
    room.workspace.store.close()


@pytest.mark.parametrize("point", CHOSEN)
def test_killed_at_a_step_it_goes_on_from_there(
    workspace: Path, own_home: Path, tmp_path: Path, model: ModelServer, point: str
) -> None:
    folder = tmp_path / "self"
    prepare(workspace, own_home, model, folder)
    model._script = plays(REFLECTED, EVOLVED)
    first = run(workspace, own_home, model, folder, point)
    assert first.communicate(timeout=200)[0] == "" and first.returncode == -9
    second = run(workspace, own_home, model, folder)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    if "jail" in out:
        pytest.skip("there is no jail here")
    assert "(escalated)" in out, out
    room = open_self_room(workspace, own_home, model.url, folder)
    (gate,) = room.workspace.gates.list("open")
    assert '+    return "Hello, " + name' in gate.subject["diff"]
    rounds = Rounds(room.workspace.store)
    (record,) = rounds.recent("self-evolution")
    calls = len(model.requests)
    used = LoopSpend(rounds).used_by(record.run_id)
    assert used.calls == calls and used.usage.input_tokens == 100 * calls, "each call counts once"
    assert [row["kind"] for row in record.state["turns"]] == ["evolve", "evolve", "docs"]
    room.workspace.store.close()


def test_killed_in_the_middle_of_a_turn_no_call_of_a_tool_is_made_again(
    workspace: Path, own_home: Path, tmp_path: Path, model: ModelServer
) -> None:
    folder = tmp_path / "self"
    prepare(workspace, own_home, model, folder)
    hold = Hold()
    seen = {"held": False}
    usual = plays(REFLECTED, EVOLVED)

    def answer(request: Request) -> Answer:
        said = sum(message["role"] == "assistant" for message in request.messages)
        if not is_reflection(request) and said == 1 and not seen["held"]:
            seen["held"] = True
            return raw(hold)
        return usual(request)

    model._script = answer
    first = run(workspace, own_home, model, folder)
    deadline = time.monotonic() + 150
    while not seen["held"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert seen["held"]
    first.kill()
    first.communicate()
    hold.event.set()
    second = run(workspace, own_home, model, folder)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0 and "(escalated)" in out, out + err
    room = open_self_room(workspace, own_home, model.url, folder)
    (gate,) = room.workspace.gates.list("open")
    events = room.workspace.sessions.trajectory(gate.session_id).events()
    edits = [event for event in events if event.kind == "tool_call" and event.data["name"] == "edit_file"]
    assert len(edits) == 2, "the greeting and the README, each once"
    room.workspace.store.close()


async def test_killed_between_the_generation_and_the_swap_it_is_added_once_and_swapped(
    workspace: Path, own_home: Path, tmp_path: Path, model: ModelServer
) -> None:
    folder = make_self(tmp_path / "self")
    room = open_self_room(workspace, own_home, model.url, folder)
    if (await room.workspace.workshop.isolation()).level != "process":
        pytest.skip("there is no jail here")
    room.say("Greet with a comma.")
    model._script = plays(REFLECTED, EVOLVED)
    report = await room.round()
    gate = room.workspace.gates.get(report.gate_id or "")
    added = await room.flow.promotion._add(gate)
    room.workspace.gates.questions._on_decided = lambda decision: None  # The worker dies before anybody hears of it.
    await room.workspace.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=room.editor(room.path))
    await room.close()
    again = open_self_room(workspace, own_home, model.url, folder)
    again.workspace.activate()
    await until(lambda: again.swapped)
    assert again.swapped == [(added.number, gate.subject["tree"], "approval")]
    generations = again.flow.generations
    assert [one.number for one in generations.list()] == [0, 1]
    assert ((await generations.folder(1)) / FILE).read_text() == AFTER
    await until(lambda: again.workspace.gates.questions.unsettled() == [])
    await again.close()


async def test_a_lost_cache_costs_nothing_that_was_committed(
    workspace: Path, own_home: Path, tmp_path: Path, model: ModelServer
) -> None:
    folder = tmp_path / "self"
    prepare(workspace, own_home, model, folder)
    model._script = plays(REFLECTED, EVOLVED)
    first = run(workspace, own_home, model, folder, "docs")
    assert first.communicate(timeout=200)[0] == "" and first.returncode == -9
    shutil.rmtree(own_home / "cache")
    second = run(workspace, own_home, model, folder)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0 and "(escalated)" in out, out + err
    room = open_self_room(workspace, own_home, model.url, folder)
    (gate,) = room.workspace.gates.list("open")
    assert '+    return "Hello, " + name' in gate.subject["diff"] and "with a comma." in gate.subject["diff"]
    room.workspace.store.close()
