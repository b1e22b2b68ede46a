"""The fork server: a process that has imported ipykernel once and forks into kernels.

It is started with a clean environment, so that no key was ever in its memory. It stays without threads and
without a ZeroMQ context, which would not survive a fork, and never runs a kernel itself; but it holds one
half made, see `forked`. Each request is one packet: JSON (``argv``, ``cwd``, ``env``, ``confined``,
``folder``) with two descriptors beside it, the kernel's lifeline and its log. For each it forks a guard,
which forks the kernel; see `guard`. It ends when its socket closes or the orchestrator ends; kernels and
their guards don't depend on it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Any

from ..repl import bootstrap
from .guard import fork_guarded, open_process

__all__ = ["MAX_REQUEST", "main"]

MAX_REQUEST = 128 * 1024
# What a kernel imports until its first cell has run, besides what these import themselves.
_NEEDED = ("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell")
_HELPFUL = (
    *("IPython.core.completerlib", "IPython.core.debugger", "IPython.core.logger", "IPython.core.oinspect"),
    *("IPython.extensions.storemagic", "ipykernel.debugger", "tornado.locks", "tornado.platform.asyncio"),
    *("concurrent.futures.thread", "faulthandler", "pydoc", "statistics"),
)


def main() -> None:
    """Serve the socket that the command line names; in a kernel's process, run the kernel.

    Arguments: ``<socket> <orchestrator's pid> <folder> <the options that kernels have in common>``; the
    folder is for the start, and removed after it.
    """
    requests = socket.socket(fileno=int(sys.argv[1]))
    requests.set_inheritable(False)
    orchestrator = open_process(int(sys.argv[2]))
    try:
        prepared = _preload(sys.argv[3], sys.argv[4:])
    finally:
        shutil.rmtree(sys.argv[3], ignore_errors=True)
    # Here, because a kernel that goes through all modules gets a copy of each page that names one.
    ours = [name for name in sys.modules if name.partition(".")[0] == "rlm_kernel"]
    gc.freeze()
    argv = _serve(requests, orchestrator)
    if argv is not None:
        _run_kernel(argv, prepared, ours)


def _preload(folder: str, options: list[str]) -> Any:
    """Import and make what kernels need; return the application that they go on with, or None."""
    gc.disable()
    # The debugger is 9 MB in each kernel, for nobody.
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    for name in _NEEDED:
        import_module(name)
    for name in _HELPFUL:
        with suppress(ImportError):
            import_module(name)
    prepared = None
    try:
        from .forked import ForkedKernelApp  # noqa: PLC0415  it imports ipykernel

        prepared = ForkedKernelApp.instance()
        prepared.prepare(folder, options)
    except Exception as error:  # noqa: BLE001  an edge: whatever another version of ipykernel does not have
        sys.stderr.write(f"kernels are made from scratch: {error!r}\n")
        if prepared is not None:
            prepared.discard()
            prepared = None
    del sys.modules["debugpy"]
    # Most of what the first cell of a kernel would do.
    sys.modules[bootstrap.PRECOMPILED] = bootstrap.precompiled()
    zmq = import_module("zmq")
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1 or zmq.Context._instance is not None:
        sys.exit(f"importing ipykernel left {threads} threads or a ZeroMQ context: forking is not safe")
    return prepared


def _serve(requests: socket.socket, orchestrator: int | None) -> list[str] | None:
    """Fork for each request; returns None at the end, and the kernel's arguments in its process."""
    # Guards are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    ends: list[socket.socket | int] = [requests] if orchestrator is None else [requests, orchestrator]
    while True:
        if orchestrator in select.select(ends, [], [])[0]:
            _forget(requests)
            return None
        packet, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST, 2)
        if not packet:
            return None
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        requests.close()
        request = json.loads(packet)
        lifeline = _set_up(request, *descriptors)
        fork_guarded(lifeline, orchestrator, confined=request["confined"], folder=request["folder"])
        return [str(each) for each in request["argv"]]


def _forget(requests: socket.socket) -> None:
    """Remove the folders of kernels that were asked for, and that nobody is left to have."""
    requests.settimeout(0)
    with suppress(OSError):
        while packet := requests.recv(MAX_REQUEST):
            shutil.rmtree(json.loads(packet)["folder"], ignore_errors=True)


def _set_up(request: dict[str, Any], lifeline: int, log: int) -> socket.socket:
    """Make this process what a fresh one would be at its start."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, log, log)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    return socket.socket(fileno=lifeline)


def _run_kernel(argv: list[str], prepared: Any, ours: list[str]) -> None:
    sys.argv = argv
    gc.enable()
    # What was imported under a guard's or fork server's name is not the kernel's.
    for name in ours:
        del sys.modules[name]
    with suppress(KeyboardInterrupt):
        if prepared is not None and prepared.fits(argv):
            prepared.launch(argv)
        else:
            if prepared is not None:
                prepared.discard()
            import_module("ipykernel.kernelapp").IPKernelApp.launch_instance(argv[1:])
