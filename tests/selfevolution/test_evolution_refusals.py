"""What an evolution cannot begin with or go on with: one plain sentence, and nothing changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from loop_scripts import until
from model_server import Answer, Hold, ModelServer, call, raw, text, tools
from scene import git
from self_room import (
    EDIT,
    EVOLVED,
    FILE,
    REFLECTED,
    SUGGEST,
    SUGGESTION,
    SelfRoom,
    is_reflection,
    make_self,
    open_self_room,
    plays,
)
from selfloop.errors import StoreError
from selfloop.reports import RoundReport


def said(report: RoundReport) -> str:
    return report.maker.text if report.maker is not None else ""


async def test_without_sessions_there_is_nothing_to_learn(room: SelfRoom, model: ModelServer) -> None:
    report = await room.round()
    assert report.outcome.type == "reported" and model.requests == []
    assert said(report) == "There is nothing to learn from (there is no session yet), so nothing was changed."


async def test_torn_and_foreign_bytes_are_survived_and_only_unreadable_sessions_end_in_a_sentence(
    room: SelfRoom, model: ModelServer
) -> None:
    dumb = room.say("Grüße, 你好 🙂")
    await asyncio.sleep(0.002)  # Ids of one millisecond are in no order.
    torn = room.say("Über allen Gipfeln")
    sessions = room.workspace.sessions
    (sessions.folder(dumb) / "traj.jsonl").write_bytes(b"\xff\xfe no line at all\n\x00\x01")
    with (sessions.folder(torn) / "traj.jsonl").open("ab") as file:
        file.write(b'{"ts": "2026", "kind": "user_input", "data": {"text": "\xf0\x9f')
    model._script = plays([text("Nothing.")], [])
    report = await room.round()
    assert said(report) == "The reflection found nothing to improve, so nothing was changed."
    shown = model.requests[0].messages[-1]["content"]
    assert "Über allen Gipfeln" in shown and "1 sessions" in shown
    assert not (room.path / ".evo" / "learned_until.txt").read_text().strip(), "it never passes the unreadable one"
    again = await room.round()
    assert again.outcome.type == "reported" and "could be read, so nothing was learned" in said(again)


MANY = [call("suggest_improvement", **{**SUGGESTION, "improvement": f"Improve {number}."}) for number in range(15)]
SCRIPTS: dict[str, tuple[list[Answer], str]] = {
    "prose": ([text("You should greet with a comma.")], "found nothing to improve"),
    "endless": ([tools(*MANY[:5]), tools(*MANY[5:10]), tools(*MANY[10:])], "without coming to an end"),
    "passes before": (
        [tools(call("suggest_improvement", **{**SUGGESTION, "verify": "true"})), text("End.")],
        "passes already",
    ),
    "protected": (
        [tools(call("suggest_improvement", **{**SUGGESTION, "file": "server/selfloop/gate.py"})), text("End.")],
        "may not evolve",
    ),
    "garbage": ([tools(call("suggest_improvement", file=3)), text("End.")], "found nothing to improve"),
    "empty": ([tools(call("suggest_improvement", file=FILE, improvement=" ", verify="")), text("End.")], "lacks the"),
}


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_reflection_that_proves_nothing_ends_in_one_sentence(
    room: SelfRoom, model: ModelServer, name: str
) -> None:
    room.say("Greet with a comma.")
    script, why = SCRIPTS[name]
    model._script = plays(script, [])
    report = await room.round()
    assert report.outcome.type == "reported" and why in said(report), report.render()
    assert room.workspace.gates.list() == [] and all(is_reflection(request) for request in model.requests)


async def test_a_verify_that_never_ends_is_dropped(
    room: SelfRoom, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfloop.evolution import bench

    monkeypatch.setattr(bench, "VERIFY_SECONDS", 2.0)
    room.say("Greet with a comma.")
    endless = call("suggest_improvement", **{**SUGGESTION, "verify": "sleep 600"})
    model._script = plays([tools(endless), text("End.")], [])
    report = await room.round()
    assert report.outcome.type == "reported" and "did not end within" in said(report)


async def test_what_was_left_or_dropped_is_shown_to_the_next_reflection(room: SelfRoom, model: ModelServer) -> None:
    room.say("Greet with a comma.")
    passing = call("suggest_improvement", **{**SUGGESTION, "improvement": "Say nothing.", "verify": "true"})
    other = call("suggest_improvement", **{**SUGGESTION, "improvement": "Greet louder.", "verify": "false"})
    model._script = plays([tools(passing, SUGGEST, other), text("End.")], EVOLVED)
    assert (await room.round()).outcome.type == "escalated"
    room.say("More.")
    model._script = plays([text("Nothing.")], [])
    await room.round()
    told = model.requests[-1].messages[-1]["content"]
    assert "dropped: " in told and "Say nothing." in told and "passes already" in told
    assert "left for another time" in told and "Greet louder." in told


async def test_a_maker_that_changes_nothing_or_goes_in_circles_ends(room: SelfRoom, model: ModelServer) -> None:
    room.say("Greet with a comma.")
    model._script = plays(REFLECTED, [text("SKIP")])
    report = await room.round()
    assert report.outcome.type == "reported" and "The maker changed nothing" in said(report)
    room.say("Greet with a comma!")
    back = call("edit_file", path=FILE, old='"Hello, "', new='"Hello "')
    model._script = plays(REFLECTED, [tools(EDIT), text("A."), tools(back), text("B."), tools(EDIT), text("A.")])
    report = await room.round()
    assert report.outcome.type == "reported" and "changed nothing" in said(report), report


async def test_the_budget_ends_an_evolution_and_what_was_done_stays_reachable(
    room: SelfRoom, model: ModelServer
) -> None:
    from selfloop.model.budget import Limits

    room.say("Greet with a comma.")
    model._script = plays(REFLECTED, EVOLVED)
    report = await room.round(limits=Limits(max_iterations=4))
    assert report.outcome.type == "budget-exhausted" and report.outcome.limit == "iterations", report
    assert room.flow.generations.home.ref(f"attempts/{report.run_id}") is not None


async def test_a_cancelled_evolution_says_so_and_lets_go_of_everything(room: SelfRoom, model: ModelServer) -> None:
    room.say("Greet with a comma.")
    hold = Hold()
    model._script = plays(REFLECTED, [tools(EDIT), raw(hold)])
    service = await room.workspace.governed()
    run_id = service.start("self-evolution")
    await until(lambda: len(model.requests) == 4)
    service.cancel(run_id)
    report = await room.report(run_id)
    hold.event.set()
    assert report.outcome.type == "failed" and "the user cancelled" in (report.outcome.error or "")
    await until(lambda: not service.scheduler.running())
    with room.flow.generations.home.lock():
        assert room.workspace.gates.list() == []


async def test_without_a_jail_nothing_evolves(
    workspace: Path, own_home: Path, tmp_path: Path, model: ModelServer
) -> None:
    room = open_self_room(workspace, own_home, model.url, make_self(tmp_path / "self"), isolation="changes")
    room.say("Greet with a comma.")
    report = await room.round()
    await room.close()
    assert report.outcome.type == "failed" and model.requests == []
    assert "Selfloop evolves only where every command runs in a jail" in (report.outcome.error or "")


async def test_two_evolutions_at_once_are_refused(room: SelfRoom, model: ModelServer) -> None:
    room.say("Greet with a comma.")
    with room.flow.generations.home.lock():
        report = await room.round()
    assert report.outcome.type == "failed" and "Another evolution is under way" in (report.outcome.error or "")


async def test_three_rollbacks_pause_evolution(room: SelfRoom, own_home: Path) -> None:
    room.say("Greet with a comma.")
    home = own_home / "data" / "self"
    home.mkdir(parents=True, exist_ok=True)
    (home / "active.json").write_text('{"version": 1, "number": 0, "tree": "", "rollbacks": 3, "outcomes": []}')
    report = await room.round()
    assert report.outcome.type == "failed" and "so evolution rests" in (report.outcome.error or "")


async def test_a_home_that_is_no_folder_is_one_sentence(room: SelfRoom, own_home: Path) -> None:
    room.say("Greet with a comma.")
    (own_home / "data").mkdir(parents=True, exist_ok=True)
    (own_home / "data" / "self").write_text("in the way")
    report = await room.round()
    assert report.outcome.type == "failed" and "Selfloop's home" in (report.outcome.error or ""), report


async def test_a_generation_that_was_edited_by_hand_is_found_out(room: SelfRoom, model: ModelServer) -> None:
    room.say("Greet with a comma.")
    model._script = plays(REFLECTED, EVOLVED)
    report = await room.round()
    gate = room.workspace.gates.get(report.gate_id or "")
    editor = room.editor(room.path)
    await room.workspace.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=editor)
    await until(lambda: room.swapped)
    generations = room.flow.generations
    file = await generations.folder(1) / FILE
    file.chmod(0o644)
    file.write_text(file.read_text() + "# mine\n")
    with pytest.raises(StoreError, match="was changed by hand"):
        await generations.folder(1)


async def test_an_evolution_in_words_works_with_a_model_that_calls_no_tools(
    workspace: Path, own_home: Path, tmp_path: Path, model: ModelServer
) -> None:
    room = open_self_room(workspace, own_home, model.url, make_self(tmp_path / "self"), text_protocol=True)
    if (await room.workspace.workshop.isolation()).level != "process":
        pytest.skip("there is no jail here")
    room.say("Greet with a comma.")

    def spoken(*answers: Answer | str) -> list[Answer]:
        return [text(one) if isinstance(one, str) else one for one in answers]

    suggest = f'I found one.\n<tool name="suggest_improvement">{SUGGEST.arguments}</tool>'
    edit = f'<tool name="edit_file">{EDIT.arguments}</tool>'
    model._script = plays(spoken(suggest, "End."), spoken(edit, "Done.", "SKIP", "No documents."))
    report = await room.round()
    assert report.outcome.type == "escalated", report
    assert all("tools" not in request.body for request in model.requests)
    await room.close()


async def test_a_session_that_goes_on_is_learned_from_again(
    room: SelfRoom, model: ModelServer, workspace: Path
) -> None:
    first = room.say("Greet with a comma.")
    model._script = plays([text("Nothing.")], [])
    await room.round()
    assert (room.path / ".evo" / "learned_until.txt").read_text().strip() == first
    log = room.workspace.sessions.trajectory(first)
    log.append("user_input", {"message_id": "n", "turn_id": "t", "text": "And now?", "delivery": "start"})
    log.close()
    await room.round()
    assert "And now?" in model.requests[-1].messages[-1]["content"]
    assert git(workspace, "status", "--porcelain") == ""
