"""Values of a cell as JSON text: what answers and arguments are on their way to the host.

Beside JSON's own types it takes what people mean as such: pydantic models, dataclasses, NumPy numbers and
arrays, dates. Everything else is refused, by type.
"""

from __future__ import annotations

from datetime import date
from json import dumps
from typing import Any

__all__ = ["to_json"]


def to_json(value: Any) -> str:
    """Return ``value`` as JSON.

    Raises:
        TypeError: something in it is no JSON value.
        ValueError: it refers to itself.
        RecursionError: it nests too deeply.
    """
    return dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """Return what stands for ``value`` in JSON; its parts are looked at in turn."""
    try:
        if isinstance(value, date):
            return value.isoformat()
        if not isinstance(value, type):
            if callable(getattr(value, "model_dump", None)):
                return value.model_dump(mode="json")
            if hasattr(value, "__dataclass_fields__"):
                return {name: getattr(value, name) for name in value.__dataclass_fields__}
            if callable(getattr(value, "tolist", None)):
                return value.tolist()
    except Exception as error:  # noqa: BLE001  an edge: objects of model-written classes raise anything
        raise TypeError(f"a {type(value).__name__} failed to become JSON: {type(error).__name__}") from None
    raise TypeError(f"a {type(value).__name__} is no JSON value")
