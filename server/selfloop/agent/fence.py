"""Other people's text: files, command output, web pages, a repository's rules, and what a model writes.

Invariant: text inside a fence cannot close it. The marker is random for each session and is taken out of what is
fenced. A fence is hygiene, not a wall: what a model may do is bounded by its tools.
"""

from __future__ import annotations

import json
import re
import secrets

from attrs import frozen


@frozen
class Fence:
    """Fences of one session."""

    marker: str

    @staticmethod
    def new() -> Fence:
        """Return a fence that nobody can have guessed."""
        return Fence(secrets.token_hex(6))

    def data(self, text: str, *, source: str) -> str:
        """Return `text` between two marks that name where it comes from. The text itself stays as it is."""
        body = text.replace(self.marker, "(marker)")
        end = "" if body.endswith("\n") else "\n"
        label = json.dumps(source.replace(self.marker, "(marker)"), ensure_ascii=False)
        return f"<data-{self.marker} source={label}>\n{body}{end}</data-{self.marker}>"

    def strip(self, text: str) -> str:
        """Return the text without the fences in it, for people."""
        return re.sub(rf"</?data-{self.marker}[^\n]*\n?", "", text)


def mend(text: str) -> str:
    """Return the text with halves of surrogate pairs joined, or replaced where the other half is missing.

    A stream may cut a character in two, each half escaped by itself; such a text could be neither stored nor sent.
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
