"""Which generation serves, and whether its folder is what it claims to be.

    <data>/self/active.json          which generation serves; written here alone, under active.lock
    <data>/self/generations/<tree>/  an immutable folder, laid out like our repository
    <data>/self/pycache/<tree>/      its bytecode, so that the folder stays as it is

Invariants: what is started is, byte for byte, the tree that was approved, and differs from the installed package only
where a generation may. A file that cannot be read, or says nonsense, means the installed package. Whatever is found
wrong ends with something that serves.
"""

from __future__ import annotations

import json
import os
import re
import time

from selfloop.supervisor.contract import BOOTS, ROLLBACKS, may_evolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

_TREE = re.compile(r"[0-9a-f]{40}")
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
_KEPT_OUTCOMES = 200
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The package's folder that this supervisor itself is from."""
_OTHERS = ("_prompts", "_self")
"""What an installed package has and a checkout's has not."""


class Refused(Exception):
    """Raised when a generation is not started; its text is a sentence for the user."""


class Generation:
    """One generation: the number and the git tree of its folder. Number 0 is the installed package, without a tree."""

    __slots__ = ("number", "tree")

    def __init__(self, number: int, tree: str) -> None:
        self.number = number
        self.tree = tree


INSTALLED = Generation(0, "")


class Shelf:
    """The user's generations, as far as the supervisor is concerned."""

    def __init__(self, data: str, package: str) -> None:
        """Prepare; nothing is read.

        Args:
            data: the user's data folder.
            package: the installed package's folder, `…/selfloop`, or that of the checkout that stands for it.
        """
        self._home = os.path.join(data, "self")
        self._package = package
        self._bad: set[int] = set()
        """Generations that were left where nothing could be written down."""

    # What is started

    def active(self) -> Generation:
        """Return the generation that is said to serve; its folder was not looked at."""
        state = self.read()
        return Generation(state["number"], state["tree"])

    def choose(self) -> tuple[Generation, str | None]:
        """Return what to start, and a sentence for the user where that is not what was active.

        The start is counted until `booted` says that it went well.
        """
        state, active = self.read(), self.active()
        if active.number == 0:
            return INSTALLED, None
        # A start that another supervisor is still at has not failed.
        others = [pid for pid in state["starting"] if pid != os.getpid() and _lives(pid)]
        bad = active.number in self._bad
        failed = bad or state["boots"] - len(others) >= BOOTS
        how = "went wrong before, which could not be written down" if bad else f"failed to start {BOOTS} times"
        why = f"Generation {active.number} {how}" if failed else None
        if why is None:
            try:
                self._verify(active)
                self._change(
                    lambda now: {**now, "boots": now["boots"] + 1, "starting": [*now["starting"], os.getpid()]},
                    number=active.number,
                )
                return active, None
            except Refused as problem:
                why = str(problem)
        good = Generation(state["lastGood"]["number"], state["lastGood"]["tree"])
        try:
            if good.number in (0, active.number):
                good = INSTALLED
            self._verify(good)
        except Refused:
            good = INSTALLED
        self.roll_back(active.number, why, to=good, counts=failed)
        return good, f"{why.rstrip('.')}, so {name(good)} serves instead; activate another generation, or go on as is."

    def booted(self, generation: Generation) -> None:
        """Note that a generation has begun to serve."""
        if generation.number and self.read()["boots"]:
            self._change(lambda now: {**now, "boots": 0, "starting": []}, number=generation.number)

    def abandoned(self, generation: Generation) -> None:
        """Note that a start was ended before it could go well or badly."""

        def uncounted(now: dict[str, Any]) -> dict[str, Any]:
            left = list(now["starting"])
            if os.getpid() in left:
                left.remove(os.getpid())
                return {**now, "boots": max(0, now["boots"] - 1), "starting": left}
            return now

        if generation.number:
            self._change(uncounted, number=generation.number)

    def failed(self, generation: Generation) -> None:
        """Note that a generation is not worth another start."""
        if generation.number:
            noted = self._change(lambda now: {**now, "boots": BOOTS, "starting": []}, number=generation.number)
            self._remember(generation.number, noted)

    def command(self, command: Sequence[str], generation: Generation) -> list[str]:
        """Return what starts a worker of a generation, given what starts one of the installed package."""
        if generation.number == 0:
            return [*command, os.path.dirname(self._package)] if self._package != OURS else list(command)
        bytecode = os.path.join(self._home, "pycache", generation.tree)
        server = os.path.join(self.folder(generation), "server")
        return [*command, server, bytecode]

    def folder(self, generation: Generation) -> str:
        """Return where a generation lies."""
        return os.path.join(self._home, "generations", generation.tree)

    # What becomes of it

    def begin(self, generation: Generation, by: str) -> dict[str, Any]:
        """Note that a generation serves from now on, and return what stood there before.

        Args:
            by: `approval`, `user` or `restart`.

        Raises:
            Refused: that could not be written, or evolution is paused; nothing was changed.
        """
        before = self.read()
        if by != "restart":
            self._bad.discard(generation.number)  # Somebody wants it all the same.
        if _serves(before, generation):
            return before
        try:
            with _Lock(self._home):
                before = self.read()
                self._write(self._after(before, generation, by))
        except OSError as error:
            raise Refused(
                f"{name(generation)} was not started, because the user's data folder cannot be written "
                f"({error.strerror}); mend that and try again."
            ) from error
        return before

    def _after(self, before: dict[str, Any], generation: Generation, by: str) -> dict[str, Any]:
        if by == "approval" and before["rollbacks"] >= ROLLBACKS:
            raise Refused(
                f"{before['rollbacks']} generations were rolled back, so evolution is paused and "
                f"{name(generation)} was not started; activate a generation by hand to go on."
            )
        watched = before["state"] == "probation"
        undone = watched and generation.number == before["lastGood"]["number"]
        serving = {"number": before["number"], "tree": before["tree"]}
        after = {
            **before,
            "number": generation.number,
            "tree": generation.tree,
            "parent": before["number"],
            "base": self.version(),
            "state": "settled" if undone or generation.number == 0 else "probation",
            "boots": 0,
            "starting": [],
            "lastGood": before["lastGood"] if watched else serving,
        }
        if undone:
            after["rollbacks"] = before["rollbacks"] + 1
            after["outcomes"] = _with(before, serving, "rolled-back", "The user took it back.")
        elif by == "user":
            after["rollbacks"] = 0
            after["outcomes"] = _with(before, after, "activated", "The user activated it.")
        else:
            after["outcomes"] = _with(before, after, "activated", "It was approved.")
        return after

    def take_back(self, before: dict[str, Any], generation: Generation) -> None:
        """Undo a `begin` of a generation that came to nothing; where it served before, nothing was begun."""
        if not _serves(before, generation):
            self._change(lambda now: before, number=generation.number)

    def settle(self, generation: Generation) -> None:
        """Note that a generation has stood its probation."""
        good = {"number": generation.number, "tree": generation.tree}
        self._change(
            lambda now: {
                **now,
                "state": "settled",
                "lastGood": good,
                "outcomes": _with(now, good, "settled", "It stood its probation."),
            },
            number=generation.number,
        )

    def roll_back(self, number: int, reason: str, *, to: Generation | None = None, counts: bool = True) -> None:
        """Note that the last good generation, or `to`, serves again in place of `number`, and why."""

        def back(now: dict[str, Any]) -> dict[str, Any]:
            good = {"number": to.number, "tree": to.tree} if to is not None else now["lastGood"]
            return {
                **now,
                **good,
                "state": "settled",
                "boots": 0,
                "starting": [],
                "lastGood": good,
                "rollbacks": now["rollbacks"] + counts,
                "outcomes": _with(now, now, "rolled-back", reason),
            }

        self._remember(number, self._change(back, number=number))

    def _remember(self, number: int, noted: bool) -> None:
        if not noted:
            self._bad.add(number)  # Known here, where the disk takes nothing.

    def read(self) -> dict[str, Any]:
        """Return what `active.json` says; of none, or of nonsense, that the installed package serves."""
        try:
            with open(os.path.join(self._home, "active.json"), "rb") as file:
                value = json.loads(file.read())
            value = {**value, "parent": value.get("parent"), "starting": value.get("starting", [])}
            state = {key: value[key] for key in _NONE}
            good = state["lastGood"]
            plain = all(type(number) is int for number in (state["number"], state["boots"], state["rollbacks"]))
            if (
                plain
                and all(type(pid) is int and 0 < pid < 2**31 for pid in state["starting"])
                and _is_pair(state)
                and _is_pair(good)
                and isinstance(state["outcomes"], list)
            ):
                return state
        except (OSError, ValueError, KeyError, TypeError):
            pass  # Said above: then the installed package serves.
        return {**_NONE, "base": self.version()}

    def version(self) -> str:
        """Return the version of the installed package as its file says it now: it may have been upgraded."""
        try:
            with open(os.path.join(self._package, "__init__.py"), encoding="utf-8") as file:
                found = _VERSION.search(file.read())
        except (OSError, ValueError):
            found = None
        return found[1] if found is not None else ""

    def _change(self, change: Callable[[dict[str, Any]], dict[str, Any]], *, number: int) -> bool:
        """Change what the file says; not where another supervisor has put another `number` there meanwhile.

        A home that cannot be written keeps nobody from serving, so that is no error: then it returns False.
        """
        try:
            with _Lock(self._home):
                now = self.read()
                if now["number"] == number and (after := change(now)) != now:
                    self._write(after)
            return True
        except OSError:
            return False

    def _write(self, state: dict[str, Any]) -> None:
        """Write the file, whole or not at all; the lock is held."""
        path = os.path.join(self._home, "active.json")
        descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            data = json.dumps(state, indent=1).encode()
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(path + ".new", path)

    # Whether it is what it claims to be

    def check(self, generation: Generation) -> Iterator[None]:
        """Verify a generation's folder, piece by piece; each step reads a part, so that others are served in between.

        Raises:
            Refused: it is missing, was edited, or touches what no generation may; or it descends from another version.
        """
        if generation.number == 0:
            return
        what, folder = name(generation), self.folder(generation)
        if not _TREE.fullmatch(generation.tree) or generation.number < 0:
            raise Refused(f"{what} has no folder that could be named, so it was not started.")
        if not os.path.isdir(folder) or os.path.islink(folder):
            raise Refused(f"The folder of {what} is missing, so it was not started.")
        known = self.read()
        if known["number"] == generation.number and known["base"] != self.version():
            raise Refused(f"{what} descends from Selfloop {known['base']}, and {self.version()} is installed.")
        from selfloop.supervisor.trees import hash_tree  # The installed package is not looked at.

        blobs: dict[str, str] = {}
        try:
            found = yield from hash_tree(folder, "", blobs)
            if found != generation.tree:
                raise Refused(f"The folder of {what} was changed after it was approved, so it was not started.")
            yield from self._check_protected(what, blobs)
        except OSError as error:
            raise Refused(f"The folder of {what} cannot be read ({error.strerror}), so it was not started.") from error

    def _verify(self, generation: Generation) -> None:
        for _ in self.check(generation):
            pass

    def _check_protected(self, what: str, blobs: dict[str, str]) -> Iterator[None]:
        """Compare what a worker runs and reads, and may not evolve, with the installed package."""
        from selfloop.supervisor.trees import hash_tree

        inside = os.path.join(self._package, "_prompts")
        outside = os.path.join(os.path.dirname(os.path.dirname(self._package)), "prompts")
        installed: dict[str, str] = {}
        for root, prefix in (
            (self._package, "server/selfloop"),
            (inside if os.path.isdir(inside) else outside, "prompts"),
        ):
            yield from hash_tree(root, prefix, installed, skip=(*_OTHERS, "__pycache__"))
        sealed = {path: digest for path, digest in installed.items() if not may_evolve(path)}
        theirs = {
            path: digest
            for path, digest in blobs.items()
            if path.startswith(("server/", "prompts/")) and not may_evolve(path)
        }
        if sealed != theirs:
            odd = min(path for path in {*sealed, *theirs} if sealed.get(path) != theirs.get(path))
            raise Refused(
                f"{what} differs from the installed Selfloop in {odd}, which no generation may change, so it was not "
                "started."
            )


_NONE: dict[str, Any] = {
    "version": 1,
    "number": 0,
    "tree": "",
    "parent": None,
    "base": "",
    "state": "settled",
    "boots": 0,
    "starting": [],
    "lastGood": {"number": 0, "tree": ""},
    "rollbacks": 0,
    "outcomes": [],
}


class _Lock:
    """Holds `active.lock` while a block runs."""

    def __init__(self, home: str) -> None:
        self._home = home

    def __enter__(self) -> None:
        import fcntl

        os.makedirs(self._home, mode=0o700, exist_ok=True)
        self._descriptor = os.open(os.path.join(self._home, "active.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _serves(state: dict[str, Any], generation: Generation) -> bool:
    return (state["number"], state["tree"]) == (generation.number, generation.tree)


def name(generation: Generation) -> str:
    """Return a generation's name in a sentence."""
    return f"Generation {generation.number}" if generation.number else "the installed Selfloop"


def _with(state: dict[str, Any], one: dict[str, Any], outcome: str, reason: str) -> list[Any]:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    added = {"number": one["number"], "tree": one["tree"], "state": outcome, "reason": reason, "at": at}
    return [*state["outcomes"], added][-_KEPT_OUTCOMES:]


def _is_pair(value: Any) -> bool:
    return (
        type(value["number"]) is int
        and isinstance(value["tree"], str)
        and bool(value["tree"]) == (value["number"] != 0)
    )
