"""What a maker's answer holds besides its report: comments, a draft, the title of a pull request.

The prompts of the loops fix the form: a heading `## Comment on pull request #12`, `## Comment on issue #34` or
`## Draft: <title>` with the text below it up to the next such heading or `## State`, and a line `Title: …`. Invariant:
what does not have the form exactly is report and nothing else, so a slip of the model's sends less, never more.
"""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

MOST_COMMENTS = 5
_HEADING = re.compile(
    r"^##[ \t]+(?:Comment on (?P<about>pull request|issue) #(?P<number>[0-9]{1,9})|Draft: (?P<draft>\S.*?)"
    r"|(?P<other>State|Left out))[ \t]*$",
    re.MULTILINE,
)
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})", re.MULTILINE)
_STATUS = re.compile(r"\n[ \t]*[`*]*Status:[ \t`*]*\w+[ \t`*.]*\s*\Z")
_TITLE = re.compile(r"^[ \t]*(?:[-*] )?`?Title:`?[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)


@frozen
class Comment:
    """A comment that the maker proposes."""

    about: Literal["pull-request", "issue"]
    number: int
    text: str


@frozen
class Draft:
    """A text that the maker proposes."""

    title: str
    text: str


def read_comments(answer: str) -> tuple[Comment, ...]:
    """Return the comments of an answer, one for each number, in order; at most `MOST_COMMENTS`."""
    found: dict[tuple[str, int], Comment] = {}
    for heading, text in _parts(answer):
        if heading["about"] and text:
            about = "issue" if heading["about"] == "issue" else "pull-request"
            comment = Comment(about, int(heading["number"]), text)
            found.setdefault((about, comment.number), comment)
    return tuple(found.values())[:MOST_COMMENTS]


def read_draft(answer: str) -> Draft | None:
    """Return the draft of an answer: the first that has a text."""
    return next((Draft(heading["draft"], text) for heading, text in _parts(answer) if heading["draft"] and text), None)


def read_title(answer: str) -> str | None:
    """Return the title that an answer gives its change, one line."""
    match = _TITLE.search(answer)
    return match[1].strip("`*\"' ")[:200] or None if match else None


def _parts(answer: str) -> list[tuple[re.Match[str], str]]:
    """Return each heading that means something, and the text below it; none that stands within a code block counts."""
    # How the maker says it went belongs to no comment, also where `## State` was forgotten.
    answer = _STATUS.sub("", answer.replace("\r\n", "\n"))
    headings = [match for match in _HEADING.finditer(answer) if not _in_code(answer, match.start())]
    ends = [*(match.start() for match in headings[1:]), len(answer)]
    return [(match, answer[match.end() : end].strip()) for match, end in zip(headings, ends, strict=False)]


def _in_code(answer: str, place: int) -> bool:
    return len(_FENCE.findall(answer[:place])) % 2 == 1
