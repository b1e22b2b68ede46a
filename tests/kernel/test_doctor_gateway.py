"""``jupyter rlm doctor --gateway``: each step of the way, failing for its own reason, and the whole way."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from gateways import TOKEN, Server, free_port, python_of
from wasm import needs_deno

from rlm_kernel.cli import main
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.walk import walk

# Making the environments takes its time, once.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="the gateways' processes are ended as groups"),
]
ROOT = Path(__file__).parents[2]
DEAD = {"argv": [sys.executable, "-c", "", "{connection_file}"], "display_name": "dies", "language": "python"}


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    """A gateway with a kernelspec, `dies`, whose kernel ends at once."""
    folder = tmp_path_factory.mktemp("gateway")
    spec = folder / "data" / "kernels" / "dies" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(DEAD))
    server = Server("kernel-gateway", python_of("kernel-gateway", request.config.cache), folder).start()
    yield server
    server.stop()


async def steps_to(url, token=TOKEN, name="", **options):
    return [step async for step in walk(Gateway(url, token, name, **options))]


def names(steps):
    return [step.name for step in steps]


async def failing(*args, **options):
    """The last step, which is the one and only that failed."""
    steps = await steps_to(*args, **options)
    assert [step.ok for step in steps] == [True] * (len(steps) - 1) + [False]
    assert steps[-1].hint
    assert not any(TOKEN in step.text + step.hint for step in steps)
    return steps[-1]


async def test_a_name_that_nobody_knows():
    step = await failing("https://gateway.invalid")
    assert step.name == "name"
    assert "gateway.invalid has no address" in step.text


async def test_a_port_where_nobody_listens():
    port = free_port()
    step = await failing(f"http://127.0.0.1:{port}")
    assert step.name == "tcp"
    assert f"127.0.0.1 port {port}: " in step.text


@pytest.fixture
def certificate(tmp_path):
    """A certificate that nobody vouches for, and its key."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=here")
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


async def test_a_certificate_that_nobody_vouches_for(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def serve(reader, writer):
        writer.close()

    # The client breaks off, and the server's side of the handshake has nobody to tell.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        step = await failing(f"https://127.0.0.1:{port}")
    assert step.name == "tls"
    assert "not trusted: self-signed certificate" in step.text
    assert "SSL_CERT_FILE" in step.hint


async def test_https_where_plain_http_is_spoken():
    async def serve(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        step = await failing(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    assert step.name == "tls"
    assert "plain http" in step.hint


@pytest.mark.parametrize("token", ["", "canary-wrong-gateway-token"])
async def test_a_wrong_token(server, token):
    step = await failing(server.url, token)
    assert step.name == "token"
    assert "RLM_GATEWAY_TOKEN" in step.hint
    assert "canary-wrong" not in step.text


async def test_something_else_that_answers(scripted_server):
    step = await failing(scripted_server.base_url)
    assert step.name == "gateway"


async def test_a_kernelspec_that_is_not_there(server):
    step = await failing(server.url, name="julia")
    assert step.name == "kernelspec"
    assert "dies" in step.text
    assert "python3" in step.text


async def test_a_kernel_that_ends_at_once(server):
    step = await failing(server.url, name="dies")
    assert step.name == "start"
    assert "log" in step.hint


async def test_a_kernel_with_a_network(server):
    steps = await steps_to(server.url, name="python3")
    assert names(steps) == ["name", "tcp", "token", "kernelspec", "start", "first cell", "egress"]
    assert [step.ok for step in steps] == [True] * 6 + [False]
    assert "the gateway's own machine" in steps[-1].text
    assert "rlm-pyodide" in steps[-1].hint
    assert server.kernels() == []


@needs_deno
async def test_a_kernel_without_a_network(request, tmp_path, spec_folder):
    (given,) = spec_folder.glob("kernels/rlm-pyodide/kernel.json")
    spec = tmp_path / "data" / "kernels" / "rlm-pyodide" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({**json.loads(given.read_text()), "env": {"PYTHONPATH": os.fspath(ROOT)}}))
    server = Server("kernel-gateway", python_of("kernel-gateway", request.config.cache), tmp_path).start()
    try:
        steps = await steps_to(server.url, name="rlm-pyodide")
    finally:
        server.stop()
    assert names(steps)[-1] == "egress"
    assert all(step.ok for step in steps), steps[-1]


def test_a_gateway_without_a_token_is_told_of(request, tmp_path):
    python = python_of("kernel-gateway", request.config.cache)
    server = Server("kernel-gateway", python, tmp_path)
    server._command = [part for part in server._command if TOKEN not in part]
    server.start()
    try:
        for token in (TOKEN, ""):
            *_, step, _ = asyncio.run(steps_to(server.url, token, name="missing"))
            assert (step.name, step.ok) == ("token", True)
            assert "whoever reaches" in step.hint
    finally:
        server.stop()


def test_the_command_names_the_step_and_fails(server, monkeypatch, capsys):
    monkeypatch.setenv("RLM_GATEWAY_URL", server.url)
    monkeypatch.setenv("RLM_GATEWAY_TOKEN", TOKEN)
    assert main(["doctor", "--gateway", "--kernel-name", "dies"]) == 1
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines() if line[:5].strip()] == [
        *("ok    name", "ok    tcp", "ok    token", "ok    kernelspec"),
        "fail  start",
    ]
    assert TOKEN not in out


def test_an_address_that_is_not_to_be_used(monkeypatch, capsys):
    monkeypatch.setenv("RLM_GATEWAY_TOKEN", TOKEN)
    assert main(["doctor", "--gateway", "http://gateway.invalid"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("fail  address: plain http to gateway.invalid")
    assert main(["doctor", "--gateway", "http://gateway.invalid", "--gateway-insecure"]) == 1
    assert capsys.readouterr().out.startswith("fail  name: gateway.invalid has no address")
