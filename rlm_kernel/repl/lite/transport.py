"""A kernel in the page's other worker, and its channels through the bridge.

Nothing of ours sees what the worker does but through its messages, and nothing stops it but its end. Its
control channel is read by nobody while a cell runs, so nothing is sent on it.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ...context import Context
from ..transport import Channel, JupyterMessage
from . import protocol
from .bridge import Bridge, BridgedKernel, bridge
from .files import Files
from .slots import Slots

__all__ = ["LiteTransport"]

KERNELS_AT_ONCE = 2
_SLOTS = Slots(KERNELS_AT_ONCE)


class LiteTransport:
    """A kernel that the page starts for us. ``find`` returns the page's bridge."""

    backend = "lite"
    knows_guest = False

    def __init__(self, slots: Slots = _SLOTS, find: Callable[[], Awaitable[Bridge]] = bridge) -> None:
        self.slots = slots
        self._find = find
        self.files = Files()
        self.folder = ""
        self._session = uuid.uuid4().hex
        self._kernel: BridgedKernel | None = None
        self._has_slot = False

    async def open(
        self, on_message: Callable[[JupyterMessage], None], on_death: Callable[[str], None]
    ) -> str:
        """Have the page start a kernel, and wait until it answers; see `Transport.open`."""
        found = await self._find()
        await self.slots.take()
        self._has_slot = True
        try:
            self._kernel, id_ = await found.start(on_message, on_death)
        except BaseException:
            self._leave()
            raise
        self.folder = tempfile.mkdtemp(prefix="rlm-")
        return id_

    def send(
        self,
        channel: Channel,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: JupyterMessage | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Have the page pass a message on; see `Transport.send`."""
        id_ = uuid.uuid4().hex
        if self._kernel is None or channel == "control":
            return id_
        header = {
            "msg_id": id_,
            "msg_type": type_,
            "username": "rlm",
            "session": self._session,
            "date": datetime.now(UTC).isoformat(),
            "version": "5.3",
        }
        to = {} if parent is None else parent.header
        self._kernel.send(protocol.jupyter_message(channel, header, to, content))
        return id_

    def start_log(self) -> str:
        """Return nothing: what a worker prints while it starts is in the browser's console."""
        return ""

    async def share(self, context: Context) -> tuple[str, str, str]:
        """Offer a context to the kernel, which fetches it when it loads it; see `Transport.share`."""
        return context.name, "lazy" if context.lazy else context.format, self.files.add(context)

    async def unshare(self) -> None:
        """Offer nothing any more; see `Transport.unshare`."""
        self.files.clear()

    async def interrupt(self) -> None:
        """Drop what waits for the kernel; what runs can't be interrupted; see `Transport.interrupt`."""
        if self._kernel is not None:
            self._kernel.interrupt()

    def kill(self) -> None:
        """Have the page end the worker; see `Transport.kill`."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.shutdown()
        self._leave()

    async def close(self) -> None:
        """End the worker; see `Transport.close`."""
        self.kill()
        self.files.clear()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let others have the kernel's place while it waits for its children."""
        if not self._has_slot:
            yield
            return
        self._leave()
        try:
            yield
        finally:
            if self._kernel is not None:
                self._has_slot = True
                self.slots.resume()

    def _leave(self) -> None:
        if self._has_slot:
            self._has_slot = False
            self.slots.give()
