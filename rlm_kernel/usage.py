"""Tokens and price of model requests: the one form in which every part of the package counts them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

__all__ = ["Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and price of one or more requests; usages add up.

    ``input_tokens`` includes ``cached_tokens`` (prompt tokens served from the provider's prefix cache);
    ``output_tokens`` includes ``reasoning_tokens``. ``cost_usd`` is None when a price is unknown, never 0
    for that reason, and the sum of a known and an unknown price is unknown.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Decimal | None = Decimal(0)

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        cost = None
        if self.cost_usd is not None and other.cost_usd is not None:
            cost = self.cost_usd + other.cost_usd
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            cost,
        )
