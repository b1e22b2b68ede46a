"""What a kernel owes to a host that is far away: files in pieces, a second telling, an end of its own.

The host's messages arrive on the control channel, whose thread reads while a cell runs:

- ``rlm_put`` brings a piece of a file, and says where in it the piece belongs; ``rlm_drop`` deletes a file.
- ``rlm_compare`` names the requests that the host works on. What else waits for an answer is sent again: the
  request was lost, or the answer. The reply tells which cell runs, how the one asked for ended, and what the
  host last marked: by that it knows later which contexts are loaded.
- Any of these, and any answer, shows that the host is there. When nothing was heard for as long as the lease
  says, the kernel ends.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["MESSAGE_BYTES", "hold_ports", "serve"]

MESSAGE_BYTES = 100_000_000
"""What one request may weigh, all its buffers together: those between hold a message whole."""

CELLS_KEPT = 8
HOLD_SECONDS = 60
_HOLD = """
import socket, sys, time
until = time.time() + int(sys.argv[1])
held = []
for port in map(int, sys.argv[3:]):
    while time.time() < until:
        each = socket.socket()
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind((sys.argv[2], port))
            each.listen(1)
            held.append(each)
            break
        except OSError:
            each.close()
            time.sleep(0.02)
time.sleep(max(0, until - time.time()))
"""
_NAME = re.compile(r"[A-Za-z0-9-]{1,80}")


def serve(shell: Any, host: Any, lease: float, lapsed: Callable[[], None] | None = None) -> None:
    """Serve the host until it is silent for ``lease`` seconds, if a thread reads the control channel.

    Then the kernel ends, or ``lapsed`` is called in its place.
    """
    kernel: Any = getattr(shell, "kernel", None)
    host.max_bytes = MESSAGE_BYTES
    if getattr(kernel, "control_thread", None) is not None:
        before = getattr(kernel, "_rlm_service", None)
        if before is not None:
            before.withdraw()
        kernel._rlm_service = _Service(shell, host, kernel, lease, lapsed)


class _Service:
    def __init__(
        self, shell: Any, host: Any, kernel: Any, lease: float, lapsed: Callable[[], None] | None
    ) -> None:
        self._shell = shell
        self._lapsed = lapsed or self._end
        self._host = host
        self._kernel = kernel
        self._folder = ""
        self._heard = time.monotonic()
        self.marks: Any = {}
        self._ended: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._withdrawn = threading.Event()
        handlers = kernel.control_handlers
        # One that a kernel has of its own knows better where its files are.
        handlers.setdefault("rlm_put", self._put)
        handlers.setdefault("rlm_drop", self._drop)
        handlers["rlm_compare"] = self._compare
        reply = handlers.get("rlm_reply")
        if reply is not None:
            handlers["rlm_reply"] = lambda *message: self._hear() or reply(*message)
        shell.events.register("post_execute", self._executed)
        shell.events.register("post_run_cell", self._ran)
        atexit.register(self._forget_files)
        # No cell started it.
        watch = threading.Thread(target=self._watch, args=(lease,), name="rlm-lease", daemon=True)
        watch.start()

    def withdraw(self) -> None:
        """Leave the kernel to another host."""
        self._withdrawn.set()
        self._shell.events.unregister("post_execute", self._executed)
        self._shell.events.unregister("post_run_cell", self._ran)
        for name, mine in (("rlm_put", self._put), ("rlm_drop", self._drop)):
            if self._kernel.control_handlers.get(name) == mine:
                del self._kernel.control_handlers[name]
        self._forget_files()

    def _hear(self) -> Any:
        self._heard = time.monotonic()

    # Cells ------------------------------------------------------------------------------------------

    def _executed(self) -> None:
        # Of a cell that the guest follows, `_ran` tells.
        if self._host.cell is None:
            self._note(self._host.request())

    def _ran(self, result: Any = None) -> None:
        if self._host.cell is None:
            request = self._host.request()
            self._note(request)
            if request in self._ended:
                self._ended[request]["report"] = self._host.report

    def _note(self, request: Any) -> None:
        if request is None:
            return
        result = getattr(self._shell, "last_execution_result", None)
        error = getattr(result, "error_before_exec", None) or getattr(result, "error_in_exec", None)
        outcome: dict[str, Any] = {"status": "ok"}
        if error is not None:
            name = type(error).__name__
            try:
                text = str(error)[:2000]
            except Exception:  # noqa: BLE001  an edge: objects of model-written classes raise anything
                text = "(its text can't be shown)"
            outcome = {"status": "error", "ename": name, "evalue": text}
        self._ended[request] = outcome
        while len(self._ended) > CELLS_KEPT:
            self._ended.popitem(last=False)

    def _compare(self, stream: Any, ident: Any, message: Any) -> None:
        self._hear()
        content = message["content"]
        self._host.send_again(frozenset(content.get("have") or ()))
        self.marks = content.get("marks", self.marks)
        cell = self._host.cell
        running = None if cell is None else (cell.parent or {}).get("header", {}).get("msg_id")
        asked = content.get("cell")
        ended = self._ended.get(asked) if asked and asked != running else None
        state = {"running": running, "ended": ended, "marks": self.marks}
        self._kernel.session.send(stream, "rlm_state", state, message, ident=ident)

    # Files ------------------------------------------------------------------------------------------

    def _put(self, stream: Any, ident: Any, message: Any) -> None:
        self._hear()
        try:
            reply = {"status": "ok", "path": self._write(message["content"], message["buffers"])}
        except Exception as error:  # noqa: BLE001  an edge: the host is to be told, whatever it is
            reply = {"status": "error", "evalue": f"{type(error).__name__}: {error}"[:2000]}
        self._kernel.session.send(stream, "rlm_put_reply", reply, message, ident=ident)

    def _write(self, content: dict[str, Any], buffers: Any) -> str:
        path = self._path(content["name"])
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        with open(descriptor, "wb") as file:
            file.seek(content["offset"])
            file.writelines(buffers)
        return path

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("no name of a file")
        if not self._folder:
            self._folder = tempfile.mkdtemp(prefix="rlm-")
        return os.path.join(self._folder, name)

    def _drop(self, stream: Any, ident: Any, message: Any) -> None:
        self._hear()
        with suppress(OSError, ValueError, TypeError):
            os.unlink(self._path(message["content"]["name"]))

    def _forget_files(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    # The lease --------------------------------------------------------------------------------------

    def _watch(self, lease: float) -> None:
        step = min(lease / 4, 10.0)
        while not self._withdrawn.is_set():
            before = time.monotonic()
            self._withdrawn.wait(step)
            now = time.monotonic()
            if now - before > 2 * step + 1:
                # Everything stood still, the thread that hears the host too.
                self._heard = now
            elif now - self._heard > lease and not self._withdrawn.is_set():
                self._lapsed()

    def _end(self) -> None:
        self._forget_files()
        with suppress(Exception):
            hold_ports()
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(0)


def hold_ports() -> None:
    """Keep the server from putting a kernel without a lease in this one's place.

    Servers start a kernel again that has ended, at the same ports, and remove it when that fails a few times.
    """
    application: Any = sys.modules["ipykernel.kernelapp"].IPKernelApp.instance()
    if application.transport == "tcp":
        names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        ports = [str(getattr(application, name)) for name in names]
        command = [sys.executable, "-c", _HOLD, str(HOLD_SECONDS), application.ip, *ports]
        subprocess.Popen(command, start_new_session=True)  # noqa: S603  numbers, and our own code
