"""Names of rlm-minimal whose counterpart is not here yet: importing one says so, and what to use now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["REMOTE", "STORE", "WASM", "refusing"]

REMOTE: Mapping[str, str] = dict.fromkeys(
    (
        *("RemoteREPLEnv", "RemoteREPLFactory", "RemoteExecutionConfig"),
        *("SidecarREPLEnv", "SidecarREPLFactory", "SidecarExecutionConfig", "create_sidecar_repl_factory"),
    ),
    "it comes with the backend for Kernel Gateways; until then code runs in a local kernel",
)
WASM: Mapping[str, str] = dict.fromkeys(
    ("WASMREPLExecutor", "WASMREPLEnv", "WASMResult"),
    "it comes with the Pyodide kernel; until then code runs in a local kernel, which is no sandbox",
)
STORE: Mapping[str, str] = dict.fromkeys(
    (
        *("TimescaleDBClient", "LatencyRecord", "LLMInteractionRecord", "CodeExecutionRecord"),
        *("create_timescale_client", "RLM_REPL_With_Timescale"),
    ),
    "it comes with the SQL store; until then save= keeps each run as a trajectory",
)


def refusing(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module in which ``names`` are not here yet."""

    def getattr_(name: str) -> Any:
        if name in names:
            raise ImportError(f"{name} is not part of rlm-kernel yet: {names[name]}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return getattr_
