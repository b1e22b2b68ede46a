"""Real gateways for the tests of this folder, each in an environment of its own, and a line to cut."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import venv
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from kernels import Repl

from rlm_kernel.context import Context
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.session import GatewaySession
from rlm_kernel.repl.gateway.transport import GatewayTransport

ROOT = Path(__file__).parents[2]
TOKEN = "canary-0123456789-gateway"
# A kernel that ended is noticed, and given up, soon: a start that fails takes a second each time. One that is
# busy when it is to end is not waited for long.
_SOON = (
    *("--KernelRestarter.time_to_dead=0.3", "--KernelRestarter.stable_start_time=2"),
    *("--KernelRestarter.restart_limit=2", "--KernelManager.shutdown_wait_time=1"),
)
NEEDS = {
    "kernel-gateway": ("jupyter-kernel-gateway==3.0.1", "jupyter-server==2.21.*", "ipykernel>=7"),
    "jupyter-server": ("jupyter-server==2.21.*", "ipykernel>=7"),
    "enterprise-gateway": ("jupyter-enterprise-gateway==3.3.*", "ipykernel==6.29.*"),
}
_START = {
    "kernel-gateway": ("-m", "kernel_gateway", f"--KernelGatewayApp.auth_token={TOKEN}", *_SOON),
    "jupyter-server": (
        *("-m", "jupyter_server", "--no-browser", "--allow-root", f"--IdentityProvider.token={TOKEN}"),
        *_SOON,
    ),
    "enterprise-gateway": ("-m", "enterprise_gateway", f"--EnterpriseGatewayApp.auth_token={TOKEN}"),
}


def python_of(kind, cache):
    """The interpreter of the environment of a kind of gateway; made once, and kept in pytest's cache."""
    given = os.environ.get(f"RLM_TEST_{kind.replace('-', '_').upper()}")
    if given:
        return given
    bin_ = Path("Scripts" if sys.platform == "win32" else "bin", "python")
    kept = cache.mkdir("gateways") / f"{kind}-python{sys.version_info.major}.{sys.version_info.minor}"
    if not (kept / bin_).exists():
        made = kept.with_name(f"new-{uuid.uuid4().hex[:8]}")
        try:
            venv.create(made, with_pip=True)
            pip = (made / bin_, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            done = subprocess.run([*pip, *NEEDS[kind]], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{NEEDS[kind][0]} can't be installed here: {done.stderr.strip()[-200:]}")
            if not kept.exists():
                made.rename(kept)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return os.fspath(kept / bin_)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """A gateway's process."""

    def __init__(self, kind, python, folder, *options, scheme="http", host="127.0.0.1"):
        self.kind, self.folder, self.host, self.port = kind, Path(folder), host, free_port()
        self.url = f"{scheme}://{host}:{self.port}"
        self._command = [python, *_START[kind], f"--ip={host}", f"--port={self.port}", *options]
        self._process = None

    def start(self):
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")
        }
        for name in ("RUNTIME", "DATA", "CONFIG"):
            environment[f"JUPYTER_{name}_DIR"] = os.fspath(self.folder / name.lower())
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert self._process.poll() is None, self.log
            with suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return self
            time.sleep(0.05)
        raise AssertionError(f"{self.kind} does not listen: {self.log}")

    @property
    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def kernels(self):
        """The ids of the kernels that it has."""
        found = sorted(Path(self.folder, "runtime").glob("kernel-*.json"))
        ids = [path.stem.removeprefix("kernel-") for path in found]
        return [id_ for id_ in ids if self._has(id_)]

    def _has(self, id_):
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(f"{self.url}/api/kernels/{id_}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return False

    def kill(self):
        """End it without a word, and wait."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self):
        """End it and its kernels."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
        self.kill()


def offer_pyodide(server, specs):
    """Have ``server`` offer the kernelspec `rlm-pyodide`, as it is found in the folder ``specs``."""
    (given,) = specs.glob("kernels/rlm-pyodide/kernel.json")
    spec = server.folder / "data" / "kernels" / "rlm-pyodide" / "kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    # A Kernel Gateway hands its own variables on to no kernel.
    spec.write_text(json.dumps({**json.loads(given.read_text()), "env": {"PYTHONPATH": os.fspath(ROOT)}}))


class Line:
    """A TCP line to a port of this machine, that can be cut, swallow what is sent, and be healed."""

    def __init__(self, port):
        self._target = port
        self._server = None
        self._writers = set()
        self._far = set()
        self._tasks = set()
        self._refuses = False
        self.swallows = False
        self.port = 0
        self.connections = 0
        self.bytes_up = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self.cut()
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve(self, reader, writer):
        task = asyncio.create_task(self._lead(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _lead(self, reader, writer):
        if self._refuses:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target, limit=2**22)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers |= {writer, back}
        self._far |= {back}
        await asyncio.gather(
            self._copy(reader, back, up=True), self._copy(there, writer), return_exceptions=True
        )

    async def _copy(self, reader, writer, *, up=False):
        try:
            while data := await reader.read(2**20):
                self.bytes_up += len(data) * up
                if not (self.swallows or writer.transport.is_closing()):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            if not self._refuses:
                writer.close()

    def cut(self, *, far=True):
        """Break all connections, and let no other come about; the far end may go on believing in them."""
        self._refuses = True
        for writer in self._writers if far else self._writers - self._far:
            writer.transport.abort()
        if far:
            self._writers.clear()
            self._far.clear()

    def heal(self):
        """Let connections come about again."""
        self._refuses = self.swallows = False


async def until(condition, seconds=60.0):
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  what it looks at is another process's, mostly
            await asyncio.sleep(0.01)


@asynccontextmanager
async def open_remote(url, *contexts, name="", lease=300.0, **options):
    session = GatewaySession(GatewayTransport(Gateway(url, TOKEN, name), **options), lease=lease)
    try:
        await session.start([Context.of(name, value) for name, value in contexts])
        yield Repl(session)
    finally:
        await session.close()
