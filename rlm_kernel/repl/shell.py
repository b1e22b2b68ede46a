"""Cells in the user's own IPython shell, on the live objects: nothing is serialised, nothing can be killed.

The session is that of any kernel, and the guest is what runs in kernels; between the two, messages go as
objects. Cells are errands of the main thread (`rlm_kernel.repl.mainthread`), which lends its shell to them
(`rlm_kernel.repl.lent`); calls are answered in the thread of the engine. A time limit is an interrupt and no
more: a cell that does not react to it ends the run, and goes on.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import shutil
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ..context import Context
from ..errors import ConfigError, KernelError
from ..events import CellStatus
from ..guest import calls, cells
from . import mainthread, wire
from .base import KernelInfo, ToolStub
from .bootstrap import GuestSettings
from .lent import Face, Lent, Names, Variables
from .session import GRACE_SECONDS, JupyterSession, _Cell
from .transport import Channel, JupyterMessage

__all__ = ["VARIABLES", "Shell", "ShellSession"]

VARIABLES = "_rlm_ns"
"""What the model's variables are called in the user's namespace."""

WARNING = (
    "rlm-kernel: repl='shell' runs what the model writes in this process, on your live objects and with your "
    "rights. Time limits are interrupts only: code in C, and code that catches them, goes on.\n"
)
_NO_SHELL = "repl='shell' runs cells in an IPython shell, and this process has none"

_sessions = 0
_warned = False


class Shell:
    """Makes sessions in this process's IPython shell: ``RLM(repl=Shell(...))``.

    With ``share``, the variables that the model makes are the user's; without, they are in a namespace of
    their own, in which the user's can be read, and stay there as ``_rlm_ns``. With ``show``, the user sees
    what the cells put out.
    """

    backend = "shell"

    def __init__(self, *, share: bool = False, show: bool = False) -> None:
        self.share = share
        self.show = show

    def __call__(self) -> ShellSession:
        """Return a session that is not started yet.

        Raises:
            ConfigError: this process has no IPython shell.
        """
        return ShellSession(_ipython(), share=self.share, show=self.show)

    def check(self) -> None:
        """Raise what a call would."""
        _ipython()


class ShellSession(JupyterSession):
    """A `KernelSession` in the shell ``ip``."""

    def __init__(self, ip: Any, *, share: bool, show: bool) -> None:
        self._place = _Place(ip, share=share, show=show)
        super().__init__(self._place)
        self._stuck = False

    async def prepare(self) -> None:
        """Make the guest ready; see `JupyterSession.prepare`."""
        self._kernel = await self._place.open(self._receive, self._died)
        self._ready = wire.Ready(cells._implementation(), {"control": True, "buffers": True})
        self._open = True

    async def start(self, contexts: Sequence[Context], tools: Sequence[ToolStub] = ()) -> KernelInfo:
        """Hand over the contexts, by reference; see `KernelSession.start`."""
        if not self._open:
            await self.prepare()
        await self.load(contexts, {})
        self._place.repl.offer([list(each) for each in tools])
        assert self._ready is not None
        return KernelInfo(self._kernel, "shell", self._ready.implementation, self._ready.capabilities)

    async def load(
        self, contexts: Sequence[Context], renamed: Mapping[str, str], *, fresh: bool = False
    ) -> None:
        """Rename contexts, then hand over further ones; see `KernelSession.load`."""
        if fresh:
            self._place.repl.fresh()
        held = self._place.repl.contexts
        for old, new in renamed.items():
            held[new] = held.pop(old)
        held.update((context.name, context.value) for context in contexts)

    async def _follow(self, cell: _Cell, timeout: float | None) -> tuple[CellStatus, str]:
        # The main thread may have other things to do first, and those are not the cell's time.
        await self._place.begun.wait()
        outcome = await super()._follow(cell, timeout)
        if self._place.stopped_by_user:
            # Whoever waits for the run is about to cancel it, and must not be overtaken by its next turn.
            await asyncio.sleep(GRACE_SECONDS)
        return outcome

    async def settle(self) -> bool:
        """Interrupt what a cancelled cell goes on with; see `KernelSession.settle`."""
        return await self._stop()

    async def _stop(self) -> bool:
        """Interrupt what runs; tell whether the main thread is free, or will be once it looks."""
        self._place.drop()
        if self._place.idle.is_set():
            return True
        if not self._stuck:
            await self._place.interrupt()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._place.idle.wait(), GRACE_SECONDS)
                return True
            self._stuck = True
            self._place.complain("a cell of the model does not react to interrupts, and can't be killed here")
        return False

    async def close(self) -> None:
        """Interrupt what runs, and give the shell back; see `KernelSession.close`."""
        self._open = False
        if await self._stop():
            self._place.release()
        await self._place.close()

    async def _kill(self, cause: str) -> None:
        self._stuck = not self._place.idle.is_set()
        self._death = cause
        self._place.complain(f"a cell of the model can't be stopped: {cause}")
        raise KernelError(
            f"the cell can't be stopped: {cause}, and in the user's own shell nothing is killed",
            hint="it goes on until it ends by itself; repl='local' kills such cells",
        )


class _Job:
    """One cell, as an errand of the main thread."""

    def __init__(self, place: _Place, id_: str, code: str) -> None:
        self.place = place
        self.id = id_
        self.code = code
        self.task: asyncio.Task[Any] | None = None

    def now(self) -> None:
        self.place.run(self)

    async def later(self) -> None:
        await self.place.run_async(self)


class _Place:
    """Where cells run: the guest, the lent shell, and the way between main thread and engine.

    A `Transport`: requests and replies are those of a kernel.
    """

    backend = "shell"
    knows_guest = False

    def __init__(self, ip: Any, *, share: bool, show: bool) -> None:
        self._ip = ip
        self._show = show
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_message: Callable[[JupyterMessage], None] = lambda message: None
        self._outbox: deque[JupyterMessage] = deque()
        self._context: contextvars.Context | None = None
        self._outer = contextvars.copy_context()
        self._apart: asyncio.AbstractEventLoop | None = None
        self._job: _Job | None = None
        self._running: _Job | None = None
        self._taken = threading.Lock()
        self._hooked = False
        self._closed = False
        self.folder = ""
        self.begun = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        names: dict[str, Any] = ip.user_ns if share else Names(ip.user_ns)
        self._face = Face(ip, names, self._put_out)
        self._lent = Lent(ip, self._face, shared=share, run_async=self._run_apart)
        self._line = _Line(self.post)
        self.repl = cells.Repl(
            self._face, _Host(self._line), asdict(GuestSettings()), streams=self._face.streams
        )
        self._names = None if share else names
        self._variables = Variables(names, lambda: self.repl.own)
        if not share:
            ip.user_ns[VARIABLES] = self._variables

    @property
    def stopped_by_user(self) -> bool:
        """Whether the user has interrupted the last cell."""
        return self._lent.stopped_by_user

    # The way between the two -------------------------------------------------------------------------

    async def open(
        self, on_message: Callable[[JupyterMessage], None], on_death: Callable[[str], None]
    ) -> str:
        """Begin; see `Transport.open`."""
        global _sessions, _warned  # noqa: PLW0603  it is said once, and threads are followed while any session is open
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self.folder = tempfile.mkdtemp(prefix="rlm-shell-")
        _sessions += 1
        if not _warned:
            _warned = True
            self._lent.complain(WARNING)
        return f"shell-{os.getpid()}"

    def send(
        self,
        channel: Channel,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: JupyterMessage | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Take a cell, or hand a reply to one; see `Transport.send`."""
        id_ = os.urandom(9).hex()
        if type_ == "execute_request":
            self.begun.clear()
            self.idle.clear()
            self._job = _Job(self, id_, content["code"])
            io_loop = getattr(getattr(self._ip, "kernel", None), "io_loop", None)
            mainthread.add(self._job, getattr(io_loop, "asyncio_loop", None))
        elif type_ == "rlm_reply":
            self._line.control_handlers["rlm_reply"](None, None, {"content": content})
        elif type_ == "input_reply":
            self._line.stdin_socket.put(content["value"])
        return id_

    def post(self, message: JupyterMessage) -> None:
        """Hand a message to the session; from any thread."""
        self._outbox.append(message)
        if len(self._outbox) == 1:
            self._schedule(self._deliver)

    def _schedule(self, function: Callable[..., None], *args: Any) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody is there any more
                self._loop.call_soon_threadsafe(function, *args)

    def _deliver(self) -> None:
        while self._outbox:
            message = self._outbox.popleft()
            if message.type == "stream":
                message = _with_following(message, self._outbox)
            self._on_message(message)

    def _put_out(self, type_: str, content: Mapping[str, Any]) -> None:
        self.post(JupyterMessage("iopub", type_, content, self._line.cell, {}))
        if self._show:
            # Where the user's cell is that shows it.
            self._outer.copy().run(self._face.show_user, type_, content)

    def complain(self, text: str) -> None:
        """Tell the user."""
        self._lent.complain(f"rlm-kernel: {text}\n")

    # A cell, in the main thread ----------------------------------------------------------------------

    def run(self, job: _Job) -> None:
        """Run a cell to its end."""
        if not self._take(job):
            return
        done = False
        assert self._context is not None
        try:
            done = self._context.run(self._run_in_step, job.code)
        except KeyboardInterrupt:
            done = False
        finally:
            self._finish(job, done=done)
        self._lent.pass_on()

    def _run_in_step(self, code: str) -> bool:
        with self._lent.step():
            try:
                self._hook()
                self.repl.host.enter()
                return bool(self._ip.run_cell(code, store_history=False).success)
            finally:
                self._report()

    async def run_async(self, job: _Job) -> None:
        """Run a cell as the current task."""
        if not self._take(job):
            return
        done = False
        job.task = asyncio.current_task()
        assert job.task is not None
        assert self._context is not None
        try:
            done = await _Stepped(self._cell(job.code), self._lent, self._context)
        except (KeyboardInterrupt, asyncio.CancelledError):
            done = False
        finally:
            while job.task.cancelling():
                job.task.uncancel()
            job.task = None
            self._finish(job, done=done)
        self._lent.pass_on()

    async def _cell(self, code: str) -> bool:
        ip = self._ip
        try:
            self._hook()
            self.repl.host.enter()
            problem = None
            try:
                transformed = ip.transform_cell(code)
            except Exception:  # noqa: BLE001  what is wrong with it is shown as the cell's error
                transformed, problem = code, sys.exc_info()
            result = await ip.run_cell_async(
                code, store_history=False, transformed_cell=transformed, preprocessing_exc_tuple=problem
            )
            self._face.events.trigger("post_execute")
            self._face.events.trigger("post_run_cell", result)
            return bool(result.success)
        finally:
            self._report()

    def _hook(self) -> None:
        self._lent.shadow(self.repl.own)
        if not self._hooked:
            self._hooked = True
            self.repl.ready()
            self._lent.shadow({"_": None})

    def _report(self) -> None:
        """See that the cell is reported on, also where an interrupt came between."""
        while self.repl.host.cell is not None:
            with suppress(KeyboardInterrupt):
                self._face.events.trigger("post_run_cell", None)

    def _run_apart(self, coroutine: Any) -> Any:
        """Run a coroutine to its end on a loop of the cells' own, whatever loop is running here."""
        if self._apart is None:
            self._apart = asyncio.new_event_loop()
        outer = asyncio._get_running_loop()
        task = None if outer is None else asyncio.current_task(outer)
        if task is not None and outer is not None:
            asyncio.tasks._leave_task(outer, task)
        asyncio._set_running_loop(None)
        try:
            return _to_its_end(self._apart, coroutine)
        finally:
            asyncio._set_running_loop(outer)
            if task is not None and outer is not None:
                asyncio.tasks._enter_task(outer, task)

    def _take(self, job: _Job) -> bool:
        with self._taken:
            if self._job is not job or self._closed:
                return False
            self._running = job
        self._line.cell = job.id
        self._outer = contextvars.copy_context()
        # One for all cells: what they set in it stays theirs.
        self._context = self._context or contextvars.copy_context()
        self._lent.begin()
        self._schedule(self.begun.set)
        return True

    def _finish(self, job: _Job, *, done: bool) -> None:
        self._running = None
        self._line.cell = ""
        status = "ok" if done else "error"
        self._schedule(self._ended, job)
        self.post(JupyterMessage("shell", "execute_reply", {"status": status}, job.id, {}))
        self.post(JupyterMessage("iopub", "status", {"execution_state": "idle"}, job.id, {}))
        # Even where an interrupt kept an earlier one from being announced.
        self._schedule(self._deliver)

    def _ended(self, job: _Job) -> None:
        if self._job is job:
            self.idle.set()

    # The engine's side -------------------------------------------------------------------------------

    async def interrupt(self) -> None:
        """Interrupt the running cell; see `Transport.interrupt`."""
        job = self._running
        if job is not None and not self._lent.interrupt() and job.task is not None:
            with suppress(RuntimeError):
                job.task.get_loop().call_soon_threadsafe(job.task.cancel)

    def drop(self) -> None:
        """Forget a cell that has not begun."""
        with self._taken:
            if self._running is None:
                self._job = None
                self.idle.set()

    def release(self) -> None:
        """Give up what cells had, none of which runs any more."""
        global _sessions  # noqa: PLW0603  see open
        if self._closed:
            return
        self._closed = True
        self._lent.close()
        if self._names is not None:
            # What the user deletes must not live on because a run has seen it.
            for name in [*self.repl.own, "_"]:
                self._names.pop(name, None)
            self._variables.settle()
        self.repl.contexts.clear()
        if self._loop is not None:
            _sessions -= 1
            if _sessions == 0:
                calls.unfollow_cells()
        if self._apart is not None:
            self._apart.set_exception_handler(lambda loop, context: None)
            self._apart.close()

    async def close(self) -> None:
        """Remove the folder; see `Transport.close`."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """Nothing can be killed here; see `Transport.kill`."""

    def start_log(self) -> str:
        """Nothing is printed while this starts; see `Transport.start_log`."""
        return ""

    async def share(self, context: Context) -> tuple[str, str, str]:
        """Name a context; it is handed over as it is. See `Transport.share`."""
        return context.name, context.format, ""

    async def unshare(self) -> None:
        """Nothing was written; see `Transport.unshare`."""


class _Stepped:
    """A coroutine whose every step the shell is lent for, in a context of its own."""

    def __init__(self, coroutine: Any, lent: Lent, context: contextvars.Context) -> None:
        self._coroutine = coroutine
        self._lent = lent
        self._context = context

    def __await__(self) -> Any:
        step, argument = self._coroutine.send, None
        while True:
            with self._lent.step():
                try:
                    waits_for = self._context.run(step, argument)
                except StopIteration as stop:
                    return stop.value
            try:
                argument = yield waits_for
                step = self._coroutine.send
            except BaseException as error:  # noqa: BLE001  it is the coroutine's, which is thrown it
                step, argument = self._coroutine.throw, error


class _Host(calls.Host):
    """The host as the guest knows it, in the same process: nothing has to be found out."""

    def probe(self) -> dict[str, bool]:
        return {"control": True, "buffers": True}

    def introduce(self, op: str, args: dict[str, Any]) -> None:
        """The session knows."""


class _Line:
    """What the guest takes for its kernel: its messages go to the session as objects."""

    def __init__(self, post: Callable[[JupyterMessage], None]) -> None:
        self.cell = ""
        self.session = self
        self.iopub_thread = self
        self.iopub_socket = "iopub"
        self.stdin_socket = _Inbox()
        self.control_handlers: dict[str, Callable[..., None]] = {}
        self._post = post

    def get_parent(self, channel: str) -> dict[str, Any]:
        return {"header": {"msg_id": self.cell}}

    def schedule(self, function: Callable[[], None]) -> None:
        function()

    def send(
        self,
        socket: Any,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: Mapping[str, Any],
        ident: Any = None,
        buffers: Sequence[bytes] = (),
    ) -> None:
        channel: Channel = "stdin" if socket is self.stdin_socket else "iopub"
        self._post(JupyterMessage(channel, type_, content, parent["header"]["msg_id"], {}, buffers))

    def recv(self, socket: _Inbox) -> tuple[None, dict[str, Any]]:
        return None, {"content": {"value": socket.take()}}


class _Inbox:
    """Replies for the main thread."""

    def __init__(self) -> None:
        self._replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._next: str | None = None

    def put(self, reply: str) -> None:
        self._replies.put(reply)

    def poll(self, milliseconds: int) -> bool:
        if self._next is None:
            with suppress(queue.Empty):
                self._next = self._replies.get(timeout=milliseconds / 1000)
        return self._next is not None

    def take(self) -> str | None:
        reply, self._next = self._next, None
        return reply


def _ipython() -> Any:
    found = sys.modules.get("IPython")
    ip = found.get_ipython() if found is not None else None
    if ip is None:
        raise ConfigError(_NO_SHELL, hint="use it in a notebook or in ipython, or take repl='local'")
    return ip


def _to_its_end(loop: asyncio.AbstractEventLoop, coroutine: Any) -> Any:
    task = loop.create_task(coroutine)
    while True:
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            if task.done():
                raise
            task.cancel()


def _with_following(message: JupyterMessage, waiting: deque[JupyterMessage]) -> JupyterMessage:
    """Return a stream's message with those of the same stream that wait behind it."""
    texts, name = [message.content["text"]], message.content["name"]
    while waiting and waiting[0].type == "stream" and waiting[0].content["name"] == name:
        texts.append(waiting.popleft().content["text"])
    content = {"name": name, "text": "".join(texts)}
    return JupyterMessage("iopub", "stream", content, message.parent_id, {})
