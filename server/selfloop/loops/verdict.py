"""What a checker's verdict is worth: the strict reading of it, and of the evidence that it names.

    verdict ─▶ every piece of evidence ran, with that exit code, and can prove something?  ─▶ all of them passed?
                                        └─▶ and the checker changed nothing of what it checked?  ─▶ verified

Invariant: verified is never taken from words. One claim that is not true, one check that failed, or one file that the
checker changed, and nothing is verified; each reason is a plain sentence in the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from selfloop.agent.tools.tool import Ran
from selfloop.agent.tools.verdicts import EvidenceOf, SubmitVerdict, doubts, proves_nothing, some, tampered
from selfloop.changes import FileChange
from selfloop.loops.report import Status


@frozen
class Proof:
    """One piece of evidence, and what it is worth."""

    check: str
    command: str
    exit_code: int
    counts: bool
    ran: Ran | None
    """The run that it names; None: there was none."""


@frozen
class Judgement:
    """A verdict as it counts."""

    verified: bool
    status: Status
    text: str
    """The checker's summary, then why something of it does not count."""
    proofs: tuple[Proof, ...] = ()


def judge(
    verdict: SubmitVerdict | None,
    ran: Sequence[Ran],
    *,
    last_words: str,
    checks: Mapping[str, str],
    changed: Sequence[FileChange],
) -> Judgement:
    """Return what a verdict is worth.

    Args:
        verdict: the last one that the checker submitted; None: it submitted none that could be read.
        ran: the commands that ran in the checker's turn.
        last_words: its last answer, where there is no verdict.
        checks: those that the loop names, with their commands; none: any test, lint or build command of the project.
        changed: what the checker has left behind in its worktree.
    """
    if verdict is None:
        said = last_words.strip()
        why = "The checker ended without a verdict that could be read, so nothing is verified."
        return Judgement(False, "NeedsContext", f"{said}\n{why}" if said else why)
    reasons = []
    proofs = []
    for item in verdict.evidence:
        why = doubts([item], ran, checks)
        if not why and proves_nothing(item.command):
            # A loop that was stored before its file was refused may still name such a check.
            why = [f"`{item.command}` proves nothing about what was changed."]
        reasons += why
        proofs.append(Proof(item.check, item.command, item.exit_code, not why, _run_of(item, ran)))
    if verdict.verdict == "verified":
        reasons += _against(proofs)
        if touched := tampered(changed):
            reasons.append(f"The checker's commands changed {some(touched)}, so what it ran proves nothing.")
            proofs = [Proof(one.check, one.command, one.exit_code, False, one.ran) for one in proofs]
    verified = verdict.verdict == "verified" and not reasons
    text = verdict.summary.strip()
    if reasons:
        text = "\n".join([text, *dict.fromkeys(reasons)]).strip()
    status: Status = "Done" if verified else "Blocked" if verdict.verdict == "failed" else "DoneWithConcerns"
    return Judgement(verified, status, text, tuple(proofs))


def _against(proofs: Sequence[Proof]) -> list[str]:
    """Return why evidence does not make a verdict true, beyond what is said of each piece."""
    reasons = [
        f"`{one.command}` ended with exit code {one.exit_code}, so it proves nothing good."
        for one in proofs
        if one.counts and one.exit_code != 0
    ]
    if not any(one.counts and one.exit_code == 0 for one in proofs):
        reasons.append("No check that counts was run and passed, so nothing is verified.")
    return reasons


def _run_of(item: EvidenceOf, ran: Sequence[Ran]) -> Ran | None:
    return next((one for one in reversed(ran) if one.command.strip() == item.command.strip()), None)
