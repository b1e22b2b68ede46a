"""The channels of a kernel that a Jupyter server has, over one websocket; the kernel stays the server's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import KernelStartError
from ..gateway.address import Gateway
from ..gateway.rest import Rest
from ..gateway.transport import GatewayTransport
from ..transport import Channel, JupyterMessage

__all__ = ["WebsocketTransport"]


class WebsocketTransport(GatewayTransport):
    """The kernel of the id ``kernel`` on ``server``."""

    backend = "attach"

    def __init__(self, server: Gateway, kernel: str) -> None:
        super().__init__(server)
        self._wanted = kernel
        self.last_cell = ""

    async def _start(self, rest: Rest) -> str:
        state = await rest.state(self._wanted)
        if state in (None, "dead"):
            raise KernelStartError(
                f"the server at {self._gateway.url} has no kernel {self._wanted}",
                hint="its user may have ended it, or a notebook started another one",
            )
        return self._wanted

    def send(
        self,
        channel: Channel,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: JupyterMessage | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Have a message sent that leaves no trace in the user's history; see `Transport.send`."""
        if type_ == "execute_request":
            content = {**content, "store_history": False}
        id_ = super().send(channel, type_, content, parent=parent, buffers=buffers)
        if type_ == "execute_request":
            self.last_cell = id_
        return id_

    async def _delete(self, rest: Rest) -> None:
        """Leave the kernel to its user."""
