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
import base64
import builtins
import contextvars
import json
import os
import threading

VERSION = 1
# Above this many characters a text goes as a buffer: twice-escaped JSON costs more than a frame.
INLINE_CHARS = 16384
PIECE_BYTES = 4 * 1024 * 1024
POLL_MILLISECONDS = 100

_cell = contextvars.ContextVar("rlm_cell", default=None)


class CallFailed(RuntimeError):
    """A call from a cell that got no answer; false, so that ``[a for a in answers if a]`` drops it.

    ``kind`` is one of budget, model, depth, cancelled, bad_request, internal.
    """

    def __init__(self, message, kind="internal"):
        super().__init__(message)
        self.kind = kind
        self.message = message

    def __bool__(self):
        return False

    def __str__(self):
        return "[call failed, {}: {}]".format(self.kind, self.message)

    __repr__ = __str__


def _ended():
    return CallFailed("the cell that started this call has ended; make calls while their cell runs", "cancelled")


class Stdin:
    """The stdin channel of an ipykernel, used by one thread at a time."""

    buffers = True

    def __init__(self, kernel):
        self._kernel = kernel
        self._lock = threading.RLock()

    def tell(self, text, buffers=()):
        """Send an envelope that needs no answer."""
        kernel = self._kernel
        ident = getattr(kernel, "_parent_ident", None)
        with self._lock:
            kernel.session.send(
                kernel.stdin_socket,
                "input_request",
                {"prompt": text, "password": False},
                parent=kernel.get_parent("shell"),
                ident=ident["shell"] if ident is not None else None,
                buffers=list(buffers),
            )

    def ask(self, text, buffers, id_):
        """Send an envelope and return the reply's text, passing over replies to other ids."""
        socket = self._kernel.stdin_socket
        with self._lock:
            self.tell(text, buffers)
            while True:
                # A poll that ends by itself lets an interrupt through on every platform.
                if not socket.poll(POLL_MILLISECONDS):
                    continue
                try:
                    _, message = self._kernel.session.recv(socket)
                    value = message["content"]["value"]
                    if json.loads(value)["id"] == id_:
                        return value
                except (ValueError, TypeError, KeyError):
                    continue


class PlainInput:
    """The kernel's own ``input``, for kernels that are not ipykernel, such as Pyodide's."""

    buffers = False

    def __init__(self):
        self._input = builtins.input
        self._lock = threading.RLock()

    def tell(self, text, buffers=()):
        """Send an envelope; the host answers it with an empty line."""
        with self._lock:
            self._input(text)

    def ask(self, text, buffers, id_):
        """Send an envelope and return the reply's text."""
        with self._lock:
            return self._input(text)


class Control:
    """Requests on iopub and replies on control, for any number of threads and tasks at once."""

    def __init__(self, kernel):
        self._kernel = kernel
        self._thread = kernel.iopub_thread
        self._pending = []
        self._lock = threading.Lock()
        self._waiting = {}
        self.works = threading.Event()
        kernel.control_handlers["rlm_reply"] = self._receive
        kernel.control_handlers["rlm_probe"] = lambda stream, ident, message: self.works.set()

    def send(self, cell, id_, text, buffers, done):
        """Send an envelope; ``done(reply)`` is called in the control thread."""
        with self._lock:
            self._waiting[id_] = (cell, done)
            self._pending.append((cell, text, buffers))
            first = len(self._pending) == 1
        if first:
            # What other threads add before the IO thread gets to it shares the message.
            self._thread.schedule(self._flush)

    def forget(self, id_):
        """Stop waiting for ``id_``."""
        with self._lock:
            self._waiting.pop(id_, None)

    def end(self, cell):
        """Fail what still waits for an answer in ``cell``."""
        with self._lock:
            ids = [id_ for id_, (of, _) in self._waiting.items() if of is cell]
            waiting = [self._waiting.pop(id_)[1] for id_ in ids]
        reply = {"ok": False, "error": {"kind": "cancelled", "message": _ended().message}}
        for done in waiting:
            done(reply)

    def _flush(self):
        with self._lock:
            pending, self._pending = self._pending, []
        by_cell = {}
        for cell, text, buffers in pending:
            by_cell.setdefault(id(cell), (cell, [], []))
            _, envelopes, frames = by_cell[id(cell)]
            envelopes.append([text, len(buffers)])
            frames.extend(buffers)
        for cell, envelopes, frames in by_cell.values():
            self._kernel.session.send(
                self._kernel.iopub_socket,
                "rlm_request",
                {"envelopes": envelopes},
                parent=cell.parent,
                ident=b"rlm_request",
                buffers=frames,
            )

    def _receive(self, stream, ident, message):
        for reply in message["content"]["replies"]:
            with self._lock:
                _, done = self._waiting.pop(reply.get("id"), (None, None))
            if done is not None:
                done(reply)


class Cell:
    """One execution of a cell, as calls know it."""

    def __init__(self, parent):
        self.parent = parent
        self.running = True


class Host:
    """What a cell can ask of the host; one per kernel."""

    def __init__(self, kernel=None, control=True):
        self._main = threading.main_thread()
        self._pid = os.getpid()
        self._stdin = Stdin(kernel) if kernel is not None else PlainInput()
        usable = control and hasattr(kernel, "control_handlers") and hasattr(kernel, "iopub_thread")
        self._control = Control(kernel) if usable else None
        self._kernel = kernel
        self.cell = None
        _follow_cells()

    def probe(self):
        """Ask the host to show that the control channel works here; fall back to stdin if it doesn't."""
        self.ask("hello", {"control": self._control is not None, "buffers": self._stdin.buffers})
        if self._control is not None and not self._control.works.wait(2.0):
            self._control = None
        return {"control": self._control is not None, "buffers": self._stdin.buffers}

    def begin(self):
        """Note that a cell starts."""
        parent = self._kernel.get_parent("shell") if self._kernel is not None else None
        self.cell = Cell(parent)
        _cell.set(self.cell)

    def end(self, report):
        """Note that the cell ended, and report on it."""
        cell, self.cell = self.cell, None
        if cell is None:
            return
        cell.running = False
        if self._control is not None:
            self._control.end(cell)
        self._stdin.tell(json.dumps(dict(report, rlm=VERSION, id=_new_id(), op="cell")))

    def ask(self, op, args=None, buffers=()):
        """Ask and wait, from any thread. Returns the value, raises `CallFailed`."""
        id_, text, frames = self._pack(op, args, buffers)
        if self._control is not None and threading.current_thread() is not self._main:
            cell = self._current()
            arrived = threading.Event()
            replies = []

            def done(reply):
                replies.append(reply)
                arrived.set()

            self._control.send(cell, id_, text, frames, done)
            arrived.wait()
            return _value(replies[0])
        if self.cell is not None:
            self._current()
        try:
            reply = json.loads(self._stdin.ask(text, frames, id_))
        except BaseException:
            self._abandon(id_)
            raise
        return _value(reply)

    async def ask_async(self, op, args=None, buffers=()):
        """Ask and wait, in an asyncio task, while other tasks go on."""
        if self._control is None:
            return self.ask(op, args, buffers)
        id_, text, frames = self._pack(op, args, buffers)
        cell = self._current()
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def settle(reply):
            if not future.done():
                future.set_result(reply)

        def done(reply):
            try:
                loop.call_soon_threadsafe(settle, reply)
            except RuntimeError:
                pass  # the task's loop is closed: nobody waits any more

        self._control.send(cell, id_, text, frames, done)
        try:
            return _value(await future)
        except asyncio.CancelledError:
            self._control.forget(id_)
            self._abandon(id_)
            raise

    def upload(self, format_, pieces):
        """Send a context ahead of the call that uses it, piece by piece; return the number of the upload."""
        blob = _new_id()
        number = 0
        for piece in pieces:
            self.ask("put", {"blob": blob, "number": number, "format": format_}, [piece])
            number += 1
        return blob

    def _current(self):
        if os.getpid() != self._pid:
            raise CallFailed("calls work in the kernel's own process only: use threads, not processes", "bad_request")
        cell = _cell.get() or getattr(threading.current_thread(), "_rlm_cell", None) or self.cell
        if cell is None or not cell.running:
            raise _ended()
        return cell

    def _abandon(self, id_):
        try:
            self._stdin.tell(json.dumps({"rlm": VERSION, "id": _new_id(), "op": "abandon", "call": id_}))
        except Exception:
            pass  # the interrupt that brought us here matters more

    def _pack(self, op, args, buffers):
        id_ = _new_id()
        frames = list(buffers)
        envelope = {"rlm": VERSION, "id": id_, "op": op}
        for name, value in (args or {}).items():
            envelope[name] = _outline(value, frames) if self._stdin.buffers else value
        if frames and not self._stdin.buffers:
            envelope["frames"] = [base64.b64encode(frame).decode("ascii") for frame in frames]
            frames = []
        return id_, json.dumps(envelope), frames


def _outline(value, frames):
    """Move long texts out of ``value`` into ``frames``, leaving their numbers."""
    if isinstance(value, str) and len(value) > INLINE_CHARS:
        frames.append(value.encode("utf-8", "surrogatepass"))
        return {"$frame": len(frames) - 1}
    if isinstance(value, list):
        return [_outline(each, frames) for each in value]
    return value


def _value(reply):
    if reply.get("ok"):
        return reply.get("value")
    raise failure(reply.get("error") or {})


def failure(error):
    """Return the `CallFailed` that a reply's ``error`` stands for."""
    return CallFailed(str(error.get("message", "no reason given")), str(error.get("kind", "internal")))


def _new_id():
    return os.urandom(9).hex()


def _follow_cells():
    """Let threads and pool tasks know the cell that started them.

    Context variables do not reach new threads by themselves before Python 3.14, and a pool's threads are
    older than the tasks they run, so both are told where the work comes from.
    """
    from concurrent.futures import ThreadPoolExecutor

    if getattr(threading.Thread.start, "_rlm", False):
        return
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start_in_cell(self):
        self._rlm_cell = _cell.get()
        return start(self)

    def submit_in_cell(self, fn, /, *args, **kwargs):
        return submit(self, contextvars.copy_context().run, fn, *args, **kwargs)

    start_in_cell._rlm = True
    threading.Thread.start = start_in_cell
    ThreadPoolExecutor.submit = submit_in_cell
