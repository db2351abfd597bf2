"""Workers die, in every way and at every moment; the editor sees answers and no exit."""

import contextlib
import os
import random
import signal
import time

import pytest
from supervisor_client import gone

URI = "file:///a.py"


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def test_reads_in_flight_are_asked_again_and_writes_say_whether_they_took_effect(start, folder):
    client = start()
    client.initialize(folder)
    pid = client.worker()
    commands = {
        "list": client.ask("selfloop/session/list", {"do": "hold"}),
        "hover": client.ask("textDocument/hover", {"do": "hold"}),
        "command": client.ask("workspace/executeCommand", {"do": "hold", "command": "selfloop.gate.list"}),
    }
    written = client.ask("selfloop/gate/resolve", {"do": "effect and hold"})
    unwritten = client.ask("selfloop/gate/resolve", {"do": "hold"})
    command = client.ask("workspace/executeCommand", {"do": "hold", "command": "selfloop.gate.resolve"})
    client.worker()
    kill(pid)
    for id, words in ((written, "It took effect."), (unwritten, "did not take effect"), (command, "did not take")):
        error = client.answer(id)["error"]
        assert error["code"] == -32803
        assert words in error["message"]
    heard = client.call("selfloop/gate/read", {"do": "heard"})
    again = [method for window, method, _ in heard if window == 1]
    for method in ("selfloop/session/list", "textDocument/hover", "workspace/executeCommand"):
        assert again.count(method) == 1
    assert "selfloop/gate/resolve" not in again
    for id in commands.values():
        client.notify("$/cancelRequest", {"id": id})
        assert client.answer(id)["error"]["code"] == -32800
    client.nothing_more()


def test_a_new_worker_is_told_everything_that_the_last_one_knew(start, folder):
    client = start()
    client.initialize(folder, initializationOptions={"trusted": True})
    client.open(URI, "one\r\ntwo 😀!\n")
    client.open("file:///b.py", "gone")
    place = {"start": {"line": 1, "character": 6}, "end": {"line": 1, "character": 7}}
    client.change(URI, 2, {"range": place, "text": "?"})
    client.notify("textDocument/didClose", {"textDocument": {"uri": "file:///b.py"}})
    for number in (1, 2):
        client.notify("textDocument/didFocus", {"textDocument": {"uri": f"file:///{number}"}})
        client.notify("workspace/didChangeConfiguration", {"settings": {"number": number}})
        client.notify("$/setTrace", {"value": "messages"})
    added, removed = {"uri": "file:///added", "name": "added"}, {"uri": folder.as_uri(), "name": ""}
    client.notify("workspace/didChangeWorkspaceFolders", {"event": {"added": [added], "removed": [removed]}})
    client.call("selfloop/model/setKey", {"origin": "https://a.example", "key": "old"})
    client.call("selfloop/model/setKey", {"origin": "https://a.example", "key": "new"})
    before = client.text(URI)
    assert before == "one\r\ntwo 😀?\n"
    kill(client.worker())
    assert client.text(URI) == before
    heard = client.call("selfloop/gate/read", {"do": "heard"})
    assert [method for window, method, _ in heard if window == 0][:2] == ["control/start", "control/windowOpened"]
    told = [(method, params) for window, method, params in heard if window == 1]
    assert [method for method, _ in told][:2] == ["initialize", "initialized"]
    params = told[0][1]
    assert params["initializationOptions"] == {"trusted": True}
    assert params["workspaceFolders"] == [added]
    [opened] = [params for method, params in told if method == "textDocument/didOpen"]
    assert opened["textDocument"] == {"uri": URI, "languageId": "python", "version": 2, "text": before}
    for method, expected in (
        ("textDocument/didFocus", {"textDocument": {"uri": "file:///2"}}),
        ("workspace/didChangeConfiguration", {"settings": {"number": 2}}),
        ("$/setTrace", {"value": "messages"}),
        ("selfloop/model/setKey", {"origin": "https://a.example", "key": "new"}),
    ):
        assert [params for name, params in told if name == method] == [expected]
    client.nothing_more()


def test_what_a_dead_worker_showed_and_asked_is_taken_back(start, folder):
    client = start()
    client.initialize(folder)

    def show(method, params):
        client.call("selfloop/gate/read", {"do": "notify", "method": method, "params": params})
        client.notified(method)

    show("$/progress", {"token": "p", "value": {"kind": "begin", "title": "t"}})
    show("$/progress", {"token": "q", "value": {"kind": "begin", "title": "t"}})
    show("$/progress", {"token": "q", "value": {"kind": "end"}})
    for name in ("again", "outdated"):
        show("textDocument/publishDiagnostics", {"uri": f"file:///{name}", "diagnostics": [{"message": "m"}]})
    show("textDocument/publishDiagnostics", {"uri": "file:///empty", "diagnostics": []})
    registration = {"registrations": [{"id": "r", "method": "workspace/didChangeConfiguration"}]}
    ask = {"do": "ask", "id": 1, "method": "client/registerCapability", "params": registration}
    asking = client.ask("selfloop/model/test", ask)
    question = client.wait(lambda message: message.get("method") == "client/registerCapability")
    kill(client.worker())
    assert client.notified("$/cancelRequest") == {"id": question["id"]}
    assert client.notified("$/progress") == {"token": "p", "value": {"kind": "end"}}
    undo = client.wait(lambda message: message.get("method") == "client/unregisterCapability")
    assert undo["params"] == {"unregisterations": [{"id": "r", "method": "workspace/didChangeConfiguration"}]}
    assert "did not take effect" in client.answer(asking)["error"]["message"]
    # Late answers must not be taken for answers to the new worker, which uses the same id.
    asking = client.ask("selfloop/model/test", {**ask, "method": "window/showMessageRequest"})
    question_again = client.wait(lambda message: message.get("method") == "window/showMessageRequest")
    client.send({"jsonrpc": "2.0", "id": question["id"], "result": "stale"})
    client.send({"jsonrpc": "2.0", "id": undo["id"], "result": None})
    client.send({"jsonrpc": "2.0", "id": question_again["id"], "result": "fresh"})
    assert client.answer(asking)["result"] == "fresh"
    show("textDocument/publishDiagnostics", {"uri": "file:///again", "diagnostics": [{"message": "n"}]})
    cleared = client.notified("textDocument/publishDiagnostics")
    assert cleared == {"uri": "file:///outdated", "diagnostics": []}
    client.nothing_more()


def test_a_read_that_kills_every_worker_is_given_up_and_the_others_are_answered(start, folder):
    client = start()
    client.initialize(folder)
    poison = client.ask("selfloop/gate/read", {"do": "die"})
    assert "each of the 3 times" in client.answer(poison)["error"]["message"]
    assert client.worker()
    assert len(client.lives()) == 4
    client.nothing_more()


def test_a_write_that_kills_its_worker_is_not_asked_again(start, folder):
    client = start()
    client.initialize(folder)
    for do, words in (("die", "did not take effect"), ("effect and die", "It took effect")):
        assert words in client.fails("selfloop/session/prompt", {"do": do})["message"]
    assert client.worker()
    assert len(client.lives()) == 3


def test_a_write_sent_to_a_worker_that_never_began_is_asked_of_the_next(start, home, folder):
    (home / "die").write_text("3")
    client = start()
    client.initialize(folder)
    assert client.call("selfloop/session/prompt", {"do": "effect"})["key"]
    assert len((home / "effects").read_text().split()) == 1
    assert len(client.lives()) == 4


def test_five_deaths_in_a_row_are_the_end_until_a_restart_is_asked_for(start, home, folder):
    (home / "die").write_text("5")
    client = start()
    client.initialize(folder)
    client.open(URI, "kept")
    waiting = client.ask("selfloop/session/prompt", {"do": "effect"})
    message = client.notified("window/showMessage")
    assert message["type"] == 1
    assert "selfloop.restart" in message["message"]
    assert "not done" in client.answer(waiting)["error"]["message"]
    for method in ("selfloop/status", "selfloop/session/prompt", "textDocument/hover"):
        assert client.fails(method)["code"] == -32803
    client.change(URI, 2, {"text": "kept up"})
    assert len(client.lives()) == 5
    assert client.call("workspace/executeCommand", {"command": "selfloop.restart"})["restartId"]
    assert client.text(URI) == "kept up"
    (home / "die").write_text("5")
    kill(client.worker())
    client.notified("window/showMessage")
    assert client.call("selfloop/restart", {"when": "now"})["restartId"]
    assert client.text(URI) == "kept up"
    assert client.end() == 0


def test_deaths_with_answers_between_them_are_no_row(start, folder):
    client = start()
    client.initialize(folder)
    for _ in range(7):
        kill(client.worker())
    assert client.worker()
    assert len(client.lives()) == 8
    client.nothing_more()


def test_a_restart_that_the_worker_asks_for_loses_nothing(start, home, folder):
    client = start()
    client.initialize(folder)
    client.open(URI, "a")
    first = client.status()
    assert client.call("selfloop/restart", {"do": "restart"}) == {"restartId": "r1"}
    ids = [client.ask("selfloop/session/prompt", {"do": "effect"}) for _ in range(20)]
    client.change(URI, 2, {"text": "b"})
    for id in ids:
        assert "result" in client.answer(id)
    assert client.text(URI) == "b"
    end = time.monotonic() + 10
    while (second := client.status())["pid"] == first["pid"] and time.monotonic() < end:
        time.sleep(0.01)  # The old one serves until the new one is ready.
    assert second["pid"] != first["pid"]
    assert client.text(URI) == "b"
    assert second["start"]["restartId"] == "r1"
    assert second["start"]["epoch"] > first["start"]["epoch"]
    assert gone(first["pid"])
    assert (home / "stops").read_text().split() == [str(first["pid"])]
    assert len((home / "effects").read_text().split()) == 20
    assert [client.notified("test/swapState")["state"] for _ in range(2)] == ["starting", "active"]
    client.nothing_more()


def test_what_a_worker_started_ends_with_it(start, folder):
    client = start()
    client.initialize(folder)
    orphan = client.call("selfloop/gate/read", {"do": "orphan"})
    kill(client.worker())
    assert gone(orphan)
    assert client.worker()


def test_the_worker_is_gone_soon_after_its_supervisor(start, home, folder):
    client = start()
    client.initialize(folder)
    pid = client.worker()
    kill(client.process.pid)
    assert gone(pid, 2)
    again = start()
    again.initialize(folder)
    assert again.status()["start"]["folders"][0]["owned"]


def answer_by_killing(client, id):
    """Kill the newest worker until the request has its answer: most workers keep some for themselves."""
    for _ in range(10):
        with contextlib.suppress(ProcessLookupError):
            kill(client.lives()[-1])
        with contextlib.suppress(AssertionError):
            return client.answer(id, 1)
    raise AssertionError(f"{id} is never answered")


@pytest.mark.slow
def test_killed_at_random_moments_every_request_has_one_answer_and_no_effect_is_misreported(start, home, folder):
    chance = random.Random(7)
    client = start()
    client.initialize(folder)
    client.open(URI, "x" * 1000)
    assert client.worker()
    answers = {}
    for _ in range(60):
        asked = {}
        for number in range(chance.randrange(1, 8)):
            client.change(URI, 2, {"text": str(number)})
            do = chance.choice(["effect", None, "hold"])
            method = "selfloop/session/prompt" if do else "selfloop/session/list"
            asked[client.ask(method, {"do": do} if do else {})] = do
        time.sleep(chance.random() * 0.06)
        for id, do in asked.items():
            answers[id] = do, answer_by_killing(client, id)
    assert client.text(URI) is not None
    effects = (home / "effects").read_text().split()
    done = [id for id, (_, answer) in answers.items() if "took effect." in answer.get("error", {}).get("message", "")]
    keys = [answer["result"]["key"] for do, answer in answers.values() if do == "effect" and "result" in answer]
    assert len(effects) == len(set(effects)) == len(keys) + len(done)
    assert set(keys) <= set(effects)
    given_up = "The server ended each of the 3 times it was asked this, so it is not asked again."
    for do, answer in answers.values():
        assert do or "result" in answer or answer["error"]["message"] == given_up
    client.nothing_more()
