"""Every error that rlm-kernel raises, in one tree.

::

    RLMError                     what happened, and .hint: what to do next
    ├── InputError               the caller gave something unusable; nothing was spent
    │   ├── ContextError         a context that can't be read, described or sent to a kernel
    │   └── ConfigError          a setting that is missing, malformed or contradicts another
    ├── ModelError               a model endpoint did not give a usable reply
    │   ├── AuthError            the endpoint refused the key
    │   ├── ModelNotFoundError   the endpoint does not know the model
    │   ├── RequestRefusedError  the endpoint refused this request (bad option, content, too large)
    │   │   └── ContextLengthError   the messages have more tokens than the model takes
    │   ├── RateLimitError       still limited after every retry
    │   ├── EndpointError        5xx after every retry
    │   ├── UnreachableError     no connection, or it broke, after every retry
    │   ├── ModelTimeoutError    no complete reply within the time allowed
    │   └── MalformedReplyError  the endpoint answered 200 with something that is no reply
    ├── KernelError              the Jupyter kernel behind the REPL
    │   ├── KernelStartError     it never became ready
    │   └── KernelInterruptedError   its user, to whom it belongs, interrupted the cell
    ├── WireError                an envelope from a kernel that breaks the protocol
    ├── CallError                one call made from a cell failed; carries what the cell may know
    ├── OutputError              the answer does not satisfy what `output=` asks for, after a repair round
    ├── NoAnswerError            a notebook's question was left without an answer; carries what there is
    └── BudgetExceededError      a cap of the ledger was reached before a request

The message says what happened, with which values; ``hint`` says what to do next. ``str(error)`` is
the message alone, so that a log line stays one line.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AuthError",
    "BudgetExceededError",
    "CallError",
    "ConfigError",
    "ContextError",
    "ContextLengthError",
    "EndpointError",
    "InputError",
    "KernelError",
    "KernelInterruptedError",
    "KernelStartError",
    "MalformedReplyError",
    "ModelError",
    "ModelNotFoundError",
    "ModelTimeoutError",
    "NoAnswerError",
    "OutputError",
    "RLMError",
    "RateLimitError",
    "RequestRefusedError",
    "UnreachableError",
    "WireError",
]


class RLMError(Exception):
    """Root of all errors raised on purpose by this package."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InputError(RLMError):
    """The caller gave something unusable. Raised before any token is spent."""


class ContextError(InputError):
    """A context can't be read, described or sent to a kernel."""


class ConfigError(InputError):
    """A setting is missing, malformed, or contradicts another one."""


class ModelError(RLMError):
    """A model endpoint did not give a usable reply.

    ``status`` is the HTTP status, or None where there was none; ``model`` the name asked for;
    ``attempts`` how many requests were made in all.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int | None = None,
        model: str | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.model = model
        self.attempts = attempts


class AuthError(ModelError):
    """401 or 403: the endpoint refused the key, or there is none."""


class ModelNotFoundError(ModelError):
    """404 for a model name: the endpoint does not know it."""


class RequestRefusedError(ModelError):
    """400, 413, 422 and their like: repeating the same request can't help."""


class ContextLengthError(RequestRefusedError):
    """400 for messages that have more tokens than the model takes."""


class RateLimitError(ModelError):
    """429 after every retry."""


class EndpointError(ModelError):
    """408, 409 or 5xx after every retry."""


class UnreachableError(ModelError):
    """No connection could be made, or it broke, after every retry."""


class ModelTimeoutError(ModelError):
    """No complete reply within the time allowed."""


class MalformedReplyError(ModelError):
    """200 with a body that is no reply (garbage, no choices, cut stream), after every retry."""


class KernelError(RLMError):
    """Something about the Jupyter kernel behind the REPL."""


class KernelStartError(KernelError):
    """A kernel did not become ready; the message holds the end of what it printed."""


class KernelInterruptedError(KernelError):
    """The user of a kernel that was attached to has interrupted the cell of a run."""


class WireError(RLMError):
    """An envelope from a kernel breaks the protocol. The kernel is not trusted: it is dropped."""


class CallError(RLMError):
    """A call made from a cell failed.

    ``kind`` is the word the cell sees (``budget``, ``model``, ``schema``, ``tool``, ``depth``, ``cancelled``,
    ``bad_request``, ``internal``). It is all that model-written code learns, so it must hold nothing secret.
    """

    def __init__(self, message: str, *, kind: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class OutputError(RLMError):
    """The answer does not satisfy what was asked of it, also after it was sent back once."""


class NoAnswerError(RLMError):
    """A question asked by magic ended without an answer; ``answer`` is the `Answer` that says how."""

    def __init__(self, message: str, *, hint: str = "", answer: Any = None) -> None:
        super().__init__(message, hint=hint)
        self.answer = answer


class BudgetExceededError(RLMError):
    """A cap was reached, found before the next request was sent.

    ``cap`` names it (``usd``, ``tokens``, ``calls``, ``seconds``, ``iterations``, ``errors``), ``limit``
    and ``spent`` are in its unit.
    """

    def __init__(self, cap: str, limit: float, spent: float, *, message: str = "", hint: str = "") -> None:
        reached = f"budget of {_number(limit)} {cap} reached: {_number(spent)} spent"
        super().__init__(message or reached, hint=hint)
        self.cap = cap
        self.limit = limit
        self.spent = spent


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}".rstrip("0").rstrip(".")
