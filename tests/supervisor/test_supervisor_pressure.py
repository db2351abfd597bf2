"""A worker that is slow, a client that does not read, floods of changes: memory stays bounded and nothing is lost."""

import threading
import time
from pathlib import Path

import pytest
from supervisor_client import framed

URI = "file:///a.py"
MEBIBYTE = 1024 * 1024


def memory(client):
    """Return how much memory the supervisor has used at most, in MiB."""
    lines = Path(f"/proc/{client.process.pid}/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak) / 1024


def test_a_message_of_16_mib_passes_and_a_longer_one_is_answered_with_an_error(start, folder):
    client = start()
    client.initialize(folder)
    client.open(URI, "x" * (16 * MEBIBYTE - 200))
    assert len(client.text(URI)) == 16 * MEBIBYTE - 200
    client.open("file:///b.py", "x" * 17 * MEBIBYTE)
    assert client.wait(lambda message: "error" in message)["error"]["code"] == -32600
    assert client.text("file:///b.py") is None
    client.nothing_more()


@pytest.mark.slow
@pytest.mark.parametrize("behind", [False, True])
def test_100_000_changes_pass_quickly_and_arrive_whole(start, folder, behind):
    client = start()
    client.initialize(folder)
    client.open(URI, "".join(f"line {number}\n" for number in range(1000)))
    client.worker()
    if behind:
        stuck = client.ask("selfloop/gate/read", {"do": "sleep", "seconds": 3})
    begin = time.monotonic()
    for version in range(2, 100_002):
        line = version % 1000
        place = {"start": {"line": line, "character": 0}, "end": {"line": line, "character": 1}}
        client.change(URI, version, {"range": place, "text": chr(97 + version % 26)})
    sent = time.monotonic()
    text = client.text(URI, 60)
    if behind:
        client.answer(stuck)
        heard = client.call("selfloop/gate/read", {"do": "heard"})
        assert len([1 for _, method, _ in heard if method == "textDocument/didChange"]) < 20_000
    expected = [f"line {number}\n" for number in range(1000)]
    for version in range(2, 100_002):
        line = version % 1000
        expected[line] = chr(97 + version % 26) + expected[line][1:]
    assert text == "".join(expected)
    assert memory(client) < 60
    assert sent - begin < 30
    client.nothing_more()


def test_changes_that_were_held_back_keep_their_place_before_what_follows(start, folder):
    client = start()
    client.initialize(folder)
    client.open(URI, "")
    stuck = client.ask("selfloop/gate/read", {"do": "sleep", "seconds": 1.0})
    client.open("file:///big.py", "x" * MEBIBYTE)
    asked = []
    for version in range(2, 12):
        client.change(URI, version, {"text": f"text {version}"})
        client.change("file:///big.py", version, {"text": f"big {version}"})
        asked.append((version, client.ask("selfloop/gate/read", {"do": "text", "uri": URI})))
    client.change(URI, 12, {"text": "the end"})
    client.answer(stuck)
    for version, id in asked:
        assert client.answer(id)["result"] == f"text {version}"
    assert client.text(URI) == "the end"
    assert client.text("file:///big.py") == "big 11"


def test_changes_that_were_held_back_come_before_the_answer_to_the_edit_that_made_them(start, folder):
    client = start()
    client.initialize(folder)
    client.open(URI, "")
    edit = {"do": "ask", "id": 7, "method": "workspace/applyEdit", "params": {}}
    id = client.ask("selfloop/gate/resolve", edit)
    question = client.wait(lambda message: message.get("method") == "workspace/applyEdit")
    client.ask("selfloop/gate/read", {"do": "sleep", "seconds": 0.5})
    client.open("file:///big.py", "x" * MEBIBYTE)
    for version in range(2, 5):
        client.change(URI, version, {"text": f"edited {version}"})
    client.send({"jsonrpc": "2.0", "id": question["id"], "result": {"applied": True}})
    assert client.answer(id)["result"] == {"applied": True}
    heard = client.call("selfloop/gate/read", {"do": "heard"})
    order = [method for window, method, _ in heard if method in ("textDocument/didChange", None)]
    assert order == ["textDocument/didChange", None]


def test_a_worker_that_takes_nothing_makes_the_editor_wait_and_memory_stays_bounded(start, folder):
    client = start()
    client.initialize(folder)
    client.worker()
    stuck = client.ask("selfloop/gate/read", {"do": "sleep", "seconds": 3})
    ids = []

    def flood():
        for _ in range(60):
            ids.append(client.ask("selfloop/gate/read", {"text": "x" * MEBIBYTE}))

    writer = threading.Thread(target=flood)
    writer.start()
    time.sleep(1)
    assert len(ids) < 20
    writer.join(60)
    client.answer(stuck)
    for id in ids:
        assert "result" in client.answer(id, 20)
    assert memory(client) < 80


def test_ten_thousand_requests_are_answered_to_a_client_that_reads_only_then(start, folder):
    client = start()
    client.initialize(folder)
    client.worker()
    client.reading.clear()
    client.write(
        b"".join(framed({"jsonrpc": "2.0", "id": id, "method": "selfloop/status"}) for id in range(10, 10_010))
    )
    time.sleep(1)
    client.reading.set()
    for id in range(10, 10_010):
        assert "result" in client.answer(id)
    client.nothing_more()


def test_updates_that_a_client_does_not_read_come_later_in_order_and_whole(start, folder):
    client, other = start(), start()
    client.initialize(folder)
    client.worker()
    other.initialize(folder)
    client.reading.clear()
    client.ask("selfloop/session/prompt", {"do": "updates", "count": 4000, "size": 10_000})
    for _ in range(50):  # The other window and the worker go on meanwhile.
        other.worker()
    assert other.call("selfloop/session/prompt", {"do": "updates", "count": 3, "size": 1}) == 4003
    assert memory(client) < 40
    client.reading.set()
    seen = [client.notified("selfloop/update", 20)["seq"] for _ in range(4000)]
    assert seen == list(range(1, 4001))
    assert [other.notified("selfloop/update")["seq"] for _ in range(3)] == [4001, 4002, 4003]
    client.call("selfloop/session/prompt", {"do": "updates", "count": 1, "size": 1})
    seen = [client.notified("selfloop/update")["seq"] for _ in range(4)]
    assert seen[-1] == 4004


def test_a_joined_client_that_does_not_read_gets_its_updates_later_too(start, folder):
    first, client = start(), start()
    first.initialize(folder)
    first.worker()
    client.initialize(folder)
    client.worker()
    client.reading.clear()
    client.ask("selfloop/session/prompt", {"do": "updates", "count": 6000, "size": 10_000})
    time.sleep(1)
    first.worker()
    assert memory(first) < 40
    assert memory(client) < 40
    client.reading.set()
    seen = [client.notified("selfloop/update", 20)["seq"] for _ in range(6000)]
    assert seen == list(range(1, 6001))


def test_a_client_that_reads_nothing_at_all_is_given_up(start, folder):
    client = start()
    client.initialize(folder)
    pid = client.worker()
    client.reading.clear()
    for _ in range(40):
        client.ask("selfloop/gate/read", {"do": "blob", "size": 4 * MEBIBYTE})
    assert client.process.wait(20) == 1
    assert memory_of(pid) is None


def memory_of(pid):
    """Return the state of a process, None when it is gone."""
    return Path(f"/proc/{pid}/status").read_text() if Path(f"/proc/{pid}").exists() else None
