"""Contexts on their way to a kernel that fetches them, piece by piece, over stdin.

The guest's side is `rlm_kernel.guest.fetched`. A context is encoded as its pieces are asked for, so that no
second copy of it exists. Pieces come in order; the last one may be asked for again.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...context import Context
from ...errors import CallError
from ...guest.fetched import SCHEME

__all__ = ["PIECE_BYTES", "Files", "Get", "asked"]

PIECE_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Get:
    """A kernel asks for a piece of a file."""

    id: str
    file: str
    number: int


def asked(prompt: Any) -> Get | None:
    """Return what the prompt of an ``input_request`` asks for, if that is a piece of a file."""
    # Before it is parsed: most prompts are other envelopes, and may be long.
    if not isinstance(prompt, str) or len(prompt) > 1000:
        return None
    try:
        data = json.loads(prompt)
        get = Get(data["id"], data["file"], data["number"]) if data["op"] == "get" else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if get is None or not (isinstance(get.id, str) and isinstance(get.file, str) and type(get.number) is int):
        return None
    return get


class Files:
    """The contexts that one kernel may fetch now."""

    def __init__(self) -> None:
        self._open: dict[str, Iterator[bytes]] = {}
        self._last: dict[str, tuple[int, str | None]] = {}

    def add(self, context: Context) -> str:
        """Offer a context; return the path by which the guest loads it."""
        name = os.urandom(9).hex()
        self._open[name] = context.pieces(PIECE_BYTES)
        self._last[name] = (-1, "")
        return f"{SCHEME}{name}"

    def piece(self, get: Get) -> str | CallError | None:
        """Return a piece in base64, None behind the last one, or why there is none.

        Raises:
            ContextError: the context can't be encoded.
        """
        number, last = self._last.get(get.file, (None, None))
        if number is None or get.number not in (number, number + 1):
            return CallError("no such piece of a context", kind="bad_request")
        if get.number == number + 1:
            piece = next(self._open[get.file], None)
            last = None if piece is None else b64encode(piece).decode("ascii")
            self._last[get.file] = (get.number, last)
        return last

    def clear(self) -> None:
        """Offer nothing any more."""
        self._open.clear()
        self._last.clear()
