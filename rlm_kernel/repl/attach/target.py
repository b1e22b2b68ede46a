"""Which kernel is meant by ``attach:...``: one with a connection file here, or one of a server.

Invariant: nothing that is done here, or by the sessions made here, ends or restarts that kernel.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, KernelStartError
from ..gateway.address import Gateway

if TYPE_CHECKING:
    from .session import AttachedSession

__all__ = ["PREFIX", "KernelOfServer", "KernelOnFile", "target_of"]

PREFIX = "attach:"
"""How the name of this backend begins; what follows names the kernel."""

_HINT = "give the path of a connection file, a kernel's id, or https://host/api/kernels/ID"
_URL = re.compile(r"(?P<server>https?://.+?)/api/kernels/(?P<kernel>[\w-]{1,100})/?")
_NOT_ITSELF = "that is the kernel which asks: its cells can't run while it waits for them"


@dataclass(frozen=True)
class KernelOnFile:
    """The kernel whose connection file is at ``path``; called, it makes a session there."""

    path: Path

    backend = "attach"

    def __call__(self) -> AttachedSession:
        """Return a session that is not started yet."""
        from .connection_file import FileTransport  # noqa: PLC0415  on use
        from .session import AttachedSession  # noqa: PLC0415  on use

        return AttachedSession(FileTransport(self.path))

    def check(self) -> None:
        """Make sure that there is such a file.

        Raises:
            ConfigError: there is none, or it is this process's own.
        """
        if not self.path.is_file():
            raise ConfigError(f"there is no connection file {self.path}", hint=_HINT)
        own = _own_connection_file()
        if own is not None and own.exists() and own.samefile(self.path):
            raise ConfigError(_NOT_ITSELF, hint="repl='shell' runs cells in this kernel")


@dataclass(frozen=True)
class KernelOfServer:
    """The kernel of the id ``kernel`` on a Jupyter server; called, it makes a session there."""

    server: Gateway
    kernel: str

    backend = "attach"

    def __call__(self) -> AttachedSession:
        """Return a session that is not started yet."""
        from .session import AttachedSession  # noqa: PLC0415  on use
        from .websocket import WebsocketTransport  # noqa: PLC0415  on use

        return AttachedSession(WebsocketTransport(self.server, self.kernel))

    async def check(self) -> None:
        """Make sure that the server has the kernel.

        Raises:
            ConfigError: it is not there, refuses, or has no such kernel; or the kernel is this process.
        """
        from ..gateway.rest import Rest  # noqa: PLC0415  on use

        own = _own_connection_file()
        if own is not None and own.stem == f"kernel-{self.kernel}":
            raise ConfigError(_NOT_ITSELF, hint="repl='shell' runs cells in this kernel")
        try:
            async with Rest(self.server) as rest:
                state = await rest.state(self.kernel)
        except KernelStartError as error:
            raise ConfigError(str(error), hint=error.hint) from None
        if state in (None, "dead"):
            raise ConfigError(
                f"the server at {self.server.url} has no kernel {self.kernel}",
                hint="its notebooks may have ended it, or started another one",
            )


def target_of(text: str, settings: Mapping[str, Any]) -> KernelOnFile | KernelOfServer:
    """Return the kernel that ``text`` names: what follows `PREFIX`.

    A URL's server is asked with the token of ``settings``, unless they name another server. Anything else is
    a path, or the name or the id of a connection file in Jupyter's runtime folder.

    Raises:
        ConfigError: it names none, or more than one; or the token is another server's.
    """
    text = text.strip()
    if not text:
        raise ConfigError("repl='attach:' names no kernel", hint=_HINT)
    if text.startswith(("http://", "https://")):
        found = _URL.fullmatch(text)
        if found is None:
            # Not repeated: it may hold a token.
            raise ConfigError(
                "repl='attach:' has a URL that is no kernel's", hint=f"{_HINT}, and nothing more"
            )
        return KernelOfServer(Gateway.elsewhere(found["server"], settings), found["kernel"])
    return KernelOnFile(_connection_file(text))


def _connection_file(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_file() or path.parent != Path():
        return path.absolute()
    from jupyter_core.paths import jupyter_runtime_dir  # noqa: PLC0415  on use

    folder = Path(jupyter_runtime_dir())
    for name in (text, f"{text}.json", f"kernel-{text}.json"):
        if (folder / name).is_file():
            return folder / name
    some = sorted(each for each in folder.glob("kernel-*.json") if text in each.stem)
    if len(some) == 1:
        return some[0]
    if some:
        raise ConfigError(
            f"{text!r} stands for {len(some)} kernels: {', '.join(each.stem for each in some[:5])}",
            hint="give the whole id, or the path",
        )
    raise ConfigError(f"there is no kernel {text!r} in {folder}", hint=_HINT)


def _own_connection_file() -> Path | None:
    module = sys.modules.get("ipykernel.kernelapp")
    application = None if module is None or not module.IPKernelApp.initialized() else module.IPKernelApp
    if application is None:
        return None
    file = application.instance().abs_connection_file
    return Path(file) if file else None
