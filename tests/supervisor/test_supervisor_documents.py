"""The journal of open documents keeps up with every change, as LSP counts positions."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfloop.supervisor.documents import Documents

pytestmark = pytest.mark.unit

URI = "file:///a.py"
TEXTS = st.text(alphabet="ab\r\n\u2028\x0b\x85é😀\ud800", max_size=12)


def opened(text):
    documents = Documents()
    documents.opened({"textDocument": {"uri": URI, "languageId": "python", "version": 1, "text": text}})
    return documents


def text(documents):
    [item] = documents.items()
    return item["text"]


def offset(text, line, character):
    """The plainest way: walk over the text, unit by unit."""
    index = 0
    while line and index < len(text):
        if text[index] == "\n" or (text[index] == "\r" and text[index + 1 : index + 2] != "\n"):
            line -= 1
        index += 1
    if line:
        return len(text)
    units = 0
    while index < len(text) and text[index] not in "\r\n" and units < character:
        units += 2 if ord(text[index]) > 0xFFFF else 1
        index += 1
    return index


@st.composite
def changes(draw):
    kind = draw(st.sampled_from(["whole", "edit", "edit", "edit", "edit"]))
    if kind == "whole":
        return {"text": draw(TEXTS)}
    places = [{"line": draw(st.integers(0, 6)), "character": draw(st.integers(0, 6))} for _ in range(2)]
    return {"range": {"start": places[0], "end": places[1]}, "text": draw(TEXTS)}


@settings(deadline=None)
@given(TEXTS, st.lists(st.lists(changes(), min_size=1, max_size=3), max_size=8))
def test_changes_have_the_effect_that_lsp_describes(start, batches):
    documents, expected = opened(start), start
    for version, batch in enumerate(batches, 2):
        for change in batch:
            if "range" not in change:
                expected = change["text"]
                continue
            ends = sorted((place["line"], place["character"]) for place in change["range"].values())
            first, last = (offset(expected, *place) for place in ends)
            expected = expected[:first] + change["text"] + expected[last:]
        params = {"textDocument": {"uri": URI, "version": version}, "contentChanges": batch}
        assert documents.changed(json.loads(json.dumps(params))) == URI
        if version % 2:
            assert text(documents) == expected
    assert text(documents) == expected


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {},
        {"textDocument": {"uri": URI}},
        {"textDocument": {"uri": ["x"]}, "contentChanges": []},
        {"textDocument": {"uri": "file:///other"}, "contentChanges": []},
        {"textDocument": {"uri": URI}, "contentChanges": [{"text": "lost"}, {"text": 5}]},
        {"textDocument": {"uri": URI}, "contentChanges": [{"text": "lost"}, 5]},
        {"textDocument": {"uri": URI}, "contentChanges": [{"text": "lost", "range": {}}]},
        {
            "textDocument": {"uri": URI},
            "contentChanges": [
                {"text": "lost"},
                {"text": "", "range": {"start": {"line": -1, "character": 0}, "end": {"line": 0, "character": 0}}},
            ],
        },
        {
            "textDocument": {"uri": URI},
            "contentChanges": [
                {"text": "", "range": {"start": {"line": 0, "character": True}, "end": {"line": 0, "character": 0}}}
            ],
        },
    ],
)
def test_a_malformed_change_changes_nothing(bad):
    documents = opened("kept")
    assert documents.changed(bad) is None
    documents.closed(bad if bad is None else {"textDocument": []})
    documents.opened(bad)
    assert text(documents) == "kept"


def test_a_closed_document_is_forgotten_and_one_opened_twice_is_replaced():
    documents = opened("one")
    documents.opened({"textDocument": {"uri": URI, "languageId": "c", "version": 9, "text": "two"}})
    assert list(documents.items()) == [{"uri": URI, "languageId": "c", "version": 9, "text": "two"}]
    documents.changed({"textDocument": {"uri": URI, "version": 10}, "contentChanges": [{"text": "three"}]})
    assert documents.whole(URI) == {
        "textDocument": {"uri": URI, "version": 10},
        "contentChanges": [{"text": "three"}],
    }
    documents.closed({"textDocument": {"uri": URI}})
    assert list(documents.items()) == []
