"""How Jupyter's kernel manager starts and ends a kernel of this machine here: guarded, confined, forked.

A kernelspec that names a provisioner of its own keeps it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from . import forkserver
from .process import GuardedProcess, start_guarded

__all__ = ["GuardedProvisioner"]

FORK_SECONDS = 20.0
RETRY_SECONDS = 0.01
# What precedes the arguments of ipykernel in the command of a kernel that can be forked.
LAUNCHER = "ipykernel_launcher"
_log = logging.getLogger("rlm_kernel")


class GuardedProvisioner(LocalProvisioner):
    """A kernel of this machine, behind a guard.

    ``server_env`` is the environment of the fork server that the kernel may come from, or None for a kernel
    that is a program of its own. ``folder`` is the kernel's.
    """

    confined = True
    folder: str
    server_env: Mapping[str, str] | None = None
    guarded: GuardedProcess | None = None
    forked = False

    @property
    def has_process(self) -> bool:
        """Whether a kernel was started and not yet cleaned up."""
        return self.guarded is not None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel in ``cwd`` with ``env``; ``stdout`` is its log."""
        cwd, env, log = kwargs["cwd"], kwargs["env"], kwargs["stdout"].fileno()
        self.guarded = await self._fork(cmd, cwd, env, log)
        self.forked = self.guarded is not None
        if self.guarded is None:
            self.guarded = start_guarded(
                cmd, cwd=cwd, env=env, log=log, confined=self.confined, folder=self.folder
            )
            await self.guarded.started()
        self.pid = self.pgid = self.guarded.pid
        return self.connection_info

    async def _fork(
        self, cmd: Sequence[str], cwd: str, env: Mapping[str, str], log: int
    ) -> GuardedProcess | None:
        server = None if self.server_env is None else forkserver.shared(self.server_env)
        if server is None or not server.fits(env):
            return None
        argv = cmd[cmd.index(LAUNCHER) :]
        asked = self._ask(server, argv, cwd, env, log)
        try:
            return await asyncio.wait_for(asked, FORK_SECONDS)
        except OSError as error:
            _log.warning(
                "the fork server failed (%r; its last words: %s): kernels are started without it",
                error,
                server.last_words(),
            )
            return None

    async def _ask(
        self, server: forkserver.ForkServer, argv: Sequence[str], cwd: str, env: Mapping[str, str], log: int
    ) -> GuardedProcess:
        while True:
            try:
                lifeline = server.spawn(
                    argv, cwd=cwd, env=env, log=log, confined=self.confined, folder=self.folder
                )
                break
            except BlockingIOError:
                # More requests than fit are waiting.
                await asyncio.sleep(RETRY_SECONDS)
        guarded = GuardedProcess(lifeline)
        try:
            if await guarded.started():
                return guarded
        except asyncio.CancelledError:
            guarded.abandon()
            raise
        raise ConnectionError("it did not answer")

    async def poll(self) -> int | None:
        """Return None while the kernel runs, then how it ended."""
        if self.guarded is None or not self.guarded.ended:
            return None if self.guarded else 0
        code = self.guarded.returncode
        return -signal.SIGKILL if code is None else code

    async def wait(self) -> int | None:
        """Wait for the end of the kernel and of all that it started."""
        if self.guarded is not None:
            await self.guarded.wait()
        code = await self.poll()
        self.guarded = None
        return code

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel's process group."""
        if self.guarded is not None:
            await self.guarded.signal(signum)

    async def kill(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002  Jupyter's signature
        """Kill the kernel and all that it started, and wait until they are gone."""
        if self.guarded is not None:
            await self.guarded.close()

    async def terminate(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002  Jupyter's signature
        """Kill the kernel: one that runs a model's code is not asked."""
        await self.kill(restart)
