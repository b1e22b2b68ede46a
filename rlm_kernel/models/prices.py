"""What requests cost: the user's prices first, then the price list of ``genai-prices``, else unknown.

An unknown price is None, never 0. The list is the one in the installed package; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from ..errors import ConfigError
from ..usage import Usage

__all__ = ["Price", "known", "own_price", "price", "price_list"]

MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """A model's price in USD per million tokens; without ``cached_input``, cached tokens cost as others.

    Raises:
        ConfigError: an amount that is no number of at least 0.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name)
            if given is None and each.default is None:
                continue
            try:
                amount = Decimal(str(given))
            except InvalidOperation:
                amount = Decimal("nan")
            if not (amount.is_finite() and amount >= 0):
                raise ConfigError(
                    f"a price of {given!r} for {each.name}",
                    hint="give USD per million tokens, a number of at least 0",
                )
            object.__setattr__(self, each.name, amount)

    def cost(self, usage: Usage) -> Decimal:
        """Return what ``usage`` costs, in USD."""
        cached = self.input if self.cached_input is None else self.cached_input
        uncached = usage.input_tokens - usage.cached_tokens
        total = uncached * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output
        return total / MILLION


def price(
    usage: Usage,
    model: str,
    *,
    overrides: Mapping[str, Price] | None = None,
    provider_url: str | None = None,
) -> Decimal | None:
    """Return what ``usage`` of ``model`` costs in USD, or None if that is not known.

    ``overrides`` are prices by model name or by pattern (``*``, ``?``), an exact name first, then in their
    order. ``provider_url`` is the endpoint asked: a model of the same name costs another price, or none,
    elsewhere. Without it the provider is guessed from the name.
    """
    own = own_price(model, overrides or {})
    return _listed(usage, model, provider_url) if own is None else own.cost(usage)


def known(
    model: str, *, overrides: Mapping[str, Price] | None = None, provider_url: str | None = None
) -> bool:
    """Tell whether `price` will know what ``model`` costs."""
    return price(Usage(1, 1), model, overrides=overrides, provider_url=provider_url) is not None


def own_price(model: str, overrides: Mapping[str, Price]) -> Price | None:
    """Return the user's price for ``model``: that of its exact name, else of the first pattern."""
    if model in overrides:
        return overrides[model]
    return next((each for pattern, each in overrides.items() if fnmatchcase(model, pattern)), None)


def _listed(usage: Usage, model: str, provider_url: str | None) -> Decimal | None:
    genai_prices = price_list()
    if genai_prices is None:
        return None
    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
    )
    where = {} if provider_url is None else {"provider_api_url": provider_url}
    try:
        return Decimal(genai_prices.calc_price(counted, model, **where).total_price)
    except LookupError:
        return None


@cache
def price_list() -> Any | None:
    """Return the extra's module, or None; looking in vain for each request would cost more than the rest."""
    try:
        import genai_prices  # noqa: PLC0415  an extra, imported on use
    except ImportError:
        return None
    return genai_prices
