"""What a candidate's text may not be: invisible, disguised, padded; and what a prompt has to keep.

Invariant: a placeholder, a tool's section, a front matter, a delimiter and a vital clause of a prompt outlive every
evolution; a reviewer sees every character that a model or an interpreter would read.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

LARGEST_FILE_BYTES = 256 << 10
LONGEST_LINE = 400
_GROWTH = 1.5
_GROWTH_CHARS = 2_000
_NEW_CHARS = 8_000
"""A new prompt, or note, may have this many."""
_REPEATED = 4
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_SECTION = re.compile(r"^## (\w+)$", re.MULTILINE)
_PARAMETER = re.compile(r"^- `(\w+)`:", re.MULTILINE)
_MARK = re.compile(r"</?[a-z][\w{}-]*(?: …)?>")
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_VITAL = re.compile(r"<!--\s*vital\b.*?-->\n(.+?)(?=\n\n|\n<!--|\n- |\Z)", re.DOTALL)
_WORD = re.compile(r"\w+")


def unseen(text: str, before: str = "") -> list[str]:
    """Return the characters that a text newly holds and a reader does not see, or sees as others."""
    there = set(before)
    found = {}
    for letter in text:
        if letter not in there and letter not in "\n\t" and unicodedata.category(letter) in _HIDDEN:
            found[letter] = (
                f"it holds the character U+{ord(letter):04X} ({unicodedata.name(letter, 'no name')}), which is not seen"
            )
    words = set(_WORD.findall(before))
    for word in _WORD.findall(text):
        scripts = {_script(letter) for letter in word if letter.isalpha()} - {""}
        if word not in words and len(scripts) > 1:
            found[word] = f"the word {word!a} mixes letters of {' and '.join(sorted(scripts))} that look alike"
    return list(found.values())


_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ")[0]
    return name if name in ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC") else ""


def prompt_findings(path: str, before: str | None, after: str) -> Iterator[str]:
    """Yield what a prompt has lost, or was padded with."""
    old = before or ""
    if path.startswith("prompts/loops/") and before is None:
        # A loop's front matter is its authority, so no evolution brings one.
        yield "it is a new loop"
        return
    if path.startswith("prompts/loops/") and _front(old) != _front(after):
        yield "its front matter is changed, which says what it may do"
    if before is not None:
        yield from _lost("the placeholder", _PLACEHOLDER.findall(old), _PLACEHOLDER.findall(after), exactly=True)
        yield from _lost("the mark", _MARK.findall(old), _MARK.findall(after))
        if path.rpartition("/")[2].startswith("tools"):
            yield from _lost("the section", _SECTION.findall(old), _SECTION.findall(after), exactly=True)
            yield from _lost("the parameter", _PARAMETER.findall(old), _PARAMETER.findall(after), exactly=True)
        for clause in _VITAL.findall(old):
            if _plain(clause) not in _plain(after):
                yield f"the vital clause {clause.strip()[:70]!r} is gone or changed"
    for opened, closed in (("<!--", "-->"), ("```", "```")):
        if after.count(opened) != after.count(closed) or (opened == closed and after.count(opened) % 2):
            yield f"a {opened} is not closed"
    if len(after) > max(len(old) * _GROWTH + _GROWTH_CHARS, _NEW_CHARS if before is None else 0):
        yield f"it grows from {len(old):,} to {len(after):,} characters, which is padding"


def vital_findings(after: str, clauses: Sequence[str]) -> Iterator[str]:
    """Yield which of the texts that the profile wants in a file are not there."""
    for clause in clauses:
        if _plain(clause) not in _plain(after):
            yield f"the vital clause {clause[:70]!r} is gone or changed"


def padding(before: str | None, after: str) -> Iterator[str]:
    """Yield what only makes a file longer."""
    old = Counter(line.strip() for line in (before or "").splitlines())
    for line, count in Counter(line.strip() for line in after.splitlines()).items():
        if len(line) > 20 and count > max(_REPEATED, old[line]):
            yield f"the line {line[:50]!r} stands there {count} times"
    if len(re.findall(r"\n{6,}|[ \t]{80,}", after)) > len(re.findall(r"\n{6,}|[ \t]{80,}", before or "")):
        yield "it holds long runs of blanks, behind which something may hide"
    longest = max((len(line) for line in (before or "").splitlines()), default=0)
    if any(len(line) > max(LONGEST_LINE, longest) for line in after.splitlines()) and not _is_prose(after):
        yield f"it has lines of more than {LONGEST_LINE} characters"


def _is_prose(text: str) -> bool:
    """Tell whether the longest line reads as words, as paragraphs of a prompt do."""
    line = max(text.splitlines(), key=len, default="")
    words = line.split(" ")
    return len(words) > len(line) / 16 and max(map(len, words)) < 120


def _lost(what: str, before: list[str], after: list[str], *, exactly: bool = False) -> Iterator[str]:
    old, new = (set(before), set(after)) if exactly else (Counter(before), Counter(after))
    for name in sorted(set(old) - set(new) if exactly else (Counter(before) - Counter(after)).keys()):
        yield f"{what} {name!r} is gone"
    if exactly:
        for name in sorted(set(new) - set(old)):
            yield f"{what} {name!r} is new, and nothing fills it"


def _front(text: str) -> str:
    found = _FRONT.match(text)
    return found[0] if found else ""


def _plain(text: str) -> str:
    return " ".join(text.split())
