"""A kernel of one's own, driven cell by cell from code that is not async: what the REPL classes here share.

The kernel and its cells live on the loop in the background. What code in a cell calls on the host is run in
daemon threads, in the caller's context variables, so that it may block, or drive another kernel.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import background
from ..context import Context
from ..errors import KernelError
from ..repl.base import CallHandler, CellResult, ToolStub

if TYPE_CHECKING:
    from ..repl.bootstrap import GuestSettings
    from ..repl.session import JupyterSession

__all__ = ["CELL_SECONDS", "Cells", "in_thread"]

CELL_SECONDS = 120.0
VALUE_CHARS = 20_000

_VALUES = """\
def _rlm_values(names, most):
    from rlm_guest.plain import to_json
    found = {{}}
    for name in names:
        value = found[name] = globals().get(name)
        try:
            if len(to_json(value)) <= most:
                continue
        except Exception:
            pass
        found[name] = repr(value)[:1000]
    return found
FINAL(_rlm_values({names!r}, {most}))
del _rlm_values
"""


class Cells:
    """One kernel. ``answer`` is given the calls of cells, on the background's loop.

    It starts with the first cell. Closed, or forgotten, its process ends. ``session`` makes it, if it is not
    to be a local one; ``settings`` are a local one's.
    """

    def __init__(
        self,
        answer: CallHandler,
        *,
        settings: GuestSettings | None = None,
        tools: Sequence[ToolStub] = (),
        cell_timeout: float | None = CELL_SECONDS,
        session: Callable[[], JupyterSession] | None = None,
    ) -> None:
        self._answer = answer
        self._make = session
        self._settings = settings
        self._tools = tuple(tools)
        self.cell_timeout = cell_timeout
        self._session: JupyterSession | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._forgotten: Callable[[], Any] = lambda: None

    @property
    def alive(self) -> bool:
        """Whether the kernel was started and runs."""
        return self._session is not None and self._session.alive

    def start(self, contexts: Sequence[Context] = ()) -> None:
        """Start the kernel with these contexts, if it is not started yet; else load them.

        Raises:
            KernelError: it did not start, has ended, or was closed.
            ContextError: a context could not be loaded.
        """
        if self._closed:
            raise KernelError("the kernel was closed", hint="make another one")
        if self._session is not None:
            if contexts:
                background.run(self._session.load(contexts, {}))
            return
        session = background.run(self._made())
        self._forgotten = weakref.finalize(self, _close_later, session)
        try:
            background.run(session.start(contexts, self._tools))
        except BaseException:
            self._forgotten()
            raise
        self._session = session

    async def _made(self) -> JupyterSession:
        # On the loop that it will live on.
        if self._make is not None:
            return self._make()
        from ..repl.local import LocalTransport  # noqa: PLC0415  on use
        from ..repl.session import JupyterSession  # noqa: PLC0415  on use

        return JupyterSession(LocalTransport(), self._settings)

    def run(self, code: str) -> CellResult:
        """Execute one cell and wait for its end.

        Raises:
            KernelError: there is no kernel, or another cell is running.
        """
        if not self._lock.acquire(blocking=False):
            raise KernelError("another cell is running in this kernel", hint="wait for it")
        try:
            self.start()
            assert self._session is not None
            return background.run(self._run(self._session, code))
        finally:
            self._lock.release()

    async def _run(self, session: JupyterSession, code: str) -> CellResult:
        try:
            return await session.execute(code, timeout=self.cell_timeout, on_call=self._answer)
        except asyncio.CancelledError:
            # An interrupt of the caller: the next cell must find the kernel free.
            await session.settle()
            raise

    def values(self, names: Sequence[str]) -> dict[str, Any]:
        """Return variables by name; those that JSON does not carry, or that are large, as short texts."""
        if not names or not self.alive:
            return {}
        result = self.run(_VALUES.format(names=list(names), most=VALUE_CHARS))
        found = result.final.value if result.final is not None else None
        return found if isinstance(found, dict) else {}

    def close(self) -> None:
        """End the kernel. Safe to call twice."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            background.run(session.close())


def _close_later(session: JupyterSession) -> None:
    with suppress(RuntimeError):
        asyncio.run_coroutine_threadsafe(session.close(), background.loop())


async def in_thread(context: contextvars.Context, function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns, run in a daemon thread and a copy of ``context``, and awaited."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))

    def call() -> Any:
        value = function()
        return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value

    def work() -> None:
        value, error = None, None
        try:
            value = context.copy().run(call)
        except BaseException as raised:  # noqa: BLE001  an edge: the user's code; it is raised again below
            error = raised
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="rlm-host-call", daemon=True).start()
    value, error = await done
    if isinstance(error, Exception):
        raise error
    if error is not None:
        # SystemExit and its like must end the call, and not the loop that serves all.
        raise RuntimeError(f"{type(error).__name__}: {error}".rstrip(": ")) from None
    return value


async def _awaited(value: Any) -> Any:
    return await value
