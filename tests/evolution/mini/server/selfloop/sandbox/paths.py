"""The one door for paths that a model names."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from selfloop.errors import Refused

PROTECTED = frozenset({".git", ".env", ".evo", ".vscode"})


class Door:
    """Reads and collects writes beneath a root; nothing reaches the disk here."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.writes: dict[str, str] = {}

    def checked(self, path: str) -> str:
        """Return the plain relative path.

        Raises:
            Refused: it leads out, or is protected.
        """
        parts = PurePosixPath(path).parts
        if not parts or "\0" in path or path.startswith("/") or "\\" in path or ".." in parts:
            raise Refused(f"{path!r} leads out of the workspace, so nothing was done.")
        if any(part.casefold() in PROTECTED for part in parts):
            raise Refused(f"{path!r} is protected, so nothing was done.")
        return "/".join(parts)

    def read(self, path: str) -> str:
        """Return a file's text, as written last."""
        name = self.checked(path)
        if name in self.writes:
            return self.writes[name]
        file = self._root / name
        if not file.is_file() or not file.resolve().is_relative_to(self._root.resolve()):
            raise Refused(f"There is no file {path!r}.")
        return file.read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> str:
        """Note a write, to be proposed; return the plain path."""
        name = self.checked(path)
        self.writes[name] = text
        return name

    def names(self) -> list[str]:
        """Return every file that may be read, with those written."""
        there = (file.relative_to(self._root).as_posix() for file in self._root.rglob("*") if file.is_file())
        return sorted({name for name in there if not PROTECTED & set(name.split("/"))} | set(self.writes))
