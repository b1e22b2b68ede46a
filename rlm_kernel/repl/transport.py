"""How Jupyter messages get to a kernel and back: what differs between local, remote and browser kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..context import Context

__all__ = ["Channel", "JupyterMessage", "Transport"]

Channel = Literal["shell", "iopub", "stdin", "control"]


@dataclass(frozen=True, slots=True)
class JupyterMessage:
    """A message from a kernel, as far as a session reads it."""

    channel: Channel
    type: str
    content: Mapping[str, Any]
    parent_id: str | None
    header: Mapping[str, Any]
    buffers: Sequence[memoryview | bytes] = field(default=())


class Transport(Protocol):
    """One kernel's four channels, and the process behind them. Used on one event loop only."""

    @property
    def backend(self) -> str:
        """The name of the backend, as the user gives it."""
        ...

    @property
    def folder(self) -> str:
        """A private folder of this kernel on the host, for what must not be held in memory."""
        ...

    @property
    def knows_guest(self) -> bool:
        """Whether the kernel was started with the guest's sources; see `rlm_kernel.repl.bootstrap`."""
        ...

    async def open(
        self, on_message: Callable[[JupyterMessage], None], on_death: Callable[[str], None]
    ) -> str:
        """Start the kernel, connect, and return its id; it need not be ready yet.

        ``on_message`` is called for every message, in order per channel; ``on_death`` once, with the cause
        in words, when the kernel is gone without `close`.

        Raises:
            KernelStartError: there is no such kernel, or it ended at once.
        """
        ...

    def send(
        self,
        channel: Channel,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: JupyterMessage | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Send a message and return its id. Never blocks."""
        ...

    def start_log(self) -> str:
        """Return the end of what the kernel printed while it started, for the message of a failure."""
        ...

    async def share(self, context: Context) -> tuple[str, str, str]:
        """Bring a context to where the kernel can load it: its name, format, and path over there."""
        ...

    async def unshare(self) -> None:
        """Drop what only a starting or loading kernel needs: its connection file, what `share` left."""
        ...

    async def interrupt(self) -> None:
        """Interrupt what the kernel executes."""
        ...

    def kill(self) -> None:
        """Have the kernel end, whatever it does, and wait for nothing; `close` is still to be called."""
        ...

    async def close(self) -> None:
        """End the kernel, whatever it does, and remove what belongs to it. Safe to call twice."""
        ...
