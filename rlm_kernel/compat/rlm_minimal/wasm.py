"""``rlm.wasm`` of rlm-minimal: not here yet, and importing its names says so."""

from __future__ import annotations

from .unavailable import WASM, refusing

__all__: list[str] = []

__getattr__ = refusing(__name__, WASM)
