"""Which model a name stands for, and which models a run asks at which depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .base import Model, ModelOptions
from .plan import ModelPlan

if TYPE_CHECKING:
    from .prices import Price

__all__ = ["Models", "named", "named_plan"]

Models = str | Model | Sequence[str | Model]
"""A model, by name or itself, or a list of them by depth."""


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


def named_plan(
    model: Models | None,
    sub_model: Models | None,
    settings: Mapping[str, Any],
    prices: Mapping[str, Price],
    options: ModelOptions | Sequence[ModelOptions],
) -> tuple[ModelPlan, list[Any]]:
    """Return the plan of what `RLM` was given, ``settings`` being what `config.resolve` made of it.

    Beside it, the models that were made for names, which are to be closed by `RLM`.

    Raises:
        ConfigError: a name that can't be used.
    """
    given: list[str | Model] = []
    for each, name in ((model, settings["model"]), (sub_model, settings["sub_model"])):
        if each is None or isinstance(each, str):
            # The default sub-model goes with the default model only.
            given += [name] if name is not None and (each or not given or model is None) else []
        elif isinstance(each, Model):
            given.append(each)
        else:
            given += each
    endpoint = {name: settings[name] for name in ("api", "base_url", "api_key")}
    made: dict[str, Model] = {}
    for each in given:
        if isinstance(each, str) and each not in made:
            made[each] = named(each, **endpoint, prices=prices)
    by_depth = [made[each] if isinstance(each, str) else each for each in given]
    plan = ModelPlan(by_depth, (options,) if isinstance(options, ModelOptions) else tuple(options))
    return plan, list(made.values())
