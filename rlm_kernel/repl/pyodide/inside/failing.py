"""Errors of cells as texts: their names and tracebacks, from the cell on.

Invariant: whatever an error of a model-written class does when it is asked for its text, there is a text.
"""

from __future__ import annotations

import traceback
from typing import Any

__all__ = ["MESSAGE_CHARS", "named", "trace"]

TRACEBACK_FRAMES = 40
MESSAGE_CHARS = 200_000


def named(error: Any) -> Any:
    """Return the name of an error's class, and its text."""
    name = type(error).__name__[:200]
    try:
        text = str(error)
    except BaseException as why:
        text = f"(its text can't be shown: {type(why).__name__})"
    return name, text if len(text) <= MESSAGE_CHARS else text[:MESSAGE_CHARS] + "..."


def trace(error: Any) -> Any:
    """Return the lines of a traceback, from the cell on."""
    shown = traceback.TracebackException.from_exception(error, limit=-TRACEBACK_FRAMES, compact=True)
    seen = set()

    def strip(each: Any) -> None:
        if each is None or id(each) in seen:
            return
        seen.add(id(each))
        each.stack[:] = [
            frame for frame in each.stack if not frame.filename.startswith(("<rlm ", "<frozen "))
        ] or each.stack[-1:]
        if each.stack and all(frame.filename.startswith("<rlm ") for frame in each.stack):
            each.stack[:] = []
        strip(each.__cause__)
        strip(each.__context__)
        for inner in each.exceptions or ():
            strip(inner)

    strip(shown)
    text = "".join(shown.format(chain=True))
    return (text if len(text) <= MESSAGE_CHARS else text[:MESSAGE_CHARS] + "...").rstrip("\n").split("\n")
