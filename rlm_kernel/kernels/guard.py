"""The guard: a small process between the orchestrator and a kernel, which no process of the kernel outlives.

One socket, the *lifeline*, joins guard and orchestrator. The orchestrator's end closes when it is done with
the kernel and also when it ends in any way, ``kill -9`` included; then the guard kills the kernel and all
that descends from it. The guard is a subreaper: a process that forks twice and leaves its session becomes
the guard's child, not init's. When the kernel ends by itself, what it left behind is killed as well. When the
orchestrator is gone, the guard also removes the kernel's folder: there may be a context in it.

Over the lifeline the guard says ``kernel <pid>`` and ``ended <code>`` (negative: the signal), and the kernel,
before it runs anything else, ``holds <protections>``; each is a line. The orchestrator sends numbers of
signals for the kernel's process group, a byte each, answered by ``sent <number>``: it need not know whether a
pid is still the kernel's.

Where there are no subreapers (macOS) processes that left the kernel's group survive.

Standard library only, one thread. `main` guards a kernel that is a program of its own; `zygote` guards those
that it forks.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
from contextlib import suppress
from typing import NoReturn

from .confine import confine

__all__ = ["descendants", "fork_guarded", "main", "open_process"]

# How much of the machine's memory one kernel may take.
MEMORY_SHARE = 0.75
# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Where the end of a process can't be waited for, it is looked for this often.
_POLL_MILLISECONDS = 1000


def main() -> None:
    """Guard a program. Arguments: ``<lifeline> <orchestrator's pid> <confined: 0 or 1> <folder> <argv>``."""
    lifeline = socket.socket(fileno=int(sys.argv[1]))
    lifeline.set_inheritable(False)
    parent, confined, folder, argv = int(sys.argv[2]), sys.argv[3] == "1", sys.argv[4], sys.argv[5:]
    orchestrator = open_process(parent)
    if os.getppid() != parent:
        sys.exit(1)
    fork_guarded(lifeline, orchestrator, confined=confined, folder=folder)
    # Python ignores these, and a program inherits what is ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  the user's kernel
    except OSError as error:
        sys.exit(f"{argv[0]} could not be started: {error.strerror}")


def open_process(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the process ends, or None where there are none."""
    with suppress(AttributeError, OSError):
        return os.pidfd_open(pid)
    return None


def fork_guarded(lifeline: socket.socket, orchestrator: int | None, *, confined: bool, folder: str) -> None:
    """Fork, and return in the new process, the kernel's; this one stays as its guard and never returns.

    ``orchestrator`` is a descriptor of the orchestrator's process: a copy of the orchestrator, forked by its
    user, keeps the lifeline open. ``folder`` is removed when the orchestrator is gone.
    """
    # The orchestrator's terminal is not ours: its Ctrl-C must not come here.
    with suppress(PermissionError):
        os.setsid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    kernel = os.fork()
    if kernel:
        _Guard(lifeline, orchestrator, kernel, folder).stand()
    _become_kernel(guard)
    if confined:
        lifeline.sendall(f"holds {' '.join(confine())}\n".encode())
    lifeline.close()
    if orchestrator is not None:
        os.close(orchestrator)


def _become_kernel(guard: int) -> None:
    os.setsid()
    # The guard has one thread, so that this means the guard's end.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)
    # Under memory pressure the kernel goes, and not what watches over it.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    with suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415  not on every platform

        # Writing gigabytes of context to disk would hold up the news of a crash.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        # A hog gets a MemoryError while there is memory left for the others.
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        if soft == resource.RLIM_INFINITY or soft > most:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  the guard's start counts

        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3)


class _Guard:
    """Watches the kernel, the lifeline and the orchestrator until one of them ends."""

    def __init__(self, lifeline: socket.socket, orchestrator: int | None, kernel: int, folder: str) -> None:
        self._lifeline = lifeline
        self._orchestrator = orchestrator
        self._parent = os.getppid()
        self._kernel = kernel
        self._folder = folder
        self._code: int | None = None
        self._doomed = False
        self._orphaned = False

    def stand(self) -> NoReturn:
        """Guard the kernel to its end, then exit as it did."""
        wakeups, waker = socket.socketpair()
        for end in (wakeups, waker):
            end.settimeout(0)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self._tell(f"kernel {self._kernel}")
        poll = select.poll()
        for descriptor in (wakeups, self._lifeline, self._orchestrator):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        patience = None if self._orchestrator is not None else _POLL_MILLISECONDS
        # The kernel may have ended before its end could wake us.
        self._reap(os.WNOHANG)
        while self._code is None and not self._doomed:
            for descriptor, _ in poll.poll(patience):
                if descriptor == self._lifeline.fileno():
                    self._obey()
                elif descriptor == wakeups.fileno():
                    self._doomed |= signal.SIGTERM in wakeups.recv(4096)
                    self._reap(os.WNOHANG)
                else:
                    self._doomed = self._orphaned = True
            if patience is not None and os.getppid() != self._parent:
                self._doomed = self._orphaned = True
        self._kill_all()
        code = self._code if self._code is not None else -signal.SIGKILL
        heard = self._tell(f"ended {code}")
        if self._orphaned or not heard:
            shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(code if code >= 0 else 128 - code)

    def _tell(self, line: str) -> bool:
        try:
            self._lifeline.sendall(f"{line}\n".encode())
        except OSError:
            return False
        return True

    def _obey(self) -> None:
        try:
            numbers = self._lifeline.recv(64)
        except OSError:
            numbers = b""
        self._doomed |= not numbers
        for number in numbers:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._kernel, number)
            self._tell(f"sent {number}")

    def _reap(self, options: int) -> bool:
        """Take leave of children that ended, by birth or by adoption; False if none is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, options)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._kernel:
                self._code = os.waitstatus_to_exitcode(status)
            options = os.WNOHANG

    def _kill_all(self) -> None:
        # Whoever is forked meanwhile is found in the next round: each round waits for an end.
        while True:
            if self._code is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._kernel, signal.SIGKILL)
            for pid in descendants(os.getpid()):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not self._reap(0):
                return


def descendants(pid: int) -> list[int]:
    """Return the processes that descend from ``pid``, as far as the platform tells."""
    found: list[int] = []
    todo = [pid]
    while todo:
        folder = f"/proc/{todo.pop()}/task"
        with suppress(OSError):
            for thread in os.listdir(folder):
                with suppress(OSError), open(f"{folder}/{thread}/children", "rb") as file:
                    children = [int(each) for each in file.read().split()]
                    found += children
                    todo += children
    return found
