"""Keep a REPL available for the length of a run, whatever its kernel does.

A kernel that died, or had to be killed, is replaced at once by a fresh one with the contexts loaded again,
and the model is told what it lost. The replacement starts while the model thinks.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..context import Context
from ..errors import ContextError
from ..outputs import Output
from .base import CallHandler, CellResult, KernelInfo, KernelSession, SessionFactory, ToolStub

__all__ = ["Supervisor"]

# Long enough for a request to be sent, short beside a kernel's start.
SEND_SECONDS = 0.02

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
        on_start: Report = lambda info, seconds, again: None,
        on_loss: Callable[[str, str], None] = lambda kernel, cause: None,
        tools: Sequence[ToolStub] = (),
    ) -> None:
        self._sessions = sessions
        self._tools = tools
        self._contexts = {context.name: context for context in contexts}
        self._loads: list[tuple[Sequence[Context], Mapping[str, str], bool]] = []
        self._on_start = on_start
        self._on_loss = on_loss
        self._on_notice: Callable[[str], None] = lambda text: None
        self._session: KernelSession | None = None
        self._starting: asyncio.Task[None] | None = None
        self._kernel = ""
        self._cut_short = False
        self._torn = False

    @property
    def names(self) -> frozenset[str]:
        """The names of all contexts."""
        return frozenset(self._contexts)

    def report(
        self,
        *,
        on_start: Report,
        on_loss: Callable[[str, str], None],
        on_notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Report to these from now on: to the run that has the REPL next.

        ``on_notice`` is for sessions that have something to tell, by a ``tell`` that can be set.
        """
        self._on_start, self._on_loss, self._on_notice = on_start, on_loss, on_notice

    @property
    def begun(self) -> bool:
        """Whether a kernel was started, or is being started."""
        return self._starting is not None

    def begin(self, *, beside: asyncio.Future[Any] | None = None) -> None:
        """Start a kernel in the background; `execute` waits for it.

        A request ``beside`` which it starts is sent first; but a kernel that is there already loses no time.
        """
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(again=False, beside=beside))

    def renew(self) -> bool:
        """Replace a kernel that was lost while no cell ran; tell whether it was."""
        if self._starting is None or not self._starting.done():
            return False
        started = not self._starting.cancelled() and self._starting.exception() is None
        if started and self._session is not None and self._session.alive:
            return False
        if started:
            self._on_loss(self._kernel, "The kernel ended between two questions.")
        self._starting = asyncio.create_task(self._start(again=started))
        return started

    def take(
        self,
        contexts: Sequence[Context],
        renamed: Mapping[str, str] | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        """Have further contexts loaded before the next cell, and older ones ``renamed`` before that.

        A context whose name is in use takes the place of that one. ``fresh`` forgets the answer so far.
        """
        renamed = renamed or {}
        for old, new in renamed.items():
            self._contexts[new] = self._contexts.pop(old).renamed(new)
        self._contexts.update((context.name, context) for context in contexts)
        if self._starting is not None:
            self._loads.append((contexts, renamed, fresh))

    def forget(self, names: Iterable[str]) -> None:
        """Do not load these contexts again."""
        for name in names:
            self._contexts.pop(name, None)

    async def load(self, contexts: Sequence[Context]) -> None:
        """Load further contexts now; see `take` and `ready`."""
        self.take(contexts)
        await self.ready()

    async def _start(self, *, again: bool, beside: asyncio.Future[Any] | None = None) -> None:
        if self._session is not None:
            await self._session.close()
        session = self._session = self._sessions()
        if beside is not None and not session.alive:
            await asyncio.wait({beside}, timeout=SEND_SECONDS)
        started = time.monotonic()
        if hasattr(session, "tell"):
            session.tell = self._tell
        self._loads.clear()
        try:
            info = await session.start(tuple(self._contexts.values()), self._tools)
        except BaseException:
            await session.close()
            raise
        self._kernel = info.id
        self._on_start(info, time.monotonic() - started, again)

    def _tell(self, text: str) -> None:
        # To whom, may change while the session lives.
        self._on_notice(text)

    async def ready(self) -> None:
        """Wait for the kernel.

        Raises:
            KernelStartError: it did not become ready.
            ContextError: a context could not be loaded.
        """
        self.begin()
        assert self._starting is not None
        await self._starting
        assert self._session is not None
        while self._loads and self._session.alive:
            contexts, renamed, fresh = self._loads.pop(0)
            self._torn = True
            try:
                await self._session.load(contexts, renamed, fresh=fresh)
            except ContextError:
                self._torn = False
                raise
            self._torn = False

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
        self._cut_short = True
        result = await self._session.execute(code, timeout=timeout, on_call=on_call, on_output=on_output)
        self._cut_short = False
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

    async def rest(self) -> None:
        """Leave the REPL to a later run: a cell that was cut short is stopped there, or killed with it."""
        if self._session is None:
            return
        # Which contexts a kernel has whose loading was cut short is anyone's guess.
        lost = self._torn or (self._cut_short and not await self._session.settle())
        self._torn = self._cut_short = False
        if lost:
            await self._session.close()

    async def close(self) -> None:
        """End the kernel, also one that is still starting."""
        if self._starting is not None:
            self._starting.cancel()
            # Nobody else may have waited for it: a start that failed has said so by now, or does not matter.
            with suppress(asyncio.CancelledError, Exception):
                await self._starting
        if self._session is not None:
            await self._session.close()
