"""What a question is about: the user's variables and files, looked up by the names that a line gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from ..errors import ContextError

__all__ = ["about", "contexts", "variables"]

_NO_CONTEXT = (ModuleType, FunctionType, BuiltinFunctionType, MethodType, type)
_SIZED = (str, bytes, bytearray, list, dict, tuple, set, frozenset)
_SHAPED = frozenset(("numpy", "pandas", "polars", "pyarrow"))
_FIRST = ("str", "list", "dict", "bytes", "DataFrame")


def contexts(given: Iterable[str], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contexts that ``given`` names: variables, under their names, and paths.

    ``NAME=PATH`` is a path under a name; other paths are the one context `context` together.

    Raises:
        ContextError: no variable and no file has that name.
    """
    found: dict[str, Any] = {}
    paths: list[Path] = []
    for each in given:
        name, equals, path = each.partition("=")
        if each.isidentifier() and each in namespace:
            found[each] = namespace[each]
        elif equals and name.isidentifier() and not Path(each).exists():
            found[name] = _path(path, namespace)
        else:
            paths.append(_path(each, namespace))
    if paths:
        found["context"] = paths[0] if len(paths) == 1 else paths
    return found


def variables(namespace: Mapping[str, Any], hidden: Iterable[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the variables that can be a context: texts, lists and the like first, then by name."""
    hidden = set(hidden)
    found = [
        (name, value)
        for name, value in tuple(namespace.items())
        if not name.startswith("_") and name not in hidden and not isinstance(value, _NO_CONTEXT)
    ]
    return iter(sorted(found, key=lambda each: (type(each[1]).__name__ not in _FIRST, each[0])))


def about(value: Any) -> str:
    """Return a value's type and size in a few words, without looking through it."""
    kind = type(value).__name__
    # The length of other objects may be a query to a database.
    if type(value).__module__.partition(".")[0] in _SHAPED:
        shape = getattr(value, "shape", None)
        return f"{kind} {' x '.join(f'{each:,}' for each in shape)}" if isinstance(shape, tuple) else kind
    if not isinstance(value, _SIZED):
        return kind
    unit = {"str": "chars", "bytes": "bytes"}.get(kind, "items")
    return f"{kind} {len(value):,} {unit}"


def _path(text: str, namespace: Mapping[str, Any]) -> Path:
    path = Path(text).expanduser()
    if path.exists():
        return path
    if text.isidentifier():
        near = difflib.get_close_matches(text, [name for name, _ in variables(namespace)], 1)
        hint = "if it is part of the question, write -- before the question"
        raise ContextError(
            f"there is no variable and no file called {text}",
            hint=f"did you mean {near[0]}?" if near else hint,
        )
    raise ContextError(f"there is no file {text}", hint=f"paths are looked up from {Path.cwd()}")
