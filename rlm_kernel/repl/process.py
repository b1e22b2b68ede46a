"""A kernel's process as the host sees it.

`GuardedProcess` sees it through the lifeline to its guard, and through nothing else: no pid is ever signalled
that may be another's by now. The other end is `rlm_kernel.kernels.guard`. `PlainProcess` is for what others
started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["GuardedProcess", "PlainProcess", "popen_guarded", "python_command", "start_guarded"]

CLOSE_SECONDS = 5.0
POLL_SECONDS = 0.05
SIGNAL_SECONDS = 1.0
# For a guard that is at work already; the event loop waits as well.
LEAVE_SECONDS = 0.5
_ROOT = str(Path(__file__).parents[2])
_MAX_LINE = 4096


class GuardedProcess:
    """A kernel and its guard; must be made in the loop that is to watch them.

    ``popen`` is the guard's process if it is this one's child. ``on_end`` is called once, when both are gone.
    """

    def __init__(self, lifeline: socket.socket, popen: subprocess.Popen[bytes] | None = None) -> None:
        self._lifeline = lifeline
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._told = asyncio.Event()
        self._sent = asyncio.Event()
        self._ended = asyncio.Event()
        self.on_end: Callable[[], None] = lambda: None
        self.pid: int | None = None
        self.returncode: int | None = None
        self.holds: tuple[str, ...] = ()
        lifeline.settimeout(0)
        self._loop.add_reader(lifeline, self._read)

    async def started(self) -> bool:
        """Wait for the kernel's process; False if there won't be one."""
        await self._told.wait()
        return self.pid is not None

    @property
    def ended(self) -> bool:
        """Whether the kernel, and all that it started, is gone."""
        return self._ended.is_set()

    async def wait(self) -> None:
        """Wait until `ended`."""
        await self._ended.wait()

    async def signal(self, number: int) -> None:
        """Send a signal to the kernel's process group; what is sent to the kernel afterwards comes later."""
        if self.ended:
            return
        self._sent.clear()
        with suppress(OSError, TimeoutError):
            self._lifeline.send(bytes([number]))
            await asyncio.wait_for(self._sent.wait(), SIGNAL_SECONDS)

    def kill(self) -> None:
        """Have the guard kill the kernel and all that it started."""
        if not self.ended:
            with suppress(OSError):
                self._lifeline.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Kill the kernel and all that it started, and wait until they are gone, but not for ever."""
        self.kill()
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), CLOSE_SECONDS)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Wait no longer for the guard to tell of the end; safe to call twice."""
        if self.ended:
            return
        self.kill()
        if self.pid is not None:
            # The guard holds its end open: it has not taken leave of the kernel, whose pid is still its own.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._popen is not None:
            try:
                self._popen.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        self._end()

    def _read(self) -> None:
        try:
            data = self._lifeline.recv(_MAX_LINE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "kernel":
                self.pid = int(rest)
                self._told.set()
            elif word == "holds":
                self.holds = tuple(rest.split())
            elif word == "sent":
                self._sent.set()
            elif word == "ended":
                self.returncode = int(rest)
        if not data:
            self._end()

    def _end(self) -> None:
        self._loop.remove_reader(self._lifeline)
        self._lifeline.close()
        if self._popen is not None:
            # Its descriptors are closed, so that it has no more to do than to go.
            self._popen.wait()
        self._told.set()
        self._sent.set()
        self._ended.set()
        self.on_end()


class PlainProcess:
    """A process that a provisioner of its own started, or this one where there are no guards."""

    holds: tuple[str, ...] = ()

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._descriptor: int | None = None
        self._polling: asyncio.Task[None] | None = None
        self.on_end: Callable[[], None] = lambda: None
        self.pid = popen.pid
        with suppress(AttributeError, OSError):
            self._descriptor = os.pidfd_open(popen.pid)
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._end)
        else:
            self._polling = asyncio.create_task(self._poll())

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._ended.is_set()

    @property
    def returncode(self) -> int | None:
        """How it ended, if it did."""
        return self._popen.poll()

    def kill(self) -> None:
        """Kill the process group."""
        if self.ended:
            return
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            self._popen.kill()

    async def close(self) -> None:
        """Kill the process group, and wait until the process is gone, but not for ever."""
        self.kill()
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), CLOSE_SECONDS)
        finally:
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(LEAVE_SECONDS)
            self._end()

    async def _poll(self) -> None:
        while self._popen.poll() is None:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(POLL_SECONDS)
        self._end()

    def _end(self) -> None:
        if self.ended:
            return
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        elif self._polling is not None:
            self._polling.cancel()
        self._ended.set()
        self.on_end()


def start_guarded(
    argv: Sequence[str], *, cwd: str, env: Mapping[str, str], log: int, confined: bool, folder: str
) -> GuardedProcess:
    """Start a program under a guard of its own, which removes ``folder`` when this process is gone."""
    return GuardedProcess(*popen_guarded(argv, cwd=cwd, env=env, log=log, confined=confined, folder=folder))


def popen_guarded(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    log: int,
    confined: bool,
    folder: str,
    inherited: Sequence[int] = (),
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start a program under a guard, for who has no event loop; return the lifeline and the guard's process.

    ``inherited`` are further descriptors for the program.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            popen = subprocess.Popen(  # noqa: S603  the user's kernel
                [
                    *python_command("guard", str(theirs.fileno()), str(os.getpid()), flags=("-I", "-S")),
                    "1" if confined else "0",
                    folder,
                    *argv,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env),
                cwd=cwd,
                pass_fds=[theirs.fileno(), *inherited],
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    return ours, popen


def python_command(module: str, *arguments: str, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that runs ``main`` of a module in `rlm_kernel.kernels`.

    The working folder is never on its path: what lies there may be written by a model.
    """
    code = (
        "import sys; sys.path = [each for each in sys.path if each]; "
        f"sys.path.append({_ROOT!r}); from rlm_kernel.kernels.{module} import main; sys.path.pop(); main()"
    )
    return [sys.executable, *flags, "-c", code, *arguments]
