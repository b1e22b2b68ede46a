"""``jupyter rlm gateway`` and ``jupyter rlm bench gateway``: a gateway of one's own, used and measured."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from wasm import needs_deno

from rlm_kernel import loopback
from rlm_kernel.bench import gateway as bench
from rlm_kernel.bench.gateway import Level, Warm, as_table
from rlm_kernel.cli import main
from rlm_kernel.errors import ConfigError, InputError, KernelStartError
from rlm_kernel.events import CallFinished, CallStarted
from rlm_kernel.loopback import LoopbackGateway
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.session import GatewaySession
from rlm_kernel.repl.gateway.transport import GatewayTransport

pytest.importorskip("kernel_gateway", reason="the extra gateway is not installed")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform == "win32", reason="the gateway's process is ended by a signal"),
]
ROOT = Path(__file__).parents[2]
KEY = "sk-canary-loopback-0123456789"
LOOK = "import os\nFINAL([sorted(os.environ), os.environ.get('PATH', '')])"


def environment():
    # A variable of settings would be one of the tests', too.
    return {**os.environ, "PYTHONPATH": os.fspath(ROOT), "OPENAI_API_KEY": KEY, "MY_SECRET": KEY}


async def look(url, token, name=""):
    """What a cell on a gateway finds in its environment."""
    session = GatewaySession(GatewayTransport(Gateway(url, token, name)))
    try:
        await session.start([])
        result = await session.execute(LOOK, timeout=60, on_call=None)
    finally:
        await session.close()
    return result.final.value


@needs_deno
def test_the_command_prints_what_to_set_and_nothing_else_knows_the_token(tmp_path):
    """The lines are pasted into a shell as they stand; a run there is in WebAssembly."""
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlm_kernel.cli", "gateway", "--port", "0"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        url, token = (process.stdout.readline().strip() for _ in range(2))
        assert re.fullmatch(r"export RLM_GATEWAY_URL=http://127\.0\.0\.1:\d+", url)
        assert re.fullmatch(r"export RLM_GATEWAY_TOKEN=[\w-]{40,}", token)
        shell = f"{url}; {token}; {sys.executable} -m rlm_kernel.cli doctor --gateway"
        walked = subprocess.run(
            ["bash", "-c", shell], env=environment(), capture_output=True, text=True, check=False
        )
        assert walked.returncode == 0, walked.stdout + walked.stderr
        assert "rlm-pyodide, of rlm-pyodide" in walked.stdout
        secret = token.partition("=")[2]
        assert secret not in walked.stdout + walked.stderr
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                assert secret.encode() not in command.read_bytes()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
    assert secret not in (tmp_path / "log").read_text()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 5)


def test_kernels_are_given_no_key_and_others_are_not_there(monkeypatch):
    monkeypatch.setenv("MY_SECRET", KEY)
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    with LoopbackGateway(["python3"]) as gateway:
        # By a request without variables of its own, as other clients make them.
        asked = urllib.request.Request(
            f"{gateway.url}/api/kernels", b"{}", headers={"Authorization": f"token {gateway.token}"}
        )
        with urllib.request.urlopen(asked) as reply:
            assert reply.status == 201
        (kernel,) = [each for each in psutil.Process(gateway.pid).children(True) if "-f" in each.cmdline()]
        assert not {KEY, gateway.token} & set(kernel.environ().values())
        names, path = asyncio.run(look(gateway.url, gateway.token))
        assert "MY_SECRET" not in names
        assert not [name for name in names if name.startswith("KG_")]
        assert path
        health = asyncio.run(Gateway(gateway.url, gateway.token).health_check())
        assert (health.kernelspecs, health.default) == (("python3",), "python3")
        with pytest.raises(KernelStartError, match="refuses the token"):
            asyncio.run(Gateway(gateway.url, gateway.token[:-1]).health_check())
        folder = gateway._folder
    assert not Path(folder).exists()


def test_what_can_not_be_started_says_why(monkeypatch):
    with pytest.raises(InputError, match="no kernelspec 'julia'") as caught, LoopbackGateway(["julia"]):
        pass
    assert "rlm-pyodide" in caught.value.hint
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="can't listen"):
            LoopbackGateway(port=taken.getsockname()[1])
    monkeypatch.setattr(loopback.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed") as missing:
        LoopbackGateway()
    assert "rlm-kernel[gateway]" in missing.value.hint


def test_an_address_for_others_is_warned_of():
    assert loopback._warnings("127.0.0.1") == loopback._warnings("::1") == []
    assert "TLS" in loopback._warnings("0.0.0.0")[0]


# The benchmark ------------------------------------------------------------------------------------------


def test_the_benchmark_starts_one_and_counts(monkeypatch, capfd):
    monkeypatch.setattr(bench, "WARM_TIMES", 1)
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    assert main(["bench", "gateway", "--sessions", "2", "--runs", "1", "--json"]) == 0
    said = capfd.readouterr()
    whole = json.loads(said.out)
    (row,) = whole["levels"]
    assert (row["sessions"], row["runs"], row["errors"], row["first_error"]) == (2, 2, 0, "")
    assert row["runs_a_minute"] > 0
    assert 0 < row["gap_p50"] <= row["gap_p95"]
    assert row["start_p50"] > 0
    assert all(each > 0 for each in [*whole["warm"]["spare"], *whole["warm"]["cold"]])
    if sys.platform == "linux":
        assert row["memory"] > 10
    assert said.err.startswith("measuring: warm kernels\nmeasuring: 2 sessions\n")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="confining to a core is Linux's")
def test_gateways_have_a_core_each(monkeypatch, capfd):
    cores = []

    class Noted(LoopbackGateway):
        def __enter__(self):
            gateway = super().__enter__()
            cores.append(os.sched_getaffinity(self.pid))
            return gateway

    monkeypatch.setattr(bench, "LoopbackGateway", Noted)
    monkeypatch.setattr(bench, "WARM_TIMES", 1)
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    allowed = os.sched_getaffinity(0)
    most = min(2, len(allowed))
    command = ["bench", "gateway", "--gateways", f"{most}", "--sessions", "1", "--runs", "1", "--json"]
    assert main(command) == 0
    (row,) = json.loads(capfd.readouterr().out)["levels"]
    assert (row["gateways"], row["sessions"], row["errors"]) == (most, most, 0)
    assert cores == [{core} for core in sorted(allowed)[:most]]
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="confining to a core is Linux's")
def test_gateways_are_started_or_named(capsys):
    assert main(["bench", "gateway", "--gateways", "1", "--gateway", "http://127.0.0.1:9"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main(["bench", "gateway", "--gateways", "1,1000"]) == 2
    assert "--gateways is '1,1000'" in capsys.readouterr().err


async def test_what_fails_is_counted_and_told(scripted_server):
    target = Gateway("http://127.0.0.1:9", "canary")
    row = await bench.level([(target, None)], scripted_server.base_url, 2, runs=1)
    assert (row.errors, row.runs_a_minute, row.memory) == (2, 0.0, None)
    assert "127.0.0.1:9" in row.first_error


@pytest.mark.parametrize("text", ["", "0", "a", "1,,2", "1001"])
def test_numbers_of_sessions(text, capsys):
    assert main(["bench", "gateway", "--sessions", text]) == 2
    assert "--sessions" in capsys.readouterr().err


def test_gaps_leave_out_the_first_and_other_calls():
    events = []
    for number, (began, ended) in enumerate([(0, 1), (5, 6), (6.5, 7), (8, 9)]):
        call = {"run": "r", "call": str(number)}
        events += [
            CallStarted(**call, time=began, kind="root", turn=number, depth=0, model="m"),
            CallStarted(run="r", call=f"s{number}", time=began, kind="llm_query", turn=1, depth=1, model="m"),
            CallFinished(**call, time=ended),
        ]
    assert bench._gaps(events) == [500, 1000]


def test_the_table():
    row = Level(1, 4, 8, 51.7, 38.0, 209.0, 2852.0, None, 1, "why it failed")
    table = as_table([row], Warm((50.0, 60.0, 70.0), (1000.0,)), {"load": 0.5})
    assert "60 ms with a spare kernel (goal 200 ms), 1000 ms without." in table
    assert "| 1 | 4 | 8 | 51.7 | 38 | 209 | 2852 | - | 1 |" in table
    assert table.endswith("4 sessions: why it failed")


def test_a_gateway_ends_with_who_started_it_also_when_that_is_killed():
    code = """
import sys, time
from rlm_kernel.loopback import LoopbackGateway

with LoopbackGateway(["python3"]) as gateway:
    print(gateway.pid, flush=True)
    time.sleep(120)
"""
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with starter:
        gateway = psutil.Process(int(starter.stdout.readline()))
        starter.kill()
    _, alive = psutil.wait_procs([gateway], timeout=60)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
