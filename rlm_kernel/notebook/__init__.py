"""Jupyter notebooks: the live panel of a run, and what stays in the notebook once it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import mimebundle
    from .exporting import Saver, export
    from .forms import ask
    from .panel import RunPanel, show

__all__ = ["RunPanel", "Saver", "ask", "export", "mimebundle", "show"]

_HOMES = {
    "RunPanel": ".panel",
    "Saver": ".exporting",
    "ask": ".forms",
    "export": ".exporting",
    "mimebundle": ".bundle",
    "show": ".panel",
}


def __getattr__(name: str) -> Any:
    # Widgets are imported on use only.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  on use

    return getattr(import_module(_HOMES[name], __name__), name)
