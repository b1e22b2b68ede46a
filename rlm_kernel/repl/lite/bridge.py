"""The page's bridge as the notebook's kernel uses it: found once, then asked for kernels.

A channel keeps nothing for those who come later, so nothing is asked before the page has said hello, and
hello is asked for again until it comes.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from ... import page
from ...errors import ConfigError, KernelStartError
from ..transport import JupyterMessage
from . import protocol
from .line import BroadcastLine, Line

__all__ = ["Bridge", "BridgedKernel", "bridge"]

HELLO_SECONDS = 30.0
AGAIN_SECONDS = 0.5
# A boot takes seconds, on a busy machine minutes; several wait for each other.
START_SECONDS = 600.0


class BridgedKernel:
    """One kernel behind the bridge. ``on_message`` and ``on_end`` are called as for `Transport.open`."""

    def __init__(
        self, owner: Bridge, on_message: Callable[[JupyterMessage], None], on_end: Callable[[str], None]
    ) -> None:
        self.name = uuid.uuid4().hex
        self.started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.on_message = on_message
        self.on_end = on_end
        self._owner = owner

    def send(self, message: Mapping[str, Any]) -> None:
        """Have the page pass a message on; see `protocol.jupyter_message`."""
        self._owner.post("send", self.name, message=message)

    def interrupt(self) -> None:
        """Have what waits in the kernel's queue dropped; what it executes goes on."""
        self._owner.post("interrupt", self.name)

    def shutdown(self) -> None:
        """Have the kernel ended at once, whatever it does. Safe to call twice."""
        self._owner.forget(self)


class Bridge:
    """The kernels that the page has started for us. ``announce`` tells the page the name of ``line``."""

    def __init__(self, line: Line, announce: Callable[[], None]) -> None:
        self._line = line
        self._announce = announce
        self._hello = asyncio.Event()
        self._version: Any = None
        self._kernels: dict[str, BridgedKernel] = {}

    async def meet(self, seconds: float = HELLO_SECONDS) -> None:
        """Wait until the page answers.

        Raises:
            KernelStartError: it does not, within ``seconds``.
            ConfigError: it speaks another version.
        """
        self._line.listen(self._take)
        self._announce()
        try:
            async with asyncio.timeout(seconds):
                while not self._hello.is_set():
                    self._line.post(protocol.encode("hello"))
                    try:
                        async with asyncio.timeout(AGAIN_SECONDS):
                            await self._hello.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            self._line.close()
            raise KernelStartError(
                f"the page did not answer within {seconds:g} s when it was asked for a kernel",
                hint="the site needs @rlm-kernel/labextension, and this notebook must be open in it",
            ) from None
        if self._version != protocol.VERSION:
            self._line.close()
            raise ConfigError(
                f"the page's extension speaks version {self._version!r}, this package {protocol.VERSION}",
                hint="build the site with package and extension of one version",
            )

    async def start(
        self, on_message: Callable[[JupyterMessage], None], on_end: Callable[[str], None]
    ) -> tuple[BridgedKernel, str]:
        """Have a kernel started; return it and its id once it answers.

        Raises:
            KernelStartError: it does not.
        """
        kernel = BridgedKernel(self, on_message, on_end)
        self._kernels[kernel.name] = kernel
        self.post("start", kernel.name)
        try:
            async with asyncio.timeout(START_SECONDS):
                return kernel, await kernel.started
        except TimeoutError:
            self.forget(kernel)
            raise KernelStartError(
                f"the page did not start a kernel within {START_SECONDS:g} s", hint="reload the page"
            ) from None
        except BaseException:
            self.forget(kernel)
            raise

    def post(self, op: str, kernel: str, **more: Any) -> None:
        """Ask the page for something about a kernel that it has."""
        if kernel in self._kernels:
            self._line.post(protocol.encode(op, kernel, **more))

    def forget(self, kernel: BridgedKernel) -> None:
        """Have a kernel ended, and hear nothing more of it."""
        self.post("shutdown", kernel.name)
        self._kernels.pop(kernel.name, None)

    def _take(self, text: Any) -> None:
        report = protocol.decode(text)
        if report is None:
            return
        if isinstance(report, protocol.Hello):
            self._version = report.version
            self._hello.set()
            return
        kernel = self._kernels.get(report.kernel)
        if kernel is None:
            return
        if isinstance(report, protocol.Delivered):
            kernel.on_message(report.message)
        elif isinstance(report, protocol.Started):
            if not kernel.started.done():
                kernel.started.set_result(report.id)
        else:
            self._end(kernel, report.reason)

    def _end(self, kernel: BridgedKernel, reason: str) -> None:
        del self._kernels[kernel.name]
        if kernel.started.done():
            kernel.on_end(reason)
        else:
            kernel.started.set_exception(
                KernelStartError(
                    f"the page could not start a kernel: {reason}",
                    hint="the browser's console tells more; a page that is short of memory helps to reload",
                )
            )


_meeting: asyncio.Task[Bridge] | None = None


async def bridge() -> Bridge:
    """Return the page's bridge, which is looked for once.

    Raises:
        ConfigError: this is no page, or the page's extension is of another version.
        KernelStartError: the page does not answer.
    """
    global _meeting  # noqa: PLW0603  a page has one
    if not page.here():
        raise ConfigError(
            "the repl `lite` is for notebooks that run in the browser, in JupyterLite",
            hint="here there are local, sandbox and pyodide",
        )
    if _meeting is None or (_meeting.done() and (_meeting.cancelled() or _meeting.exception() is not None)):
        _meeting = asyncio.ensure_future(_met())
    return await asyncio.shield(_meeting)


async def _met() -> Bridge:
    import comm  # noqa: PLC0415  the kernel's

    line = BroadcastLine()

    def announce() -> None:
        comm.create_comm(
            target_name=protocol.TARGET, data={"version": protocol.VERSION, "channel": line.name}
        )

    found = Bridge(line, announce)
    await found.meet()
    return found
