"""The import surface of the `rlms` package, 0.1.3: ``from rlm_kernel.compat.rlms import RLM, RLMLogger``.

Submodules have the original's paths as well, so that replacing ``rlm`` by ``rlm_kernel.compat.rlms`` in an
import is enough: ``.logger``, ``.clients``, ``.environments``, ``.core.types``, ``.utils.exceptions``.
``docs/switching.md`` tells what each name does here.
"""

from __future__ import annotations

from .core.rlm import RLM
from .core.types import (
    CodeBlock,
    ModelUsageSummary,
    REPLResult,
    RLMChatCompletion,
    RLMIteration,
    RLMMetadata,
    UsageSummary,
)
from .logger import RLMLogger, VerbosePrinter
from .utils.exceptions import (
    BudgetExceededError,
    CancellationError,
    CompletionFailedError,
    ErrorThresholdExceededError,
    TimeoutExceededError,
    TokenLimitExceededError,
    UnsupportedArgumentError,
)

__all__ = [
    "RLM",
    "BudgetExceededError",
    "CancellationError",
    "CodeBlock",
    "CompletionFailedError",
    "ErrorThresholdExceededError",
    "ModelUsageSummary",
    "REPLResult",
    "RLMChatCompletion",
    "RLMIteration",
    "RLMLogger",
    "RLMMetadata",
    "TimeoutExceededError",
    "TokenLimitExceededError",
    "UnsupportedArgumentError",
    "UsageSummary",
    "VerbosePrinter",
]
