"""Settings that can't be held, or contradict one another, refused before a request is sent."""

from __future__ import annotations

from typing import Any

from .errors import ConfigError
from .ledger import Budget
from .models.plan import ModelPlan

__all__ = ["check_approvals", "check_long_runs", "check_usd_cap"]


def check_usd_cap(budget: Budget, plan: ModelPlan) -> None:
    """Refuse a cap in USD that could not be held, before a request is sent."""
    if budget.usd is None or budget.tokens is not None:
        return
    for model in plan.models:
        if not getattr(model, "price_known", True):
            raise ConfigError(
                f"a budget of {budget.usd:g} USD can't be held: the price of {model.name} is not known",
                hint="give it with prices=, or cap tokens",
            )


def check_long_runs(lazy_above: int | None, compact_at: float | None) -> None:
    """Refuse sizes and shares that are none."""
    if lazy_above is not None and lazy_above < 0:
        raise ConfigError(f"lazy_above={lazy_above!r} is no size", hint="give a number of bytes, or None")
    if compact_at is not None and not 0 < compact_at <= 1:
        raise ConfigError(f"compact_at={compact_at!r} is no part of a window", hint="give 0.85, or None")


def check_approvals(approve: Any, cells: bool, above_usd: float | None, plan: ModelPlan) -> None:  # noqa: FBT001
    """Refuse approvals that nobody could give, and a person who is never asked."""
    asked = cells or above_usd is not None
    if asked and approve is None:
        raise ConfigError("nobody is there to approve anything", hint="give approve= a function")
    if approve is not None and not asked:
        raise ConfigError("approve= is never asked", hint="set approve_cells=True or approve_above_usd=")
    if above_usd is not None:
        check_usd_cap(Budget(usd=above_usd), plan)
