"""A kernel's process as the host sees it: through the lifeline to its guard, and through nothing else.

No pid is ever signalled from here while it may be another's; see `rlm_kernel.kernels.guard` for the other end.
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

__all__ = ["GuardedProcess", "python_command", "start_guarded"]

_ROOT = str(Path(__file__).parents[2])
_MAX_LINE = 4096


class GuardedProcess:
    """A kernel and its guard; must be made in the loop that is to watch them.

    ``popen`` is the guard's process where it is this one's child. ``on_end`` is called once, when both are gone.
    """

    def __init__(self, lifeline: socket.socket, popen: subprocess.Popen[bytes] | None = None) -> None:
        self._lifeline = lifeline
        self._popen = popen
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._told = asyncio.Event()
        self._ended = asyncio.Event()
        self.on_end: Callable[[], None] = lambda: None
        self.pid: int | None = None
        self.returncode: int | None = None
        self.holds: tuple[str, ...] = ()
        lifeline.setblocking(False)
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

    def signal(self, number: int) -> None:
        """Send a signal to the kernel's process group."""
        if not self.ended:
            with suppress(OSError):
                self._lifeline.send(bytes([number]))

    def kill(self) -> None:
        """Have the guard kill the kernel and all that it started."""
        if not self.ended:
            with suppress(OSError):
                self._lifeline.shutdown(socket.SHUT_WR)

    def abandon(self) -> None:
        """Give up on a guard that does not do its work; safe to call twice."""
        if self.ended:
            return
        if self.pid is not None:
            # The guard holds its end open: it has not taken leave of the kernel, whose pid is still its own.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._popen is not None:
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
        self._ended.set()
        self.on_end()


def start_guarded(
    argv: Sequence[str], *, cwd: str, env: Mapping[str, str], log: int, confined: bool
) -> GuardedProcess:
    """Start a program under a guard of its own."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            popen = subprocess.Popen(  # noqa: S603  the user's kernel
                [
                    *python_command("guard", str(theirs.fileno()), str(os.getpid()), flags=("-I", "-S")),
                    "1" if confined else "0",
                    *argv,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(env),
                cwd=cwd,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
    return GuardedProcess(ours, popen)


def python_command(module: str, *arguments: str, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that runs ``main`` of a module in `rlm_kernel.kernels`.

    The working folder is never on its path: what lies there may be written by a model.
    """
    code = (
        "import sys; sys.path = [each for each in sys.path if each]; "
        f"sys.path.append({_ROOT!r}); from rlm_kernel.kernels.{module} import main; sys.path.pop(); main()"
    )
    return [sys.executable, *flags, "-c", code, *arguments]
