"""What the calls of a cell were answered, for when an answer did not arrive."""

from __future__ import annotations

from typing import Any

from ...errors import CallError
from .. import wire

__all__ = ["Answered"]

MAX_CHARS = 64 * 1024 * 1024


class Answered:
    """Replies by the id of their request. Ids are kept for good; the oldest replies make room for others."""

    def __init__(self) -> None:
        self._replies: dict[str, dict[str, Any] | None] = {}
        self._sizes: dict[str, int] = {}
        self._total = 0

    def add(self, id_: str, reply: dict[str, Any], size: int) -> None:
        """Note the reply to a request, of ``size`` characters."""
        self._replies[id_] = reply
        self._sizes[id_] = size
        self._total += size
        while self._total > MAX_CHARS:
            oldest = next(iter(self._sizes))
            self._total -= self._sizes.pop(oldest)
            self._replies[oldest] = None

    def get(self, id_: str) -> dict[str, Any] | None:
        """Return the reply to a request that was answered; one that says so if the answer itself is gone."""
        if id_ not in self._replies:
            return None
        lost = CallError("the answer was lost with the connection to the kernel", kind="internal")
        return self._replies[id_] or wire.encode_reply(id_, lost)

    def size_of(self, id_: str) -> int:
        """Return the size of a reply, as far as it is kept."""
        return self._sizes.get(id_, 0)
