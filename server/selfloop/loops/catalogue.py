"""Which loops there are: ours (`prompts/loops/`), the user's own (`<config>/loops/`), the repository's (`.evo/loops/`).

    file ──▶ LoopSpec ──▶ the user's settings on top (`overlay.py`) ──▶ Loop

Invariant: one name is one loop. The user's own file takes the place of ours; a repository's never takes the place of
either, since what the user has turned on must not change hands. One file that cannot be read hides no other, and a
broken edit leaves the last good version in use. All of it is said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import asdict, define, evolve, field, frozen

from selfloop.config import Folders
from selfloop.errors import InvalidInput, Stale, Unknown
from selfloop.loops import specfile
from selfloop.loops.cadence import parse
from selfloop.loops.gate import raised
from selfloop.loops.overlay import digest, overlay, written_budget
from selfloop.loops.spec import Level, LoopBudget, LoopSpec, Origin, check_limits, read_action
from selfloop.loops.watching import watch_folders
from selfloop.storage.loop_settings import LoopSetting, LoopSettings

logger = logging.getLogger(__name__)

MOST_FILES = 500
"""Of one folder; a repository cannot keep us reading."""


@frozen
class Loop:
    """A loop as it runs."""

    spec: LoopSpec
    """With the user's settings on top: what the engine takes."""
    enabled: bool
    path: Path
    notices: tuple[str, ...] = ()
    """What was taken from it or ignored, one sentence each."""


@frozen
class Wanted:
    """A change of a loop's settings that was understood and not yet made."""

    loop_id: str
    before: LoopSpec
    after: LoopSpec
    values: dict[str, Any]
    """What to keep in the settings."""
    digest: str
    """Of the loop's file, as it was."""
    raises: tuple[str, ...]
    """What the loop could do more by itself, one sentence each: not empty means that a gate must ask for it."""


@define
class _File:
    """A file that was seen."""

    stamp: tuple[int, int, int]
    spec: LoopSpec | None = None
    """Its last good version."""
    fault: str | None = None


@define
class _Scope:
    folder: Path
    origin: Origin
    shown: str
    """How its files are named to the user."""
    files: dict[str, _File] = field(factory=dict)


class Catalogue:
    """The loops of one workspace."""

    def __init__(
        self,
        builtin: Path,
        workspace: Path,
        folders: Folders,
        *,
        notice: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """Read the loops.

        Args:
            builtin: the folder of our own loops, `Prompts.load().folder / "loops"`.
            workspace: the folder that holds `.evo/`.
            folders: the user's folders; their own loops lie in `config`, the settings in `data`.
            notice: takes one plain sentence for the user, each once while it holds.
        """
        self.settings = LoopSettings(folders.data, workspace)
        self._scopes = (
            _Scope(builtin, "builtin", "prompts/loops"),
            _Scope(folders.config / "loops", "user", str(folders.config / "loops")),
            _Scope(workspace / ".evo" / "loops", "workspace", ".evo/loops"),
        )
        self._notice = notice
        self._loops: dict[str, Loop] = {}
        self.notices: tuple[str, ...] = ()
        """What holds now about files that were not loaded or took another's place."""
        self.reload()

    # Reading

    def loops(self) -> tuple[Loop, ...]:
        """Return every loop, by name."""
        return tuple(self._loops[name] for name in sorted(self._loops))

    def get(self, loop_id: str) -> Loop:
        """Return one loop.

        Raises:
            Unknown: there is none of this name.
        """
        try:
            return self._loops[loop_id]
        except KeyError:
            raise Unknown("Loop", loop_id) from None

    def on(self) -> dict[str, str]:
        """Return the cadences of the loops that are on, as the scheduler takes them."""
        return {loop.spec.name: loop.spec.cadence for loop in self.loops() if loop.enabled}

    def globs(self) -> dict[str, str]:
        """Return what the loops that are on and run on change wait for."""
        cadences = {name: parse(text) for name, text in self.on().items()}
        return {name: cadence.glob for name, cadence in cadences.items() if cadence.kind == "change"}

    def reload(self) -> bool:
        """Read what has changed of the files and the settings, and tell whether any loop is another now."""
        said: list[str] = []
        chosen: dict[str, tuple[LoopSpec, Path, _Scope]] = {}
        for scope in self._scopes:
            _look(scope)
            for name, file in sorted(scope.files.items()):
                if file.fault is not None:
                    kept = " Its last good version stays in use." if file.spec else ""
                    said.append(file.fault + kept)
                if file.spec is not None:
                    self._choose(chosen, file.spec, scope, name, said)
        settings = self.settings.all()
        before, self._loops = self._loops, {}
        for name, (spec, path, _) in chosen.items():
            effective, enabled, notices = overlay(spec, settings.get(name, LoopSetting()))
            self._loops[name] = Loop(effective, enabled, path, notices)
        for sentence in said:
            if sentence not in self.notices:
                self._notice(sentence)
        self.notices = tuple(said)
        return self._loops != before

    def _choose(
        self,
        chosen: dict[str, tuple[LoopSpec, Path, _Scope]],
        spec: LoopSpec,
        scope: _Scope,
        file: str,
        said: list[str],
    ) -> None:
        """Take a loop into the catalogue, unless its name is another's."""
        here = f"{scope.shown}/{file}"
        taken = chosen.get(spec.name)
        if taken is not None:
            other = f"{taken[2].shown}/{taken[1].name}"
            if taken[2] is scope:
                said.append(
                    f"{here} has the name {spec.name}, as {other} has, so it was not loaded; rename one of them."
                )
                return
            if scope.origin == "workspace":
                said.append(
                    f"{here} has the name {spec.name} of a loop that is not the repository's ({other}), so it was not "
                    "loaded; rename it."
                )
                return
            said.append(f"Your own loop {spec.name} ({here}) takes the place of the built-in one.")
        chosen[spec.name] = (spec, scope.folder / file, scope)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Read the files again whenever they change, and say when a loop has become another; until cancelled."""

        def again() -> None:
            if self.reload():
                changed()

        while True:
            try:
                await watch_folders([scope.folder for scope in self._scopes], again)
            except OSError as error:
                self._notice(
                    f"Files of loops cannot be watched ({error.strerror or error}), so their edits count only after a "
                    "restart of Selfloop."
                )
                return
            await asyncio.sleep(1)

    # Settings

    def want(
        self,
        loop_id: str,
        *,
        enabled: bool | None = None,
        level: str | None = None,
        cadence: str | None = None,
        budget: LoopBudget | None = None,
        allow: list[str] | tuple[str, ...] | None = None,
    ) -> Wanted:
        """Return what a change of settings would do, without making it; None leaves a value as it is.

        Raises:
            Unknown: there is no such loop.
            InvalidInput: a value makes no sense; nothing was changed.
        """
        loop = self.get(loop_id)
        before = loop.spec
        values: dict[str, Any] = {"origin": before.origin}
        after = before
        if enabled is not None:
            values["enabled"] = enabled
        try:
            if cadence is not None:
                values["cadence"] = parse(cadence).text
                after = evolve(after, cadence=values["cadence"])
            if budget is not None:
                check_limits(budget.round)
                check_limits(budget.day)
                values["budget"] = written_budget(budget)
                after = evolve(after, budget=budget)
            if allow is not None:
                after = evolve(after, allow=tuple(read_action(kind) for kind in allow))
                values["allow"] = after.allow
        except InvalidInput as error:
            raise InvalidInput(f"Nothing of {loop_id} was changed: {error.message}.") from error
        if level is not None:
            after = self._leveled(after, Level.read(level))
            values["level"] = after.level.value
        raises = raised(before, after)
        file = digest(self._written(loop_id))
        if "level" in values or "allow" in values:
            # Both together: what was given to an earlier text must not come back with what is given to this one.
            values |= {"level": after.level.value, "allow": after.allow, "authorised": file}
        return Wanted(loop_id, before, after, values, file, raises)

    def accept(self, wanted: Wanted) -> Loop:
        """Make a change of settings: at once if it raises nothing, else once the user has approved it.

        Raises:
            Unknown: the loop is no more.
            Stale: the loop's file is not what it was when the change was understood; nothing was changed.
            StoreError: nothing was changed.
        """
        self.reload()
        self.get(wanted.loop_id)
        if digest(self._written(wanted.loop_id)) != wanted.digest:
            raise Stale(
                f"The file of the loop {wanted.loop_id} has changed since, so nothing was set; read it and try again."
            )
        values = wanted.values
        if self.settings.get(wanted.loop_id).origin not in (None, wanted.before.origin):
            # What was set for another's loop of this name is not taken over.
            values = {**asdict(LoopSetting()), **values}
        self.settings.change(wanted.loop_id, **values)
        self.reload()
        return self.get(wanted.loop_id)

    def _leveled(self, spec: LoopSpec, level: Level) -> LoopSpec:
        if level.rank > spec.max_level.rank:
            raise InvalidInput(
                f"The file of the loop {spec.name} allows {spec.max_level} at most, so its level was not changed."
            )
        return evolve(spec, level=level)

    def _written(self, loop_id: str) -> LoopSpec:
        """Return a loop as its file has it."""
        path = self.get(loop_id).path
        for scope in self._scopes:
            file = scope.files.get(path.name) if path.parent == scope.folder else None
            if file is not None and file.spec is not None:
                return file.spec
        raise Unknown("Loop", loop_id)


def _look(scope: _Scope) -> None:
    """Bring what is known of a folder's files up to date."""
    names = _names(scope)
    for name in set(scope.files) - set(names):
        del scope.files[name]
    for name in names:
        path = scope.folder / name
        try:
            status = path.lstat() if scope.origin == "workspace" else path.stat()
        except OSError:
            # It went away, or a link leads nowhere; what cannot be read is said by `read_file` below.
            stamp = (0, 0, 0)
        else:
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = scope.files.get(name)
        if known is not None and known.stamp == stamp:
            continue
        file = scope.files.setdefault(name, _File(stamp))
        file.stamp = stamp
        try:
            file.spec = specfile.read_file(path, scope.origin, shown=f"{scope.shown}/{name}")
            file.fault = None
        except InvalidInput as error:
            file.fault = error.message


def _names(scope: _Scope) -> list[str]:
    folder = scope.folder
    if scope.origin == "workspace" and (folder.is_symlink() or folder.parent.is_symlink()):
        return []
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix == ".md" and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        logger.warning("The loops in %s cannot be read (%s).", folder, error)
        return []
    return names[:MOST_FILES]
