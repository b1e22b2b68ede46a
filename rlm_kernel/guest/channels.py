"""The ways out of a kernel that requests can take, and what both sides of them share.

Invariant: a request belongs to a `Cell`, travels as that cell's message, and nobody waits for an answer to it
once the cell has ended. A message leaves whole or not at all, also when an interrupt comes.
"""

from __future__ import annotations

import builtins
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import loads
from typing import Any

__all__ = ["CallFailed", "Cell", "Control", "PlainInput", "Stdin", "ended", "interrupts_held"]

POLL_MILLISECONDS = 100


class CallFailed(RuntimeError):  # noqa: N818  the name is what a model reads, and says what happened
    """A call from a cell that got no answer; false, so that ``[a for a in answers if a]`` drops it.

    ``kind`` is one of budget, model, schema, tool, depth, cancelled, bad_request, internal.
    """

    def __init__(self, message: str, kind: str = "internal") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"[call failed, {self.kind}: {self.message}]"

    __repr__ = __str__


def ended() -> CallFailed:
    """Return the failure of calls whose cell is over."""
    return CallFailed(
        "the cell that started this call has ended; make calls while their cell runs", "cancelled"
    )


class Cell:
    """One execution of a cell, as calls know it: the message that asked for it, and who sent that."""

    def __init__(self, parent: Any, ident: Any) -> None:
        self.parent = parent
        self.ident = ident
        self.running = True


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Keep an interrupt of the main thread until the block is done, then let it through."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(came[0], None)


class Stdin:
    """The stdin channel of an ipykernel, used by one thread at a time."""

    buffers = True

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._lock = threading.RLock()
        self._asked = ""
        self._again = False

    def send_again(self, have: frozenset[str]) -> None:
        """Have the thread that waits send its envelope again, unless its id is in ``have``."""
        self._again = self._asked not in have

    def tell(self, text: str, cell: Cell, buffers: Sequence[bytes] = ()) -> None:
        """Send an envelope that needs no answer."""
        kernel = self._kernel
        with self._lock, interrupts_held():
            kernel.session.send(
                kernel.stdin_socket,
                "input_request",
                {"prompt": text, "password": False},
                parent=cell.parent,
                ident=cell.ident,
                buffers=list(buffers),
            )

    def ask(
        self, text: str, cell: Cell, buffers: Sequence[bytes], id_: str, *, insist: bool = False
    ) -> dict[str, Any]:
        """Send an envelope and return the reply to it, passing over replies to other ids.

        With ``insist`` it is sent again while no reply comes.
        """
        socket = self._kernel.stdin_socket
        with self._lock:
            if not cell.running:
                raise ended()
            self._asked, self._again = id_, False
            self.tell(text, cell, buffers)
            while True:
                # A poll that ends by itself lets an interrupt through on every platform.
                if not socket.poll(POLL_MILLISECONDS):
                    if not cell.running:
                        raise ended()
                    if insist or self._again:
                        self._again = False
                        self.tell(text, cell, buffers)
                    continue
                try:
                    _, message = self._kernel.session.recv(socket)
                    reply = loads(message["content"]["value"])
                    if reply["id"] == id_:
                        return dict(reply)
                except (ValueError, TypeError, KeyError):
                    continue


class PlainInput:
    """The kernel's own ``input``, for kernels that are not ipykernel, such as Pyodide's."""

    buffers = False

    def __init__(self) -> None:
        self._input = builtins.input
        self._lock = threading.RLock()

    def send_again(self, have: frozenset[str]) -> None:
        """Do nothing: the kernel's own ``input`` waits, and can't be told to ask again."""

    def tell(self, text: str, cell: Cell, buffers: Sequence[bytes] = ()) -> None:
        """Send an envelope; the host answers it with an empty line."""
        with self._lock:
            self._input(text)

    def ask(
        self, text: str, cell: Cell, buffers: Sequence[bytes], id_: str, *, insist: bool = False
    ) -> dict[str, Any]:
        """Send an envelope and return the reply to it.

        Raises:
            CallFailed: what came was the answer to another request, that an interrupt had cut short.
        """
        with self._lock:
            line = self._input(text)
        try:
            reply = loads(line)
            if reply["id"] == id_:
                return dict(reply)
        except (ValueError, TypeError, KeyError):
            pass
        raise CallFailed("another call's answer came instead; ask again", "internal")


Done = Callable[[dict[str, Any]], None]


class Control:
    """Requests on iopub and replies on control, for any number of threads and tasks at once."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._thread = kernel.iopub_thread
        self._lock = threading.Lock()
        self._pending: list[tuple[Cell, str, Sequence[bytes]]] = []
        self._waiting: dict[str, tuple[Cell, Done, str, Sequence[bytes]]] = {}
        self.works = threading.Event()
        kernel.control_handlers["rlm_reply"] = self._receive
        kernel.control_handlers["rlm_probe"] = lambda stream, ident, message: self.works.set()

    def send(self, text: str, cell: Cell, buffers: Sequence[bytes], id_: str, done: Done | None) -> None:
        """Send an envelope; ``done(reply)`` is called in another thread, once, and must not raise.

        Raises:
            CallFailed: the cell has ended.
        """
        with self._lock:
            # Asked under the lock: after `end` nothing may begin to wait.
            if not cell.running:
                raise ended()
            if done is not None:
                self._waiting[id_] = (cell, done, text, buffers)
            self._pending.append((cell, text, buffers))
            first = len(self._pending) == 1
        if first:
            # What other threads add before the IO thread gets to it shares the message.
            self._thread.schedule(self._flush)

    def forget(self, id_: str) -> None:
        """Stop waiting for ``id_``."""
        with self._lock:
            self._waiting.pop(id_, None)

    def end(self, cell: Cell) -> None:
        """End ``cell``, and fail what still waits for an answer in it."""
        with self._lock:
            cell.running = False
            self._pending = [each for each in self._pending if each[0] is not cell]
            ids = [id_ for id_, (of, *_) in self._waiting.items() if of is cell]
            waiting = [self._waiting.pop(id_)[1] for id_ in ids]
        failure = ended()
        reply = {"ok": False, "error": {"kind": failure.kind, "message": failure.message}}
        for done in waiting:
            done(reply)

    def send_again(self, have: frozenset[str]) -> None:
        """Send what waits for an answer once more, unless its id is in ``have``."""
        with self._lock:
            lost = [each for id_, each in self._waiting.items() if id_ not in have]
            self._pending += [(cell, text, buffers) for cell, _, text, buffers in lost]
        if lost:
            self._thread.schedule(self._flush)

    def _flush(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, []
        cells: dict[Cell, tuple[list[list[Any]], list[bytes]]] = {}
        for cell, text, buffers in pending:
            envelopes, frames = cells.setdefault(cell, ([], []))
            envelopes.append([text, len(buffers)])
            frames.extend(buffers)
        for cell, (envelopes, frames) in cells.items():
            self._kernel.session.send(
                self._kernel.iopub_socket,
                "rlm_request",
                {"envelopes": envelopes},
                parent=cell.parent,
                ident=b"rlm_request",
                buffers=frames,
            )

    def _receive(self, stream: Any, ident: Any, message: Any) -> None:
        for reply in message["content"]["replies"]:
            with self._lock:
                _, done, *_ = self._waiting.pop(reply.get("id"), (None, None))
            if done is not None:
                done(reply)
