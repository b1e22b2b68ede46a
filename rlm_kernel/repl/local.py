"""A kernel as a process of this machine, over ZeroMQ.

Where the platform has them, the channels are ipc sockets in a private folder, so that neither another user
nor the network can reach them; messages are signed. The environment is built from an allow-list: a key
in the orchestrator's environment is not in the kernel's. Kernels are guarded and confined, and those of this
interpreter are forked from a server that has imported ipykernel already: see `provisioner`. Death is seen at
once through a file descriptor, never by heartbeats.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.session import Session

from ..context import Context
from ..errors import KernelStartError
from .forkserver import KERNEL_OPTIONS
from .process import GuardedProcess, PlainProcess
from .provisioner import GuardedProvisioner
from .session import JupyterSession
from .transport import Channel, JupyterMessage

__all__ = ["ENVIRONMENT", "LocalTransport", "local_session"]

ENVIRONMENT = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TEMP",
        "TMP",
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "MPLCONFIGDIR",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "APPDATA",
        "LOCALAPPDATA",
        "USERPROFILE",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
    ]
)
"""The variables of this process that a kernel gets, besides those whose name starts with ``LC_``."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MESSAGES_A_TICK = 200
# What a message can hold without being felt.
ALONG_BYTES = 256 * 1024
OWN_KERNEL = "rlm-local"
_ARGV = [
    sys.executable,
    "-m",
    "ipykernel_launcher",
    "-f",
    "{connection_file}",
    *KERNEL_OPTIONS,
]


class _OneSpec(KernelSpecManager):
    """Knows this interpreter's ipykernel too, installed as a kernelspec or not."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        if kernel_name == OWN_KERNEL:
            return KernelSpec(
                argv=_ARGV,
                display_name="Python (RLM)",
                language="python",
                metadata={"supported_encryption": "curve"},
            )
        return super().get_kernel_spec(kernel_name)


class LocalTransport:
    """A kernel process on this machine and its four channels.

    ``kernel_name`` is a kernelspec's name; without one it is this interpreter's ipykernel. ``cwd`` is the
    kernel's working folder, a private one by default. ``env`` adds variables to the allow-list. ``tcp`` is
    for platforms without ipc sockets: the channels are then encrypted (CurveZMQ). ``confined`` closes other
    processes to the kernel, see `rlm_kernel.kernels.confine`; `holds` tells what came of it.
    ``fork`` lets this interpreter's ipykernel come from the fork server; ``RLM_FORK_SERVER=0`` forbids it.
    """

    backend = "local"

    def __init__(
        self,
        kernel_name: str | None = None,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        tcp: bool = sys.platform == "win32",
        confined: bool = True,
        fork: bool = True,
    ) -> None:
        self._kernel_name = kernel_name or OWN_KERNEL
        self._tcp = tcp
        self._confined = confined
        self._fork = fork and os.environ.get("RLM_FORK_SERVER") != "0"
        self._cwd = cwd
        self._env = dict(env or {})
        self._manager: AsyncKernelManager | None = None
        self._sockets: dict[Channel, zmq.Socket[bytes]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_message: Callable[[JupyterMessage], None] = lambda message: None
        self._on_death: Callable[[str], None] = lambda cause: None
        self._process: GuardedProcess | PlainProcess | None = None
        self._killed = False
        self._closed = False
        self._shared: list[Path] = []
        self.folder = ""

    async def open(
        self, on_message: Callable[[JupyterMessage], None], on_death: Callable[[str], None]
    ) -> str:
        """Start the process and connect; see `Transport.open`."""
        self._loop = asyncio.get_running_loop()
        self._on_message, self._on_death = on_message, on_death
        self.folder = tempfile.mkdtemp(prefix="rlm-")
        work = Path(self.folder, "work")
        work.mkdir()
        manager = self._manager = AsyncKernelManager(
            kernel_name=self._kernel_name,
            kernel_spec_manager=_OneSpec(),
            connection_file=os.path.join(self.folder, "kernel.json"),
            context=zmq.asyncio.Context.shadow(zmq.Context.instance()),
            **_addresses(self.folder, tcp=self._tcp),
        )
        _leave_dates(manager.session)
        try:
            self._provision(manager)
            with open(self._log, "wb") as log:
                try:
                    await manager.start_kernel(
                        env=self._environment(), cwd=os.fspath(self._cwd or work), stdout=log, stderr=log
                    )
                finally:
                    # Also that of a start which was cut short.
                    self._process = _process_of(manager.provisioner)
        except NoSuchKernel as error:
            await self.close()
            raise KernelStartError(
                f"no kernelspec named {error.name!r}", hint="see `jupyter kernelspec list`"
            ) from None
        except OSError as error:
            await self.close()
            raise KernelStartError(f"the kernel's process could not be started: {error}") from None
        if self._process is None:
            raise KernelStartError(
                f"the kernelspec {self._kernel_name!r} starts no process on this machine",
                hint="the repl `gateway` reaches kernels elsewhere",
            )
        self._connect(manager)
        self._process.on_end = self._ended
        if self._process.ended:
            self._ended()
        return Path(self.folder).name

    def _provision(self, manager: AsyncKernelManager) -> None:
        """Take the start of the kernel into our hands, unless its kernelspec leaves it to others."""
        spec = manager.kernel_spec
        assert spec is not None
        if sys.platform == "win32" or "kernel_provisioner" in spec.metadata:
            return
        provisioner = GuardedProvisioner(kernel_id=str(uuid.uuid4()), kernel_spec=spec, parent=manager)
        provisioner.confined = self._confined
        provisioner.folder = self.folder
        if self._fork and self._kernel_name == OWN_KERNEL:
            provisioner.server_env = _allowed()
        manager.provisioner = provisioner

    @property
    def holds(self) -> tuple[str, ...]:
        """Which of `rlm_kernel.kernels.confine.PROTECTIONS` hold; known once the kernel is ready."""
        return self._process.holds if self._process is not None else ()

    @property
    def knows_guest(self) -> bool:
        """Whether the kernel comes from the fork server."""
        return self._manager is not None and getattr(self._manager.provisioner, "forked", False)

    @property
    def _log(self) -> str:
        return os.path.join(self.folder, "start.log")

    def _environment(self) -> dict[str, str]:
        # The user's start-up files and profile are not the model's.
        return {**_allowed(), "IPYTHONDIR": os.path.join(self.folder, "ipython"), **self._env}

    def _connect(self, manager: AsyncKernelManager) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        kinds: dict[Channel, int] = {
            "shell": zmq.DEALER,
            "stdin": zmq.DEALER,
            "control": zmq.DEALER,
            "iopub": zmq.SUB,
        }
        for channel, kind in kinds.items():
            socket = self._sockets[channel] = context.socket(kind)
            socket.linger = 0
            socket.maxmsgsize = MAX_MESSAGE_BYTES
            socket.sndhwm = 0
            # The kernel binds a while after it was started: look for it often.
            socket.reconnect_ivl = 10
            if kind == zmq.SUB:
                socket.subscribe(b"")
            else:
                # ipykernel sends input requests to the identity that the execute request came from.
                socket.identity = manager.session.bsession
            if manager.curve_publickey is not None:
                socket.curve_serverkey = socket.curve_publickey = manager.curve_publickey
                socket.curve_secretkey = manager.curve_secretkey
            socket.connect(manager._make_url(channel))
            assert self._loop is not None
            self._loop.add_reader(int(socket.fd), self._pump, channel)

    def _ended(self) -> None:
        assert self._process is not None
        # What it sent before it ended is still in the sockets.
        for channel in self._sockets:
            self._pump(channel)
        if not self._killed:
            self._on_death(_how_it_ended(self._process.returncode))

    def start_log(self) -> str:
        """Return the end of what the process printed while it started."""
        with suppress(OSError), open(self._log, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 2000))
            return file.read().decode("utf-8", "replace").strip()
        return ""

    def send(
        self,
        channel: Channel,
        type_: str,
        content: Mapping[str, Any],
        *,
        parent: JupyterMessage | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Send a signed message; see `Transport.send`."""
        assert self._manager is not None
        assert self._loop is not None
        socket = self._sockets.get(channel)
        if socket is None:
            return ""
        message = self._manager.session.send(
            socket,
            type_,
            dict(content),
            parent=None if parent is None else {"header": parent.header},
            buffers=list(buffers),
        )
        # Sending may have eaten the edge on which the loop learns of a message to be read.
        self._loop.call_soon(self._pump, channel)
        return str(message["header"]["msg_id"])

    def _pump(self, channel: Channel) -> None:
        """Read what has arrived, but not for ever: a flood must not hold up the loop."""
        assert self._manager is not None
        assert self._loop is not None
        session = self._manager.session
        for _ in range(MESSAGES_A_TICK):
            socket = self._sockets.get(channel)
            if socket is None:
                return
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                _, frames = session.feed_identities(frames)
                message = session.deserialize(frames)
            except (ValueError, TypeError, KeyError, IndexError, RecursionError):
                continue  # Not signed with our key, or no message at all.
            self._on_message(
                JupyterMessage(
                    channel,
                    message["msg_type"],
                    message["content"],
                    message["parent_header"].get("msg_id"),
                    message["header"],
                    message["buffers"],
                )
            )
        self._loop.call_soon(self._pump, channel)

    async def share(self, context: Context) -> tuple[str, str, str]:
        """Write a context into a file that only this user can read; see `Transport.share`."""
        path = Path(self.folder, f"context-{os.urandom(8).hex()}")
        self._shared.append(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            for piece in context.pieces():
                file.write(piece)
                await asyncio.sleep(0)
        return context.name, "lazy" if context.lazy else context.format, str(path)

    async def unshare(self) -> None:
        """Delete the files of `share`, and what leads to the kernel: nobody else is to find the way."""
        Path(self.folder, "kernel.json").unlink(missing_ok=True)
        if self._kernel_name == OWN_KERNEL:
            # All four channels are connected by now; other kernels of this user could listen in.
            for socket in Path(self.folder).glob("k-*"):
                socket.unlink(missing_ok=True)
        while self._shared:
            # Windows does not delete what a lazy view has open; the folder goes with the kernel.
            with suppress(PermissionError):
                self._shared.pop().unlink(missing_ok=True)

    async def interrupt(self) -> None:
        """Interrupt as the kernelspec says, by signal or by message."""
        if self._manager is not None and self._process is not None and not self._process.ended:
            with suppress(RuntimeError, OSError):
                await self._manager.interrupt_kernel()

    def kill(self) -> None:
        """Have the guard kill the kernel, and listen to it no longer; see `Transport.kill`."""
        self._killed = True
        for socket in self._sockets.values():
            if self._loop is not None:
                self._loop.remove_reader(int(socket.fd))
            socket.close()
        self._sockets.clear()
        if self._process is not None:
            self._process.kill()

    async def close(self) -> None:
        """Kill the kernel and all that it started, and remove its folder; see `Transport.close`."""
        if self._closed:
            return
        self._closed = True
        self.kill()
        try:
            if self._process is not None:
                # Also where this is cancelled, the process is gone in the end; nobody then waits for it.
                await self._process.close()
        finally:
            if self._manager is not None:
                # Its control socket, and the ports it holds.
                await self._manager.cleanup_resources()
            try:
                # Some file systems take milliseconds for each of the folders.
                await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
            except RuntimeError:
                # The interpreter ends, and starts no thread any more.
                shutil.rmtree(self.folder, ignore_errors=True)


def local_session() -> JupyterSession:
    """Return a session, not started yet, with a local kernel of this interpreter."""
    return JupyterSession(LocalTransport(), along_bytes=ALONG_BYTES)


def _leave_dates(session: Session) -> None:
    """Let ``session`` drop the date of each header: to read it takes longer than all the rest."""
    unpack = session.unpack

    def unpack_undated(packed: bytes) -> Any:
        part = unpack(packed)
        if isinstance(part, dict) and "msg_id" in part:
            part.pop("date", None)
        return part

    session.unpack = unpack_undated


def _process_of(provisioner: Any) -> GuardedProcess | PlainProcess | None:
    if isinstance(provisioner, GuardedProvisioner):
        return provisioner.guarded
    if hasattr(provisioner, "watched"):
        watched: GuardedProcess | None = provisioner.watched()
        return watched
    popen = getattr(provisioner, "process", None)
    return None if popen is None else PlainProcess(popen)


def _allowed() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name in ENVIRONMENT or name.startswith("LC_")}
    if "PYTHONPATH" in env:
        # What is relative is meant from here, not from a kernel's folder, where a model may write modules.
        env["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, env["PYTHONPATH"].split(os.pathsep)))
    return env


def _addresses(folder: str, *, tcp: bool) -> dict[str, str]:
    if tcp:
        return {"transport": "tcp", "transport_encryption": "required"}
    return {"transport": "ipc", "ip": os.path.join(folder, "k")}


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "its process is gone"
    if code < 0:
        with suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process exited with code {code}"
