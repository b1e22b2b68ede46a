"""How a run ended, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .estimate import Estimate
from .events import RunStatus
from .evidence import Quote
from .guest.plain import to_json
from .ledger import TreeUsage
from .messages import Message
from .outputs import Output

__all__ = ["Answer", "CellRecord"]


@dataclass(frozen=True, slots=True)
class CellRecord:
    """One executed code block: the turn it stood in, its code, how it ended, what it put out."""

    turn: int
    code: str
    status: str
    outputs: tuple[Output, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a run.

    ``status`` is one of ``answered``; ``exhausted`` (out of turns), ``over_budget``, ``timed_out``,
    ``cancelled``, whose ``text`` is the best there was and no answer; ``failed``. ``reason`` says why in a
    sentence. ``value`` is the Python value behind the text, as far as JSON carries it. ``usage`` and
    ``total_calls`` are the whole tree's, sub-calls and children included. ``trace`` is the path of the
    trajectory, if one was written. ``direct`` tells that one plain call took the place of a run;
    ``estimate`` is what such a call was estimated to take, of a root run. ``evidence`` are the quotes that
    came with the answer, if they were asked for, each checked against the contexts.
    """

    status: RunStatus
    text: str
    value: Any = None
    reason: str = ""
    usage: TreeUsage = field(default_factory=TreeUsage)
    iterations: int = 0
    total_calls: int = 0
    seconds: float = 0.0
    repl_history: Sequence[CellRecord] = field(default=(), repr=False)
    messages: Sequence[Message] = field(default=(), repr=False)
    trace: str | None = None
    direct: bool = False
    estimate: Estimate | None = None
    evidence: tuple[Quote, ...] = ()

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return self.status == "answered"

    def to_json(self) -> Mapping[str, Any]:
        """Return the answer without its history, as plain JSON values."""
        usage = self.usage
        return {
            "status": self.status,
            "answer": self.text,
            "value": _json_value(self.value),
            "reason": self.reason,
            "iterations": self.iterations,
            "calls": self.total_calls,
            "seconds": round(self.seconds, 3),
            "usage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_tokens": usage.cached_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
                "cost_usd": None if usage.cost_usd is None else float(usage.cost_usd),
            },
            "trace": self.trace,
            "direct": self.direct,
            "estimate": None if self.estimate is None else self.estimate.to_json(),
            "evidence": [quote.to_json() for quote in self.evidence],
        }


def _json_value(value: Any) -> Any:
    """Return a value as JSON: one that a caller's type has made is none."""
    try:
        return json.loads(to_json(value))
    except (TypeError, ValueError, RecursionError):
        return None
