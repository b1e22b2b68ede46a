"""``custom_tools`` of `rlms`: functions are tools of this package, values are variables of the REPL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ....context import check_name
from ....errors import ContextError
from ....tools import Tool
from ..utils.exceptions import UnsupportedArgumentError

__all__ = ["RESERVED_TOOL_NAMES", "GivenTools", "given_tools"]

RESERVED_TOOL_NAMES = frozenset(
    (
        *("llm_query", "llm_query_batched", "rlm_query", "rlm_query_batched"),
        *("SHOW_VARS", "answer", "context", "history"),
    )
)


@dataclass(frozen=True, slots=True)
class GivenTools:
    """``custom_tools`` and ``custom_sub_tools`` as this package takes them."""

    functions: Mapping[str, Tool]
    values: Mapping[str, Any]
    notes: str

    @property
    def plain(self) -> dict[str, Callable[..., Any]]:
        """The functions themselves."""
        return {name: tool.function for name, tool in self.functions.items()}


def given_tools(tools: Mapping[str, Any] | None, sub_tools: Mapping[str, Any] | None = None) -> GivenTools:
    """Return what the arguments of these names mean; without ``sub_tools`` children get all functions.

    Raises:
        UnsupportedArgumentError: a name that is reserved, or a tool of children that the root has not.
    """
    own = {name: _parts(entry) for name, entry in (tools or {}).items()}
    for name in own:
        _check(name)
    inherited = own if sub_tools is None else {name: _parts(each) for name, each in sub_tools.items()}
    strange = sorted(
        name for name, (value, _) in inherited.items() if name not in own or own[name][0] is not value
    )
    if strange:
        raise UnsupportedArgumentError(
            f"custom_sub_tools hold {', '.join(strange)}, which custom_tools do not",
            hint="children get some or all of the root's functions: name them in both",
        )
    functions = {
        name: Tool(value, description=about, children=name in inherited)
        for name, (value, about) in own.items()
        if callable(value)
    }
    values = {name: value for name, (value, _) in own.items() if not callable(value)}
    notes = "\n".join(f"- {name}: {own[name][1]}" for name in values if own[name][1])
    return GivenTools(functions, values, notes)


def _parts(entry: Any) -> tuple[Any, str | None]:
    """Return a tool's value and its description."""
    if isinstance(entry, dict) and "tool" in entry:
        about = entry.get("description")
        return entry["tool"], about if isinstance(about, str) else None
    return entry, None


def _check(name: str) -> None:
    hint = f"reserved are {', '.join(sorted(RESERVED_TOOL_NAMES))}, and names that Python or IPython have"
    if name in RESERVED_TOOL_NAMES:
        raise UnsupportedArgumentError(f"{name!r} can't be the name of a custom tool", hint=hint)
    try:
        check_name(name)
    except ContextError as error:
        raise UnsupportedArgumentError(
            f"{name!r} can't be the name of a custom tool: {str(error).rpartition(': ')[2]}", hint=hint
        ) from None
