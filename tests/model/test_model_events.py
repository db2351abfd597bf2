"""Bytes → chunks: split anywhere, framed in any way that servers frame, torn nowhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.errors import ProviderError
from selfloop.model.events import EventDecoder

pytestmark = pytest.mark.unit


def decode(*pieces: bytes) -> tuple[list[dict], EventDecoder]:
    decoder = EventDecoder()
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    return chunks + decoder.close(), decoder


@given(st.lists(st.text(), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_a_stream_may_be_split_at_any_byte(texts: list[str], newline: str, data: st.DataObject) -> None:
    body = "".join(f"data: {json.dumps({'t': text}, ensure_ascii=False)}{newline}{newline}" for text in texts)
    # A lone surrogate cannot be in a UTF-8 body.
    raw = body.encode("utf-8", "replace") + f"data: [DONE]{newline}".encode()
    expected = [{"t": text.encode("utf-8", "replace").decode()} for text in texts]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=20)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    chunks, decoder = decode(*pieces)
    assert chunks == expected and decoder.done


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_no_bytes_at_all_make_it_fail_otherwise_than_in_words(body: bytes, cuts: list[int]) -> None:
    cuts = sorted(min(cut, len(body)) for cut in cuts)
    try:
        decode(*(body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)))
    except ProviderError as error:
        assert error.kind == "stream"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'data: {"a":1}\ndata: {"a":2}\n', [{"a": 1}, {"a": 2}]),
        (b'data:{"a":1}\n\n', [{"a": 1}]),
        (b': keep-alive\n\n: keep-alive\n\ndata: {"a":1}\n\n', [{"a": 1}]),
        (b'\xef\xbb\xbfdata: {"a":1}\n\n', [{"a": 1}]),
        (b'id: 7\nevent: message\nretry: 5\ndata: {"a":1}\n\n', [{"a": 1}]),
        (b'data: {"a":\ndata: 1}\n\n', [{"a": 1}]),
        (b'{"a":1}\n{"a":2}\n', [{"a": 1}, {"a": 2}]),
        (b'{\n  "a": 1\n}\n', [{"a": 1}]),
        (b'event: error\ndata: {"message":"no"}\n\n', [{"error": {"message": "no"}}]),
        (b'data: null\n\ndata: "ping"\n\ndata: []\n\ndata: {"a":1}\n\n', [{"a": 1}]),
        (b'data: {"a":1}\n\ndata: [DONE]\n\ndata: {"a":2}\n\n', [{"a": 1}]),
        (b'data: {"a":1}', [{"a": 1}]),
        (b'data: {"a":"\xe2\x80\xa8x"}\n\n', [{"a": "\u2028x"}]),
    ],
)
def test_every_way_of_framing_is_understood(body: bytes, expected: list[dict]) -> None:
    assert decode(body)[0] == expected


def test_a_line_that_the_end_has_torn_is_no_chunk() -> None:
    chunks, decoder = decode(b'data: {"a":1}\n\ndata: {"a":')
    assert chunks == [{"a": 1}] and not decoder.done


def test_an_event_that_is_no_json_is_said_in_words() -> None:
    with pytest.raises(ProviderError, match="no JSON") as failed:
        decode(b"data: {broken\n\n")
    assert failed.value.kind == "stream"


def test_a_body_without_newlines_does_not_fill_the_memory() -> None:
    decoder = EventDecoder()
    decoder.feed(b"data: ")
    with pytest.raises(ProviderError, match="line without end"):
        for _ in range(40):
            decoder.feed(b"x" * 1_000_000)


def test_invalid_utf8_and_half_surrogates_do_not_lose_the_chunk() -> None:
    chunks, _ = decode(b'data: {"a":"x\xffy"}\n\ndata: {"a":"\\ud83d"}\n\n')
    assert chunks == [{"a": "x\ufffdy"}, {"a": "\ud83d"}]


def test_json_nested_beyond_all_measure_is_no_crash() -> None:
    with pytest.raises(ProviderError):
        decode(b"data: " + b"[" * 200_000 + b"\n\n")


def test_a_web_page_is_kept_to_be_shown() -> None:
    chunks, decoder = decode(b"<html>", b"<body>Bad gateway</body></html>")
    assert chunks == [] and decoder.text.startswith(b"<html>")
