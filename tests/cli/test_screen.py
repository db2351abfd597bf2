"""What a chat prints: whole blocks as they end, tool calls as they end, nothing twice and nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.cli.screen import LiveScreen, Screen, split_blocks
from selfloop.updates import Location, MessageUpdate, ToolCallUpdate

pytestmark = pytest.mark.unit

Captured = pytest.CaptureFixture[str]

markdown = st.lists(
    st.sampled_from(["text", "", "", "```", "```py", "~~~", "- item", "  more", "1. one", "# head", "    code"])
).map(lambda lines: "\n".join(lines) + "\n")


@given(markdown)
def test_splitting_loses_nothing(text: str) -> None:
    done, rest = split_blocks(text)
    assert done + rest == text


@given(markdown, st.integers(1, 7))
def test_the_blocks_do_not_depend_on_the_pieces(text: str, size: int) -> None:
    tail, done = "", ""
    for at in range(0, len(text), size):
        whole, tail = split_blocks(tail + text[at : at + size])
        done += whole
    assert (done, tail) == split_blocks(text)


def test_a_code_fence_is_never_cut() -> None:
    assert split_blocks("Look:\n\n```py\na = 1\n\nb = 2\n") == ("Look:\n\n", "```py\na = 1\n\nb = 2\n")
    assert split_blocks("```\na\n\nb\n```\n\nnext") == ("```\na\n\nb\n```\n\n", "next")


def test_a_list_item_keeps_what_is_indented_below_it() -> None:
    assert split_blocks("- one\n\n  more of one\n") == ("", "- one\n\n  more of one\n")


def test_a_plain_screen_streams_an_answer_and_does_not_repeat_it(capsys: Captured) -> None:
    screen = Screen()
    for piece in ("Hel", "lo\x1b", "[2J there"):
        screen.chunk("m1", piece)
    screen.message(MessageUpdate(message_id="m1", role="assistant", text="Hello\x1b[2J there"))
    screen.message(MessageUpdate(message_id="m2", role="assistant", text="Not streamed."))
    assert capsys.readouterr().out == "Hello‹U+001B›[2J there\nNot streamed.\n"


def test_an_interrupted_answer_says_so(capsys: Captured) -> None:
    screen = Screen()
    screen.chunk("m1", "Half of")
    screen.message(MessageUpdate(message_id="m1", role="assistant", text="Half of", status="interrupted"))
    assert capsys.readouterr().out == "Half of\n(interrupted)\n"


def tool(status: str, output: str | None = None) -> ToolCallUpdate:
    return ToolCallUpdate(
        tool_call_id="t1",
        title="Read a.py",
        kind="read",
        status=status,  # type: ignore[arg-type]
        locations=[Location(uri="file:///w/a.py")],
        output=output,
    )


def test_a_tool_call_is_one_line_when_it_ends(capsys: Captured) -> None:
    screen = Screen()
    screen.chunk("m1", "I read.")
    for status in ("pending", "running", "completed"):
        screen.tool(tool(status, "many\nlines"))
    screen.tool(tool("failed", "There is no a.py.\nMore."))
    assert capsys.readouterr().out == "I read.\n✓ Read a.py\n✗ Read a.py: There is no a.py.\n"


def test_a_live_screen_holds_what_is_unfinished(capsys: Captured) -> None:
    screen = LiveScreen()
    screen.turn_started()
    screen.chunk("m1", "First.\n\nSec")
    screen.tool(tool("running"))
    assert capsys.readouterr().out.strip() == "First."
    assert "Sec" in screen.live() and "Read a.py" in screen.live() and "Ctrl-C" in screen.live()
    screen.chunk("m1", "ond.")
    screen.message(MessageUpdate(message_id="m1", role="assistant", text="First.\n\nSecond."))
    screen.tool(tool("completed"))
    screen.turn_ended()
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()] == [
        "Second.",
        "✓ Read a.py",
    ]
    assert screen.live() == ""


def test_a_link_shows_where_it_leads(capsys: Captured) -> None:
    screen = LiveScreen()
    screen.message(MessageUpdate(message_id="m", role="assistant", text="[harmless](https://other.example/x)"))
    assert "https://other.example/x" in capsys.readouterr().out
