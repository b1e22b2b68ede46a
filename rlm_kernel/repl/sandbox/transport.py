"""``repl="sandbox"``: a local kernel whose process is in the sandbox. All else is as with `local`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager

from ...context import Context
from ..local import LocalTransport
from ..session import JupyterSession
from . import layout
from .limits import SandboxLimits
from .machine import machine
from .provisioner import LIMITS_ENV, SandboxProvisioner

__all__ = ["Sandbox", "SandboxTransport", "sandbox_session"]


class SandboxTransport(LocalTransport):
    """A kernel in the sandbox and its four channels. ``env`` is what it finds in its environment."""

    backend = "sandbox"

    def __init__(self, limits: SandboxLimits | None = None, *, env: Mapping[str, str] | None = None) -> None:
        super().__init__(env=env, tcp=False, confined=False, fork=False)
        self._limits = limits or SandboxLimits()

    def _provision(self, manager: AsyncKernelManager) -> None:
        provisioner = SandboxProvisioner(
            kernel_id=str(uuid.uuid4()),
            kernel_spec=manager.kernel_spec,
            parent=manager,
            **{name: getattr(self._limits, name) for name in LIMITS_ENV},
        )
        provisioner.folder = self.folder
        provisioner.extra = self._env
        provisioner.debugger = False
        manager.provisioner = provisioner

    @property
    def holds(self) -> tuple[str, ...]:
        """All of `rlm_kernel.kernels.confine.PROTECTIONS`: there is no kernel without."""
        return ("privileges", "memory", "signals", "abstract_sockets", "capabilities")

    async def share(self, context: Context) -> tuple[str, str, str]:
        """Write a context into the folder that the kernel can read; see `Transport.share`."""
        name, format_, path = await super().share(context)
        moved = Path(self.folder, "inside", Path(path).name)
        self._shared.remove(Path(path))
        self._shared.append(moved)
        # The kernel has another uid; nobody else can enter the folder around this one.
        os.chmod(path, 0o644)
        os.replace(path, moved)
        return name, format_, f"{layout.INSIDE}/{moved.name}"

    async def unshare(self) -> None:
        """Delete what `share` left, and what the kernel was given for its start; see `Transport.unshare`."""
        await super().unshare()
        for name in ("kernel.json", "settings.json"):
            Path(self.folder, "inside", name).unlink(missing_ok=True)


def sandbox_session() -> JupyterSession:
    """Return a session, not started yet, with a kernel in the sandbox."""
    return JupyterSession(SandboxTransport())


class Sandbox:
    """Makes sandboxed sessions with limits and an environment of your own: ``RLM(repl=Sandbox(...))``."""

    backend = SandboxTransport.backend

    def __init__(self, limits: SandboxLimits | None = None, *, env: Mapping[str, str] | None = None) -> None:
        self._limits = limits
        self._env = env

    def __call__(self) -> JupyterSession:
        """Return a session, not started yet."""
        return JupyterSession(SandboxTransport(self._limits, env=self._env))

    def check(self) -> None:
        """Find out whether there can be a sandbox.

        Raises:
            SandboxUnavailableError: there can't be one here.
        """
        machine()
