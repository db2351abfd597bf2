"""Two versions of a file become hunks.

Equal ends are trimmed, lines that occur once on both sides split the rest (the patience diff), and what lies between is
compared by Myers' greedy algorithm up to a fixed number of differences; beyond it, that stretch is one hunk.

Invariant: applying all hunks to the pre-image gives the post-image, byte for byte, and the time is bounded however
unlike the two versions are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from attrs import frozen

from selfloop.changes.values import SYMLINK, FileChange, Hunk, HunkKind, Mode, decode_text, seal, split_lines

_MOST_DIFFERENCES = 256
"""What Myers' algorithm looks for in one stretch: its time grows with the square."""
_MOST_LEVELS = 16
"""How often a stretch is split by unique lines."""


@frozen
class Block:
    """Lines [old_start, old_end) became lines [new_start, new_end); at least one of them is not empty."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


def file_change(
    path: str,
    *,
    pre: bytes | None,
    post: bytes | None,
    pre_mode: Mode | None,
    post_mode: Mode | None,
    old_path: str | None = None,
) -> FileChange | None:
    """Return what changed between two versions of a file, or None if nothing did.

    Args:
        path: the path afterwards (of a deleted file: before).
        pre, post: the bytes; None where there is no file. A symbolic link's bytes are its target.
        pre_mode, post_mode: git's modes; None where there is no file or the mode is not known.
        old_path: the path before, if it was another one.
    """
    if old_path == path:
        old_path = None
    if pre is None and post is None:
        return None
    drafts: list[tuple[HunkKind, int, int, str, str]] = []
    if pre is None or post is None:
        old_path, operation = None, "create" if pre is None else "delete"
        drafts.append(_whole(pre, post))
    else:
        operation = "rename" if old_path is not None else "modify"
        if old_path is not None:
            drafts.append(("rename", 0, 0, old_path, path))
        becomes_other_type = (pre_mode == SYMLINK) != (post_mode == SYMLINK)
        if becomes_other_type or (pre_mode == SYMLINK and pre != post):
            drafts.append(_whole(pre, post))
        else:
            if pre_mode is not None and post_mode is not None and pre_mode != post_mode:
                drafts.append(("mode", 0, 0, f"{pre_mode:o}", f"{post_mode:o}"))
            drafts.extend(_content(pre, post))
    if not drafts:
        return None
    seen: Counter[str] = Counter()
    hunks = []
    for kind, start, end, old, new in drafts:
        about: list[str | bytes | int | None] = [path, old_path, kind, old, new]
        if kind == "whole":
            about += [operation, pre_mode, post_mode, pre, post]
        content = seal("hunk", *about)
        name = seal(content, seen[content])
        seen[content] += 1
        hunks.append(Hunk(name[:16], kind, start, end, old, new, seal("digest", content)))
    return FileChange(path, old_path, operation, pre, post, pre_mode, post_mode, tuple(hunks))


def changed_blocks(old: Sequence[str], new: Sequence[str]) -> list[Block]:
    """Return, in order, the stretches in which two sequences of lines differ."""
    numbers: dict[str, int] = {}
    a = [numbers.setdefault(line, len(numbers)) for line in old]
    b = [numbers.setdefault(line, len(numbers)) for line in new]
    blocks, i, j = [], 0, 0
    for start_a, start_b, length in [*sorted(_equal_runs(a, b)), (len(a), len(b), 0)]:
        if start_a > i or start_b > j:
            blocks.append(Block(i, start_a, j, start_b))
        i, j = start_a + length, start_b + length
    return blocks


def _whole(pre: bytes | None, post: bytes | None) -> tuple[HunkKind, int, int, str, str]:
    old = (decode_text(pre) if pre is not None else "") or ""
    new = (decode_text(post) if post is not None else "") or ""
    return "whole", 0, len(split_lines(old)), old, new


def _content(pre: bytes, post: bytes) -> list[tuple[HunkKind, int, int, str, str]]:
    if pre == post:
        return []
    old_text, new_text = decode_text(pre), decode_text(post)
    if old_text is None or new_text is None:
        return [_whole(pre, post)]
    old, new = split_lines(old_text), split_lines(new_text)
    return [
        (
            "text",
            block.old_start,
            block.old_end,
            "".join(old[block.old_start : block.old_end]),
            "".join(new[block.new_start : block.new_end]),
        )
        for block in changed_blocks(old, new)
    ]


def _equal_runs(a: list[int], b: list[int]) -> list[tuple[int, int, int]]:
    """Return the runs (start in a, start in b, length) that are taken as unchanged, in no order."""
    runs: list[tuple[int, int, int]] = []
    stretches = [(0, len(a), 0, len(b), 0)]
    while stretches:
        a_low, a_high, b_low, b_high, level = stretches.pop()
        start_a, start_b = a_low, b_low
        while a_low < a_high and b_low < b_high and a[a_low] == b[b_low]:
            a_low, b_low = a_low + 1, b_low + 1
        if a_low > start_a:
            runs.append((start_a, start_b, a_low - start_a))
        end = a_high
        while a_low < a_high and b_low < b_high and a[a_high - 1] == b[b_high - 1]:
            a_high, b_high = a_high - 1, b_high - 1
        if a_high < end:
            runs.append((a_high, b_high, end - a_high))
        if a_low == a_high or b_low == b_high:
            continue
        inner_a, inner_b = a[a_low:a_high], b[b_low:b_high]
        anchors = _unique_anchors(inner_a, inner_b) if level < _MOST_LEVELS else []
        if anchors:
            # Each stretch begins with its anchor, which the trimming above then takes as equal.
            bounds = [(0, 0), *anchors, (len(inner_a), len(inner_b))]
            for (from_a, from_b), (to_a, to_b) in pairwise(bounds):
                stretches.append((a_low + from_a, a_low + to_a, b_low + from_b, b_low + to_b, level + 1))
        else:
            runs.extend((a_low + i, b_low + j, 1) for i, j in _shortest_edit(inner_a, inner_b))
    return runs


def _unique_anchors(a: list[int], b: list[int]) -> list[tuple[int, int]]:
    """Return the longest rising chain of positions whose line occurs exactly once on both sides."""
    count_a, count_b = Counter(a), Counter(b)
    where_b = {line: j for j, line in enumerate(b) if count_b[line] == 1}
    pairs = [(i, where_b[line]) for i, line in enumerate(a) if count_a[line] == 1 and line in where_b]
    tops: list[int] = []
    top_pairs: list[int] = []
    before: list[int] = []
    for index, (_, j) in enumerate(pairs):
        place = bisect_left(tops, j)
        before.append(top_pairs[place - 1] if place else -1)
        tops[place : place + 1] = [j]
        top_pairs[place : place + 1] = [index]
    chain = []
    index = top_pairs[-1] if top_pairs else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def _shortest_edit(a: list[int], b: list[int]) -> list[tuple[int, int]]:
    """Return the pairs of equal lines on a shortest way from a to b; none if that way is too long to look for.

    The algorithm is Myers' ("An O(ND) difference algorithm and its variations", 1986): `furthest[k]` is how far down a
    one gets on diagonal k with the differences allowed so far.
    """
    furthest = {1: 0}
    trace = []
    for differences in range(min(_MOST_DIFFERENCES, len(a) + len(b)) + 1):
        trace.append(furthest.copy())
        for k in range(-differences, differences + 1, 2):
            down = k == -differences or (k != differences and furthest[k - 1] < furthest[k + 1])
            x = furthest[k + 1] if down else furthest[k - 1] + 1
            y = x - k
            while x < len(a) and y < len(b) and a[x] == b[y]:
                x, y = x + 1, y + 1
            furthest[k] = x
            if x >= len(a) and y >= len(b):
                return _walk_back(trace, len(a), len(b))
    return []


def _walk_back(trace: list[dict[int, int]], x: int, y: int) -> list[tuple[int, int]]:
    pairs = []
    for differences in range(len(trace) - 1, -1, -1):
        furthest, k = trace[differences], x - y
        down = k == -differences or (k != differences and furthest[k - 1] < furthest[k + 1])
        previous_k = k + 1 if down else k - 1
        previous_x = furthest[previous_k]
        previous_y = previous_x - previous_k
        while x > previous_x and y > previous_y and x > 0 and y > 0:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        x, y = previous_x, previous_y
    return pairs[::-1]
