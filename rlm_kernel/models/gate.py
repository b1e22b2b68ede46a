"""How many requests an endpoint is asked at once: as many as it takes."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Gate"]


class Gate:
    """A cap on requests in flight that follows the endpoint's own limits. Used on one event loop.

    It starts at ``most`` and stays there while all goes well. A 429 halves what was in flight; each success
    gives back a quarter of a place. Of requests that were in flight together, only the first 429 counts:
    they all met the same limit.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_flight = 0
        self._cap = float(most)
        self._cuts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def cap(self) -> int:
        """How many requests may be in flight now."""
        return int(self._cap)

    async def enter(self) -> int:
        """Wait for a place; return the ticket to give back with it."""
        if self._waiting or self.in_flight >= self.cap:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._free()
                raise
        else:
            self.in_flight += 1
        return self._cuts

    def leave(self, ticket: int, status: int | None) -> None:
        """Give a place back; ``status`` is what the endpoint answered, None if nothing."""
        if status == 200:
            self._cap = min(self.most, self._cap + 0.25)
        elif status == 429 and ticket == self._cuts:
            self._cuts += 1
            self._cap = max(1.0, min(self._cap, self.in_flight) / 2)
        self._free()

    def _free(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < self.cap:
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)
