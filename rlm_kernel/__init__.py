"""Recursive Language Models whose REPL is a real Jupyter kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answer import Answer
    from .errors import RLMError
    from .ledger import Budget
    from .live import LiveRun
    from .models.base import Model, ModelOptions
    from .models.gguf import GGUFModel
    from .models.openai import OpenAIModel
    from .models.replay import ReplayModel
    from .models.responses import ResponsesModel
    from .models.scripted import ScriptedModel
    from .rlm import RLM
    from .runs.steering import Approval, Refusal
    from .session import Session
    from .tools import Tool

__version__ = "0.1.0.dev0"

# Where the public names live. Each is imported when it is first used, so that importing the package is cheap.
_HOMES = {
    "RLM": "rlm",
    "Answer": "answer",
    "Approval": "runs.steering",
    "Budget": "ledger",
    "GGUFModel": "models.gguf",
    "LiveRun": "live",
    "Model": "models.base",
    "ModelOptions": "models.base",
    "OpenAIModel": "models.openai",
    "RLMError": "errors",
    "Refusal": "runs.steering",
    "ReplayModel": "models.replay",
    "ResponsesModel": "models.responses",
    "ScriptedModel": "models.scripted",
    "Session": "session",
    "Tool": "tools",
}

__all__ = [
    "RLM",
    "Answer",
    "Approval",
    "Budget",
    "GGUFModel",
    "LiveRun",
    "Model",
    "ModelOptions",
    "OpenAIModel",
    "RLMError",
    "Refusal",
    "ReplayModel",
    "ResponsesModel",
    "ScriptedModel",
    "Session",
    "Tool",
    "__version__",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415  on use

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def load_ipython_extension(shell: Any) -> None:
    """Put `%rlm` into an IPython shell: what ``%load_ext rlm_kernel`` calls."""
    from .notebook.magics import load  # noqa: PLC0415  on use

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take `%rlm` out of the shell; its runs and kernels end."""
    from .notebook.magics import unload  # noqa: PLC0415  on use

    unload(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
