"""Where an edit goes: to the one place that it means, or nowhere."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.agent.tools.edits import Edited, NotEdited, edit
from selfloop.agent.tools.syntax import breaks, fault_in

pytestmark = pytest.mark.unit

CODE = "class A:\n    def one(self):\n        return 1\n\n    def two(self):\n        return 2\n"


def done(result: Edited | NotEdited) -> Edited:
    assert isinstance(result, Edited), result
    return result


def refused(result: Edited | NotEdited) -> NotEdited:
    assert isinstance(result, NotEdited), result
    return result


def test_an_exact_match_is_replaced_and_its_line_told() -> None:
    result = done(edit(CODE, "        return 2\n", "        return 3\n"))
    assert result.text == CODE.replace("return 2", "return 3") and result.line == 6 and result.how == ""


def test_two_places_are_never_chosen_between() -> None:
    result = refused(edit("a = 1\nb = 2\na = 1\n", "a = 1\n", "a = 3\n"))
    assert "2 times" in result.reason and "lines 1, 3" in result.reason and "nothing was changed" in result.reason


def test_two_places_that_match_by_indentation_are_never_chosen_between() -> None:
    text = "if x:\n    a = 1\n    b = 2\nif y:\n    a = 1\n    b = 2\n"
    assert "2 times" in refused(edit(text, "  a = 1\n  b = 2\n", "  a = 3\n")).reason


def test_uniform_indentation_is_forgiven_and_the_new_text_follows_it() -> None:
    result = done(edit(CODE, "def two(self):\n    return 2\n", "def two(self):\n    x = 2\n\n    return x\n"))
    assert result.text == CODE.replace(
        "    def two(self):\n        return 2\n", "    def two(self):\n        x = 2\n\n        return x\n"
    )
    assert "indentation" in result.how


def test_indentation_that_is_too_deep_is_taken_away_from_the_new_text() -> None:
    result = done(edit("a = 1\nb = 2\n", "    a = 1\n    b = 2\n", "    a = 1\n    if a:\n        b = 3\n"))
    assert result.text == "a = 1\nif a:\n    b = 3\n"


def test_indentation_that_differs_from_line_to_line_is_not_forgiven() -> None:
    refused(edit(CODE, "def two(self):\n  return 2\n", "def two(self):\n  return 3\n"))


def test_crlf_is_kept_when_the_model_sends_line_feeds() -> None:
    result = done(edit("a\r\nb\r\nc\r\n", "a\nb\n", "a\nx\nb\n"))
    assert result.text == "a\r\nx\r\nb\r\nc\r\n"


def test_crlf_is_kept_where_the_indentation_is_forgiven() -> None:
    result = done(edit("if x:\r\n    a = 1\r\n    b = 2\r\n", "a = 1\nb = 2\n", "a = 2\nb = 3\n"))
    assert result.text == "if x:\r\n    a = 2\r\n    b = 3\r\n"


def test_lines_can_be_deleted_by_a_forgiven_match() -> None:
    assert done(edit("if x:\n    a = 1\n    b = 2\n    c = 3\n", "  a = 1\n  b = 2\n", "")).text == "if x:\n    c = 3\n"


def test_a_text_that_is_already_there_is_said() -> None:
    result = refused(edit("x = 1\ny = 3\n", "y = 2", "y = 3"))
    assert "already there, in line 2" in result.reason


def test_a_failed_match_shows_the_nearest_real_lines() -> None:
    result = refused(edit(CODE, "    def two(this):\n        return 2\n", "…"))
    assert result.line == 5 and result.nearest.startswith("    def two(self):\n        return 2")
    assert "nothing was changed" in result.reason


def test_a_text_that_comes_near_to_nothing_shows_nothing() -> None:
    assert refused(edit("alpha\nbeta\n", "0123456789()[]{}", "x")).nearest == ""


def test_a_match_of_the_last_line_without_a_line_feed_is_forgiven() -> None:
    assert done(edit("a\nb", "b\n", "c\n")).text == "a\nc"


def test_a_long_file_is_searched_in_a_moment() -> None:
    text = "".join(f"    value_{n} = compute({n})\n" for n in range(20_000))
    started = time.perf_counter()
    result = refused(edit(text, "    value_15000 = computed(15000)\n    value_15001 = compute(15001)\n", "x"))
    assert result.line == 15_001 and time.perf_counter() - started < 3


@given(
    st.text(alphabet="ab \n\r\t", max_size=40),
    st.text(alphabet="ab \n\r\t", min_size=1, max_size=12),
    st.text(max_size=8),
)
def test_an_edit_changes_one_place_or_nothing(text: str, old: str, new: str) -> None:
    result = edit(text, old, new)
    if isinstance(result, Edited) and text.count(old) == 1:
        # In a file of CRLF lines, new lines end with CRLF too, unless the model speaks of line ends itself.
        follows = "\r" not in new + old and 0 < text.count("\n") == text.count("\r\n")
        assert result.text == text.replace(old, new.replace("\n", "\r\n") if follows else new)
    if isinstance(result, Edited) and not result.how and old in text:
        assert text.count(old) == 1


@pytest.mark.parametrize(
    ("path", "before", "after", "broken"),
    [
        ("a.py", "x = 1\n", "x = (\n", True),
        ("a.py", "x = (\n", "x = ((\n", False),
        ("a.json", '{"a": 1}', '{"a": 1,}', True),
        ("a.json", "// comment\n{}", "// other\n{", False),
        ("a.txt", "x", "(", False),
        ("a.py", "x = 1\n", "x = '\\d'\n", False),
        ("a.py", "x = 1\n", "x = '\0'\n", True),
    ],
)
def test_only_a_whole_file_can_be_broken(path: str, before: str, after: str, broken: bool) -> None:
    assert (breaks(path, before, after) is not None) == broken


def test_deeply_nested_text_is_no_fault_of_ours() -> None:
    fault_in("a.json", "[" * 100_000)
    assert fault_in("a.py", "(" * 100_000) is not None
