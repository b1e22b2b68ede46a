"""What a cell asks a reply to be: a JSON schema as it is, or a pydantic model class, as its schema.

pydantic itself is not needed here: a class that has its two methods will do.
"""

from __future__ import annotations

from json import dumps
from typing import Any

from .channels import CallFailed

__all__ = ["as_json", "revived", "settled"]

MOST_CHARS = 100_000


def as_json(schema: Any) -> dict[str, Any]:
    """Return the JSON schema that ``schema`` is, or stands for.

    Raises:
        TypeError: it is neither a JSON schema nor a pydantic model class.
    """
    found = schema.model_json_schema() if _is_model(schema) else schema
    if not isinstance(found, dict):
        raise TypeError(f"schema must be a JSON schema (a dict) or a pydantic model class, not {schema!r}")
    try:
        size = len(dumps(found))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"schema must be a JSON schema: {error}") from None
    if size > MOST_CHARS:
        raise TypeError(f"schema has {size:,} characters, more than {MOST_CHARS:,}")
    return found


def revived(value: Any, schema: Any) -> Any:
    """Return ``value``, which satisfies ``schema``, as an instance of the model class, if it is one.

    Raises:
        CallFailed: the class has rules beside its schema, and refuses it.
    """
    if not _is_model(schema):
        return value
    try:
        return schema.model_validate(value)
    except ValueError as error:
        raise CallFailed(f"{schema.__name__} refuses the reply: {error}", "schema") from None


def settled(value: Any, schema: Any) -> Any:
    """Return what `revived` returns, or the failure that it raises."""
    try:
        return revived(value, schema)
    except CallFailed as failure:
        return failure


def _is_model(schema: Any) -> bool:
    return isinstance(schema, type) and hasattr(schema, "model_json_schema")
