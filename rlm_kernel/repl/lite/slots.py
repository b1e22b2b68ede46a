"""How many kernels a page runs at once: each is a Python of its own, of a hundred megabytes and more.

A kernel that waits for its own children does not count, or they could never begin. Of those who wait for a
place the last to come is first: children before what waits beside their parent.
"""

from __future__ import annotations

import asyncio

__all__ = ["Slots"]


class Slots:
    """Places for ``most`` kernels. Used on one event loop."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self) -> None:
        """Wait for a place."""
        if self._free > 0:
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give()
            else:
                self._waiting.remove(place)
            raise

    def resume(self) -> None:
        """Take a place back at once, one too many if need be: who had it has work under way."""
        self._free -= 1

    def give(self) -> None:
        """Give a place back."""
        self._free += 1
        while self._free > 0 and self._waiting:
            place = self._waiting.pop()
            if not place.done():
                self._free -= 1
                place.set_result(None)
