"""A prepared kernel over any transport: cells in, outputs and calls out, all as Jupyter messages.

One cell runs at a time. It has ended when its ``execute_reply``, the ``idle`` status and the guest's report
are here; a cell past its time is interrupted, then killed. Calls are answered only while their cell
runs: an envelope of another cell is dropped, and what is unanswered when a cell ends is cancelled.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..context import Context
from ..errors import CallError, ContextError, KernelStartError, WireError
from ..events import CellStatus
from ..outputs import Output, joined
from . import wire
from .base import Call, CallHandler, CellResult, KernelInfo, ToolStub
from .bootstrap import GuestSettings, first_cell, load_cell
from .received import output_of, within
from .transport import JupyterMessage, Transport
from .uploads import Uploads

__all__ = ["JupyterSession"]

START_SECONDS = 60.0
LOAD_SECONDS = 600.0
HEAR_SECONDS = 60.0
GRACE_SECONDS = 2.0
INTERRUPTS = 2
# After the end of a cell was told on iopub: the reply was sent before.
REPLY_SECONDS = 0.3
# After the reply: the rest is on its way, unless the kernel's own functions were damaged by the cell.
REPORT_SECONDS = 1.0
# After a reply, how long iopub may be silent until the end of the cell counts as dropped there.
QUIET_SECONDS = 5.0


class _Cell:
    """A cell in flight."""

    def __init__(
        self,
        on_call: CallHandler,
        on_output: Callable[[Output], None] | None,
        room: int,
        uploads: Uploads,
    ) -> None:
        self.id = ""
        self.on_call = on_call
        self.on_output = on_output
        self.outputs: list[Output] = []
        self.room = room
        self.reply: JupyterMessage | None = None
        self.idle = False
        self.interrupted = False
        self.heard = 0
        self.report: wire.CellReport | None = None
        self.calls: dict[str, asyncio.Task[None]] = {}
        self.uploads = uploads
        self.changed = asyncio.Event()

    @property
    def replied(self) -> bool:
        return self.reply is not None and self.idle


class JupyterSession:
    """The `KernelSession` of every backend that speaks Jupyter messages through a `Transport`.

    Contexts of together up to ``along_bytes`` are not loaded by themselves: they travel with the first cell.
    """

    def __init__(
        self, transport: Transport, settings: GuestSettings | None = None, *, along_bytes: int = 0
    ) -> None:
        self._transport = transport
        self._settings = settings or GuestSettings()
        self._along_bytes = along_bytes
        self._along: list[tuple[Context, bytes]] = []
        self._cell: _Cell | None = None
        self._ready: wire.Ready | None = None
        self._kernel = ""
        self._death = ""
        self._open = False
        self._replies: list[dict[str, Any]] = []
        self._heard = asyncio.Event()
        self.bury: Callable[[Transport], None] | None = None

    @property
    def alive(self) -> bool:
        """Whether cells can be executed."""
        return self._open and not self._death

    async def prepare(self) -> None:
        """Start the kernel and install the guest, so that `start` has little left to do.

        Raises:
            KernelStartError: the kernel did not become ready.
        """
        self._kernel = await self._transport.open(self._receive, self._died)
        self._open = True
        known = self._transport.knows_guest
        reply = await self._run_silently(self._first_cell(known=known), START_SECONDS)
        if known and reply.get("status") != "ok":
            # The package was updated since: the kernel knows another version.
            reply = await self._run_silently(self._first_cell(known=False), START_SECONDS)
        if self._ready is None or reply.get("status") != "ok":
            raise KernelStartError(
                f"the kernel started, but could not be prepared: {_error_of(reply)}",
                hint="see `jupyter rlm doctor`",
            )
        # First: nothing can connect any more to what is unshared.
        await self._hear()
        await self._transport.unshare()

    def _first_cell(self, *, known: bool) -> str:
        return first_cell(self._settings, known=known)

    async def start(self, contexts: Sequence[Context], tools: Sequence[ToolStub] = ()) -> KernelInfo:
        """Prepare the kernel, if that is not done yet, and load ``contexts``; see `KernelSession.start`."""
        if not self._open:
            await self.prepare()
        if not tools and self._fit_along(contexts):
            self._along = [(context, b"".join(context.pieces())) for context in contexts]
        elif contexts or tools:
            await self._load(contexts, tools)
        assert self._ready is not None
        return KernelInfo(
            self._kernel, self._transport.backend, self._ready.implementation, self._ready.capabilities
        )

    async def load(
        self, contexts: Sequence[Context], renamed: Mapping[str, str], *, fresh: bool = False
    ) -> None:
        """Rename contexts, then load further ones; see `KernelSession.load`."""
        along, self._along = self._along, []
        if along:
            await self._load([context for context, _ in along])
        loads = [await self._transport.share(context) for context in contexts]
        reply = await self._run_silently(load_cell(loads, renamed=renamed, fresh=fresh), LOAD_SECONDS)
        if reply.get("status") != "ok":
            raise ContextError(
                f"the kernel could not load {', '.join(each.name for each in contexts)}: {_error_of(reply)}",
                hint="the kernel needs the memory for it",
            )
        await self._transport.unshare()

    def _fit_along(self, contexts: Sequence[Context]) -> bool:
        # Texts alone: nothing can keep a kernel from loading these.
        if any(each.format != "text" or each.lazy for each in contexts):
            return False
        sizes = [each.size_bytes for each in contexts]
        # One that is not encoded yet has four bytes a character at most.
        most = [
            4 * len(each.value) if size is None else size for each, size in zip(contexts, sizes, strict=True)
        ]
        return sum(most) <= self._along_bytes

    async def _load(self, contexts: Sequence[Context], tools: Sequence[ToolStub] = ()) -> None:
        loads = [await self._transport.share(context) for context in contexts]
        reply = await self._run_silently(load_cell(loads, tools), LOAD_SECONDS)
        if reply.get("status") != "ok":
            names = ", ".join(context.name for context in contexts)
            raise ContextError(
                f"the kernel could not load {names}: {_error_of(reply)}",
                hint="the kernel's Python must have the packages that the context needs, and the memory",
            )
        await self._transport.unshare()

    async def settle(self) -> bool:
        """Interrupt what a cancelled cell goes on with; see `KernelSession.settle`."""
        for _ in range(INTERRUPTS):
            await self._transport.interrupt()
            with suppress(KernelStartError):
                await self._run_silently("", GRACE_SECONDS / INTERRUPTS)
                return self.alive
        return False

    async def _run_silently(self, code: str, seconds: float) -> Mapping[str, Any]:
        """Execute code of ours; return the content of the reply."""
        cell = self._cell = _Cell(_no_calls, None, 100_000, Uploads(self._transport.folder))
        try:
            cell.id = self._transport.send("shell", "execute_request", _execute(code, silent=True))
            await asyncio.wait_for(self._until(cell, lambda: cell.reply is not None), seconds)
        except TimeoutError:
            raise KernelStartError(
                f"the kernel did not become ready within {seconds:g} s",
                hint="see `jupyter rlm doctor`; a machine under heavy load may need another try",
            ) from None
        finally:
            self._cell = None
        if self._death or cell.reply is None:
            raise KernelStartError(
                f"the kernel ended while it started: {self._death}", hint=self._last_words()
            )
        return cell.reply.content

    def _last_words(self) -> str:
        log = self._transport.start_log()
        return f"it printed last:\n{log}" if log else "see `jupyter rlm doctor`"

    async def _hear(self) -> None:
        """Wait until iopub reaches us: a subscription takes effect some time after it was made."""
        since = time.monotonic()
        while not self._heard.is_set() and self.alive:
            if time.monotonic() - since > HEAR_SECONDS:
                raise KernelStartError(
                    f"the kernel started, but none of its outputs came within {HEAR_SECONDS:g} s",
                    hint=self._last_words(),
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), 0.25)
                return
            self._transport.send("shell", "kernel_info_request", {})

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None,
        on_call: CallHandler,
        on_output: Callable[[Output], None] | None = None,
    ) -> CellResult:
        """Execute one cell; see `KernelSession.execute`."""
        if self._cell is not None:
            raise RuntimeError("a cell of this session is still running")
        if not self.alive:
            return CellResult("died", lost=_lost(self._death or "it was closed"))
        started = time.monotonic()
        limit = 4 * (self._settings.head + self._settings.tail)
        cell = self._cell = _Cell(on_call, on_output, limit, Uploads(self._transport.folder))
        content = _execute(code, silent=False)
        if self._along:
            content["rlm_contexts"] = [(context.name, context.format) for context, _ in self._along]
        frames = [frame for _, frame in self._along]
        try:
            cell.id = self._transport.send("shell", "execute_request", content, buffers=frames)
            status, lost = await self._follow(cell, timeout)
        finally:
            self._cell = None
            await self._drop_calls(cell)
        report = cell.report
        if report is not None:
            self._along = []
        return CellResult(
            status,
            outputs=joined(cell.outputs),
            final=report.final if report else None,
            draft=report.draft if report else "",
            variables=report.variables if report else (),
            seconds=time.monotonic() - started,
            lost=lost,
        )

    async def _follow(self, cell: _Cell, timeout: float | None) -> tuple[CellStatus, str]:
        """Wait for a cell's end, enforcing its limit. Returns its status and what was lost."""
        timed_out = False
        try:
            await _within(self._until_ended(cell), timeout)
        except TimeoutError:
            timed_out = True
            await self._drop_calls(cell)
            if not await self._interrupted(cell):
                await self._kill("it did not react to an interrupt")
                return "timed_out", _lost("the cell ran too long and did not react to an interrupt")
        if self._death:
            return "died", _lost(self._death)
        try:
            # A request that was dropped has neither reply nor report.
            await _within(
                self._until(cell, lambda: cell.report is not None or cell.reply is None), REPORT_SECONDS
            )
        except TimeoutError:
            await self._kill("its own functions were damaged")
            return "died", _lost("the cell damaged the functions of the REPL itself")
        if self._death and cell.report is None:
            return "died", _lost(self._death)
        if timed_out:
            return "timed_out", ""
        return ("ok" if cell.reply and cell.reply.content.get("status") == "ok" else "error"), ""

    async def _interrupted(self, cell: _Cell) -> bool:
        """Interrupt a cell; return whether it has ended of it."""
        for _ in range(INTERRUPTS):
            # One that comes before the kernel has begun with the cell is for nothing.
            await self.interrupt()
            with suppress(TimeoutError):
                await _within(self._until_ended(cell), GRACE_SECONDS / INTERRUPTS)
                return True
        return False

    async def _until_ended(self, cell: _Cell) -> None:
        """Wait for a cell's reply and its ``idle``, which a flood of output may have cost."""
        await self._until(cell, lambda: cell.reply is not None or (cell.interrupted and cell.idle))
        if cell.reply is None:
            # ipykernel drops a request, and replies nothing, where an interrupt came before the code.
            with suppress(TimeoutError):
                await _within(self._until(cell, lambda: cell.reply is not None), REPLY_SECONDS)
        while not (cell.idle or self._death):
            heard = cell.heard
            try:
                await _within(self._until(cell, lambda: cell.idle), QUIET_SECONDS)
            except TimeoutError:
                cell.idle = cell.heard == heard

    async def _until(self, cell: _Cell, condition: Callable[[], bool]) -> None:
        while not (condition() or self._death):
            cell.changed.clear()
            await cell.changed.wait()

    async def interrupt(self) -> None:
        """Interrupt the running cell, if there is one."""
        if self._cell is not None and self.alive:
            self._cell.interrupted = True
            await self._transport.interrupt()
            # ipykernel notes the signal without waking its loop: an async cell would sleep on. Any message
            # wakes it.
            self._transport.send("shell", "kernel_info_request", {})

    async def close(self) -> None:
        """End the kernel and what it started; a ``bury`` is left to wait until it has ended."""
        self._open = False
        if self.bury is None:
            await self._transport.close()
        else:
            self._transport.kill()
            self.bury(self._transport)

    async def _kill(self, cause: str) -> None:
        self._death = self._death or cause
        await self._transport.close()

    # Messages ---------------------------------------------------------------------------------------

    def _died(self, cause: str) -> None:
        self._death = cause
        if self._cell is not None:
            self._cell.changed.set()

    def _receive(self, message: JupyterMessage) -> None:
        """Take one message from the kernel. It is guest data: nothing in it may raise here."""
        cell = self._cell
        if message.channel == "iopub":
            self._heard.set()
        if cell is None or message.parent_id != cell.id:
            return
        try:
            if message.channel == "iopub":
                self._receive_iopub(cell, message)
            elif message.channel == "stdin" and message.type == "input_request":
                self._receive_stdin(cell, message)
            elif message.channel == "shell" and message.type == "execute_reply":
                cell.reply = message
                cell.changed.set()
        except (KeyError, TypeError, ValueError, AttributeError, WireError):
            return  # Malformed: a kernel that sends nonsense is not answered.

    def _receive_iopub(self, cell: _Cell, message: JupyterMessage) -> None:
        content = message.content
        cell.heard += 1
        if message.type == "status":
            if content["execution_state"] == "idle":
                cell.idle = True
                cell.changed.set()
        elif message.type == "rlm_request":
            frames = list(message.buffers)
            for text, count in content["envelopes"]:
                mine, frames = frames[:count], frames[count:]
                with suppress(WireError):
                    self._take(cell, wire.parse(text, mine), self._answer_on_control)
        elif (output := output_of(message.type, content)) is not None:
            self._put_out(cell, output)

    def _receive_stdin(self, cell: _Cell, message: JupyterMessage) -> None:
        try:
            envelope = wire.parse(message.content["prompt"], message.buffers)
        except WireError as error:
            # A bare input(): nobody is there to type. Or an envelope with a fault, whose id may be known.
            id_ = _id_of(message.content["prompt"])
            value = "" if id_ is None else json.dumps(wire.encode_reply(id_, _refused(error)))
            self._transport.send("stdin", "input_reply", {"value": value}, parent=message)
            return

        def answer(reply: dict[str, Any]) -> None:
            self._transport.send("stdin", "input_reply", {"value": json.dumps(reply)}, parent=message)

        self._take(cell, envelope, answer)

    def _answer_on_control(self, reply: dict[str, Any]) -> None:
        # Replies of one tick of the loop share a message.
        self._replies.append(reply)
        if len(self._replies) == 1:
            asyncio.get_running_loop().call_soon(self._flush_replies)

    def _flush_replies(self) -> None:
        replies, self._replies = self._replies, []
        if self.alive:
            self._transport.send("control", "rlm_reply", {"replies": replies})

    def _put_out(self, cell: _Cell, output: Output) -> None:
        # The guest has cut the output already; a hostile kernel has not.
        if cell.room <= 0:
            return
        output, size = within(output, cell.room)
        cell.room -= size
        cell.outputs.append(output)
        if cell.on_output is not None:
            cell.on_output(output)

    # Calls ------------------------------------------------------------------------------------------

    def _take(self, cell: _Cell, envelope: wire.Envelope, answer: Callable[[dict[str, Any]], None]) -> None:
        body = envelope.body
        if isinstance(body, wire.Hello):
            self._transport.send("control", "rlm_probe", {})
            answer(wire.encode_reply(envelope.id, None))
        elif isinstance(body, wire.Ready):
            self._ready = body
            answer(wire.encode_reply(envelope.id, None))
        elif isinstance(body, wire.CellReport | wire.Abandon):
            self._note(cell, body)
            if self._ready is not None and not self._ready.capabilities["buffers"]:
                # There the guest speaks through input(), which waits for an answer to anything.
                answer(wire.encode_reply(envelope.id, None))
        elif isinstance(body, wire.Put):
            answer(wire.encode_reply(envelope.id, cell.uploads.add(body)))
        elif envelope.id not in cell.calls:
            cell.calls[envelope.id] = asyncio.create_task(self._answer(cell, envelope.id, body, answer))

    def _note(self, cell: _Cell, body: wire.CellReport | wire.Abandon) -> None:
        if isinstance(body, wire.CellReport):
            cell.report = body
            cell.changed.set()
        elif body.call in cell.calls:
            cell.calls[body.call].cancel()

    async def _answer(
        self,
        cell: _Cell,
        id_: str,
        body: Call | wire.RLMItems,
        answer: Callable[[dict[str, Any]], None],
    ) -> None:
        contexts: list[Context] = []
        outcome: Any
        try:
            call = cell.uploads.attach(body, contexts) if isinstance(body, wire.RLMItems) else body
            outcomes = await cell.on_call(call)
            batched = getattr(call, "batched", False)
            outcome = wire.slots(outcomes) if batched else outcomes[0]
        except CallError as error:
            outcome = error
        except asyncio.CancelledError:
            answer(wire.encode_reply(id_, CallError("the run or the cell was stopped", kind="cancelled")))
            raise
        except WireError as error:
            outcome = _refused(error)
        except Exception:  # noqa: BLE001  an edge: its text may hold what model-written code must not know
            outcome = CallError("the host failed to answer; see the run's trace", kind="internal")
        finally:
            for context in contexts:
                context.release()
        answer(wire.encode_reply(id_, outcome))

    async def _drop_calls(self, cell: _Cell) -> None:
        tasks = [task for task in cell.calls.values() if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        cell.uploads.discard()


async def _within(wait: Awaitable[None], seconds: float | None) -> None:
    # Not by wait_for, which before Python 3.12 loses a cancellation that comes together with the end.
    async with asyncio.timeout(seconds):
        await wait


async def _no_calls(call: Call) -> Sequence[Any]:
    raise CallError("calls are not answered before the run starts", kind="bad_request")


def _execute(code: str, *, silent: bool) -> dict[str, Any]:
    return {
        "code": code,
        "silent": silent,
        "store_history": not silent,
        "user_expressions": {},
        "allow_stdin": True,
        "stop_on_error": False,
    }


def _error_of(reply: Mapping[str, Any]) -> str:
    return f"{reply.get('ename', 'unknown error')}: {str(reply.get('evalue', ''))[:500]}"


def _lost(cause: str) -> str:
    return f"The kernel ended: {cause}."


def _refused(error: WireError) -> CallError:
    return CallError(f"the request was refused: {error}", kind="bad_request")


def _id_of(text: Any) -> str | None:
    try:
        id_ = json.loads(text)["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return id_ if isinstance(id_, str) and len(id_) <= wire.MAX_ID else None
