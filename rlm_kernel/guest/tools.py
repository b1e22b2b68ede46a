"""The host's functions as cells call them: each call an envelope, its arguments and result JSON.

The host checks arguments against the real signature; here a function takes anything that JSON carries.
"""

from __future__ import annotations

from collections.abc import Iterable
from json import dumps
from typing import Any

from . import plain
from .calls import Host

__all__ = ["functions"]


def functions(host: Host, stubs: Iterable[Any]) -> dict[str, Any]:
    """Return a function, and its awaitable twin, for each (name, documentation)."""
    made: dict[str, Any] = {}
    for name, doc in stubs:
        made[name], made[f"a{name}"] = _pair(host, name)
        for own in (name, f"a{name}"):
            made[own].__name__ = own
            made[own].__doc__ = doc
    return made


def _pair(host: Host, name: str) -> tuple[Any, Any]:
    def tool(*args: Any, **kwargs: Any) -> Any:
        return host.ask("tool", _envelope(name, args, kwargs))

    async def atool(*args: Any, **kwargs: Any) -> Any:
        return await host.ask_async("tool", _envelope(name, args, kwargs))

    return tool, atool


def _envelope(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    listed = ", ".join(_sent(name, place, value) for place, value in enumerate(args, 1))
    named = ", ".join(f"{dumps(key)}: {_sent(name, key, value)}" for key, value in kwargs.items())
    # As one text, which travels as a buffer if it is long.
    return {"name": name, "arguments": f'{{"args": [{listed}], "kwargs": {{{named}}}}}'}


def _sent(tool: str, place: Any, value: Any) -> str:
    try:
        return plain.to_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{tool}(): argument {place} can't be sent as JSON: {error}") from None
