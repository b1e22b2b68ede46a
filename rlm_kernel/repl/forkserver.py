"""Where kernels of this interpreter are forked from: one server for a process, started with the first kernel.

The server is only written to. What becomes of a request is told on the kernel's own lifeline, so that any
number of event loops and threads can use the server at the same time. It ends with this process.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from .process import python_command

__all__ = ["KERNEL_OPTIONS", "ForkServer", "shared"]

KERNEL_OPTIONS = (
    # The model's cells are not the user's history.
    "--HistoryManager.enabled=False",
    # The guard sees to it that the kernel ends; 1 stands for a parent that is not to be watched.
    "--IPKernelApp.parent_handle=1",
)
"""What the command line of a kernel has behind its connection file."""

# What an interpreter or its loader reads when it starts: a fork can't have its own.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG")

_lock = threading.Lock()
_server: ForkServer | None = None


class ForkServer:
    """A fork server's process, with ``env`` for its environment."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self.owner = os.getpid()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  as long as the server
        # For its start, after which it removes it.
        self._folder = tempfile.mkdtemp(prefix="rlm-")
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  this package's own program
                python_command(
                    "zygote", str(theirs.fileno()), str(os.getpid()), self._folder, *KERNEL_OPTIONS
                ),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=self._env,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        # It may be importing yet, while requests wait; nothing here must.
        self._requests.settimeout(0)

    @property
    def alive(self) -> bool:
        """Whether the server's process is there; it may still be starting."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """Return the last line that the server printed: why it ended, if it did."""
        # By position: the server's own is shared with ours.
        lines = os.pread(self._log.fileno(), 64 * 1024, 0).decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it said nothing")

    def fits(self, env: Mapping[str, str]) -> bool:
        """Tell whether a fork can have ``env``."""
        return _early(env) == _early(self._env)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        log: int,
        confined: bool,
        folder: str,
    ) -> socket.socket:
        """Ask for a kernel with these arguments of ipykernel; return our end of its lifeline.

        Raises:
            OSError: the server is gone, or has more requests waiting than fit.
        """
        request = {
            "argv": list(argv),
            "cwd": cwd,
            "env": dict(env),
            "confined": confined,
            "folder": folder,
        }
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._requests, [json.dumps(request).encode()], [theirs.fileno(), log])
            except BaseException:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """End the server; its kernels stay."""
        self._requests.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def shared(env: Mapping[str, str]) -> ForkServer | None:
    """Return this process's server, starting it if needed, or None where there can't be one.

    A server that died is not started again: what killed it would do so again.
    """
    global _server  # noqa: PLW0603  one for the process
    if sys.platform != "linux":
        return None
    with _lock:
        if _server is None or _server.owner != os.getpid():
            if _server is None:
                atexit.register(_end)
            _server = ForkServer(env)
        return _server if _server.alive and _server.fits(env) else None


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_READ_AT_START)}


def _end() -> None:
    if _server is not None and _server.owner == os.getpid():
        with suppress(OSError):
            _server.close()
