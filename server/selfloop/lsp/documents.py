"""The documents that a window has open, as it has them: the user's text, saved or not.

pygls keeps documents too, but splits their lines where LSP does not (at U+2028, form feeds …) and copies the whole text for
each key pressed. Here a document is a list of lines, split at LF, CRLF and CR as LSP says, and an edit touches only the
lines that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from selfloop.agent.context import Attachment, EditorSnapshot, OpenDocument, Span
from selfloop.lsp.convert import path_of_uri, relative, uri_of_path
from selfloop.lsp.protocol import ContextDiagnostic, ContextItem
from selfloop.updates import Range

if TYPE_CHECKING:
    from selfloop.lsp.server import SelfloopServer

_LINE = re.compile("[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")


class _Item(msgspec.Struct, rename="camel"):
    uri: str
    language_id: str = ""
    version: int | None = None
    text: str = ""


class _Change(msgspec.Struct):
    text: str
    range: Range | None = None


class _Opened(msgspec.Struct, rename="camel"):
    text_document: _Item


class _Changed(msgspec.Struct, rename="camel"):
    text_document: _Item
    content_changes: list[_Change]


_opened = msgspec.json.Decoder(_Opened)
_changed = msgspec.json.Decoder(_Changed)


def split_lines(text: str) -> list[str]:
    """Split a text at line feeds only, ends kept: the lines that hunks count."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


class Document:
    """One open document."""

    def __init__(self, uri: str, language: str, version: int | None, text: str) -> None:
        self.uri = uri
        self.path = path_of_uri(uri)
        self.language = language
        self.version = version
        self._lines = _LINE.findall(text)
        self._text: str | None = text

    @property
    def text(self) -> str:
        """The whole text."""
        if self._text is None:
            self._text = "".join(self._lines)
        return self._text

    def differs_from_disk(self) -> bool:
        """Tell whether saving would change the file; reads it. True where there is no file, or one that is not UTF-8."""
        try:
            on_disk = self.path.read_bytes().decode("utf-8-sig") if self.path is not None else None
        except (OSError, UnicodeDecodeError):
            return True
        return on_disk != self.text.removeprefix("\ufeff")

    def apply(self, changes: Sequence[_Change], version: int | None) -> None:
        """Apply content changes in their order, each to what the one before has left."""
        for change in changes:
            if change.range is None:
                self._lines, self._text = _LINE.findall(change.text), change.text
            else:
                self._replace(change.range, change.text)
        self.version = version

    def _replace(self, span: Range, text: str) -> None:
        lines = self._lines
        first, last = min(span.start.line, len(lines)), min(span.end.line, len(lines))
        head = _before(lines[first], span.start.character) if first < len(lines) else ""
        tail = _after(lines[last], span.end.character) if last < len(lines) else ""
        # A carriage return may meet a line feed where the pieces join, so the line before is split anew with them.
        begin = first - 1 if first > 0 and lines[first - 1].endswith("\r") else first
        joined = "".join(lines[begin:first]) + head + text + tail
        end = last + 1
        if joined and not joined.endswith("\n") and end < len(lines):
            joined += lines[end]
            end += 1
        lines[begin:end] = _LINE.findall(joined)
        self._text = None


def _before(line: str, units: int) -> str:
    content = line.rstrip("\r\n")
    if content.isascii():
        return content[:units]
    return content.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "surrogatepass")


def _after(line: str, units: int) -> str:
    content = line.rstrip("\r\n")
    if content.isascii():
        return line[min(units, len(content)) :]
    rest = content.encode("utf-16-le", "surrogatepass")[2 * units :].decode("utf-16-le", "surrogatepass")
    return rest + line[len(content) :]


class Documents:
    """The open documents of one window, by path and by URI."""

    def __init__(self) -> None:
        self._by_uri: dict[str, Document] = {}
        self._by_path: dict[Path, Document] = {}

    def notice(self, method: str, params: msgspec.Raw) -> str | None:
        """Take a `textDocument/did…` notification; returns the document's URI, None when it is about no text."""
        if method == "textDocument/didOpen":
            item = _opened.decode(params).text_document
            self._put(Document(item.uri, item.language_id, item.version, item.text))
            return item.uri
        if method == "textDocument/didChange":
            changed = _changed.decode(params)
            document = self._by_uri.get(changed.text_document.uri)
            if document is not None:
                document.apply(changed.content_changes, changed.text_document.version)
            return changed.text_document.uri
        if method == "textDocument/didClose":
            uri = _opened.decode(params).text_document.uri
            gone = self._by_uri.pop(uri, None)
            if gone is not None and gone.path is not None and self._by_path.get(gone.path) is gone:
                del self._by_path[gone.path]
            return uri
        return None

    def _put(self, document: Document) -> None:
        self._by_uri[document.uri] = document
        if document.path is not None:
            self._by_path[document.path] = document

    def at(self, path: Path) -> Document | None:
        """Return the open document of a local path."""
        return self._by_path.get(path)

    def uri_of(self, path: Path) -> str:
        """Return the URI of a path, in the client's own spelling where the document is open."""
        document = self._by_path.get(path)
        return document.uri if document else uri_of_path(path)

    def all(self) -> list[Document]:
        """Return the open documents."""
        return list(self._by_uri.values())


def snapshot(ls: SelfloopServer, root: Path, context: Sequence[ContextItem] = ()) -> EditorSnapshot:
    """Return what a window shows of a workspace now, with what the user attached to a prompt."""
    documents = []
    for document in ls.documents.all():
        path = relative(root, document.path) if document.path is not None else None
        if path is None:
            continue
        documents.append(
            OpenDocument(
                path=path,
                text=document.text,
                version=document.version,
                dirty=document.differs_from_disk(),
                language=document.language,
            )
        )
    focused, selections = None, ()
    if ls.focus is not None and ls.focus.text_document is not None:
        place = path_of_uri(str(ls.focus.text_document.get("uri", "")))
        focused = relative(root, place) if place is not None else None
        selections = tuple(_span(item) for item in ls.focus.selections)
    return EditorSnapshot(
        window=ls.window,
        documents=tuple(documents),
        focused=focused,
        selections=selections,
        attachments=tuple(_attachment(item, root) for item in context),
    )


def _span(span: Range) -> Span:
    return ((span.start.line, span.start.character), (span.end.line, span.end.character))


def _attachment(item: ContextItem, root: Path) -> Attachment:
    path = path_of_uri(item.uri)
    return Attachment(
        path=relative(root, path) if path is not None else None,
        uri=item.uri,
        range=_span(item.range) if item.range is not None else None,
        text=item.text,
        diagnostics=tuple(_diagnostic(diagnostic) for diagnostic in item.diagnostics or ()),
    )


def _diagnostic(item: ContextDiagnostic) -> str:
    severity = {1: "error", 2: "warning", 3: "information", 4: "hint"}.get(item.severity or 1, "error")
    line = f"line {item.range.start.line + 1}: " if item.range is not None else ""
    source = " ".join(str(part) for part in (item.source, item.code) if part is not None)
    return f"{line}{severity}: {item.message}" + (f" ({source})" if source else "")
