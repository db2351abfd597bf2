"""The tools as a model uses them: what they show, what they refuse, and what is on the disk afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agent_chat import NoEditor
from model_server import Answer, Call, call, text, tools
from path_fixture import build
from selfloop.agent.tools.tool import Ran
from selfloop.agent.tools.verdicts import EvidenceOf, check_kind, doubts

CORPUS = Path(__file__).parents[1] / "corpus"


async def use(chat: Any, *calls: Any) -> list[str]:
    """Let the model make these calls in one reply, and return what it was told."""
    before = len(chat.events("tool_result"))
    judged = [text("CONTINUE")] if chat.events("turn_start") else []
    chat.server.extend(*judged, tools(*calls), text("ok"))
    await chat.ask("Go.")
    return [event.data["content"] for event in chat.events("tool_result")[before:]]


async def content(chat: Any, path: str) -> bytes | None:
    """Return a file as the agent has it, None if it is as the user has it."""
    return next((change.post for change in await chat.conversation.changes() if change.path == path), None)


async def test_a_read_prints_its_range_and_the_next_start_and_the_parts_make_the_whole(
    new_chat: Any, workspace: Path
) -> None:
    chat = new_chat(context_tokens=200_000)
    whole = "".join(f"line {n} – 🙂\n" for n in range(3_000))
    (workspace / "long.txt").write_text(whole, encoding="utf-8")

    def play(request: Any) -> Answer:
        results = [m["content"] for m in request.messages if m["role"] == "tool"]
        if not results:
            return tools(call("read_file", path="long.txt"))
        following = re.search(r"Next: start=(\d+)\.", results[-1])
        return tools(call("read_file", path="long.txt", start=int(following[1]))) if following else text("ok")

    chat.server._script = play
    await chat.ask("Read it all.")
    parts = [re.split(r"<data[^\n]*>\n", result)[1].rsplit("</data", 1)[0] for result in chat.results()]
    assert "".join(parts) == whole and len(parts) > 2
    assert all(len(part) <= 12_000 for part in parts)
    assert f"characters 0 to {len(parts[0])} of {len(whole)}, lines 1 to" in chat.results()[0]


async def test_a_range_is_exact_to_the_character(chat: Any, workspace: Path) -> None:
    (workspace / "a.txt").write_text("0🙂2345\n", encoding="utf-8")
    read, beyond, reverse = await use(
        chat,
        call("read_file", path="a.txt", start=1, end=3),
        call("read_file", path="a.txt", start=90),
        call("read_file", path="a.txt", start=3, end=1),
    )
    assert ">\n🙂2\n<" in read and "characters 1 to 3 of 7" in read
    assert "nothing was read" in beyond and "nothing was read" in reverse


async def test_what_is_no_text_is_said_to_be_none(chat: Any, workspace: Path) -> None:
    (workspace / "b.bin").write_bytes(b"\x7fELF\0\0")
    (workspace / "latin.txt").write_bytes("Größe".encode("latin-1"))
    (workspace / "empty.txt").write_bytes(b"")
    binary, latin, none, folder, empty = await use(
        chat,
        call("read_file", path="b.bin"),
        call("edit_file", path="latin.txt", old="G", new="H"),
        call("read_file", path="missing.txt"),
        call("read_file", path="."),
        call("read_file", path="empty.txt"),
    )
    assert "binary file of 6 bytes" in binary and "not UTF-8" in latin
    assert "list_files shows" in none and "folder" in folder.lower() + "folder" and "is empty" in empty
    assert await chat.conversation.changes() == []


async def test_bytes_that_are_not_changed_stay_as_they_are(chat: Any, workspace: Path) -> None:
    (workspace / "w.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\nthree")
    read, *_ = await use(
        chat,
        call("read_file", path="w.txt"),
        call("edit_file", path="w.txt", old="two\nthree", new="zwei\ndrei"),
    )
    assert "CRLF" in read and "does not end with a line feed" in read and "\ufeff" not in read
    assert await content(chat, "w.txt") == b"\xef\xbb\xbfone\r\nzwei\r\ndrei"


async def test_a_whole_file_keeps_its_line_endings(chat: Any, workspace: Path) -> None:
    (workspace / "w.txt").write_bytes(b"one\r\ntwo\r\n")
    (said,) = await use(chat, call("write_file", path="w.txt", content="eins\nzwei\n"))
    assert "CRLF" in said and await content(chat, "w.txt") == b"eins\r\nzwei\r\n"


async def test_a_range_is_replaced(chat: Any, workspace: Path) -> None:
    (workspace / "a.txt").write_text("0123456789\n")
    first, insert, far, new = await use(
        chat,
        call("write_file", path="a.txt", content="abc", start=2, end=4),
        call("write_file", path="a.txt", content="!", start=0, end=0),
        call("write_file", path="a.txt", content="x", start=90),
        call("write_file", path="new.txt", content="x", start=3, end=4),
    )
    assert await content(chat, "a.txt") == b"!01abc456789\n"
    assert "by 3 new ones" in first and "by 1 new" in insert
    assert "nothing was written" in far and "nothing was written" in new


async def test_an_edit_that_breaks_the_syntax_is_refused_and_says_that_nothing_changed(chat: Any) -> None:
    edit, part = await use(
        chat,
        call("edit_file", path="greet.py", old="def greet(name):", new="def greet(name:"),
        call("write_file", path="greet.py", content="(", start=0, end=3),
    )
    assert "break the syntax" in edit and "the file is as it was" in edit
    assert "break the syntax" in part
    assert await chat.conversation.changes() == []


async def test_a_whole_file_is_written_as_it_was_meant_and_a_fault_in_it_is_told(chat: Any) -> None:
    whole, new = await use(
        chat,
        call("write_file", path="greet.py", content="def (\n"),
        call("write_file", path="new.py", content="def (\n"),
    )
    assert "Wrote greet.py" in whole and "no longer parses" in whole
    assert "Created new.py" in new and "does not parse" in new
    assert sorted(change.path for change in await chat.conversation.changes()) == ["greet.py", "new.py"]


async def test_a_failed_edit_shows_the_real_text_inside_the_fence(chat: Any) -> None:
    near, same, missing, there = await use(
        chat,
        call("edit_file", path="greet.py", old="    return 'Helo ' + name", new="x"),
        call("edit_file", path="greet.py", old="name", new="name"),
        call("edit_file", path="nowhere.py", old="a", new="b"),
        call("edit_file", path="greet.py", old="return 'Hallo '", new="return 'Hello '"),
    )
    assert "return 'Hello ' + name" in near and "<data-" in near and "nothing was changed" in near
    assert "the same" in same and "nothing" in missing and "already there" in there


async def test_files_are_listed_and_too_many_are_counted(chat: Any, workspace: Path) -> None:
    for number in range(400):
        folder = workspace / f"pkg{number % 4}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}.txt").write_text("x")
    (workspace / ".gitignore").write_text("secret.txt\n")
    (workspace / "secret.txt").write_text("x")
    whole, part = await use(chat, call("list_files"), call("list_files", path="pkg1"))
    assert "pkg0/" in whole and "pkg0/f0.txt" not in whole and "secret.txt" not in whole and ".git/" not in whole
    assert "pkg1/f1.txt" in part


async def test_matches_are_capped_and_the_rest_can_be_read(chat: Any, workspace: Path) -> None:
    (workspace / "many.txt").write_text("".join(f"needle {n}\n" for n in range(500)))
    (found,) = await use(chat, call("search", pattern=r"needle \d+"))
    assert "500 lines match" in found and "many.txt:1:needle 0" in found
    name = re.search(r"read_file (@outputs/\S+)", found)
    assert name
    (rest,) = await use(chat, call("read_file", path=name[1]))
    assert "needle 101" in rest or "Next: start=" in rest


async def test_a_pattern_that_is_none_is_searched_as_text(chat: Any, workspace: Path) -> None:
    (workspace / "a.txt").write_text("call foo( here\n")
    plain, none, outside, file, empty = await use(
        chat,
        call("search", pattern="foo("),
        call("search", pattern="nowhere to be found"),
        call("search", pattern="x", path="../.."),
        call("search", pattern="foo", path="a.txt"),
        call("search", pattern=""),
    )
    assert "searched as plain text" in plain and "a.txt:1:call foo( here" in plain
    assert "matches 'nowhere" in none and "leads out" in outside
    assert "a.txt:1:call foo( here" in file and "nothing was searched" in empty


async def test_without_ripgrep_the_search_says_so_and_works(
    chat: Any, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools_only = tmp_path / "bin"
    tools_only.mkdir()
    import shutil

    for program in ("git", "sh", "bwrap", "env"):
        if found := shutil.which(program):
            (tools_only / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools_only))
    (found_,) = await use(chat, call("search", pattern="Hello"))
    assert "ripgrep is not installed" in found_ and "greet.py:2:" in found_


async def test_a_command_shows_its_exit_code_and_long_output_is_kept(chat: Any) -> None:
    failing, long, slow, none = await use(
        chat,
        call("shell", command="echo out; echo err >&2; exit 3"),
        call("shell", command="i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"),
        call("shell", command="sleep 30", timeout_seconds=1),
        call("shell", command="true"),
    )
    assert "Exit code 3" in failing and "out" in failing and "err" in failing
    assert "line 0\n" in long and "line 19999" in long and len(long) < 13_000
    assert "ended after 1 seconds" in slow and "Exit code 0" in none and "printed nothing" in none
    name = re.search(r"read_file (@outputs/\S+) shows", long)
    assert name
    (middle,) = await use(chat, call("read_file", path=name[1], start=60_000))
    assert "line 6" in middle


async def test_the_gate_shows_the_commands_that_ran(chat: Any) -> None:
    await use(
        chat,
        call("write_file", path="a.txt", content="x"),
        call("shell", command="ls a.txt"),
        call("shell", command="false"),
    )
    (gate,) = chat.gates.list("open")
    view = await chat.gates.read(gate.gate_id, NoEditor())
    assert [(item.command, item.exit_code) for item in view.evidence] == [("ls a.txt", 0), ("false", 1)]


async def test_a_note_is_found_again_by_another_session(new_chat: Any) -> None:
    first, second = new_chat(), new_chat()
    (kept,) = await use(first, call("remember", text="The integration tests need `make db`."))
    found, nothing = await use(second, call("recall", query="integration"), call("recall", query="zebra"))
    assert "Remembered" in kept and "make db" in found and "<data-" in found and "Nothing is remembered" in nothing


async def test_the_agent_does_not_write_into_git_or_our_own_folder(chat: Any) -> None:
    results = await use(
        chat,
        call("write_file", path=".git/hooks/pre-commit", content="x"),
        call("write_file", path=".evo/x", content="x"),
        call("write_file", path="a/.GIT/config", content="x"),
        call("delete_file", path=".git/HEAD"),
    )
    assert all("nothing was" in result or "not opened" in result for result in results)
    assert await chat.conversation.changes() == []


async def test_no_path_of_the_corpus_leads_out(new_chat: Any, tmp_path: Path) -> None:
    cases = [json.loads(line) for line in (CORPUS / "path_confinement.jsonl").read_text().splitlines()]
    place = build(tmp_path / "corpus")
    files = [path for path in (tmp_path / "corpus").rglob("*") if path.is_file()]
    outside = {path: path.read_bytes() for path in files if place not in path.parents}
    inside = {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and not path.is_symlink()}
    chat = new_chat(place)
    tried = (("read_file", {}), ("list_files", {}), ("search", {"pattern": "SECRET"}))
    changing = (("write_file", {"content": "PWNED"}), ("delete_file", {}))
    calls = [
        Call(name, json.dumps({"path": case["path"], **more})) for case in cases for name, more in (*tried, *changing)
    ]
    for start in range(0, len(calls), 100):
        results = await use(chat, *calls[start : start + 100])
        assert not [result for result in results if "SECRET" in result.replace("'SECRET'", "").replace('"SECRET"', "")]
    assert {path: path.read_bytes() for path in outside} == outside
    assert {path: path.read_bytes() for path in inside} == inside


def test_only_executed_evidence_that_proves_something_counts() -> None:
    ran = [
        Ran("pytest -q", 0, "5 passed in 0.1s"),
        Ran("true", 0, ""),
        Ran("pytest -k none", 5, "collected 0 items / no tests ran"),
        Ran("ruff check .", 1, "Found 1 error."),
    ]

    def why(command: str, code: int, check: str = "test", named: dict[str, str] | None = None) -> list[str]:
        return doubts([EvidenceOf(check, command, code)], ran, named)

    assert why("pytest -q", 0) == []
    assert "did not run" in why("pytest", 0)[0]
    assert "exit code 1, not 0" in why("ruff check .", 0)[0]
    assert "no test, build or lint" in why("true", 0)[0]
    assert "no test and no file" in why("pytest -k none", 5)[0]
    assert why("true", 0, "smoke", {"smoke": "true"}) == []
    assert "is not the command" in why("true", 0, "smoke", {"smoke": "make smoke"})[0]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("pytest -q", "test"), ("python3 -m pytest tests/a.py", "test"), (".venv/bin/ruff check .", "lint"),
        ("npm test", "test"), ("npm run lint", "lint"), ("cargo build --release", "build"), ("go vet ./...", "lint"),
        ("CI=1 npx vitest run", "test"), ("pytest || true", None), ("pytest; true", None), ("echo pytest", None),
        ("pytest --version", None), ("true", None), ("python -c 'import pytest'", None), ("npm install", None),
        ("'", None),
    ],
)  # fmt: skip
def test_a_check_is_known_by_its_command(command: str, kind: str | None) -> None:
    assert check_kind(command) == kind
