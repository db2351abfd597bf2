"""Chunks → one answer, with every quirk of the servers that send them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.messages import Usage
from selfloop.model.assembly import Assembly, read_usage

pytestmark = pytest.mark.unit


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def part(arguments: Any = None, *, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function: dict[str, Any] = {}
    if name is not None:
        function["name"] = name
    if arguments is not None:
        function["arguments"] = arguments
    return {**fields, "function": function}


def assemble(*deltas: dict[str, Any], taken: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    answer = Assembly()
    for chunk in deltas:
        answer.feed(chunk)
    calls = answer.tool_calls(taken)
    assert len({call.id for call in calls} | set(taken)) == len(calls) + len(taken)
    assert all(call.id for call in calls)
    return [(call.name, call.arguments) for call in calls]


A, B = '{"path":"a"}', '{"path":"b","n":{"x":[1]}}'
TWO = [("read", A), ("list", B)]

QUIRKS = {
    "one delta a call": [
        delta(tool_calls=[part(A, name="read", index=0, id="1"), part(B, name="list", index=1, id="2")])
    ],
    "interleaved by index": [
        delta(tool_calls=[part("", name="read", index=0, id="1")]),
        delta(tool_calls=[part("", name="list", index=1, id="2")]),
        delta(tool_calls=[part(A[:5], index=0), part(B[:3], index=1)]),
        delta(tool_calls=[part(B[3:], index=1), part(A[5:], index=0)]),
    ],
    "ids missing": [
        delta(tool_calls=[part(A[:5], name="read", index=0)]),
        delta(tool_calls=[part(A[5:], index=0)]),
        delta(tool_calls=[part(B, name="list", index=1)]),
    ],
    "ids doubled": [delta(tool_calls=[part(A, name="read", index=0, id="1"), part(B, name="list", index=1, id="1")])],
    "ids doubled, no index": [
        delta(tool_calls=[part(A, name="read", id="1")]),
        delta(tool_calls=[part(B, name="list", id="1")]),
    ],
    "index missing, ids only": [
        delta(tool_calls=[part(A[:5], name="read", id="1")]),
        delta(tool_calls=[part(A[5:], id="1")]),
        delta(tool_calls=[part("", name="list", id="2")]),
        delta(tool_calls=[part(B, id="2")]),
    ],
    "index missing, id only in the first delta": [
        delta(tool_calls=[part(A[:5], name="read", id="1")]),
        delta(tool_calls=[part(A[5:])]),
        delta(tool_calls=[part(B[:5], name="list", id="2")]),
        delta(tool_calls=[part(B[5:])]),
    ],
    "neither index nor id": [delta(tool_calls=[part(A, name="read"), part(B, name="list")])],
    "neither, in pieces": [
        delta(tool_calls=[part(A[:4], name="read")]),
        delta(tool_calls=[part(A[4:])]),
        delta(tool_calls=[part(B[:4], name="list")]),
        delta(tool_calls=[part(B[4:])]),
    ],
    "every call numbered 0, with ids": [
        delta(tool_calls=[part(A, name="read", index=0, id="1")]),
        delta(tool_calls=[part(B, name="list", index=0, id="2")]),
    ],
    "every call numbered 0, without ids": [
        delta(tool_calls=[part(A, name="read", index=0)]),
        delta(tool_calls=[part(B, name="list", index=0)]),
    ],
    "the name with every piece": [
        delta(tool_calls=[part(A[:5], name="read", index=0, id="1")]),
        delta(tool_calls=[part(A[5:], name="read", index=0, id="1")]),
        delta(tool_calls=[part(B[:5], name="list", index=1, id="2")]),
        delta(tool_calls=[part(B[5:], name="list", index=1, id="2")]),
    ],
    "a new id with every piece": [
        delta(tool_calls=[part(A[:5], name="read", index=0, id="1")]),
        delta(tool_calls=[part(A[5:], name="read", index=0, id="x")]),
        delta(tool_calls=[part(B[:5], name="list", index=1, id="y")]),
        delta(tool_calls=[part(B[5:], index=1, id="z")]),
    ],
    "the name in pieces": [
        delta(tool_calls=[part("", name="re", index=0, id="1")]),
        delta(tool_calls=[part("", name="ad", index=0)]),
        delta(tool_calls=[part(A, index=0)]),
        delta(tool_calls=[part(B, name="list", index=1)]),
    ],
    "arguments as an object": [
        delta(tool_calls=[part(json.loads(A), name="read", index=0), part(json.loads(B), name="list", index=1)])
    ],
    "index as text": [
        delta(tool_calls=[part(A, name="read", index="0")]),
        delta(tool_calls=[part(B, name="list", index="1")]),
    ],
    "nulls everywhere": [
        delta(role=None, content=None, tool_calls=None),
        delta(tool_calls=[part(None, name="read", index=0, id=None, type=None)]),
        delta(tool_calls=[{"index": 0, "id": None, "function": {"name": None, "arguments": A}}]),
        delta(tool_calls=[None, part(B, name="list", index=1)]),
        {"choices": None},
        {},
    ],
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_two_calls_come_out_whole_and_apart(quirk: str) -> None:
    calls = [(name, json.loads(arguments)) for name, arguments in assemble(*QUIRKS[quirk])]
    assert calls == [(name, json.loads(arguments)) for name, arguments in TWO]


def test_the_old_single_function_call_is_a_call() -> None:
    chunks = [delta(function_call={"name": "read", "arguments": A[:3]}), delta(function_call={"arguments": A[3:]})]
    assert assemble(*chunks) == [("read", A)]


def test_calls_without_arguments_are_kept_apart_and_mean_an_empty_object() -> None:
    assert assemble(delta(tool_calls=[part(name="a", id="1"), part(name="b", id="2")])) == [("a", "{}"), ("b", "{}")]
    assert assemble(delta(tool_calls=[part(name="a"), part(name="b")])) == [("a", "{}"), ("b", "{}")]
    assert assemble(delta(tool_calls=[part("", name="a", index=0)]), delta(tool_calls=[part("", index=0)])) == [
        ("a", "{}")
    ]


def test_an_id_that_the_conversation_already_has_is_replaced() -> None:
    assert assemble(delta(tool_calls=[part(A, name="read", index=0, id="call_0")]), taken=("call_0",)) == [("read", A)]


def test_a_call_without_a_name_still_is_a_call() -> None:
    assert assemble(delta(tool_calls=[part(A, index=0)])) == [("unnamed", A)]


@given(st.text(min_size=1), st.lists(st.integers(0, 200), max_size=8))
def test_arguments_may_be_cut_between_any_two_characters(text: str, cuts: list[int]) -> None:
    arguments = json.dumps({"content": text}, ensure_ascii=False)
    bounds = sorted({0, len(arguments), *(min(cut, len(arguments)) for cut in cuts)})
    pieces = [arguments[a:b] for a, b in itertools.pairwise(bounds)]
    chunks = [delta(tool_calls=[part("", name="write", index=0, id="1")])]
    chunks += [delta(tool_calls=[part(piece, index=0)]) for piece in pieces]
    expected = json.dumps({"content": text}, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
    assert assemble(*chunks) == [("write", expected.decode("utf-16-le", "replace"))]


@given(st.text(alphabet="aé漢😀\U0001f1e9", min_size=1), st.data())
def test_text_may_be_cut_inside_a_surrogate_pair(text: str, data: st.DataObject) -> None:
    units = [text.encode("utf-16-le")[at : at + 2] for at in range(0, 2 * len(text.encode("utf-16-le")) // 2, 2)]
    halves = [unit.decode("utf-16-le", "surrogatepass") for unit in units]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(halves)), max_size=6)))
    answer, shown = Assembly(), ""
    for a, b in zip([0, *cuts], [*cuts, len(halves)], strict=True):
        piece, _ = answer.feed(delta(content="".join(halves[a:b])))
        piece.encode()
        shown += piece
    shown += answer.tail()
    assert shown == answer.text == text


def test_thoughts_come_by_each_of_their_names() -> None:
    answer = Assembly()
    assert answer.feed(delta(reasoning_content="a")) == ("", "a")
    assert answer.feed(delta(reasoning="b", content=None)) == ("", "b")
    assert answer.feed(delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "c"}]}])) == ("", "c")
    assert answer.feed(delta(content=[{"type": "text", "text": "d"}])) == ("d", "")
    assert answer.text == "d"


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": 7, "completion_tokens": 3}, Usage(7, 0, 3)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}, Usage(7, 5, 3)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}, Usage(7, 0, 3)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_cache_hit_tokens": 6}, Usage(7, 6, 3)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "cost": 0.25}, Usage(7, 0, 3, 0.25)),
        ({"input_tokens": 7.0, "output_tokens": 3}, Usage(7, 0, 3)),
        ({"prompt_tokens": "many", "completion_tokens": -4}, None),
        ({"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 99}}, Usage(7, 7, 3)),
        ("lots", None),
    ],
)
def test_usage_is_read_in_each_of_its_forms(wire: Any, usage: Usage | None) -> None:
    assert read_usage(wire) == usage


FIELDS = (
    "choices delta message content tool_calls function index id name arguments usage finish_reason text reasoning"
).split()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS), inner),
        max_leaves=30,
    )
)
def test_no_chunk_of_any_shape_makes_it_fail(value: Any) -> None:
    answer = Assembly()
    for chunk in ({"choices": [{"delta": value}]}, {"choices": value}, value, {"choices": [value], "usage": value}):
        if isinstance(chunk, dict):
            answer.feed(chunk)
    for call in answer.tool_calls(()):
        call.arguments.encode()
    answer.text.encode()
