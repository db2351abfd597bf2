"""`selfloop chat` as a child process, on a real server and a real HTTP model."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_server import Hold, ModelServer, call, chunk, raw, stall, status, text, tools
from scene import GREETING, environment_for
from terminal import Talk, selfloop

FIRST = GREETING.replace("    return 'Hello '", "    '''Greet.'''\n    return 'Hello '")
BOTH = FIRST.replace("    return 'Bye '", "    '''Part.'''\n    return 'Bye '")

EDITS = (
    tools(call("read_file", path="greet.py")),
    tools(
        call("edit_file", path="greet.py", old="    return 'Hello '", new="    '''Greet.'''\n    return 'Hello '"),
        call("edit_file", path="greet.py", old="    return 'Bye '", new="    '''Part.'''\n    return 'Bye '"),
    ),
    text("I added ", "two docstrings."),
)


@pytest.fixture
def trusted(workspace: Path) -> Path:
    assert selfloop("trust", workspace).returncode == 0
    return workspace


@pytest.fixture
def env(model: ModelServer) -> dict[str, str]:
    return environment_for(model)


@pytest.fixture
def talk(trusted: Path, env: dict[str, str]) -> Iterator[Talk]:
    with Talk("chat", cwd=trusted, env=env) as running:
        yield running


@pytest.fixture
def keyboard(trusted: Path, env: dict[str, str]) -> Iterator[Talk]:
    with Talk("chat", cwd=trusted, env=env, tty=True) as running:
        running.expect("›")
        yield running


def greet(workspace: Path) -> str:
    return (workspace / "greet.py").read_text()


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_piped_conversation_ends_with_exactly_the_approved_hunk(
    trusted: Path, env: dict[str, str], model: ModelServer
) -> None:
    model.extend(*EDITS)
    done = selfloop("chat", cwd=trusted, env=env, input="document it\ny\nn\n/exit\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert greet(trusted) == FIRST
    assert "I added two docstrings." in done.stdout
    assert "+    '''Greet.'''" in done.stdout and "+    '''Part.'''" in done.stdout
    assert "applied to greet.py" in done.stdout
    assert model.overrun == []


def test_a_hunk_that_is_put_off_stays_open(trusted: Path, env: dict[str, str], model: ModelServer) -> None:
    model.extend(*EDITS)
    done = selfloop("chat", cwd=trusted, env=env, input="document it\nd\ny\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert greet(trusted) == GREETING.replace("    return 'Bye '", "    '''Part.'''\n    return 'Bye '")
    assert "Still open: `selfloop gate show" in done.stdout
    gates = json.loads(selfloop("gate", "list", "--json", cwd=trusted, env=env).stdout)["gates"]
    assert [gate["state"] for gate in gates] == ["open"]


def test_what_is_no_answer_reaches_the_agent_and_decides_nothing(
    trusted: Path, env: dict[str, str], model: ModelServer
) -> None:
    model.extend(*EDITS, text("CONTINUE"), text("Why not."))
    done = selfloop("chat", cwd=trusted, env=env, input="document it\nyes please, and why?\n")
    assert greet(trusted) == GREETING, done.stdout
    assert any("yes please, and why?" in str(request.messages) for request in model.requests), done.stdout


def test_an_empty_input_starts_nothing(trusted: Path, env: dict[str, str], model: ModelServer) -> None:
    done = selfloop("chat", cwd=trusted, env=env, input="\n   \n")
    assert done.returncode == 0, done.stderr
    assert model.requests == []
    assert json.loads(selfloop("session", "list", "--json", cwd=trusted, env=env).stdout) == {"sessions": []}


def test_an_unknown_command_is_told_and_a_path_is_a_message(talk: Talk, model: ModelServer) -> None:
    model.extend(text("It is a file."))
    talk.send("/frobnicate now")
    talk.expect("There is no command /frobnicate")
    assert model.requests == []
    talk.send("/etc/hosts is what?")
    talk.expect("It is a file.")


def test_an_answer_streams_before_it_is_whole(talk: Talk, model: ModelServer) -> None:
    hold = Hold()
    model.extend(raw(chunk({"content": "First half"}), hold, chunk({"content": ", second."}), chunk({}, finish="stop")))
    talk.send("hello")
    talk.expect("First half")
    assert "second" not in talk.output
    hold.event.set()
    talk.expect(", second.")


def test_escape_sequences_of_the_model_are_inert(talk: Talk, model: ModelServer) -> None:
    model.extend(text("Look: \x1b]0;owned\x07\x1b[2J", "\u202edone"))
    talk.send("hello")
    talk.expect("done")
    assert "\x1b]0;" not in talk.raw and "\x1b[2J" not in talk.raw and "\u202e" not in talk.raw


def test_cancel_ends_the_running_turn_and_the_chat_goes_on(talk: Talk, model: ModelServer) -> None:
    model.extend(stall(), text("CONTINUE"), text("Here again."))
    talk.send("hello")
    model.wait(1, 30)
    talk.send("/cancel")
    talk.expect("(cancelled)", 10)
    talk.send("and now?")
    talk.expect("Here again.")


def test_the_first_interrupt_cancels_and_the_second_leaves(talk: Talk, model: ModelServer) -> None:
    model.extend(stall())
    talk.send("hello")
    model.wait(1, 30)
    talk.interrupt()
    talk.expect("(cancelled)", 10)
    talk.interrupt()
    assert talk.wait() == 130
    assert "Traceback" not in talk.output


def test_steering_reaches_the_running_turn(talk: Talk, model: ModelServer) -> None:
    hold = Hold()
    model.extend(raw(hold, *tools(call("list_files")).pieces), text("As you say."))
    talk.send("hello")
    model.wait(1, 30)
    talk.send("/steer use tabs instead")
    time.sleep(1)
    hold.event.set()
    talk.expect("As you say.")
    assert len(model.requests) == 2
    assert "use tabs instead" in str(model.requests[1].messages)


def test_a_command_that_wants_the_network_waits_for_an_answer(talk: Talk, model: ModelServer) -> None:
    model.extend(tools(call("shell", command="echo to the network", network=True)), text("It was refused."))
    talk.send("fetch it")
    shown = talk.expect("Allow it?")
    assert "echo to the network" in shown
    talk.send("n")
    talk.expect("It was refused.")
    assert model.requests[-1].messages[-1]["role"] == "tool"


def test_a_turn_that_waits_when_the_input_ends_is_cancelled(
    trusted: Path, env: dict[str, str], model: ModelServer
) -> None:
    model.extend(tools(call("shell", command="echo to the network", network=True)))
    done = selfloop("chat", cwd=trusted, env=env, input="fetch it\n")
    assert done.returncode == 1
    assert "nobody can answer" in done.stdout
    gates = json.loads(selfloop("gate", "list", "--all", "--json", cwd=trusted, env=env).stdout)["gates"]
    assert [gate["state"] for gate in gates] == ["cancelled"]


def test_a_failure_of_the_provider_is_told_and_the_chat_goes_on(talk: Talk, model: ModelServer) -> None:
    model.extend(status(401, "bad key"), text("CONTINUE"), text("Better."))
    talk.send("hello")
    talk.expect("error")
    talk.send("again")
    talk.expect("Better.")
    assert "Traceback" not in talk.output


def test_a_session_is_gone_on_with(trusted: Path, env: dict[str, str], model: ModelServer) -> None:
    model.extend(text("The word is plum."))
    first = selfloop("chat", cwd=trusted, env=env, input="choose a word\n")
    session_id = first.stdout.rsplit("--session ", 1)[1].strip()
    model.extend(text("CONTINUE"), text("Still plum."))
    second = selfloop("chat", "--session", session_id, cwd=trusted, env=env, input="which one?\n")
    assert "› choose a word" in second.stdout and "The word is plum." in second.stdout
    assert "Still plum." in second.stdout
    assert "choose a word" in str(model.requests[-1].messages)


def test_an_unknown_session_is_one_plain_sentence(trusted: Path, env: dict[str, str]) -> None:
    done = selfloop("chat", "--session", "nonsense", cwd=trusted, env=env)
    assert done.returncode == 1
    assert "There is no session 'nonsense' here" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_chat_ends_with_a_sentence_when_its_server_is_killed(talk: Talk, model: ModelServer) -> None:
    talk.expect("/help")
    os.kill(children(talk.process.pid)[0], signal.SIGKILL)
    talk.expect("The server has ended")
    assert talk.wait() == 1
    assert "Traceback" not in talk.output


def test_a_killed_worker_loses_nothing_of_the_conversation(talk: Talk, trusted: Path, model: ModelServer) -> None:
    hold = Hold()
    model.extend(*EDITS[:2], raw(hold, *EDITS[2].pieces), EDITS[2])
    talk.send("document it")
    model.wait(3, 40)
    supervisor = children(talk.process.pid)[0]
    os.kill(children(supervisor)[0], signal.SIGKILL)
    hold.event.set()
    talk.expect("I added two docstrings.")
    talk.expect("Apply this hunk?")
    talk.send("y")
    talk.expect("applied to greet.py")
    talk.expect("Apply this hunk?")
    talk.send("y")
    talk.expect("applied to greet.py")
    assert greet(trusted) == BOTH
    assert model.overrun == []


def test_a_second_terminal_shares_the_server(
    talk: Talk, trusted: Path, env: dict[str, str], model: ModelServer
) -> None:
    model.extend(*EDITS)
    talk.send("document it")
    talk.expect("Apply this hunk?")
    done = selfloop("gate", "reject", "--json", cwd=trusted, env=env)
    assert json.loads(done.stdout)["gate"]["state"] == "resolved", done.stderr
    talk.send("/exit")
    assert talk.wait() == 0
    assert "Still open" not in talk.output
    assert greet(trusted) == GREETING


# At a real terminal


def test_hunks_are_decided_at_the_keyboard(keyboard: Talk, trusted: Path, model: ModelServer) -> None:
    model.extend(*EDITS)
    keyboard.send("document it")
    keyboard.expect("Apply this hunk?")
    keyboard.send("y")
    keyboard.expect("applied to greet.py")
    keyboard.expect("+    '''Part.'''")
    keyboard.send("y")
    keyboard.expect("applied to greet.py")
    keyboard.send("/exit")
    assert keyboard.wait() == 0
    assert greet(trusted) == BOTH


def test_what_is_typed_while_a_turn_runs_is_queued(keyboard: Talk, model: ModelServer) -> None:
    hold = Hold()
    model.extend(raw(hold, *text("The first answer.").pieces), text("CONTINUE"), text("The second answer."))
    keyboard.send("first")
    model.wait(1, 30)
    keyboard.send("second")
    keyboard.expect("queued")
    hold.event.set()
    keyboard.expect("The first answer.")
    keyboard.expect("The second answer.")


def test_ctrl_c_cancels_the_turn_and_then_leaves(keyboard: Talk, model: ModelServer) -> None:
    model.extend(stall())
    keyboard.send("hello")
    model.wait(1, 30)
    keyboard.interrupt()
    keyboard.expect("(cancelled)", 10)
    keyboard.interrupt()
    assert keyboard.wait() == 130
    assert "Traceback" not in keyboard.output


def test_a_draft_survives_what_is_printed_meanwhile(keyboard: Talk, model: ModelServer) -> None:
    hold = Hold()
    model.extend(raw(hold, *text("An answer.").pieces), text("CONTINUE"), text("And one more."))
    keyboard.send("first")
    model.wait(1, 30)
    keyboard.type("half a ")
    hold.event.set()
    keyboard.expect("An answer.")
    keyboard.send("thought")
    keyboard.expect("And one more.")
    assert "half a thought" in str(model.requests[-1].messages)


def test_an_untrusted_folder_is_offered_for_trust(workspace: Path, env: dict[str, str], model: ModelServer) -> None:
    model.extend(text("Hello."))
    with Talk("chat", cwd=workspace, env=env, tty=True) as talk:
        talk.expect("Trust this folder?")
        talk.send("y")
        talk.expect("›")
        talk.send("hello")
        talk.expect("Hello.")


def test_no_is_no_trust(workspace: Path, env: dict[str, str]) -> None:
    with Talk("chat", cwd=workspace, env=env, tty=True) as talk:
        talk.expect("Trust this folder?")
        talk.send("n")
        talk.expect("nothing was started")
        assert talk.wait() == 1
    assert not (workspace / ".evo").exists()
