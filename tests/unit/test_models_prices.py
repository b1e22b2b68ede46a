"""Prices: the user's, the list's, and none."""

from decimal import Decimal

import pytest

from rlm_kernel.errors import ConfigError
from rlm_kernel.models import prices
from rlm_kernel.models.prices import Price, known, price
from rlm_kernel.usage import Usage

USED = Usage(10_000, 500, 8_000)


def test_cached_tokens_have_their_own_price():
    assert Price(1, 10, Decimal("0.1")).cost(USED) == Decimal("0.0078")
    assert Price(1, 10).cost(USED) == Decimal("0.015")


def test_floats_mean_what_they_show():
    assert Price(0.1, 0.2).cost(Usage(1_000_000, 1_000_000)) == Decimal("0.3")


@pytest.mark.parametrize("amount", [-1, "much", float("nan"), float("inf"), None])
def test_amounts_that_are_no_price(amount):
    with pytest.raises(ConfigError) as caught:
        Price(amount, 1)
    assert caught.value.hint


def test_an_exact_name_wins_over_patterns_and_these_go_in_order():
    overrides = {"gpt-*": Price(1, 1), "*": Price(2, 2), "gpt-5": Price(3, 3)}
    found = [price(Usage(1_000_000, 0), name, overrides=overrides) for name in ("gpt-5", "gpt-x", "other")]
    assert found == [3, 1, 2]


def test_a_price_of_zero_is_known_when_the_user_says_so():
    assert price(USED, "mine", overrides={"mine": Price(0, 0)}) == 0


def test_the_list_knows_models_where_they_are_sold():
    assert price(USED, "gpt-5-mini") == Decimal("0.0017")
    assert price(USED, "gpt-5-mini", provider_url="https://api.openai.com/v1") == Decimal("0.0017")
    assert price(USED, "gpt-5-mini", provider_url="http://127.0.0.1:8000/v1") is None
    assert price(USED, "no-such-model") is None
    assert known("gpt-5-mini")
    assert not known("no-such-model")


def test_without_the_extra_no_list_price_is_known(monkeypatch):
    monkeypatch.setattr(prices, "price_list", lambda: None)
    assert price(USED, "gpt-5-mini") is None
    assert known("gpt-5-mini", overrides={"gpt-5*": Price(1, 1)})
