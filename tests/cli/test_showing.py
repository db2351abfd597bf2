"""What is shown in a terminal is what is there, and nothing in it acts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.changes import file_change, rendering, unified_diff
from selfloop.cli import showing
from selfloop.lsp.convert import line_range
from selfloop.lsp.protocol import GateFile, GateHunk

pytestmark = pytest.mark.unit


def gate_file(before: str | None, after: str | None) -> GateFile:
    """Return a file of a gate as the server sends it for a change of a text."""
    change = file_change(
        "a.py",
        pre=None if before is None else before.encode(),
        post=None if after is None else after.encode(),
        pre_mode=None if before is None else 0o100644,
        post_mode=None if after is None else 0o100644,
    )
    assert change is not None
    lines = before.split("\n") if before else []
    kept = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines and lines[-1] else [])
    hunks = [
        GateHunk(
            hunk_id=hunk.id,
            digest=hunk.digest,
            range=line_range(kept, hunk.start, hunk.end),
            new_text=hunk.new,
            status="pending",
        )
        for hunk in change.hunks
    ]
    return GateFile(uri="file:///w/a.py", operation=change.operation, diff=unified_diff(change), hunks=hunks)


BEFORE = "".join(f"line {number}\n" for number in range(30))


def test_each_hunk_is_shown_with_its_own_lines() -> None:
    after = BEFORE.replace("line 3\n", "LINE 3\n").replace("line 5\n", "").replace("line 20\n", "line 20\nnew\nlines\n")
    file = gate_file(BEFORE, after)
    shown = [showing.hunk_diffs(file)[hunk.hunk_id] for hunk in file.hunks]
    assert [[line for line in lines if line[0] in "+-"] for lines in shown] == [
        ["-line 3", "+LINE 3"],
        ["-line 5"],
        ["+new", "+lines"],
    ]
    assert shown[0][:3] == [" line 0", " line 1", " line 2"]
    assert shown[2][-3:] == [" line 21", " line 22", " line 23"]


def test_a_hunk_without_a_final_newline_keeps_the_mark() -> None:
    file = gate_file("a\nb", "a\nc")
    assert showing.hunk_diffs(file)[file.hunks[0].hunk_id] == [
        " a",
        "-b",
        "\\ No newline at end of file",
        "+c",
        "\\ No newline at end of file",
    ]


@pytest.mark.parametrize(("before", "after"), [(None, "new\n"), ("old\n", None), ("a\r\nb\r\n", "a\r\nc\r\n")])
def test_created_deleted_and_crlf_files_show_their_lines(before: str | None, after: str | None) -> None:
    file = gate_file(before, after)
    lines = showing.hunk_diffs(file)[file.hunks[0].hunk_id]
    assert any(line.startswith(("+", "-")) for line in lines)
    assert not any("U+000D" in line for line in lines)


def test_a_hunk_that_the_diff_does_not_show_is_shown_with_the_whole_diff() -> None:
    file = gate_file(BEFORE, BEFORE.replace("line 3\n", "secret\n"))
    redacted = GateFile(
        uri=file.uri, operation=file.operation, diff=file.diff.replace("secret", "[redacted]"), hunks=file.hunks
    )
    assert showing.hunk_diffs(redacted)[file.hunks[0].hunk_id] == redacted.diff.rstrip("\n").split("\n")


texts = st.lists(st.sampled_from(["a", "b", "c", "", "\t", "-", "+x", "\\ y", "@@ z", "\u202e"]), max_size=25).map(
    "\n".join
)


@given(texts, texts)
def test_every_changed_line_of_every_diff_is_shown_for_some_hunk(before: str, after: str) -> None:
    if before == after:
        return
    file = gate_file(before, after)
    shown = showing.hunk_diffs(file)
    assert set(shown) == {hunk.hunk_id for hunk in file.hunks}
    body = file.diff[file.diff.find("@@") :].split("\n") if "@@" in file.diff else []
    wanted = [line for line in body if line.startswith(("+", "-"))]
    seen = [line for hunk in file.hunks for line in shown[hunk.hunk_id] if line[:3] not in ("---", "+++")]
    assert all(line in seen or line[:3] in ("---", "+++") for line in wanted)


@given(st.text())
def test_the_terminal_hides_exactly_what_the_server_hides(text: str) -> None:
    assert showing.visible(text).replace("\r", "") == rendering.visible(text.replace("\r\n", "\n"))


@pytest.mark.parametrize("text", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "\u202eabc", "\u200b", "\x7f"])
def test_nothing_that_is_shown_moves_the_cursor_or_hides(text: str) -> None:
    shown = showing.visible(text)
    assert "‹U+" in shown
    assert all(character.isprintable() for character in shown)


def test_a_sentence_of_the_server_names_the_terminals_commands() -> None:
    for sentence, shown in (
        ("choose another, selfloop/model/list shows which.", "choose another, `selfloop model list` shows which."),
        ("set A in the environment, or give one with selfloop/model/setKey.", "set A in the environment."),
        ("give one with selfloop/model/setKey, or set A in the environment", "set A in the environment"),
        ("selfloop/gate/read shows which there are.", "`selfloop gate show` shows which there are."),
    ):
        assert showing.said(sentence) == shown
    report = "I read selfloop/gate/list.\nerror: maker failed: choose one with selfloop/model/select.\n"
    told = "I read selfloop/gate/list.\nerror: maker failed: choose one with `selfloop model select NAME`.\n"
    assert showing.report(report) == told, "an agent's words are its own"


def test_markup_of_rich_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    showing.console().print("[red]not red[/red] :smile: [link=x]y[/link]")
    assert capsys.readouterr().out == "[red]not red[/red] :smile: [link=x]y[/link]\n"


def test_rows_are_aligned_and_never_cut() -> None:
    wide = "x" * 300
    assert showing.rows([["a", wide], ["long", "b"]]) == f"a     {wide}\nlong  b"


def test_a_file_is_named_below_the_workspace() -> None:
    assert showing.name_of("file:///w/a%20b/c.py", "file:///w/a%20b") == "c.py"
    assert showing.name_of("file:///elsewhere/c.py", "file:///w") == "/elsewhere/c.py"
    assert showing.name_of("file:///w/%1B%5B2J", "file:///w") == "‹U+001B›[2J"
