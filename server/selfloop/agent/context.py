"""What the model is shown besides the conversation: the project at its start, the editor's state with each new input.

Invariant: the order is cheap to cache. Tools and the system text come first, then the project's rules and map, which
are taken once for a session; what changes from message to message (editor, clock, notes) stands behind the newest
words of the user. Everything that the user did not write is fenced as data.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from selfloop.agent.fence import Fence

Point = tuple[int, int]
"""Zero-based line and UTF-16 unit, as LSP has them."""
Span = tuple[Point, Point]
"""Half open."""

OPEN_FILES = 20
ATTACHMENT_CHARS = 12_000
EDITOR_CHARS = 36_000
RULES_CHARS = 24_000
_NAME_CHARS = 300

OUT_OF_DATE = "A change that you proposed is out of date, because the text has moved on since:"
"""How a prompt begins that asks again for what is stale: these are not the user's words, and name no proposal."""


@frozen
class OpenDocument:
    """A document that is open in the editor."""

    path: str
    """Workspace-relative, POSIX."""
    text: str
    version: int | None
    dirty: bool
    """It differs from the file on the disk."""
    language: str


@frozen
class Attachment:
    """Something that the user put beside a prompt."""

    path: str | None
    """None: it lies outside the workspace, or is no file."""
    uri: str
    range: Span | None
    text: str | None
    diagnostics: tuple[str, ...] = ()


@frozen
class EditorSnapshot:
    """What one window shows at one moment."""

    window: int
    documents: tuple[OpenDocument, ...] = ()
    focused: str | None = None
    """Path of the document that has the focus."""
    selections: tuple[Span, ...] = ()
    """Of the focused document."""
    attachments: tuple[Attachment, ...] = ()

    def overlay(self, workspace: Path) -> Mapping[str, bytes]:
        """Return the unsaved texts as the bytes that saving would write; reads each such file's first bytes.

        A byte order mark on the disk is kept, because editors hide it. A file that is not UTF-8 is left out: its
        encoding is not known here, and writing it as UTF-8 would change every line of it.
        """
        texts: dict[str, bytes] = {}
        for document in self.documents:
            if document.dirty:
                data = _as_saved(document.text, workspace / document.path)
                if data is not None:
                    texts[document.path] = data
        return texts

    def document(self, path: str | None) -> OpenDocument | None:
        """Return the open document at `path`."""
        return next((document for document in self.documents if document.path == path), None)


def editor_state(snapshot: EditorSnapshot, fence: Fence) -> str:
    """Return what the editor shows, as a block of text for the model; "" when it shows nothing. Bounded in size."""
    parts: list[str] = []
    room = EDITOR_CHARS
    if snapshot.documents:
        parts.append("Open files: " + _open_files(snapshot))
    focused = snapshot.document(snapshot.focused)
    if focused is not None:
        name = printable(focused.path)
        for span in snapshot.selections:
            chosen = slice_span(focused.text, span)
            if chosen:
                block = _shown(chosen, f"selection in {name}, {_lines(span)}", name, fence)
                if len(block) <= room:
                    parts.append(f"The user has selected {_lines(span)} of {name}:\n{block}")
                    room -= len(block)
            else:
                parts.append(f"The cursor is in line {span[0][0] + 1} of {name}.")
    for attachment in snapshot.attachments:
        block = _attached(attachment, snapshot, fence)
        if len(block) > room:
            parts.append("More was attached, but it is too long to be shown here; read the files.")
            break
        parts.append(block)
        room -= len(block)
    return "<editor>\n" + "\n".join(parts) + "\n</editor>" if parts else ""


def project_rules(rules: str | None, nested: Sequence[str], fence: Fence) -> str:
    """Return the repository's own rules, fenced: the AGENTS.md of its root whole, those of its folders by name."""
    blocks = []
    if rules is not None:
        cut = rules[:RULES_CHARS]
        blocks.append(fence.data(cut, source="AGENTS.md"))
        if len(rules) > len(cut):
            blocks.append(f"(AGENTS.md goes on after {len(cut)} characters; read_file shows the rest.)")
    if nested:
        blocks.append("Read before you work in their folders: " + ", ".join(nested))
    return "\n".join(blocks) or "There are none."


def printable(name: str) -> str:
    """Return a name as it may stand outside a fence: a file's name can hold line feeds, and much else."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)[:_NAME_CHARS]


def slice_span(text: str, span: Span) -> str:
    """Return the part of a text that a span of UTF-16 positions covers."""
    return text[_offset(text, span[0]) : _offset(text, span[1])]


def _offset(text: str, point: Point) -> int:
    line, unit = point
    start = 0
    for _ in range(line):
        found = text.find("\n", start)
        if found < 0:
            return len(text)
        start = found + 1
    end = text.find("\n", start)
    content = text[start : len(text) if end < 0 else end]
    if content.isascii():
        return start + min(unit, len(content))
    before = content.encode("utf-16-le", "surrogatepass")[: unit * 2].decode("utf-16-le", "ignore")
    return start + len(before)


def _open_files(snapshot: EditorSnapshot) -> str:
    names = []
    for document in snapshot.documents[:OPEN_FILES]:
        marks = [
            mark
            for mark, holds in (("focused", document.path == snapshot.focused), ("unsaved", document.dirty))
            if holds
        ]
        names.append(printable(document.path) + (f" ({', '.join(marks)})" if marks else ""))
    more = len(snapshot.documents) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def _attached(attachment: Attachment, snapshot: EditorSnapshot, fence: Fence) -> str:
    name = printable(attachment.path or attachment.uri)
    text = attachment.text
    if text is None and attachment.range is not None:
        document = snapshot.document(attachment.path)
        text = slice_span(document.text, attachment.range) if document else None
    where = f", {_lines(attachment.range)}" if attachment.range else ""
    lines = [f"The user attached {name}{where}" + ("." if text is None else ":")]
    if text is not None:
        lines.append(_shown(text, f"{name}{where}", name, fence))
    if attachment.diagnostics:
        lines.append(fence.data("\n".join(attachment.diagnostics)[:ATTACHMENT_CHARS], source=f"diagnostics of {name}"))
    return "\n".join(lines)


def _shown(text: str, source: str, path: str, fence: Fence) -> str:
    if len(text) <= ATTACHMENT_CHARS:
        return fence.data(text, source=source)
    return (
        fence.data(text[:ATTACHMENT_CHARS], source=source)
        + f"\n(Cut after {ATTACHMENT_CHARS} of {len(text)} characters; read_file on {path} shows the rest.)"
    )


def _lines(span: Span) -> str:
    (first, _), (last, unit) = span
    if unit == 0 and last > first:
        last -= 1
    return f"line {first + 1}" if first == last else f"lines {first + 1} to {last + 1}"


def _as_saved(text: str, file: Path) -> bytes | None:
    try:
        on_disk = file.read_bytes() if os.path.lexists(file) else b""
        on_disk.decode("utf-8")
        data = text.encode("utf-8")
    except (OSError, UnicodeError):
        return None
    if on_disk.startswith(codecs.BOM_UTF8) and not data.startswith(codecs.BOM_UTF8):
        return codecs.BOM_UTF8 + data
    return data
