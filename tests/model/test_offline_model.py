"""The built-in offline model: honest, and able to change any folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfloop.config import Settings
from selfloop.errors import ProviderError
from selfloop.messages import Message, ToolCall, ToolSpec
from selfloop.model.budget import Budget, Limits
from selfloop.model.client import ModelClient
from selfloop.offline import MODEL_NAME, OfflineModel, edits_for

TOOLS = [
    ToolSpec(name, name, {"type": "object"}) for name in ("list_files", "read_file", "edit_file", "write_file", "shell")
]


def carry_out(folder: Path, call: ToolCall) -> str:
    """Do what a call asks, plainly, and answer in the words of the real tools."""
    arguments: dict[str, Any] = json.loads(call.arguments)
    path = folder / arguments.get("path", ".")
    if call.name == "list_files":
        files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        return (
            'Below .:\n<data-5f source="the files of .">\n' + "\n".join(files) + "\n</data-5f>"
            if files
            else ". is an empty folder."
        )
    if call.name == "read_file":
        return f'{arguments["path"]}: characters 0 to 9 of 9.\n<data-5f source="x">\n{path.read_text()}</data-5f>'
    if call.name == "write_file":
        path.write_text(arguments["content"])
        return f"Created {arguments['path']}."
    if call.name == "edit_file":
        text = path.read_text()
        assert text.count(arguments["old"]) == 1
        path.write_text(text.replace(arguments["old"], arguments["new"]))
        return f"Edited {arguments['path']}."
    done = subprocess.run(arguments["command"], shell=True, cwd=folder, capture_output=True, text=True)  # noqa: S602
    return f"Exit code {done.returncode} after 0.1 s. It printed nothing."


async def play_through(folder: Path, question: str = "Improve this.") -> tuple[str, list[ToolCall]]:
    """Play an agent in a folder until the model is done; return its last words and every call."""
    calls: list[ToolCall] = []
    with OfflineModel(pause_seconds=0) as model:
        client = ModelClient(Settings(model=MODEL_NAME, base_url=model.url))
        history = [Message("system", "s"), Message("user", question)]
        for _ in range(20):
            reply = await client.complete(history, TOOLS, budget=Budget(Limits()))
            history.append(reply.message)
            if not reply.message.tool_calls:
                return reply.message.content, calls
            for call in reply.message.tool_calls:
                calls.append(call)
                history.append(Message("tool", carry_out(folder, call), tool_call_id=call.id))
    raise AssertionError("it never came to an end")


SOURCES = {
    "greet.py": "def greet(name):\n    return 'Hello ' + name\n\n\ndef part(name):\n    return 'Bye ' + name\n",
    "app.js": "function sayHello(name) {\n  return name;\n}\n\nfunction sayBye(name) {\n  return name;\n}\n",
    "main.go": "package main\n\nfunc one() {}\n\nfunc two() {}\n",
    "notes.md": "# One\n\ntext\n\n## Two\n\ntext\n",
}


@pytest.mark.parametrize("name", SOURCES)
async def test_it_changes_two_separate_places_of_what_it_has_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SOURCES[name])
    (tmp_path / "data.bin").write_bytes(b"\0")
    said, calls = await play_through(tmp_path)
    assert [call.name for call in calls][:4] == ["list_files", "read_file", "edit_file", "edit_file"]
    assert name in said and "two places" in said
    after = (tmp_path / name).read_text()
    assert after != SOURCES[name] and after.replace("\n", "")
    if name.endswith(".py"):
        assert calls[-1].name == "shell" and "exit code 0" in said
        compile(after, name, "exec")


async def test_it_begins_a_file_where_there_is_none(tmp_path: Path) -> None:
    said, calls = await play_through(tmp_path)
    assert "write_file" in [call.name for call in calls] and "two places" in said


async def test_it_reads_the_file_that_the_user_names_first(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(SOURCES["greet.py"])
    _, calls = await play_through(tmp_path, "Look at b.py, please.")
    assert json.loads(calls[1].arguments)["path"] == "b.py"


async def test_it_says_that_it_found_nothing_where_all_is_well(tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text('"""Fine."""\n\nX = 1\n')
    said, calls = await play_through(tmp_path)
    assert "nothing more was changed" in said and "edit_file" not in [call.name for call in calls]


HISTORIES: dict[str, list[dict[str, Any]]] = {
    "no result": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "x", "arguments": "{}"}}]}],
    "no result before the next words": [
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "x", "arguments": "{}"}}]},
        {"role": "user", "content": "and?"},
    ],
    "a result of nothing": [{"role": "tool", "tool_call_id": "9", "content": "x"}],
    "nothing to answer": [{"role": "assistant", "content": "x"}],
}


@pytest.mark.parametrize("history", HISTORIES)
async def test_it_refuses_a_conversation_without_the_results_it_asked_for(history: str) -> None:
    with OfflineModel(pause_seconds=0) as model:
        client = ModelClient(Settings(model=MODEL_NAME, base_url=model.url))
        messages = [Message("user", "x"), *(Message.from_wire({"content": "", **one}) for one in HISTORIES[history])]
        with pytest.raises(ProviderError) as refused:
            await client.complete(messages, TOOLS, budget=Budget(Limits()))
        assert refused.value.kind == "bad-request"


async def test_it_answers_the_judge_and_without_tools() -> None:
    with OfflineModel(pause_seconds=0) as model:
        client = ModelClient(Settings(model=MODEL_NAME, base_url=model.url))
        reply = await client.complete([Message("user", "Say NEW or CONTINUE.")], budget=Budget(Limits()))
        assert reply.message.content == "CONTINUE"
        assert [one.id for one in await client.list_models()] == [MODEL_NAME]


def test_edits_stand_in_one_place_only() -> None:
    text = "def a():\n    pass\n\n\ndef a():\n    pass\n\n\ndef b():\n    pass\n"
    assert edits_for("x.py", text) == []
    assert edits_for("x.py", "def broken(:\n") == []


def test_it_runs_as_a_program_until_its_input_ends() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "selfloop.offline"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline().startswith("http://127.0.0.1:")
    child.communicate(timeout=10)
    assert child.returncode == 0
