"""``rlm.rlm_repl_tsdb`` of rlm-minimal: not here yet, and importing its name says so."""

from __future__ import annotations

from .unavailable import STORE, refusing

__all__: list[str] = []

__getattr__ = refusing(__name__, STORE)
