"""A BroadcastChannel in a page's Python: what messages travel on while a cell keeps the kernel from hearing.

A kernel in JupyterLite is given comm messages only when no cell runs; a channel's arrive whenever the cell
awaits. The name is random: whoever knows it can speak.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["BroadcastLine", "Line"]


class Line(Protocol):
    """Texts to the page, and from it."""

    @property
    def name(self) -> str:
        """What the page is to open."""
        ...

    def listen(self, take: Callable[[Any], None]) -> None:
        """Have ``take`` called with every text that comes."""
        ...

    def post(self, text: str) -> None:
        """Send a text."""
        ...

    def close(self) -> None:
        """Hear nothing more."""
        ...


class BroadcastLine:
    """A `Line` on a BroadcastChannel of its own."""

    def __init__(self) -> None:
        import js  # type: ignore[import-not-found]  # noqa: PLC0415  in a page

        self.name = f"rlm-{uuid.uuid4().hex}"
        self._channel = js.BroadcastChannel.new(self.name)
        self._proxy: Any = None

    def listen(self, take: Callable[[Any], None]) -> None:
        """Have ``take`` called with what comes; see `Line.listen`."""
        from pyodide.ffi import create_proxy  # type: ignore[import-not-found]  # noqa: PLC0415  in a page

        self._proxy = create_proxy(lambda event: take(event.data))
        self._channel.onmessage = self._proxy

    def post(self, text: str) -> None:
        """Send a text; see `Line.post`."""
        self._channel.postMessage(text)

    def close(self) -> None:
        """Hear nothing more; see `Line.close`."""
        self._channel.onmessage = None
        self._channel.close()
        if self._proxy is not None:
            self._proxy.destroy()
            self._proxy = None
