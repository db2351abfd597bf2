"""What git would ignore by the user's own rules, read as data.

Lowest first: folders that no project wants tracked, the user's global excludes file, `.git/info/exclude`, and the
`.gitignore` files, which git reads itself. Invariant: patterns are all that is taken from the user's configuration.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from attrs import frozen

from selfloop.sandbox.area import Area
from selfloop.sandbox.git import git, split_nul
from selfloop.sandbox.origin import Origin, read_small, user_configuration_files

# They count only where nothing of the user's own says otherwise, and never for a file that the user's git tracks.
_DEFAULTS = b"""\
__pycache__/
*.py[cod]
.pytest_cache/
.mypy_cache/
.ruff_cache/
.hypothesis/
.venv/
venv/
.tox/
.nox/
node_modules/
.DS_Store
"""
_CONVERTS = re.compile(rb"filter|working-tree-encoding|\[attr\]", re.IGNORECASE)


@frozen
class Rules:
    """The rules as they are now, for one area."""

    options: tuple[str, ...]
    """What `git ls-files` is called with."""
    text: bytes
    changed: bool
    """Whether they differ from those that the area's index was last brought up to date with."""


class IgnoreRules:
    """The ignore rules of one shadow."""

    def __init__(self, git_dir: Path, origin: Origin, cache: Path, prefix: str) -> None:
        self._git_dir = git_dir
        self._origin = origin
        self._settled: dict[Path, bytes] = {}
        self._written: bytes | None = None
        self._options = ("--exclude-standard", f"--exclude=/{_literal(prefix)}.evo/", *_own_cache(origin.top, cache))

    async def current(self, area: Area) -> Rules:
        """Write the rules where git reads them, and return how to call it."""
        text = await asyncio.to_thread(self._write)
        return Rules(self._options, text, self._settled.get(area.index, text) != text)

    def settle(self, area: Area, rules: Rules) -> None:
        """Note that an area's index has been brought up to date with these rules."""
        self._settled[area.index] = rules.text

    async def covers_folder(self, top: Path, prefix: str) -> bool:
        """Tell whether the repository at `top` ignores the folder `prefix`."""
        await asyncio.to_thread(self._write)
        arguments = ("check-ignore", "--no-index", "-z", "--stdin")
        stdin = b"./" + os.fsencode(prefix) + b"\0"
        return bool(await git(*arguments, git_dir=self._git_dir, work_tree=top, stdin=stdin, accept=(0, 1)))

    async def which(self, area: Area, paths: list[str]) -> set[str]:
        """Return which of these paths are ignored and not in the area's index."""
        if not paths:
            return set()
        await asyncio.to_thread(self._write)
        stdin = b"".join(b"./" + os.fsencode(area.prefix + path) + b"\0" for path in paths)
        where = {"git_dir": self._git_dir, "work_tree": area.top, "index": area.index}
        output = await git("check-ignore", "-z", "--stdin", stdin=stdin, accept=(0, 1), **where)
        return {os.fsdecode(name).removeprefix(f"./{area.prefix}") for name in split_nul(output)}

    def may_convert(self, tracked: list[bytes]) -> bool:
        """Tell whether some filter or encoding may have made the user's blobs differ from the bytes on the disk.

        Conversions that change a file's length (line ends, `$Id$`) show by the length and are not looked for here.
        """
        names = {name for name in tracked if name.rpartition(b"/")[2] == b".gitattributes"}
        files = [self._origin.top / os.fsdecode(name) for name in {b".gitattributes", *names}]
        files += [Path("/etc/gitattributes"), _user_folder() / "attributes"]
        for folder in filter(None, {self._origin.git_dir, self._origin.common_dir}):
            files.append(folder / "info" / "attributes")
            if b"filter" in (read_small(folder / "config") or b"").lower():
                return True
        configured = _configured_path("attributesfile", self._origin)
        if configured is not None:
            files.append(configured)
        return any(_CONVERTS.search(read_small(file) or b"") for file in files)

    def _write(self) -> bytes:
        """Write `info/exclude` if it has changed, and return its text."""
        outer = read_small(_configured_path("excludesfile", self._origin) or _user_folder() / "ignore") or b""
        inner = read_small(self._origin.common_dir / "info" / "exclude") if self._origin.common_dir else None
        text = b"\n".join((_DEFAULTS, outer, inner or b"", b""))
        if text != self._written:
            file = self._git_dir / "info" / "exclude"
            temporary = file.with_name(f"exclude.{os.urandom(4).hex()}")
            temporary.write_bytes(text)
            temporary.replace(file)
            self._written = text
        return text


def _own_cache(top: Path, cache: Path) -> tuple[str, ...]:
    """Exclude our own cache folder where it lies inside the workspace."""
    if not cache.is_relative_to(top) or cache == top:
        return ()
    return (f"--exclude=/{_literal(cache.relative_to(top).as_posix())}/",)


def _literal(path: str) -> str:
    """Return a path as an ignore pattern that means itself."""
    return re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)


def _user_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git"


def _configured_path(key: str, origin: Origin) -> Path | None:
    """Return the file that `core.<key>` names, the repository's own setting first."""
    files = [folder / "config" for folder in (origin.git_dir, origin.common_dir) if folder]
    for file in (*files, *reversed(user_configuration_files()), Path("/etc/gitconfig")):
        text = (read_small(file) or b"").decode("utf-8", "replace")
        found = re.findall(rf"^\s*{key}\s*=\s*\"?(.*?)\"?\s*$", text, re.IGNORECASE | re.MULTILINE)
        if found:
            path = Path(found[-1].replace("~/", f"{Path.home()}/", 1))
            return path if path.is_absolute() else None
    return None
