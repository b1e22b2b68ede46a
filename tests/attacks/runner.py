"""Runs the corpus against one backend, in a process that has a key: ``python runner.py BACKEND``.

It is host and judge: plants what attacks go for, runs each in a cell, and looks at what came of it. Prints
one JSON object: ``results``, by name of the attack how it got through (empty if it did not), and ``holds``,
the limits that held for the whole tree of processes.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from corpus import ATTACKS, BARE, LOCAL, PRELUDE, SANDBOX

from rlm_kernel.context import Context
from rlm_kernel.errors import CallError
from rlm_kernel.repl.local import LocalTransport
from rlm_kernel.repl.sandbox.limits import SandboxLimits
from rlm_kernel.repl.sandbox.transport import SandboxTransport
from rlm_kernel.repl.session import JupyterSession

LIMITS = SandboxLimits(memory=512, processes=64, file=16, disk=16, open_files=128, cpu_seconds=2)
TRANSPORTS = {
    BARE: lambda: LocalTransport(confined=False, fork=False),
    LOCAL: LocalTransport,
    SANDBOX: lambda: SandboxTransport(LIMITS),
}
# Where attacks that got through leave something.
NOTES = ("/usr/lib", f"{sys.prefix}/lib", os.path.expanduser("~"), "/tmp", "/dev/shm", "/var/tmp")
KEY_STARTS = "sk-canary-"
# Beside the limit of its cell: an interrupt, a kill, a new kernel.
BOUND_SECONDS = 30.0
# What a signal takes at most until the process is seen to have ended.
DYING_SECONDS = 0.2


class Host:
    """What is planted, and what has become of it."""

    def __init__(self, stack: ExitStack, key: str) -> None:
        self.key = key
        self.marker = secrets.token_hex(8)
        self.note = f"rlm-attack-{secrets.token_hex(8)}"
        self.number = secrets.randbelow(1 << 30) + 1
        stack.callback(self.tidy)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="host-")))
        for name in ("secret", "kernel-1.json"):
            (self.folder / name).write_text(json.dumps({"signature_scheme": "hmac-sha256", "key": key}))
        self.target = self.folder / "target"
        self.listeners = {}
        for name, family, kind, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, str(self.folder / "socket")),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0rlm-{self.marker}"),
        ):
            listener = self.listeners[name] = stack.enter_context(socket.socket(family, kind))
            listener.bind(address)
            listener.setblocking(False)
            if kind == socket.SOCK_STREAM:
                listener.listen()
        self.victim = None
        stack.callback(lambda: self.victim and (self.victim.kill(), self.victim.wait()))
        self.restore()

    def restore(self) -> None:
        """Plant again what an attack may have changed."""
        self.target.write_text("as it was")
        if self.victim is None or self.victim.poll() is not None:
            self.victim = subprocess.Popen(["sleep", "1000"])

    def tidy(self) -> None:
        """Remove what attacks have left on this machine."""
        for folder in NOTES:
            with suppress(OSError):
                os.unlink(f"{folder}/{self.note}")
        libc = ctypes.CDLL(None)
        segment = libc.shmget(self.number, 0, 0)
        if segment >= 0:
            libc.shmctl(segment, 0, None)

    def facts(self, other: str) -> dict:
        addresses = {name: each.getsockname() for name, each in self.listeners.items()}
        return {
            **addresses,
            "abstract": f"rlm-{self.marker}",
            "marker": self.marker,
            "note": self.note,
            "number": self.number,
            "key_starts": KEY_STARTS,
            "secret": str(self.folder / "secret"),
            "folder": str(self.folder),
            "target": str(self.target),
            "prefix": sys.prefix,
            "orchestrator": os.getpid(),
            "victim": self.victim.pid,
            "other": other,
        }

    def damage(self, output: str, folder: str) -> str:
        """Return how an attack got through, or nothing."""
        for what, text in (("the key", self.key), ("a hit", self.marker), ("accounts", "root:x:0:0:")):
            if text in output:
                return f"its output shows {what}"
        for name, listener in self.listeners.items():
            with suppress(BlockingIOError):
                listener.recv(100) if name == "udp" else listener.accept()[0].close()
                return f"it reached {name}"
        if not self.target.exists() or self.target.read_text() != "as it was":
            return "it changed a file"
        if self.victim.poll() is not None:
            return "it ended a process"
        with suppress(OSError):
            if os.path.getsize(f"{folder}/start.log") > (LIMITS.file + 1) << 20:
                return "it filled the log"
        return ""


class Target:
    """The session under attack, replaced when it is gone."""

    def __init__(self, backend: str, facts: dict) -> None:
        self._backend = backend
        self.facts = facts
        self.transport = None
        self.session = None

    async def open(self) -> None:
        await self.close()
        self.transport = TRANSPORTS[self._backend]()
        self.session = JupyterSession(self.transport)
        await self.session.start([Context.of("facts", self.facts)])
        await self.run(PRELUDE, 20.0)

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()

    async def run(self, code: str, seconds: float) -> str:
        result = await self.session.execute(code, timeout=seconds, on_call=refuse)
        return "\n".join(each.text for each in result.outputs)

    async def works(self) -> bool:
        return self.session.alive and "42" in await self.run("6 * 7", 10.0)


async def refuse(call):
    raise CallError(f"not answered: {call!r}", kind="internal")


async def attack(host: Host, target: Target, each) -> str:
    host.restore()
    target.facts["victim"] = host.victim.pid
    if target.session is None or not await target.works():
        await target.open()
    await target.run(f"facts['victim'] = {host.victim.pid}", 10.0)
    output = await target.run(each.code, each.seconds)
    if each.goal == "processes":
        await asyncio.sleep(DYING_SECONDS)
    found = host.damage(output, target.transport.folder)
    if each.then:
        await target.open()
        found = found or host.damage(await target.run(each.then, each.seconds), target.transport.folder)
    return found


async def main(backend: str) -> dict:
    results = {}
    with ExitStack() as stack:
        host = Host(stack, os.environ["OPENAI_API_KEY"])
        other = TRANSPORTS[backend]()
        bystander = JupyterSession(other)
        await bystander.start([Context.of("context", host.key)])
        target = Target(backend, host.facts(other.folder))
        try:
            for each in ATTACKS:
                if backend in each.only:
                    results[each.name] = await asyncio.wait_for(
                        attack(host, target, each), each.seconds + BOUND_SECONDS
                    )
            holds = getattr(target.transport._manager.provisioner, "holds", ())
            host.restore()
        finally:
            await target.close()
            await bystander.close()
    return {"results": results, "holds": holds}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
