"""The documents that a window has open, as it has them: the user's text, saved or not.

pygls keeps documents too, but splits their lines where LSP does not (at U+2028, form feeds …) and copies the whole
text for each key pressed. Here the text is the supervisor's own kind, which both processes must understand in the
same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from selfloop.agent.context import Attachment, EditorSnapshot, OpenDocument, Span
from selfloop.lsp.convert import path_of_uri, relative, uri_of_path
from selfloop.lsp.protocol import ContextDiagnostic, ContextItem, FocusParams
from selfloop.storage.ownership import STATE_FOLDER
from selfloop.supervisor.documents import Document as Content
from selfloop.updates import Range


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
        self._content = Content({}, text)

    @property
    def text(self) -> str:
        """The whole text."""
        return self._content.text

    def differs_from_disk(self) -> bool:
        """Tell whether saving would change the file, which is read; True where it is missing or not UTF-8."""
        try:
            on_disk = self.path.read_bytes().decode("utf-8-sig") if self.path is not None else None
        except (OSError, UnicodeDecodeError):
            return True
        return on_disk != self.text.removeprefix("\ufeff")

    def apply(self, changes: Sequence[_Change], version: int | None) -> None:
        """Apply content changes in their order, each to what the one before has left."""
        for change in changes:
            if change.range is None:
                self._content.replace(change.text)
            else:
                start, end = _span(change.range)
                self._content.change(start, end, change.text)
        self.version = version


class Documents:
    """The open documents of one window, by path and by URI, and which of them has the focus."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.focus: FocusParams | None = None
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

    def snapshot(self, root: Path, context: Sequence[ContextItem] = ()) -> EditorSnapshot:
        """Return what the window shows of a workspace now, with what the user attached to a prompt."""
        documents = []
        for document in self.all():
            path = relative(root, document.path) if document.path is not None else None
            if path is None or path.split("/", 1)[0] == STATE_FOLDER:
                continue  # What is ours, such as a chat file, is no part of the project.
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
        if self.focus is not None and self.focus.text_document is not None:
            place = path_of_uri(str(self.focus.text_document.get("uri", "")))
            focused = relative(root, place) if place is not None else None
            selections = tuple(_span(item) for item in self.focus.selections)
        return EditorSnapshot(
            window=self.window,
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
