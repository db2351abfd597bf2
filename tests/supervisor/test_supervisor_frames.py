"""The framer finds every well-formed frame, whatever stands between."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfloop.supervisor.frames import HEADER_BYTES, Fault, Framer, Message, frame

pytestmark = pytest.mark.unit

LIMIT = 1024 * 1024


def message(number, text="x"):
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": text}, ensure_ascii=False).encode()


def read(data, sizes=(1 << 20,)):
    """Feed `data` in pieces of the given sizes; return the ids of what was found, and a code for each fault."""
    framer = Framer(LIMIT)
    found = []
    position = 0
    while position < len(data):
        for size in sizes:
            found += framer.feed(data[position : position + size])
            position += size
    return [item.code if isinstance(item, Fault) else item.value["id"] for item in found]


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: %d\r\n\r\n",
        b"content-length: %d\r\n\r\n",
        b"CONTENT-LENGTH:%d\r\n\r\n",
        b"Content-Length : %d \r\n\r\n",
        b"Content-Length: %d\n\n",
        b"Content-Length: %d\n\r\n",
        b"Content-Length: 000%d\r\n\r\n",
        b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: %d\r\n\r\n",
        b"content-length: %d\r\nX-Other: 1\r\n\r\n",
        b"\r\n\r\nContent-Length: %d\r\n\r\n",
    ],
)
@pytest.mark.parametrize("sizes", [(1,), (7,), (1 << 20,)])
def test_every_way_to_write_a_header_is_read(head, sizes):
    body = message(1, "ü€😀")
    assert read((head % len(body) + body) * 3, sizes) == [1, 1, 1]


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=6), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_frames_may_be_split_at_any_byte(texts, sizes):
    bodies = [message(number, text) for number, text in enumerate(texts)]
    assert read(b"".join(map(frame, bodies)), sizes) == list(range(len(texts)))


GOOD = frame(message(7)) + frame(message(8))


@pytest.mark.parametrize("sizes", [(1,), (13,), (1 << 20,)])
@pytest.mark.parametrize(
    ("broken", "codes"),
    [
        (b"garbage\r\n\r\n", [-32700]),
        (b"garbage", [-32700]),
        (b"garbage\n" * 3, [-32700]),
        (b"{}" * HEADER_BYTES, [-32700]),
        (b"Content-Length: abc\r\n\r\n" + message(1), [-32700]),
        (b"Content-Length: -5\r\n\r\n" + message(1), [-32700]),
        (b"Content-Length: 1_0\r\n\r\n" + message(1), [-32700]),
        (b"Content-Length:\r\n\r\n" + message(1), [-32700]),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + message(1), [-32700]),
        (b"Content-Type: x\r\n\r\n" + message(1), [-32700]),
        (b"Content-Length: 1000000000000\r\n\r\n" + message(1), [-32600]),
        (b"Content-Length: %s\r\n\r\n" % (b"9" * 400), [-32600]),
        (b"Content-Length: 0\r\n\r\n", [-32700]),
        (frame(b"{]"), [-32700]),
        (frame(b"{}{}"), [-32700]),
        (frame(b'{"a": NaN}'), [-32700]),
        (frame(b'"\xff"'), [-32700]),
        (frame(b"[" * 100_000), [-32700]),
        (frame(b'{"id": %s}' % (b"9" * 10_000)), [-32700]),
        (frame(message(1).decode().encode("utf-16")), [-32700]),
        (frame(b"{]") + frame(b"{]"), [-32700, -32700]),
        (frame(b"{]") + b"Content-Length: 1000000000000\r\n\r\n", [-32700, -32600]),
    ],
)
def test_what_is_broken_costs_one_error_and_the_next_frames_are_found(broken, codes, sizes):
    assert read(broken + GOOD, sizes) == [*codes, 7, 8]
    assert read(GOOD + broken + GOOD, sizes) == [7, 8, *codes, 7, 8]


@pytest.mark.parametrize("wrong", [-40, -10, -1, 1, 2, 9, 14, 15, 20, 40, 60])
@pytest.mark.parametrize("sizes", [(1,), (13,), (1 << 20,)])
def test_after_a_wrong_length_the_next_frames_are_found(wrong, sizes):
    body = message(1)
    broken = b"Content-Length: %d\r\n\r\n" % (len(body) + wrong) + body
    good = b"".join(frame(message(number)) for number in range(10, 20))
    assert read(broken + good, sizes) == [-32700, *range(10, 20)]


def test_a_doubled_length_swallows_no_more_than_its_own_message():
    body = message(1)
    broken = b"Content-Length: %d\r\n\r\n" % (2 * len(body)) + body
    assert read(broken + frame(message(2)) + frame(message(3))) == [-32700, 2, 3]


@pytest.mark.parametrize("size", [100, 1 << 16, 1 << 20])
def test_a_message_above_the_limit_is_skipped_whatever_it_holds(size):
    inner = frame(message(666)).decode()
    body = json.dumps({"id": 1, "text": inner + "x" * LIMIT + inner}).encode()
    framer = Framer(LIMIT)
    found = []
    data = frame(body) + frame(message(2))
    for start in range(0, len(data), size):
        found += framer.feed(data[start : start + size])
        assert len(framer._buffer) <= LIMIT
    assert [getattr(item, "code", None) for item in found] == [-32600, None]
    assert found[1].value["id"] == 2


def test_a_text_inside_a_message_cannot_forge_a_frame():
    forged = frame(message(666))
    # With raw line ends it is no JSON, but its length fits, so it is not searched.
    assert read(frame(b'{"text": "' + forged + b'"}') + GOOD) == [-32700, 7, 8]
    assert read(frame(json.dumps({"id": 1, "text": forged.decode()}).encode()) + GOOD) == [1, 7, 8]


def test_window_and_key_are_read_and_bodies_pass_unchanged():
    body = b' {"id" : 1}\n'
    for data in (frame(body, 12, "a-1.b"), b"selfloop-key: a-1.b\nselfloop-window: 12\n" + frame(body)):
        [found] = Framer(LIMIT).feed(data)
        assert isinstance(found, Message)
        assert (found.body, found.window, found.key) == (body, 12, "a-1.b")
    [found] = Framer(LIMIT).feed(b"Selfloop-Key: a b\r\n" + frame(body))
    assert found.key is None


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_no_bytes_stop_the_framer(noise, sizes):
    # Two frames, for the noise may end in a header that takes the first one with it.
    assert read(noise + b"\n" + frame(message(1)) + frame(message(2)), sizes)[-1] == 2
