"""Values as they are shown, and what code expects of IPython for that."""

from __future__ import annotations

import base64
import contextlib
import os
import pprint
import sys
import types
from typing import Any

__all__ = ["DisplayHandle", "bundle", "display", "stand_in"]

MIMES = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
}
_publishers: list[Any] = []


def bundle(value: Any) -> Any:
    """Return what is shown of a value, by MIME type."""
    data: dict[str, Any] = {}
    own = getattr(type(value), "_repr_mimebundle_", None)
    if own is not None:
        made = value._repr_mimebundle_()
        made = made[0] if isinstance(made, tuple) else made
        data.update(made or {})
    for method, mime in MIMES.items():
        if hasattr(type(value), method) and mime not in data:
            made = getattr(value, method)()
            made = made[0] if isinstance(made, tuple) else made
            if made is not None:
                data[mime] = made
    if "text/plain" not in data:
        data["text/plain"] = _text(value)
    return data


def _text(value: Any) -> Any:
    if isinstance(value, (dict, list, tuple, set, frozenset)) and len(value) < 1000:
        # A value of a model-written class may raise anything; then its own repr is asked.
        with contextlib.suppress(Exception):
            return pprint.pformat(value, width=100, compact=True, sort_dicts=False)
    return repr(value)


def display(
    *values: Any, display_id: Any = None, raw: Any = False, metadata: Any = None, **kwargs: Any
) -> Any:
    """Show values, each as richly as it can be."""
    if display_id is True:
        display_id = base64.b16encode(os.urandom(8)).decode()
    for value in values:
        data = value if raw else bundle(value)
        _publishers[-1].publish(
            data, metadata, transient={"display_id": display_id} if display_id else None, **kwargs
        )
    return DisplayHandle(display_id) if display_id else None


class DisplayHandle:
    """What was displayed under an id, to be shown anew."""

    def __init__(self, display_id: Any = None) -> None:
        self.display_id = display_id or base64.b16encode(os.urandom(8)).decode()

    def display(self, value: Any, **kwargs: Any) -> None:
        display(value, display_id=self.display_id, **kwargs)

    def update(self, value: Any, **kwargs: Any) -> None:
        display(value, display_id=self.display_id, update=True, **kwargs)


class _Rich:
    """A value that is shown in one way."""

    mime = "text/plain"

    def __init__(self, data: Any = None) -> None:
        self.data = data

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return {self.mime: self.data, "text/plain": f"<{type(self).__name__} object>"}


def stand_in(shell: Any) -> Any:
    """Let ``from IPython.display import display, HTML`` work: much code begins with it."""
    _publishers.append(shell.display_pub)

    def kind(name: Any, mime: Any) -> Any:
        return type(name, (_Rich,), {"mime": mime, "__module__": "IPython.display"})

    module: Any = types.ModuleType("IPython")
    module.get_ipython = lambda: shell
    module.__path__ = []
    shown: Any = types.ModuleType("IPython.display")
    shown.display = display
    shown.DisplayHandle = DisplayHandle
    shown.clear_output = shell.display_pub.clear_output
    shown.update_display = lambda value, *, display_id, **kw: display(
        value, display_id=display_id, update=True, **kw
    )
    kinds = {
        "HTML": "text/html",
        "Markdown": "text/markdown",
        "Latex": "text/latex",
        "JSON": "application/json",
    }
    for name, mime in {**kinds, "SVG": "image/svg+xml", "Image": "image/png"}.items():
        setattr(shown, name, kind(name, mime))
    module.display = shown
    sys.modules["IPython"], sys.modules["IPython.display"] = module, shown
