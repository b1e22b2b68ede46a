"""Recursive Language Models whose REPL is a real Jupyter kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answer import Answer
    from .errors import RLMError
    from .ledger import Budget
    from .models.base import Model, ModelOptions
    from .models.openai import OpenAIModel
    from .models.replay import ReplayModel
    from .models.scripted import ScriptedModel
    from .rlm import RLM

__version__ = "0.1.0.dev0"

# Where the public names live. Each is imported when it is first used, so that importing the package is cheap.
_HOMES = {
    "RLM": "rlm",
    "Answer": "answer",
    "Budget": "ledger",
    "Model": "models.base",
    "ModelOptions": "models.base",
    "OpenAIModel": "models.openai",
    "RLMError": "errors",
    "ReplayModel": "models.replay",
    "ScriptedModel": "models.scripted",
}

__all__ = [
    "RLM",
    "Answer",
    "Budget",
    "Model",
    "ModelOptions",
    "OpenAIModel",
    "RLMError",
    "ReplayModel",
    "ScriptedModel",
    "__version__",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415  on use

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
