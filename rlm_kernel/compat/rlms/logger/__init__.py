"""``rlm.logger`` of `rlms`."""

from __future__ import annotations

from .rlm_logger import RLMLogger
from .verbose import VerbosePrinter

__all__ = ["RLMLogger", "VerbosePrinter"]
