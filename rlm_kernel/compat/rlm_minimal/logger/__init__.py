"""``rlm.logger`` of rlm-minimal; the names of its database are not here yet."""

from __future__ import annotations

from ..unavailable import STORE, refusing
from .repl_logger import REPLEnvLogger
from .root_logger import ColorfulLogger

__all__ = ["ColorfulLogger", "REPLEnvLogger"]

__getattr__ = refusing(__name__, STORE)
