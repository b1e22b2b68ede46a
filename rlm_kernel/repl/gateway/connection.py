"""One websocket to one kernel: frames in and out, until it breaks. Connecting again is the transport's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp

from ..transport import JupyterMessage
from .frames import V1, FrameError, unpack

__all__ = ["MAX_MESSAGE_BYTES", "Connection", "NotConnectedError"]

MAX_MESSAGE_BYTES = 128 * 1024 * 1024
PING_SECONDS = 30.0
# How long the far end may leave what was sent without an acknowledgement. Something is sent every 5 s.
SILENCE_SECONDS = 8.0
CLOSE_SECONDS = 2.0
MESSAGES_A_TICK = 200


class NotConnectedError(ConnectionError):
    """No websocket came about. ``status`` is HTTP's, 0 without a reply."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Connection:
    """An open websocket. ``why`` tells, once it is closed, what closed it."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self.v1 = ws.protocol == V1
        self.why = "the connection was closed"
        found = ws.get_extra_info("socket")
        self._socket = found if hasattr(socket, "TCP_QUICKACK") else None
        if found is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # A ping would have to wait behind what is sent over a slow line; this counts acknowledgements.
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_SECONDS))

    @classmethod
    async def open(
        cls, client: aiohttp.ClientSession, url: str, session: str, *, seconds: float, v1: bool = True
    ) -> Connection:
        """Connect to the kernel whose channels are at ``url``, as the Jupyter session of this id.

        Raises:
            NotConnectedError: it did not come about.
        """
        try:
            ws = await asyncio.wait_for(
                client.ws_connect(
                    url,
                    params={"session_id": session},
                    protocols=[V1] if v1 else [],
                    max_msg_size=MAX_MESSAGE_BYTES,
                    heartbeat=PING_SECONDS,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_SECONDS),
                ),
                seconds,
            )
        except aiohttp.WSServerHandshakeError as error:
            raise NotConnectedError(error.status, f"the gateway answered {error.status}") from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise NotConnectedError(0, str(error) or "no reply in time") from None
        return cls(ws)

    async def send(self, frame: bytes | str) -> None:
        """Send a frame.

        Raises:
            ConnectionError: it did not leave.
        """
        try:
            if isinstance(frame, str):
                await self._ws.send_str(frame)
            else:
                await self._ws.send_bytes(frame)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise ConnectionError(str(error)) from None

    async def messages(self) -> AsyncIterator[JupyterMessage]:
        """Yield messages until the connection is gone; what is no message is passed over."""
        count = 0
        while True:
            self._acknowledge_at_once()
            frame = await self._ws.receive()
            if frame.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                try:
                    yield unpack(frame.data, v1=self.v1)
                except FrameError:
                    continue
            elif frame.type == aiohttp.WSMsgType.ERROR:
                self.why = str(frame.data) or type(frame.data).__name__
                return
            elif frame.type in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSING,
                aiohttp.WSMsgType.CLOSED,
            ):
                return
            count += 1
            if count % MESSAGES_A_TICK == 0:
                await asyncio.sleep(0)

    @property
    def too_large(self) -> bool:
        """Whether it was closed because of a message of more than `MAX_MESSAGE_BYTES`."""
        return self._ws.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG

    def _acknowledge_at_once(self) -> None:
        # Servers leave Nagle's algorithm on: it waits for our acknowledgement, and that for data of ours,
        # 40 ms each time. The system forgets the option, so it is set before each wait.
        if self._socket is not None:
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError:
                self._socket = None

    async def close(self) -> None:
        """Close it. Safe to call twice."""
        await self._ws.close()
