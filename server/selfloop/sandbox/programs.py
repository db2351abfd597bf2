"""How the arguments of a program are read, so that what it would do with each of them is known.

Invariant: an option that is not listed is refused, wherever it stands among the arguments; abbreviations of long
options are not listed either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from attrs import field, frozen

_NAME = re.compile(r"[\w.+-]{1,60}")


_NUMBER = r"[+-]?[0-9]{1,9}"
_ANY = r"(?s).*"
_FIND_VALUES = {
    **dict.fromkeys(("-name", "-iname", "-path", "-ipath", "-wholename"), _ANY),
    **dict.fromkeys(("-mtime", "-mmin", "-ctime", "-cmin"), _NUMBER),
    "-type": r"[fdl](?:,[fdl])*",
    "-maxdepth": r"[0-9]{1,4}",
    "-mindepth": r"[0-9]{1,4}",
    "-size": r"[+-]?[0-9]{1,12}[bckwMG]?",
}
_FIND_WORDS = frozenset(
    "-empty -not ! -o -or -a -and ( ) -print -print0 -prune -ls -depth -xdev -mount -true -false".split()
)


class Refused(Exception):
    """Raised when a command is not to run unasked; the message completes "because …"."""


class Program(Protocol):
    """One program of the list."""

    def files(self, arguments: list[str], *, piped: bool) -> list[str]:
        """Return the files that the arguments name; Refused if anything about them is not on the list."""
        ...


@frozen
class Reader:
    """A program with options in the GNU manner, and files as operands."""

    short: str = ""
    """Letters without a value."""
    valued: Mapping[str, str] = field(factory=dict)
    """Letters with a value, and the pattern that it must fit."""
    long: Mapping[str, str | None] = field(factory=dict)
    """Long options, and the pattern of their value (given by `=`); None for those without."""
    skip: int = 0
    """Operands before the files: a search pattern, for instance."""
    skip_unless: str = ""
    """A letter that gives the pattern instead."""
    least: int = 1
    """Files that must be named unless there is a pipe to read from."""
    most: int = 200
    reads_folder: str = ""
    """Letters with which a program reads the folder it runs in when no file is named."""
    number_as_flag: bool = False
    """Whether `-5` is an option."""
    filters: bool = False
    """Whether it reads nothing but a pipe."""
    operand: str | None = None
    """The pattern of operands that are no files at all."""

    def files(self, arguments: list[str], *, piped: bool) -> list[str]:
        """See Program."""
        given: set[str] = set()
        operands: list[str] = []
        rest = iter(arguments)
        for argument in rest:
            if argument == "--":
                operands += rest
            elif argument.startswith("--"):
                self._long(argument)
            elif argument.startswith("-") and argument != "-":
                if not (self.number_as_flag and argument[1:].isdecimal()):
                    given |= self._short(argument[1:], rest)
            else:
                operands.append(argument)
        if self.operand is not None:
            self._check_operands(operands)
            if self.filters and not piped:
                raise Refused("it would wait for input")
            return []
        skipped = 0 if self.skip_unless and self.skip_unless in given else self.skip
        if len(operands) < skipped:
            raise Refused("something to look for is missing")
        files = operands[skipped:]
        reads_folder = bool(given & set(self.reads_folder))
        if (len(files) < self.least or "-" in files) and not piped and not reads_folder:
            raise Refused("it would wait for input")
        if len(files) > self.most:
            raise Refused("it has an operand that may be written to")
        return files

    def _long(self, argument: str) -> None:
        name, equals, value = argument[2:].partition("=")
        if name not in self.long:
            raise Refused(f"the option --{name} is not on the list")
        pattern = self.long[name]
        if bool(equals) != (pattern is not None) or (pattern is not None and not re.fullmatch(pattern, value)):
            raise Refused(f"the value of --{name} is not on the list")

    def _short(self, letters: str, rest: object) -> set[str]:
        """Read a cluster of short options; one with a value takes what follows, or the next argument."""
        found: set[str] = set()
        for position, letter in enumerate(letters):
            if letter in self.valued:
                value = letters[position + 1 :] or next(rest, None)  # type: ignore[call-overload]
                if value is None or not re.fullmatch(self.valued[letter], value):
                    raise Refused(f"the value of -{letter} is not on the list")
                return found | {letter}
            if letter not in self.short:
                raise Refused(f"the option -{letter} is not on the list")
            found.add(letter)
        return found

    def _check_operands(self, operands: list[str]) -> None:
        if not self.least <= len(operands) <= self.most or any(
            not re.fullmatch(self.operand or "", operand) for operand in operands
        ):
            raise Refused("one of its operands is not on the list")


@frozen
class Words:
    """A program that only prints the words it is given."""

    def files(self, arguments: list[str], *, piped: bool) -> list[str]:
        """See Program. A backslash may be an escape sequence, so it is not for here."""
        if any(argument.startswith("-") or "\\" in argument for argument in arguments):
            raise Refused("it has an option or an escape sequence")
        return []


@frozen
class Printf:
    """`printf`, with the plainest of formats."""

    def files(self, arguments: list[str], *, piped: bool) -> list[str]:
        """See Program."""
        if not arguments or not re.fullmatch(r"(?:[^\\%-]|%s|%d|%%|\\n|\\t)(?:[^\\%]|%s|%d|%%|\\n|\\t)*", arguments[0]):
            raise Refused("its format is not plain")
        if any("\\" in argument for argument in arguments[1:]):
            raise Refused("it has an escape sequence")
        return []


@frozen
class Test:
    """`test` and `[`, with one comparison."""

    bracket: bool = False

    def files(self, arguments: list[str], *, piped: bool) -> list[str]:
        """See Program."""
        if self.bracket:
            if not arguments or arguments[-1] != "]":
                raise Refused("a bracket is not closed")
            arguments = arguments[:-1]
        if arguments and arguments[0] == "!":
            arguments = arguments[1:]
        match arguments:
            case ["-e" | "-f" | "-d" | "-s" | "-r" | "-w" | "-x" | "-L" | "-h", path] if not path.startswith("-"):
                return [path]
            case ["-n" | "-z", _]:
                return []
            case [left, "=" | "!=", right] if not left.startswith(("-", "(", "!")) and not right.startswith("-"):
                return []
            case [left, "-eq" | "-ne" | "-lt" | "-le" | "-gt" | "-ge", right]:
                if left.isdecimal() and right.isdecimal():
                    return []
        raise Refused("its condition is not on the list")


@frozen
class Find:
    """`find`, with tests that only look at names, kinds, sizes and times."""

    def files(self, arguments: list[str], *, piped: bool) -> list[str]:
        """See Program."""
        places: list[str] = []
        rest = iter(arguments)
        started = False
        for argument in rest:
            if argument in _FIND_VALUES:
                value = next(rest, None)
                if value is None or not re.fullmatch(_FIND_VALUES[argument], value):
                    raise Refused(f"the value of {argument} is not on the list")
                started = True
            elif argument in _FIND_WORDS:
                started = True
            elif started or argument.startswith(("-", "(", ")", "!", ",")):
                raise Refused(f"find's {argument!r} is not on the list")
            else:
                places.append(argument)
        return places


@frozen
class CommandV:
    """`command -v name`."""

    def files(self, arguments: list[str], *, piped: bool) -> list[str]:
        """See Program."""
        if len(arguments) != 2 or arguments[0] != "-v" or not _NAME.fullmatch(arguments[1]) or arguments[1][0] == "-":
            raise Refused("only `command -v` with a name is on the list")
        return []
