"""The form of a chat file: whatever the user and the model write, each other's words are never taken for one's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.lsp import chat_text
from selfloop.lsp.chat_answer import AnswerText
from selfloop.updates import (
    MessageChunk,
    MessageUpdate,
    Notice,
    State,
    ToolCallUpdate,
    Update,
    UpdateEnvelope,
)

pytestmark = pytest.mark.unit

TURN = "turn-0123456789abcdef"
PIECES = st.sampled_from(
    [
        "<!--",
        " selfloop:",
        "<",
        "!-- self",
        "loop: end ",
        TURN,
        " -->",
        "\n",
        "\r",
        "\r\n",
        " ",
        "a",
        "🙂",
        "\x1b[0m",
        "> ",
    ]
)
MODEL_TEXT = st.lists(PIECES, max_size=25)


def answer(*updates: Update) -> AnswerText:
    """Return the answer of one whole turn."""
    text = AnswerText(TURN, 0)
    for seq, update in enumerate(stream(*updates), start=1):
        text.take(UpdateEnvelope(seq=seq, at="", update=update, session_id="s"))
    return text


def stream(*updates: Update) -> list[Update]:
    """Return the updates of one whole turn."""
    end = State(state="idle", stop_reason="end_turn", turn_id=TURN)
    return [State(state="running", turn_id=TURN), *updates, end]


def written(pieces: list[str], chunked: bool) -> list[Update]:
    """Return the updates of one message."""
    chunks = [MessageChunk(message_id="m", text=piece) for piece in pieces if piece]
    return [*(chunks if chunked else ()), MessageUpdate(message_id="m", role="assistant", text="".join(pieces))]


@given(MODEL_TEXT, st.booleans())
def test_no_text_of_a_model_contains_a_mark(pieces: list[str], chunked: bool) -> None:
    title = "".join(pieces)
    call = ToolCallUpdate(tool_call_id="c", title=title, kind="read", status="running", locations=[])
    text = answer(*written(pieces, chunked), call, Notice(severity="info", text=title)).since(0)
    assert chat_text.OPENING not in text
    assert "\x1b" not in text and "\r" not in text


@given(MODEL_TEXT)
def test_a_message_reads_the_same_whether_it_was_streamed_or_came_whole(pieces: list[str]) -> None:
    if "".join(pieces).strip():
        assert answer(*written(pieces, True)).since(0).split() == answer(*written(pieces, False)).since(0).split()


@given(MODEL_TEXT, st.integers(1, 30))
def test_an_answer_is_gone_on_with_from_any_update(pieces: list[str], at: int) -> None:
    """What a killed worker had written, and what its successor adds, is the whole answer."""
    updates = stream(*written(pieces, True))
    first = AnswerText(TURN, 0)
    for seq, update in enumerate(updates[:at], start=1):
        first.take(UpdateEnvelope(seq=seq, at="", update=update))
    whole = answer(*written(pieces, True))
    assert first.since(0) + whole.since(first.seq) == whole.since(0)


@given(MODEL_TEXT, st.text(max_size=30), st.text(max_size=30))
def test_the_users_next_words_are_those_below_the_answer(pieces: list[str], before: str, below: str) -> None:
    before, below = (part.replace("<", "(") for part in (before, below))
    body = chat_text.HEAD + before
    words = chat_text.waiting(body)
    if words is None:
        assert not before.strip()
        return
    assert words.text == before.strip() and body[words.start : words.end] == words.text
    body = chat_text.apply(body, [chat_text.place(body, TURN, words.text, 0)])
    assert chat_text.waiting(body) is None
    body += below
    text = answer(*written(pieces, True))
    edit = chat_text.grow(body, TURN, text.since(0), text.seq, last=True)
    assert edit is not None
    body = chat_text.apply(body, [edit])
    assert chat_text.ended(body, TURN) and chat_text.position(body, TURN) is None
    rest = chat_text.waiting(body)
    assert (rest.text if rest is not None else "") == below.strip()


@given(st.text(alphabet=st.sampled_from("a🙂é\r\n\u2028"), max_size=30), st.integers(0, 30))
def test_positions_and_offsets_are_each_others_reverse(text: str, offset: int) -> None:
    offset = min(offset, len(text))
    if text[offset - 1 : offset + 1] != "\r\n":
        assert chat_text.offset_of(text, *chat_text.position_of(text, offset)) == offset


@pytest.mark.parametrize(
    ("head", "bound"),
    [
        ("# Mine\n<!-- selfloop: new chat -->\nHi", "# Mine\n<!-- selfloop: session s-1 -->\nHi"),
        ("<!-- selfloop: session s-0 -->\nHi", "<!-- selfloop: session s-1 -->\nHi"),
        ("Hi", "<!-- selfloop: session s-1 -->\n\nHi"),
        ("Hi\r\n", "<!-- selfloop: session s-1 -->\r\n\r\nHi\r\n"),
    ],
)
def test_a_file_is_bound_to_its_session(head: str, bound: str) -> None:
    edit: Any = chat_text.bind(head, "s-1")
    assert chat_text.apply(head, [edit]) == bound
    assert chat_text.session_of(bound) == "s-1" and chat_text.bind(bound, "s-1") is None


def test_the_end_of_a_turn_is_said() -> None:
    cut = AnswerText(TURN, 0)
    updates = [
        State(state="running", turn_id=TURN),
        MessageChunk(message_id="m", text="Half"),
        MessageUpdate(message_id="m", role="assistant", text="Half a word", status="interrupted"),
        ToolCallUpdate(tool_call_id="c", title="Run make", kind="execute", status="running", locations=[]),
        ToolCallUpdate(tool_call_id="c", title="Run make", kind="execute", status="failed", locations=[]),
        Notice(severity="error", text="The provider is gone."),
        State(state="idle", stop_reason="cancelled", turn_id=TURN),
        MessageUpdate(message_id="n", role="assistant", text="of another turn"),
    ]
    for seq, update in enumerate(updates, start=5):
        cut.take(UpdateEnvelope(seq=seq, at="", update=update))
    assert cut.since(0) == (
        "\n\nHalf a word\n\n> Interrupted here.\n> Run make\n> failed: Run make\n> Error: The provider is gone."
        "\n> Stopped."
    )
    assert cut.ended
