"""How gates and updates look in a terminal: lines of text with a style, nothing that a terminal would obey.

Invariant: what comes from a model, a file or a tool is shown character by character. Escape sequences, bidi and
zero-width characters appear by their code point and do nothing; rich's own markup is never parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from selfloop.lsp.protocol import Evidence, GateFile, GateHunk, GateReadResult
from selfloop.updates import GateInfo

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_INVISIBLE = re.compile(
    # The same characters as in the diffs that the server shows; a test holds the two equal.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_CONTEXT = 3
_STYLES = {"+": "green", "-": "red", "@": "cyan", "\\": "dim"}
RISK_STYLES = {"low": "green", "medium": "yellow", "high": "bold red"}


def visible(text: str) -> str:
    """Return the text with every character that a terminal would obey, or hide, written like ‹U+001B›."""
    return _INVISIBLE.sub(lambda match: f"‹U+{ord(match.group()):04X}›", text.replace("\r\n", "\n"))


_PHRASES = {
    # A terminal holds no keys: they come from the environment.
    "give one with selfloop/model/setKey, or set ": "set ",
    ", or give one with selfloop/model/setKey": "",
}
_METHODS = {
    "selfloop/gate/read": "`selfloop gate show`",
    "selfloop/model/select": "`selfloop model select NAME`",
    **{
        f"selfloop/{kind}/list": f"`selfloop {kind} list`"
        for kind in ("gate", "session", "loop", "run", "generation", "rule", "model")
    },
}


def said(sentence: str) -> str:
    """Return a sentence of the server in the terminal's terms: its commands instead of the protocol's methods."""
    for method, command in (*_PHRASES.items(), *_METHODS.items()):
        sentence = sentence.replace(method, command)
    return sentence


def report(rendered: str) -> str:
    """Return a round's report to show; what it failed of is told in the terminal's terms, an agent's words are kept."""
    lines = [said(line) if line.startswith("error: ") else line for line in rendered.split("\n")]
    return visible("\n".join(lines))


def console(*, stderr: bool = False) -> Console:
    """Return a console that neither wraps, guesses nor parses what it prints."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def rows(table: Sequence[Sequence[str]]) -> str:
    """Return a table as aligned lines, nothing cut off, so that `grep` and `cut` can read it."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def name_of(uri: str, root: str | None = None) -> str:
    """Return a file's name to show: relative to the root's URI where it lies below, else its path."""
    if root is not None and uri.startswith(root.rstrip("/") + "/"):
        return visible(unquote(uri[len(root.rstrip("/")) + 1 :]))
    return visible(str(PurePosixPath(unquote(urlsplit(uri).path))))


def diff(lines: Iterable[str]) -> Text:
    """Return a unified diff in colours."""
    from rich.text import Text

    text = Text()
    for line in lines:
        head = line.startswith(("diff --git", "--- ", "+++ "))
        text.append(visible(line) + "\n", "bold" if head else _STYLES.get(line[:1], ""))
    text.rstrip()
    return text


def hunk_diffs(file: GateFile) -> dict[str, list[str]]:
    """Return for each pending hunk of a file the lines of the diff that show it, with a little around it.

    The diff marks no ids, but its changed runs stand in the order of the hunks, and a run is a hunk's when it adds and
    removes the same. A hunk without such a run (a mode, a rename, binary content, a redacted secret) is shown with the
    whole diff: too much is better than something else.
    """
    lines = file.diff.rstrip("\n").split("\n")
    start = next((number for number, line in enumerate(lines) if line.startswith("@@")), len(lines))
    runs = iter(_runs(lines[start:]))
    run = next(runs, None)
    shown = {}
    for hunk in file.hunks:
        if hunk.status != "pending":
            continue
        if run is not None and _changed(run) == _promised(hunk):
            shown[hunk.hunk_id] = run
            run = next(runs, None)
        else:
            shown[hunk.hunk_id] = lines
    return shown


def _changed(run: Sequence[str]) -> tuple[int, list[str]]:
    """Return how many lines a run removes, and which it adds."""
    return sum(line[:1] == "-" for line in run), [line[1:].removesuffix("‹U+000D›") for line in run if line[:1] == "+"]


def _promised(hunk: GateHunk) -> tuple[int, list[str]]:
    """Return how many lines a hunk replaces, and by which."""
    start, end = hunk.range.start, hunk.range.end
    added = hunk.new_text.removesuffix("\n").split("\n") if hunk.new_text else []
    return end.line - start.line + (end.character > 0), [visible(line.removesuffix("\r")) for line in added]


def _runs(body: Sequence[str]) -> list[list[str]]:
    """Return each run of added and removed lines with the unchanged lines around it."""
    runs: list[list[str]] = []
    before: list[str] = []
    run: list[str] | None = None
    after = 0
    for line in body:
        if line.startswith("@@"):
            before, run = [], None
        elif line.startswith(("+", "-")) and (run is None or after):
            run, after = [*before[-_CONTEXT:], line], 0
            runs.append(run)
            before = []
        elif line.startswith(("+", "-", "\\")):
            if run is not None:
                run.append(line)
        else:
            before.append(line)
            if run is not None and after < _CONTEXT:
                run.append(line)
            after += 1
    return runs


def gate_line(gate: GateInfo) -> list[str]:
    """Return a gate as a row of `selfloop gate list`."""
    how = f"{gate.state} ({gate.resolved_by})" if gate.resolved_by else gate.state
    return [gate.gate_id, how, gate.subject.get("type", "?"), gate.risk, visible(gate.title)]


def gate_head(gate: GateInfo) -> Text:
    """Return what a gate asks, in full, its subject included."""
    from rich.text import Text

    text = Text()
    text.append(visible(gate.title), "bold")
    text.append(f"  {gate.subject.get('type', '?')}, ", "dim")
    text.append(f"{gate.risk} risk", RISK_STYLES[gate.risk])
    if gate.description:
        text.append("\n" + visible(gate.description))
    if gate.subject.get("type") == "evolution":
        text.append(_evolution(gate.subject))
        return text
    for name, value in gate.subject.items():
        if name not in ("type", "files") and value not in (None, "", []):
            text.append(f"\n  {name}: ", "dim")
            text.append(visible(value if isinstance(value, str) else str(value)))
    for option in gate.options:
        if option.rule:
            text.append(f"\n  {option.name} would remember: ", "dim")
            text.append(visible(option.rule))
    return text


def _evolution(subject: dict[str, Any]) -> Text:
    """Return what a new generation would be: what was learned, what proves it, and the change."""
    from rich.text import Text

    text = Text()
    for name in ("learned", "verify", "parent", "tree"):
        text.append(f"\n  {name}: ", "dim")
        text.append(visible(str(subject.get(name, ""))))
    for origin in subject.get("origins", ()):
        text.append("\n  from: ", "dim")
        text.append(visible(str(origin)))
    for layer in subject.get("layers", ()):
        passed = layer["passed"]
        text.append("\n  ✓ " if passed else "\n  ✗ ", "green" if passed else "red")
        text.append(visible(f"{layer['name']} {layer['title']}: {layer['reason']}"))
        text.append(f"  {layer['seconds']:.1f} s", "dim")
    text.append("\n")
    text.append(diff(str(subject.get("diff", "")).rstrip("\n").split("\n")))
    return text


def evidence(items: Sequence[Evidence]) -> Text:
    """Return the commands that ran behind a gate, each with how it ended."""
    from rich.text import Text

    text = Text()
    for item in items:
        passed = item.exit_code == 0
        text.append("✓ " if passed else "✗ ", "green" if passed else "red")
        text.append(visible(item.command).replace("\n", "⏎"))
        text.append("  ended by its deadline" if item.exit_code is None else f"  exit {item.exit_code}", "dim")
        text.append("\n")
    text.rstrip()
    return text


def hunk_line(file: GateFile, hunk: GateHunk, root: str | None = None) -> Text:
    """Return where a hunk lies and how it stands."""
    from rich.text import Text

    first, last = hunk.range.start.line + 1, max(hunk.range.start.line + 1, hunk.range.end.line)
    text = Text()
    text.append(name_of(file.uri, root), "bold")
    text.append(f":{first}" if first == last else f":{first}-{last}")
    text.append(f"  hunk {hunk.hunk_id}  {hunk.status}", "dim")
    if hunk.risk == "high":
        text.append("  high risk", RISK_STYLES["high"])
    if hunk.reason:
        text.append(f"  {visible(hunk.reason)}")
    return text


def gate(view: GateReadResult, root: str | None = None) -> Text:
    """Return a whole gate: what it asks, every change, every hunk, and the evidence."""
    from rich.text import Text

    parts = [
        gate_head(view.gate),
        Text(f"gate {view.gate.gate_id}  {view.gate.state}  digest {view.gate.digest}", "dim"),
    ]
    for file in view.files:
        parts.append(diff(file.diff.rstrip("\n").split("\n")))
        parts.extend(hunk_line(file, hunk, root) for hunk in file.hunks)
    if view.evidence:
        parts.append(evidence(view.evidence))
    return Text("\n").join(parts)
