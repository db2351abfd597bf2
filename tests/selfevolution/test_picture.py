"""The picture of the lineage: a whole SVG document, whatever the texts say."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from attrs import frozen

from selfloop.evolution.picture import LANE, LEFT, draw

pytestmark = pytest.mark.unit
_SVG = "{http://www.w3.org/2000/svg}"


@frozen
class One:
    number: int
    parent: int | None = None
    state: str = "settled"
    summary: str = "Shorter answers."
    created_at: str = "2026-11-20T14:00:00Z"


def _circles(svg: str) -> list[tuple[int, int]]:
    root = ElementTree.fromstring(svg)  # noqa: S314 - it is our own
    return [(int(one.attrib["cx"]), int(one.attrib["cy"])) for one in root.iter(f"{_SVG}circle")]


def test_a_line_of_selves_stands_in_one_lane_and_a_second_child_begins_another() -> None:
    lineage = [One(0), One(1, 0), One(2, 1, "rolled-back"), One(3, 1), One(4, 3)]
    places = _circles(draw(lineage, 4))
    assert [(x - LEFT) // LANE for x, _ in places] == [0, 0, 0, 1, 1]
    assert [y for _, y in places] == sorted({y for _, y in places}), "one below the other"


def test_the_one_that_serves_is_told_from_the_others() -> None:
    svg = draw([One(0), One(1, 0, "active")], 1)
    assert "2 generations; generation 1 serves" in svg and "serves, on probation" in svg
    assert svg.count('font-weight="bold"') == 1


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><image href="x"/>', "a\x00b\x1b[31m\u202e", "x" * 5000]
)
def test_no_text_becomes_markup_or_breaks_the_document(text: str) -> None:
    svg = draw([One(0, summary=text)], 0)
    root = ElementTree.fromstring(svg)  # noqa: S314 - it is our own
    assert {one.tag.removeprefix(_SVG) for one in root.iter()} <= {"svg", "title", "circle", "text", "path"}
    assert all(len(one.text or "") < 120 for one in root.iter())
    assert "\u202e" not in svg


def test_an_empty_lineage_is_a_picture_too() -> None:
    assert _circles(draw([], 0)) == []
