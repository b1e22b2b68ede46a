"""rlm-minimal's remote and WASM names: its examples run on a gateway and in a sandbox, and nowhere else."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from compat_endpoint import KEY, served, turns
from gateways import TOKEN, Line, Server, free_port, python_of, until
from kernels import Repl
from wasm import needs_deno

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.compat import rlm_minimal
from rlm_kernel.compat.rlm_minimal.local import RLM_REPL
from rlm_kernel.compat.rlm_minimal.remote import RemoteExecutionConfig, RemoteREPLEnv, RemoteREPLFactory
from rlm_kernel.compat.rlm_minimal.wasm import WASMREPLEnv, WASMREPLExecutor, WASMResult
from rlm_kernel.errors import ConfigError, ContextError
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.session import GatewaySession
from rlm_kernel.repl.gateway.transport import GatewayTransport

# Making the environments takes its time, once.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="the gateways' processes are ended as groups"),
]
ROOT = Path(__file__).parents[2]
WHERE = "import sys\nFINAL(sys.platform)"


@pytest.fixture(scope="module")
def server(request, tmp_path_factory, spec_folder):
    """A gateway with WebAssembly kernels."""
    folder = tmp_path_factory.mktemp("gateway")
    (given,) = spec_folder.glob("kernels/rlm-pyodide/kernel.json")
    spec = folder / "data" / "kernels" / "rlm-pyodide" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({**json.loads(given.read_text()), "env": {"PYTHONPATH": os.fspath(ROOT)}}))
    server = Server("kernel-gateway", python_of("kernel-gateway", request.config.cache), folder).start()
    yield server
    server.stop()


@pytest.fixture
def old_service():
    """What rlm-minimal's service answers, as far as one asks for it without executing code."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            found = self.path in ("/health", "/ready")
            body = json.dumps({"status": "healthy"} if found else {"error": "Not found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        http.url, http.asked = f"http://127.0.0.1:{http.server_port}", asked
        yield http
        http.shutdown()
        thread.join()


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setenv("RLM_GATEWAY_TOKEN", TOKEN)
    monkeypatch.setenv("LLM_API_KEY", KEY)
    return monkeypatch


# On a gateway -------------------------------------------------------------------------------------------


@needs_deno
@pytest.mark.parametrize("given", ["factory", "variable"])
def test_the_remote_example_runs_there(server, settings, given):
    with served({"gpt-5": turns(WHERE)}) as endpoint:
        settings.setenv("LLM_BASE_URL", endpoint.base_url)
        if given == "factory":
            factory = RemoteREPLFactory(wasm_service_url=server.url)
            assert factory.health_check() is True
            assert factory.readiness_check() is True
            rlm = RLM_REPL(model="gpt-5", repl_factory=factory)
        else:
            settings.setenv("WASM_SERVICE_URL", server.url)
            rlm = RLM_REPL(model="gpt-5")
        assert rlm.completion("a context", "Where are you?") == "emscripten"
        rlm.close()
    assert server.kernels() == []


@needs_deno
def test_the_variable_is_the_gateway_of_the_package_too(server, settings):
    settings.setenv("WASM_SERVICE_URL", server.url)
    root = ScriptedModel([f"```repl\n{WHERE}\n```"], name="root")
    with RLM(root, ScriptedModel(["x"], name="sub"), repl="gateway", spare_kernels=0) as rlm:
        assert rlm.completion("Where?", "x").text == "emscripten"


@needs_deno
def test_an_environment_there(server, settings):
    with served({"gpt-5-mini": lambda request: f"to {request.messages[0]['content']}"}) as endpoint:
        settings.setenv("LLM_BASE_URL", endpoint.base_url)
        config = RemoteExecutionConfig(server.url, timeout=2)
        env = RemoteREPLEnv(config=config, context_json={"a": [1, 2]}, setup_code="start = 10")
        result = env.code_execution("print(start + sum(context['a']), llm_query('hi'))")
        assert (result.stdout, result.stderr, result.locals) == ("13 to hi\n", "", {"start": 10})
        assert "interrupted after 2 seconds" in env.code_execution("while True: pass").stderr
        env.cleanup()
        made = RemoteREPLFactory(server.url).create(context_str="abc", max_depth=1)
        assert made.code_execution("print(context)").stdout == "abc\n"
        made.cleanup()
    assert server.kernels() == []


def test_nobody_there(settings):
    assert RemoteREPLFactory(f"http://127.0.0.1:{free_port()}").health_check() is False
    with pytest.raises(ConfigError, match="no gateway is named"):
        RemoteREPLFactory()
    with pytest.raises(ConfigError, match="plain http"):
        RemoteREPLFactory("http://wasm-repl-service:8000")
    with pytest.raises(ConfigError, match="verify_ssl"):
        RemoteExecutionConfig("https://gateway.example", verify_ssl=False)


def test_a_gateway_that_refuses_or_has_no_such_kernel(server, settings):
    settings.setenv("RLM_KERNEL_NAME", "julia")
    with pytest.raises(ConfigError, match="no kernelspec named 'julia'"):
        RemoteREPLFactory(server.url).health_check()
    settings.setenv("RLM_GATEWAY_TOKEN", "canary-wrong-token")
    with pytest.raises(ConfigError, match="refuses the token"):
        RemoteREPLFactory(server.url).health_check()


def test_an_old_service_is_refused_with_what_to_start(old_service, settings):
    factory = RemoteREPLFactory(old_service.url)
    for ask in (factory.health_check, lambda: RemoteREPLEnv(old_service.url)):
        with pytest.raises(ConfigError, match="WASM service of rlm-minimal") as caught:
            ask()
        assert "jupyter rlm gateway --kernel rlm-pyodide" in caught.value.hint
    settings.setenv("WASM_SERVICE_URL", old_service.url)
    with served({"gpt-5": turns(WHERE)}) as endpoint:
        settings.setenv("LLM_BASE_URL", endpoint.base_url)
        rlm = RLM_REPL(model="gpt-5")
        with pytest.raises(ConfigError, match="WASM service of rlm-minimal"):
            rlm.completion("x", "Where?")
        rlm.close()
        assert endpoint.requests == []
    # Whoever it is, it is not told the token when asked for its health.
    assert {key for path, key in old_service.asked if path == "/health"} == {None}


# In a sandbox of this machine ---------------------------------------------------------------------------


@needs_deno
async def test_the_executor_of_the_examples():
    executor = WASMREPLExecutor(timeout=5)
    await executor.initialize()
    result = await executor.execute_code("print('Hello World')\nx = 42\ny = x + n\n", {"n": 1})
    assert isinstance(result, WASMResult)
    assert (result.success, result.stdout, result.stderr, result.error) == (True, "Hello World\n", "", None)
    assert result.locals == {"x": 42, "y": 43}
    assert result.execution_time > 0
    again = await executor.execute_code("import sys\nprint(x, sys.platform)")
    assert again.stdout == "42 emscripten\n"
    failed = await executor.execute_code("1 / 0")
    assert (failed.success, failed.error) == (False, "ZeroDivisionError: division by zero")
    assert "model" in (await executor.execute_code("llm_query('x')")).error
    with pytest.raises(ContextError):
        await executor.execute_code("pass", {"function": print})
    await executor.cleanup()
    await executor.cleanup()


@needs_deno
async def test_a_cell_without_an_end_and_one_that_ends_the_sandbox():
    env = WASMREPLEnv(timeout=1)
    await env.initialize()
    result = await env.code_execution("x = 1\nwhile True: pass")
    assert not result.success
    assert "timed out after 1 seconds" in result.error
    gone = await env.code_execution("import os\nos._exit(1)")
    assert not gone.success
    assert (await env.code_execution("print('x' in globals())")).stdout == "False\n"
    await env.cleanup()


def test_without_webassembly_code_does_not_run(monkeypatch):
    from rlm_kernel.repl.pyodide import transport

    def missing():
        raise ConfigError("there is no Deno", hint="install it")

    monkeypatch.setattr(transport, "make_ready", missing)
    with pytest.raises(ConfigError, match="no Deno"):
        WASMREPLExecutor()._start()


def test_all_names_are_at_the_top():
    for name in ("RemoteREPLEnv", "RemoteREPLFactory", "RemoteExecutionConfig", "WASMREPLExecutor"):
        assert name in rlm_minimal.__all__


# What the WebAssembly kernel owes to a host behind a gateway ---------------------------------------------


@needs_deno
async def test_a_sandbox_whose_host_is_gone_goes_away_and_large_answers_arrive(server):
    class Large(Repl):
        @staticmethod
        def reply(prompt):
            return "ü" * 5_000_000 if prompt == "large" else "small"

    async with Line(server.port) as line:
        url = f"http://127.0.0.1:{line.port}"
        session = GatewaySession(GatewayTransport(Gateway(url, TOKEN, "rlm-pyodide")), lease=4.0)
        try:
            await session.start([])
            repl = Large(session)
            assert (
                await repl.value("[len(each) for each in llm_query_batched(['large', 'x'])]")
                == "[5000000, 5]"
            )
            assert await repl.value("len(await allm_query('large')), llm_query('x')") == "(5000000, 'small')"
            # Longer than the lease, and the kernel hears of us all the time.
            assert await repl.value("import time\ntime.sleep(6)\n7") == "7"
            (kernel,) = server.kernels()
            line.cut()
            await until(lambda: kernel not in server.kernels())
        finally:
            line.heal()
            await session.close()


def test_a_token_is_not_sent_to_another_service(monkeypatch):
    monkeypatch.setenv("RLM_GATEWAY_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RLM_GATEWAY_TOKEN", "canary-of-a-gateway")
    with pytest.raises(ConfigError, match=r"is for http://127\.0\.0\.1:9, and is not sent to") as caught:
        RemoteREPLFactory("http://127.0.0.1:10")
    assert "canary" not in f"{caught.value} {caught.value.hint}"
    assert RemoteREPLFactory("http://127.0.0.1:9")._gateway.token == "canary-of-a-gateway"
