"""What distance costs the repl `gateway`: ``python tests/kernel/measure_links.py``, as root on Linux.

Orchestrator and gateway are two hosts of `links`. Latencies are taken with packets of 1500 bytes, of which
1 % are lost each way, and are medians, in ms, beyond the round trip of a plain TCP connection over the same
line just before; of a batch also beyond what it takes locally. Transfers are those of a context, until it is
a variable, with large packets on a line of 20 MB/s, beside what a plain TCP connection carries there. Models
answer in the orchestrator's process, at once; delays are per round trip. Rows: a bare Kernel Gateway, and one
with the connection class of `remote_kernel_gateway`, which sends small messages at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from gateways import TOKEN, Server
from links import LARGEST_MTU, Network

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.context import Context
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.session import GatewaySession
from rlm_kernel.repl.gateway.transport import GatewayTransport

ROOT = Path(__file__).parents[2]
LINE = ("orchestrator", "gateway")
LOSS = 0.01
RATE = 20e6
TURNS = 15
CALLS = 40
OURS = """\
import sys
sys.path.insert(0, {folder!r})
c = get_config()
c.KernelGatewayApp.kernel_websocket_connection_class = "rlm_gateway.audit.AuditedConnection"
"""
CELL = f"""\
import time
def timed(call, *arguments):
    since = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - since
batch = [timed(llm_query_batched, ["q"] * 200) for _ in range(15)]
FINAL([[timed(llm_query, "q") for _ in range({CALLS})], batch])
"""
FIRST = "import time\nsince = time.perf_counter()\nllm_query('q')\nfirst.append(time.perf_counter() - since)"


async def latencies(**options):
    """Medians, in seconds: the gap between turns, a cell's first call, a later one, a batch of 200."""
    gaps, replied = [], None
    cells = iter(["first = []", *["x = 1"] * TURNS, *[FIRST] * TURNS, "FINAL(first)"])

    def root(request):
        nonlocal replied
        if replied is not None:
            gaps.append(time.perf_counter() - replied)
        reply = f"```repl\n{next(cells)}\n```"
        replied = time.perf_counter()
        return reply

    models = ScriptedModel(root, name="root"), ScriptedModel(lambda request: "reply", name="sub")
    async with RLM(*models, spare_kernels=0, max_iterations=100, **options) as rlm:
        first = (await rlm.acompletion("What?", "text")).value
        replied = None
        cells = iter([CELL])
        calls, batch = (await rlm.acompletion("What?", "text")).value
    return [statistics.median(each) for each in (gaps[1:TURNS], first, calls, batch)]


async def transfer(url, size):
    """Seconds until a context of ``size`` bytes is a variable over there."""
    session = GatewaySession(GatewayTransport(Gateway(url, TOKEN, allow_http=True)))
    try:
        await session.prepare()
        context = Context.of("context", "0123456789abcde\n" * (size // 16))
        since = time.perf_counter()
        await session.start([context])
        return time.perf_counter() - since
    finally:
        await session.close()


def plain(network, size, times=1):
    """Median of the seconds until so many bytes, sent over plain TCP, are acknowledged by one."""
    ready = threading.Event()
    listening = []

    def take():
        with socket.create_server((network.address("gateway"), 0)) as server:
            listening.append(server.getsockname())
            ready.set()
            with server.accept()[0] as line:
                for _ in range(times):
                    left = size
                    while left > 0:
                        left -= len(line.recv(2**20))
                    line.sendall(b"!")

    def give():
        taken = []
        with socket.create_connection(listening[0]) as line:
            for _ in range(times):
                since = time.perf_counter()
                line.sendall(bytes(size))
                line.recv(1)
                taken.append(time.perf_counter() - since)
        return statistics.median(taken)

    taking = threading.Thread(target=network.on, args=("gateway", take))
    taking.start()
    ready.wait()
    try:
        return network.on("orchestrator", give)
    finally:
        taking.join()


def measure(network, server, delay, size):
    """One row of the table."""
    network.set_mtu(1500)
    network.set(*LINE, delay=delay, loss=LOSS, rate=0)
    away = plain(network, 200, CALLS)
    options = {"repl": "gateway", "gateway_url": server.url, "gateway_token": TOKEN, "gateway_insecure": True}
    turn, first, call, batch = network.run("orchestrator", lambda: latencies(**options))
    *_, baseline = asyncio.run(latencies(repl="local"))
    row = [f"{1000 * (each - away):.1f}" for each in (call, first, batch - baseline, turn)]
    network.set_mtu(LARGEST_MTU)
    for loss in (0, LOSS):
        network.set(*LINE, loss=loss, rate=RATE)
        possible = plain(network, size)
        taken = network.run("orchestrator", lambda: transfer(server.url, size))
        row.append(f"{size / taken / 1e6:.1f} of {size / possible / 1e6:.1f}")
    return [f"{1000 * away:.1f}", *row]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gateway-python", default=sys.executable, help="a Python that has kernel_gateway")
    parser.add_argument("--megabytes", type=int, default=100, help="the size of the context")
    parser.add_argument("--delays", type=float, nargs="*", default=[0, 20, 100], help="in ms per round trip")
    given = parser.parse_args()
    size = given.megabytes * 1_000_000
    print("| gateway | delay | round trip | call | first call | batch of 200 | turn | MB/s | with losses |")
    for name in ("bare", "ours"):
        with Network(LINE) as network, tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "config.py")
            config.write_text(OURS.format(folder=os.fspath(ROOT / "remote_kernel_gateway")))
            more = [f"--config={config}"] if name == "ours" else []
            host = network.address("gateway")
            server = Server("kernel-gateway", given.gateway_python, folder, *more, host=host)
            network.on("gateway", server.start)
            try:
                for delay in given.delays:
                    row = measure(network, server, delay / 1000, size)
                    print("|", " | ".join([name, f"{delay:g} ms", *row]), "|", flush=True)
            finally:
                server.stop()


if __name__ == "__main__":
    main()
