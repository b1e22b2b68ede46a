"""A client of `rlms`: something that completes one prompt and counts what it took."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..core.types import ModelUsageSummary, UsageSummary

__all__ = ["DEFAULT_TIMEOUT", "BaseLM"]

DEFAULT_TIMEOUT = 300.0
"""Seconds one attempt may take."""


class BaseLM(ABC):
    """What clients have in common. ``sampling_args`` are sent with each request."""

    def __init__(
        self,
        model_name: str,
        timeout: float = DEFAULT_TIMEOUT,
        sampling_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.model_name = model_name
        self.timeout = timeout
        self.sampling_args = dict(sampling_args or {})
        self.kwargs = kwargs

    @abstractmethod
    def completion(self, prompt: Any) -> str:
        """Return the reply to a text or a list of messages."""

    @abstractmethod
    async def acompletion(self, prompt: Any) -> str:
        """Return the reply to a text or a list of messages."""

    @abstractmethod
    def get_usage_summary(self) -> UsageSummary:
        """Return what all completions took."""

    @abstractmethod
    def get_last_usage(self) -> ModelUsageSummary:
        """Return what the last completion took."""
