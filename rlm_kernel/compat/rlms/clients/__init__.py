"""``rlm.clients`` of `rlms`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base_lm import BaseLM
from .endpoints import model_of
from .openai import ModelClient

__all__ = ["BaseLM", "get_client"]


def get_client(backend: str, backend_kwargs: Mapping[str, Any] | None = None) -> BaseLM:
    """Return a client of the model that the arguments stand for.

    Raises:
        UnsupportedArgumentError: they stand for none.
    """
    kwargs = dict(backend_kwargs or {})
    return ModelClient(model_of(backend, kwargs), sampling_args=kwargs.get("sampling_args"))
