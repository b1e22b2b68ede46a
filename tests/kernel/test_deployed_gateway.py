"""The gateway's configuration as manifests hand it out, in a real Kernel Gateway that runs go through."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from gateways import TOKEN, free_port, open_remote, python_of

from rlm_kernel import ScriptedModel
from rlm_kernel.errors import ConfigError, KernelStartError
from rlm_kernel.models.server import ScriptedServer
from rlm_kernel.repl.gateway.address import Gateway

ROOT = Path(__file__).parents[2]
sys.path.append(os.fspath(ROOT / "tests" / "unit"))
from manifests import of_kind, render, templates  # noqa: E402  where the manifests' other tests are

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="the deployments are for Linux"),
]


def deployed(overlay):
    """What a manifest tells the gateway: its configuration's file, and the variables of its container."""
    objects = render(overlay)
    (config,) = of_kind(objects, "ConfigMap")
    (text,) = config["data"].values()
    for _, _, _, spec in templates(objects):
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            if container["name"] == "gateway":
                return text, {each["name"]: each["value"] for each in container["env"]}
    raise AssertionError(f"no gateway in {overlay}")


@pytest.fixture
def spec(tmp_path, spec_folder):
    """A folder of data with the kernelspec `rlm-pyodide`, for the environment of another Python."""
    (given,) = spec_folder.glob("kernels/rlm-pyodide/kernel.json")
    target = tmp_path / "data" / "kernels" / "rlm-pyodide" / "kernel.json"
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps({**json.loads(given.read_text()), "env": {"PYTHONPATH": os.fspath(ROOT)}}))
    return target


@pytest.fixture
def certificate(tmp_path):
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=gateway",
    ]
    names = ["-addext", "subjectAltName=DNS:gateway,IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate


@asynccontextmanager
async def running(request, folder, overlay, kind="kernel-gateway", **more):
    """A gateway with an overlay's configuration; yields its URL and its log."""
    text, variables = deployed(overlay)
    config, token = folder / "gateway_config.py", folder / "token"
    config.write_text(text)
    token.write_text(TOKEN + "\n")
    port = free_port()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **variables,
        "RLM_GATEWAY_KERNELS": "rlm-pyodide",
        "RLM_GATEWAY_TOKEN_FILE": os.fspath(token),
        "KG_IP": "127.0.0.1",
        "KG_PORT": str(port),
        "PYTHONPATH": os.fspath(ROOT / "remote_kernel_gateway"),
        **{f"JUPYTER_{each}_DIR": os.fspath(folder / each.lower()) for each in ("RUNTIME", "DATA", "CONFIG")},
        **more,
    }
    python = await asyncio.to_thread(python_of, kind, request.config.cache)
    options = () if kind == "kernel-gateway" else ("--no-browser", "--allow-root", f"--port={port}")
    log = folder / "gateway.log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", kind.replace("-", "_"), f"--config={config}", *options),
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=out,
        )
    try:
        until = time.monotonic() + 120
        while True:
            assert process.returncode is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        scheme = "https" if environment.get("KG_CERTFILE") else "http"
        yield f"{scheme}://127.0.0.1:{port}", log
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_a_run_over_tls_as_the_overlay_remote_has_it(request, tmp_path, spec, certificate):
    tls = {"KG_CERTFILE": os.fspath(certificate), "KG_KEYFILE": os.fspath(certificate.with_suffix(".key"))}
    models = {"root": ScriptedModel(lambda request: "```repl\nFINAL(context.upper())\n```", name="root")}
    (tmp_path / "notes.txt").write_text("some text")
    async with running(request, tmp_path, "remote", **tls) as (url, log), ScriptedServer(models) as endpoint:
        assert url.startswith("https:")
        command = [sys.executable, "-m", "rlm_kernel.cli", "run", "--model", "root", "--no-save", "--json"]
        process = await asyncio.create_subprocess_exec(
            *(*command, "--repl", "gateway", "--gateway-url", url, "--context", "notes.txt", "What?"),
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.fspath(ROOT),
                "RLM_GATEWAY_TOKEN": TOKEN,
                "SSL_CERT_FILE": os.fspath(certificate),
                "OPENAI_BASE_URL": endpoint.base_url,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        assert process.returncode == 0, error
        assert json.loads(out)["answer"] == "SOME TEXT"
        text = log.read_text()
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert {each["kernel_name"] for each in events if each["event"] == "execute"} == {"rlm-pyodide"}
    assert TOKEN not in text


@pytest.mark.parametrize("kind", ["kernel-gateway", "jupyter-server"])
async def test_what_the_configuration_refuses(request, tmp_path, spec, kind):
    async with running(request, tmp_path, "sidecar", kind) as (url, _):
        health = await Gateway(url, TOKEN).health_check()
        # The gateway's own Python has a kernelspec too, and is not offered.
        assert (health.kernelspecs, health.default) == (("rlm-pyodide",), "rlm-pyodide")
        with pytest.raises(KernelStartError, match="token"):
            await Gateway(url, "canary-of-somebody-else").health_check()
        with pytest.raises(ConfigError, match="python3"):
            await Gateway(url, TOKEN, "python3").health_check()
        async with open_remote(url) as repl:
            assert await repl.value("1 + 1") == "2"


async def test_the_token_is_in_no_kernels_environment(request, tmp_path):
    given = {"RLM_GATEWAY_KERNELS": "python3", "RLM_GATEWAY_TOKEN_FILE": "", "JUPYTER_TOKEN": TOKEN}
    async with running(request, tmp_path, "remote-native", **given, KG_CERTFILE="", KG_KEYFILE="") as (
        url,
        _,
    ):
        # Started without variables of its own, a kernel has the server's.
        asked = urllib.request.Request(
            f"{url}/api/kernels", data=b'{"name": "python3"}', headers={"Authorization": f"token {TOKEN}"}
        )
        with await asyncio.to_thread(urllib.request.urlopen, asked) as reply:
            assert reply.status == 201
        (kernel,) = (
            each
            for each in psutil.Process().children(recursive=True)
            if "ipykernel_launcher" in each.cmdline() and os.fspath(tmp_path) in " ".join(each.cmdline())
        )
        inherited = kernel.environ()
        assert inherited["PATH"]
        assert TOKEN not in inherited.values()


@pytest.fixture
def tenant(tmp_path):
    """A file of tenants with one in it, and their token."""
    file = tmp_path / "tenants.json"
    command = [sys.executable, "-m", "rlm_gateway", "add", "team-a", "--file", file]
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT / "remote_kernel_gateway")}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return file, made.stdout.strip()


async def test_tenants_where_their_file_is_there(request, tmp_path, spec, tenant):
    file, token = tenant
    given = {"RLM_GATEWAY_TENANTS_FILE": os.fspath(file)}
    async with running(request, tmp_path, "sidecar", **given) as (url, _):
        assert (await Gateway(url, token).health_check()).default == "rlm-pyodide"
        with pytest.raises(KernelStartError):
            await Gateway(url, TOKEN).health_check()


@pytest.mark.parametrize(
    ("lacks", "complaint"),
    [("RLM_GATEWAY_TOKEN_FILE", "no token"), ("RLM_GATEWAY_KERNELS", "no kernels")],
)
async def test_it_does_not_start_open(request, tmp_path, lacks, complaint):
    with pytest.raises(AssertionError, match=complaint):
        async with running(request, tmp_path, "sidecar", **{lacks: ""}):
            pass
