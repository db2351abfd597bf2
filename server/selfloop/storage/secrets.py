"""Secrets leave no sink in the clear: `redact` takes them out of an assembled text.

A text is searched as it stands and as it would read once decoded: percent-encoding, JSON escapes, terminal colours and
base64 are undone in *views* that remember where each character came from, so that one set of patterns finds a secret in
every form. Invariant: time grows linearly with the text, whatever the text.

Known values (keys that the user gave) are found by value. Everything else is found by its family's shape, or because
its name says what it is (`password = …`). A name alone is weak evidence in source code, so there a value counts only if
it looks like a literal, not like a variable, a type or a placeholder.

Pieces of a stream must not go through `redact` one by one: a secret that is split between them would pass. They go
through `secret_stream.RedactedStream`.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from typing import Any

from selfloop.storage.families import (
    ASSIGNED_WORDS,
    ASSIGNMENT,
    CONTEXTS,
    COOKIE_ATTRIBUTES,
    COOKIE_LINE,
    COOKIE_PAIR,
    NAME,
    NAMED,
    PEM_BEGIN,
    PEM_BODY,
    PEM_CHARACTERS,
    PEM_TAIL,
    SHELL_FOLDER,
    STRONG_NAMES,
    TOKENS,
    looks_secret,
)

PLACEHOLDER = "[redacted]"
KNOWN_CHARACTERS = 8
"""A shorter known value is not worth the words that it would black out: `ollama`, `none`."""

Span = tuple[int, int]


def redact(text: str, known: Collection[str] = ()) -> str:
    """Return the text with every secret replaced by `[redacted]`; redacting twice changes nothing more.

    Args:
        text: an assembled text.
        known: values that are secret whatever they look like; those below 8 characters are ignored.
    """
    return replace_spans(text, secret_spans(text, known))


def redact_data(value: Any, known: Collection[str] = ()) -> Any:
    """Return plain JSON data with every text in it redacted; a value is read together with the key that names it."""
    if isinstance(value, str):
        return redact(value, known)
    if isinstance(value, dict):
        return {redact_data(key, known): _redact_named(key, item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_data(item, known) for item in value]
    return value


def secret_spans(text: str, known: Collection[str] = ()) -> list[Span]:
    """Return where the secrets are: ascending, apart from each other."""
    pattern = known_pattern(known_forms(frozenset(known)))
    spans: list[Span] = []
    for view in views(text):
        for read in (view, base64_view(view)):
            if read is not None:
                spans += (read.source(start, end) for start, end in plain_spans(read.text, pattern))
    return merged(spans)


def replace_spans(text: str, spans: Iterable[Span]) -> str:
    """Return the text with each span replaced by the placeholder."""
    pieces, at = [], 0
    for start, end in spans:
        pieces += (text[at:start], PLACEHOLDER)
        at = end
    return "".join((*pieces, text[at:]))


def _redact_named(key: Any, item: Any, known: Collection[str]) -> Any:
    if isinstance(key, str) and isinstance(item, str) and len(item) >= 6 and not re.search(r"\s", item):
        name = NAMED.search(key[-128:])
        if name and looks_secret(item, strong=bool(STRONG_NAMES.search(name[0])), literal=True):
            return PLACEHOLDER
    return redact_data(item, known)


# What is found in a text that is already decoded


def plain_spans(text: str, known: re.Pattern[str] | None) -> Iterator[Span]:
    if known is not None:
        yield from (match.span() for match in known.finditer(text))
    for family in TOKENS.standing_in(text):
        yield from (match.span(match.lastindex or 0) for match in family.pattern.finditer(text))
    if "-----BEGIN " in text:
        yield from _private_keys(text)
    # One letter grows when it is made small; without it, places stay where they are.
    lowered = text.replace("İ", "I").lower()
    for family in CONTEXTS.standing_in(lowered):
        for match in family.pattern.finditer(text):
            if not match[1].startswith(("$", "{", "<", "[", "%", "*")):
                yield match.span(1)
    if any(word in lowered for word in ASSIGNED_WORDS):
        yield from _assignments(text, lowered)
    if "cookie" in lowered:
        yield from _cookies(text)


def _private_keys(text: str) -> Iterator[Span]:
    at = 0
    while begin := PEM_BEGIN.search(text, at):
        tail = PEM_TAIL.search(text, begin.end(), begin.end() + PEM_CHARACTERS)
        body = PEM_BODY.match(text, begin.end())
        at = tail.end() if tail else body.end() if body else begin.end()
        yield begin.start(), at


def _assignments(text: str, lowered: str) -> Iterator[Span]:
    at = 0
    for name in NAME.finditer(lowered):
        if name.start() < at or not (match := ASSIGNMENT.match(text, name.start())):
            continue
        at = match.end()
        group = next(name for name in ("double", "single", "tick", "bare") if match[name] is not None)
        if SHELL_FOLDER.search(text, max(0, match.start() - 4), match.end()) and match[group].startswith("/"):
            continue
        # `NAME=value` without spaces is how environment files and shells have it; there is no variable on the right.
        environment = match["name"].isupper() and match["operator"] == "="
        literal = group != "bare" or environment
        strong = STRONG_NAMES.search(match["name"]) is not None
        if match["call"] is None and looks_secret(match[group], strong=strong, literal=literal):
            yield match.span(group)


def _cookies(text: str) -> Iterator[Span]:
    for line in COOKIE_LINE.finditer(text):
        for pair in COOKIE_PAIR.finditer(text, line.start(1), line.end(1)):
            named = text[max(line.start(1), pair.start() - 16) : pair.start()]
            if not COOKIE_ATTRIBUTES.search(named) and pair[1] != PLACEHOLDER:
                yield pair.span(1)


def merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


@lru_cache(maxsize=8)
def known_forms(known: frozenset[str]) -> tuple[str, ...]:
    """Return how known values can stand in a decoded text, the longest first."""
    forms: set[str] = set()
    for value in known:
        if len(value := value.strip()) >= KNOWN_CHARACTERS:
            data = value.encode("utf-8", "replace")
            # Decoded views hold bytes, one character each.
            forms |= {value, data.decode("latin-1"), data.hex(), data.hex().upper()}
    return tuple(sorted(forms, key=len, reverse=True))


@lru_cache(maxsize=8)
def known_pattern(forms: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return one pattern that finds all of them."""
    return re.compile("|".join(map(re.escape, forms))) if forms else None


# Views: the text as it would read once decoded


class View:
    """A decoded text that knows where it came from.

    From `begins[i]` on, each `size` characters of the view stand for `width` characters of its source, from
    `sources[i]` on; the source is the text itself, or another view of it.
    """

    def __init__(
        self, text: str, parent: View | None, begins: list[int], sources: list[int], size: int = 1, width: int = 1
    ) -> None:
        self.text = text
        self._parent = parent
        self._begins = begins
        self._sources = sources
        self._size = size
        self._width = width

    def source(self, start: int, end: int) -> Span:
        """Return the part of the original text that a part of the view stands for."""
        first = bisect_right(self._begins, start) - 1
        last = bisect_right(self._begins, end) - 1
        start = self._sources[first] + (start - self._begins[first]) // self._size * self._width
        end = self._sources[last] + -(-(end - self._begins[last]) // self._size) * self._width
        return self._parent.source(start, end) if self._parent else (start, end)


def views(text: str) -> list[View]:
    """Return the text as it stands and with its escapes undone, once and twice (JSON inside JSON, a URL inside it)."""
    whole = View(text, None, [0], [0])
    once = [view for escape in _ESCAPES if (view := _decoded(whole, *escape))]
    return [whole, *once, *(view for outer in once for escape in _ESCAPES if (view := _decoded(outer, *escape)))]


def base64_view(view: View) -> View | None:
    """Return what all base64 of a view says; None if it holds none."""
    view = _decoded(view, "\n", _WRAPPED, lambda _: "") or view
    runs = [run.span() for run in _BASE64.finditer(view.text)]
    return _undone(view, [(start + shift, end) for shift in range(4) for start, end in runs]) if runs else None


def base64_tails(view: View) -> list[View]:
    """Return what base64 at the very end of a view says so far, read from each place where a group can begin."""
    view = _decoded(view, "\n", _WRAPPED, lambda _: "") or view
    runs = [run.span() for run in _BASE64.finditer(view.text) if run.end() == len(view.text)]
    return [_undone(view, [(start + shift, end)]) for start, end in runs for shift in range(4)]


def _undone(view: View, runs: Iterable[Span]) -> View:
    """Return the view of decoded runs of base64."""
    pieces: list[str] = []
    begins, sources = [0], [0]
    length = 0
    for start, end in runs:
        # One character alone says nothing yet.
        group = view.text[start : end - ((end - start) % 4 == 1)].translate(_STANDARD)
        pieces.append(a2b_base64(group + "=" * (-len(group) % 4)).decode("latin-1"))
        begins.append(length)
        sources.append(start)
        length += len(pieces[-1]) + len(_APART)
    return View(_APART.join(pieces), view, begins, sources, size=3, width=4)


def _decoded(view: View, sign: str, pattern: re.Pattern[str], decode: Callable[[re.Match[str]], str]) -> View | None:
    """Return the view with one kind of escape undone; None if there is none of it."""
    if sign not in view.text:
        return None
    pieces: list[str] = []
    begins, sources = [0], [0]
    length = at = 0
    for match in pattern.finditer(view.text):
        pieces += (view.text[at : match.start()], decode(match))
        length += match.start() - at + len(pieces[-1])
        at = match.end()
        begins.append(length)
        sources.append(at)
    return View("".join((*pieces, view.text[at:])), view, begins, sources) if pieces else None


_ESCAPES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    ("%", re.compile(r"%([0-9A-Fa-f]{2})"), lambda match: chr(int(match[1], 16))),
    (
        "\\",
        re.compile(r"\\(?:u([0-9A-Fa-f]{4})|([\"\\/bfnrt]))"),
        lambda match: chr(int(match[1], 16)) if match[1] else _LETTERS.get(match[2], match[2]),
    ),
    ("\x1b", re.compile(r"\x1b\[[0-9;:?]{0,32}[A-Za-z]"), lambda _: ""),
)
_APART = "\n" * 10
"""More space than any pattern bridges, so that what was decoded from two places is never read as one."""
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{11,}")
_WRAPPED = re.compile(r"(?<=[A-Za-z0-9+/_-]{60})\r?\n(?=[A-Za-z0-9+/_-])")
_STANDARD = str.maketrans("-_", "+/")
