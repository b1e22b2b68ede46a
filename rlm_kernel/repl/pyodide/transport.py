"""``repl="pyodide"``: the kernel `rlm-pyodide`, whose Python is in WebAssembly and has no permissions.

The session, the guest and the wire are those of `local`. What differs: contexts go into the sandbox's memory,
piece by piece, since it reads no file of the host's; interrupts are messages; and the kernel's last line says
why it ended.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from ...context import Context
from ...errors import ConfigError, ContextError
from ..local import LocalTransport
from ..process import python_command
from ..session import JupyterSession
from ..transport import JupyterMessage
from . import runtime
from .layout import LAYOUTS, in_layout, layout

__all__ = ["PyodideTransport", "make_ready", "pyodide_session"]

PIECE_BYTES = 4 * 1024 * 1024
PIECE_SECONDS = 60.0
CAUSE = "rlm-pyodide: the sandbox ended: "
"""What the last line of a kernel whose sandbox has ended begins with."""

# Where the runtime is, and what the operator allows: the kernel's own, not the sandbox's.
_SETTINGS = ("XDG_CACHE_HOME", "RLM_CACHE_DIR")


class PyodideTransport(LocalTransport):
    """A sandboxed kernel and its four channels. ``env`` is the kernel's; the sandbox sees none."""

    backend = "pyodide"

    def __init__(self, *, env: Mapping[str, str] | None = None) -> None:
        given = {
            name: value
            for name, value in os.environ.items()
            if name in _SETTINGS or name.startswith("RLM_PYODIDE_")
        }
        super().__init__(env={**given, **(env or {})}, fork=False)
        self._put: dict[str, asyncio.Future[JupyterMessage]] = {}
        self._in_memory: list[str] = []

    @property
    def knows_guest(self) -> bool:
        """Always: its snapshot holds the guest."""
        return True

    async def open(
        self, on_message: Callable[[JupyterMessage], None], on_death: Callable[[str], None]
    ) -> str:
        """Start the process and connect; see `Transport.open`."""

        def message(received: JupyterMessage) -> None:
            waiting = self._put.get(received.parent_id or "")
            if waiting is not None and received.type == "rlm_put_reply":
                if not waiting.done():
                    waiting.set_result(received)
            else:
                on_message(received)

        def death(cause: str) -> None:
            last = self.start_log().rpartition("\n")[2]
            cause = f"the sandbox ended: {last.removeprefix(CAUSE)}" if last.startswith(CAUSE) else cause
            for waiting in self._put.values():
                if not waiting.done():
                    waiting.set_exception(ContextError(f"the context did not arrive: {cause}"))
            on_death(cause)

        return await super().open(message, death)

    def _provision(self, manager: AsyncKernelManager) -> None:
        manager._kernel_spec = KernelSpec(
            argv=python_command("pyodide", "-f", "{connection_file}", "--IPKernelApp.parent_handle=1"),
            display_name="Python (WebAssembly sandbox)",
            language="python",
            interrupt_mode="message",
        )
        super()._provision(manager)

    async def share(self, context: Context) -> tuple[str, str, str]:
        """Put a context into the sandbox's memory; see `Transport.share`.

        Raises:
            ContextError: it did not arrive there.
        """
        name, format_, path = await super().share(context)
        file = Path(path)
        self._shared.remove(file)
        total = file.stat().st_size
        with open(file, "rb") as source:
            # The name is gone at once; nobody else is to read it.
            with suppress(PermissionError):
                file.unlink()
            content = {"name": file.name, "total": total, "once": not context.lazy}
            pieces = iter(lambda: source.read(PIECE_BYTES), b"")
            if format_ == "text" and total > PIECE_BYTES:
                format_ = "held"
                kind, total = layout(pieces)
                source.seek(0)
                content.update(text=kind, total=total)
                smaller = PIECE_BYTES // LAYOUTS[kind]
                pieces = in_layout(kind, iter(lambda: source.read(smaller), b""))
            offset = 0
            for piece in itertools.chain(pieces, [] if total else [b""]):
                await self._send_piece(context.name, {**content, "offset": offset}, piece)
                offset += len(piece)
        self._in_memory.append(file.name)
        return name, format_, f"/contexts/{file.name}"

    async def _send_piece(self, context: str, content: Mapping[str, Any], piece: bytes) -> None:
        id_ = self.send("control", "rlm_put", content, buffers=[piece])
        waiting = self._put[id_] = asyncio.get_running_loop().create_future()
        try:
            reply = await asyncio.wait_for(waiting, PIECE_SECONDS)
        except TimeoutError:
            raise ContextError(
                f"{context} did not arrive in the sandbox within {PIECE_SECONDS:g} s",
                hint="see `jupyter rlm doctor`",
            ) from None
        finally:
            del self._put[id_]
        if reply.content.get("status") != "ok":
            raise ContextError(
                f"the sandbox could not take {context}: {str(reply.content.get('evalue', ''))[:500]}",
                hint="RLM_PYODIDE_MEMORY_MIB and RLM_PYODIDE_HEAP_MIB give it more memory",
            )

    async def unshare(self) -> None:
        """Delete what `share` left; see `Transport.unshare`."""
        await super().unshare()
        while self._in_memory:
            self.send("control", "rlm_drop", {"name": self._in_memory.pop()})

    async def interrupt(self) -> None:
        """Interrupt the cell by a message; see `Transport.interrupt`."""
        self.send("control", "interrupt_request", {})


def pyodide_session() -> JupyterSession:
    """Return a session, not started yet, with a kernel in a WebAssembly sandbox."""
    return JupyterSession(PyodideTransport())


@cache
def make_ready() -> Path:
    """Have what a sandbox runs on in place, downloaded and prepared if need be; return its folder.

    Raises:
        ConfigError: Deno is missing, or this platform has no such sandbox.
        KernelStartError: the files could not be had.
    """
    if sys.platform == "win32":
        raise ConfigError("the repl `pyodide` runs on Linux and macOS", hint="use `local`, or WSL")
    return runtime.ensure().folder
