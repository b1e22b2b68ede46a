"""Which model a name stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .base import Model

if TYPE_CHECKING:
    from .prices import Price

__all__ = ["named"]


def named(
    name: str, *, api: str, base_url: str | None, api_key: str | None, prices: Mapping[str, Price]
) -> Model:
    """Return the model that ``name`` stands for.

    ``gguf:PATH`` is a file on this machine; any other name is one that the endpoint knows, asked by ``api``:
    ``chat`` (completions) or ``responses``.

    Raises:
        ConfigError: the file, the endpoint or the key can't be used.
    """
    from .gguf import PREFIX, GGUFModel  # noqa: PLC0415  on use

    if name.startswith(PREFIX):
        return GGUFModel(name.removeprefix(PREFIX), prices=prices)
    endpoint: dict[str, Any] = {"base_url": base_url, "api_key": api_key, "prices": prices}
    if api == "responses":
        from .responses import ResponsesModel  # noqa: PLC0415  on use

        return ResponsesModel(name, **endpoint)
    if api != "chat":
        raise ConfigError(f"no API named {api!r}", hint="there is: chat, responses")
    from .openai import OpenAIModel  # noqa: PLC0415  on use

    return OpenAIModel(name, **endpoint)
