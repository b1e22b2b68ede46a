"""``ColorfulLogger`` of rlm-minimal: what ``enable_logging=True`` prints."""

from __future__ import annotations

from ...rlms.logger.verbose import VerbosePrinter

__all__ = ["ColorfulLogger"]


class ColorfulLogger(VerbosePrinter):
    """Shows runs on the console; a reader of events: ``RLM(readers=[ColorfulLogger()])``."""
