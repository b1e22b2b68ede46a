"""Where an `RLM` has its code executed: a backend by name, or sessions of the caller's own making.

A named backend whose kernels take their time to start keeps spare ones, in a pool that all of its users on
one event loop share.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from .. import page
from ..errors import ConfigError
from .base import SessionFactory

if TYPE_CHECKING:
    from .gateway.address import Gateway
    from .pool import Pool
    from .session import JupyterSession

__all__ = ["KERNELS", "Backend"]


def _local_session() -> JupyterSession:
    # Only when the first kernel starts, beside the first request: importing ZeroMQ takes its time.
    from .local import local_session  # noqa: PLC0415

    return local_session()


class _Sandboxed:
    def __call__(self) -> JupyterSession:
        from .sandbox.transport import sandbox_session  # noqa: PLC0415  on use

        return sandbox_session()

    def check(self) -> None:
        from .sandbox.machine import machine  # noqa: PLC0415  on use

        machine()


class _InWebAssembly:
    def __call__(self) -> JupyterSession:
        from .pyodide.transport import pyodide_session  # noqa: PLC0415  on use

        return pyodide_session()

    def check(self) -> None:
        from .pyodide.transport import make_ready  # noqa: PLC0415  on use

        make_ready()


class _InThePage:
    def __call__(self) -> JupyterSession:
        from .lite.session import lite_session  # noqa: PLC0415  on use

        return lite_session()

    async def check(self) -> None:
        from .lite.bridge import bridge  # noqa: PLC0415  on use

        await bridge()


KERNELS: dict[str, Callable[[], JupyterSession]] = {
    "local": _local_session,
    "sandbox": _Sandboxed(),
    "pyodide": _InWebAssembly(),
    "lite": _InThePage(),
}
"""What makes a session, not started yet, by the name of the backend."""


class Backend:
    """What makes the sessions of one `RLM`.

    ``repl`` is a name or a factory of sessions; for ``share`` see `rlm_kernel.repl.shell.Shell`;
    ``spare_kernels`` are kept ready. ``settings`` are values by name, those of a gateway among them.

    Raises:
        ConfigError: no backend of this name, one that lacks a setting, or ``share`` for one that has no use
            for it.
    """

    def __init__(
        self, repl: str | SessionFactory, *, share: bool, spare_kernels: int, settings: Mapping[str, Any]
    ) -> None:
        self._spare_kernels = spare_kernels
        self._pools: list[Pool] = []
        self._own: SessionFactory | None = None if isinstance(repl, str) else repl
        self.name = repl if isinstance(repl, str) else str(getattr(repl, "backend", "custom"))
        if page.here() and isinstance(repl, str) and repl != "lite":
            raise ConfigError(
                f"repl={repl!r} does not work in a web page", hint="leave it away: it is 'lite'"
            )
        if repl == "shell":
            from .shell import Shell  # noqa: PLC0415  on use

            self._own = Shell(share=share)
        elif share:
            raise ConfigError("share=True has no meaning without repl='shell'", hint="leave it away")
        elif repl == "gateway":
            from .gateway.address import Gateway  # noqa: PLC0415  on use

            self._own = Gateway.of(settings)
        elif isinstance(repl, str) and repl.startswith("attach:"):
            from .attach.target import target_of  # noqa: PLC0415  on use

            self._own = target_of(repl.removeprefix("attach:"), settings)
            self.name = "attach"
        elif isinstance(repl, str) and repl not in KERNELS:
            known = ", ".join([*KERNELS, "gateway", "shell", "attach:KERNEL"])
            raise ConfigError(f"no REPL named {repl!r}", hint=f"there are: {known}")

    @property
    def in_shell(self) -> bool:
        """Whether cells run in the user's own shell, on the objects themselves."""
        return self.name == "shell"

    @property
    def gateway(self) -> Gateway:
        """The gateway whose kernels it uses.

        Raises:
            ConfigError: it uses others.
        """
        if self.name != "gateway":
            raise ConfigError(
                f"named sessions outlive this process, which kernels of repl={self.name!r} don't",
                hint="take repl='gateway': one on this machine will do, see docs/gateway.md",
            )
        return cast("Gateway", self._own)

    async def sessions(self) -> SessionFactory:
        """Return what makes the sessions of a run on the running event loop."""
        # Before anything is spent: the first request goes out while the kernel starts.
        make = self._own or KERNELS[self.name]
        check = getattr(make, "check", None)
        if check is not None and inspect.isawaitable(checked := check()):
            await checked
        if self._own is not None and self.name != "gateway":
            return self._own
        return await self._pooled(cast("Callable[[], JupyterSession]", make))

    async def child_sessions(self) -> SessionFactory | None:
        """Return what makes those of its children, where that is something else."""
        return await self._pooled(KERNELS["local"]) if self.name in ("shell", "attach") else None

    async def _pooled(self, make: Callable[[], JupyterSession]) -> SessionFactory:
        # A page has its memory for kernels that run.
        if self._spare_kernels < 1 or self.name == "lite":
            return make
        from .pool import pool_of  # noqa: PLC0415  on use

        pool = await pool_of(make)
        pool.size = max(pool.size if pool.users else 0, self._spare_kernels)
        pool.users.add(self)
        if pool not in self._pools:
            self._pools.append(pool)
        return pool.take

    async def leave(self) -> None:
        """Close the spare kernels on the running event loop that nobody else uses."""
        here = asyncio.get_running_loop()
        for pool in [pool for pool in self._pools if pool.loop is here]:
            self._pools.remove(pool)
            await pool.leave(self)
