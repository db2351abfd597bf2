"""The step `act`: gates are opened, or actions carried out; and what a human approves later is carried out then.

    escalate ─▶ a `changes` gate like a chat's, or an `action` gate that shows exactly what would be sent
    proceed ──▶ executors ─▶ receipts
    approved ─▶ executors ─▶ a receipt added to the stored report; its outcome stays

Invariant: one action at a time for each repository. An approval is kept until its action is carried out, over a kill
too; one that fails is told, and asked about again rather than lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, field

from selfloop.changes import FileChange
from selfloop.errors import SelfloopError, Unknown
from selfloop.gates.gate import Decision, EvidenceItem, GateRecord, highest
from selfloop.gates.questions import Question
from selfloop.gates.review import risk_of
from selfloop.loops.actions import Action, ActionFailed, Receipt, preview
from selfloop.loops.deciding import sessions_of, text_content
from selfloop.loops.executors import Executors
from selfloop.loops.kept import bring
from selfloop.loops.means import Means
from selfloop.loops.report import ReceiptInfo, RoundReport, from_json, to_json
from selfloop.loops.steps import Result, Round
from selfloop.storage.disk import now
from selfloop.storage.receipts import Receipts
from selfloop.storage.rounds import Rounds

logger = logging.getLogger(__name__)

_TITLE_CHARS = 100


@define
class Acting:
    """See the module. One for each workspace."""

    means: Means
    rounds: Rounds
    receipts: Receipts
    reported: Callable[[RoundReport], None]
    """Is told of a stored report that has got a receipt."""
    _repository: asyncio.Lock = field(factory=asyncio.Lock, init=False)

    async def prepare(self, action: Action, changes: Sequence[FileChange]) -> Action:
        """Return the action with everything filled in that its preview shows."""
        return await self._executors(action.run_id, "").prepare(action, changes)

    async def act(self, one: Round) -> Result:
        """Carry out what was decided.

        Raises:
            SelfloopError: it was not, or not provably, carried out; asked again, it looks first.
        """
        decided = one.results["decide"]
        changes = await asyncio.to_thread(one.changes)
        if decided["decision"] == "report":
            return {}
        if decided.get("gates"):
            return {"gates": decided["gates"]}
        kind = decided["action"]["kind"]
        if decided["decision"] == "proceed":
            return await self._proceed(one, kind, [Action.from_json(row) for row in decided["actions"]], changes)
        gates = []
        if kind == "apply-patch":
            one.rounds.set_state(one.run_id, content=decided["content"])
            gates += self._propose(one, changes)
        else:
            for number, row in enumerate(decided["actions"]):
                gates.append(self._ask(one, Action.from_json(row), number, changes, decided))
        if kind in ("comment", "draft") and changes:
            gates += self._propose(one, changes)  # Besides its text the round has changed files: those wait too.
        return {"gates": gates}

    async def approved(self, record: GateRecord) -> None:
        """Carry out an action that a human has approved, and add its receipt to the round's report."""
        run_id = record.run_id or ""
        try:
            action, changes = await asyncio.to_thread(self._asked_for, record)
            async with self._repository:
                executors = self._executors(run_id, record.session_id)
                receipt = await executors.act(action, changes)
        except SelfloopError as error:
            self._failed(record, error)
            return
        self.means.gates.questions.settle(record.gate_id)
        self.add_receipt(run_id, _receipt_info(receipt))
        self.means.say("info" if receipt.delivered else "warning", receipt.summary)

    def changes_approved(self, decision: Decision, run_id: str) -> None:
        """Add a receipt for changes of a round that a human has approved into the files."""
        paths = [change.path for change in decision.approved]
        if paths:
            shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
            summary = f"Approved by a human and applied: {shown}."
            self.add_receipt(run_id, ReceiptInfo(kind="apply-patch", summary=summary, at=now()))

    def add_receipt(self, run_id: str, receipt: ReceiptInfo) -> None:
        """Add a receipt to a stored report; its outcome stays."""
        try:
            record = self.rounds.get(run_id)
        except Unknown:
            return  # It is older than what is kept.
        if record.report is None:
            return  # It still runs, and takes its receipts in when it ends.
        report = from_json(record.report)
        report = msgspec.structs.replace(report, receipts=[*report.receipts, receipt])
        self.rounds.replace_report(run_id, to_json(report))
        self.reported(report)

    def of_round(self, run_id: str) -> list[ReceiptInfo]:
        """Return the receipts of what a round has carried out."""
        rows = [row.receipt for row in self.receipts.of_round(run_id) if row.receipt is not None]
        return [_receipt_info(Receipt.from_json(row)) for row in rows]

    # Asking

    def _propose(self, one: Round, changes: Sequence[FileChange]) -> list[str]:
        """Put a round's changes before the user, as a chat's are; found again after a kill."""
        gates = self.means.gates
        there = [record.gate_id for record in gates.of_run(one.run_id) if record.subject_type == "changes"]
        if there:
            return there
        session_id = one.state("maker_session")
        gates.remember_rejections(session_id, gates.rejected(sessions_of(one)))
        record = gates.propose(
            session_id,
            changes,
            title=f"{one.spec.name}: {one.results['decide']['action']['summary']}"[:_TITLE_CHARS],
            evidence=_evidence(one),
            words=[f"Loop {one.spec.name}: {one.spec.intent}"],
            run_id=one.run_id,
        )
        return [] if record is None else [record.gate_id]

    def _ask(
        self, one: Round, action: Action, number: int, changes: Sequence[FileChange], decided: Mapping[str, Any]
    ) -> str:
        """Open the gate on one action; the same one is found again."""
        own = changes if action.changes_digest is not None else ()
        risks = [risk_of(change, hunk) for change in own for hunk in change.hunks]
        subject = {
            "kind": action.kind,
            "loopId": action.loop_id,
            "preview": self.means.redact(preview(action, own)),
            "index": number,
            **{
                name: value
                for name in ("about", "number", "branch", "remote", "repository")
                if (value := getattr(action, name))
            },
        }
        return self.means.gates.questions.ask(
            Question(
                "action",
                subject,
                content=decided["content"] if own else text_content(action),
                title=f"{one.spec.name}: {_headline(action)}"[:_TITLE_CHARS],
                digest=action.digest,
                session_id=one.state("maker_session"),
                run_id=one.run_id,
                description=decided.get("reason"),
                risk=highest(["medium", *risks]),
                evidence=tuple(_evidence(one)),
                words=(f"Loop {one.spec.name}: {one.spec.intent}",),
            )
        ).gate_id

    def _asked_for(self, record: GateRecord) -> tuple[Action, list[FileChange]]:
        """Return the action that a gate asked for, and the changes that belong to it. Reads the disk.

        Raises:
            ActionFailed: it is not known any more, or is not what was shown.
        """
        steps = self.rounds.steps(record.run_id or "")
        decided = steps["decide"].result if "decide" in steps else None
        rows = decided["actions"] if decided else []
        if not 0 <= record.subject["index"] < len(rows):
            raise ActionFailed(
                "What the round would have done is not kept any more, so nothing was done; run it again."
            )
        action = Action.from_json(rows[record.subject["index"]])
        if action.digest != record.digest:
            raise ActionFailed("What is kept is not what was shown, so nothing was done; run the loop again.")
        changes = bring(steps["make"].result["changes"], self.means.store) if action.changes_digest is not None else []
        return action, changes

    def _failed(self, record: GateRecord, error: SelfloopError) -> None:
        """Say that an approved action was not carried out, and ask again."""
        logger.warning("The action of %s was not carried out: %s", record.gate_id, error.message)
        questions = self.means.gates.questions
        subject = {name: value for name, value in record.subject.items() if name not in ("type", "content")}
        sentence = self.means.redact(error.message)
        # Asked first: a kill in between leaves two gates on one action, and the second looks before it acts.
        questions.ask(
            Question(
                "action",
                subject,
                content=record.subject["content"],
                title=record.title,
                digest=record.digest,
                session_id=record.session_id,
                run_id=record.run_id,
                description=f"You approved it, and it failed: {sentence} Approve it again to try again.",
                risk=record.risk,
                words=record.words,
            )
        )
        questions.settle(record.gate_id)
        self.means.say("error", f"{record.title}: {sentence}")

    # Carrying out

    async def _proceed(self, one: Round, kind: str, actions: Sequence[Action], changes: Sequence[FileChange]) -> Result:
        async with self._repository:
            executors = self._executors(one.run_id, one.state("maker_session"))
            if kind == "apply-patch":
                return await self._apply(one, changes)
            for action in actions:
                receipt = await executors.act(action, changes if action.changes_digest is not None else ())
                if not receipt.delivered:  # A report of what went ahead is sent nowhere.
                    self.means.say("warning", f"{one.spec.name}: {receipt.summary}")
        return {}

    async def _apply(self, one: Round, changes: Sequence[FileChange]) -> Result:
        """Bring verified changes into the user's files by the gate's own way; what stands in the way waits there."""
        gates, editor = self.means.gates, self.means.editor()
        for gate_id in self._propose(one, changes):
            record = gates.get(gate_id)
            if record.state == "open":
                view = await gates.read(gate_id, editor)
                level = one.spec.level
                comment = f"Carried out by the loop {one.spec.name} at {level}; the checker verified it."
                done = await gates.resolve(gate_id, "approve", digest=view.gate.digest, comment=comment, editor=editor)
                if done.conflicts:
                    path, why = done.conflicts[0]
                    return {"gates": [gate_id], "reason": f"It was verified, but {path} stood in the way: {why}"}
            paths = [change.path for change in changes]
            key = f"{one.run_id}/apply-patch"
            self.receipts.intend(key, {"gate": gate_id}, one.run_id)
            summary = f"Applied to {', '.join(paths[:5])}" + (f" and {len(paths) - 5} more." if len(paths) > 5 else ".")
            self.receipts.settle(key, Receipt("apply-patch", summary, now()).to_json())
            return {"gates": [gate_id]}
        return {"reason": "All of it was rejected before, so nothing was carried out."}

    def _executors(self, run_id: str, session_id: str) -> Executors:
        means, receipts = self.means, self.receipts

        def intend(key: str, data: dict[str, Any]) -> bool:
            again = receipts.get(key) is not None
            receipts.intend(key, data, run_id)
            return again

        def known(key: str) -> Mapping[str, Any] | None:
            found = receipts.get(key)
            return None if found is None else found.receipt

        outputs = means.sessions.outputs(session_id) / "task_1" if session_id else means.store.root / "outputs"
        return Executors(
            shadow=means.shadow,
            scratch=means.scratch,
            outputs=outputs,
            redact=means.redact,
            intend=intend,
            settled=lambda key, receipt: receipts.settle(key, receipt),
            known=known,
        )


def _evidence(one: Round) -> list[EvidenceItem]:
    """Return what ran for the round's result, for the gate: the checker's evidence."""
    rows = one.results["check"].get("evidence", [])
    return [
        EvidenceItem(row["check"], row["command"], row["exit_code"], row["path"] or None)
        for row in rows
        if row["counts"]
    ]


def _receipt_info(receipt: Receipt) -> ReceiptInfo:
    return ReceiptInfo(kind=receipt.kind, summary=receipt.summary, at=receipt.at, uri=receipt.uri)


def _headline(action: Action) -> str:
    match action.kind:
        case "comment":
            return f"comment on {'pull request' if action.about == 'pull-request' else 'issue'} #{action.number}"
        case "draft":
            return f"draft {action.title}"
        case "commit":
            return f"commit on {action.branch}: {action.title}"
        case "open-pr":
            return f"open a pull request: {action.title}"
        case _:
            return action.kind
