"""Another generation takes over, as the supervisor does it: with a small worker that misbehaves in every way.

Each generation here is a real folder of this checkout's source; what its worker does stands in its `prompts/chat.md`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time

import pytest
from supervisor_client import gone

from generation_room import active, make_active, make_generation, thaw
from selfloop.supervisor.contract import HEARTBEAT_SECONDS, MISSED_BEATS

URI = "file:///a.py"
CHAT = "prompts/chat.md"
COLD = "be started cold: "


@pytest.fixture
def generation(home):
    """Make a generation that behaves in a way; return its tree."""
    yield lambda behave: make_generation(home, {CHAT: lambda text: f"{text}\nbehave: {behave}\n"})
    for folder in (home / "data" / "self" / "generations").glob("*"):
        thaw(folder)


def swap(client, number, tree, by="approval"):
    """Ask for a swap, and return the states that were told of it up to the one that decides."""
    client.call("selfloop/restart", {"do": "swap", "restartId": f"r{number}", "number": number, "tree": tree, "by": by})
    told = []
    while not told or told[-1]["state"] == "starting":
        told.append(client.notified("test/swapState", 90))
    return told


def serving(client):
    return client.status()["start"]["generation"]


def until_serving(client, number, seconds=20.0):
    end = time.monotonic() + seconds
    while serving(client) != number:
        assert time.monotonic() < end, f"generation {number} does not serve"
        time.sleep(0.02)


def test_a_swap_loses_nothing_and_tells_the_editor_nothing(start, home, folder, generation):
    trees = [generation(str(number)) for number in (1, 2)]
    client = start()
    client.initialize(folder)
    client.open(URI, "0")
    keys = []
    for number in range(1, 7):
        tree = trees[number % 2]
        told = swap(client, number, tree)
        assert [state["state"] for state in told] == ["starting", "active"], told
        ids = [client.ask("selfloop/session/prompt", {"do": "effect"}) for _ in range(20)]
        client.change(URI, number + 1, {"text": str(number)})
        keys += [client.answer(id)["result"]["key"] for id in ids]
        assert client.text(URI) == str(number)
        assert serving(client) == number
    assert (home / "effects").read_text().split() == keys, "each once, in order"
    state = active(home)
    assert (state["number"], state["state"], state["parent"]) == (6, "probation", 5)
    client.nothing_more()
    assert client.end() == 0
    assert active(home)["number"] == 6, "an end in good order is no failure"


def test_requests_meanwhile_are_answered_by_one_or_the_other(start, home, folder, generation):
    tree = generation("well")
    client = start()
    client.initialize(folder)
    client.open(URI, "a")
    params = {"do": "swap", "restartId": "r", "number": 1, "tree": tree, "by": "approval"}
    client.call("selfloop/restart", params)
    writes, reads = [], []
    version = 1
    end = time.monotonic() + 20
    while time.monotonic() < end:
        writes.append(client.ask("selfloop/session/prompt", {"do": "effect"}))
        reads.append(client.ask("selfloop/gate/read", {}))
        version += 1
        client.change(URI, version, {"text": str(version)})
        if serving(client) == 1:
            break
    answered = [client.answer(id)["result"]["key"] for id in writes]
    assert sorted((home / "effects").read_text().split()) == sorted(answered)
    assert all("result" in client.answer(id) for id in reads)
    assert client.text(URI) == str(version)


def test_what_a_generation_offers_beyond_the_recorded_is_registered_and_goes_again(start, home, folder, generation):
    more, less = generation("offer more"), generation("well")
    client = start()
    dynamic = {"dynamicRegistration": True}
    capabilities = {"textDocument": {"hover": dynamic}, "workspace": {"executeCommand": dynamic}}
    client.initialize(folder, capabilities=capabilities)
    swap(client, 1, more)
    items = client.notified("client/registerCapability")["registrations"]
    assert sorted(item["method"] for item in items) == ["textDocument/hover", "workspace/executeCommand"]
    assert {"commands": ["selfloop.new.command"]} in [item["registerOptions"] for item in items]
    swap(client, 2, less)
    gone_again = client.notified("client/unregisterCapability")["unregisterations"]
    assert sorted(item["id"] for item in gone_again) == sorted(item["id"] for item in items)


REFUSED = {
    "die at once": "ended",
    "fail to import": "no such thing",
    "lack capabilities": "capabilities",
    "forget documents": "documents",
    "make noise early": "no message",
    "talk early": "without being asked",
    "answer early": "nobody had asked",
    "die when it takes over": "did not take over",
    "never be ready": "did not take over",
}


@pytest.mark.parametrize("behave", REFUSED)
def test_a_candidate_that_does_not_pass_is_refused_and_nothing_changes(start, home, folder, generation, behave):
    tree = generation(behave)
    client = start()
    client.initialize(folder)
    client.open(URI, "kept")
    told = swap(client, 1, tree)
    assert told[-1]["state"] == "refused" and REFUSED[behave] in told[-1]["reason"], told
    assert serving(client) == 0
    assert client.text(URI) == "kept"
    assert client.call("selfloop/session/prompt", {"do": "effect"})["key"]
    assert not (home / "data/self/active.json").exists() or active(home)["number"] == 0
    client.nothing_more()


@pytest.mark.slow
def test_a_candidate_that_hangs_is_refused_after_a_while(start, home, folder, generation):
    tree = generation("hang at once")
    client = start()
    client.initialize(folder)
    told = swap(client, 1, tree)
    assert told[-1]["state"] == "refused" and "30 seconds" in told[-1]["reason"]
    assert serving(client) == 0


def test_an_end_in_the_middle_of_a_swap_loses_no_approval(start, home, folder, generation):
    tree = generation("well")
    client = start()
    client.initialize(folder)
    asked = {"do": "swap", "restartId": "r1", "number": 1, "tree": tree, "by": "approval"}
    client.call("selfloop/restart", asked)
    assert client.notified("test/swapState", 30)["state"] == "starting"
    assert client.end() == 0
    assert (active(home)["number"], active(home)["state"]) == (1, "probation")
    again = start()
    again.initialize(folder)
    assert serving(again) == 1


def test_folders_that_are_not_what_was_approved_are_not_started(start, home, folder, generation):
    tree = generation("well")
    place = home / "data/self/generations" / tree
    client = start()
    client.initialize(folder)

    told = swap(client, 1, "0" * 40)
    assert "missing" in told[-1]["reason"]
    told = swap(client, 1, "../../..")
    assert "no folder that could be named" in told[-1]["reason"]

    thaw(place)
    agent = place / "server/selfloop/agent/turn.py"
    agent.write_text(agent.read_text() + "\n# edited by hand\n")
    told = swap(client, 1, tree)
    assert told[-1]["state"] == "refused" and "was changed after it was approved" in told[-1]["reason"]
    agent.unlink()
    agent.symlink_to("context.py")
    told = swap(client, 1, tree)
    assert told[-1]["state"] == "refused" and "link" in told[-1]["reason"]
    shutil.rmtree(place)
    assert serving(client) == 0


@pytest.mark.parametrize(
    "path", ["server/selfloop/agent/tools/toolbox.py", "server/selfloop/lsp/more.py", "prompts/loop_check.md"]
)
def test_a_generation_that_touches_what_is_protected_is_not_started(start, home, folder, path):
    tree = make_generation(home, {path: lambda text: f"{text}\n# touched\n"})
    client = start()
    client.initialize(folder)
    told = swap(client, 1, tree)
    assert told[-1]["state"] == "refused" and path in told[-1]["reason"]
    assert serving(client) == 0
    thaw(home / "data/self/generations" / tree)


BAD = {
    "die at the third request": ("ended",),
    "hang at the third request": ("heartbeats",),
    "miss heartbeats": ("heartbeats",),
    "answer twice": ("protocol",),
    "answer nothing asked": ("protocol",),
    "make noise": ("protocol",),
    "be slow": ("seconds",),
    "hog memory": ("memory", "heartbeats"),  # A machine that is short of it gives it slowly.
}


@pytest.mark.parametrize("behave", BAD)
def test_a_generation_that_goes_wrong_on_probation_is_rolled_back(start, home, folder, generation, behave):
    tree = generation(behave)
    client = start()
    client.initialize(folder)
    client.open(URI, "a")
    for _ in range(10):
        client.status()
    told = swap(client, 1, tree)
    assert told[-1]["state"] == "active", told
    client.change(URI, 2, {"text": "b"})
    reads = [client.ask("selfloop/gate/read", {}) for _ in range(4)]
    begin = time.monotonic()
    while behave in ("be slow", "hog memory") and not any(
        message.get("method") == "test/swapState" for message in client.received
    ):
        client.call("selfloop/gate/read", {}, 30)  # One after the other, so that heartbeats come through.
    told = client.notified("test/swapState", 30)
    assert told["state"] == "rolled-back" and any(word in told["reason"] for word in BAD[behave]), told
    assert time.monotonic() - begin < 25
    for read in reads:
        assert "result" in client.answer(read, 20)
    until_serving(client, 0)
    assert client.text(URI) == "b"
    state = active(home)
    assert (state["number"], state["rollbacks"], state["lastGood"]["number"]) == (0, 1, 0)
    assert state["outcomes"][-1]["state"] == "rolled-back" and state["outcomes"][-1]["number"] == 1
    assert client.end() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells that a process waits for the disk")
def test_a_generation_that_the_disk_keeps_waiting_is_not_rolled_back(start, home, folder, generation):
    os.mkfifo(home / "disk")
    tree = generation("wait for the disk at the third request")
    client = start(SELFLOOP_PROBATION_SECONDS="9")
    client.initialize(folder)
    assert swap(client, 1, tree)[-1]["state"] == "active"
    reads = [client.ask("selfloop/gate/read", {}) for _ in range(4)]
    time.sleep((MISSED_BEATS + 2.5) * HEARTBEAT_SECONDS)
    os.close(os.open(home / "disk", os.O_WRONLY))
    for read in reads:
        assert "result" in client.answer(read, 20)
    told = client.notified("test/swapState", 30)
    assert told["state"] == "settled", told
    assert serving(client) == 1


def test_three_rollbacks_pause_evolution_until_the_user_activates_one(start, home, folder, generation):
    bad, good = generation("die at the third request"), generation("well")
    client = start()
    client.initialize(folder)
    for number in (1, 2, 3):
        assert swap(client, number, bad)[-1]["state"] == "active"
        for _ in range(3):
            client.status()
        assert client.notified("test/swapState", 30)["state"] == "rolled-back"
        until_serving(client, 0)
    told = swap(client, 4, good)
    assert told[-1]["state"] == "refused" and "paused" in told[-1]["reason"]
    assert swap(client, 4, good, by="user")[-1]["state"] == "active"
    assert active(home)["rollbacks"] == 0


def test_the_user_takes_a_generation_back_without_its_help(start, home, folder, generation):
    tree = generation("well")
    client = start()
    client.initialize(folder)
    swap(client, 1, tree)
    worker = client.worker()
    (home / "never yield").write_text("yes")
    begin = time.monotonic()
    arguments = {"command": "selfloop.generation.activate", "arguments": [{"number": 0}]}
    assert client.call("workspace/executeCommand", arguments)["restartId"]
    until_serving(client, 0)
    assert time.monotonic() - begin < 10
    assert gone(worker)
    state = active(home)
    assert (state["number"], state["state"], state["rollbacks"]) == (0, "settled", 1)


def test_a_generation_that_stands_is_settled(start, home, folder, generation):
    tree = generation("well")
    client = start(SELFLOOP_PROBATION_SECONDS="1")
    client.initialize(folder)
    swap(client, 1, tree)
    assert client.notified("test/swapState", 30)["state"] == "settled"
    state = active(home)
    assert (state["state"], state["lastGood"]) == ("settled", {"number": 1, "tree": tree})
    client.end()
    again = start()
    again.initialize(folder)
    assert serving(again) == 1


def test_a_probation_goes_on_after_the_supervisor_was_killed(start, home, folder, generation):
    tree = generation("miss heartbeats")
    client = start()
    client.initialize(folder)
    swap(client, 1, tree)
    client.process.kill()
    again = start()
    again.initialize(folder)
    assert serving(again) == 1
    assert again.notified("test/swapState", 30)["state"] == "rolled-back"
    until_serving(again, 0)


@pytest.mark.parametrize("behave", ["die at once", "lack capabilities"])
def test_after_two_failed_starts_the_last_good_one_serves(start, home, folder, generation, behave):
    good, bad = generation("well"), generation(behave)
    make_active(home, 2, bad, lastGood={"number": 1, "tree": good})
    client = start()
    client.initialize(folder)
    until_serving(client, 1)
    assert "Generation 2" in client.notified("window/showMessage")["message"]
    assert active(home)["outcomes"][-1]["number"] == 2


@pytest.mark.parametrize(
    "change", [{"base": "0.0.1"}, {"tree": "1" * 40}, {"number": -3}, {"boots": 2}, {"tree": None}, {"outcomes": 3}]
)
def test_where_what_is_active_cannot_serve_the_installed_one_does(start, home, folder, generation, change):
    make_active(home, **{"number": 1, "tree": generation("well"), **change})
    client = start()
    client.initialize(folder)
    assert serving(client) == 0
    client.end()
    again = start()
    again.initialize(folder)
    assert serving(again) == 0
    again.nothing_more()


def test_nonsense_in_the_home_keeps_nobody_from_serving(start, home, folder):
    place = home / "data" / "self"
    place.mkdir(parents=True)
    for text in ("", "{", "[]", '{"version": 1}', "\xff"):
        (place / "active.json").write_text(text, encoding="latin-1")
        client = start()
        client.initialize(folder)
        assert serving(client) == 0
        client.end()
