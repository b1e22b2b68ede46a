"""The channels of a kernel whose connection file is on this machine, over ZeroMQ.

Its death is the end of its connection, which the system reports; it belongs to somebody else, who may have
restarted it as well.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.connect import ConnectionFileMixin

from ...errors import KernelStartError
from ..gateway.deliveries import Delivering
from ..local import LocalTransport
from ..transport import Channel, JupyterMessage

__all__ = ["FileTransport"]

ANSWER_SECONDS = 15.0


class FileTransport(Delivering, LocalTransport):
    """The kernel whose connection file is at ``path``."""

    backend = "attach"

    def __init__(self, path: Path) -> None:
        LocalTransport.__init__(self)
        Delivering.__init__(self)
        self._path = path
        self._listener: Callable[[JupyterMessage], None] = lambda message: None
        self._gone = False
        self._monitor: zmq.Socket[Any] | None = None
        self._answered: asyncio.Event = asyncio.Event()
        self.last_cell = ""
        self.last_request: Mapping[str, Any] = {}
        self.on_return: Callable[[float], None] = lambda seconds: None

    async def open(
        self, on_message: Callable[[JupyterMessage], None], on_death: Callable[[str], None]
    ) -> str:
        """Connect to the kernel; see `Transport.open`.

        Raises:
            KernelStartError: the file is none of a kernel, or no kernel answers there.
        """
        self._loop = asyncio.get_running_loop()
        self._listener, self._on_message, self._on_death = on_message, self._deliver, on_death
        self.folder = tempfile.mkdtemp(prefix="rlm-")
        known: Any = ConnectionFileMixin(connection_file=str(self._path))
        try:
            known.load_connection_file()
            self._manager = known
            self._connect(known)
        except (OSError, ValueError, KeyError, TypeError, zmq.ZMQError) as error:
            raise KernelStartError(
                f"{self._path} is no connection file that can be used: {error}"[:500],
                hint="Jupyter writes one for each kernel, kernel-ID.json in its runtime folder",
            ) from None
        self._watch()
        # On control, where a kernel answers also while it is busy.
        self.send("control", "kernel_info_request", {})
        with suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), ANSWER_SECONDS)
        if not self._answered.is_set():
            raise KernelStartError(
                f"no kernel answers at {self._path.name}",
                hint="the kernel that it was written for may be gone",
            )
        return self._path.stem.removeprefix("kernel-")

    def _watch(self) -> None:
        """Have the end of the connection told."""
        socket = self._sockets["control"]
        self._monitor = socket.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED)
        assert self._loop is not None
        self._loop.add_reader(int(self._monitor.fd), self._on_event)
        self._on_event()

    def _on_event(self) -> None:
        while self._monitor is not None:
            try:
                event = self._monitor.recv_multipart(zmq.NOBLOCK)[0]
            except zmq.Again:
                return
            if int.from_bytes(event[:2], "little") == zmq.EVENT_DISCONNECTED and self._answered.is_set():
                self._lost("its process ended, or was restarted")
                return

    def _deliver(self, message: JupyterMessage) -> None:
        if not isinstance(message.content, dict):
            return  # no message of a kernel
        self._answered.set()
        if not self._take_acknowledgement(message):
            self._listener(message)

    def _lost(self, cause: str) -> None:
        if not (self._gone or self._closed):
            self._gone = True
            self.fail_deliveries(cause)
            self._on_death(cause)

    def give_up(self, cause: str) -> None:
        """Take the kernel for gone."""
        self._lost(cause)

    async def still_there(self) -> None:
        """Nothing is to be asked: the end of the connection tells."""

    def send(
        self,
        channel: Channel,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: JupyterMessage | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Send a signed message, which leaves no trace in the user's history; see `Transport.send`."""
        if type_ == "execute_request":
            content = self.last_request = {**content, "store_history": False}
        id_ = LocalTransport.send(self, channel, type_, content, parent=parent, buffers=buffers)
        if type_ == "execute_request":
            self.last_cell = id_
        return id_

    @property
    def knows_guest(self) -> bool:
        """It does not: somebody else started it."""
        return False

    def start_log(self) -> str:
        """Return nothing: it was started by somebody else."""
        return ""

    async def interrupt(self) -> None:
        """Interrupt whatever the kernel executes, by message; see `Transport.interrupt`."""
        if not (self._gone or self._closed):
            self.send("control", "interrupt_request", {})

    def kill(self) -> None:
        """Let go of the kernel, which goes on; see `Transport.kill`."""
        self._killed = True
        if self._monitor is not None and self._loop is not None:
            self._loop.remove_reader(int(self._monitor.fd))
            self._sockets["control"].disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None
        for socket in self._sockets.values():
            if self._loop is not None:
                self._loop.remove_reader(int(socket.fd))
            # What tells the guest to leave may be on its way still.
            socket.close(linger=1000)
        self._sockets.clear()

    async def close(self) -> None:
        """Let go of the kernel; see `Transport.close`."""
        if not self._closed:
            self._closed = True
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
