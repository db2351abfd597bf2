"""The lineage as a picture: one SVG document that a page can show and a browser can open.

    ● 0  installed            time runs downwards; each self stands in the lane of the line it goes on,
    ├─● 1  rolled back        and a second child of the same parent begins a lane of its own
    ● 2  serves

Invariant: no script, link or outside part; every text of a model is escaped, without control or invisible characters,
and cut to one line. Colours come from the page's own variables where it has them, and are legible without.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Protocol

LANE, ROW, LEFT, TOP, RADIUS = 28, 46, 26, 30, 8
_SUMMARY_CHARS = 90
_WIDTH = 860
_COLOURS = {
    "active": ("--vscode-charts-yellow", "#b58900"),
    "settled": ("--vscode-charts-green", "#2e8b57"),
    "verified": ("--vscode-charts-blue", "#3572b0"),
    "rolled-back": ("--vscode-charts-red", "#c0392b"),
}
_WORDS = {
    "active": "serves, on probation",
    "settled": "passed its probation",
    "verified": "verified",
    "rolled-back": "rolled back",
}


class Drawn(Protocol):
    """What the picture needs of a generation."""

    @property
    def number(self) -> int:
        """Its number."""
        ...

    @property
    def parent(self) -> int | None:
        """The number of the one that it came of."""
        ...

    @property
    def state(self) -> str:
        """What became of it."""
        ...

    @property
    def summary(self) -> str:
        """What it changed."""
        ...

    @property
    def created_at(self) -> str:
        """ISO 8601, UTC."""
        ...


def draw(generations: Sequence[Drawn], active: int) -> str:
    """Return the lineage as an SVG document.

    Args:
        generations: all of them, parents before their children.
        active: the number of the one that serves.
    """
    lanes = _lanes(generations)
    rows = {one.number: TOP + index * ROW for index, one in enumerate(generations)}
    text_at = LEFT + (max(lanes.values(), default=0) + 1) * LANE
    height = TOP + len(generations) * ROW
    serving = next((one for one in generations if one.number == active), None)
    title = f"{len(generations)} generation{'s' * (len(generations) != 1)}; generation {active} serves"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="var(--vscode-font-family, system-ui, sans-serif)" font-size="13">',
        f"<title>{escape(title)}</title>",
    ]
    for one in generations:
        if one.parent in rows and one.parent is not None:
            parts.append(_branch(lanes[one.parent], rows[one.parent], lanes[one.number], rows[one.number]))
    for one in generations:
        x, y = LEFT + lanes[one.number] * LANE, rows[one.number]
        colour = _colour(one.state)
        inner = colour if one is serving else "var(--vscode-editor-background, #fff)"
        parts.append(f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="{inner}" stroke="{colour}" stroke-width="3"/>')
        word = "serves" if one is serving and one.state != "active" else _WORDS.get(one.state, one.state)
        weight = ' font-weight="bold"' if one is serving else ""
        parts.append(
            f'<text x="{text_at}" y="{y}" fill="var(--vscode-foreground, #333)"{weight}>'
            f"{one.number} · {escape(_one_line(one.summary))}</text>"
        )
        parts.append(
            f'<text x="{text_at}" y="{y + 16}" fill="var(--vscode-descriptionForeground, #666)" font-size="11">'
            f"{escape(_one_line(word))} · {escape(_one_line(one.created_at)[:16].replace('T', ' '))}</text>"
        )
    return "".join([*parts, "</svg>"])


def _lanes(generations: Sequence[Drawn]) -> dict[int, int]:
    """Return the lane of each generation: its parent's, unless an earlier child has that already."""
    lanes: dict[int, int] = {}
    gone_on: set[int] = set()
    for one in generations:
        if one.parent is None or one.parent not in lanes:
            lanes[one.number] = 0 if not lanes else max(lanes.values()) + 1
        elif one.parent in gone_on:
            lanes[one.number] = max(lanes.values()) + 1
        else:
            lanes[one.number] = lanes[one.parent]
            gone_on.add(one.parent)
    return lanes


def _branch(from_lane: int, from_y: int, to_lane: int, to_y: int) -> str:
    x1, x2 = LEFT + from_lane * LANE, LEFT + to_lane * LANE
    bend = f"C {x1} {to_y - ROW / 2:g} {x2} {to_y - ROW / 2:g}" if x1 != x2 else "L"
    up = f"L {x1} {to_y - ROW} " if x1 != x2 and to_y - from_y > ROW else ""
    return (
        f'<path d="M {x1} {from_y} {up}{bend} {x2} {to_y}" fill="none" '
        'stroke="var(--vscode-descriptionForeground, #888)" stroke-width="2"/>'
    )


def _colour(state: str) -> str:
    variable, plain = _COLOURS.get(state, ("--vscode-foreground", "#555"))
    return f"var({variable}, {plain})"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    kept = "".join(letter for letter in line if unicodedata.category(letter)[0] != "C")
    return kept if len(kept) <= _SUMMARY_CHARS else kept[: _SUMMARY_CHARS - 1] + "…"
