"""Which model a name of rlm-minimal stands for, and where it is asked."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ... import config
from ...errors import ConfigError, RLMError
from ...models.openai import OpenAIModel

__all__ = ["RunFailedError", "model_by_name", "recursive_models", "recursive_urls", "root_name"]


class RunFailedError(RLMError, RuntimeError):
    """There is no answer: a limit was reached, or an endpoint or a kernel gave up."""


def root_name(model: str | None) -> str:
    """Return the root model's name: as given, or from RLM_MODEL or LLM_MODEL, or rlm-minimal's default."""
    return model or config.resolve()["model"].value or config.DEFAULT_MODEL


def recursive_models(models: Sequence[str] | None, model: str | None) -> list[str]:
    """Return the models of sub-calls by depth, from either argument or LLM_RECURSIVE_MODEL.

    Raises:
        ConfigError: both are given.
    """
    if models and model:
        raise ConfigError(
            "recursive_model and recursive_models are both given",
            hint="one is a list by depth, the other one for all",
        )
    if models:
        return list(models)
    named = model or os.environ.get("LLM_RECURSIVE_MODEL") or config.resolve()["sub_model"].value
    return [named or config.DEFAULT_SUB_MODEL]


def recursive_urls(urls: Sequence[str] | None, url: str | None, base_url: str | None) -> list[str | None]:
    """Return the endpoints of sub-calls by depth; without any, the root's."""
    if urls:
        return list(urls)
    return [url or os.environ.get("LLM_RECURSIVE_BASE_URL") or base_url]


def model_by_name(name: str, base_url: str | None, api_key: str | None) -> OpenAIModel:
    """Return the model of this name; what is not given comes from the environment."""
    return OpenAIModel(name, base_url=base_url, api_key=api_key)
