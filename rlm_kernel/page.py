"""What differs where Python runs in a web page: one event loop for everything, and no threads.

A cell there is a coroutine among others. Whoever can't await can wait nevertheless where the browser lets a
WebAssembly stack be put aside (JavaScript Promise Integration): Chromium does, and others do in part.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from .errors import InputError

__all__ = ["aside", "here", "wait"]

T = TypeVar("T")


def here() -> bool:
    """Tell whether this Python runs in a web page."""
    return sys.platform == "emscripten"


def wait(work: Awaitable[T]) -> T:
    """Wait for ``work`` in a page, while its event loop goes on.

    Raises:
        InputError: this browser can't do that.
    """
    from pyodide.ffi import can_run_sync, run_sync  # type: ignore[import-not-found]  # noqa: PLC0415  in a page

    if not can_run_sync():
        if isinstance(work, Coroutine):
            work.close()
        raise InputError(
            "this browser can't wait for an answer without await",
            hint="write await: answer = await rlm.acompletion(...)",
        )
    result: T = run_sync(work)
    return result


async def aside(work: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Do what takes its time in a thread of its own; in a page there is none, so at once."""
    if here():
        return work(*arguments, **named)
    from asyncio import to_thread  # noqa: PLC0415  settings need this module too, and no event loop

    return await to_thread(work, *arguments, **named)
