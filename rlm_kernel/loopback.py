"""``jupyter rlm gateway``: a Kernel Gateway on this machine, with the kernels asked for and no others.

It is a process of its own, with its own folders: the user's Jupyter configuration does not reach it. Its
token is made here, goes to it by its environment, and is printed once. What it hands on to kernels is the
allow-list that local kernels have, so that no key of this program's environment is in theirs.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn

from .errors import ConfigError, InputError, KernelStartError

__all__ = ["LoopbackGateway", "serve"]

START_SECONDS = 120.0
STOP_SECONDS = 20.0
IDLE_SECONDS = 600
CULL_EVERY = 60
# Something else may take a kernel's port before it does; only one that has not run for so long is given
# others. On a loaded machine it takes longer than a server's 10 s until a kernel finds out.
STABLE_SECONDS = 30.0
POLL_SECONDS = 0.05
KERNEL = "rlm-pyodide"
# Beside what local kernels have: where the WebAssembly kernel finds what it runs on, and its limits.
_ALSO = ("XDG_CACHE_HOME", "DENO_DIR")
# Out of the environment: a kernel whose start request brings none inherits the gateway's.
# Its standard input ends with whoever started it, by kill -9 too: then it ends as it does when told to.
_CONFIG = """
import os, signal, threading
c.KernelGatewayApp.auth_token = os.environ.pop("KG_AUTH_TOKEN")

def watch():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=watch, daemon=True).start()
"""


class LoopbackGateway:
    """A gateway that starts with the context and ends with it, its kernels too.

    ``kernels`` are the kernelspecs it has, the first its default; those of this package need not be
    installed. ``port`` 0 takes a free one. ``log`` is where it writes, standard error if None. Kernels that
    nobody is connected to end after ``idle`` seconds.

    Raises:
        ConfigError: the Kernel Gateway is not installed, or a kernel can't run here.
        InputError: there is no such kernelspec, or the port is taken.
        KernelStartError: it did not start.
    """

    def __init__(
        self,
        kernels: Sequence[str] = (KERNEL,),
        *,
        port: int = 0,
        ip: str = "127.0.0.1",
        idle: int = IDLE_SECONDS,
        log: IO[bytes] | None = None,
    ) -> None:
        if importlib.util.find_spec("kernel_gateway") is None:
            raise ConfigError(
                "the Kernel Gateway is not installed here", hint="pip install 'rlm-kernel[gateway]'"
            )
        self.kernels = tuple(dict.fromkeys(kernels))
        self.token = secrets.token_urlsafe(32)
        self._ip = ip
        self._port = _free(ip, port)
        self._idle = idle
        self._log = log
        self._folder = ""
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://{f'[{ip}]' if ':' in ip else ip}:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the gateway, once it was started."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> LoopbackGateway:
        self._folder = tempfile.mkdtemp(prefix="rlm-gateway-")
        try:
            self._install()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _install(self) -> None:
        from jupyter_client.kernelspec import KernelSpecManager  # noqa: PLC0415  on use

        from .kernels.rlm.install import SPECS, install  # noqa: PLC0415  on use

        known = KernelSpecManager().find_kernel_specs()
        for name in self.kernels:
            if name == KERNEL:
                from .repl.pyodide.transport import make_ready  # noqa: PLC0415  on use

                # Once, and before anybody waits for a kernel.
                make_ready()
            if name in SPECS:
                install(name, prefix=self._folder)
            elif name not in known:
                there = ", ".join(sorted({*known, *SPECS}))
                raise InputError(
                    f"there is no kernelspec {name!r} on this machine", hint=f"there are {there}"
                )

    def _start(self) -> None:
        environment = _environment()
        settings = {
            "KernelGatewayApp": {
                "ip": self._ip,
                "port": self._port,
                "port_retries": 0,
                "default_kernel_name": self.kernels[0],
                "env_process_whitelist": sorted(environment),
                "log_level": "WARN",
            },
            "KernelSpecManager": {
                "allowed_kernelspecs": list(self.kernels),
                "ensure_native_kernel": False,
            },
            "MappingKernelManager": {"cull_idle_timeout": self._idle, "cull_interval": CULL_EVERY},
            "KernelRestarter": {"stable_start_time": STABLE_SECONDS},
        }
        folder = Path(self._folder)
        config = folder / "config" / "jupyter_kernel_gateway_config.json"
        config.parent.mkdir()
        config.write_text(json.dumps(settings), encoding="utf-8")
        config.with_suffix(".py").write_text(_CONFIG, encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kernel_gateway"],
            cwd=folder,
            env={**environment, **_folders(folder), "KG_AUTH_TOKEN": self.token},
            stdin=subprocess.PIPE,
            stdout=self._log or sys.__stderr__,
            stderr=self._log or sys.__stderr__,
            start_new_session=True,
        )
        until = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > until:
                raise KernelStartError(
                    f"the gateway did not start at {self.url}", hint="what it printed above tells why"
                )
            time.sleep(POLL_SECONDS)

    def _listens(self) -> bool:
        try:
            with socket.create_connection((self._ip, self._port), 1):
                return True
        except OSError:
            return False

    def wait(self) -> int:
        """Wait until the gateway has ended by itself; return its exit code."""
        assert self._process is not None
        return self._process.wait()

    def close(self) -> None:
        """End the gateway and its kernels. Safe to call twice."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Return what the gateway and its kernels have of this program's environment."""
    from .repl.local import ENVIRONMENT  # noqa: PLC0415  heavy

    names = ENVIRONMENT.union(_ALSO)
    prefixes = ("LC_", "RLM_PYODIDE_")
    return {name: value for name, value in os.environ.items() if name in names or name.startswith(prefixes)}


def _folders(folder: Path) -> dict[str, str]:
    """Return where Jupyter has the gateway's own things; kernelspecs of this machine come after its own."""
    from jupyter_core.paths import jupyter_data_dir  # noqa: PLC0415  on use

    others = [os.environ.get("JUPYTER_PATH", ""), jupyter_data_dir()]
    return {
        "JUPYTER_CONFIG_DIR": os.fspath(folder / "config"),
        "JUPYTER_DATA_DIR": os.fspath(folder / "share" / "jupyter"),
        "JUPYTER_RUNTIME_DIR": os.fspath(folder / "runtime"),
        "JUPYTER_PATH": os.pathsep.join(filter(None, others)),
    }


def _free(ip: str, port: int) -> int:
    """Return ``port``, or a free one for 0.

    Raises:
        InputError: it is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family) as probe:
        # As the gateway will: what is only about to be forgotten is not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))
        except OSError as error:
            raise InputError(
                f"a gateway can't listen at {ip} port {port}: {error.strerror}",
                hint="--port gives another one, 0 any that is free",
            ) from None
        return int(probe.getsockname()[1])


def serve(args: argparse.Namespace) -> int:
    """Run a gateway until it is ended, as the command line asks for it; return its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    with LoopbackGateway(args.kernel or [KERNEL], port=args.port, ip=args.ip) as gateway:
        sys.stdout.write(f"export RLM_GATEWAY_URL={gateway.url}\nexport RLM_GATEWAY_TOKEN={gateway.token}\n")
        sys.stdout.flush()
        told = [f"kernels: {', '.join(gateway.kernels)}; Ctrl-C ends it", *_warnings(args.ip)]
        sys.stderr.write("".join(f"{line}\n" for line in told))
        sys.stderr.flush()
        return gateway.wait()


def _warnings(ip: str) -> list[str]:
    try:
        if ipaddress.ip_address(ip).is_loopback:
            return []
    except ValueError:
        pass
    return [f"{ip} is reached from other machines by plain http: put TLS before it, or trust that network"]


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
