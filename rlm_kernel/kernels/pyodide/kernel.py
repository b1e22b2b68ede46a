"""The Jupyter side of the kernel `rlm-pyodide`: the protocol, spoken for one sandbox; it runs no code.

The key of the connection, the sockets and the person's answers are here; the sandbox gets the cell, and what
it asked for. One cell runs at a time, and only what the sandbox sends for that one is passed on. When the
sandbox has ended, so does this process, with the cause as its last line on standard error: a kernel without
its memory is a new one.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import zmq
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

from ... import __version__
from ...errors import RLMError
from ...repl.pyodide.child import Child
from ...repl.pyodide.frames import Frame
from ...repl.pyodide.layout import LAYOUTS
from ...repl.pyodide.transport import CAUSE
from . import questions, rich
from .distant import Arrived, Held, Lease
from .starting import Starting
from .unanswered import Ended, Request, Unanswered

__all__ = ["EXIT_CODE", "PyodideKernel", "launch"]

EXIT_CODE = 70
MAX_REPLY = 64 * 1024 * 1024
MAX_PUT = 2**31
ALREADY_SECONDS = 0.1
_FILE = re.compile(r"[A-Za-z0-9_-]{1,80}")
_HELP = re.compile(r"\s*([A-Za-z_][\w.]{0,200})\?{1,2}\s*")
_starting: Starting


class _Cell:
    """A cell in flight: its number in the sandbox, and the input requests sent for it."""

    def __init__(self, number: int, *, silent: bool) -> None:
        self.number = number
        self.silent = silent
        self.error: tuple[str, str, list[str]] | None = None
        # By the id of the message, that of the envelope in it; empty if it is a person's line.
        self.asked: dict[str, str] = {}


class PyodideKernel(Kernel):
    """A Jupyter kernel whose Python is in a sandbox."""

    implementation = "rlm_pyodide"
    implementation_version = __version__
    banner = "Python in WebAssembly, without access to files, network or environment"
    language_info = {  # noqa: RUF012  a traitlet's default, as ipykernel has it
        "name": "python",
        "version": "3.14",
        "mimetype": "text/x-python",
        "file_extension": ".py",
        "pygments_lexer": "ipython3",
        "codemirror_mode": {"name": "ipython", "version": 3},
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self._starting = _starting
        self._cell: _Cell | None = None
        self._number = 0
        self._request: tuple[Any, dict[str, Any]] = (None, {})
        self._show_html = os.environ.get("RLM_PYODIDE_HTML") == "1"
        # What the guest sends is complete: there is nothing to be waited for.
        self._execute_sleep = 0
        for type_ in ("rlm_reply", "rlm_probe"):
            self.control_handlers[type_] = self._pass_on
        self.control_handlers["rlm_put"] = self._put
        self.control_handlers["rlm_drop"] = self._drop
        self.control_handlers["rlm_compare"] = self._compare
        self._held = Held()
        self._arrived = Arrived()
        self._unanswered = Unanswered()
        self._ended = Ended()
        self._marks: Any = {}
        self._running = ""
        # What the host works on; the rest is to be sent again.
        self._have: Any = None
        self._lease = Lease(self._end_by_itself)

    @property
    def _signed(self) -> Any:
        """The session, which signs: ipykernel says it may be None, and has one before a message comes."""
        return self.session

    @property
    def _supports_kernel_subshells(self) -> bool:
        return False

    # Cells ------------------------------------------------------------------------------------------

    async def execute_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Note who asks, for messages on stdin, and execute."""
        self._request = (ident, parent)
        done = super().execute_request(stream, ident, parent)  # type: ignore[no-untyped-call]
        if inspect.isawaitable(done):
            await done

    async def do_execute(
        self,
        code: str,
        silent: bool,  # noqa: FBT001  ipykernel's signature
        store_history: bool = True,  # noqa: FBT001, FBT002  the same
        user_expressions: Any = None,
        allow_stdin: bool = False,  # noqa: FBT001, FBT002  the same
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Run one cell in the sandbox, and wait for its end.

        The thread waits, as it does in an ipykernel; interrupts and the answers to calls come in by another
        one.
        """
        self._unanswered.clear()
        self._running = self._request[1]["header"]["msg_id"]
        reply = await self._execute(code, silent=silent, allow_stdin=allow_stdin)
        self._ended.note(self._running, reply, self._unanswered.report)
        self._running = ""
        return reply

    async def _execute(self, code: str, *, silent: bool, allow_stdin: bool) -> dict[str, Any]:
        try:
            child = self._starting.wait()
        except RLMError as error:
            lines = [str(error), *([f"hint: {error.hint}"] if error.hint else [])]
            return self._failed(type(error).__name__, "; ".join(lines), lines, publish=not silent)
        asked = _HELP.fullmatch(code)
        if asked is not None:
            return await self._help(asked.group(1))
        self._number += 1
        cell = _Cell(self._number, silent=silent)
        child.on_end = self._ended_between_cells
        child.busy = True
        self._cell = cell
        header = {"op": "execute", "cell": cell.number, "code": code, "silent": silent}
        child.send({**header, "count": self.execution_count, "stdin": bool(allow_stdin)})
        poller = zmq.Poller()
        poller.register(self.stdin_socket, zmq.POLLIN)
        poller.register(child.fileno(), zmq.POLLIN)
        while True:
            if child.cause:
                # What it sent last, a sandbox that is being ended is not heard on.
                self._die(child, cell)
            frame = child.take()
            if self._have is not None:
                have, self._have = self._have, None
                for request in self._unanswered.lost(have):
                    self._send_request(cell, request)
            if frame is None:
                if dict(poller.poll(1000)).get(self.stdin_socket):
                    self._take_reply(child, cell)
                continue
            if frame.op == "done" and frame.header["cell"] == cell.number:
                break
            self._show(child, cell, frame)
        self._cell = None
        self._held.clear()
        child.busy = False
        if cell.error is None:
            return {
                "status": "ok",
                "execution_count": self.execution_count,
                "payload": [],
                "user_expressions": {},
            }
        return self._failed(*cell.error, publish=False)

    async def _help(self, name: str) -> dict[str, Any]:
        """Show what is known of a name, as ``name?`` asks for it."""
        known = await self.do_inspect(name, len(name))
        data = known["data"] or {"text/plain": f"there is no {name}"}
        page = {"source": "page", "data": data, "start": 0}
        return {
            "status": "ok",
            "execution_count": self.execution_count,
            "payload": [page],
            "user_expressions": {},
        }

    def _failed(self, name: str, value: str, lines: list[str], *, publish: bool) -> dict[str, Any]:
        content = {"ename": name, "evalue": value, "traceback": lines}
        if publish:
            self._publish("error", content)
        return {"status": "error", "execution_count": self.execution_count, **content}

    def _show(self, child: Child, cell: _Cell, frame: Frame) -> None:
        """Pass on what the sandbox sent for this cell."""
        header = frame.header
        if frame.op == "clear":
            self._publish("clear_output", {"wait": header["wait"]})
            return
        if frame.op == "broken":
            child.kill(f"its JavaScript failed: {header['reason'][:500]}")
            return
        number = header.get("cell")
        if number != cell.number:
            # Late, from a task that an earlier cell left behind; or from a cell that there hasn't been.
            if frame.op in ("ready", "snapshot") or not isinstance(number, int) or number > cell.number:
                child.kill("the sandbox was tampered with: a message for no cell")
            return
        if frame.op == "stream":
            name = "stderr" if header["name"] == "stderr" else "stdout"
            text = rich.text(bytes(frame.body).decode("utf-8", "replace"))
            self._publish("stream", {"name": name, "text": text})
        elif frame.op in ("result", "display"):
            self._show_rich(frame)
        elif frame.op == "error":
            lines = _json(frame.body)
            shown = (
                [rich.text(each) for each in lines if isinstance(each, str)]
                if isinstance(lines, list)
                else []
            )
            cell.error = (rich.text(header["ename"]), rich.text(header["evalue"]), shown)
            if not cell.silent:
                self._failed(*cell.error, publish=True)
        elif frame.op == "failed":
            lines = cell.error[2] if cell.error is not None else []
            cell.error = (rich.text(header["ename"]), rich.text(header["evalue"]), lines)
        elif frame.op == "fault":
            # What is left of Python there would fail in every cell to come.
            child.kill(f"Python could not go on: {rich.text(header['reason'])[:1000]}")
        elif frame.op in ("ask", "post"):
            self._ask_host(cell, frame)

    def _show_rich(self, frame: Frame) -> None:
        content: dict[str, Any] = {
            "data": rich.bundle(_json(frame.body), show_html=self._show_html),
            "metadata": {},
        }
        if frame.op == "result":
            self._publish("execute_result", {**content, "execution_count": self.execution_count})
            return
        id_ = frame.header.get("display_id")
        content["transient"] = {"display_id": id_[:100]} if isinstance(id_, str) else {}
        update = frame.header.get("update") is True and isinstance(id_, str)
        self._publish("update_display_data" if update else "display_data", content)

    def _publish(self, type_: str, content: dict[str, Any]) -> None:
        self.send_response(self.iopub_socket, type_, content)  # type: ignore[no-untyped-call]

    # Questions of a cell ----------------------------------------------------------------------------

    def _ask_host(self, cell: _Cell, frame: Frame) -> None:
        pieces, at = [], 0
        for size in frame.header["sizes"]:
            pieces.append(bytes(frame.body[at : at + size]))
            at += size
        if frame.op == "ask":
            prompt, *buffers = pieces
            request = Request(prompt.decode("utf-8", "replace"), buffers, stdin=True)
            self._send_request(cell, request, password=frame.header["password"])
            return
        requests = []
        counts = frame.header["counts"]
        texts, rest = pieces[: len(counts)], pieces[len(counts) :]
        for text, count in zip(texts, counts, strict=True):
            requests.append(Request(text.decode("utf-8", "replace"), rest[:count], stdin=False))
            rest = rest[count:]
        self._post(requests)

    def _send_request(self, cell: _Cell, request: Request, *, password: bool = False) -> None:
        if not request.stdin:
            self._post([request])
            return
        ident, parent = self._request
        content = {"prompt": request.text, "password": password}
        id_ = self._unanswered.asked(request)
        sent = self._signed.send(
            *(self.stdin_socket, "input_request", content),
            parent=parent,
            ident=ident,
            buffers=request.buffers,
        )
        cell.asked[sent["header"]["msg_id"]] = id_

    def _post(self, requests: list[Request]) -> None:
        _, parent = self._request
        for request in requests:
            self._unanswered.asked(request)
        envelopes = [[request.text, len(request.buffers)] for request in requests]
        buffers = [each for request in requests for each in request.buffers]
        self._signed.send(
            self.iopub_socket,
            "rlm_request",
            {"envelopes": envelopes},
            parent=parent,
            ident=b"rlm_request",
            buffers=buffers,
        )

    def _take_reply(self, child: Child, cell: _Cell) -> None:
        """Pass an input reply on, if it answers a request of this cell."""
        try:
            _, message = self._signed.recv(self.stdin_socket)
            value = message["content"]["value"]
            answered = message["parent_header"].get("msg_id")
        except (ValueError, TypeError, KeyError, AttributeError):
            return  # Not signed with our key, or no reply at all.
        # Not every frontend says what it answers.
        if not isinstance(value, str) or (answered not in cell.asked if answered else not cell.asked):
            return
        if answered:
            self._unanswered.answered(cell.asked[answered])
        body = self._held.whole_text(value).encode("utf-8", "surrogatepass")
        if len(body) <= MAX_REPLY:
            child.send({"op": "stdin"}, body)

    def _pass_on(self, stream: Any, ident: Any, message: dict[str, Any]) -> None:
        """Pass an answer on to the guest of the cell that runs; in the control channel's thread."""
        self._lease.hear()
        child = self._starting.child
        if child is None or self._cell is None:
            return
        content = message["content"]
        if isinstance(content.get("replies"), list):
            for each in content["replies"]:
                self._unanswered.answered(each.get("id") if isinstance(each, dict) else None)
            content = {**content, "replies": [self._held.whole(each) for each in content["replies"]]}
        body = json.dumps({"type": message["header"]["msg_type"], "content": content}).encode()
        if len(body) <= MAX_REPLY:
            child.send({"op": "control"}, body)

    def _put(self, stream: Any, ident: Any, message: dict[str, Any]) -> None:
        """Put a piece of a file into the sandbox's memory; in the thread of the control channel."""
        self._lease.hear()
        error = self._put_piece(message)
        content = {"status": "error" if error else "ok", "evalue": error}
        self._signed.send(stream, "rlm_put_reply", content, message, ident=ident)

    def _put_piece(self, message: dict[str, Any]) -> str:
        content, buffers = message["content"], message["buffers"]
        name, offset, total = (content.get(key) for key in ("name", "offset", "total"))
        if not isinstance(name, str) or not _FILE.fullmatch(name) or len(buffers) != 1:
            return "a piece needs a name and one buffer"
        if type(offset) is not int or type(total) is not int or not 0 <= offset <= total <= MAX_PUT:
            return "a piece needs its offset, and the size of the whole"
        data = memoryview(buffers[0]).cast("B")
        if self._cell is not None:
            return self._held.put(name, offset, total, data)
        header = {"op": "put", "path": f"/contexts/{name}", "offset": offset, "total": total}
        header["once"] = content.get("once") is True
        if content.get("text") in LAYOUTS:
            header["text"] = content["text"]
        try:
            return "" if self._arrived.has(name, offset, len(data)) else self._store(name, header, data)
        except (RLMError, ValueError) as error:
            return str(error)

    def _store(self, name: str, header: dict[str, Any], data: memoryview) -> str:
        answer = self._starting.wait().ask(header, data)
        if answer is None:
            return "the sandbox has ended"
        if not answer.header["error"]:
            self._arrived.note(name, header["offset"] + len(data))
        return str(answer.header["error"])

    def _compare(self, stream: Any, ident: Any, message: dict[str, Any]) -> None:
        """Have made again what was lost, and tell how cells ended; in the thread of the control channel.

        As `rlm_kernel.guest.remote` does it. A kernel that has run nothing yet has taken the place of another
        one, and says nothing.
        """
        content = message["content"]
        self._lease.hear(content.get("lease"))
        if not self._number or self._starting.child is None:
            return
        self._unanswered.followed = True
        if isinstance(content.get("marks"), dict):
            self._marks = content["marks"]
        # In this order: a cell that has ended since is among those that have.
        running = self._running or None
        asked = content.get("cell")
        ended = self._ended.of(asked) if asked != running else None
        if running:
            # The socket of stdin is the other thread's.
            self._have = content.get("have") or []
            self._starting.child.wake()
        state = {"running": running, "ended": ended, "marks": self._marks, "holds_texts": True}
        self._signed.send(stream, "rlm_state", state, message, ident=ident)

    def _end_by_itself(self) -> None:
        self._starting.close()
        os._exit(0)

    def _drop(self, stream: Any, ident: Any, message: dict[str, Any]) -> None:
        """Remove a file from the sandbox's memory; what has it open keeps it."""
        name = message["content"].get("name")
        if isinstance(name, str) and _FILE.fullmatch(name) and self._starting.child is not None:
            self._starting.child.send({"op": "drop", "path": f"/contexts/{name}"})

    # The rest of the protocol -----------------------------------------------------------------------

    async def interrupt_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Interrupt the cell; in the thread of the control channel."""
        if self._starting.child is not None:
            self._starting.child.send({"op": "interrupt"})
        self._signed.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    async def do_complete(self, code: str, cursor_pos: int | None) -> dict[str, Any]:
        """Return completions of names."""
        position = len(code) if cursor_pos is None else cursor_pos
        return questions.complete(self._query("complete", code, position), position)

    async def do_inspect(
        self, code: str, cursor_pos: int | None, detail_level: int = 0, omit_sections: Any = ()
    ) -> dict[str, Any]:
        """Return what is known of the name under the cursor."""
        return questions.explain(
            self._query("inspect", code, len(code) if cursor_pos is None else cursor_pos)
        )

    async def do_is_complete(self, code: str) -> dict[str, Any]:
        """Tell whether code could be run as it is."""
        return questions.is_complete(self._query("is_complete", code, 0))

    def _query(self, what: str, code: str, position: int) -> Mapping[str, Any]:
        try:
            child = self._starting.wait()
        except RLMError:
            return {}
        answer = child.ask({"op": "query", "what": what, "code": code, "position": position})
        found = None if answer is None else _json(answer.body)
        return found if isinstance(found, dict) else {}

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:  # noqa: FBT001  ipykernel's signature
        """End the sandbox."""
        if self._starting.child is not None:
            self._starting.child.on_end = lambda: None
        self._starting.close()
        return {"status": "ok", "restart": restart}

    # The end ----------------------------------------------------------------------------------------

    def _ended_between_cells(self) -> None:
        if self._cell is None and self._starting.child is not None:
            _leave(self._starting.child)

    def _die(self, child: Child, cell: _Cell) -> None:
        """End this process, in the middle of a cell, with a word to who is watching."""
        child.wait()
        if not cell.silent:
            why = f"The sandbox ended: {child.cause}."
            self._failed("SandboxEnded", why, [why], publish=True)
            # The threads that send it are told, but not waited for by anybody.
            sent = threading.Event()
            self.iopub_thread.schedule(sent.set)
            sent.wait(1.0)
            time.sleep(ALREADY_SECONDS)
        _leave(child)


def _leave(child: Child) -> None:
    child.close()
    with suppress(OSError):
        os.write(_log, f"\n{CAUSE}{' '.join(child.cause.split())}\n".encode())
    os._exit(EXIT_CODE)


def _json(body: memoryview) -> Any:
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError):
        return None


_log = 2


class PyodideKernelApp(IPKernelApp):
    """Without the thread that has the shell channel's socket for the sake of subshells.

    This kernel has none, and ipykernel 7.4 then uses that socket from the main thread as well: now and then
    libzmq would end the process.
    """

    def init_control(self, context: Any) -> None:
        """Make the control channel; see `IPKernelApp.init_control`."""
        super().init_control(context)  # type: ignore[no-untyped-call]
        self.shell_channel_thread = None


def launch() -> None:
    """Run the kernel until it is shut down; the sandbox starts at once."""
    global _starting, _log  # noqa: PLW0603  a process holds one kernel
    # ipykernel leads standard error elsewhere.
    _log = os.dup(2)
    _starting = Starting()
    try:
        PyodideKernelApp.launch_instance(kernel_class=PyodideKernel, argv=sys.argv[1:])
    finally:
        _starting.close()
