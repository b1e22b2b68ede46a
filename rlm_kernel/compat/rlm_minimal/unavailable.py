"""Names of rlm-minimal whose counterpart is not here yet: importing one says so, and what to use now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["SIDECAR", "STORE", "refusing"]

SIDECAR: Mapping[str, str] = dict.fromkeys(
    ("SidecarREPLEnv", "SidecarREPLFactory", "SidecarExecutionConfig", "create_sidecar_repl_factory"),
    "a gateway in the same pod is used as any other: RemoteREPLFactory with its URL",
)
STORE: Mapping[str, str] = dict.fromkeys(
    (
        *("TimescaleDBClient", "LatencyRecord", "LLMInteractionRecord", "CodeExecutionRecord"),
        *("create_timescale_client", "RLM_REPL_With_Timescale"),
    ),
    "it comes with the SQL store; until then save= keeps each run as a trajectory",
)


def refusing(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module in which ``names`` are missing."""

    def getattr_(name: str) -> Any:
        if name in names:
            raise ImportError(f"{name} is not part of rlm-kernel: {names[name]}", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return getattr_
