"""``rlm.rlm`` of rlm-minimal: what everything that completes has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

__all__ = ["RLM"]


class RLM(ABC):
    """Something that answers a query over a context."""

    @abstractmethod
    def completion(self, context: Any, query: str | None = None) -> str:
        """Answer ``query`` over ``context``: in this order, unlike everywhere else in this package."""

    @abstractmethod
    def cost_summary(self) -> dict[str, Any]:
        """Return what it took so far: ``total_cost`` in USD (None if unknown), tokens and calls."""

    @abstractmethod
    def reset(self) -> None:
        """Forget what was asked so far."""
