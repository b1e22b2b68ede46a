"""Which model answers at which depth, and how it is asked there."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CallError, ConfigError
from .base import Model, ModelOptions

__all__ = ["ModelPlan"]


class ModelPlan:
    """Models by depth: the first is the root's, the second answers its sub-calls, and so on.

    The last one serves all greater depths; options likewise. A cell may ask for any model of the plan by
    name.

    Raises:
        ConfigError: no model at all.
    """

    def __init__(self, by_depth: Sequence[Model], options: Sequence[ModelOptions] = ()) -> None:
        if not by_depth:
            raise ConfigError("no model", hint="give model=, or set RLM_MODEL")
        self._models = tuple(by_depth)
        self._options = tuple(options) or (ModelOptions(),)

    @property
    def models(self) -> tuple[Model, ...]:
        """The models, by depth."""
        return self._models

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names, each once."""
        return tuple(dict.fromkeys(model.name for model in self._models))

    def at(self, depth: int, name: str | None = None) -> Model:
        """Return the model for ``depth``, or the one of this name.

        Raises:
            CallError: no model of the plan has this name.
        """
        if name is None:
            return self._models[min(depth, len(self._models) - 1)]
        for model in self._models:
            if model.name == name:
                return model
        raise CallError(f"no model {name!r}; there is {', '.join(self.names)}", kind="bad_request")

    def options_at(self, depth: int) -> ModelOptions:
        """Return how the model at ``depth`` is to be asked."""
        return self._options[min(depth, len(self._options) - 1)]
