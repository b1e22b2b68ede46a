"""A gateway's kernel and its four channels, over one websocket that is made again when it breaks.

Invariant: after a break, what was waiting to leave leaves in order; what may or may not have arrived is not
sent again from here, except pieces of files, which the kernel takes at their offsets. The session settles the
rest with the guest, see `rlm_kernel.repl.gateway.session`. Death is a gateway's word, or that it stays away.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from ...errors import KernelStartError
from ..transport import Channel, JupyterMessage
from .address import Gateway
from .connection import MAX_MESSAGE_BYTES, Connection, NotConnectedError
from .deliveries import Delivering
from .frames import pack
from .rest import GatewayRefusedError, GatewayUnreachableError, Rest, start_environment

__all__ = ["GatewayTransport"]

PATIENCE_SECONDS = 60.0
"""How long a gateway may stay away before its kernels are given up."""

CONNECT_SECONDS = 30.0
STABLE_SECONDS = 5.0
STATE_SECONDS = 2.0
# A gateway opens the channels once the kernel answers.
FIRST_CONNECT_SECONDS = 120.0
_PAUSES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
CLOSE_SECONDS = 30.0
RESTART_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
_GONE = {
    "restarting": "its process ended, and the gateway has started another one",
    "autorestarting": "its process ended, and the gateway has started another one",
    "dead": "its process ended",
}


class GatewayTransport(Delivering):
    """A kernel that ``gateway`` starts for us. ``patience`` is how long, in seconds, a gateway may stay away.

    ``on_return(seconds)`` is called when a connection that broke was made again; messages may be lost then.
    ``v1`` is whether the binary protocol is asked for.
    """

    backend = "gateway"
    knows_guest = False

    def __init__(self, gateway: Gateway, *, patience: float = PATIENCE_SECONDS, v1: bool = True) -> None:
        self._gateway = gateway
        self._patience = patience
        self._v1 = v1
        self._session = uuid.uuid4().hex
        self._rest: Rest | None = None
        self._kernel = ""
        self._connection: Connection | None = None
        self._outbox: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self._connected = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._starting: asyncio.Task[str] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._on_message: Callable[[JupyterMessage], None] = lambda message: None
        self._on_death: Callable[[str], None] = lambda cause: None
        self._dead = False
        self._closed = False
        super().__init__()
        self.on_return: Callable[[float], None] = lambda seconds: None
        self.folder = ""
        self.last_request: Mapping[str, Any] = {}

    # Coming and going -------------------------------------------------------------------------------

    async def open(
        self, on_message: Callable[[JupyterMessage], None], on_death: Callable[[str], None]
    ) -> str:
        """Have the gateway start a kernel, and connect; see `Transport.open`."""
        self._on_message, self._on_death = on_message, on_death
        self.folder = tempfile.mkdtemp(prefix="rlm-")
        self._rest = Rest(self._gateway)
        # Not cut short: of a kernel whose id never came nobody could ever say that it is to end.
        self._starting = asyncio.create_task(self._start(self._rest))
        self._kernel = await asyncio.shield(self._starting)
        self._connection = await self._first_connection(self._rest)
        self._connected.set()
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._write())]
        return self._kernel

    async def _first_connection(self, rest: Rest) -> Connection:
        connecting = asyncio.create_task(self._connect(FIRST_CONNECT_SECONDS))
        try:
            while not (await asyncio.wait([connecting], timeout=STATE_SECONDS))[0]:
                # A gateway lets us wait also for a kernel that ended at once.
                if await rest.state(self._kernel) in (None, "dead"):
                    raise KernelStartError(
                        f"the kernel ended while the gateway at {self._gateway.url} started it",
                        hint="the gateway's log tells why",
                    )
            return await connecting
        except NotConnectedError as error:
            raise KernelStartError(
                f"the gateway at {self._gateway.url} started a kernel, but did not connect to it: {error}",
                hint="its log tells more; a proxy before it must let websockets through",
            ) from None
        finally:
            connecting.cancel()

    async def _start(self, rest: Rest) -> str:
        since = time.monotonic()
        while True:
            try:
                return await rest.start(start_environment())
            except GatewayUnreachableError:
                # One that was there before may be about to come back.
                if not self._gateway.was_reached or time.monotonic() - since > self._patience or self._closed:
                    raise
            await asyncio.sleep(1.0)

    async def _connect(self, seconds: float) -> Connection:
        assert self._rest is not None
        url = self._gateway.api("kernels", self._kernel, "channels")
        return await Connection.open(self._rest.client, url, self._session, seconds=seconds, v1=self._v1)

    async def _receive(self) -> None:
        """Read what comes, and connect again, until there is no use in it."""
        attempt = 0
        while self._connection is not None:
            opened = time.monotonic()
            async for message in self._connection.messages():
                self._take(message)
            # One that breaks at once, again and again, is not made again at once.
            attempt = attempt + 1 if time.monotonic() - opened < STABLE_SECONDS else 0
            broken = self._connection
            if self._closed or self._dead:
                return
            if broken.too_large:
                self._lost(f"it sent a message of more than {MAX_MESSAGE_BYTES:,} bytes")
                return
            self._connected.clear()
            since = time.monotonic()
            await broken.close()
            self._connection = await self._again(since, broken.why, attempt)
            if self._connection is None:
                return
            self._connected.set()
            self._deliveries.send_again()
            self.on_return(time.monotonic() - since)

    async def _again(self, since: float, why: str, attempt: int) -> Connection | None:
        """Connect again, for as long as patience lasts; None when the kernel is given up."""
        assert self._rest is not None
        while (left := since + self._patience - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _PAUSES[min(attempt, len(_PAUSES) - 1)]))
            attempt += 1
            try:
                async with asyncio.timeout(max(left, 0.1)):
                    state = await self._rest.state(self._kernel)
                    if state is None or state == "dead":
                        self._lost("the gateway has it no longer" if state is None else _GONE["dead"])
                        return None
                    return await self._connect(CONNECT_SECONDS)
            except GatewayRefusedError as error:
                self._lost(str(error))
                return None
            except (GatewayUnreachableError, NotConnectedError, TimeoutError) as error:
                why = str(error) or why
        self._lost(f"the gateway could not be reached for {self._patience:g} s: {why}")
        return None

    def _take(self, message: JupyterMessage) -> None:
        if self._take_acknowledgement(message):
            return
        if message.type == "status" and message.content.get("execution_state") in _GONE:
            self._lost(_GONE[message.content["execution_state"]])
        else:
            self._on_message(message)

    def _lost(self, cause: str) -> None:
        if self._dead or self._closed:
            return
        self._dead = True
        self.fail_deliveries(cause)
        self._on_death(cause)

    async def still_there(self) -> None:
        """Ask the gateway whether it has the kernel; if not, that is its death."""
        assert self._rest is not None
        with suppress(GatewayUnreachableError):  # the connection tells, sooner or later
            try:
                state = await self._rest.state(self._kernel)
            except GatewayRefusedError as error:
                self._lost(str(error))
                return
            if state is None or state == "dead":
                self._lost("the gateway has it no longer" if state is None else _GONE["dead"])

    def give_up(self, cause: str) -> None:
        """Take the kernel for dead."""
        self._lost(cause)

    def start_log(self) -> str:
        """Return nothing: what a kernel prints while it starts is in the gateway's log."""
        return ""

    # Messages ---------------------------------------------------------------------------------------

    def send(
        self,
        channel: Channel,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: JupyterMessage | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Have a message sent, after those before it; see `Transport.send`."""
        if type_ == "execute_request":
            self.last_request = content
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": type_,
            "username": "rlm",
            "session": self._session,
            "date": datetime.now(UTC).isoformat(),
            "version": "5.3",
        }
        if not (self._closed or self._dead):
            self._outbox.put_nowait(
                (channel, header, {} if parent is None else parent.header, content, buffers)
            )
        return header["msg_id"]

    async def _write(self) -> None:
        while True:
            message = await self._outbox.get()
            await self._connected.wait()
            assert self._connection is not None
            # Of a message that broke off nobody knows whether it arrived.
            with suppress(ConnectionError):
                await self._connection.send(pack(*message, v1=self._connection.v1))

    # The end ----------------------------------------------------------------------------------------

    async def interrupt(self) -> None:
        """Have the gateway interrupt the kernel; see `Transport.interrupt`."""
        if self._rest is not None and not self._dead:
            # One that can't be interrupted is ended soon.
            with suppress(KernelStartError):
                await self._rest.interrupt(self._kernel)

    def kill(self) -> None:
        """Have the gateway end the kernel; see `Transport.kill`."""
        if self._ending is None and self._rest is not None:
            self._closed = True
            for task in self._tasks:
                task.cancel()
            self._ending = asyncio.create_task(self._end(self._rest))

    async def _end(self, rest: Rest) -> None:
        async with rest:
            await self._delete(rest)

    async def _delete(self, rest: Rest) -> None:
        if self._starting is not None and not self._starting.cancelled():
            with suppress(KernelStartError):
                self._kernel = await self._starting
        for pause in RESTART_PAUSES if self._kernel else ():
            await asyncio.sleep(pause)
            try:
                await rest.delete(self._kernel)
            except GatewayUnreachableError as error:
                # A server that just starts the kernel again fails. A kernel out of reach ends by its lease.
                if not error.status:
                    return
            except GatewayRefusedError:
                return
            else:
                return

    async def close(self) -> None:
        """End the kernel and the connection to it; see `Transport.close`."""
        self.kill()
        if self._ending is not None:
            if self._ending.cancelled():
                # With all tasks of a loop that ends; the pool closes once more what it still has.
                self._ending = asyncio.create_task(self._end(Rest(self._gateway)))
            # Also when nobody waits any longer, the kernel is to end.
            await asyncio.wait([self._ending], timeout=CLOSE_SECONDS)
        if self._rest is not None:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._connection is not None:
                await self._connection.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
