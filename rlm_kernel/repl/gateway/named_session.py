"""The kernel of a named session: left when the session is closed, ended when it is of no use any more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...context import Context
from ...errors import KernelStartError
from ..base import KernelInfo, ToolStub
from ..bootstrap import GuestSettings
from .address import Gateway
from .rest import GatewayUnreachableError, Rest
from .session import GatewaySession
from .transport import RESTART_PAUSES, GatewayTransport

if TYPE_CHECKING:
    from .named import Named

__all__ = ["NamedSession", "NamedTransport"]

# The guest that was left is still the one that knows the contexts and the model's variables.
_AGAIN = "__import__('rlm_guest').cells.again()"
MARK_SECONDS = 10.0
MARK_TIMES = 6


class NamedTransport(GatewayTransport):
    """A gateway's kernel that `close` does not end, unless ``ends``: the one of id ``left``, or a new one."""

    def __init__(self, gateway: Gateway, left: str = "") -> None:
        super().__init__(gateway)
        self.left = left
        self.ends = False

    async def _start(self, rest: Rest) -> str:
        if not self.left:
            return await super()._start(rest)
        if await rest.state(self.left) in (None, "dead"):
            raise KernelStartError("it has ended, or its time was over")
        # It may be busy with a cell of a process that is gone, and the server take it for idle: that goes by
        # the last message that a kernel was sent, one on its control channel included.
        for pause in RESTART_PAUSES:
            await asyncio.sleep(pause)
            try:
                await rest.interrupt(self.left)
                break
            except GatewayUnreachableError as error:
                # A server that just starts the kernel again fails.
                if not error.status or pause == RESTART_PAUSES[-1]:
                    raise
        return self.left

    async def _delete(self, rest: Rest) -> None:
        if self.ends or (self._starting is not None and not self._starting.done()):
            await super()._delete(rest)


class NamedSession(GatewaySession):
    """A `KernelSession` in the kernel of ``named``."""

    def __init__(self, transport: NamedTransport, named: Named) -> None:
        idle = named.record.idle
        super().__init__(transport, GuestSettings(lease=idle), lease=idle)
        self._left = transport
        self._named = named
        self._marks: Mapping[str, Any] = {}

    async def _run_silently(self, code: str, seconds: float) -> Mapping[str, Any]:
        reply = await super()._run_silently(code, seconds)
        if code == _AGAIN and reply.get("ename") == "KeyboardInterrupt":
            # That was meant for a cell before, and came late.
            reply = await super()._run_silently(code, seconds)
        return reply

    @property
    def ends(self) -> bool:
        """Whether `close` ends the kernel."""
        return self._left.ends

    @ends.setter
    def ends(self, ends: bool) -> None:
        self._left.ends = ends

    def _first_cell(self, *, known: bool) -> str:
        return _AGAIN if self._left.left else super()._first_cell(known=known)

    async def prepare(self) -> None:
        """Connect to the kernel, with the guest that is there, or start one; see `JupyterSession.prepare`."""
        await super().prepare()
        if not self._compares:
            self.ends = True
            raise KernelStartError(
                "named sessions need kernels that can end by themselves, and this one can't",
                hint="use a kernelspec of ipykernel, or rlm-pyodide",
            )
        if self._left.left:
            state = await self._state(None)
            marks = None if state is None else state.get("marks")
            self._marks = marks if isinstance(marks, Mapping) else {}
        else:
            self._named.note(kernel=self._kernel, variables=())

    async def start(self, contexts: Sequence[Context], tools: Sequence[ToolStub] = ()) -> KernelInfo:
        """Load what is not there yet; see `KernelSession.start`."""
        if not self._open:
            await self.prepare()
        missing = [context for context in contexts if not self._has(context.name)]
        info = await super().start(missing, tools)
        if self._left.left:
            await super().load([], {}, fresh=True)
        await self._mark()
        return info

    def _has(self, name: str) -> bool:
        digest = self._named.digest(name)
        return digest is not None and self._marks.get(name) == digest

    async def load(
        self, contexts: Sequence[Context], renamed: Mapping[str, str], *, fresh: bool = False
    ) -> None:
        """Rename contexts, then load further ones; see `KernelSession.load`."""
        await super().load(contexts, renamed, fresh=fresh)
        await self._mark()

    async def _mark(self) -> None:
        """Have the kernel remember which contexts it has; if it does not, they are loaded again later."""
        marks = {kept.name: kept.sha256 for kept in self._named.record.contexts}
        for _ in range(MARK_TIMES):
            if marks == self._marks or not self.alive:
                return
            # The message, or its answer, may be lost in a break.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._state(None, marks=marks), MARK_SECONDS)
                self._marks = marks

    async def _kill(self, cause: str) -> None:
        self.ends = True
        await super()._kill(cause)

    async def close(self) -> None:
        """Leave the kernel, or end it if it is of no use any more; see `JupyterSession.close`."""
        if self._death:
            self.ends = True
        await super().close()
