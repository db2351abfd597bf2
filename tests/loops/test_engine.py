"""A round from its beginning to its report: every level, every outcome, on real parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loop_room import Room, open_room, write_loop
from loop_scripts import AFTER, CHECKED, EDIT, MADE, TEST, VERIFIED, is_checker, plays, until, with_tests
from model_server import Answer, ModelServer, call, text, tools
from scene import GREETING, git


@pytest.fixture
def workspace(workspace: Path) -> Path:
    return with_tests(workspace)


@pytest.fixture
async def room(workspace: Path, own_home: Path, model: ModelServer) -> AsyncIterator[Room]:
    opened = open_room(workspace, own_home, model.url)
    yield opened
    await opened.close()


def loops(home: Path) -> Path:
    return home / "config" / "loops"


async def test_l1_reads_reports_and_leaves_nothing_behind(room: Room, own_home: Path, model: ModelServer) -> None:
    write_loop(loops(own_home), "triage", level="L1-report", action="report")
    model._script = plays([tools(EDIT), text("Nothing needs a decision.\nStatus: Done")], CHECKED)
    report = await room.round("triage")
    assert report.outcome.type == "reported" and report.verified, report
    assert report.maker is not None and report.maker.text == "Nothing needs a decision."
    assert report.checker is not None and report.checker.status == "Done"
    makers = [request for request in model.requests if not is_checker(request)]
    held = set(makers[0].tools)
    assert not held & {"write_file", "edit_file", "delete_file", "shell", "remember"} and "read_file" in held
    assert "There is no tool 'edit_file'" in makers[1].messages[-1]["content"]
    checkers = [request for request in model.requests if is_checker(request)]
    assert set(checkers[0].tools) >= {"shell", "submit_verdict"} and "edit_file" not in checkers[0].tools
    assert room.workspace.gates.list() == [] and room.workspace.sessions.list() == []
    assert (room.path / "greet.py").read_text() == GREETING
    assert report.render().splitlines()[:3] == [
        "[L1-report] loop `triage` (reported)", "intent: Keep the project in order.", "maker: Done in 2 iters",
    ]  # fmt: skip
    assert room.phases(report.run_id) == ["recall", "sandbox", "make", "check", "gate", "act", "record", "done"]
    again = await room.round("triage")
    told = next(r for r in model.requests[::-1] if not is_checker(r)).messages[1]["content"]
    assert "What the last 1 rounds left" in told and "reported — It greets." in told
    assert again.outcome.type == "reported"


async def test_an_l2_change_waits_as_a_gate_like_a_chats_and_its_approval_adds_a_receipt(
    room: Room, own_home: Path, model: ModelServer
) -> None:
    write_loop(loops(own_home), "sweeper", level="L2-assisted", action="apply-patch", allow="[apply-patch]")
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    report = await room.round("sweeper")
    assert report.outcome.type == "escalated" and report.verified and report.gate_id is not None
    assert (room.path / "greet.py").read_text() == GREETING, "nothing before the approval"
    gates = room.workspace.gates
    view = await gates.read(report.gate_id, room.editor(room.path))
    assert view.gate.run_id == report.run_id and [item.command for item in view.evidence] == [TEST]
    again = await room.round("sweeper")
    assert again.outcome.type == "escalated" and again.gate_id == report.gate_id, "the same is not asked twice"
    assert len(gates.list("open")) == 1
    await gates.resolve(report.gate_id, "approve", digest=view.gate.digest, editor=room.editor(room.path))
    assert (room.path / "greet.py").read_text() == AFTER
    stored = room.workspace.loops.report(report.run_id)
    assert stored is not None and stored.outcome == report.outcome
    assert [receipt.kind for receipt in stored.receipts] == ["apply-patch"]


async def test_what_was_rejected_is_not_asked_again_by_a_later_round(
    room: Room, own_home: Path, model: ModelServer
) -> None:
    write_loop(loops(own_home), "sweeper", level="L2-assisted", action="apply-patch")
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    report = await room.round("sweeper")
    assert report.gate_id is not None
    gates = room.workspace.gates
    await gates.resolve(report.gate_id, "reject", digest=None, editor=room.editor(room.path))
    again = await room.round("sweeper")
    assert again.outcome.type == "reported" and again.gate_id is None
    assert again.action is not None and "rejected exactly this before" in again.action.summary
    assert gates.list("open") == []


async def test_the_same_comment_is_asked_once_whatever_became_of_it(
    room: Room, own_home: Path, model: ModelServer
) -> None:
    write_loop(loops(own_home), "speaker", level="L2-assisted", action="comment")
    model._script = plays([text("## Comment on issue #7\n\nSame words.\n\nStatus: Done")], CHECKED)
    report = await room.round("speaker")
    gates = room.workspace.gates
    assert report.gate_id is not None
    again = await room.round("speaker")
    assert again.gate_id == report.gate_id and len(gates.list("open")) == 1
    await gates.resolve(report.gate_id, "reject", digest=None, editor=room.editor(room.path))
    third = await room.round("speaker")
    assert third.outcome.type == "reported" and gates.list("open") == []


async def test_an_l3_commit_goes_ahead_verified_and_on_its_list(
    room: Room, own_home: Path, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (await room.workspace.workshop.isolation()).level != "process":
        pytest.skip("there is no jail here")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    write_loop(loops(own_home), "committer", level="L3-unattended", action="commit", allow="[commit]")
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    report = await room.round("committer")
    assert report.outcome.type == "proceeded", report
    assert [receipt.kind for receipt in report.receipts] == ["commit"]
    branch = f"selfloop/committer/{report.run_id}"
    assert git(room.path, "show", f"{branch}:greet.py") == AFTER
    assert git(room.path, "log", "-1", "--format=%s", branch).strip() == "Greet by an f-string"
    assert (room.path / "greet.py").read_text() == GREETING
    assert not report.should_deliver()


async def test_an_l3_request_that_was_pushed_but_not_opened_is_said(
    room: Room, own_home: Path, model: ModelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if (await room.workspace.workshop.isolation()).level != "process":
        pytest.skip("there is no jail here")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(room.path, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(room.path, "push", "-q", "origin", "HEAD:main")
    write_loop(loops(own_home), "asker", level="L3-unattended", action="open-pr", allow="[open-pr]")
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    report = await room.round("asker")
    assert report.outcome.type == "proceeded", report
    assert f"selfloop/asker/{report.run_id}" in git(tmp_path / "remote.git", "branch", "--list")
    assert any("no pull request is known to be open" in said and "asker" in said for said in room.notices())


@pytest.mark.parametrize(
    ("checker", "why"),
    [
        ([text("All fine, verified.")], "without a verdict"),
        ([tools(call("submit_verdict", verdict="verified", summary="Fine.", evidence=[])), text("End.")], "No check"),
        ([tools(VERIFIED), text("End.")], "did not run in this turn"),
        ([tools(call("shell", command="false")), tools(VERIFIED), text("End.")], "did not run in this turn"),
        (
            [
                tools(call("shell", command="true")),
                tools(
                    call(
                        "submit_verdict", verdict="verified", summary="Fine.",
                        evidence=[{"check": "x", "command": "true", "exit_code": 0}],
                    )
                ),
                text("End."),
            ],
            "is no test, build or lint command",
        ),
        ([tools(call("submit_verdict", verdict="sure")), text("End.")], "without a verdict"),
        (
            [tools(call("shell", command="echo '# ' >> greet.py")), *CHECKED],
            "changed greet.py",
        ),
    ],
)  # fmt: skip
async def test_l3_does_not_act_on_a_verdict_that_proves_nothing(
    room: Room, own_home: Path, model: ModelServer, checker: list[Answer], why: str
) -> None:
    write_loop(loops(own_home), "committer", level="L3-unattended", action="commit", allow="[commit]")
    model._script = plays([tools(EDIT), text(MADE)], checker)
    report = await room.round("committer")
    assert report.outcome.type == "escalated" and not report.verified
    assert report.checker is not None and why in report.checker.text
    (gate,) = room.workspace.gates.list("open")
    assert gate.subject_type == "action" and "f'Hello {name}'" in gate.subject["preview"]
    assert "selfloop/committer" not in git(room.path, "branch", "--list")


async def test_an_approved_action_is_carried_out_once_and_noted_in_the_report(
    room: Room, own_home: Path, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    write_loop(loops(own_home), "committer", level="L2-assisted", action="commit")
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    report = await room.round("committer")
    assert report.gate_id is not None
    gates = room.workspace.gates
    record = gates.get(report.gate_id)
    await gates.resolve(report.gate_id, "approve", digest=record.digest, editor=room.editor(room.path))
    await until(lambda: (room.workspace.loops.report(report.run_id) or report).receipts != [])
    branch = f"selfloop/committer/{report.run_id}"
    assert git(room.path, "show", f"{branch}:greet.py") == AFTER
    assert gates.questions.unsettled() == []
    again = await room.round("committer")
    assert again.outcome.type == "reported" and "approved before" in (again.action.summary if again.action else "")
