"""A kernel that is its user's: lent to the host's cells, one at a time, and given back after each.

Invariant: outside of a cell of the host's, names, streams, display and ``input`` are the user's own. What
stays between cells are hooks that do nothing for the user's cells; they go when the host leaves, or when it
was not heard of for the length of the lease. Objects that a cell has changed stay changed.
"""

from __future__ import annotations

import atexit
import builtins
import getpass
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from . import calls, remote
from .cells import Repl, _set_quietly
from .channels import interrupts_held

__all__ = ["Lent"]

_MISSING: Any = object()
# Where these are set, an observer of theirs has to know; the rest are plain attributes.
_TRAITS = frozenset(("colors", "_execute_sleep"))
_LAST = ("last_type", "last_value", "last_traceback", "last_exc")
_HANDLERS = ("rlm_reply", "rlm_probe", "rlm_compare", "rlm_put", "rlm_drop", "rlm_stop", "rlm_leave")
_CELLS_KEPT = 32
INSTALL_SECONDS = 60.0


class Lent(Repl):
    """The REPL in a kernel of the user's.

    The host's messages on the control channel: ``rlm_stop`` ends a cell of its own that runs, or keeps it
    from running if it waits behind one of the user's; ``rlm_leave`` takes the REPL out of the kernel.

    Raises:
        RuntimeError: the kernel has no thread for its control channel, which only an ipykernel has.
    """

    def __init__(self, shell: Any, kernel: Any, config: dict[str, Any]) -> None:
        if getattr(kernel, "control_thread", None) is None or not hasattr(kernel, "control_handlers"):
            raise RuntimeError("it is no ipykernel of version 6 or later")
        self.shell = shell
        self._kernel = kernel
        self._host_session = kernel.get_parent("shell")["header"]["session"]
        self._is_lent = False
        self._leaving = False
        self._gone = False
        self._gate = threading.Lock()
        self._running: str | None = None
        self._ended: deque[str] = deque(maxlen=_CELLS_KEPT)
        self._voided: set[str] = set()
        self._users: dict[str, Any] = {}
        self._made: dict[str, Any] = {}
        self._deleted: list[str] = []
        self._places = [[owner, name, _found(owner, name)] for owner, name in _places(shell, kernel)]
        # A host that vanishes now would leave the kernel waiting for it.
        self._limit = threading.Timer(INSTALL_SECONDS, _interrupt_main_thread)
        self._limit.daemon = True
        self._limit.start()
        try:
            with _copies_kept():
                super().__init__(shell, calls.Host(kernel), config)
            shell.ask_exit = self._stay
            _set_quietly(shell, "colors", "nocolor", "NoColor")
            _set_quietly(kernel, "_execute_sleep", 0)
            shell.displayhook.update_user_ns = self._show
            shell.displayhook.log_output = lambda data: None
        except BaseException:
            self._swap()
            self._uninstall()
            raise
        self._swap()
        self.namespace = self._made

    def ready(self) -> None:
        """Hook into the shell and the control channel, and tell the host what this kernel can do."""
        try:
            self._request = self.host.request()
            self.shell.events.register("pre_run_cell", self._begin)
            self.shell.events.register("post_run_cell", self._end)
            self.shell.input_transformers_cleanup.append(self._without_voided)
            self._kernel.control_handlers["rlm_stop"] = self._on_stop
            self._kernel.control_handlers["rlm_leave"] = self._on_leave
            remote.serve(self.shell, self.host, self.lease, lapsed=self._lapsed)
            self._introduce()
        except BaseException:
            self._uninstall()
            raise
        finally:
            self._limit.cancel()

    # Around each cell -------------------------------------------------------------------------------

    def _is_ours(self) -> bool:
        parent = self.host._new_cell().parent or {}
        return bool(parent.get("header", {}).get("session") == self._host_session)

    def _begin(self, info: Any = None) -> None:
        if not self._is_ours():
            return
        if not self._is_lent:
            with interrupts_held():
                self._lend()
        super()._begin(info)

    def _end(self, result: Any = None) -> None:
        if not self._is_ours():
            return
        super()._end(result)
        if self._is_lent and self.host.cell is None:
            with suppress(KeyboardInterrupt), interrupts_held():
                self._give_back()

    def _lend(self) -> None:
        names = self.shell.user_ns
        self._users = dict(names)
        self._swap()
        for name in self._deleted:
            names.pop(name, None)
        names.update(self._made)
        # The user may have something of that name.
        names["answer"] = self._made.get("answer", self._answer)
        self.namespace = names
        self._is_lent = True
        with self._gate:
            self._running = self.host.request()

    def _give_back(self) -> None:
        with self._gate:
            # An interrupt that was on its way for this cell is here by now, and is held.
            over, self._running = self._running, None
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, ())
        names, users = self.shell.user_ns, self._users
        now = list(names.items())
        self._made = {name: value for name, value in now if users.get(name, _MISSING) is not value}
        self._deleted = [name for name in users if name not in names]
        for name, _ in now:
            if name not in users:
                names.pop(name, None)
        names.update(users)
        self.namespace, self._users = self._made, {}
        self._swap()
        # What the user starts from now on belongs to no cell.
        calls._cell.set(None)
        with self._gate:
            self._is_lent = False
            if over is not None:
                self._ended.append(over)
                self._voided.discard(over)
            leave = self._leaving and not self._voided
        if leave:
            self._uninstall()

    def _swap(self) -> None:
        """Put what is kept of each place there, and keep what was there."""
        for place in self._places:
            owner, name, kept = place
            place[2] = _found(owner, name)
            if name in _TRAITS:
                _set_quietly(owner, name, kept)
            elif kept is not _MISSING:
                setattr(owner, name, kept)
            elif place[2] is not _MISSING:
                delattr(owner, name)

    def _show(self, result: Any) -> None:
        # In the place of IPython's, which would put it among the user's results.
        self.namespace["_"] = result

    def _variables(self) -> list[str]:
        names = self.namespace
        self._before = {name for name, value in self._users.items() if names.get(name, _MISSING) is value}
        return super()._variables()

    def _without_voided(self, lines: list[str]) -> list[str]:
        return [] if self._voided and self.host.request() in self._voided else lines

    # The host's messages ----------------------------------------------------------------------------

    def _on_stop(self, stream: Any, ident: Any, message: Any) -> None:
        self._stop(str(message["content"]["cell"]))

    def _stop(self, cell: str) -> None:
        with self._gate:
            if self._running == cell:
                _interrupt_main_thread()
            elif cell not in self._ended:
                self._voided.add(cell)

    def _on_leave(self, stream: Any, ident: Any, message: Any) -> None:
        self._leave()
        self._kernel.session.send(stream, "rlm_left", {"left": self._gone}, message, ident=ident)

    def _leave(self) -> None:
        with self._gate:
            self._leaving = True
            free = not self._is_lent and not self._voided
        if free:
            self._uninstall()

    def _lapsed(self) -> None:
        with self._gate:
            running = self._running
            # What waits in the queue for a host that is gone would never come, or do no harm.
            self._voided.clear()
        if running is not None:
            self._stop(running)
        self._leave()

    def _uninstall(self) -> None:
        """Take out of the kernel what this and the modules beside it have put there."""
        if self._gone:
            return
        self._gone = True
        self._limit.cancel()
        for event, function in (("pre_run_cell", self._begin), ("post_run_cell", self._end)):
            with suppress(ValueError):
                self.shell.events.unregister(event, function)
        with suppress(ValueError):
            self.shell.input_transformers_cleanup.remove(self._without_voided)
        service = vars(self._kernel).pop("_rlm_service", None)
        if service is not None:
            service.withdraw()
            atexit.unregister(service._forget_files)
        for name in _HANDLERS:
            self._kernel.control_handlers.pop(name, None)
        calls.unfollow_cells()
        for name in [each for each in sys.modules if each.partition(".")[0] == "rlm_guest"]:
            del sys.modules[name]
        self._made.clear()
        if hasattr(self, "contexts"):
            self.contexts.clear()


def _places(shell: Any, kernel: Any) -> list[tuple[Any, str]]:
    """Return what the REPL, or a cell in it, changes about the shell and the interpreter."""
    streams = [each for each in (sys.stdout, sys.stderr) if each is not None]
    return [
        *((stream, name) for stream in streams for name in ("write", "flush", "close")),
        (sys, "stdout"),
        (sys, "stderr"),
        *((sys, name) for name in _LAST),
        (builtins, "input"),
        (getpass, "getpass"),
        (shell.displayhook, "write_format_data"),
        (shell.displayhook, "update_user_ns"),
        (shell.displayhook, "log_output"),
        (shell.display_pub, "publish"),
        (shell, "_showtraceback"),
        (shell, "_tee"),
        (shell, "ask_exit"),
        (shell, "last_execution_result"),
        (shell, "last_execution_succeeded"),
        (shell, "colors"),
        (kernel, "_execute_sleep"),
    ]


def _found(owner: Any, name: str) -> Any:
    # Methods stand in the class, and are found there again.
    return getattr(owner, name, _MISSING) if name in _TRAITS else vars(owner).get(name, _MISSING)


@contextmanager
def _copies_kept() -> Iterator[None]:
    """Let what subprocesses write go on to the kernel's own output, where it went before."""
    copies = [getattr(each, "_original_stdstream_copy", None) for each in (sys.stdout, sys.stderr)]
    kept = [(copy, os.dup(copy)) for copy in copies if copy is not None]
    try:
        yield
    finally:
        for copy, duplicate in kept:
            os.dup2(duplicate, copy)
            os.close(duplicate)


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
