"""One line of JSON for everything that is executed: when, by whom, in which session and kernel, and its hash.

The code itself is not in it. What a line says of the session is the client's own word; user, kernel and hash
are the server's. Native kernels have the server's standard output, and its user: they could write lines, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone
from typing import Any

from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
)
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from traitlets import Unicode
from traitlets.config import SingletonConfigurable

__all__ = ["Audit", "AuditedConnection"]

V1 = "v1.kernel.websocket.jupyter.org"


class Audit(SingletonConfigurable):
    """Where the lines go."""

    file = Unicode("", config=True, help="A file that lines are added to; standard output if empty.")
    _descriptor = -1

    def note(self, event: str, **facts: Any) -> None:
        """Write a line."""
        if self._descriptor < 0:
            self._descriptor = 1
            if self.file:
                self._descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")  # noqa: UP017  servers run on 3.9, too
        os.write(self._descriptor, (json.dumps({"time": time, "event": event, **facts}) + "\n").encode())


class AuditedConnection(ZMQChannelsWebsocketConnection):
    """A kernel's websocket that notes executions, and sends small messages at once.

    Collecting them (Nagle's algorithm) costs 40 ms a cell where the client delays its acknowledgements.
    """

    def connect(self) -> Any:
        """Connect to the kernel."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Note what is to be executed, and pass it on; what can't be understood isn't."""
        # On any channel: ipykernel executes what comes on control, too.
        facts = _execution(incoming_msg, v1=self.subprotocol == V1)
        if facts is not None:
            user = getattr(self.websocket_handler.current_user, "username", "")
            Audit.instance(parent=self).note(
                "execute",
                user=user,
                session=str(self.session.session)[:100],
                kernel=self.kernel_id,
                kernel_name=self.kernel_manager.kernel_name,
                **facts,
            )
        super().handle_incoming_message(incoming_msg)


def _execution(frame: Any, *, v1: bool) -> dict[str, Any] | None:
    """Return the facts of a request to execute code; None for other messages.

    Raises what the server's own reading of a broken frame raises, so that nothing passes by unread.
    """
    if v1:
        _, parts = deserialize_msg_from_ws_v1(frame)  # type: ignore[no-untyped-call]
        if json.loads(parts[0]).get("msg_type") != "execute_request":
            return None
        content = json.loads(parts[3])
    else:
        binary = isinstance(frame, bytes)
        message = deserialize_binary_message(frame) if binary else json.loads(frame)  # type: ignore[no-untyped-call]
        if message["header"].get("msg_type") != "execute_request":
            return None
        content = message["content"]
    code = str(content.get("code", ""))
    facts = {"silent": content.get("silent") is True, "chars": len(code), "code_sha256": _hash(code)}
    # Each is evaluated, with or without code before it.
    if content.get("user_expressions"):
        facts["expressions_sha256"] = _hash(json.dumps(content["user_expressions"], sort_keys=True))
    return facts


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
