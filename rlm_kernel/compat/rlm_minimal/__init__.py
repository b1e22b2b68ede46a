"""The import surface of rlm-minimal: ``from rlm_kernel.compat.rlm_minimal.local import RLM_REPL``.

Its modules have the original's paths: ``.local``, ``.remote``, ``.wasm``, ``.rlm_repl``, ``.repl``,
``.logger``, ``.utils.llm``. ``docs/switching.md`` tells what each name does here.
"""

from __future__ import annotations

from .local import RLM_REPL, REPLEnv, REPLResult, Sub_RLM
from .local import RLM_REPL as LocalRLM_REPL  # noqa: N811  the published name
from .local import REPLEnv as LocalREPLEnv
from .remote import RemoteExecutionConfig, RemoteREPLEnv, RemoteREPLFactory
from .rlm import RLM
from .unavailable import SIDECAR, STORE, refusing
from .wasm import WASMREPLEnv, WASMREPLExecutor, WASMResult

__all__ = [
    "RLM",
    "RLM_REPL",
    "LocalREPLEnv",
    "LocalRLM_REPL",
    "REPLEnv",
    "REPLResult",
    "RemoteExecutionConfig",
    "RemoteREPLEnv",
    "RemoteREPLFactory",
    "Sub_RLM",
    "WASMREPLEnv",
    "WASMREPLExecutor",
    "WASMResult",
]

__getattr__ = refusing(__name__, {**SIDECAR, **STORE})
