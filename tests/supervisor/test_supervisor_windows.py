"""Several windows on one workspace: one server, the others its clients; and the next one when it ends."""

import contextlib
import os
import random
import signal
import socket
import stat
import time
from pathlib import Path

import pytest
from supervisor_client import gone

from selfloop.supervisor.claims import workspace_key

URI = "file:///a.py"


@pytest.fixture
def pair(start, folder):
    """A window that serves, and one that has joined it."""
    first, second = start(), start()
    first.initialize(folder)
    assert first.status()["window"] == 1
    second.initialize(folder)
    assert second.status()["window"] == 2
    return first, second


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def test_a_second_window_is_served_by_the_same_worker_with_its_own_documents(pair):
    first, second = pair
    assert first.worker() == second.worker()
    first.open(URI, "first")
    second.open(URI, "second")
    second.change(URI, 2, {"text": "second, changed"})
    assert (first.text(URI), second.text(URI)) == ("first", "second, changed")
    assert second.call("selfloop/gate/read", {"do": "twice"}) == 1
    ask = {"do": "ask", "id": 7, "method": "workspace/applyEdit", "params": {"edit": {}}}
    ids = [(window, window.ask("selfloop/gate/resolve", {**ask, "id": number})) for number, window in enumerate(pair)]
    for number, (window, id) in enumerate(ids):
        question = window.wait(lambda message: message.get("method") == "workspace/applyEdit")
        window.send({"jsonrpc": "2.0", "id": question["id"], "result": number})
        assert window.answer(id)["result"] == number
    for window in pair:
        window.nothing_more()


def test_a_window_that_leaves_is_no_loss_to_the_others(pair):
    first, second = pair
    second.open(URI, "second")
    assert second.text(URI) == "second"
    assert second.end() == 0
    assert first.status()["window"] == 1
    heard = [method for window, method, _ in first.call("selfloop/gate/read", {"do": "heard"}) if window == 0]
    assert heard == ["control/start", "control/windowOpened", "control/windowOpened", "control/windowClosed"]
    assert len(first.lives()) == 1


def test_the_death_of_the_worker_is_survived_by_every_window(pair):
    for window in pair:
        window.open(URI, f"{window.process.pid}")
    asked = [(window, window.ask("selfloop/session/prompt", {"do": "effect and hold"})) for window in pair]
    [pid] = {window.worker() for window in pair}
    kill(pid)
    for window, id in asked:
        assert "It took effect." in window.answer(id)["error"]["message"]
        assert window.text(URI) == f"{window.process.pid}"
        window.nothing_more()


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_when_the_server_ends_the_waiting_window_takes_over(pair, home, how):
    first, second = pair
    second.open(URI, "one")
    second.change(URI, 2, {"text": "two"})
    second.call("selfloop/model/setKey", {"origin": "https://a.example", "key": "k"})
    read = second.ask("selfloop/session/list", {"do": "hold"})
    done = second.ask("selfloop/session/prompt", {"do": "effect and hold"})
    undone = second.ask("selfloop/session/prompt", {"do": "hold"})
    old = second.worker()
    if how == "exit":
        assert first.end() == 0
    else:
        kill(first.process.pid)
    assert "It took effect." in second.answer(done)["error"]["message"]
    assert "did not take effect" in second.answer(undone)["error"]["message"]
    assert gone(old, 2)
    status = second.status()
    assert (status["window"], status["start"]["pid"]) == (1, second.process.pid)
    assert status["start"]["folders"][0]["owned"]
    assert second.text(URI) == "two"
    heard = second.call("selfloop/gate/read", {"do": "heard"})
    assert ["selfloop/model/setKey", {"origin": "https://a.example", "key": "k"}] in [item[1:] for item in heard]
    second.notify("$/cancelRequest", {"id": read})
    assert second.answer(read)["error"]["code"] == -32800
    second.nothing_more()
    assert len((home / "effects").read_text().split()) == 1


def test_of_many_waiting_windows_one_takes_over_and_the_others_join_it(pair, start, folder):
    first, second = pair
    third = start()
    third.initialize(folder)
    assert third.status()["window"] == 3
    held = [(window, window.ask("selfloop/session/prompt", {"do": "effect and hold"})) for window in (second, third)]
    lost = [(window, window.ask("selfloop/session/prompt", {"do": "hold"})) for window in (second, third)]
    third.status()
    second.status()
    kill(first.process.pid)
    for window, id in held:
        assert "It took effect." in window.answer(id)["error"]["message"]
    for window, id in lost:
        assert "did not take effect" in window.answer(id)["error"]["message"]
    one, other = second.status(), third.status()
    assert one["pid"] == other["pid"]
    assert {one["window"], other["window"]} == {1, 2}
    successor, last = (second, third) if one["window"] == 1 else (third, second)
    assert successor.end() == 0
    assert last.status()["window"] == 1


def test_every_folder_of_every_window_is_served_once(start, tmp_path):
    folders = {name: tmp_path / name for name in "abcd"}
    for folder in folders.values():
        folder.mkdir()
    one, two = start(), start()
    one.initialize(folders["a"])
    two.initialize(folders["b"])
    assert one.worker() != two.worker()
    three = start()
    three.initialize(folders["a"], folders["b"], folders["c"])
    assert three.worker() == one.worker()
    heard = three.call("selfloop/gate/read", {"do": "heard"})
    [told] = [params["folders"] for window, method, params in heard if method == "control/folders"]
    owned = {folder["path"][-1]: folder["owned"] for folder in told}
    assert owned == {"a": True, "b": False, "c": True}
    four = start()
    four.initialize(folders["c"])
    assert four.worker() == one.worker()
    event = {"added": [{"uri": folders["b"].as_uri(), "name": "b"}], "removed": []}
    four.notify("workspace/didChangeWorkspaceFolders", {"event": event})
    heard = four.call("selfloop/gate/read", {"do": "heard"})
    told = [params["folders"] for window, method, params in heard if method == "control/folders"][-1]
    assert {folder["path"][-1]: folder["owned"] for folder in told}["b"] is False, "another serves it"
    event = {"added": [{"uri": folders["d"].as_uri(), "name": "d"}], "removed": []}
    one.notify("workspace/didChangeWorkspaceFolders", {"event": event})
    five = start()
    one.worker()
    five.initialize(folders["d"])
    assert five.worker() == one.worker()


def test_a_folder_is_the_same_by_every_path_that_leads_to_it(start, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    first, second = start(), start()
    first.initialize(folder)
    first.worker()
    second.initialize(tmp_path / "link")
    assert second.worker() == first.worker()


def test_a_socket_that_somebody_left_behind_is_replaced(start, home, folder):
    run = home / "data" / "run"
    run.mkdir(parents=True)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(run / f"{workspace_key(str(folder))}.sock"))
    stale.close()
    first, second = start(), start()
    first.initialize(folder)
    first.worker()
    second.initialize(folder)
    assert second.worker() == first.worker()
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert not any(path.stat().st_mode & 0o077 for path in run.iterdir())


def test_a_long_path_to_the_data_folder_finds_a_short_place_for_the_socket(home, folder):
    from supervisor_client import clients

    deep = home / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    with clients(deep) as start:
        first, second = start(), start()
        first.initialize(folder)
        first.worker()
        second.initialize(folder)
        assert second.worker() == first.worker()
        short = Path(f"/tmp/selfloop-{os.getuid()}")
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
        assert list(short.glob(f"*-{workspace_key(str(folder))}.sock"))
        second.end()
        first.end()
        assert not list(short.glob(f"*-{workspace_key(str(folder))}.sock"))


def test_a_joined_window_hears_that_the_worker_was_given_up_and_can_bring_it_back(pair, home):
    first, second = pair
    (home / "die").write_text("4")
    kill(first.worker())
    for window in pair:
        assert "selfloop.restart" in window.notified("window/showMessage")["message"]
        assert window.fails("selfloop/status")["code"] == -32803
    assert second.call("selfloop/restart", {"when": "now"})["restartId"]
    assert first.worker() == second.worker()


def test_a_window_that_comes_while_the_worker_is_given_up_is_told_so(start, home, folder):
    (home / "die").write_text("5")
    first, second = start(), start()
    first.initialize(folder)
    first.notified("window/showMessage")
    second.initialize(folder)
    assert "selfloop.restart" in second.notified("window/showMessage")["message"]


def test_garbage_on_the_socket_harms_nobody(pair, home, folder):
    first, second = pair
    address = str(home / "data" / "run" / f"{workspace_key(str(folder))}.sock")
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"Content-Length: 1000000000000\r\n\r\n", b"\0" * 100_000):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(address)
            peer.sendall(data)
            received = b""
            while data and b'"error"' not in received:
                received += peer.recv(4096)
    assert first.worker() == second.worker()
    assert len(first.lives()) == 1


def test_what_is_asked_while_the_server_ends_waits_for_the_next_one(pair, home):
    first, second = pair
    (home / "slow stop").write_text("1")
    held = second.ask("selfloop/session/prompt", {"do": "effect and hold"})
    second.worker()
    first.call("shutdown")
    first.notify("exit")
    time.sleep(0.3)
    asked = second.ask("selfloop/session/prompt", {"do": "effect"})
    assert "It took effect." in second.answer(held)["error"]["message"]
    message = second.answer(asked)
    assert "result" in message or "did not take effect" in message["error"]["message"]
    second.nothing_more()


def test_a_window_with_nothing_in_flight_waits_while_the_server_ends_and_loses_nothing(pair, home):
    first, second = pair
    second.open(URI, "a")
    (home / "slow stop").write_text("1")
    first.call("shutdown")
    first.notify("exit")
    time.sleep(0.3)
    asked = [second.ask("selfloop/session/prompt", {"do": "effect"}) for _ in range(3)]
    (home / "slow stop").unlink()
    for id in asked:
        assert "result" in second.answer(id)
    assert second.text(URI) == "a"
    assert len((home / "effects").read_text().split()) == 3


@pytest.mark.slow
def test_a_server_that_hangs_is_named_to_the_user_of_the_next_window(start, folder):
    first, second = start(), start()
    first.initialize(folder)
    first.worker()
    os.kill(first.process.pid, signal.SIGSTOP)
    second.initialize(folder)
    asked = second.ask("selfloop/status")
    assert "does not answer" in second.notified("window/showMessage", 20)["message"]
    kill(first.process.pid)
    assert second.answer(asked)["result"]["window"] == 1
    second.nothing_more()


@pytest.mark.parametrize("joined", [False, True])
def test_updates_that_a_worker_stored_but_did_not_send_come_from_the_next_one(pair, joined):
    first, second = pair
    window = second if joined else first
    window.call("selfloop/session/prompt", {"do": "updates", "count": 3, "size": 1})
    assert [window.notified("selfloop/update")["seq"] for _ in range(3)] == [1, 2, 3]
    window.ask("selfloop/session/prompt", {"do": "store updates and die", "count": 4})
    assert [window.notified("selfloop/update")["seq"] for _ in range(4)] == [4, 5, 6, 7]
    window.call("selfloop/session/prompt", {"do": "updates", "count": 1, "size": 1})
    assert window.notified("selfloop/update")["seq"] == 8


def test_updates_that_a_dead_server_did_not_send_come_from_the_next_one(pair, start, folder):
    first, second = pair
    third = start()
    third.initialize(folder)
    third.worker()
    for window in (second, third):
        window.call("selfloop/session/prompt", {"do": "updates", "count": 2, "size": 1})
    assert [second.notified("selfloop/update")["seq"] for _ in range(2)] == [1, 2]
    assert [third.notified("selfloop/update")["seq"] for _ in range(2)] == [3, 4]
    kill(first.process.pid)
    # Each was sent the updates of its own window only, so it lacks those that came after its last one.
    assert [second.notified("selfloop/update")["seq"] for _ in range(2)] == [3, 4]
    assert third.status()["pid"] == second.status()["pid"]
    third.nothing_more()
    second.nothing_more()


@pytest.mark.slow
def test_whoever_dies_each_request_of_a_living_window_has_one_true_answer(start, home, folder):
    chance = random.Random(11)
    windows = []
    asked = {}

    def join():
        window = start()
        window.initialize(folder)
        window.open(URI, f"{window.process.pid}")
        windows.append(window)

    for turn in range(40):
        while len(windows) < 3:
            join()
        for number, window in enumerate(windows):
            for step in range(chance.randrange(4)):
                mark = f"{turn}.{number}.{step}"
                do = chance.choice(["effect", "effect and hold"])
                asked[mark] = window, window.ask("selfloop/session/prompt", {"do": do, "mark": mark})
        time.sleep(chance.random() * 0.1)
        action = chance.choice(["worker", "worker", "kill", "exit", "nothing"])
        if action == "worker":
            with contextlib.suppress(ProcessLookupError):
                kill(windows[0].lives()[-1])
        elif action != "nothing":
            victim = windows.pop(chance.randrange(3))
            if action == "kill":
                kill(victim.process.pid)
            else:
                victim.notify("exit")
    answers = {mark: answer_by_killing(window, id) for mark, (window, id) in asked.items() if window in windows}
    marks = (home / "marks").read_text().split()
    for mark, answer in answers.items():
        took_effect = "result" in answer or "It took effect." in answer["error"]["message"]
        assert marks.count(mark) == took_effect, (mark, answer)
    for window in windows:
        assert window.text(URI) == f"{window.process.pid}"
        window.nothing_more()
    effects = (home / "effects").read_text().split()
    assert len(effects) == len(set(effects))


def answer_by_killing(window, id):
    """Kill the newest worker until the request has its answer: most workers keep some for themselves."""
    for _ in range(20):
        with contextlib.suppress(AssertionError):
            return window.answer(id, 1)
        with contextlib.suppress(ProcessLookupError):
            kill(window.lives()[-1])
    raise AssertionError(f"{id} is never answered")
