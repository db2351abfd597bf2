"""One turn's updates as the Markdown of an answer in a chat file.

    messages as they are · > one line for each tool call · > notices, command gates, how the turn ended, the proposal

Invariant: the text only ever grows, and how far it has grown is a function of the updates alone. So an answer that a
killed worker left in the middle is gone on with by the `seq` that stands in the file, and nothing of it comes twice.
What the model wrote is data: control characters go, and nothing in it can be taken for one of the file's own marks.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from selfloop.lsp.chat_text import OPENING, tame
from selfloop.updates import (
    Gate,
    GateInfo,
    MessageChunk,
    MessageUpdate,
    Notice,
    State,
    ToolCallUpdate,
    UpdateEnvelope,
)

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_DECEIVING = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that change the order of what is seen, or look like line ends."""
_TITLE_CHARACTERS = 200

_ENDINGS = {
    "cancelled": "Stopped.",
    "max_tokens": "The answer was cut off: the model may not write more in one answer. Send “go on” to have the rest.",
    "budget": "Stopped: the budget of this turn is used up.",
    "stuck": "Stopped: the agent did the same again and again. Say it in other words, or give it more to go by.",
}


class AnswerText:
    """The text of one turn's answer, as far as its updates are known."""

    def __init__(self, turn_id: str, after: int) -> None:
        """Begin before the turn; `after` is a `seq` of the session's stream that is older than it."""
        self.turn_id = turn_id
        self.seq = after
        """The newest update that was taken in, of the turn or not."""
        self.begun = False
        self.ended = False
        self._inside = False
        self._seqs: list[int] = []
        self._pieces: list[str] = []
        self._now: list[str] = []
        self._closing = ""
        self._quoting = False
        """The last line is one of our own."""
        self._message: str | None = None
        self._raw = ""
        self._held = ""
        """The end of a message that may be the beginning of a mark, or white space that nothing follows."""
        self._calls: dict[str, str] = {}
        self._gates: set[tuple[str, str]] = set()
        self._proposal: GateInfo | None = None

    def take(self, envelope: UpdateEnvelope) -> None:
        """Take in the next update of the session's stream."""
        self.seq = envelope.seq
        update = envelope.update
        if isinstance(update, State) and update.state == "running" and update.turn_id == self.turn_id:
            self._inside = self.begun = True
            return
        if not self._inside or self.ended:
            return
        match update:
            case MessageChunk():
                self._write(update.message_id, update.text)
            case MessageUpdate() if update.role == "assistant":
                self._whole(update)
            case ToolCallUpdate():
                self._tool(update)
            case Gate():
                self._gate(update.gate)
            case Notice():
                label = "" if update.severity == "info" else f"{update.severity.capitalize()}: "
                self._quote(label + " ".join(update.text.split()))
            case State(state="idle") if update.turn_id in (None, self.turn_id):
                self._end(update)
        self._keep()

    def close(self, sentence: str) -> None:
        """End the text with a sentence, because no update will."""
        self._quote(sentence)
        # No update brings it, so it must come whatever `seq` the file has reached.
        self._closing = "".join(self._now)
        self._now.clear()
        self.ended = True

    def since(self, seq: int) -> str:
        """Return what was added by the updates behind `seq`."""
        return "".join(self._pieces[bisect_right(self._seqs, seq) :]) + self._closing

    def _keep(self) -> None:
        if self._now:
            self._seqs.append(self.seq)
            self._pieces.append("".join(self._now))
            self._now.clear()

    # Messages

    def _write(self, message_id: str, text: str) -> None:
        if message_id != self._message:
            self._settle()
            self._message, self._raw = message_id, ""
        fresh = not self._raw.strip()
        self._raw += text
        text = _CONTROL.sub("", self._held + text)
        if fresh:
            text = text.lstrip("\r\n")
            if text.strip():
                self._now.append("\n\n")
                self._quoting = False
        keep = _held_from(text)
        self._held = text[keep:]
        if keep:
            self._now.append(_harmless(text[:keep]))

    def _whole(self, update: MessageUpdate) -> None:
        """Write what no chunk has told of a message: its end may have waited for the redaction, or all of it."""
        told = self._raw if update.message_id == self._message else ""
        whole, told_part = update.text.lstrip(), told.lstrip()
        if whole.startswith(told_part):
            self._write(update.message_id, whole[len(told_part) :])
        self._settle()
        if update.status == "interrupted":
            self._quote("Interrupted here.")

    def _settle(self) -> None:
        """End the message: what was held back is no mark."""
        rest = self._held.rstrip()
        self._held, self._message, self._raw = "", None, ""
        if rest:
            self._now.append(_harmless(rest))

    # Lines of our own

    def _quote(self, *lines: str) -> None:
        self._settle()
        self._now.append("" if self._quoting else "\n")
        self._now += [f"\n> {tame(_shown(line))}".rstrip() for line in lines]
        self._quoting = True

    def _tool(self, update: ToolCallUpdate) -> None:
        known = self._calls.get(update.tool_call_id)
        self._calls[update.tool_call_id] = update.status
        title = _one_line(update.title)
        if known is None:
            self._quote(f"failed: {title}" if update.status == "failed" else title)
        elif update.status == "failed" and known != "failed":
            self._quote(f"failed: {title}")

    def _gate(self, gate: GateInfo) -> None:
        if gate.subject.get("type") == "changes":
            self._proposal = gate if gate.state == "open" else None
            return
        if (gate.gate_id, gate.state) in self._gates:
            return
        self._gates.add((gate.gate_id, gate.state))
        if gate.state != "open":
            self._quote(f"The command was answered: {_one_line(gate.resolved_by or gate.state)}.")
            return
        subject = gate.subject
        network = "with network" if subject.get("network") else "without network"
        command = str(subject.get("shown") or subject.get("command") or gate.title)
        self._quote(
            f"**The agent waits for you.** It wants to run this {network}:",
            "",
            *(f"    {_shown(line)}" for line in command.split("\n")),
            "",
            "Decide by the code actions in this file; the default is no.",
        )

    def _end(self, state: State) -> None:
        self._settle()
        sentence = _ENDINGS.get(state.stop_reason or "")
        if sentence is not None:
            self._quote(sentence)
        if self._proposal is not None:
            gate = self._proposal
            self._quote(
                f"**A proposal waits:** {_one_line(gate.description or gate.title)} ({gate.gate_id}). "
                "Nothing is changed yet.",
                "Put the cursor on a marked line of a file and open the code actions to approve or reject it; the code "
                "actions here show or decide all of it.",
            )
        self.ended = True


def _held_from(text: str) -> int:
    """Return from where on a text must wait for what follows."""
    end = len(text)
    for length in range(min(len(OPENING), end), 0, -1):
        if text.endswith(OPENING[:length]):
            end -= length
            break
    return len(text[:end].rstrip())


def _harmless(text: str) -> str:
    """Return a part of a message as it may stand in the file."""
    return tame(_shown(text.replace("\r\n", "\n").replace("\r", "\n")))


def _shown(text: str) -> str:
    return _DECEIVING.sub(lambda match: f"‹U+{ord(match.group()):04X}›", _CONTROL.sub("", text))


def _one_line(text: str) -> str:
    line = " ".join(_shown(text).split())
    return line if len(line) <= _TITLE_CHARACTERS else line[: _TITLE_CHARACTERS - 1] + "…"
