"""The one retry policy: how often, how long to wait, and when a request has had all the time it gets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .failures import Failure, timed_out

__all__ = ["Attempts", "Backoff"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before another attempt, in seconds.

    Exponential with full jitter: a random part of ``base`` times 2 to the number of failures, ``cap`` at
    most. What the endpoint asks for is waited at least, up to ``longest``.
    """

    base: float = 0.5
    cap: float = 20.0
    longest: float = 60.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random

    def seconds(self, failures: int, retry_after: float | None) -> float:
        """Return the wait after this many failures."""
        # 2 to more than that is above any cap, and in the end above any float.
        wait = self.random() * min(self.cap, self.base * 2.0 ** min(failures, 30))
        return max(wait, min(retry_after or 0.0, self.longest))


class Attempts:
    """The attempts of one request. ``count`` is how many were begun.

    Each may take ``timeout`` seconds; all of them, with every wait, ``total`` seconds from now, or any
    time if None.
    """

    def __init__(
        self, *, model: str, place: str, most: int, timeout: float, total: float | None, backoff: Backoff
    ) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._model = model
        self._place = place
        self._most = most
        self._timeout = timeout
        self._total = total
        self._end = None if total is None else self._loop.time() + total
        self._backoff = backoff

    def waiting(self) -> asyncio.Timeout:
        """Bound a wait that comes before an attempt."""
        return asyncio.timeout_at(self._end)

    def begin(self) -> float:
        """Begin an attempt; return when it must be over, by the loop's clock."""
        self.count += 1
        over = self._loop.time() + self._timeout
        return over if self._end is None else min(over, self._end)

    def timed_out(self) -> Failure:
        """Return the failure of an attempt, or of a wait, that took too long."""
        if self._total is not None and self._left() <= 0:
            return timed_out(self._total, place=self._place, final=True)
        return timed_out(self._timeout, place=self._place)

    async def after(self, failure: Failure) -> None:
        """Wait until it is time for another attempt.

        Raises:
            ModelError: there is none: this failure can't be helped, or attempts or time are used up.
        """
        if not failure.retry or self.count >= self._most:
            raise failure.error(self._model, self.count)
        wait = self._backoff.seconds(self.count, failure.retry_after)
        if wait >= self._left():
            raise failure.error(self._model, self.count)
        await self._backoff.sleep(wait)

    def _left(self) -> float:
        return float("inf") if self._end is None else self._end - self._loop.time()
