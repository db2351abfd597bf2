"""Which commands may run unasked where there is no jail: plain reading ones, fully understood.

    command ──lex──▶ words and operators ──▶ simple commands ──▶ a closed list of programs, each with its flags

Invariant: an empty list means deny, and so does whatever is not understood: any expansion, substitution, glob,
redirection, assignment, background job, line break or control character, any program, flag or operand not listed.
What the shell would do with a word is exactly what is judged here.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from selfloop.errors import PathRefused
from selfloop.sandbox.allowed import PROGRAMS
from selfloop.sandbox.paths import Door
from selfloop.sandbox.programs import Refused
from selfloop.sandbox.protected import masked_in_jail, plain_name

_MOST_CHARS = 2000
_MOST_COMMANDS = 10
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:,+@%-=")
_OPERATORS = ("&&", "||", "|", ";")


@frozen
class Verdict:
    """Whether a command may run unasked."""

    auto: bool
    reason: str
    """One plain sentence: what kept it from running unasked, or why it may."""


@frozen
class Word:
    """One word, as the program will get it."""

    text: str
    bare: bool
    """Whether nothing of it was quoted or escaped."""


def classify(command: str, folder: Path | None = None) -> Verdict:
    """Judge a command for a POSIX shell.

    Args:
        command: as the model wrote it.
        folder: where it would run; then files that it names are looked at, and a link that leads outside is not read.
    """
    try:
        commands = _parse(command)
        for words, piped in commands:
            _judge(words, piped, folder)
    except Refused as refusal:
        return Verdict(False, f"It is not run unasked, because {refusal}.")
    return Verdict(True, "It only reads, and every word of it is on the list of what may run unasked.")


def _parse(command: str) -> list[tuple[list[Word], bool]]:
    """Return the simple commands, each with whether it reads from a pipe."""
    if len(command) > _MOST_CHARS:
        raise Refused("it is very long")
    tokens = _lex(command)
    commands: list[tuple[list[Word], bool]] = [([], False)]
    for item in tokens:
        if isinstance(item, Word):
            commands[-1][0].append(item)
        elif not commands[-1][0]:
            raise Refused(f"something is missing before {item!r}")
        else:
            commands.append(([], item == "|"))
    if not commands[-1][0]:
        raise Refused("it ends in an operator, or is empty")
    if len(commands) > _MOST_COMMANDS:
        raise Refused("it is made of very many commands")
    return commands


def _lex(command: str) -> list[Word | str]:
    """Split a command into words and operators."""
    tokens: list[Word | str] = []
    text: list[str] | None = None
    bare = True
    position = 0

    def end_word() -> None:
        nonlocal text, bare
        if text is not None:
            tokens.append(Word("".join(text), bare))
        text, bare = None, True

    for letter in command:
        if not (letter.isascii() and (letter.isprintable() or letter == "\t")) and not letter.isalnum():
            raise Refused("it holds a line break, or a character that is not seen or not plain")
    while position < len(command):
        letter = command[position]
        operator = next((sign for sign in _OPERATORS if command.startswith(sign, position)), None)
        if letter in " \t":
            end_word()
            position += 1
        elif operator is not None:
            end_word()
            tokens.append(operator)
            position += len(operator)
        elif letter in "'\"\\":
            piece, position = _quoted(command, position)
            text = [*(text or []), piece]
            bare = False
        elif letter in _PLAIN or not letter.isascii() or _is_bracket(command, position):
            text = [*(text or []), letter]
            position += 1
        else:
            raise Refused(f"{letter!r} means something to the shell there")
    end_word()
    return tokens


def _quoted(command: str, position: int) -> tuple[str, int]:
    """Read a quoted piece, or an escaped character; return it and where it ends."""
    quote = command[position]
    if quote == "\\":
        if position + 1 == len(command):
            raise Refused("it ends in a backslash")
        return command[position + 1], position + 2
    if quote == "'":
        end = command.find("'", position + 1)
        if end < 0:
            raise Refused("a quote is not closed")
        return command[position + 1 : end], end + 1
    pieces: list[str] = []
    position += 1
    while position < len(command):
        letter = command[position]
        if letter == '"':
            return "".join(pieces), position + 1
        if letter in "$`":
            raise Refused(f"{letter!r} is expanded inside double quotes")
        if letter == "\\":
            following = command[position + 1 : position + 2]
            pieces.append(following if following in ('"', "\\", "$", "`") else letter + following)
            position += 2
        else:
            pieces.append(letter)
            position += 1
    raise Refused("a quote is not closed")


def _is_bracket(command: str, position: int) -> bool:
    """Tell whether a bracket stands alone, as the test command has it."""
    before, after = command[position - 1 : position], command[position + 1 : position + 2]
    return command[position] in "[]" and before in ("", " ") and after in ("", " ", ";", "&", "|")


def _judge(words: list[Word], piped: bool, folder: Path | None) -> None:
    """Refuse a simple command unless all of it is on the list."""
    name, *arguments = words
    if not name.bare:
        raise Refused("the program's name is quoted")
    program = PROGRAMS.get(name.text)
    if program is None:
        raise Refused(f"{name.text!r} is not on the list of programs that only read")
    for path in program.files([word.text for word in arguments], piped=piped):
        _judge_path(path, folder)


def _judge_path(path: str, folder: Path | None) -> None:
    """Refuse a file outside the folder, or one that holds secrets."""
    parts = path.split("/")
    if path.startswith(("/", "~")) or ".." in parts:
        raise Refused(f"{path!r} may lie outside the workspace")
    if any(masked_in_jail(part) or plain_name(part) in (".git", ".evo") for part in parts):
        raise Refused(f"{path!r} may hold secrets")
    if folder is None or path in ("", "-"):
        return
    try:
        door = Door(folder)
        if door.exists(path) and door.stat(path).kind == "other":
            raise Refused(f"{path!r} is no regular file")
    except PathRefused as refusal:
        raise Refused(f"{path!r} leads out of the workspace") from refusal
