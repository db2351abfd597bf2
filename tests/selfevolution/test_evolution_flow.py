"""An evolution from the sessions to a generation, on real parts: engine, worktrees, jail, a model on loopback."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from loop_scripts import until
from model_server import ModelServer, call, text, tools
from self_room import (
    AFTER,
    EDIT,
    EVOLVED,
    FILE,
    GREETING,
    LOOP,
    REFLECTED,
    SelfRoom,
    is_reflection,
    plays,
)
from selfloop.errors import Stale
from selfloop.storage.trajectories import read_events


async def test_what_was_learned_becomes_a_generation_once_a_person_approves(
    room: SelfRoom, model: ModelServer, own_home: Path, tmp_path: Path
) -> None:
    said = room.say("Greet with a comma.", "No, with a comma!")
    model._script = plays(REFLECTED, EVOLVED)
    report = await room.round(LOOP)
    assert report.outcome.type == "escalated", report
    assert report.verified and report.action is not None and report.action.kind == "promote-generation"
    shown = room.phases(report.run_id)
    assert [phase for index, phase in enumerate(shown) if phase not in shown[:index]] == [
        "reflect", "evolve", "refine", "verify", "docs", "gate", "record", "done",
    ]  # fmt: skip
    assert "Greet with a comma" in model.requests[0].messages[-1]["content"]
    assert (tmp_path / "self" / FILE).read_text() == GREETING, "the present self stays as it is"

    gate = room.workspace.gates.get(report.gate_id or "")
    subject = gate.subject
    assert subject["type"] == "evolution" and subject["parent"] == 0
    assert subject["origins"] == [f"{room.path}: {said}"]
    assert '+    return "Hello, " + name' in subject["diff"] and "greets with a comma" in subject["diff"]
    assert [layer["name"] for layer in subject["layers"]] == ["G1", "G2", "G3", "G4", "G5", "G6"]
    digest = hashlib.sha256((subject["tree"] + subject["evidenceDigest"]).encode()).hexdigest()
    assert gate.digest == digest
    judged = [tree for tree, layers in room.flow.judge.asked if len(layers) == 6]
    assert len(judged) == len(set(judged)) == 2, "with and without the documents, each once"

    editor = room.editor(room.path)
    await room.workspace.gates.resolve(gate.gate_id, "approve", digest=digest, editor=editor)
    await until(lambda: room.swapped)
    generations = room.flow.generations
    assert room.swapped == [(1, subject["tree"], "approval")]
    one = generations.get(1)
    assert (one.state, one.parent, one.approved_by, one.run_id) == ("verified", 0, "user", report.run_id)
    folder = await generations.folder(1)
    assert (folder / FILE).read_text() == AFTER and (folder / "README.md").read_text().endswith("with a comma.\n")
    assert folder == own_home / "data" / "self" / "generations" / subject["tree"]
    assert '+    return "Hello, " + name' in await generations.diff(1)
    await until(lambda: room.workspace.gates.questions.unsettled() == [])
    stored = room.workspace.loops.report(report.run_id)
    assert stored is not None and [receipt.kind for receipt in stored.receipts] == ["promote-generation"]
    assert (room.path / ".evo" / "learned_until.txt").read_text().strip() == said
    kinds = {event.kind for event in read_events(room.workspace.sessions.folder(gate.session_id) / "traj.jsonl")}
    assert {"evolve_start", "iter_start", "iter_end", "iter_skip", "evolve_end", "doc_update"} <= kinds

    room.workspace.loops.swapped(1, "active")
    await until(lambda: "probation" in room.phases(report.run_id))
    assert "swap" in room.phases(report.run_id)

    again = await room.round(LOOP)
    assert again.outcome.type == "reported" and again.maker is not None
    assert "every session was learned from already" in again.maker.text


async def test_the_prefix_only_grows_and_what_may_not_evolve_is_refused_and_taken_back(
    room: SelfRoom, model: ModelServer
) -> None:
    room.say("Greet with a comma.")
    forged = call("edit_file", path="server/selfloop/gate.py", old="False", new="True")
    shell = call("shell", command="sed -i s/False/True/ server/selfloop/gate.py; touch tests/conftest.py; ls @outputs")
    maker = [tools(forged), tools(shell, EDIT), text("Both."), text("SKIP"), text("No documents.")]
    model._script = plays(REFLECTED, maker)
    report = await room.round(LOOP)
    assert report.outcome.type == "escalated", report
    makers = [request.messages for request in model.requests if not is_reflection(request)]
    assert "is not what may evolve, so nothing was written" in makers[1][-1]["content"]
    assert "tests/conftest.py" in makers[3][-1]["content"] and "as they were again" in makers[3][-1]["content"]
    for before, after in itertools.pairwise(makers):
        assert after[: len(before)] == before, "what was sent once stays as it was"
    subject = room.workspace.gates.get(report.gate_id or "").subject
    assert "gate.py" not in subject["diff"] and "conftest" not in subject["diff"]


async def test_what_fails_is_fed_back_until_it_passes(room: SelfRoom, model: ModelServer) -> None:
    room.say("Greet with a comma.")
    wrong = call("edit_file", path=FILE, old='"Hello " + name', new='"Hello; " + name')
    mend = call("edit_file", path=FILE, old='"Hello; "', new='"Hello, "')
    mark = call("edit_file", path=FILE, old='"""How', new='# G3 fails\n"""How')
    unmark = call("edit_file", path=FILE, old="# G3 fails\n", new="")
    maker = [tools(wrong), text("Done."), text("SKIP"), tools(mend, mark), text("Mended."), tools(unmark), text("Now."),
             text("None.")]  # fmt: skip
    model._script = plays(REFLECTED, maker)
    report = await room.round(LOOP)
    assert report.outcome.type == "escalated", report
    words = [request.messages[-1]["content"] for request in model.requests]
    assert any("does not pass yet: VERIFY fails" in word and "AssertionError" in word for word in words)
    assert any("does not pass yet: G3 fails" in word for word in words)


@pytest.mark.parametrize(
    ("layer", "asked"), [("G4", 1), ("G2", 3)], ids=["a probe is final and never told", "the same failure three times"]
)
async def test_what_the_judge_rejects_is_not_adopted_and_the_next_reflection_is_told(
    room: SelfRoom, model: ModelServer, layer: str, asked: int
) -> None:
    room.say("Greet with a comma.")
    bad = call("edit_file", path=FILE, old='"""How', new=f'# {layer} fails\n"""How')
    model._script = plays(REFLECTED, [tools(EDIT, bad), text("Done."), text("SKIP"), text("I see nothing.")])
    report = await room.round(LOOP)
    assert report.outcome.type == "failed" and f"{layer} fails" in (report.outcome.error or ""), report
    assert room.workspace.gates.list() == []
    (attempt,) = room.flow.generations.attempts()
    assert attempt.run_id == report.run_id and layer in attempt.reason
    assert room.flow.generations.home.ref(f"attempts/{report.run_id}") == attempt.commit
    fed = [request for request in model.requests if "does not pass yet" in request.messages[-1]["content"]]
    assert len(fed) == asked - 1
    room.say("Something else.")
    model._script = plays([text("Nothing.")], [])
    await room.round(LOOP)
    told = [request for request in model.requests if is_reflection(request)][-1].messages[-1]["content"]
    assert "rejected by" in told and attempt.reason[:20] in told


async def test_a_rejection_is_remembered_with_its_reason_and_the_same_is_not_asked_again(
    room: SelfRoom, model: ModelServer
) -> None:
    room.say("Greet with a comma.")
    model._script = plays(REFLECTED, EVOLVED)
    report = await room.round(LOOP)
    gates = room.workspace.gates
    editor = room.editor(room.path)
    await gates.resolve(report.gate_id or "", "reject", digest=None, comment="Commas are old.", editor=editor)
    await until(lambda: room.flow.generations.attempts())
    assert room.swapped == [] and len(room.flow.generations.list()) == 1
    room.say("Greet with a comma, please.")
    again = await room.round(LOOP)
    assert again.outcome.type == "reported" and again.maker is not None
    assert "rejected exactly this before" in again.maker.text
    told = [request for request in model.requests if is_reflection(request)][-2].messages[-1]["content"]
    assert "Commas are old." in told


async def test_an_approval_of_what_is_not_what_was_shown_is_refused(
    room: SelfRoom, model: ModelServer, tmp_path: Path
) -> None:
    room.say("Greet with a comma.")
    model._script = plays(REFLECTED, EVOLVED)
    report = await room.round(LOOP)
    gate = room.workspace.gates.get(report.gate_id or "")
    home, subject = room.flow.generations.home, gate.subject
    editor = room.editor(room.path)

    async def approve(why: str) -> None:
        with pytest.raises(Stale, match=why):
            await room.workspace.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=editor)

    home.set_ref(f"attempts/{report.run_id}", "0" * 40)
    await approve("The change is not the one that was shown")
    home.set_ref(f"attempts/{report.run_id}", subject["commit"])
    kept = home.evidence_of(subject["parentTree"], subject["tree"])
    assert kept is not None
    home.keep_evidence(subject["parentTree"], subject["tree"], {**kept, "seconds": 9.0})
    await approve("The evidence is not what was shown")
    home.keep_evidence(subject["parentTree"], subject["tree"], kept)
    chat = tmp_path / "self" / "prompts" / "chat.md"
    before = chat.read_text()
    chat.write_text(f"{before}Edited meanwhile.\n")
    await approve("The installed Selfloop was changed")
    chat.write_text(before)
    assert room.workspace.gates.get(gate.gate_id).state == "open" and room.swapped == []
    await room.workspace.gates.resolve(gate.gate_id, "approve", digest=gate.digest, editor=editor)
    await until(lambda: room.swapped)
