"""``rlm.environments`` of `rlms`: the two that run code on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .ipython_repl import IPythonREPL
from .local_repl import LocalREPL, only_local

__all__ = ["ELSEWHERE", "IPythonREPL", "LocalREPL", "get_environment"]

ELSEWHERE = ("docker", "modal", "prime", "daytona", "e2b")
"""Environments of `rlms` that are not here."""


def get_environment(environment: str, environment_kwargs: Mapping[str, Any] | None = None) -> LocalREPL:
    """Return a REPL of this kind.

    Raises:
        UnsupportedArgumentError: there is none here.
    """
    only_local(environment, ELSEWHERE)
    kind = LocalREPL if environment == "local" else IPythonREPL
    return kind(**(environment_kwargs or {}))
