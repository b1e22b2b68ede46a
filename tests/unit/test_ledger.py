"""What is counted, and when it is enough."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rlm_kernel.errors import BudgetExceededError, ConfigError
from rlm_kernel.ledger import Budget, Ledger
from rlm_kernel.usage import Usage


def spend(ledger, model="m", depth=0, **usage):
    ledger.admit()
    ledger.record(model, depth, Usage(**usage))


def test_usage_adds_up_by_model_and_by_depth():
    ledger = Ledger()
    spend(ledger, "root", 0, input_tokens=10, output_tokens=2, cached_tokens=8, cost_usd=Decimal("0.5"))
    spend(ledger, "sub", 1, input_tokens=1, output_tokens=1, cost_usd=Decimal("0.25"))
    spend(ledger, "sub", 2, input_tokens=1, output_tokens=1, cost_usd=Decimal("0.25"))
    usage = ledger.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (12, 4, 8)
    assert usage.cost_usd == Decimal(1)
    assert usage.by_model["sub"].total_tokens == 4
    assert usage.by_depth[2].input_tokens == 1
    assert ledger.calls == 3


def test_an_unknown_price_makes_the_sum_unknown():
    ledger = Ledger()
    spend(ledger, "known", cost_usd=Decimal(1))
    spend(ledger, "unknown", cost_usd=None)
    assert ledger.usage.cost_usd is None
    assert ledger.usage.by_model["known"].cost_usd == Decimal(1)


@pytest.mark.parametrize(
    ("budget", "spent", "cap"),
    [
        (Budget(calls=1), {}, "calls"),
        (Budget(tokens=10), {"input_tokens": 9, "output_tokens": 1}, "tokens"),
        (Budget(usd=0.5), {"cost_usd": Decimal("0.5")}, "usd"),
    ],
)
def test_a_cap_is_found_before_the_next_request(budget, spent, cap):
    ledger = Ledger(budget)
    spend(ledger, **spent)
    with pytest.raises(BudgetExceededError) as caught:
        ledger.admit()
    assert caught.value.cap == cap
    assert ledger.calls == 1


def test_time_is_capped():
    now = 100.0
    ledger = Ledger(Budget(seconds=5), clock=lambda: now)
    ledger.admit()
    assert ledger.seconds_left == 5
    now = 106.0
    assert ledger.seconds_left == 0
    with pytest.raises(BudgetExceededError, match="budget of 5 seconds reached"):
        ledger.admit()


def test_a_cap_in_usd_does_not_survive_an_unknown_price():
    ledger = Ledger(Budget(usd=1))
    spend(ledger, "mystery", cost_usd=None)
    with pytest.raises(BudgetExceededError, match="price of mystery is not known"):
        ledger.admit()


def test_what_is_left():
    ledger = Ledger(Budget(usd=1, tokens=100, calls=3), clock=lambda: 0.0)
    spend(ledger, input_tokens=30, cost_usd=Decimal("0.25"))
    assert ledger.left() == {"usd": 0.75, "tokens": 70, "calls": 2, "seconds": None}


@pytest.mark.parametrize("caps", [{"usd": 0}, {"calls": -1}, {"seconds": 0.0}, {"tokens": float("nan")}])
def test_a_budget_that_allows_nothing_is_refused(caps):
    with pytest.raises(ConfigError, match="allows nothing"):
        Budget(**caps)
