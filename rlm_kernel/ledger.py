"""What a whole tree of runs has spent, and what it may spend: counted and capped in one place.

Every model request passes `Ledger.admit` before it is sent and `Ledger.record` when its usage is known.
Requests in flight have been admitted already, so a batch can overshoot a cap on tokens or USD, by less than
itself; the cap on calls is exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from .errors import BudgetExceededError, ConfigError
from .usage import Usage

__all__ = ["Budget", "Ledger", "TreeUsage"]


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps for a whole tree; None is no cap.

    ``usd`` in US dollars, ``tokens`` input and output together, ``calls`` model requests of any kind,
    ``seconds`` of wall time, ``errors`` consecutive turns of one run in which a cell failed, ``tool_calls``
    calls of the user's own functions.

    Raises:
        ConfigError: a cap that is not above zero.
    """

    usd: float | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    errors: int | None = None
    tool_calls: int | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            cap = getattr(self, each.name)
            if cap is not None and not cap > 0:
                raise ConfigError(
                    f"a budget of {cap!r} {each.name} allows nothing",
                    hint="give a number above zero, or leave it out for no cap",
                )


@dataclass(frozen=True, slots=True)
class TreeUsage(Usage):
    """The usage of a whole tree, also by the model's name and by depth (the root is 0)."""

    by_model: Mapping[str, Usage] = field(default_factory=dict)
    by_depth: Mapping[int, Usage] = field(default_factory=dict)


class Ledger:
    """Counts and caps one tree. Used on one event loop, by all runs of the tree."""

    def __init__(self, budget: Budget | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget or Budget()
        self.calls = 0
        self.tool_calls = 0
        self._clock = clock
        self._started = clock()
        self._stopped = 0.0
        self._waits = 0
        self._total = Usage()
        self._by_model: dict[str, Usage] = {}
        self._by_depth: dict[int, Usage] = {}
        self._unpriced = ""

    @property
    def total(self) -> Usage:
        """What has been spent so far, in one sum."""
        return self._total

    @property
    def usage(self) -> TreeUsage:
        """What has been spent so far, also by model and by depth."""
        total = self._total
        return TreeUsage(
            total.input_tokens,
            total.output_tokens,
            total.cached_tokens,
            total.reasoning_tokens,
            total.cost_usd,
            dict(self._by_model),
            dict(self._by_depth),
        )

    @property
    def seconds(self) -> float:
        """Wall time since the tree began, without that in `stopped`."""
        return (self._stopped if self._waits else self._clock()) - self._started

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let no time pass: a person is waited for. Several may be open at once."""
        if not self._waits:
            self._stopped = self._clock()
        self._waits += 1
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits:
                self._started += self._clock() - self._stopped

    @property
    def seconds_left(self) -> float | None:
        """Wall time until the cap, not below 0; None without one."""
        return None if self.budget.seconds is None else max(0.0, self.budget.seconds - self.seconds)

    def check(self) -> None:
        """See that another request is within every cap.

        Raises:
            BudgetExceededError: it is not.
        """
        budget, spent = self.budget, self._total
        if budget.seconds is not None and self.seconds >= budget.seconds:
            raise BudgetExceededError("seconds", budget.seconds, round(self.seconds, 1))
        if budget.calls is not None and self.calls >= budget.calls:
            raise BudgetExceededError("calls", budget.calls, self.calls)
        if budget.tokens is not None and spent.total_tokens >= budget.tokens:
            raise BudgetExceededError("tokens", budget.tokens, spent.total_tokens)
        if budget.usd is not None:
            if spent.cost_usd is None:
                raise BudgetExceededError(
                    "usd",
                    budget.usd,
                    float("nan"),
                    message=f"the price of {self._unpriced} is not known, so a cap in USD can't be held",
                    hint="give the price with prices=, or cap tokens instead",
                )
            if spent.cost_usd >= budget.usd:
                raise BudgetExceededError("usd", budget.usd, float(spent.cost_usd))

    def admit(self) -> None:
        """Count a request that is about to be sent.

        Raises:
            BudgetExceededError: a cap is reached; nothing was counted.
        """
        self.check()
        self.calls += 1

    def admit_tool(self) -> None:
        """Count a call of the user's function that is about to be made; it is no model request.

        Raises:
            BudgetExceededError: a cap is reached, its own or another one; nothing was counted.
        """
        self.check()
        cap = self.budget.tool_calls
        if cap is not None and self.tool_calls >= cap:
            raise BudgetExceededError("tool_calls", cap, self.tool_calls)
        self.tool_calls += 1

    def record(self, model: str, depth: int, usage: Usage) -> None:
        """Add what an admitted request has used."""
        if usage.cost_usd is None and not self._unpriced:
            self._unpriced = model
        self._total += usage
        self._by_model[model] = self._by_model.get(model, Usage()) + usage
        self._by_depth[depth] = self._by_depth.get(depth, Usage()) + usage

    def left(self) -> dict[str, float | None]:
        """What is left under each cap, None where there is none: what ``budget()`` returns in the REPL."""
        budget, spent = self.budget, self._total
        usd = None
        if budget.usd is not None and spent.cost_usd is not None:
            usd = round(max(0.0, budget.usd - float(spent.cost_usd)), 6)
        left = {
            "usd": usd,
            "tokens": None if budget.tokens is None else max(0, budget.tokens - spent.total_tokens),
            "calls": None if budget.calls is None else max(0, budget.calls - self.calls),
            "seconds": None if self.seconds_left is None else round(self.seconds_left, 1),
        }
        if budget.tool_calls is not None:
            left["tool_calls"] = max(0, budget.tool_calls - self.tool_calls)
        return left
