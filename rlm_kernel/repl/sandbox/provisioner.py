"""How a Jupyter kernel manager starts a kernel in the sandbox: the provisioner ``rlm-sandbox``.

The guard stays outside and sees to it that nothing is left; inside, bubblewrap, then
`rlm_kernel.kernels.inside`, then the kernel. Whoever uses it needs no event loop that runs between two calls:
the lifeline is closed to end the kernel, and the guard's process is what is polled.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib import resources
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Float, Integer

from ...errors import KernelStartError
from ..process import CLOSE_SECONDS, GuardedProcess, popen_guarded
from . import layout
from .cgroup import Cgroup
from .limits import SandboxLimits
from .machine import Machine, machine

__all__ = ["SandboxProvisioner"]

PACKAGE = "rlm_sandbox"
MODULES = ("inside", "confine", "syscalls")
CHANNELS = ("shell", "iopub", "stdin", "hb", "control")
LIMITS_ENV = ("memory", "cpus", "cpu_seconds", "processes", "open_files", "file", "disk")
LOG = "start.log"
_BACKLOG = 64
_START = (
    f"import sys; sys.path.insert(0, {layout.INSIDE!r}); from {PACKAGE}.inside import main; "
    "sys.path.pop(0); main()"
)
# Joins the control groups that precede `--`, and becomes the program behind it.
_JOIN = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 1; shift; done; shift; exec "$@"'
_DEFAULT = SandboxLimits()


class SandboxProvisioner(LocalProvisioner):
    """A kernel in the sandbox.

    Limits can be set by the kernelspec (``metadata.kernel_provisioner.config``) or Jupyter's configuration;
    see `SandboxLimits`. ``folder`` is the kernel's on the host, one of its own if none is given; ``extra`` is
    added to its environment.
    """

    memory = Integer(_DEFAULT.memory, help="MiB of memory").tag(config=True)
    cpus = Float(_DEFAULT.cpus, help="processors' worth of time").tag(config=True)
    cpu_seconds = Integer(_DEFAULT.cpu_seconds, help="seconds of processor time of one process").tag(
        config=True
    )
    processes = Integer(_DEFAULT.processes, help="processes and threads").tag(config=True)
    open_files = Integer(_DEFAULT.open_files, help="open files of one process").tag(config=True)
    file = Integer(_DEFAULT.file, help="MiB of one file").tag(config=True)
    disk = Integer(_DEFAULT.disk, help="MiB of each writable folder").tag(config=True)

    folder = ""
    extra: Mapping[str, str] = {}
    debugger = True
    holds: tuple[str, ...] = ()

    _machine: Machine | None = None
    _own_folder = False
    _lifeline: socket.socket | None = None
    _cgroup: Cgroup | None = None
    _ending = False

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Find out whether there can be a sandbox, and have the channels be sockets in a private folder.

        Raises:
            SandboxUnavailableError: there can't be one here.
        """
        self._machine = await asyncio.to_thread(machine)
        if not self.folder:
            self.folder = tempfile.mkdtemp(prefix="rlm-")
            self._own_folder = True
        manager = self._manager
        # A signal would reach bubblewrap, and end it.
        manager.kernel_spec.interrupt_mode = "message"
        if self._own_folder:
            manager.transport, manager.ip = "ipc", os.path.join(self.folder, "k")
            manager.cache_ports = False
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel; its output goes to a log in its folder unless ``stdout`` is given."""
        try:
            await self._launch(cmd, **kwargs)
        except BaseException:
            await self.cleanup()
            raise
        return self.connection_info

    async def _launch(self, cmd: list[str], **kwargs: Any) -> None:
        assert self._machine is not None
        executable, module, argv = _split(cmd)
        limits = SandboxLimits(**{name: getattr(self, name) for name in LIMITS_ENV})
        python = await asyncio.to_thread(layout.interpreter, executable)
        uid = self._machine.uid()
        inside = os.path.join(self.folder, "inside")
        # Jupyter has filled in what the kernelspec takes from other variables.
        extra = {name: kwargs["env"].get(name, "") for name in self.kernel_spec.env} | dict(self.extra)
        env = layout.environment(kwargs["env"], extra, python, limits)
        with ExitStack() as stack:
            sockets = self._bind(stack)
            self._give(
                inside,
                uid=uid,
                limits=limits.process,
                sockets={address: each.fileno() for address, each in sockets.items()},
                paths=[python.user_site] if python.user_site else [],
                module=module,
                argv=[
                    f"{layout.INSIDE}/kernel.json" if each == self._connection_file else each for each in argv
                ],
            )
            self._cgroup = Cgroup.create(limits.tree)
            command = [
                self._machine.bwrap,
                *self._machine.flags,
                *layout.mounts(python, inside, limits),
                "--clearenv",
                *(word for name, value in env.items() for word in ("--setenv", name, value)),
                *("--", executable, "-I", "-c", _START),
            ]
            if self._cgroup.entrances:
                command = ["/bin/sh", "-c", _JOIN, "sh", *self._cgroup.entrances, "--", *command]
            log = kwargs.get("stdout") or stack.enter_context(open(os.path.join(self.folder, LOG), "wb"))
            self._lifeline, self.process = popen_guarded(
                command,
                cwd=self.folder,
                # The guard's own, and bubblewrap's; /proc shows it to the kernel's user.
                env={
                    "PATH": os.defpath,
                    **{name: env[name] for name in env if name.startswith(("LANG", "LC_"))},
                },
                log=log if isinstance(log, int) else log.fileno(),
                confined=False,
                folder=self.folder,
                inherited=[each.fileno() for each in sockets.values()],
            )
        self.pid = self.pgid = self.process.pid
        self.holds = self._cgroup.holds
        self._ending = False

    @property
    def _manager(self) -> Any:
        assert self.parent is not None
        return self.parent

    @property
    def _connection_file(self) -> str:
        return str(self._manager.connection_file)

    def _bind(self, stack: ExitStack) -> dict[str, socket.socket]:
        """Bind what the kernel will listen to, and return it by the address that the kernel binds."""
        info: Mapping[str, Any] = dict(self.connection_info)
        sockets = {}
        for channel in CHANNELS:
            path = f"{info['ip']}-{info[f'{channel}_port']}"
            Path(path).unlink(missing_ok=True)
            listener = sockets[f"ipc://{path}"] = stack.enter_context(socket.socket(socket.AF_UNIX))
            try:
                listener.bind(path)
            except OSError as error:
                raise KernelStartError(
                    f"no socket could be bound at {path}: {error}", hint="set TMPDIR to a shorter path"
                ) from None
            listener.listen(_BACKLOG)
        return sockets

    def _give(self, inside: str, **settings: Any) -> None:
        """Write the folder that the kernel can read; only we can enter the one that it is in."""
        uid = settings["uid"] if settings["uid"] is not None else _uid_inside()
        files = {
            "kernel.json": Path(self._connection_file).read_text("utf-8"),
            "passwd": f"{layout.USER}:x:{uid}:{uid}::{layout.HOME}:/bin/sh\n",
            "group": f"{layout.USER}:x:{uid}:\n",
            f"{PACKAGE}/__init__.py": "",
            "settings.json": json.dumps({**settings, "debugger": self.debugger}),
        }
        sources = resources.files("rlm_kernel.kernels")
        files |= {f"{PACKAGE}/{name}.py": (sources / f"{name}.py").read_text("utf-8") for name in MODULES}
        for name, text in files.items():
            path = Path(inside, name)
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            # The kernel has another uid than we, and a umask may forbid what is meant here.
            path.parent.chmod(0o755)
            path.chmod(0o644)

    def watched(self) -> GuardedProcess | None:
        """Watch the process from the running event loop, in place of polling it."""
        if self._lifeline is None or self.process is None:
            return None
        lifeline, self._lifeline = self._lifeline, None
        return GuardedProcess(lifeline, self.process)

    async def send_signal(self, signum: int) -> None:
        """End the kernel by any signal but an interrupt, which goes by message."""
        if signum not in (0, signal.SIGINT):
            await self.kill()

    async def kill(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002  Jupyter's signature
        """Have the guard kill the kernel and all that it started."""
        self._ending = True
        if self._lifeline is not None:
            with suppress(OSError):
                self._lifeline.shutdown(socket.SHUT_WR)

    async def terminate(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002  Jupyter's signature
        """Kill the kernel: one that runs a model's code is not asked."""
        await self.kill(restart)

    async def poll(self) -> int | None:
        """Return None while the kernel runs, then how it ended; log once what it printed."""
        code = await super().poll()
        if code and not self._ending:
            self._ending = True
            self.log.warning(
                "the sandboxed kernel ended with code %s, and printed: %s", code, self._last_words()
            )
        return code

    def _last_words(self) -> str:
        with suppress(OSError), open(os.path.join(self.folder, LOG), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
            # Model-written code can write there: nothing of it is to steer a terminal.
            return ascii(file.read().decode("utf-8", "replace"))
        return ""

    async def wait(self) -> int | None:
        """Wait for the end of the guard, and with it of all that it guards."""
        try:
            return await asyncio.wait_for(super().wait(), CLOSE_SECONDS * 2)
        except TimeoutError:
            if self.process is not None:
                self.process.kill()
            return await super().wait()

    async def cleanup(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002  Jupyter's signature
        """Remove what belonged to the kernel."""
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None
        if self._cgroup is not None:
            self._cgroup.remove()
        if self._own_folder and not restart:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        await super().cleanup(restart)


def _split(cmd: list[str]) -> tuple[str, str, list[str]]:
    """Return the interpreter, the module and its arguments of a kernel's command."""
    executable, *rest = cmd
    while rest and rest[0].startswith("-X"):
        rest = rest[1 if len(rest[0]) > 2 else 2 :]
    if len(rest) < 2 or rest[0] != "-m":
        raise KernelStartError(
            f"the sandbox starts kernels as `python -m MODULE`, not as {' '.join(cmd)!r}",
            hint='the kernelspec\'s argv should begin with "python", "-m", "ipykernel_launcher"',
        )
    found = shutil.which(executable) or executable
    return os.path.abspath(found), rest[1], rest[2:]


def _uid_inside() -> int:
    return 1000 if os.geteuid() == 0 else os.geteuid()
