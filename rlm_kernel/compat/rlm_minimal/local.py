"""``rlm.local`` of rlm-minimal: code runs in a kernel process of this machine."""

from __future__ import annotations

from .repl import REPLEnv, REPLResult, Sub_RLM
from .rlm_repl import RLM_REPL

__all__ = ["RLM_REPL", "REPLEnv", "REPLResult", "Sub_RLM"]
