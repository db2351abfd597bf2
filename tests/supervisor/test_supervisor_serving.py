"""The supervisor towards one editor: starting, answering, ending."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from supervisor_client import HERE, SERVER, framed, gone


def test_the_worker_is_told_who_asks_and_for_which_folders(start, folder):
    client = start()
    assert client.initialize(folder)["capabilities"]["positionEncoding"] == "utf-16"
    status = client.status()
    assert status["window"] == 1
    assert status["start"]["pid"] == client.process.pid
    assert status["start"]["folders"] == [{"uri": folder.as_uri(), "path": str(folder), "owned": True}]
    assert status["key"] != client.status()["key"]
    assert client.end() == 0
    assert gone(status["pid"])


@pytest.mark.parametrize("form", ["rootUri", "rootPath"])
def test_the_older_ways_to_name_the_folder_are_understood(start, folder, form):
    client = start()
    client.initialize(**{form: folder.as_uri() if form == "rootUri" else str(folder)})
    assert client.status()["start"]["folders"] == [{"uri": folder.as_uri(), "path": str(folder), "owned": True}]
    heard = client.call("selfloop/gate/read", {"do": "heard"})
    [told] = [params for _, method, params in heard if method == "initialize"]
    assert [item["uri"] for item in told["workspaceFolders"]] == [folder.as_uri()]


def test_without_a_folder_nothing_is_locked(start, home):
    client, other = start(), start()
    for each in (client, other):
        each.initialize()
        assert each.status()["start"]["folders"] == []
    assert client.worker() != other.worker()
    assert not (home / "data" / "run").exists()


def test_initialize_is_answered_although_no_worker_comes_up(start, home, folder):
    (home / "hang").write_text("1")
    client = start()
    client.initialize(folder)
    client.ask("selfloop/status")
    client.nothing_more()


def test_requests_are_answered_in_every_state_of_the_window(start, folder):
    client = start()
    assert client.fails("selfloop/status")["code"] == -32002
    client.notify("initialized")
    assert client.fails("initialize", [1])["code"] == -32602
    client.initialize(folder)
    assert client.fails("initialize", {"capabilities": {}})["code"] == -32600
    assert client.call("shutdown") is None
    assert client.fails("selfloop/status")["code"] == -32600
    assert client.fails("shutdown")["code"] == -32600
    client.notify("exit")
    assert client.process.wait(10) == 0


def test_exit_without_shutdown_and_the_end_of_input_are_an_exit_code_of_1(start, folder):
    client, other = start(), start()
    client.initialize(folder)
    pid = client.worker()
    client.notify("exit")
    assert client.process.wait(10) == 1
    assert gone(pid)
    other.process.stdin.close()
    assert other.process.wait(10) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_worker_in_good_order(start, home, folder, number):
    client = start()
    client.initialize(folder)
    pid = client.worker()
    client.process.send_signal(number)
    assert client.process.wait(10) == 0
    assert (home / "stops").read_text().split() == [str(pid)]
    assert not list((home / "data" / "run").glob("*.sock"))


@pytest.mark.parametrize(
    ("value", "code", "id"),
    [
        (b"{]", -32700, None),
        (b"", -32700, None),
        (b"[1]", -32600, None),
        (b"5", -32600, None),
        (b"null", -32600, None),
        ([{"jsonrpc": "2.0", "id": 1, "method": "selfloop/status"}], -32600, None),
        ({}, -32600, None),
        ({"jsonrpc": "2.0"}, -32600, None),
        ({"jsonrpc": "2.0", "id": 90}, -32600, 90),
        ({"id": 91, "method": "selfloop/status"}, -32600, 91),
        ({"jsonrpc": "1.0", "id": "a", "method": "selfloop/status"}, -32600, "a"),
        ({"jsonrpc": "2.0", "id": 92, "method": 5}, -32600, 92),
        ({"jsonrpc": "2.0", "id": None, "method": "selfloop/status"}, -32600, None),
        ({"jsonrpc": "2.0", "id": True, "method": "selfloop/status"}, -32600, None),
        ({"jsonrpc": "2.0", "id": 1.5, "method": "selfloop/status"}, -32600, None),
        ({"jsonrpc": "2.0", "id": [1], "method": "selfloop/status"}, -32600, None),
        ({"jsonrpc": "2.0", "id": 93, "method": "selfloop/status", "params": "x"}, -32602, 93),
    ],
)
def test_what_is_no_message_is_answered_with_an_error_and_survived(start, folder, value, code, id):
    client = start()
    client.initialize(folder)
    client.send(value)
    message = client.wait(lambda message: "error" in message)
    assert (message["error"]["code"], message["id"]) == (code, id)
    assert client.status()["window"] == 1
    client.nothing_more()


def test_ids_are_numbers_or_strings_and_not_mixed_up(start, folder):
    client = start()
    client.initialize(folder)
    ids = [5, "5", -1, 0, "", 2**60, "ä\ud800"]
    for id in ids:
        client.ask("selfloop/status", id=id)
    for id in ids:
        message = client.wait(lambda message, id=id: message["id"] == id and type(message["id"]) is type(id))
        assert "result" in message
    client.nothing_more()


def test_an_id_that_is_still_in_flight_is_refused_and_the_first_request_lives(start, folder):
    client = start()
    client.initialize(folder)
    client.ask("selfloop/session/list", {"do": "hold"}, id="a")
    client.ask("selfloop/status", id="a")
    assert client.answer("a")["error"]["code"] == -32600
    client.notify("$/cancelRequest", {"id": "a"})
    assert client.answer("a")["error"]["code"] == -32800
    client.ask("selfloop/status", id="a")
    assert "result" in client.answer("a")
    client.nothing_more()


def test_a_second_answer_of_the_worker_does_not_reach_the_editor(start, folder):
    client = start()
    client.initialize(folder)
    assert client.call("selfloop/gate/read", {"do": "twice"}) == 1
    client.status()
    client.nothing_more()


def test_requests_sent_in_one_piece_are_each_answered_once(start, folder):
    client = start()
    initialize = {"capabilities": {}, "rootUri": folder.as_uri()}
    messages = [{"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": initialize}]
    messages += [{"jsonrpc": "2.0", "id": id, "method": "selfloop/status", "params": {}} for id in range(1, 500)]
    client.write(b"".join(map(framed, messages)))
    for id in range(500):
        assert "result" in client.answer(id)
    client.nothing_more()


def test_answers_to_questions_come_back_under_the_workers_own_id(start, folder):
    client = start()
    client.initialize(folder)
    edit = {"do": "ask", "id": 7, "method": "workspace/applyEdit", "params": {"edit": {}}}
    id = client.ask("selfloop/gate/resolve", edit)
    question = client.wait(lambda message: message.get("method") == "workspace/applyEdit")
    client.send({"jsonrpc": "2.0", "id": question["id"], "result": {"applied": True}})
    client.send({"jsonrpc": "2.0", "id": question["id"], "result": {"applied": False}})
    client.send({"jsonrpc": "2.0", "id": "never asked", "result": 1})
    assert client.answer(id)["result"] == {"applied": True}
    assert client.worker()
    client.nothing_more()


def test_garbage_of_the_worker_stays_out_of_the_editor_and_its_stderr_goes_to_the_log(start, home, folder):
    client = start()
    client.initialize(folder)
    client.call("selfloop/gate/read", {"do": "garbage"})
    client.call("selfloop/gate/read", {"do": "noise"})
    pid = client.worker()
    client.nothing_more()
    assert client.end() == 0
    log = (home / "data" / "logs" / "selfloop.log").read_text()
    assert "worker: a line on stderr\n" in log
    assert f"worker {pid} wrote what is no message" in log
    assert "capabilities differ" in log
    assert stat.S_IMODE((home / "data" / "logs" / "selfloop.log").stat().st_mode) == 0o600


def test_keys_are_in_no_log_and_no_environment_of_a_worker(start, home, folder):
    client = start()
    client.initialize(folder)
    client.call("selfloop/model/setKey", {"origin": "https://a.example", "key": "sk-secret"})
    os.kill(client.worker(), signal.SIGKILL)
    client.worker()
    client.end()
    assert "sk-secret" not in (home / "data" / "logs" / "selfloop.log").read_text()


def test_frames_piped_in_from_a_file_are_answered_before_the_end(home, folder, tmp_path):
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"rootUri": folder.as_uri()}},
        {"jsonrpc": "2.0", "id": 2, "method": "selfloop/status", "params": {}},
        {"jsonrpc": "2.0", "id": 3, "method": "shutdown"},
        {"jsonrpc": "2.0", "method": "exit"},
    ]
    (tmp_path / "in").write_bytes(b"".join(map(framed, messages)))
    environment = {**os.environ, "SELFLOOP_HOME": str(home), "STANDIN_HOME": str(home)}
    command = [sys.executable, "-I", "-S", HERE / "standin_boot.py", SERVER]
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        ended = subprocess.run(command, stdin=stdin, stdout=stdout, env=environment, timeout=20, check=False)
    assert ended.returncode == 0
    output = (tmp_path / "out").read_bytes()
    assert [output.count(b'"id":%d' % id) + output.count(b'"id": %d' % id) for id in (1, 2, 3)] == [1, 1, 1]
    assert b"error" not in output
    with open(os.devnull, "rb") as stdin:
        ended = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, env=environment, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_a_request_is_cancelled_before_the_worker_is_there(start, home, folder):
    (home / "die").write_text("3")
    client = start()
    client.initialize(folder)
    time.sleep(0.1)
    id = client.ask("selfloop/session/prompt", {"do": "effect"})
    client.notify("$/cancelRequest", {"id": id})
    answer = client.answer(id)
    assert "result" in answer or answer["error"]["code"] == -32800
    client.notify("$/cancelRequest", {"id": 12345})
    client.notify("$/cancelRequest")
    assert client.worker()
    client.nothing_more()


@pytest.mark.parametrize("form", [b"Content-Length: %d\r\n\r\n", b"content-length:%d\n\n"])
def test_a_stream_that_is_cut_at_every_byte_is_understood(start, folder, form):
    client = start()
    messages = [
        {"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": {"rootUri": folder.as_uri()}},
        {"jsonrpc": "2.0", "id": "b", "method": "selfloop/status", "params": {}},
    ]
    for message in messages:
        body = json.dumps(message).encode()
        for byte in form % len(body) + body:
            client.write(bytes([byte]))
    assert "result" in client.answer("a")
    assert client.answer("b")["result"]["window"] == 1


@pytest.mark.parametrize(
    "params",
    [
        {"workspaceFolders": 5},
        {"workspaceFolders": [None, 5, {}, {"uri": 5}]},
        {"workspaceFolders": [{"uri": "untitled:a"}, {"uri": "file:///%00"}]},
        {"rootUri": 5, "rootPath": 5},
        {"rootUri": "", "rootPath": ""},
    ],
)
def test_folders_that_are_none_are_passed_over(start, params):
    client = start()
    client.call("initialize", params)
    for event in (None, [], 5, {"added": 5, "removed": [5, {"uri": 5}]}):
        client.notify("workspace/didChangeWorkspaceFolders", {"event": event})
    assert client.status()["start"]["folders"] == []
    client.nothing_more()


def test_without_a_usable_data_folder_the_user_is_told_and_served(start, home, folder):
    (home / "data").write_text("no folder")
    client = start()
    client.initialize(folder)
    assert "could not be locked" in client.notified("window/showMessage")["message"]
    assert client.status()["start"]["folders"] == [{"uri": folder.as_uri(), "path": str(folder), "owned": True}]
    assert client.end() == 0
