"""A small editor for tests of the gates: it keeps buffers as VS Code does.

It hides a byte order mark, brings all line endings of a document to one, refuses an edit of another version, and undoes
nothing by itself. With a `state` file its buffers outlive the process, as a real editor's outlive a killed server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from selfloop.changes import split_lines
from selfloop.errors import Stale
from selfloop.gates.editor import ApplyOutcome, BufferEdit, OpenText


class SmallEditor:
    """See the module."""

    def __init__(self, workspace: Path, state: Path | None = None) -> None:
        self.workspace, self._state = workspace, state
        self._buffers: dict[str, tuple[str, int, bool]] = {}
        self.applied: list[list[BufferEdit]] = []
        self.refuse = ""
        """Why edits are refused; empty: they are not."""
        self.torn: set[str] = set()
        """Files that are dirty in two windows."""
        if state is not None and state.exists():
            self._buffers = {path: tuple(row) for path, row in json.loads(state.read_text()).items()}

    def open(self, path: str) -> None:
        """Open a file from the disk."""
        file = self.workspace / path
        text = file.read_bytes().decode("utf-8", "replace") if file.exists() else ""
        text = text.removeprefix("\ufeff")
        ending = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
        self._put(path, _in(text, ending), 1, False)

    def type(self, path: str, text: str) -> None:
        """Let the user change the whole text of a document."""
        ending = "\r\n" if "\r\n" in text else "\n"
        self._put(path, _in(text, ending), self._buffers[path][1] + 1, True)

    def save(self, path: str) -> None:
        """Write a document, with the byte order mark that the file has."""
        file = self.workspace / path
        text, version, _ = self._buffers[path]
        mark = b"\xef\xbb\xbf" if file.exists() and file.read_bytes().startswith(b"\xef\xbb\xbf") else b""
        file.write_bytes(mark + text.encode())
        self._put(path, text, version, False)

    def close(self, path: str) -> None:
        """Close a document without saving."""
        del self._buffers[path]
        self._write()

    def text(self, path: str) -> str:
        """Return a document's text."""
        return self._buffers[path][0]

    def open_text(self, path: str) -> OpenText | None:
        """See `Editor`."""
        if path in self.torn:
            raise Stale(f"{path} has different unsaved texts in two windows, so nothing was applied.")
        if path not in self._buffers:
            return None
        text, version, dirty = self._buffers[path]
        return OpenText(text=text, version=version, dirty=dirty, window=1)

    async def apply(self, edits: Sequence[BufferEdit], *, label: str, prefer: int | None) -> ApplyOutcome:
        """See `Editor`."""
        assert label
        if self.refuse:
            return ApplyOutcome(False, self.refuse)
        if any(self._buffers[edit.path][1] != edit.version for edit in edits):
            return ApplyOutcome(False, "another version")
        self.applied.append(list(edits))
        for edit in edits:
            text, version, _ = self._buffers[edit.path]
            lines = split_lines(text)
            for piece in sorted(edit.edits, key=lambda piece: piece.start, reverse=True):
                lines[piece.start : piece.end] = [piece.text]
            ending = "\r\n" if "\r\n" in text else "\n"
            after = _in("".join(lines), ending)
            self._put(edit.path, after, version + 1, True)
        if any(self._buffers[edit.path][0] != edit.expected_text for edit in edits):
            return ApplyOutcome(False, "the text is not as expected")
        return ApplyOutcome(True)

    def _put(self, path: str, text: str, version: int, dirty: bool) -> None:
        self._buffers[path] = (text, version, dirty)
        self._write()

    def _write(self) -> None:
        if self._state is not None:
            new = self._state.with_suffix(".new")
            new.write_text(json.dumps(self._buffers))
            new.replace(self._state)


def _in(text: str, ending: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", ending)
