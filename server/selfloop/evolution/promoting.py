"""From a proven tree to a generation: the gate that asks a person, and what follows the answer.

    ask ─▶ gate `evolution` (digest over tree and evidence) ─▶ approve ─▶ generation, folder ─▶ swap
                                                          └─▶ reject, with a reason ─▶ told to the next reflection

Invariant: nothing becomes a generation but the very tree that was judged and shown. A tree, an evidence or a parent
that is another one by now is refused before the answer is recorded. Approving makes no self serve by itself: the
supervisor is asked to, looks again, and watches.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any

from attrs import asdict, define

from selfloop.changes import seal, visible
from selfloop.errors import SelfloopError, Stale, Unknown
from selfloop.evolution.generations import Generation, Generations
from selfloop.evolution.report import JudgeReport
from selfloop.gates.gate import EvidenceItem, GateRecord
from selfloop.gates.questions import Question
from selfloop.loops.means import Means
from selfloop.loops.report import Phase, ReceiptInfo
from selfloop.loops.spec import EVOLUTION
from selfloop.loops.steps import Round
from selfloop.messages import Usage
from selfloop.storage.disk import now
from selfloop.updates import RunUpdate

logger = logging.getLogger(__name__)

_TITLE_CHARS = 100
REJECTED = "The user rejected it without a reason."


@define
class Promotion:
    """The gates on new generations of one workspace."""

    means: Means
    generations: Generations
    swap: Callable[[int, str], Any]
    """Asks the supervisor to have a generation serve: its number and its tree."""
    receipt: Callable[[str, ReceiptInfo], None] = lambda run_id, receipt: None
    """Adds a receipt to a round's report."""

    async def ask(
        self,
        one: Round,
        *,
        base: dict[str, Any],
        tree: str,
        commit: str,
        suggestion: dict[str, Any],
        report: JudgeReport,
        summary: str,
        note: str | None,
    ) -> str | None:
        """Open the gate on a proven tree, and return its id; None if the user has rejected exactly this before.

        Args:
            one: the round.
            base: what the step `prepare` has found.
            tree: what would be adopted.
            commit: its commit, which the round's attempt names.
            suggestion: what led to it.
            report: the judge's, on this tree.
            summary: one line.
            note: a sentence on what is not as it was meant to be.
        """
        redact = self.means.redact
        content = seal("evolution", base["tree"], tree)
        questions = self.means.gates.questions
        before = questions.latest("evolution", content)
        if before is not None and before.state == "resolved" and before.resolved_by == "reject":
            return None
        diff = visible(redact(await self.generations.home.diff(base["tree"], tree)))
        used = one.budgets.round.spent
        evidence = report.digest
        subject = {
            "summary": redact(summary),
            "learned": redact(suggestion["improvement"]),
            "file": suggestion["file"],
            "verify": redact(suggestion["verify"]),
            "origins": base["origins"],
            "parent": base["number"],
            "parentTree": base["tree"],
            "tree": tree,
            "commit": commit,
            "evidenceDigest": evidence,
            "layers": [
                {
                    "name": layer.name,
                    "title": layer.title,
                    "passed": layer.passed,
                    "reason": redact(layer.reason),
                    "seconds": round(layer.seconds, 2),
                }
                for layer in report.layers
            ],
            "seed": report.seed,
            "versions": report.versions,
            "diff": diff,
            "tokens": {
                "inputTokens": used.input_tokens,
                "cachedTokens": used.cached_tokens,
                "outputTokens": used.output_tokens,
            },
            **({"costUsd": used.cost_usd} if used.cost_usd is not None else {}),
        }
        return questions.ask(
            Question(
                "evolution",
                subject,
                content=content,
                title=f"A new generation: {redact(summary)}"[:_TITLE_CHARS],
                digest=digest_of(tree, evidence),
                session_id=one.state("maker_session"),
                run_id=one.run_id,
                description=note,
                risk="high",
                evidence=(EvidenceItem("VERIFY", redact(suggestion["verify"]), 0),),
                words=(f"Loop {one.spec.name}: {one.spec.intent}",),
            )
        ).gate_id

    def check(self, record: GateRecord) -> None:
        """Make sure that what would be approved is what was shown. Reads the disk.

        Raises:
            Stale: it is not; nothing was approved.
            StoreError: it cannot be read.
        """
        subject, home = record.subject, self.generations.home
        if home.ref(f"attempts/{record.run_id}") != subject["commit"]:
            raise Stale("The change is not the one that was shown, so nothing was approved; evolve again.")
        kept = home.evidence_of(subject["parentTree"], subject["tree"])
        try:
            report = None if kept is None else JudgeReport.from_json(kept)
        except (KeyError, TypeError):
            report = None
        digest = report.digest if report is not None else ""
        if report is None or not report.accepted or digest != subject["evidenceDigest"]:
            raise Stale("The evidence is not what was shown, so nothing was approved; evolve again.")
        if digest_of(subject["tree"], digest) != record.digest:
            raise Stale("The digest is not that of the tree and its evidence, so nothing was approved; evolve again.")
        serving = self.generations.active()
        if serving != subject["parent"]:
            raise Stale(
                f"Generation {serving} serves by now, and this one was proven against generation {subject['parent']}, "
                "so nothing was approved; evolve again."
            )
        if self.generations.get(serving).tree != subject["parentTree"]:
            raise Stale(
                "The installed Selfloop was changed since this was proven against it, so nothing was approved; "
                "evolve again."
            )

    async def approved(self, record: GateRecord) -> None:
        """Add the generation that a person has approved, and have it swapped in."""
        questions = self.means.gates.questions
        run_id = record.run_id or ""
        try:
            one = await self._add(record)
            if self.generations.active() != one.number:  # Else a kill came after the swap.
                self._show(run_id, "swap")
                self.swap(one.number, one.tree)
        except (SelfloopError, OSError) as error:
            said = error.message if isinstance(error, SelfloopError) else str(error)
            self._again(record, self.means.redact(said))
            return
        questions.settle(record.gate_id)
        summary = f"Approved by a human as generation {one.number}: {one.summary}"
        self.receipt(run_id, ReceiptInfo(kind="promote-generation", summary=summary, at=now()))
        self.means.say("info", f"Generation {one.number} was approved and is being started beside the present one.")

    async def rejected(self, record: GateRecord) -> None:
        """Remember what a person has rejected, by its content, for the next reflection."""
        subject = record.subject
        suggestion = {"file": subject["file"], "improvement": subject["learned"], "verify": subject["verify"]}
        await asyncio.to_thread(
            lambda: self.generations.reject(
                run_id=record.run_id or "",
                tree=subject["tree"],
                commit=subject["commit"],
                suggestion=suggestion,
                reason=self.means.redact(record.comment or REJECTED),
                by="user",
            )
        )

    async def take_up(self) -> None:
        """Note what a kill has kept from being noted: rejections, and what became of generations."""
        for record in self.means.gates.list("resolved"):
            if record.subject_type == "evolution" and record.resolved_by == "reject":
                await self.rejected(record)
        if not self.generations.home.root.is_dir():
            return
        for number, state, reason in await asyncio.to_thread(self.generations.note_outcomes):
            self.tell(number, state, reason)

    async def swapped(self, number: int, state: str, reason: str | None) -> None:
        """Take notice of what the supervisor says of a swap, and tell the clients of the round that it comes from.

        Args:
            number: the generation.
            state: `starting`, `refused`, `active`, `settled` or `rolled-back`.
            reason: why, where there is something to say.
        """
        noted = await asyncio.to_thread(self.generations.note_outcomes)
        for row in noted:
            self.tell(*row)
        if state == "refused":
            because = f" {reason}" if reason else ""
            self.means.say("error", f"Generation {number} does not serve, because the supervisor refused it.{because}")
        try:
            run_id = (await asyncio.to_thread(self.generations.get, number)).run_id
        except Unknown:
            return
        phases: dict[str, Phase] = {"starting": "swap", "active": "probation"}
        if run_id and state in phases:
            self._show(run_id, phases[state])

    def tell(self, number: int, state: str, reason: str | None) -> None:
        """Tell the user what became of a generation."""
        because = f" {reason}" if reason else ""
        if state == "rolled-back":
            self.means.say("warning", f"Generation {number} was taken back, and its parent serves again.{because}")
        elif state == "settled":
            self.means.say("info", f"Generation {number} has passed its probation.{because}")

    # Inside

    async def _add(self, record: GateRecord) -> Generation:
        """Add a generation, once more looked through: the approval may be older than the last start.

        Raises:
            SelfloopError: it was not added.
        """
        subject, home = record.subject, self.generations.home
        await home.open()
        if await home.tree_of_commit(subject["commit"]) != subject["tree"]:
            raise Stale("The change is not the one that was shown, so it was not adopted; evolve again.")
        kept = home.evidence_of(subject["parentTree"], subject["tree"])
        if kept is None or digest_of(subject["tree"], JudgeReport.from_json(kept).digest) != record.digest:
            raise Stale("The evidence is not what was shown, so nothing was adopted; evolve again.")
        known = [one.number for one in self.generations.list() if one.run_id == record.run_id]
        if self.generations.active() not in (subject["parent"], *known):
            raise Stale("Another generation serves by now, so this one was not adopted; evolve again.")
        tokens = subject["tokens"]
        return await self.generations.add(
            tree=subject["tree"],
            commit=subject["commit"],
            parent=subject["parent"],
            parent_tree=subject["parentTree"],
            run_id=record.run_id or "",
            summary=subject["summary"],
            suggestion={"file": subject["file"], "improvement": subject["learned"], "verify": subject["verify"]},
            evidence=kept,
            tokens=Usage(tokens["inputTokens"], tokens["cachedTokens"], tokens["outputTokens"], subject.get("costUsd")),
            approved_by="user",
            origins=subject["origins"],
        )

    def _again(self, record: GateRecord, said: str) -> None:
        """Say that an approved generation was not adopted, and ask again."""
        logger.warning("The generation of %s was not adopted: %s", record.gate_id, said)
        questions = self.means.gates.questions
        subject = {name: value for name, value in record.subject.items() if name not in ("type", "content")}
        known = asdict(record, recurse=False)
        kept = {name: known[name] for name in ("title", "digest", "session_id", "run_id", "risk", "words")}
        questions.ask(
            Question(
                "evolution",
                subject,
                content=record.subject["content"],
                description=f"You approved it, and it failed: {said} Approve it again to try again.",
                **kept,
            )
        )
        questions.settle(record.gate_id)
        self.means.say("error", f"{record.title}: {said}")

    def _show(self, run_id: str, phase: Phase) -> None:
        self.means.emit(RunUpdate(run_id=run_id, loop_id=EVOLUTION, phase=phase), run_id=run_id)


def digest_of(tree: str, evidence: str) -> str:
    """Return what an approval is bound to: the sha256 over the tree's id and the evidence's digest."""
    return hashlib.sha256(f"{tree}{evidence}".encode()).hexdigest()
