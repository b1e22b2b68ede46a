"""Files brought to a kernel, in pieces over its control channel, each acknowledged.

A piece says where in its file it belongs, so that it may arrive twice: after a break, all that were not
acknowledged are sent again. Pieces stay well below what a server takes in one message (Tornado: 10 MiB), and
are as large as the line is fast: what is on its way holds up everything else, signs of life included, whose
absence is taken for a break.
"""

from __future__ import annotations

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...context import Context
from ...errors import ContextError, KernelStartError
from ..pyodide.layout import LAYOUTS, in_layout, layout
from ..transport import Channel, JupyterMessage

__all__ = ["PIECE_BYTES", "Deliveries", "Delivering"]

PIECE_BYTES = 4 * 1024 * 1024
FIRST_BYTES = PIECE_BYTES // 32
SMALLEST_BYTES = PIECE_BYTES // 128
PIECES_AHEAD = 4
PIECE_SECONDS = 120.0
# From sending to acknowledgement, with those ahead: servers wait 30 s for a sign of life, and we 15.
QUICK_SECONDS = 1.0
SLOW_SECONDS = 4.0


@dataclass(slots=True, eq=False)
class _Piece:
    content: Mapping[str, Any]
    data: bytes
    arrived: asyncio.Future[Mapping[str, Any]]
    sent: float = 0.0


class Deliveries:
    """The files of one kernel. ``send(type, content, buffers)`` sends on control and returns an id."""

    def __init__(self, send: Callable[[str, Mapping[str, Any], Sequence[bytes]], str]) -> None:
        self._send = send
        self._under_way: dict[str, _Piece] = {}
        self._names: list[str] = []
        self._size = FIRST_BYTES

    async def put(self, what: str, pieces: Iterable[bytes], total: int, *, once: bool, text: str = "") -> str:
        """Bring ``pieces``, of ``total`` bytes together, into a file at the kernel's; return its path there.

        ``what`` names it in errors. ``once`` is whether it will be read once only. With ``text``, a layout,
        it is no file but a text.

        Raises:
            ContextError: the kernel could not take them.
            KernelStartError: they did not arrive.
        """
        name = f"context-{os.urandom(8).hex()}"
        self._names.append(name)
        ahead: deque[_Piece] = deque()
        offset = 0
        path = f"/contexts/{name}"
        try:
            for piece in self._in_size(pieces):
                content: dict[str, Any] = {"name": name, "offset": offset, "total": total, "once": once}
                content |= {"text": text} if text else {}
                ahead.append(self._start(content, piece))
                offset += len(piece)
                # One alone on its way would leave the line idle until it is acknowledged.
                while len(ahead) >= PIECES_AHEAD or (ahead and offset >= total):
                    path = await self._arrival(what, ahead[0]) or path
                    ahead.popleft()
        finally:
            for left in ahead:
                self._forget(left)
        return path

    def _in_size(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the same in pieces of the size that fits the line by then."""
        for piece in pieces:
            left = memoryview(piece)
            while len(left) > self._size:
                part, left = left[: self._size], left[self._size :]
                yield bytes(part)
            yield bytes(left)

    def _start(self, content: Mapping[str, Any], data: bytes) -> _Piece:
        piece = _Piece(content, data, asyncio.get_running_loop().create_future())
        self._send_piece(piece)
        return piece

    def _send_piece(self, piece: _Piece) -> None:
        piece.sent = time.monotonic()
        self._under_way[self._send("rlm_put", piece.content, [piece.data])] = piece

    async def _arrival(self, what: str, piece: _Piece) -> str:
        try:
            reply = await asyncio.wait_for(asyncio.shield(piece.arrived), PIECE_SECONDS)
        except TimeoutError:
            raise KernelStartError(
                f"{what} did not arrive at the kernel: a piece of it took longer than {PIECE_SECONDS:g} s",
                hint="is the kernel an ipykernel, or one of ours, and the connection fast enough?",
            ) from None
        if reply.get("status") != "ok":
            raise ContextError(
                f"the kernel could not take {what}: {str(reply.get('evalue', ''))[:500]}",
                hint="it needs memory for it, or a folder for temporary files that has the room",
            )
        return str(reply.get("path") or "")

    def _forget(self, piece: _Piece) -> None:
        if not piece.arrived.cancel() and not piece.arrived.cancelled():
            piece.arrived.exception()  # told already, by the piece before it
        for id_ in [id_ for id_, each in self._under_way.items() if each is piece]:
            del self._under_way[id_]

    def take(self, message_id: str | None, reply: Mapping[str, Any]) -> None:
        """Take an acknowledgement of the message of this id."""
        piece = self._under_way.pop(message_id or "", None)
        if piece is not None and not piece.arrived.done():
            piece.arrived.set_result(reply)
            taken = time.monotonic() - piece.sent
            if taken < QUICK_SECONDS:
                self._size = min(2 * self._size, PIECE_BYTES)
            elif taken > SLOW_SECONDS:
                self._size = max(self._size // 2, SMALLEST_BYTES)

    def send_again(self) -> None:
        """Send what was not acknowledged again: the connection broke."""
        pieces, self._under_way = self._under_way, {}
        for piece in pieces.values():
            self._send_piece(piece)

    def fail(self, cause: str) -> None:
        """Tell those who wait that nothing arrives any more."""
        for piece in self._under_way.values():
            if not piece.arrived.done():
                piece.arrived.set_exception(KernelStartError(f"a context did not arrive: {cause}"))
        self._under_way.clear()

    def drop(self) -> None:
        """Have the files deleted; what the kernel has open stays so."""
        while self._names:
            self._send("rlm_drop", {"name": self._names.pop()}, ())


class Delivering(ABC):
    """How a transport brings files to its kernel: what `Transport.share` and its like are made of."""

    folder = ""
    holds_texts = False
    """Whether the kernel takes large texts in a layout of CPython's, see `rlm_kernel.repl.pyodide.layout`."""

    def __init__(self) -> None:
        self._deliveries = Deliveries(
            lambda type_, content, buffers: self.send("control", type_, content, buffers=buffers)
        )

    @abstractmethod
    def send(
        self,
        channel: Channel,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: JupyterMessage | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Send a message; see `Transport.send`."""

    def _take_acknowledgement(self, message: JupyterMessage) -> bool:
        """Take a message, if it is one that acknowledges a piece."""
        if message.type != "rlm_put_reply":
            return False
        self._deliveries.take(message.parent_id, message.content)
        return True

    def fail_deliveries(self, cause: str) -> None:
        """Tell those who wait that nothing arrives any more."""
        self._deliveries.fail(cause)

    async def share(self, context: Context) -> tuple[str, str, str]:
        """Put a context into a file at the kernel's; see `Transport.share`.

        Raises:
            ContextError: it did not arrive there.
        """
        total = context.size_bytes
        once = not context.lazy
        large = total is None or total > PIECE_BYTES
        if self.holds_texts and large and once and context.format == "text":
            kind, total = layout(context.pieces(PIECE_BYTES))
            pieces = in_layout(kind, context.pieces(PIECE_BYTES // LAYOUTS[kind]))
            path = await self._deliveries.put(context.name, pieces, total, once=True, text=kind)
            return context.name, "held", path
        if total is not None:
            path = await self._deliveries.put(context.name, context.pieces(PIECE_BYTES), total, once=once)
        else:
            file, total = await self._spooled(context)
            try:
                with file.open("rb") as source:
                    pieces = iter(lambda: source.read(PIECE_BYTES), b"")
                    path = await self._deliveries.put(context.name, pieces, total, once=once)
            finally:
                file.unlink()
        return context.name, "lazy" if context.lazy else context.format, path

    async def _spooled(self, context: Context) -> tuple[Path, int]:
        """Encode a context into a file of ours, to know how long it is."""
        path = Path(self.folder, f"context-{os.urandom(8).hex()}")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for piece in context.pieces(PIECE_BYTES):
                file.write(piece)
                await asyncio.sleep(0)
            return path, file.tell()

    async def deliver(self, data: bytes) -> str:
        """Put ``data`` into a file at the kernel's, which the guest deletes; return its path there.

        Raises:
            ContextError: it did not arrive.
        """
        view = memoryview(data)
        pieces = (bytes(view[at : at + PIECE_BYTES]) for at in range(0, len(data), PIECE_BYTES))
        return await self._deliveries.put("a reply", pieces, len(data), once=True)

    async def unshare(self) -> None:
        """Delete what `share` left; see `Transport.unshare`."""
        self._deliveries.drop()
