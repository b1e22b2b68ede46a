"""A session in a kernel of the user's, who goes on using it: cells take turns with the user's.

Invariant: the kernel is interrupted only while a cell of ours runs in it, by the guest, which knows; nothing
here ends it. A cell that was sent runs or is withdrawn, it is never left behind in the queue.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from ...errors import KernelError, KernelInterruptedError, KernelStartError
from ...events import CellStatus
from ...outputs import Output
from ..base import CallHandler, CellResult
from ..bootstrap import GuestSettings
from ..gateway.session import GatewaySession
from ..session import GRACE_SECONDS, _Cell
from ..transport import JupyterMessage

__all__ = ["LEASE_SECONDS", "NOTE", "AttachedSession", "AttachedTransport"]

LEASE_SECONDS = 120.0
"""After how long without a word of ours the guest leaves the kernel: longer than a line may be down."""

NOTE = (
    "attached to a kernel that is its user's: names that the run uses are put back after each cell, and what "
    "it makes goes with it; objects that a cell changes stay changed, and so do files, modules and the "
    "working folder. The kernel is interrupted at most, never ended"
)
TAKEN = "a run has it already"
HANDOVER_SECONDS = 10.0
BUSY_SECONDS = 2.0
WAIT_SECONDS = 600.0
LEAVE_SECONDS = 5.0
INSIST_SECONDS = 1.0


class AttachedTransport(Protocol):
    """What `GatewaySession` asks of a transport, and `AttachedSession` besides."""

    last_cell: str
    """The id of the last request to execute that was not silent."""

    async def interrupt(self) -> None:
        """Interrupt whatever the kernel executes."""
        ...


class AttachedSession(GatewaySession):
    """A `KernelSession` over a transport to a kernel of the user's.

    ``patience`` is how long, in seconds, a cell of the user's is waited for. ``tell`` is given what the
    user should know.
    """

    def __init__(
        self, transport: Any, *, lease: float = LEASE_SECONDS, patience: float = WAIT_SECONDS
    ) -> None:
        super().__init__(transport, GuestSettings(lease=lease, lent=True), lease=lease)
        self._place: AttachedTransport = transport
        self._patience_for_user = patience
        self._checked = False
        self._stopping = False
        self._silent = True
        # Cells by their ids, since word of an earlier one may come late.
        self._begun = ""
        self._over = ""
        self._moved = asyncio.Event()
        self._gone = asyncio.Event()
        self.tell: Callable[[str], None] = lambda text: None

    # Coming -----------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Connect, and put the guest in; see `JupyterSession.prepare`."""
        try:
            await super().prepare()
        except KernelStartError as error:
            if TAKEN in str(error):
                raise KernelStartError(
                    "another run is attached to that kernel, or was until now",
                    hint=f"a run that vanished lets go of it {self._lease:g} s later",
                ) from None
            raise
        self.tell(NOTE)

    async def _run_silently(self, code: str, seconds: float) -> Mapping[str, Any]:
        until = time.monotonic() + HANDOVER_SECONDS
        while True:
            await self._turn()
            self._silent = True
            reply = await super()._run_silently(code, seconds)
            # One that is just about to leave has left soon.
            if reply.get("evalue") != TAKEN or time.monotonic() > until:
                return reply
            await asyncio.sleep(0.25)

    async def _turn(self) -> None:
        """Wait until the kernel takes requests: until what its user runs is done.

        Raises:
            KernelError: that takes too long, or the kernel is gone.
            KernelStartError: it is no kernel that can be used.
        """
        content = await self._patiently(self._answer_to("shell", "kernel_info_request", {}))
        if not self._checked and content is not None:
            language = content.get("language_info")
            name = language.get("name") if isinstance(language, Mapping) else None
            if name != "python" or content.get("implementation") != "ipython":
                raise KernelStartError(
                    f"that kernel runs {str(name)[:40]} ({str(content.get('implementation'))[:40]}), which "
                    "can't be attached to",
                    hint="attach: takes kernels of ipykernel, version 6 or later",
                )
            self._checked = True

    async def _patiently(self, wait: Awaitable[Any]) -> Any:
        waiting = asyncio.ensure_future(wait)
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            for seconds in (BUSY_SECONDS, self._patience_for_user - BUSY_SECONDS):
                await asyncio.wait([waiting, gone], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    return waiting.result()
                if gone.done():
                    raise KernelError(f"the kernel that was attached to is gone: {self._death}")
                if seconds == BUSY_SECONDS:
                    self.tell(
                        "the kernel is busy with something of its user's; this waits for it, "
                        f"{self._patience_for_user:g} s at most"
                    )
            raise KernelError(
                f"the kernel was busy with something of its user's for {self._patience_for_user:g} s",
                hint="ask again when it is done, or interrupt it there",
            )
        finally:
            waiting.cancel()
            gone.cancel()

    # Cells ------------------------------------------------------------------------------------------

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None,
        on_call: CallHandler,
        on_output: Callable[[Output], None] | None = None,
    ) -> CellResult:
        """Execute one cell after what the user runs; see `KernelSession.execute`.

        Raises:
            KernelError: the kernel is gone, can't be stopped, or is busy for too long.
            KernelInterruptedError: its user has interrupted the cell.
        """
        if self.alive:
            await self._turn()
            self._silent = False
        result = await super().execute(code, timeout=timeout, on_call=on_call, on_output=on_output)
        if result.status == "died":
            raise KernelError(
                f"the kernel that was attached to is gone: {self._death or 'it was closed'}",
                hint="its user may have restarted it or shut it down; what it held is lost",
            )
        return result

    async def _follow(self, cell: _Cell, timeout: float | None) -> tuple[CellStatus, str]:
        self._stopping = False
        # Something of the user's may have come first, and that is not the cell's time.
        await self._patiently(self._until(cell, lambda: self._has_begun or cell.reply is not None))
        status, lost = await super()._follow(cell, timeout)
        error = cell.reply.content.get("ename") if cell.reply is not None else None
        if status == "error" and error in ("KeyboardInterrupt", "CancelledError") and not self._stopping:
            raise KernelInterruptedError(
                "the kernel was interrupted by its user", hint="the run does not go on there by itself"
            )
        return status, lost

    def _died(self, cause: str) -> None:
        super()._died(cause)
        self._gone.set()
        self._moved.set()

    @property
    def _has_begun(self) -> bool:
        return self._begun == self._place.last_cell

    @property
    def _is_over(self) -> bool:
        return self._over == self._place.last_cell

    def _note_begin(self) -> None:
        self._begun = self._place.last_cell
        if self._cell is not None:
            self._cell.changed.set()

    def _receive(self, message: JupyterMessage) -> None:
        # Also of a cell that nobody waits for any more.
        if message.parent_id and message.parent_id == self._place.last_cell:
            idle = message.type == "status" and message.content.get("execution_state") == "idle"
            if idle or message.type == "execute_reply":
                self._over = message.parent_id
                self._moved.set()
            self._note_begin()
        super()._receive(message)

    def _returned(self, seconds: float) -> None:
        # Whether it began may be what got lost.
        self._note_begin()
        super()._returned(seconds)

    # Stopping ---------------------------------------------------------------------------------------

    async def interrupt(self) -> None:
        """Have the guest interrupt the running cell, or withdraw it if it waits."""
        if self._is_over or not self.alive:
            return
        self._stopping = True
        if self._ready is not None and not self._silent:
            self._link.send("control", "rlm_stop", {"cell": self._place.last_cell})
            insisting = asyncio.create_task(self._insist(INSIST_SECONDS))
        else:
            insisting = asyncio.create_task(self._insist(0.0))
        self._sending.add(insisting)
        insisting.add_done_callback(self._sending.discard)
        # It wakes a loop that sleeps in an async cell.
        self._link.send("shell", "kernel_info_request", {})

    async def _insist(self, seconds: float) -> None:
        """Interrupt from outside: the cell may have damaged the guest, or it is not there yet."""
        cell = self._place.last_cell
        await asyncio.sleep(seconds)
        if self._begun == cell and self._over != cell and self.alive:
            await self._place.interrupt()

    async def settle(self) -> bool:
        """Stop what a cancelled cell goes on with; see `KernelSession.settle`."""
        return await self._stop() and self.alive

    async def _stop(self) -> bool:
        """Stop the last cell, if it runs; tell whether it is over, or will never begin."""
        if self._is_over or not self.alive:
            return True
        begun = self._has_begun
        await self.interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                while not (self._is_over or self._gone.is_set()):
                    self._moved.clear()
                    await self._moved.wait()
        return self._is_over or not begun

    async def _kill(self, cause: str) -> None:
        self._death = cause
        self.tell(f"a cell of the model can't be stopped: {cause}; it goes on in the kernel")
        raise KernelError(
            f"the cell can't be stopped: {cause}, and a kernel of the user's is not killed",
            hint="it goes on until it ends by itself; repl='local' kills such cells",
        )

    # Leaving ----------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop what runs, take the guest out of the kernel, and let go of it; see `KernelSession.close`."""
        try:
            if self._open and not self._gone.is_set():
                await self._stop()
                # Before it was there, what answers would be the guest of somebody else.
                if self._ready is not None:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._answer_to("control", "rlm_leave", {}), LEAVE_SECONDS)
        finally:
            await super().close()
