"""Keep a REPL available for the length of a run, whatever its kernel does.

A kernel that died, or had to be killed, is replaced at once by a fresh one with the contexts loaded again,
and the model is told what it lost. The replacement starts while the model thinks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..context import Context
from ..outputs import Output
from .base import CallHandler, CellResult, KernelInfo, KernelSession, SessionFactory

__all__ = ["Supervisor"]

Report = Callable[[KernelInfo, float, bool], None]


class Supervisor:
    """The REPL of one run: a kernel session, and its successors.

    ``on_start(info, seconds, again)`` and ``on_loss(kernel id, cause)`` report what happens to kernels.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        contexts: Sequence[Context],
        *,
        on_start: Report,
        on_loss: Callable[[str, str], None],
    ) -> None:
        self._sessions = sessions
        self._contexts = contexts
        self._on_start = on_start
        self._on_loss = on_loss
        self._session: KernelSession | None = None
        self._starting: asyncio.Task[None] | None = None
        self._kernel = ""

    @property
    def begun(self) -> bool:
        """Whether a kernel was started, or is being started."""
        return self._starting is not None

    def begin(self) -> None:
        """Start a kernel in the background; `execute` waits for it."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(again=False))

    async def _start(self, *, again: bool) -> None:
        started = time.monotonic()
        session = self._session = self._sessions()
        try:
            info = await session.start(self._contexts)
        except BaseException:
            await session.close()
            raise
        self._kernel = info.id
        self._on_start(info, time.monotonic() - started, again)

    async def ready(self) -> None:
        """Wait for the kernel.

        Raises:
            KernelStartError: it did not become ready.
            ContextError: a context could not be loaded.
        """
        self.begin()
        assert self._starting is not None
        await self._starting

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None,
        on_call: CallHandler,
        on_output: Callable[[Output], None] | None = None,
    ) -> CellResult:
        """Execute one cell, in a fresh kernel if the last one is gone; see `KernelSession.execute`.

        Raises:
            KernelStartError: there is no kernel to be had.
        """
        await self.ready()
        assert self._session is not None
        result = await self._session.execute(code, timeout=timeout, on_call=on_call, on_output=on_output)
        if self._session.alive:
            return result
        self._on_loss(self._kernel, result.lost)
        await self._session.close()
        self._starting = asyncio.create_task(self._start(again=True))
        return dataclasses.replace(
            result,
            lost=f"{result.lost} A fresh one replaces it: your variables, functions and imports are gone, "
            "the context is loaded again.",
        )

    async def interrupt(self) -> None:
        """Interrupt the running cell, if there is one."""
        if self._session is not None:
            await self._session.interrupt()

    async def close(self) -> None:
        """End the kernel, also one that is still starting."""
        if self._starting is not None:
            self._starting.cancel()
            # Nobody else may have waited for it: a start that failed has said so by now, or does not matter.
            with suppress(asyncio.CancelledError, Exception):
                await self._starting
        if self._session is not None:
            await self._session.close()
