"""Budgets: reserved before, settled after, strictly more trips, children charge their parents."""

from __future__ import annotations

import pytest

from selfloop.errors import BudgetExceeded
from selfloop.messages import Usage
from selfloop.model.budget import Budget, Limits, Price

pytestmark = pytest.mark.unit

PRICE = Price(input_usd=0.001, cached_usd=0.0001, output_usd=0.002)


def test_what_is_left_is_granted_as_output() -> None:
    budget = Budget(Limits(max_output_tokens=100, max_total_tokens=130))
    assert budget.reserve(40, 500).output_tokens == 90


def test_an_open_reservation_counts_as_used() -> None:
    budget = Budget(Limits(max_total_tokens=100))
    budget.reserve(40, 50)
    assert budget.reserve(5, 50).output_tokens == 5
    with pytest.raises(BudgetExceeded) as refused:
        budget.reserve(1, 1)
    assert refused.value.limit == "total-tokens"


def test_exactly_the_limit_is_allowed_and_one_more_is_not() -> None:
    budget = Budget(Limits(max_input_tokens=100))
    budget.settle(budget.reserve(100, 10), Usage(100, 0, 10))
    assert budget.crossed() is None
    with pytest.raises(BudgetExceeded) as refused:
        budget.reserve(1, 10)
    assert refused.value.limit == "input-tokens"


def test_a_provider_that_uses_more_than_granted_crosses_the_limit() -> None:
    budget = Budget(Limits(max_output_tokens=100))
    budget.settle(budget.reserve(10, 100), Usage(10, 0, 101))
    assert budget.crossed() == "output-tokens"


def test_limits_trip_in_the_order_input_output_total_cost_seconds_iterations() -> None:
    limits = {
        "max_input_tokens": 1,
        "max_output_tokens": 1,
        "max_total_tokens": 1,
        "max_cost_usd": 0.001,
        "max_seconds": 1.0,
        "max_iterations": 0,
    }
    names = ["input-tokens", "output-tokens", "total-tokens", "cost", "seconds", "iterations"]
    for name, field in zip(names, list(limits), strict=True):
        now = [0.0]
        budget = Budget(Limits(**limits), clock=lambda now=now: now[0])
        now[0] = 5.0
        reservation_usage = Usage(9, 0, 9, 1.0)
        budget.spent = reservation_usage
        budget.iterations = 1
        assert budget.crossed() == name
        limits.pop(field)


def test_unknown_usage_leaves_the_reservation_standing() -> None:
    budget = Budget(Limits())
    charged = budget.settle(budget.reserve(30, 70, PRICE), None)
    assert (charged.input_tokens, charged.output_tokens) == (30, 70)
    assert charged.cost_usd == pytest.approx(30 * 0.001 + 70 * 0.002)
    assert budget.spent == charged


def test_a_released_reservation_costs_nothing_and_no_iteration() -> None:
    budget = Budget(Limits(max_iterations=1, max_total_tokens=50))
    budget.release(budget.reserve(20, 30))
    assert budget.spent == Usage() and budget.iterations == 0
    budget.reserve(20, 30)


def test_settling_twice_charges_once() -> None:
    budget = Budget(Limits())
    reservation = budget.reserve(1, 1)
    budget.settle(reservation, Usage(5, 0, 5))
    budget.settle(reservation, Usage(5, 0, 5))
    budget.release(reservation)
    assert budget.spent == Usage(5, 0, 5) and budget.iterations == 1


def test_a_child_charges_its_parent_and_cannot_outspend_it() -> None:
    parent = Budget(Limits(max_total_tokens=100))
    first, second = Budget(Limits(), parent), Budget(Limits(max_total_tokens=1_000), parent)
    held = first.reserve(50, 20)
    assert second.reserve(10, 500).output_tokens == 20
    with pytest.raises(BudgetExceeded):
        second.reserve(1, 1)
    first.settle(held, Usage(90, 0, 20))
    assert parent.spent == Usage(90, 0, 20)
    assert second.crossed() == "total-tokens"


def test_a_refused_reservation_sets_nothing_aside_anywhere() -> None:
    parent = Budget(Limits(max_iterations=10))
    child = Budget(Limits(max_input_tokens=5), parent)
    with pytest.raises(BudgetExceeded):
        child.reserve(6, 1)
    assert parent.iterations == 0 and child.iterations == 0


def test_cached_tokens_cost_their_own_price() -> None:
    budget = Budget(Limits(max_cost_usd=1.0))
    charged = budget.settle(budget.reserve(100, 10, PRICE), Usage(100, 40, 10))
    assert charged.cost_usd == pytest.approx(60 * 0.001 + 40 * 0.0001 + 10 * 0.002)


def test_the_providers_own_cost_goes_before_the_price_list() -> None:
    budget = Budget(Limits())
    assert budget.settle(budget.reserve(1, 1, PRICE), Usage(100, 0, 10, 0.5)).cost_usd == 0.5


def test_money_bounds_the_output_that_is_granted() -> None:
    budget = Budget(Limits(max_cost_usd=0.1))
    assert budget.reserve(50, 1_000, PRICE).output_tokens in (24, 25)
    with pytest.raises(BudgetExceeded) as refused:
        budget.reserve(50, 1, PRICE)
    assert refused.value.limit == "cost"


def test_a_cost_limit_without_a_known_price_is_refused_in_words() -> None:
    with pytest.raises(BudgetExceeded, match="price of this model is not known") as refused:
        Budget(Limits(max_cost_usd=1.0)).reserve(1, 1, None)
    assert refused.value.limit == "cost"


def test_seconds_run_from_the_start_and_the_tightest_of_the_chain_counts() -> None:
    now = [100.0]
    parent = Budget(Limits(max_seconds=10), clock=lambda: now[0])
    child = Budget(Limits(max_seconds=60), parent, clock=lambda: now[0])
    now[0] = 104.0
    assert child.seconds_left() == 6.0
    now[0] = 110.5
    assert child.seconds_left() == 0.0
    with pytest.raises(BudgetExceeded) as refused:
        child.reserve(1, 1)
    assert refused.value.limit == "seconds"
    assert Budget(Limits()).seconds_left() is None
