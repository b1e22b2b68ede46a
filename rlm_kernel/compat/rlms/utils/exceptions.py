"""The exceptions of `rlms`: what `rlm_kernel.compat.rlms.RLM.completion` raises instead of an unmarked text.

They keep the constructors and attributes of the original, and are errors of this package as well. All of
them hold ``partial_answer``, the best there was, or an empty text.
"""

from __future__ import annotations

from ....errors import ConfigError, RLMError

__all__ = [
    "BudgetExceededError",
    "CancellationError",
    "CompletionFailedError",
    "ErrorThresholdExceededError",
    "TimeoutExceededError",
    "TokenLimitExceededError",
    "UnsupportedArgumentError",
]


class BudgetExceededError(RLMError):
    """``max_budget``, in USD, is used up."""

    def __init__(
        self, spent: float, budget: float, message: str | None = None, partial_answer: str | None = None
    ) -> None:
        self.spent = spent
        self.budget = budget
        self.partial_answer = partial_answer
        super().__init__(message or f"spent {spent:.6f} USD of a budget of {budget:.6f} USD")


class TimeoutExceededError(RLMError):
    """``max_timeout``, in seconds, is used up."""

    def __init__(
        self, elapsed: float, timeout: float, partial_answer: str | None = None, message: str | None = None
    ) -> None:
        self.elapsed = elapsed
        self.timeout = timeout
        self.partial_answer = partial_answer
        super().__init__(message or f"{elapsed:.1f} s passed of {timeout:.1f} s allowed")


class TokenLimitExceededError(RLMError):
    """``max_tokens``, input and output of the whole tree, are used up."""

    def __init__(
        self,
        tokens_used: int,
        token_limit: int,
        partial_answer: str | None = None,
        message: str | None = None,
    ) -> None:
        self.tokens_used = tokens_used
        self.token_limit = token_limit
        self.partial_answer = partial_answer
        super().__init__(message or f"{tokens_used:,} tokens used of {token_limit:,} allowed")


class ErrorThresholdExceededError(RLMError):
    """Code failed in ``max_errors`` turns one after the other."""

    def __init__(
        self,
        error_count: int,
        threshold: int,
        last_error: str | None = None,
        partial_answer: str | None = None,
        message: str | None = None,
    ) -> None:
        self.error_count = error_count
        self.threshold = threshold
        self.last_error = last_error
        self.partial_answer = partial_answer
        super().__init__(message or f"code failed in {error_count} turns in a row, {threshold} are allowed")


class CancellationError(RLMError):
    """The run was cancelled, by Ctrl-C for example."""

    def __init__(self, partial_answer: str | None = None, message: str | None = None) -> None:
        self.partial_answer = partial_answer
        super().__init__(message or "the run was cancelled")


class CompletionFailedError(RLMError):
    """The run failed: an endpoint or a kernel gave up. The original raises what its client library does."""

    def __init__(self, reason: str, partial_answer: str | None = None) -> None:
        self.partial_answer = partial_answer
        super().__init__(reason)


class UnsupportedArgumentError(ConfigError, ValueError):
    """An argument of the original that would change results here, were it ignored."""
