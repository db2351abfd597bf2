"""A map of the repository: its files and what they define, so that the model looks in the right place first.

Invariant: bounded in size and in time, never on the start path, and cached for each file by its size and time of
change. A file that cannot be parsed is listed by its name. Nothing of a file but the first lines of its definitions
is shown.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

logger = logging.getLogger(__name__)

MOST_FILES = 4_000
"""Files that are looked at, the shallow ones first."""
LARGEST_FILE_BYTES = 256 * 1024
MOST_SECONDS = 2.0
MOST_NAMED = 30
MOST_DRAWN = 16
"""Maps that are kept whole."""
MOST_FOLDERS = 60
SIGNATURE_CHARS = 110
_SKIPPED = {
    ".git", ".evo", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", "target", "dist", "build", "vendor",
    ".mypy_cache", ".ruff_cache", ".pytest_cache", ".tox", ".idea", ".vscode",
}  # fmt: skip
_LANGUAGES = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".jsx": "javascript", ".mjs": "javascript",
    ".cjs": "javascript", ".ts": "typescript", ".mts": "typescript", ".cts": "typescript", ".tsx": "tsx", ".go": "go",
    ".rs": "rust", ".java": "java", ".sh": "bash", ".bash": "bash",
}  # fmt: skip
_DEFINITIONS = {
    "class_definition", "function_definition", "class_declaration", "abstract_class_declaration",
    "function_declaration", "generator_function_declaration", "method_definition", "interface_declaration",
    "type_alias_declaration", "enum_declaration", "method_declaration", "constructor_declaration",
    "record_declaration", "type_spec", "function_item", "struct_item", "enum_item", "trait_item", "impl_item",
    "type_item", "macro_definition", "function_signature_item", "abstract_method_signature", "internal_module",
}  # fmt: skip
_CONTAINERS = {
    "class_definition", "class_declaration", "abstract_class_declaration", "interface_declaration", "impl_item",
    "trait_item", "enum_declaration", "record_declaration", "internal_module",
}  # fmt: skip
_WRAPPERS = {
    "module", "program", "source_file", "decorated_definition", "export_statement", "ambient_declaration", "block",
    "class_body", "interface_body", "enum_body", "enum_body_declarations", "declaration_list", "type_declaration",
    "mod_item", "statement_block", "lexical_declaration", "expression_statement", "if_statement",
}  # fmt: skip
_FUNCTION_VALUES = {"arrow_function", "function_expression", "function"}
_OPENING = re.compile(r"\s*(?:=>|[{:=])\s*$")
"""What stands between a signature and its body."""
_IDENTIFIER = re.compile(rb"[A-Za-z_]\w{3,}")


@frozen
class Definition:
    """One thing that a file defines."""

    name: str
    signature: str
    depth: int


@frozen
class FileFacts:
    """What is known of a file."""

    definitions: tuple[Definition, ...]
    mentions: frozenset[bytes]
    """The identifiers in it."""


@define
class RepositoryMap:
    """Builds maps and remembers what it has parsed. Calls block: make them in a thread."""

    most_seconds: float = MOST_SECONDS
    _drawn: dict[tuple[str, int], str] = field(factory=dict, init=False)
    _named: dict[tuple[str, str], list[str]] = field(factory=dict, init=False)
    _facts: dict[tuple[str, int, int], FileFacts] = field(factory=dict, init=False)
    _parsers: dict[str, Parser | None] = field(factory=dict, init=False)

    def render(self, root: Path, most_chars: int, tree: str | None = None) -> str:
        """Return the map of the files below `root`, at most `most_chars` long; "" where there are none.

        The files whose names are used most by others come with their definitions, the rest by folder and number.

        Args:
            root: the folder.
            most_chars: the limit.
            tree: names what lies there, so that it is drawn once; it may be a near relative, such as what it was before
                a change. None: nobody knows.
        """
        if tree is not None and (known := self._drawn.get((tree, most_chars))) is not None:
            return known
        ends = time.monotonic() + self.most_seconds
        paths, whole = _files(root)
        facts: dict[str, FileFacts] = {}
        late = False
        for path in paths:
            if late := time.monotonic() > ends:
                whole = False
                break
            if Path(path).suffix in _LANGUAGES and (found := self._look_at(root, path)) is not None:
                facts[path] = found
        drawn = _render(paths, facts, most_chars, whole)
        if tree is not None and not late:  # Else more of it is known the next time.
            _keep(self._drawn, (tree, most_chars), drawn)
        return drawn

    def named(self, root: Path, name: str, tree: str) -> list[str]:
        """Return the files of this name in the folders below `root`, the root itself excepted; `tree` as above."""
        if (known := self._named.get((tree, name))) is None:
            paths, _ = _files(root)
            known = [path for path in paths if path.endswith(f"/{name}")][:MOST_NAMED]
            _keep(self._named, (tree, name), known)
        return known

    def _look_at(self, root: Path, path: str) -> FileFacts | None:
        file = root / path
        try:
            status = file.lstat()
            key = (path, status.st_mtime_ns, status.st_size)
            if key in self._facts:
                return self._facts[key]
            if status.st_size > LARGEST_FILE_BYTES:
                return None
            descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as opened:
                data = opened.read(LARGEST_FILE_BYTES)
        except OSError:
            return None
        parser = self._parser(_LANGUAGES[file.suffix])
        if parser is None:
            return None
        definitions = tuple(_definitions(parser.parse(data).root_node, 0))
        facts = FileFacts(definitions, frozenset(_IDENTIFIER.findall(data)))
        if len(self._facts) > 2 * MOST_FILES:
            self._facts.clear()
        self._facts[key] = facts
        return facts

    def _parser(self, language: str) -> Parser | None:
        if language not in self._parsers:
            self._parsers[language] = _load(language)
        return self._parsers[language]


def _keep(kept: dict[Any, Any], key: tuple[str, Any], value: Any) -> None:
    kept[key] = value
    while len(kept) > MOST_DRAWN:
        kept.pop(next(iter(kept)), None)


def _load(language: str) -> Parser | None:
    """Return a parser; None where its wheel is missing or does not fit, for the map is a help and no need."""
    import importlib

    package = "tree_sitter_typescript" if language == "tsx" else f"tree_sitter_{language}"
    function = {"typescript": "language_typescript", "tsx": "language_tsx"}.get(language, "language")
    try:
        from tree_sitter import Language, Parser

        return Parser(Language(getattr(importlib.import_module(package), function)()))
    except (ImportError, AttributeError, ValueError, OSError) as error:
        logger.warning("The repository map goes without %s: %s", language, error)
        return None


def _files(root: Path) -> tuple[list[str], bool]:
    """Return the files below a folder, level by level and by name, and whether these are all."""
    found: list[str] = []
    level = [""]
    while level:
        below: list[str] = []
        for folder in level:
            try:
                with os.scandir(root / folder if folder else root) as entries:
                    named = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in named:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if not path.isprintable():
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _SKIPPED:
                        below.append(path)
                elif entry.is_file(follow_symlinks=False):
                    found.append(path)
                if len(found) >= MOST_FILES:
                    return found, False
        level = below
    return found, True


def _definitions(node: Node, depth: int) -> Iterator[Definition]:
    """Walk the definitions that others can see: what stands inside a function is its own business."""
    for child in node.named_children:
        kind = child.type
        if kind == "variable_declarator" or kind in _DEFINITIONS:
            if kind == "variable_declarator" and not _is_function(child):
                continue
            named = child.child_by_field_name("name") or child.child_by_field_name("type")
            name = _text(named) if named else ""
            if name.startswith("_") and not name.startswith("__"):
                continue
            yield Definition(name, _signature(child), depth)
            body = child.child_by_field_name("body")
            if kind in _CONTAINERS and body is not None and depth < 3:
                yield from _definitions(body, depth + 1)
        elif kind in _WRAPPERS:
            yield from _definitions(child, depth)


def _is_function(declarator: Node) -> bool:
    value = declarator.child_by_field_name("value")
    return value is not None and value.type in _FUNCTION_VALUES


def _signature(node: Node) -> str:
    """Return a definition up to its body, on one line."""
    body = node.child_by_field_name("body")
    if body is None and node.type == "variable_declarator":
        value = node.child_by_field_name("value")
        body = value.child_by_field_name("body") if value is not None else None
    data = node.text or b""
    if body is not None:
        data = data[: body.start_byte - node.start_byte]
    line = _OPENING.sub("", " ".join(data.decode("utf-8", "replace").split()))
    return line if len(line) <= SIGNATURE_CHARS else line[: SIGNATURE_CHARS - 1] + "…"


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")


def _render(paths: Sequence[str], facts: dict[str, FileFacts], most_chars: int, whole: bool) -> str:
    if not paths:
        return ""
    blocks = {
        path: "\n".join([path, *("  " * (item.depth + 1) + item.signature for item in found.definitions)])
        for path, found in facts.items()
        if found.definitions
    }
    names = _by_folder(paths)
    left = most_chars - len(names) - 200
    chosen: set[str] = set()
    for path in _ranked(facts):
        if path in blocks and len(blocks[path]) + 1 <= left:
            chosen.add(path)
            left -= len(blocks[path]) + 1
    parts = [blocks[path] for path in sorted(chosen)]
    if len(chosen) < len(paths):
        parts.append(f"All files by folder:\n{names}")
    if not whole:
        parts.append("(The map is not complete: the repository is large. search and list_files see everything.)")
    return "\n".join(parts)[:most_chars]


def _ranked(facts: dict[str, FileFacts]) -> list[str]:
    """Return the files by how many others use a name that only they define."""
    owners: dict[bytes, list[str]] = {}
    for path, found in facts.items():
        for item in found.definitions:
            if item.depth <= 1 and len(item.name) > 3:
                owners.setdefault(item.name.encode(), []).append(path)
    used: Counter[str] = Counter()
    for path, found in facts.items():
        for name in found.mentions & owners.keys():
            files = owners[name]
            if len(files) <= 2 and path not in files:
                used.update(files)
    return sorted(facts, key=lambda path: ("test" in path.lower(), -used[path], path.count("/"), path))


def _by_folder(paths: Sequence[str]) -> str:
    """Return the files of the root by name, and every other folder by its number of files."""
    counts = Counter(path.rpartition("/")[0] for path in paths if "/" in path)
    lines = [f"{folder}/: {count}" for folder, count in sorted(counts.items())[:MOST_FOLDERS]]
    top = [path for path in paths if "/" not in path]
    if top:
        lines.insert(0, f"In the root: {', '.join(top[:MOST_NAMED])}{' …' if len(top) > MOST_NAMED else ''}")
    return "\n".join(lines)
