"""Loops over the wire: listed, configured, run, watched, cancelled, decided; and what survives a dead worker."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from loop_room import write_loop
from loop_scripts import AFTER, CHECKED, EDIT, MADE, plays, with_tests
from lsp_client import LspClient, RpcError, to_uri
from model_server import Hold, ModelServer, call, raw, text, tools
from processes import kill, worker_of
from scene import GREETING, Starter, git
from stand_in_gh import install

PATIENCE = 90.0


@pytest.fixture
def workspace(workspace: Path, own_home: Path) -> Path:
    """A small project, and a loop of the user's for each level."""
    loops = own_home / "config" / "loops"
    write_loop(loops, "look", "Look around.", level="L1-report")
    write_loop(loops, "sweep", "Mend it.", level="L2-assisted", action="apply-patch")
    write_loop(loops, "alone", "Mend it.", level="L3-unattended", action="apply-patch", allow="[apply-patch]")
    write_loop(loops, "speak", "Say it.", level="L2-assisted", action="comment")
    return with_tests(workspace)


async def started(client: LspClient, loop_id: str, **more: Any) -> str:
    return (await client.request("selfloop/run/start", {"loopId": loop_id, **more}, PATIENCE))["runId"]


async def report_of(client: LspClient, run_id: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        rows = [row for row in client.of_type("run") if row["runId"] == run_id and "report" in row]
        return rows[-1]["report"] if rows else None

    return await client.until(found, PATIENCE)


async def test_the_seven_loops_are_there_and_off(start: Starter) -> None:
    client = await start()
    loops = {row["loopId"]: row for row in (await client.request("selfloop/loop/list"))["loops"]}
    assert {
        "daily-triage", "pr-babysitter", "ci-sweeper", "dependency-sweeper", "changelog-drafter", "post-merge-cleanup",
        "issue-triage",
    } <= loops.keys()  # fmt: skip
    assert not any(row["enabled"] for row in loops.values())
    sweeper = loops["ci-sweeper"]
    assert (sweeper["level"], sweeper["cadence"], sweeper["action"]) == ("L2-assisted", "every 10m", "apply-patch")
    assert sweeper["budget"]["maxTotalTokens"] == 400_000 and sweeper["budget"]["day"]["maxTotalTokens"] > 0


async def test_a_round_is_told_phase_by_phase_and_can_be_read(start: Starter, model: ModelServer) -> None:
    model._script = plays([text("All is quiet.\nStatus: Done")], CHECKED)
    client = await start()
    run_id = await started(client, "look")
    report = await report_of(client, run_id)
    assert report["outcome"] == {"type": "reported"} and report["verified"] is True
    phases = [row["phase"] for row in client.of_type("run") if row["runId"] == run_id]
    assert phases == ["recall", "sandbox", "make", "check", "gate", "act", "record", "done"]
    read = await client.request("selfloop/run/read", {"runId": run_id})
    assert read["run"] == report and read["rendered"].startswith("[L1-report] loop `look` (reported)\nintent: ")
    assert read["rendered"].endswith(f"tokens: {report['inputTokens']} in / {report['outputTokens']} out\n")
    (evidence,) = read["evidence"]
    assert evidence["exitCode"] == 0 and "OK" in Path(evidence["uri"].removeprefix("file://")).read_text()
    told = await client.request("selfloop/session/read", {"sessionId": read["makerSessionId"]})
    texts = [row["update"]["text"] for row in told["updates"] if row["update"]["type"] == "message"]
    assert "Look around." in texts[0] and "All is quiet." in texts[-1]
    assert (await client.request("selfloop/session/list"))["sessions"] == []
    runs = await client.request("selfloop/run/list", {"loopId": "look"})
    folder = runs["runs"][0]["workspaceFolder"]
    assert runs["runs"] == [{**report, "workspaceFolder": folder}]
    own = [row for row in client.updates if row["update"]["type"] == "run"]
    assert {row["workspaceFolder"] for row in own} == {folder}, "each folder has a stream of its own"
    with pytest.raises(RpcError, match="no folder"):
        await client.request("selfloop/run/list", {"workspaceFolder": "file:///no/such/folder"})
    (row,) = (await client.request("selfloop/spend/list", {"days": 1}))["rows"]
    assert (row["loopId"], row["inputTokens"]) == ("look", report["inputTokens"])
    status = await client.request("selfloop/status")
    assert status["runs"] == 0 and status["spend"]["inputTokens"] == report["inputTokens"]


async def test_progress_is_begun_and_ended_and_cancelling_it_ends_the_round(start: Starter, model: ModelServer) -> None:
    hold = Hold()
    model._script = lambda request: raw(hold)
    client = await start()
    run_id = await started(client, "look")
    await asyncio.to_thread(model.wait, 1, PATIENCE)
    await client.until(lambda: any(row["method"] == "window/workDoneProgress/create" for row in client.requests), 20)
    assert (await client.request("selfloop/status"))["runs"] == 1
    client.notify("window/workDoneProgress/cancel", {"token": f"selfloop-{run_id}"})
    report = await report_of(client, run_id)
    hold.event.set()
    assert report["outcome"]["type"] == "failed" and "cancelled" in report["outcome"]["error"]


async def test_an_l2_change_is_decided_in_the_editor(start: Starter, workspace: Path, model: ModelServer) -> None:
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    client = await start()
    uri = client.open(workspace / "greet.py", GREETING + "# unsaved\n")
    report = await report_of(client, await started(client, "sweep"))
    assert report["outcome"]["type"] == "escalated"
    gate = await client.request("selfloop/gate/read", {"gateId": report["gateId"]})
    assert gate["gate"]["runId"] == report["runId"] and gate["card"]["request"].startswith("Loop sweep: ")
    (hunk,) = gate["files"][0]["hunks"]
    decision = {
        "gateId": report["gateId"],
        "optionId": "approve",
        "hunks": [{"hunkId": hunk["hunkId"], "digest": hunk["digest"]}],
    }
    result = await client.request("selfloop/gate/resolve", decision)
    assert result["applied"] == [uri] and client.buffers[uri] == AFTER + "# unsaved\n"
    later = await client.until(lambda: (client.of_type("run")[-1].get("report") or {}).get("receipts"), PATIENCE)
    assert later[0]["kind"] == "apply-patch"
    assert (await client.request("selfloop/run/read", {"runId": report["runId"]}))["run"]["outcome"] == report[
        "outcome"
    ]


async def test_an_l3_round_applies_what_it_proved(start: Starter, workspace: Path, model: ModelServer) -> None:
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    client = await start()
    if (await client.request("selfloop/status"))["isolation"] != "process":
        pytest.skip("there is no jail here")
    report = await report_of(client, await started(client, "alone"))
    assert report["outcome"] == {"type": "proceeded"}, report
    assert (workspace / "greet.py").read_text() == AFTER
    assert report["receipts"][0]["kind"] == "apply-patch"


async def test_l3_waits_for_a_human_without_a_jail_or_on_a_protected_path(
    start: Starter, workspace: Path, model: ModelServer
) -> None:
    script = [tools(EDIT, call("write_file", path="Makefile", content="all:\n")), text(MADE)]
    model._script = plays(script, CHECKED)
    client = await start()
    report = await report_of(client, await started(client, "alone"))
    assert report["outcome"]["type"] == "escalated" and (workspace / "greet.py").read_text() == GREETING
    assert "protected" in report["outcome"]["reason"] or "jailed" in report["outcome"]["reason"]


async def test_more_authority_waits_at_a_gate(start: Starter) -> None:
    client = await start()
    configure = {"loopId": "ci-sweeper", "level": "L3-unattended", "allow": ["commit"], "cadence": "every 30m"}
    result = await client.request("selfloop/loop/configure", configure, PATIENCE)
    assert result["loop"]["level"] == "L2-assisted" and result["loop"]["cadence"] == "every 30m"
    gate = (await client.request("selfloop/gate/read", {"gateId": result["gateId"]}))["gate"]
    assert gate["subject"]["type"] == "level" and gate["subject"]["after"]["level"] == "L3-unattended"
    resolved = {"gateId": gate["gateId"], "optionId": "approve", "digest": gate["digest"]}
    await client.request("selfloop/gate/resolve", resolved)
    loops = {row["loopId"]: row for row in (await client.request("selfloop/loop/list"))["loops"]}
    assert (loops["ci-sweeper"]["level"], loops["ci-sweeper"]["allow"]) == ("L3-unattended", ["commit"])
    lowered = await client.request("selfloop/loop/configure", {"loopId": "ci-sweeper", "level": "L1-report"}, PATIENCE)
    assert lowered["loop"]["level"] == "L1-report" and "gateId" not in lowered


async def test_a_comment_is_shown_exactly_and_sent_once_approved(
    start: Starter, workspace: Path, tmp_path: Path, model: ModelServer
) -> None:
    forge = install(tmp_path / "bin", tmp_path / "forge")
    forge.put(pulls=[{"number": 12, "comments": [], "url": "https://forge.example/team/app/pull/12"}])
    git(workspace, "remote", "add", "origin", "https://forge.example/team/app.git")
    answer = "One is red.\n\n## Comment on pull request #12\n\nThe test `test_a` fails.\n\n## State\n\n#12 red"
    model._script = plays([text(answer + "\n\nStatus: Done")], CHECKED)
    client = await start(env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    report = await report_of(client, await started(client, "speak"))
    assert report["outcome"]["type"] == "escalated" and report["action"]["summary"] == "Comment on pull request #12"
    gate = (await client.request("selfloop/gate/read", {"gateId": report["gateId"]}))["gate"]
    assert "The test `test_a` fails." in gate["subject"]["preview"]
    assert not [row for row in forge.calls if row["argv"][1] == "comment"]
    resolved = {"gateId": gate["gateId"], "optionId": "approve", "digest": gate["digest"]}
    await client.request("selfloop/gate/resolve", resolved)
    receipts = await client.until(lambda: (client.of_type("run")[-1].get("report") or {}).get("receipts"), PATIENCE)
    assert receipts[0]["kind"] == "comment"
    assert len([row for row in forge.calls if row["argv"][1] == "comment"]) == 1


async def test_unknown_loops_and_runs_and_bad_settings_are_said(start: Starter) -> None:
    client = await start()
    for method, params, reason in (
        ("run/start", {"loopId": "nothing"}, "unknownLoop"),
        ("run/read", {"runId": "nothing"}, "unknownRun"),
        ("run/cancel", {"runId": "nothing"}, "unknownRun"),
        ("loop/configure", {"loopId": "nothing", "enabled": True}, "unknownLoop"),
    ):
        with pytest.raises(RpcError) as error:
            await client.request(f"selfloop/{method}", params, PATIENCE)
        assert error.value.reason == reason
    for wrong in ({"cadence": "every 0m"}, {"level": "L9"}, {"allow": ["explode"]}, {"budget": {"maxIterations": -1}}):
        with pytest.raises(RpcError) as error:
            await client.request("selfloop/loop/configure", {"loopId": "look", **wrong}, PATIENCE)
        assert error.value.code == -32602, wrong


async def test_an_untrusted_workspace_runs_no_loop(start: Starter) -> None:
    client = await start(trusted=False)
    for method, params in (("run/start", {"loopId": "look"}), ("loop/configure", {"loopId": "look", "enabled": True})):
        with pytest.raises(RpcError) as error:
            await client.request(f"selfloop/{method}", params)
        assert error.value.reason == "notTrusted"
    assert (await client.request("selfloop/loop/list"))["loops"]


async def test_a_due_loop_starts_by_itself_and_a_dead_worker_changes_nothing(
    start: Starter, model: ModelServer
) -> None:
    hold = Hold()
    answers = plays([text("All is quiet.\nStatus: Done")], CHECKED)
    model._script = lambda request: raw(hold) if len(model.requests) == 1 else answers(request)
    client = await start()
    on = await client.request(
        "selfloop/loop/configure", {"loopId": "look", "enabled": True, "cadence": "every 1h"}, PATIENCE
    )
    assert on["loop"]["enabled"]
    await asyncio.to_thread(model.wait, 1, PATIENCE)
    (run_id,) = {row["runId"] for row in client.of_type("run")}
    kill(worker_of(client.process.pid))
    hold.event.set()
    report = await report_of(client, run_id)
    assert report["outcome"] == {"type": "reported"}
    runs = (await client.request("selfloop/run/list"))["runs"]
    assert [run["runId"] for run in runs] == [run_id], "the due time started one round"


async def test_a_selection_is_handed_to_a_loop(start: Starter, workspace: Path, model: ModelServer) -> None:
    model._script = plays([text("All is quiet.\nStatus: Done")], CHECKED)
    client = await start()
    uri = client.open(workspace / "greet.py")
    place = {"start": {"line": 0, "character": 0}, "end": {"line": 2, "character": 0}}
    params = {"textDocument": {"uri": uri}, "range": place, "context": {"diagnostics": []}}
    actions = await client.request("textDocument/codeAction", params)
    (action,) = [one for one in actions if one["title"] == "Hand to a loop"]
    command = action["command"]
    (argument,) = command["arguments"]
    result = await client.request(
        "workspace/executeCommand",
        {"command": command["command"], "arguments": [{**argument, "loopId": "look"}]},
        PATIENCE,
    )
    await report_of(client, result["runId"])
    task = model.requests[0].messages[1]["content"]
    assert "The user attached greet.py, lines 1 to 2" in task and "def greet(name):" in task
    with pytest.raises(RpcError, match="No loop was chosen"):
        await client.request("workspace/executeCommand", {"command": "selfloop.ask", "arguments": [argument]})
    assert to_uri(workspace / "greet.py") == uri


async def test_the_user_can_speak_on_with_a_rounds_maker(start: Starter, model: ModelServer) -> None:
    model._script = plays([tools(EDIT), text(MADE)], CHECKED)
    client = await start()
    report = await report_of(client, await started(client, "sweep"))
    session = (await client.request("selfloop/run/read", {"runId": report["runId"]}))["makerSessionId"]
    model._script = lambda request: text("Because it is shorter.")
    await client.request("selfloop/session/prompt", {"sessionId": session, "text": "Why?"})
    await client.idle(session, timeout=PATIENCE)
    assert [row["sessionId"] for row in (await client.request("selfloop/session/list"))["sessions"]] == [session]
    assert "'Hello {name}" in str(model.requests[-1].messages), "it knows what it did"
    (gate,) = (await client.request("selfloop/gate/list", {"state": "open"}))["gates"]
    assert gate["gateId"] == report["gateId"]
