"""Orchestrator, gateway and model server on three hosts: what works between them, and what can't.

The hosts are network namespaces with TCP of their own, see `links`. Distances are counted in round trips.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateways import TOKEN, Server, python_of, until
from kernels import Repl
from links import LARGEST_MTU, Network

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.context import Context
from rlm_kernel.models.server import Fault, ScriptedServer
from rlm_kernel.repl.gateway import connection
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.deliveries import FIRST_BYTES, PIECE_BYTES, PIECES_AHEAD
from rlm_kernel.repl.gateway.session import GatewaySession
from rlm_kernel.repl.gateway.transport import GatewayTransport

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]
LINE = ("orchestrator", "gateway")
CONFIG = """\
import sys
sys.path.insert(0, {folder!r})
c = get_config()
c.KernelGatewayApp.kernel_websocket_connection_class = "rlm_gateway.audit.AuditedConnection"
c.Audit.file = {audit!r}
"""


def block(code):
    return f"```repl\n{code}\n```"


@pytest.fixture(scope="module")
def hosts():
    try:
        network = Network(LINE, ("orchestrator", "models"))
    except OSError as error:
        pytest.skip(str(error))
    with network:
        yield network


@pytest.fixture
def network(hosts):
    """The hosts, with ordinary cables."""
    yield hosts
    hosts.set(*LINE, delay=0, loss=0, rate=0, cut=False)
    hosts.set_mtu(1500)


@pytest.fixture(scope="module")
def server(request, hosts, tmp_path_factory):
    """A gateway on its host, set up to send small messages at once, as `remote_kernel_gateway` does it."""
    folder = tmp_path_factory.mktemp("gateway")
    paths = {"folder": os.fspath(ROOT / "remote_kernel_gateway"), "audit": os.fspath(folder / "audit")}
    (folder / "config.py").write_text(CONFIG.format(**paths))
    python = python_of("kernel-gateway", request.config.cache)
    options = [f"--config={folder / 'config.py'}"]
    server = Server("kernel-gateway", python, folder, *options, host=hosts.address("gateway"))
    hosts.on("gateway", server.start)
    yield server
    server.stop()


@contextmanager
def models(network, *replies, sub=lambda request: "reply", fault=None):
    """A model server on its host; yields its URL for others, and its account."""
    said = iter(replies)
    told = queue.Queue()
    served = {
        "root": ScriptedModel(lambda request: next(said), name="root"),
        "sub": ScriptedModel(sub, name="sub"),
    }

    async def serve():
        from aiohttp import web

        async with ScriptedServer(served, fault=fault) as endpoint:
            await web.TCPSite(endpoint._runner, network.address("models"), 0).start()
            port = endpoint._runner.addresses[-1][1]
            ending = asyncio.Event()
            loop = asyncio.get_running_loop()
            url = f"http://{network.address('models')}:{port}/v1"
            told.put((url, endpoint, lambda: loop.call_soon_threadsafe(ending.set)))
            await ending.wait()

    serving = threading.Thread(target=network.run, args=("models", serve))
    serving.start()
    url, endpoint, end = told.get(timeout=60)
    try:
        yield url, endpoint
    finally:
        end()
        serving.join()


def complete(network, server, url, context="text", **options):
    """Have a run on the orchestrator's host; return its answer."""

    async def main():
        given = {"gateway_url": server.url, "gateway_token": TOKEN, "gateway_insecure": True, **options}
        async with RLM("root", "sub", base_url=url, repl="gateway", spare_kernels=0, **given) as rlm:
            return await asyncio.wait_for(rlm.acompletion("What?", context), 120)

    return network.run("orchestrator", main)


def with_repl(network, server, work):
    """Run ``work(repl)`` on the orchestrator's host, over an open kernel."""

    async def main():
        session = GatewaySession(GatewayTransport(Gateway(server.url, TOKEN, allow_http=True)))
        try:
            await session.start([])
            return await work(Repl(session))
        finally:
            await session.close()

    return network.run("orchestrator", main)


# What works, and what must not --------------------------------------------------------------------------


def certified(folder, address):
    """Make an authority, and a server's key and certificate that it vouches for."""

    def openssl(*arguments):
        done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=gateway", "-keyout", "key.pem", "-out", "request.pem")
    (folder / "names").write_text(f"subjectAltName=IP:{address}\n")
    signed = ("x509", "-req", "-days", "2", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key")
    openssl(*signed, "-set_serial", "2", "-extfile", "names", "-out", "cert.pem")


def test_a_run_from_the_command_line_over_tls(request, network, tmp_path):
    certified(tmp_path, network.address("gateway"))
    files = [f"--KernelGatewayApp.{each}file={tmp_path / each}.pem" for each in ("cert", "key")]
    python = python_of("kernel-gateway", request.config.cache)
    host = network.address("gateway")
    server = Server("kernel-gateway", python, tmp_path, *files, scheme="https", host=host)
    (tmp_path / "notes.txt").write_text("wörter " * 100_000)
    replies = [
        block(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(4) as pool: threads = list(pool.map(llm_query, 'abcd'))\n"
            "found = [len(context), llm_query('q'), threads, llm_query_batched(['q'] * 5)]"
        ),
        block("FINAL(found)"),
    ]
    network.on("gateway", server.start)
    try:
        with models(network, *replies) as (url, endpoint):
            command = [sys.executable, "-m", "rlm_kernel.cli", "run", "--json", "--no-save"]
            options = ["--repl", "gateway", "--gateway-url", server.url, "--context", "notes.txt"]
            environment = {
                **os.environ,
                "PYTHONPATH": os.fspath(ROOT),
                "SSL_CERT_FILE": os.fspath(tmp_path / "ca.pem"),
                "RLM_GATEWAY_TOKEN": TOKEN,
                "OPENAI_API_KEY": "sk-canary-multihost",
                "OPENAI_BASE_URL": url,
            }
            done = network.on(
                "orchestrator",
                lambda: subprocess.run(
                    [*command, *options, "--model", "root", "--sub-model", "sub", "What?"],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                ),
            )
            assert done.returncode == 0, done.stderr
            found = [700_000, "reply", ["reply"] * 4, ["reply"] * 5]
            assert json.loads(done.stdout)["value"] == found
            assert len(endpoint.requests) == 2 + 1 + 4 + 5
            assert {each.headers["authorization"] for each in endpoint.requests} == {
                "Bearer sk-canary-multihost"
            }
    finally:
        server.stop()
    up, down = network.counts(*LINE)
    # The gateway's host has opened no connection, nor sent anything but answers.
    assert up.bytes > 700_000
    assert down.packets
    assert down.refused == 0


# Each attempt returns if it got somewhere. The last ones ask no routing table.
ATTEMPTS = """\
import socket

def tcp(address, device=""):
    with socket.socket() as line:
        line.settimeout(1)
        if device:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        line.connect(tuple(address))

def udp(address, device=""):
    with socket.socket(type=socket.SOCK_DGRAM) as line:
        line.settimeout(1)
        if device:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        line.sendto(b"?", tuple(address))
        line.recv(10)

def reached(models, orchestrator):
    attempts = {
        "model server": lambda: tcp(models),
        "orchestrator": lambda: tcp(orchestrator),
        "elsewhere": lambda: tcp(("192.0.2.1", 443)),
        "dns": lambda: socket.getaddrinfo("example.com", 443),
        "dns server": lambda: udp(("192.0.2.53", 53)),
        "model server by device": lambda: tcp(models, "rlm0"),
        "dns server by device": lambda: udp(("192.0.2.53", 53), "rlm0"),
    }
    found = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        found.append(name)
    return found
"""


def test_a_kernel_reaches_nothing_but_the_gateway(network, server):
    with models(network) as (url, endpoint):
        there = [network.address("models"), int(url.split(":")[2].split("/")[0])]
        with network.on("orchestrator", socket.create_server, (network.address("orchestrator"), 0)) as mine:
            code = f"{ATTEMPTS}\nreached({there}, {list(mine.getsockname())})"

            # The same from the orchestrator, which may: what the attempts find can be found.
            space = {}
            exec(ATTEMPTS, space)
            found = network.on("orchestrator", space["reached"], there, mine.getsockname())
            assert found == ["model server", "orchestrator"]
            mine.accept()[0].close()

            before = network.counts(*LINE)[1].refused
            assert with_repl(network, server, lambda repl: repl.value(code)) == "[]"
            assert network.counts(*LINE)[1].refused > before
            mine.setblocking(False)
            with pytest.raises(BlockingIOError):
                mine.accept()
        assert not endpoint.requests


# A line that is cut ---------------------------------------------------------------------------------------

CALLS = """\
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool: threads = list(pool.map(llm_query, [f"thread {i}" for i in range(8)]))
batch = llm_query_batched([f"batch {i}" for i in range(8)])
one = [llm_query(f"one {i}") for i in range(3)]
"""


@pytest.mark.parametrize(
    ("first", "seconds", "forgets"),
    [("thread", 10, True), ("batch", 2, False)],
    ids=["10 s, the connection breaks", "2 s, the connection stands"],
)
def test_a_cut_pays_nothing_twice(network, server, monkeypatch, first, seconds, forgets):
    if forgets:
        # What was connected is not any more, and nobody is told: silence must be noticed.
        monkeypatch.setattr(connection, "PING_SECONDS", 1.0)
    network.set(*LINE, delay=0.02, loss=0.01)
    timers = []

    def heal():
        if forgets:
            network.forget(*LINE)
        network.set(*LINE, cut=False)

    def answer(request):
        prompt = request.messages[-1]["content"]
        if prompt.startswith(first) and not timers:
            network.set(*LINE, cut=True)
            timers.append(threading.Timer(seconds, heal))
            timers[0].start()
        return "re: " + prompt

    def slow(served):
        return Fault("slow", seconds=0.2) if served.model == "sub" else None

    replies = [block(CALLS), block("FINAL([threads, batch, one])")]
    with models(network, *replies, sub=answer, fault=slow) as (url, endpoint):
        given = complete(network, server, url)
        asked = [each.body["messages"][-1]["content"] for each in endpoint.requests if each.model == "sub"]
        roots = len(endpoint.requests) - len(asked)
    timers[0].join()
    names = [f"{kind} {i}" for kind, count in (("thread", 8), ("batch", 8), ("one", 3)) for i in range(count)]
    assert given.value == [[f"re: {name}" for name in names[a:b]] for a, b in ((0, 8), (8, 16), (16, 19))]
    assert sorted(asked) == sorted(names)
    assert roots == 2
    assert given.total_calls == 21
    up, down = network.counts(*LINE)
    assert up.cut + down.cut > 0
    assert ("connection to the kernel was lost" in given.messages[-2]["content"]) == forgets


# A line that is long --------------------------------------------------------------------------------------

SECONDS_A_ROUND = 0.3


@pytest.mark.parametrize(
    ("code", "rounds"),
    [
        ("FINAL(print(1))", 1),
        ("llm_query('q')", 2),
        ("llm_query_batched(['q'] * 200)", 2),
        ("await allm_query('q')", 2),
        ("for _ in range(3): llm_query('q')", 4),
    ],
    ids=["none", "call", "batch", "task", "three calls"],
)
def test_a_cell_takes_one_round_trip_and_one_for_each_wait(network, server, code, rounds):
    async def work(repl):
        await repl.run(code)
        network.set(*LINE, delay=SECONDS_A_ROUND)
        taken = []
        # What else the machine does may cost time, but never saves any.
        while len(taken) < 5 and (not taken or min(taken) >= rounds + 1):
            since = time.monotonic()
            assert (await repl.run(code)).status == "ok"
            taken.append((time.monotonic() - since) / SECONDS_A_ROUND)
        network.set(*LINE, delay=0)
        return min(taken)

    assert rounds <= with_repl(network, server, work) < rounds + 1


def test_pieces_of_a_context_do_not_wait_for_each_other(network, server):
    network.set_mtu(LARGEST_MTU)

    async def work(repl):
        kernel = int(await repl.value("import os; os.getpid()"))
        sent = network.counts(*LINE)[0].bytes
        context = Context.of("context", "0123456789abcde\n" * (10 * PIECE_BYTES // 16))
        os.kill(kernel, signal.SIGSTOP)
        try:
            loading = asyncio.create_task(repl.session.load([context], {}))
            # Nothing is acknowledged: what is on its way is all that goes without.
            ahead = PIECES_AHEAD * FIRST_BYTES
            await until(lambda: network.counts(*LINE)[0].bytes - sent > ahead)
        finally:
            os.kill(kernel, signal.SIGCONT)
        await loading
        assert network.counts(*LINE)[0].bytes - sent > 10 * PIECE_BYTES
        return await repl.value("len(context), context[-16:]")

    there = with_repl(network, server, work)
    assert there == str((10 * PIECE_BYTES, "0123456789abcde\n"))


# The hosts themselves --------------------------------------------------------------------------------------


def test_hosts_are_gone_with_the_test_that_made_them(network):
    made = "from links import *\nimport time\nn = Network(('a', 'b'))\nprint(n._process.pid, flush=True)\n"
    folder = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", made + "time.sleep(600)"], cwd=folder, stdout=subprocess.PIPE
    ) as test:
        between = Path("/proc", test.stdout.readline().decode().strip(), "fd")
        assert list(between.iterdir())
        test.kill()
    # One that nobody waited for has no open files, either.
    asyncio.run(until(lambda: not between.exists() or not list(between.iterdir())))
