"""What a frontend is told of code: completions, explanations, whether it is complete.

The sandbox says it, and it is guest data: what has the wrong form counts as not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import rich

__all__ = ["complete", "explain", "is_complete"]

MAX_MATCHES = 1000


def complete(found: Mapping[str, Any], position: int) -> dict[str, Any]:
    """Return the ``complete_reply`` for a cursor at ``position``."""
    matches = found.get("matches")
    start = found.get("start")
    given = matches if isinstance(matches, list) else []
    return {
        "status": "ok",
        "matches": [rich.text(each) for each in given if isinstance(each, str)][:MAX_MATCHES],
        "cursor_start": start if type(start) is int and 0 <= start <= position else position,
        "cursor_end": position,
        "metadata": {},
    }


def explain(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``inspect_reply``."""
    text = found.get("text")
    known = found.get("found") is True and isinstance(text, str)
    data = {"text/plain": rich.text(str(text))} if known else {}
    return {"status": "ok", "found": known, "data": data, "metadata": {}}


def is_complete(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``is_complete_reply``."""
    status = found.get("status")
    if status not in ("complete", "incomplete", "invalid"):
        return {"status": "unknown"}
    if status != "incomplete":
        return {"status": status}
    indent = found.get("indent")
    return {"status": status, "indent": indent if isinstance(indent, str) and indent.isspace() else ""}
