"""A round's report: rendered line by line, the same on the wire and in the store; and the budgets of a round."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.errors import BudgetExceeded, InvalidInput, StoreError
from selfloop.loops.answers import Comment, Draft, read_comments, read_draft, read_title
from selfloop.loops.budgets import RoundBudgets, left_of
from selfloop.loops.report import (
    ActionReport,
    AgentReport,
    Outcome,
    ReceiptInfo,
    RoundReport,
    budget_exhausted,
    escalated,
    failed,
    from_json,
    proceeded,
    reported,
    to_json,
)
from selfloop.loops.spec import LoopBudget, LoopSpec
from selfloop.loops.wire import BudgetInfo, LimitsInfo, budget_info, loop_info, read_budget
from selfloop.messages import Usage
from selfloop.model.budget import Limits, Price
from selfloop.storage.loop_spend import LoopUse

pytestmark = pytest.mark.unit


def report(outcome: Outcome, *, maker: AgentReport | None = None, checker: AgentReport | None = None) -> RoundReport:
    return RoundReport(
        run_id="run-1",
        loop_id="ci-sweeper",
        intent="Mend the build.",
        level="L2-assisted",
        outcome=outcome,
        verified=False,
        input_tokens=1200,
        output_tokens=34,
        started_at="2026-05-04T09:00:00.000Z",
        ended_at="2026-05-04T09:01:00.000Z",
        maker=maker,
        checker=checker,
    )


MAKER = AgentReport(status="Done", iterations=7, text="\nMended `parse`.\n\nProof: pytest, exit code 0.\n")
CHECKER = AgentReport(status="DoneWithConcerns", iterations=3, text="The suite passes; one doubt.")


def test_a_report_is_rendered_line_by_line() -> None:
    whole = report(escalated("At L2-assisted a human\ndecides."), maker=MAKER, checker=CHECKER)
    whole.action = ActionReport(kind="apply-patch", summary="Mend `parse`\nand nothing else")
    assert whole.render() == (
        "[L2-assisted] loop `ci-sweeper` (escalated)\n"
        "intent: Mend the build.\n"
        "maker: Done in 7 iters\n"
        "Mended `parse`.\n"
        "\n"
        "Proof: pytest, exit code 0.\n"
        "checker: DoneWithConcerns in 3 iters\n"
        "escalation: At L2-assisted a human decides.\n"
        "action: apply-patch — Mend `parse` and nothing else\n"
        "tokens: 1200 in / 34 out\n"
    )


def test_a_round_that_came_to_nothing_says_what_stopped_it() -> None:
    assert report(failed("maker failed: no answer")).render() == (
        "[L2-assisted] loop `ci-sweeper` (failed)\nintent: Mend the build.\nerror: maker failed: no answer\n"
        "tokens: 1200 in / 34 out\n"
    )
    assert "(budget-exhausted)\n" in report(budget_exhausted("total-tokens-day")).render()
    assert "\nbudget: total-tokens-day\n" in report(budget_exhausted("total-tokens-day"), maker=MAKER).render()
    assert "Mended `parse`." in report(budget_exhausted("cost"), maker=MAKER).render()


def test_only_what_went_ahead_cleanly_is_not_delivered() -> None:
    outcomes = [reported(), proceeded(), escalated("x"), budget_exhausted("cost"), failed("x")]
    assert [one.type for one in outcomes if not report(one).should_deliver()] == ["proceeded"]


def test_memory_keeps_the_checkers_words_else_the_makers_else_the_intent() -> None:
    both = report(reported(), maker=MAKER, checker=CHECKER)
    assert both.memory_text() == "reported — The suite passes; one doubt."
    assert report(reported(), maker=MAKER).memory_text().startswith("reported — Mended `parse`.")
    silent = AgentReport(status="Blocked", iterations=1, text="  ")
    assert report(failed("x"), maker=silent).memory_text() == "failed — Mend the build."
    assert both.memory_tags() == ("ci-sweeper", "loop-state")
    assert both.memory_source() == "loop:ci-sweeper"
    long = AgentReport(status="Done", iterations=1, text="x" * 10_000)
    assert len(report(reported(), checker=long).memory_text()) == 2_000


@given(st.text(), st.text(), st.booleans(), st.none() | st.floats(0, 10))
def test_a_report_survives_the_store(text: str, why: str, verified: bool, cost: float | None) -> None:
    text, why = (part.encode("utf-8", "replace").decode() for part in (text, why))
    one = report(escalated(why), maker=AgentReport(status="NeedsContext", iterations=0, text=text))
    one.verified, one.cost_usd, one.gate_id = verified, cost, "gate-1"
    one.receipts = [ReceiptInfo(kind="commit", summary=why, at="2026-05-04T09:00:00Z")]
    assert from_json(to_json(one)) == one
    assert json.loads(to_json(one))["loopId"] == "ci-sweeper"


def test_the_wire_form_is_the_protocols() -> None:
    wire = json.loads(to_json(report(budget_exhausted("seconds"), maker=MAKER)))
    assert wire == {
        "runId": "run-1",
        "loopId": "ci-sweeper",
        "intent": "Mend the build.",
        "level": "L2-assisted",
        "outcome": {"type": "budget-exhausted", "limit": "seconds"},
        "verified": False,
        "inputTokens": 1200,
        "outputTokens": 34,
        "startedAt": "2026-05-04T09:00:00.000Z",
        "endedAt": "2026-05-04T09:01:00.000Z",
        "maker": {"status": "Done", "iterations": 7, "text": MAKER.text},
    }


def test_a_stored_report_that_is_none_says_so() -> None:
    for text in ("", "{}", '{"runId": 5}', b"\xff"):
        with pytest.raises(StoreError, match="cannot be understood"):
            from_json(text)


# Loops and budgets on the wire


def test_a_budget_survives_the_wire() -> None:
    budget = LoopBudget(Limits(max_iterations=5, max_cost_usd=1.5), Limits(max_total_tokens=100))
    assert read_budget(budget_info(budget), LoopBudget()) == budget
    assert read_budget(BudgetInfo(max_seconds=5), budget) == LoopBudget(Limits(max_seconds=5), budget.day)
    assert read_budget(BudgetInfo(day=LimitsInfo()), budget).day == Limits()


@pytest.mark.parametrize(
    "info",
    [
        BudgetInfo(max_iterations=0),
        BudgetInfo(max_total_tokens=-1),
        BudgetInfo(max_cost_usd=float("nan")),
        BudgetInfo(max_seconds=float("inf")),
        BudgetInfo(day=LimitsInfo(max_input_tokens=10**12)),
    ],
)
def test_an_absurd_budget_is_refused_in_one_sentence(info: BudgetInfo) -> None:
    with pytest.raises(InvalidInput, match=r"^The budget's .* so nothing was changed\.$"):
        read_budget(info, LoopBudget())


def test_a_loop_is_listed_as_the_protocol_has_it() -> None:
    import msgspec

    spec = LoopSpec(name="mine", intent="Look.", maker="Look.")
    listed = msgspec.to_builtins(loop_info(spec, enabled=False, last_run=report(reported())))
    assert {"loopId", "intent", "level", "maxLevel", "cadence", "enabled", "budget", "action"} <= set(listed)
    assert listed["budget"] == {"maxIterations": 12}
    assert listed["lastRun"]["outcome"] == {"type": "reported"}
    assert "nextAt" not in listed


# Budgets of a round


def test_a_days_limit_is_named_as_the_days() -> None:
    budgets = RoundBudgets.open(
        LoopBudget(Limits(max_total_tokens=1000), Limits(max_total_tokens=1500)),
        LoopUse(Usage(900, 0, 100), calls=4, seconds=60.0),
    )
    assert budgets.round.reserve(100, 5000).output_tokens == 400, "what is left of the day bounds the answer"
    with pytest.raises(BudgetExceeded) as caught:
        budgets.round.reserve(450, 10)
    assert caught.value.limit == "total-tokens-day"
    assert "today" in caught.value.message


def test_a_rounds_own_limit_is_named_as_the_rounds() -> None:
    budgets = RoundBudgets.open(LoopBudget(Limits(max_iterations=1), Limits(max_total_tokens=1500)), LoopUse())
    budgets.round.settle(budgets.round.reserve(10, 10), Usage(10, 0, 10))
    with pytest.raises(BudgetExceeded) as caught:
        budgets.round.reserve(10, 10)
    assert caught.value.limit == "iterations"
    assert budgets.crossed() is None


def test_a_provider_that_uses_more_than_it_was_granted_crosses_the_limit() -> None:
    budgets = RoundBudgets.open(LoopBudget(Limits(max_output_tokens=50), Limits(max_total_tokens=1000)), LoopUse())
    budgets.round.settle(budgets.round.reserve(10, 10), Usage(10, 0, 50))
    assert budgets.crossed() is None, "a limit that is just reached is not crossed"
    other = RoundBudgets.open(LoopBudget(Limits(max_output_tokens=50), Limits(max_total_tokens=1000)), LoopUse())
    other.round.settle(other.round.reserve(10, 10), Usage(10, 0, 51))
    assert other.crossed() == "output-tokens"
    other = RoundBudgets.open(LoopBudget(day=Limits(max_total_tokens=1000)), LoopUse())
    other.round.settle(other.round.reserve(10, 10), Usage(1000, 0, 51))
    assert other.crossed() == "total-tokens-day"


def test_a_round_that_is_taken_up_goes_on_with_what_it_had_left() -> None:
    budget = LoopBudget(Limits(max_total_tokens=1000, max_iterations=3), Limits(max_total_tokens=5000))
    budgets = RoundBudgets.open(budget, LoopUse(), spent=Usage(700, 0, 100), calls=2)
    third = budgets.round.reserve(100, 500)
    assert third.output_tokens == 100
    budgets.round.settle(third, Usage(10, 0, 10))
    with pytest.raises(BudgetExceeded, match="3 model calls"):
        budgets.round.reserve(1, 1)


def test_a_round_that_is_taken_up_has_the_seconds_that_are_left() -> None:
    budget = LoopBudget(Limits(max_seconds=60), Limits(max_seconds=3600))
    budgets = RoundBudgets.open(budget, LoopUse(seconds=3550), seconds=45)
    left = budgets.round.seconds_left()
    assert left is not None and 4 < left <= 5, "of the round 15 are left, of the day 5"
    assert RoundBudgets.open(budget, LoopUse(), seconds=61).crossed() == "seconds"


def test_a_day_that_is_used_up_refuses_the_first_call() -> None:
    day = Limits(max_total_tokens=10, max_cost_usd=1.0, max_seconds=60, max_iterations=5)
    used = LoopUse(Usage(100, 0, 0, 2.0), calls=9, seconds=100.0)
    assert left_of(day, used) == Limits(max_total_tokens=0, max_cost_usd=0.0, max_seconds=0.0, max_iterations=0)
    budgets = RoundBudgets.open(LoopBudget(day=day), used)
    with pytest.raises(BudgetExceeded, match="today") as caught:
        budgets.round.reserve(1, 1, Price(0.0, 0.0, 0.0))
    assert caught.value.limit == "total-tokens-day"


# What a maker's answer holds


ANSWER = """Two are in a new state; #12 matters most.

## Comment on pull request #12
`test_a` fails because `b.py:4` divides by zero.

```
## Comment on issue #99
not a comment
```

## Comment on issue #34
Which version?

## Comment on issue #34
Twice.

## Comment on issue #35

## State
#12 red
"""


def test_comments_are_read_from_an_answer_and_only_in_the_exact_form() -> None:
    first, second = read_comments(ANSWER)
    assert first == Comment("pull-request", 12, first.text)
    assert first.text.startswith("`test_a` fails") and first.text.endswith("not a comment\n```")
    assert second == Comment("issue", 34, "Which version?")
    for slip in ("# Comment on issue #3\nx", "## Comment on Issue 3\nx", "## Comment on issue #x\ny", "Comment: x"):
        assert read_comments(slip) == ()
    (last,) = read_comments("## Comment on issue #3\nWhich one?\n\n`Status: DoneWithConcerns`\n")
    assert last.text == "Which one?"
    many = "\n".join(f"## Comment on issue #{number}\nx" for number in range(50))
    assert len(read_comments(many)) == 5


def test_a_draft_and_a_title_are_read_from_an_answer() -> None:
    answer = "4 commits.\n\n## Draft: Unreleased\n\n### Fixed\n\n- It works. #3\n\n## Left out\n\nabc tests\n"
    assert read_draft(answer) == Draft("Unreleased", "### Fixed\n\n- It works. #3")
    assert read_draft("## Draft:\nx") is None
    assert read_title("One.\n`Title:` deps: attrs 24.1\nmore") == "deps: attrs 24.1"
    assert read_title("Title: `fix: x`") == "fix: x"
    assert read_title("No such line.") is None
