"""Gates on commands: a model's command waits until the user has seen exactly it.

Invariant: an answer holds for one run. It is used up in the store before the command may start, so that a crash asks
again rather than running twice on one answer. A remembered rule is exact: this command, this network, this workspace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from attrs import evolve

from selfloop.changes import hidden_characters, seal, visible
from selfloop.errors import Decided, InvalidInput, Stale
from selfloop.gates.gate import APPROVE, REJECT, CommandDecision, CommandRequest, Decision, GateRecord
from selfloop.gates.ledger import Proposal
from selfloop.gates.shelf import Shelf
from selfloop.storage.rules import Rules, rule_sentence
from selfloop.updates import GateOption


class CommandGates:
    """The command gates of one workspace, and who waits at them."""

    def __init__(
        self,
        shelf: Shelf,
        workspace: Path,
        rules: Rules | None,
        on_decided: Callable[[Decision], None],
        new_id: Callable[[], tuple[str, str]],
    ) -> None:
        self._shelf, self._workspace, self._rules = shelf, workspace, rules
        self._on_decided, self._new_id = on_decided, new_id
        self._waiting: dict[str, asyncio.Future[GateRecord]] = {}
        self.closing = False

    async def ask(self, request: CommandRequest) -> CommandDecision:
        """Ask the user, unless a rule has the answer, and wait for it. Cancelling the wait cancels the gate."""
        if self._rules is not None:
            rule = await asyncio.to_thread(self._rules.match, self._workspace, request.command, network=request.network)
            if rule is not None:
                return CommandDecision(True, None, "always")
        record = self._found(request) or self._opened(request)
        if record.state == "open":
            answer = asyncio.get_running_loop().create_future()
            self._waiting[record.gate_id] = answer
            try:
                record = await answer
            except asyncio.CancelledError:
                # When the worker ends, the gate stays open: the next worker asks again, and finds it.
                if not self.closing:
                    self.cancel(record.gate_id)
                raise
            finally:
                del self._waiting[record.gate_id]
        with self._shelf.store.transaction(durable=True) as connection:
            self._shelf.ledger.consume(record.gate_id, connection)
        option = record.resolved_by or REJECT.option_id
        allowed = record.state == "resolved" and option in (APPROVE.option_id, "always")
        return CommandDecision(allowed, record.gate_id, option, record.comment)

    def resolve(
        self, record: GateRecord, option_id: str, *, digest: str | None, comment: str | None, key: str | None
    ) -> GateRecord:
        """Answer a command's gate; see `Gates.resolve`."""
        if record.state != "open":
            if record.state == "resolved" and record.resolved_by == option_id:
                return record
            said = record.resolved_by if record.state == "resolved" else record.state
            raise Decided(f"This command was answered before ({said}); that stands, and nothing was changed.")
        if digest is None and option_id != REJECT.option_id:
            raise InvalidInput("An approval needs the gate's digest, so nothing was approved; read the gate first.")
        if digest is not None and digest != record.digest:
            raise Stale("The digest is not that of this command, so nothing was approved; read the gate again.")
        if option_id == "always" and self._rules is not None:
            command, network = record.subject["command"], record.subject["network"]
            self._rules.add(self._workspace, command, network=network, origin=record.gate_id, example=command)
        record = evolve(record, state="resolved", resolved_by=option_id, comment=comment)
        with self._shelf.store.transaction(durable=True) as connection:
            self._shelf.ledger.save(Proposal(record), connection)
            self._shelf.store.note_outcome(key, connection)
        self._shelf.keep(Proposal(record))
        self._answer(record)
        self._shelf.publish(record)
        self._on_decided(Decision(record.gate_id, record.session_id, option_id, comment=comment))
        return record

    def cancel(self, gate_id: str) -> None:
        """Cancel an open gate; whoever waits is refused."""
        record = self._shelf.record(gate_id)
        if record.state != "open":
            return
        record = evolve(record, state="cancelled")
        self._shelf.save(Proposal(record))
        self._answer(record)
        self._shelf.publish(record)

    def _answer(self, record: GateRecord) -> None:
        answer = self._waiting.get(record.gate_id)
        if answer is not None and not answer.done():
            answer.set_result(record)

    def _found(self, request: CommandRequest) -> GateRecord | None:
        """Return a gate of an earlier worker for the same call: open, or answered and not used.

        An open one that nobody waits at is taken over by another call for exactly the same.
        """
        same = [
            record
            for record in self._shelf.ledger.command_gates(request.session_id)
            if record.digest == _digest(request) and record.gate_id not in self._waiting
        ]
        own = [record for record in same if record.turn_id == request.tool_call_id]
        return next(iter(own or [record for record in same if record.state == "open"]), None)

    def _opened(self, request: CommandRequest) -> GateRecord:
        gate_id, created_at = self._new_id()
        rule = rule_sentence(request.command, network=request.network, workspace=self._workspace)
        always = GateOption(option_id="always", name="Always allow this command", kind="allow_always", rule=rule)
        record = GateRecord(
            gate_id,
            request.session_id,
            "command",
            {
                "type": "command",
                "command": request.command,
                "shown": visible(request.command),
                "folder": request.folder,
                "network": request.network,
                "isolation": request.isolation,
                **({"reason": request.reason} if request.reason else {}),
            },
            f"Run: {visible(request.command).splitlines()[0][:80] if request.command.strip() else '(empty)'}",
            _digest(request),
            created_at,
            risk="high" if hidden_characters(request.command) or request.isolation != "process" else "medium",
            options=(APPROVE, always, REJECT) if self._rules is not None else (APPROVE, REJECT),
            description=request.reason,
            turn_id=request.tool_call_id,
        )
        with self._shelf.store.transaction(durable=True) as connection:
            self._shelf.ledger.save(Proposal(record), connection)
        self._shelf.keep(Proposal(record))
        self._shelf.publish(record)
        return record


def _digest(request: CommandRequest) -> str:
    return seal("command", request.session_id, request.command, request.folder, int(request.network), request.isolation)
