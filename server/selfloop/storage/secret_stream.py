"""Redaction of a text that is still being written, split anywhere.

What might still become a part of a secret is held back, and nothing else: ordinary words pass at once. Of a secret at
most a public prefix (`ghp_`), or the first three characters of a known value, passed before it was recognised. What was
let through is only ever a preview: the whole message goes through `redact`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from selfloop.storage.families import OPENINGS, PEM_BEGIN, PEM_CHARACTERS, PEM_TAIL, TOKENS
from selfloop.storage.secrets import (
    PLACEHOLDER,
    Span,
    View,
    base64_tails,
    base64_view,
    known_forms,
    known_pattern,
    merged,
    plain_spans,
    views,
)

CONTEXT_CHARACTERS = 256
"""How much of what was let through still counts as the context of what comes next; a line of cookies counts whole."""
COOKIE_CHARACTERS = 8192
TAIL_CHARACTERS = 512
"""A secret that is longer than this is already recognised, though it is not complete."""
_HALF_ESCAPE = re.compile(r"(?:%[0-9A-Fa-f]?|\\{1,8}(?:u[0-9A-Fa-f]{0,3})?|\x1b\[?[0-9;:?]{0,32})\Z")


class RedactedStream:
    """The redaction of one text at a time."""

    def __init__(self, known: Collection[str] = ()) -> None:
        self._forms = known_forms(frozenset(known))
        self._text = ""
        self._sent = 0
        self._next = 0
        """The length from which on it is worth looking again: a long held text is not searched at every piece."""

    def feed(self, piece: str) -> str:
        """Take the next piece and return what may be shown now."""
        self._text += piece
        if len(self._text) < self._next:
            return ""
        spans, hold = self._search()
        shown = self._show(spans, hold)
        self._next = len(self._text) + (len(self._text) - self._sent) // 8
        return shown

    def finish(self) -> str:
        """Return what was held back, redacted; the stream can then be used for another text."""
        spans, _ = self._search()
        shown = self._show(spans, len(self._text))
        self._text, self._sent, self._next = "", 0, 0
        return shown

    def _search(self) -> tuple[list[Span], int]:
        """Return the secrets, and where the part begins that may still grow into one."""
        half = _HALF_ESCAPE.search(self._text, max(0, len(self._text) - 40))
        end = hold = half.start() if half else len(self._text)
        pattern = known_pattern(self._forms)
        spans: list[Span] = []
        for view in views(self._text[:end]):
            tails = base64_tails(view)
            base64 = base64_view(view)
            for read in (view, base64) if base64 is not None else (view,):
                spans += (read.source(*span) for span in plain_spans(read.text, pattern))
            for read in (view, *tails):
                hold = min((hold, *(read.source(start, start)[0] for start in self._openings(read))))
        # A secret that ends where the text does may go on; of base64, up to three characters are not read yet.
        hold = min((hold, *(start for start, stop in spans if stop >= end - 3)))
        spans = merged(spans)
        # A secret is never cut: what is held begins before it, or after it.
        return spans, min((hold, *(start for start, stop in spans if start < hold < stop)))

    def _openings(self, view: View) -> Iterator[int]:
        """Yield where something begins, in the view, that its end may still complete."""
        offset = max(0, len(view.text) - TAIL_CHARACTERS)
        tail = view.text[offset:]
        lowered = tail.lower()
        for family in (*TOKENS.standing_in(tail), *OPENINGS.standing_in(lowered)):
            if match := family.opening.search(tail):
                yield offset + match.start(1)
        for form in self._forms:
            if form[:4] in tail[-len(form) :]:
                lengths = range(min(len(form) - 1, len(tail)), 3, -1)
                yield from (len(view.text) - length for length in lengths if tail.endswith(form[:length]))
        begin = view.text.rfind("-----BEGIN ")
        if begin >= 0 and len(view.text) - begin < PEM_CHARACTERS and PEM_BEGIN.match(view.text, begin):
            if not PEM_TAIL.search(view.text, begin):
                yield begin

    def _show(self, spans: list[Span], until: int) -> str:
        """Return what lies between what was shown and `until`, redacted, and forget what is no context any more."""
        pieces, at = [], self._sent
        for start, stop in spans:
            if stop > at and start < until:
                pieces += (self._text[at : max(at, start)], PLACEHOLDER)
                at = stop
        if at < until:
            pieces.append(self._text[at:until])
        self._sent = max(self._sent, at, until)
        line = self._text.rfind("\n", 0, self._sent) + 1
        cookie = "cookie" in self._text[line : self._sent].lower()
        keep = max(0, self._sent - CONTEXT_CHARACTERS)
        if cookie:
            keep = max(min(line, keep), self._sent - COOKIE_CHARACTERS, 0)
        self._text, self._sent = self._text[keep:], self._sent - keep
        return "".join(pieces)
