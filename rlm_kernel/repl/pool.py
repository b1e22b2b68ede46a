"""Spare kernels, started ahead and handed out once, so that a run does not wait for its own.

There is one pool per event loop and kind of kernel. It fills up only after a kernel was taken, a moment later
and one at a time: a program that makes a single run pays nothing, and a run's own kernel has the processors
to itself.
Spares go away when they were not needed for a while, when the last user of the pool is closed, with the event
loop, and with the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from ..errors import KernelError
from .session import JupyterSession
from .transport import Transport

__all__ = ["Pool", "pool_of"]

SIZE = 2
IDLE_SECONDS = 600.0
FILL_DELAY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Pool:
    """Up to ``size`` prepared sessions of one kind, for one event loop.

    ``make`` makes a session that is not started. Spares that were not taken for ``idle`` seconds are closed.
    """

    def __init__(
        self, make: Callable[[], JupyterSession], *, size: int = SIZE, idle: float = IDLE_SECONDS
    ) -> None:
        self.size = size
        self.loop = asyncio.get_running_loop()
        self.users: WeakSet[Any] = WeakSet()
        self._make = make
        self._idle = idle
        self._spares: deque[JupyterSession] = deque()
        self._ending: dict[Transport | JupyterSession, asyncio.Task[None]] = {}
        self._filling: asyncio.Task[None] | None = None
        self._emptying: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(spare.alive for spare in self._spares)

    def take(self) -> JupyterSession:
        """Return a spare session, prepared but for its contexts, or a new one; have another made ready."""
        self._drop_dead()
        session = self._spares.popleft() if self._spares else self._make()
        # What waits for an answer does not wait until its kernel has ended: that takes longer than a cell.
        session.bury = self._bury
        self._fill_later()
        return session

    def _drop_dead(self) -> None:
        """Close spares that died while they waited."""
        for spare in [spare for spare in self._spares if not spare.alive]:
            self._spares.remove(spare)
            self._bury(spare)

    def _bury(self, ending: Transport | JupyterSession) -> None:
        """Wait in the background until a kernel has ended."""
        self._ending[ending] = self.loop.create_task(self._bury_now(ending))

    async def _bury_now(self, ending: Transport | JupyterSession) -> None:
        await ending.close()
        self._ending.pop(ending, None)

    def _fill_later(self) -> None:
        loop = self.loop
        if self._emptying is not None:
            self._emptying.cancel()
        self._emptying = loop.call_later(self._idle, self._empty_idle)
        if self._filling is None or self._filling.done():
            self._filling = loop.create_task(self._fill())

    async def _fill(self) -> None:
        await asyncio.sleep(FILL_DELAY_SECONDS)
        self._drop_dead()
        while len(self) < self.size:
            session = self._make()
            try:
                await session.prepare()
            except KernelError as error:
                await session.close()
                # The next run starts a kernel of its own, and says what is wrong if that fails too.
                _log.warning("no spare kernel: %s", error)
                return
            except BaseException:
                await session.close()
                raise
            self._spares.append(session)

    def _empty_idle(self) -> None:
        self._filling = self.loop.create_task(self.close())

    async def leave(self, user: Any) -> None:
        """Note that ``user`` is done with the pool; the last one closes it."""
        self.users.discard(user)
        if not self.users:
            await self.close()

    async def close(self) -> None:
        """Close all spares; the pool can be used again."""
        filling, self._filling = self._filling, None
        if filling is not None and filling is not asyncio.current_task():
            filling.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await filling
        if self._emptying is not None:
            self._emptying.cancel()
        while self._spares:
            await self._spares.popleft().close()
        if self._ending:
            await asyncio.wait(self._ending.values())
        # With its loop, a task may have been cancelled before it began.
        while self._ending:
            await self._ending.popitem()[0].close()


@dataclass(slots=True)
class _OfLoop:
    """The pools of one event loop, and the generator that ends with it."""

    pools: dict[Callable[[], JupyterSession], Pool]
    guard: AsyncIterator[None]


_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()


async def pool_of(make: Callable[[], JupyterSession]) -> Pool:
    """Return the running loop's pool of what ``make`` makes, which is made when it is first asked for."""
    loop = asyncio.get_running_loop()
    mine = _LOOPS.get(loop)
    if mine is None:
        pools: dict[Callable[[], JupyterSession], Pool] = {}
        mine = _LOOPS[loop] = _OfLoop(pools, _close_with_loop(pools))
        await anext(mine.guard)
    if make not in mine.pools:
        mine.pools[make] = Pool(make)
    return mine.pools[make]


async def _close_with_loop(pools: dict[Callable[[], JupyterSession], Pool]) -> AsyncIterator[None]:
    # `asyncio.run` and its like close suspended generators before they close the loop.
    try:
        yield
    finally:
        for pool in pools.values():
            await pool.close()
