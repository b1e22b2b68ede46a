"""The session of a kernel in the page: it has its contexts fetched, and makes room for its children."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import CallError, ContextError
from .. import wire
from ..base import Call
from ..bootstrap import GuestSettings
from ..session import START_SECONDS, JupyterSession, _Cell
from ..transport import JupyterMessage
from . import files
from .transport import LiteTransport

__all__ = ["LiteSession", "lite_session"]

# A page's Python is slow, the slower on a busy machine: this is for kernels that answer, but not yet.
PATIENCE = 5.0


class LiteSession(JupyterSession):
    """A `JupyterSession` over a `LiteTransport`."""

    def __init__(self, transport: LiteTransport, settings: GuestSettings | None = None) -> None:
        super().__init__(transport, settings or GuestSettings(control=False))
        self._page = transport

    async def _run_silently(self, code: str, seconds: float) -> Mapping[str, Any]:
        # A short wait is one whose end says something.
        return await super()._run_silently(code, seconds * PATIENCE if seconds >= START_SECONDS else seconds)

    def _receive_stdin(self, cell: _Cell, message: JupyterMessage) -> None:
        get = files.asked(message.content.get("prompt"))
        if get is None:
            super()._receive_stdin(cell, message)
            return
        try:
            outcome: Any = self._page.files.piece(get)
        except ContextError as error:
            outcome = CallError(str(error), kind="bad_request")
        reply = json.dumps(wire.encode_reply(get.id, outcome))
        self._transport.send("stdin", "input_reply", {"value": reply}, parent=message)

    async def _answer(
        self,
        cell: _Cell,
        id_: str,
        body: Call | wire.RLMItems,
        answer: Callable[[dict[str, Any]], None],
    ) -> None:
        if not isinstance(body, wire.RLMItems):
            await super()._answer(cell, id_, body, answer)
            return
        # It does nothing while its children work.
        with self._page.waiting():
            await super()._answer(cell, id_, body, answer)


def lite_session() -> LiteSession:
    """Return a session, not started yet, with a kernel in this page."""
    return LiteSession(LiteTransport())
