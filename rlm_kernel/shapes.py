"""What a value must be: a JSON schema, or a type that pydantic knows; and what is wrong with one that isn't.

A shape has a schema, to tell a model, and faults of a JSON value, in words for it. The value came from a
model or a kernel in any case; a schema that came from a kernel as well (``trusted=False``) can't make the
check slow: its steps are counted, its regular expressions not run. Nothing is ever fetched for a schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from .errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Faulty", "Shape", "guest_shape", "read", "shape_of"]

MOST_FAULTS = 8
MOST_FAULT_CHARS = 300
# What a schema from a kernel may cost to check one value: a few seconds at the very most.
MOST_STEPS = 200_000
MOST_SCHEMA_CHARS = 100_000


class Shape(Protocol):
    """What a value must be."""

    @property
    def schema(self) -> Mapping[str, Any]:
        """The JSON schema of such values."""
        ...

    def faults(self, value: Any) -> tuple[str, ...]:
        """Return what is wrong with a JSON value, a line each; nothing if it will do."""
        ...

    def revive(self, value: Any) -> Any:
        """Return the Python value behind a JSON value without faults."""
        ...


class Faulty(ValueError):  # noqa: N818  a fact about a value, which nobody outside has to handle
    """A value is not of the shape asked for; ``faults`` says why."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "; ".join(self.faults)


def shape_of(output: Any) -> Shape:
    """Return the shape that a caller asks for: a JSON schema, or any type that pydantic knows.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(output, Mapping):
        fault = _schema_fault(output)
        if fault:
            raise ConfigError(
                f"output= is no JSON schema: {fault}", hint="see json-schema.org, draft 2020-12"
            )
        return _JsonSchema(output)
    hint = "give a JSON schema (a dict), or a class derived from pydantic.BaseModel"
    if output is None or isinstance(output, str | bytes | int | float | Sequence):
        raise ConfigError(f"output= can't be {_short(repr(output), 100)}", hint=hint)
    from pydantic import TypeAdapter  # noqa: PLC0415  on use

    try:
        adapter = TypeAdapter(output)
        return _PydanticType(adapter, adapter.json_schema())
    except Exception as error:
        # Whatever pydantic says of the caller's type.
        raise ConfigError(f"output= is no type that pydantic knows: {error}", hint=hint) from error


def guest_shape(schema: Mapping[str, Any]) -> Shape:
    """Return the shape that model-written code asks for.

    Raises:
        Faulty: that is no JSON schema, or one that can't be checked here.
    """
    try:
        text = json.dumps(schema, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        raise Faulty(["it nests too deeply"]) from None
    return _guest_shape(text)


@lru_cache(maxsize=32)
def _guest_shape(text: str) -> Shape:
    if len(text) > MOST_SCHEMA_CHARS:
        raise Faulty([f"it has {len(text):,} characters, more than {MOST_SCHEMA_CHARS:,}"])
    if '"patternProperties"' in text:
        raise Faulty(["patternProperties is not supported: use additionalProperties"])
    schema = json.loads(text)
    fault = _schema_fault(schema)
    if fault:
        raise Faulty([fault])
    return _JsonSchema(schema, trusted=False)


def read(text: str, shape: Shape) -> Any:
    """Return the JSON value in a model's reply, in a fence or not.

    Where ``shape`` takes texts, a reply that is no JSON is its own value.

    Raises:
        Faulty: there is no JSON in it, or it is not of this shape.
    """
    plain = _FENCE.sub(r"\1", _THOUGHT.sub("", text, count=1)).strip()
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError) as error:
        if not shape.faults(plain):
            return plain
        raise Faulty([f"it is no JSON: {_short(str(error))}"]) from None
    if faults := shape.faults(value):
        raise Faulty(faults)
    return value


_THOUGHT = re.compile(r"\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"\A\s*```[ \t]*\w*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _JsonSchema:
    """A JSON schema, of draft 2020-12 unless its ``$schema`` says otherwise."""

    schema: Mapping[str, Any]
    trusted: bool = True
    _memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def faults(self, value: Any) -> tuple[str, ...]:
        steps = _steps.set([MOST_STEPS])
        try:
            return _first(f"{each.json_path}: {each.message}" for each in self._validator.iter_errors(value))
        except RecursionError:
            return ("the schema, or the value, nests too deeply to be checked",)
        except Exception as error:  # noqa: BLE001  an edge: a reference into nowhere, a malformed pattern
            return (_short(f"the schema can't be checked: {error}"),)
        finally:
            _steps.reset(steps)

    @property
    def _validator(self) -> Any:
        if "validator" not in self._memo:
            from referencing import Registry  # noqa: PLC0415  on use

            # A registry of one's own keeps jsonschema from fetching what a schema refers to.
            registry: Registry[Any] = Registry()
            kind = _validator_of(self.schema) if self.trusted else _counting_validator()
            self._memo["validator"] = kind(self.schema, registry=registry)
        return self._memo["validator"]

    def revive(self, value: Any) -> Any:
        return value


@dataclass(frozen=True, slots=True)
class _PydanticType:
    """A type as pydantic sees it; its validators count too."""

    adapter: TypeAdapter[Any]
    schema: Mapping[str, Any]

    def faults(self, value: Any) -> tuple[str, ...]:
        from pydantic import ValidationError  # noqa: PLC0415  on use

        try:
            self.revive(value)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            return _first(f"{_path(each['loc'])}: {each['msg']}" for each in found)
        except Exception as error:  # noqa: BLE001  an edge: validators are the caller's code
            return (_short(f"{type(error).__name__}: {error}"),)
        return ()

    def revive(self, value: Any) -> Any:
        # Strictly, so that what is taken also satisfies the schema that was told.
        return self.adapter.validate_json(json.dumps(value), strict=True)


def _path(place: Sequence[int | str]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


def _first(faults: Iterator[str]) -> tuple[str, ...]:
    found: list[str] = []
    for fault in faults:
        if len(found) == MOST_FAULTS:
            return (*found, "and more")
        found.append(_short(fault))
    return tuple(found)


def _short(text: str, chars: int = MOST_FAULT_CHARS) -> str:
    """Return ``text`` cut in the middle: such texts begin with a value and end with what is wrong with it."""
    return text if len(text) <= chars else f"{text[: chars // 2]}...{text[3 - chars // 2 :]}"


# jsonschema -----------------------------------------------------------------------------------------


def _schema_fault(schema: Mapping[str, Any]) -> str:
    """Return what is wrong with a schema, or nothing."""
    from jsonschema import SchemaError  # type: ignore[import-untyped]  # noqa: PLC0415  on use

    try:
        json.dumps(schema)
        _validator_of(schema).check_schema(schema)
    except SchemaError as error:
        return _short(f"{error.json_path}: {error.message}")
    except (TypeError, ValueError, RecursionError) as error:
        return _short(str(error))
    return ""


def _validator_of(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator, validators  # noqa: PLC0415  on use

    return validators.validator_for(schema, default=Draft202012Validator)


class _TooCostlyError(Exception):
    """Checking takes too long."""


_steps: ContextVar[list[int]] = ContextVar("rlm_schema_steps")

_Check = Callable[[Any, Any, Any, Any], "Iterator[Any] | None"]


@cache
def _counting_validator() -> Any:
    from jsonschema import Draft202012Validator, ValidationError, validators  # noqa: PLC0415  on use

    def unique(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        # jsonschema compares objects pair by pair.
        if wanted and isinstance(instance, list):
            seen = {json.dumps(each, sort_keys=True) for each in instance}
            if len(seen) < len(instance):
                yield ValidationError(f"{instance!r} has non-unique elements")

    checks = {**Draft202012Validator.VALIDATORS, "uniqueItems": unique}
    # A regular expression can take forever on a text made for it.
    unchecked = {"pattern": lambda *_: None, "patternProperties": lambda *_: None}
    counted = {name: _counted(check) for name, check in checks.items()}
    return validators.extend(Draft202012Validator, {**counted, **unchecked})


def _counted(check: _Check) -> _Check:
    def one(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        left = _steps.get()
        left[0] -= 1 + (len(wanted) if isinstance(wanted, list | dict) else 0)
        if left[0] < 0:
            raise _TooCostlyError("it takes too many steps; ask for a simpler one")
        yield from check(validator, wanted, instance, schema) or ()

    return one
