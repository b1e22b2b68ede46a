"""Ask the host, from inside a cell, and wait for the answer.

An envelope is JSON, ``{"rlm": 1, "id": ..., "op": ..., ...}``; the reply repeats the id and holds either
``"ok": true, "value": ...`` or ``"ok": false, "error": {"kind": ..., "message": ...}``. Two ways lead out:

- **stdin**, for the thread that runs the cell: an ``input_request`` whose prompt is the envelope, answered
  by an ``input_reply``. It is the one blocking callback that every kernel and every gateway has. Replies
  are matched by id, because an interrupt leaves late answers behind.
- **iopub and control**, for other threads and for asyncio tasks: a message of type ``rlm_request`` holding a
  list of envelopes, answered by ``rlm_reply`` messages on the control channel, which a thread of its own
  reads while the cell runs. Any number can be in flight. Where the kernel has no such thread, these
  callers take turns on stdin.

Long texts and contexts travel as binary buffers beside the JSON where the transport has them.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from json import dumps, loads
from typing import Any

from .channels import CallFailed, Cell, Control, PlainInput, Stdin, ended
from .decode import Decoder

__all__ = ["PIECE_BYTES", "Host", "failure", "of_a_cell", "unfollow_cells"]

VERSION = 1
# Above this many characters a text goes as a buffer: twice-escaped JSON costs more than a frame.
INLINE_CHARS = 16384
# The same for the texts of a list that has more than so many together.
MANY_CHARS = 1_000_000
INLINE_CHARS_OF_MANY = 256
PIECE_BYTES = 4 * 1024 * 1024
# The host reads messages of up to 64 MiB; a text in JSON may double on its way.
MAX_TEXT = 30_000_000
MAX_FRAME = 60_000_000

_cell: contextvars.ContextVar[Cell | None] = contextvars.ContextVar("rlm_cell", default=None)


class Host:
    """What a cell can ask of the host; one per kernel."""

    def __init__(self, kernel: Any = None, *, control: bool = True) -> None:
        self._main = threading.main_thread()
        self._pid = os.getpid()
        self._stdin = Stdin(kernel) if kernel is not None else PlainInput()
        usable = control and hasattr(kernel, "control_handlers") and hasattr(kernel, "iopub_thread")
        self._control = Control(kernel) if usable else None
        self._kernel = kernel
        self.cell: Cell | None = None
        self.report: dict[str, Any] = {}
        self.max_bytes = float("inf")
        _follow_cells()

    def probe(self) -> dict[str, bool]:
        """Ask the host to show that the control channel works here; fall back to stdin if it doesn't."""
        self.introduce("hello", {"control": self._control is not None, "buffers": self._stdin.buffers})
        if self._control is not None and not self._control.works.wait(2.0):
            self._control = None
        return {"control": self._control is not None, "buffers": self._stdin.buffers}

    def introduce(self, op: str, args: dict[str, Any]) -> Any:
        """Tell the host of this kernel, before there are cells; return what it answers."""
        # The host's socket may not be there yet, and what is sent to nobody is lost.
        return self._ask_stdin(op, args, (), self._new_cell(), insist=True)

    def _new_cell(self) -> Cell:
        kernel = self._kernel
        if kernel is None:
            return Cell(None, None)
        idents = getattr(kernel, "_parent_ident", None)
        return Cell(kernel.get_parent("shell"), None if idents is None else idents["shell"])

    def request(self) -> str | None:
        """Return the id of the message that the kernel works on, where it can be known."""
        parent = self._new_cell().parent or {}
        id_ = parent.get("header", {}).get("msg_id")
        return None if id_ is None else str(id_)

    def begin(self) -> None:
        """Note that a cell starts."""
        self.cell = self._new_cell()
        self.enter()

    def brought(self) -> dict[str, Any]:
        """Return the contexts that came along with the cell."""
        parent = (self.cell.parent if self.cell is not None else None) or {}
        found = {}
        named = parent.get("content", {}).get("rlm_contexts", ())
        for (name, format_), frame in zip(named, parent.get("buffers", ()), strict=False):
            decoder = Decoder(format_)
            decoder.feed(frame)
            found[name] = decoder.finish()
        return found

    def enter(self) -> None:
        """Mark what the caller does from now on as a cell's: that of the running one, or else of none."""
        cell = self.cell
        if cell is None:
            cell = Cell(None, None)
            cell.running = False
        _cell.set(cell)

    def end(self, report: dict[str, Any]) -> None:
        """Note that the cell ended, and report on it."""
        cell, self.cell = self.cell, None
        if cell is None:
            return
        cell.running = False
        self.report = report
        if self._control is not None:
            self._control.end(cell)
        self._stdin.tell(dumps({**report, "rlm": VERSION, "id": _new_id(), "op": "cell"}), cell)

    def current(self) -> Cell:
        """Return the running cell that the caller belongs to.

        Raises:
            CallFailed: it has ended, or this is a forked process.
        """
        if self.forked:
            raise CallFailed(
                "calls work in the kernel's own process only: use threads, not processes", "bad_request"
            )
        cell = _origin() or self.cell
        if cell is None or not cell.running:
            raise ended()
        return cell

    def send_again(self, have: frozenset[str]) -> None:
        """Send again what waits for an answer, but for the ids that the host has; from any thread."""
        self._stdin.send_again(have)
        if self._control is not None:
            self._control.send_again(have)

    @property
    def forked(self) -> bool:
        """Whether this is a child of the kernel's process."""
        return os.getpid() != self._pid

    def ask(self, op: str, args: dict[str, Any] | None = None, buffers: Sequence[bytes] = ()) -> Any:
        """Ask and wait, from any thread. Returns the value, raises `CallFailed`."""
        cell = self.current()
        if self._control is None or threading.current_thread() is self._main:
            return self._ask_stdin(op, args, buffers, cell)
        id_, text, frames = self._pack(op, args, buffers)
        arrived = threading.Event()
        replies: list[dict[str, Any]] = []

        def done(reply: dict[str, Any]) -> None:
            replies.append(reply)
            arrived.set()

        self._control.send(text, cell, frames, id_, done)
        arrived.wait()
        return _value(replies[0])

    def _ask_stdin(
        self,
        op: str,
        args: dict[str, Any] | None,
        buffers: Sequence[bytes],
        cell: Cell,
        *,
        insist: bool = False,
    ) -> Any:
        id_, text, frames = self._pack(op, args, buffers)
        try:
            reply = self._stdin.ask(text, cell, frames, id_, insist=insist)
        except BaseException:
            # What brought us here matters more.
            with suppress(Exception):
                self._stdin.tell(_abandon(id_), cell)
            raise
        return _value(reply)

    async def ask_async(
        self, op: str, args: dict[str, Any] | None = None, buffers: Sequence[bytes] = ()
    ) -> Any:
        """Ask and wait, in an asyncio task, while other tasks go on."""
        control = self._control
        if control is None:
            return self.ask(op, args, buffers)
        cell = self.current()
        id_, text, frames = self._pack(op, args, buffers)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Any]] = loop.create_future()

        def settle(reply: dict[str, Any]) -> None:
            if not future.done():
                future.set_result(reply)

        def done(reply: dict[str, Any]) -> None:
            # A closed loop refuses: nobody waits any more.
            with suppress(Exception):
                loop.call_soon_threadsafe(settle, reply)

        control.send(text, cell, frames, id_, done)
        try:
            reply = await future
        except BaseException:
            control.forget(id_)
            # By the way of the request, or it could overtake that.
            with suppress(Exception):
                control.send(_abandon(id_), cell, (), id_, None)
            raise
        return _value(reply)

    def upload(self, format_: str, pieces: Iterable[bytes]) -> str:
        """Send a context ahead of the call that uses it, piece by piece; return the id of the upload."""
        blob = _new_id()
        for number, piece in enumerate(pieces):
            self.ask("put", {"blob": blob, "number": number, "format": format_}, [piece])
        return blob

    def _pack(
        self, op: str, args: dict[str, Any] | None, buffers: Sequence[bytes]
    ) -> tuple[str, str, list[bytes]]:
        id_ = _new_id()
        frames = list(buffers)
        envelope: dict[str, Any] = {"rlm": VERSION, "id": id_, "op": op}
        for name, value in (args or {}).items():
            envelope[name] = _outline(value, frames) if self._stdin.buffers else value
        if frames and not self._stdin.buffers:
            envelope["frames"] = [b64encode(frame).decode("ascii") for frame in frames]
            frames = []
        text = dumps(envelope)
        largest = max(map(len, frames), default=0)
        if len(text) > MAX_TEXT or largest > MAX_FRAME or sum(map(len, frames)) > self.max_bytes:
            raise CallFailed(
                f"too large: {max(len(text), largest):,} bytes in one piece; ask about parts of it",
                "bad_request",
            )
        return id_, text, frames


def _outline(value: Any, frames: list[bytes], limit: int = INLINE_CHARS) -> Any:
    """Move long texts out of ``value`` into ``frames``, leaving their numbers."""
    if isinstance(value, str) and len(value) > limit:
        frames.append(value.encode("utf-8", "surrogatepass"))
        return {"$frame": len(frames) - 1}
    if isinstance(value, list):
        if sum(len(each) for each in value if isinstance(each, str)) > MANY_CHARS:
            limit = INLINE_CHARS_OF_MANY
        return [_outline(each, frames, limit) for each in value]
    return value


def _value(reply: dict[str, Any]) -> Any:
    if "file" in reply:
        # Too large for a message; see `rlm_kernel.guest.remote`.
        with open(reply["file"], "rb") as file:
            whole = loads(file.read())
        os.unlink(reply["file"])
        return _value(whole)
    if reply.get("ok"):
        return reply.get("value")
    raise failure(reply.get("error") or {})


def failure(error: dict[str, Any]) -> CallFailed:
    """Return the `CallFailed` that a reply's ``error`` stands for."""
    return CallFailed(str(error.get("message", "no reason given")), str(error.get("kind", "internal")))


def _abandon(id_: str) -> str:
    return dumps({"rlm": VERSION, "id": _new_id(), "op": "abandon", "call": id_})


def _new_id() -> str:
    return os.urandom(9).hex()


def _origin() -> Cell | None:
    """Return the cell that started this task or thread, as far as it is known."""
    cell: Cell | None = _cell.get() or getattr(threading.current_thread(), "_rlm_cell", None)
    return cell


def of_a_cell() -> bool:
    """Tell whether a cell, one that has ended included, started the caller's thread or task."""
    return _origin() is not None


def unfollow_cells() -> None:
    """Undo what lets threads know their cell, as far as nobody else has built upon it."""
    for owner, name in ((threading.Thread, "start"), (ThreadPoolExecutor, "submit")):
        original = getattr(getattr(owner, name), "_rlm_original", None)
        if original is not None:
            setattr(owner, name, original)


def _follow_cells() -> None:
    """Let threads and pool tasks know the cell that started them.

    Context variables do not reach new threads by themselves before Python 3.14, and a pool's threads are
    older than the tasks they run, so both are told where the work comes from.
    """
    # The guest may have been installed here before.
    start = getattr(threading.Thread.start, "_rlm_original", threading.Thread.start)
    submit = getattr(ThreadPoolExecutor.submit, "_rlm_original", ThreadPoolExecutor.submit)

    def start_in_cell(self: threading.Thread) -> None:
        self._rlm_cell = _origin()  # type: ignore[attr-defined]
        start(self)

    def submit_in_cell(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        context = contextvars.copy_context()
        context.run(_cell.set, _origin())
        return submit(self, context.run, fn, *args, **kwargs)

    start_in_cell._rlm_original = start  # type: ignore[attr-defined]
    submit_in_cell._rlm_original = submit  # type: ignore[attr-defined]
    threading.Thread.start = start_in_cell  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_in_cell  # type: ignore[assignment,method-assign]
