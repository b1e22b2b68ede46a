"""The repl `gateway` against real gateways: what works, and how each failure ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from gateways import TOKEN, Line, Server, offer_pyodide, open_remote, python_of, until
from kernels import Repl

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.context import Context
from rlm_kernel.errors import ConfigError, KernelStartError
from rlm_kernel.models.server import Fault, ScriptedServer
from rlm_kernel.repl.gateway import transport
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.session import GatewaySession
from rlm_kernel.repl.gateway.transport import GatewayTransport

# Making the environments takes its time, once.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="the gateways' processes are ended as groups"),
]
ROOT = Path(__file__).parents[2]
KINDS = ("kernel-gateway", "jupyter-server", "enterprise-gateway")


def block(code):
    return f"```repl\n{code}\n```"


@pytest.fixture(scope="session")
def servers(request, tmp_path_factory):
    """Gateways by kind, each started when it is first asked for."""
    started = {}

    def server(kind):
        if kind not in started:
            python = python_of(kind, request.config.cache)
            started[kind] = Server(kind, python, tmp_path_factory.mktemp(kind)).start()
        return started[kind]

    yield server
    for each in started.values():
        each.stop()


@pytest.fixture(params=KINDS)
def any_server(request, servers):
    return servers(request.param)


@pytest.fixture
def server(servers):
    return servers("kernel-gateway")


@pytest.fixture
def own_server(request, tmp_path):
    """A gateway that a test may do away with."""
    server = Server("kernel-gateway", python_of("kernel-gateway", request.config.cache), tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
async def line(server):
    async with Line(server.port) as line:
        yield line


@pytest.fixture(params=["python3", "rlm-pyodide"])
def kernel(request, server):
    """The name of a kernelspec of `server`."""
    if request.param == "rlm-pyodide":
        offer_pyodide(server, request.getfixturevalue("spec_folder"))
    return request.param


@pytest.fixture(params=["python3", "rlm-pyodide"])
def any_kernel(request, any_server):
    """The name of a kernelspec of `any_server`."""
    if request.param == "rlm-pyodide":
        offer_pyodide(any_server, request.getfixturevalue("spec_folder"))
    return request.param


@asynccontextmanager
async def playing(url, *replies, sub=lambda request: "reply", fault=None, **options):
    """An RLM over ``url`` whose models are behind a real endpoint; yields it and the endpoint."""
    said = iter(replies)
    models = {
        "root": ScriptedModel(lambda request: next(said), name="root"),
        "sub": ScriptedModel(sub, name="sub"),
    }
    async with ScriptedServer(models, fault=fault) as endpoint:
        options = {"repl": "gateway", "gateway_token": TOKEN, "spare_kernels": 0, **options}
        async with RLM("root", "sub", base_url=endpoint.base_url, gateway_url=url, **options) as rlm:
            yield rlm, endpoint


def asked(endpoint, model="sub"):
    """How often a model was asked, by the endpoint's own account."""
    return sum(each.model == model for each in endpoint.requests)


# What works -----------------------------------------------------------------------------------------


async def test_a_run_on_any_gateway(any_server, any_kernel):
    replies = [
        block("words = context.split()\nfirst = llm_query('q ' + words[0])"),
        block(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(4) as pool: threads = list(pool.map(llm_query, 'abcd'))\n"
            "tasks = await __import__('asyncio').gather(*map(allm_query, 'ef'))\n"
            "batch = llm_query_batched(['g'] * 5)"
        ),
        block("FINAL([len(words), first, threads, tasks, batch])"),
    ]
    async with playing(any_server.url, *replies, kernel_name=any_kernel) as (rlm, endpoint):
        answer = await rlm.acompletion("What?", "wörter " * 100)
        assert answer.value == [100, "reply", ["reply"] * 4, ["reply"] * 2, ["reply"] * 5]
        assert answer.total_calls == len(endpoint.requests) == 3 + 12
    assert any_server.kernels() == []


@pytest.mark.parametrize("v1", [True, False], ids=["v1", "json"])
async def test_both_forms_of_frames(any_server, v1):
    contexts = [
        ("context", "ünïcode " * 700_000),
        ("rows", [{"a": i} for i in range(1000)]),
        ("raw", b"\0\xff" * 9),
    ]
    async with open_remote(any_server.url, *contexts, v1=v1) as repl:
        assert repl.session._link._connection.v1 == v1
        there = await repl.value("len(context), rows[999], raw == b'\\0\\xff' * 9")
        assert there == "(5600000, {'a': 999}, True)"
        assert await repl.value("rlm_query('q', 'z' * 9_000_000)[1] == repr('z' * 9_000_000)") == "True"
        result = await repl.run("llm_query('q'); 1/0")
        assert result.outputs[-1].name == "ZeroDivisionError"


async def test_a_large_context_arrives_in_pieces(server, line):
    text = "0123456789abcde\n" * (50 * 2**20 // 16)
    url = f"http://127.0.0.1:{line.port}"
    async with open_remote(url, ("context", text)) as repl:
        there = await repl.value("len(context), context[:15], context[-15:]")
        assert there == str((len(text), text[:15], text[-15:]))
        assert line.bytes_up > 50 * 2**20
        # Nothing stays behind over there.
        folder = "get_ipython().kernel.control_handlers['rlm_put'].__self__._folder"
        assert await repl.value(f"import os\nos.listdir({folder})") == "[]"


async def test_answers_larger_than_a_message_may_be(server):
    async with open_remote(server.url) as repl:
        repl.reply = lambda prompt: prompt[-1] * 3_000_000
        code = "r = llm_query_batched(list('abcdef'))\nr == [each * 3_000_000 for each in 'abcdef']"
        assert await repl.value(code) == "True"
        code = (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(6) as pool: r = list(pool.map(llm_query, 'abcdef'))\n"
            "r == [each * 3_000_000 for each in 'abcdef']"
        )
        assert await repl.value(code) == "True"
        result = await repl.run("llm_query_batched(['x' * 30_000_000] * 4)")
        assert "too large" in result.outputs[-1].text


async def test_from_the_command_line(server, tmp_path):
    (tmp_path / "notes.txt").write_text("some text")
    models = {"root": ScriptedModel(lambda request: block("FINAL(context)"), name="root")}
    async with ScriptedServer(models) as endpoint:
        command = [sys.executable, "-m", "rlm_kernel.cli", "run", "--model", "root", "--no-save", "--json"]
        options = ["--repl", "gateway", "--gateway-url", server.url, "--kernel-name", "python3"]
        process = await asyncio.create_subprocess_exec(
            *(*command, *options, "--context", "notes.txt", "What?"),
            cwd=tmp_path,
            env={**os.environ, "JUPYTER_GATEWAY_AUTH_TOKEN": TOKEN, "OPENAI_BASE_URL": endpoint.base_url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
    assert process.returncode == 0, error
    assert json.loads(out)["answer"] == "some text"
    assert TOKEN.encode() not in out + error


async def test_the_webassembly_kernel_over_a_gateway(server, line, spec_folder):
    offer_pyodide(server, spec_folder)
    text = "ünï" * 3_000_000
    url = f"http://127.0.0.1:{line.port}"
    async with open_remote(url, ("context", text), name="rlm-pyodide") as repl:
        assert await repl.value("len(context), llm_query('q')") == "(9000000, 'reply to q')"
        result = await repl.run("while True: pass", timeout=1)
        assert (result.status, result.lost) == ("timed_out", "")
        assert await repl.value("context[:3], llm_query_batched(['a', 'b'])[1]") == "('ünï', 'reply to b')"


async def test_runs_at_once(any_server):
    def answer(request):
        turn = sum(message["role"] == "assistant" for message in request.messages)
        return block("found = llm_query('say ' + context)") if turn == 0 else block("FINAL(found)")

    models = {
        "root": ScriptedModel(answer, name="root"),
        "sub": ScriptedModel(
            lambda request: request.messages[-1]["content"].removeprefix("say "), name="sub"
        ),
    }
    async with (
        ScriptedServer(models) as endpoint,
        RLM(
            *("root", "sub"),
            base_url=endpoint.base_url,
            repl="gateway",
            gateway_url=any_server.url,
            gateway_token=TOKEN,
            spare_kernels=0,
        ) as rlm,
    ):
        answers = await rlm.abatch([{"query": "What?", "context": f"text {n}"} for n in range(3)])
        assert [each.text for each in answers] == ["text 0", "text 1", "text 2"]
        assert len(endpoint.requests) == 9


async def test_spare_kernels_are_handed_out_and_given_back(server):
    async with playing(server.url, *[block("FINAL(1)")] * 3, spare_kernels=1) as (rlm, _):
        for _ in range(2):
            assert await rlm.acompletion("What?", "text")
        (pool,) = rlm._backend._pools
        await until(lambda: len(pool))
        assert await rlm.acompletion("What?", "text")
    assert server.kernels() == []


# The kernel ------------------------------------------------------------------------------------------


async def survive(server, code, kernel="python3"):
    """Execute ``code`` between two ordinary cells; return what the model is told of it."""
    replies = [block("kept = 1\nllm_query('a')"), block(code), block("FINAL([context, 'kept' in globals()])")]
    options = {"cell_timeout": 2, "kernel_name": kernel}
    async with playing(server.url, *replies, **options) as (rlm, endpoint):
        answer = await asyncio.wait_for(rlm.acompletion("What?", "text"), 60)
        assert answer.value == ["text", False]
        assert len(endpoint.requests) == 4
    assert server.kernels() == []
    return answer.messages[-2]["content"]


async def test_a_loop_that_ends_takes_its_kernels_along(server):
    """Its tasks are cancelled, those that end kernels as well."""

    async def run():
        root = ScriptedModel(["```repl\nprint(1)\nimport time\ntime.sleep(60)\n```"], name="root")
        rlm = RLM(root, repl="gateway", gateway_url=server.url, gateway_token=TOKEN)
        printed = asyncio.Event()
        readers = [lambda e: e.type == "cell_output" and printed.set()]
        asking = asyncio.create_task(rlm.acompletion("What?", "text", readers=readers))
        await printed.wait()
        # Its own, and a spare one that may have started by now.
        assert server.kernels()
        asking.cancel()
        await asyncio.wait([asking])

    await asyncio.to_thread(lambda: asyncio.run(run()))
    assert server.kernels() == []


async def test_a_kernel_that_dies_is_replaced(any_server):
    told = await survive(any_server, "import os; os._exit(3)")
    assert "the gateway has started another one" in told


async def test_a_kernel_that_no_interrupt_stops_is_replaced(server):
    code = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)"
    assert "did not react" in await survive(server, code)


async def test_a_cell_past_its_time_is_interrupted(any_server, any_kernel):
    async with open_remote(any_server.url, name=any_kernel) as repl:
        await repl.run("kept = 1")
        for code in ("while True: pass", "llm_query('q')", "await allm_query('q')"):
            repl.delay = 60
            result = await repl.run(code, timeout=0.5)
            assert (result.status, result.lost) == ("timed_out", "")
        repl.delay = 0
        assert await repl.value("kept, llm_query('next')") == "(1, 'reply to next')"


async def test_what_gets_lost_while_a_kernel_starts_is_sent_again(server, monkeypatch):
    class Losing(GatewayTransport):
        lost = 0

        def send(self, channel, type_, content, **options):
            if type_ == "execute_request" and not self.lost:
                self.lost, self.last_request = 1, content
                return "of nothing"
            return super().send(channel, type_, content, **options)

    monkeypatch.setattr("rlm_kernel.repl.gateway.session.AGAIN_SECONDS", 1.0)
    link = Losing(Gateway(server.url, TOKEN))
    session = GatewaySession(link)
    try:
        await session.start([Context.of("context", "text")])
        assert link.lost == 1
        assert await Repl(session).value("context") == "'text'"
    finally:
        await session.close()


async def test_a_kernel_ended_by_somebody_else(server, monkeypatch):
    monkeypatch.setattr("rlm_kernel.repl.gateway.session.COMPARE_SECONDS", 0.5)
    async with open_remote(server.url) as repl:
        cell = asyncio.create_task(repl.run("llm_query('q')\nimport time\ntime.sleep(60)"))
        await repl.called.wait()
        link = repl.session._link
        await link._rest.delete(link._kernel)
        result = await asyncio.wait_for(cell, 30)
        assert (result.status, repl.session.alive) == ("died", False)
        assert "the gateway has it no longer" in result.lost


FLOODS = {
    "prints": "for i in range(200_000): print(i)",
    "flushed": "import sys\nfor i in range(5000): print(i, file=sys.__stdout__, flush=True)",
    "subprocess": "!yes | head -c 3000000",
    "displays": "from IPython.display import display\nfor i in range(5000): display(i)",
    "past the guest": (
        "k = get_ipython().kernel\n"
        "for i in range(6000): k.session.send(k.iopub_socket, 'stream', "
        "{'name': 'stdout', 'text': 'x' * 1000}, parent=k.get_parent('shell'))"
    ),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood(server, name):
    async with open_remote(server.url) as repl:
        result = await repl.run(FLOODS[name] + "\nFINAL('after it')")
        assert result.status == "ok"
        assert result.final.text == "after it"
        assert sum(len(each.text) for each in result.outputs) < 200_000
        # Requests of threads leave on the channel that is limited.
        code = "import asyncio\nawait asyncio.gather(*[allm_query(str(i)) for i in range(50)]) == "
        assert await repl.value(code + "[f'reply to {i}' for i in range(50)]") == "True"
        assert len(repl.calls) == 50


async def test_requests_that_the_limit_dropped_are_sent_again(server):
    async with open_remote(server.url) as repl:
        code = (
            "import threading\n"
            "def flood():\n"
            "    k = get_ipython().kernel\n"
            "    for i in range(6000): k.session.send(k.iopub_thread.background_socket, 'display_data', "
            "{'data': {}, 'metadata': {}}, parent=k.get_parent('shell'))\n"
            "flood()\n"
            "FINAL(await allm_query('after the flood'))"
        )
        assert (await repl.run(code)).final.text == "reply to after the flood"
        assert len(repl.calls) == 1


# The connection --------------------------------------------------------------------------------------


async def broken(line, seconds=0.3, *, far=True):
    """Break the connection for a while."""
    line.cut(far=far)
    await asyncio.sleep(seconds)
    line.heal()


@pytest.mark.parametrize("far", [True, False], ids=["both ends know", "the gateway does not know"])
@pytest.mark.parametrize("way", ["llm_query('q')", "await allm_query('q')"], ids=["stdin", "control"])
async def test_a_break_while_a_call_is_answered(server, line, way, far):
    async with open_remote(f"http://127.0.0.1:{line.port}") as repl:
        repl.delay = 1.0
        cell = asyncio.create_task(repl.run(way))
        await repl.called.wait()
        await broken(line, far=far)
        result = await asyncio.wait_for(cell, 30)
        assert (result.status, result.outputs[-1].text) == ("ok", "'reply to q'")
        assert any("connection to the kernel was lost" in output.text for output in result.outputs)
        assert len(repl.calls) == 1
        assert await repl.value("llm_query('next')") == "'reply to next'"


@pytest.mark.parametrize("way", ["llm_query('q')", "await allm_query('q')"], ids=["stdin", "control"])
async def test_an_answer_that_is_lost_is_given_again(server, kernel, line, way):
    async with open_remote(f"http://127.0.0.1:{line.port}", name=kernel) as repl:
        repl.delay = 0.5
        cell = asyncio.create_task(repl.run(way))
        await repl.called.wait()
        line.swallows = True
        await until(lambda: not repl.in_flight)
        await asyncio.sleep(0.1)
        await broken(line)
        result = await asyncio.wait_for(cell, 30)
        assert (result.status, result.outputs[-1].text) == ("ok", "'reply to q'")
        assert len(repl.calls) == 1


@pytest.mark.parametrize("way", ["llm_query('q')", "await allm_query('q')"], ids=["stdin", "control"])
async def test_a_request_that_is_lost_is_made_again(server, kernel, line, way):
    async with open_remote(f"http://127.0.0.1:{line.port}", name=kernel) as repl:
        cell = asyncio.create_task(repl.run(f"import time\ntime.sleep(0.5)\n{way}"))
        await asyncio.sleep(0.2)
        line.swallows = True
        await asyncio.sleep(1.0)
        assert not repl.calls
        await broken(line)
        result = await asyncio.wait_for(cell, 30)
        assert (result.status, result.outputs[-1].text) == ("ok", "'reply to q'")
        assert len(repl.calls) == 1


@pytest.mark.parametrize("code", ["done += 1\nFINAL(done)", "done += 1\n1/0"], ids=["answer", "error"])
async def test_the_end_of_a_cell_that_is_lost_is_told_again(server, kernel, line, code):
    async with open_remote(f"http://127.0.0.1:{line.port}", name=kernel) as repl:
        await repl.run("done = 0")
        cell = asyncio.create_task(repl.run(f"import time\ntime.sleep(0.5)\n{code}"))
        await asyncio.sleep(0.2)
        line.swallows = True
        await asyncio.sleep(1.0)
        await broken(line)
        result = await asyncio.wait_for(cell, 30)
        if "FINAL" in code:
            assert (result.status, result.final.value) == ("ok", 1)
        else:
            assert result.status == "error"
        assert "done" in result.variables
        assert await repl.value("done") == "1"


async def test_a_cell_that_is_lost_on_its_way_is_sent_again_and_runs_once(server, kernel, line):
    async with open_remote(f"http://127.0.0.1:{line.port}", name=kernel) as repl:
        await repl.run("done = 0")
        line.swallows = True
        cell = asyncio.create_task(repl.run("done += 1\ndone"))
        await asyncio.sleep(0.3)
        await broken(line)
        result = await asyncio.wait_for(cell, 30)
        assert (result.status, result.outputs[-1].text) == ("ok", "1")


async def test_a_cell_that_is_asked_for_during_a_break(server, line):
    async with open_remote(f"http://127.0.0.1:{line.port}") as repl:
        await repl.run("done = 0")
        line.cut()
        await asyncio.sleep(0.2)
        cell = asyncio.create_task(repl.run("done += 1\ndone"))
        await asyncio.sleep(0.2)
        line.heal()
        result = await asyncio.wait_for(cell, 30)
        assert (result.status, result.outputs[-1].text) == ("ok", "1")
        assert await repl.value("done") == "1"


async def test_a_break_while_a_context_is_under_way(server, kernel, line):
    text = os.urandom(15 * 2**20).hex()
    async with open_remote(f"http://127.0.0.1:{line.port}", name=kernel) as repl:
        before = line.bytes_up
        load = asyncio.create_task(repl.session.load([Context.of("text", text)], {}))
        await until(lambda: line.bytes_up > before + 10 * 2**20)
        await broken(line)
        await asyncio.wait_for(load, 30)
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert await repl.value("import hashlib; hashlib.sha256(text.encode()).hexdigest()") == repr(digest)


async def test_a_run_over_breaks_pays_nothing_twice(server, kernel, line):
    replies = [
        block("first = llm_query_batched([f'a{i}' for i in range(20)])"),
        block("import asyncio\nsecond = await asyncio.gather(*[allm_query(f'b{i}') for i in range(20)])"),
        block("FINAL([len(first), len(second), set(first + second) == {'reply'}])"),
    ]
    slow = lambda served: Fault("slow", seconds=0.4) if served.model == "sub" else None  # noqa: E731
    url = f"http://127.0.0.1:{line.port}"
    async with playing(url, *replies, fault=slow, kernel_name=kernel) as (rlm, endpoint):
        run = asyncio.create_task(rlm.acompletion("What?", "text"))
        for count in (5, 25):
            await until(lambda: asked(endpoint) >= count)  # noqa: B023  awaited here
            await broken(line)
        answer = await asyncio.wait_for(run, 60)
        assert answer.value == [20, 20, True]
        assert asked(endpoint) == 40
        assert answer.total_calls == len(endpoint.requests) == 43
        assert line.connections > 2


async def test_a_gateway_that_stays_away_ends_the_run_in_words(own_server):
    async with open_remote(own_server.url, patience=1.0) as repl:
        cell = asyncio.create_task(repl.run("llm_query('q')\nimport time\ntime.sleep(60)"))
        await repl.called.wait()
        own_server.kill()
        result = await asyncio.wait_for(cell, 30)
        assert (result.status, repl.session.alive) == ("died", False)
        assert "could not be reached for 1 s" in result.lost


async def test_a_gateway_that_comes_back_without_its_kernels(own_server):
    replies = [
        block("llm_query('a')"),
        block("llm_query('b')\nimport time\ntime.sleep(60)"),
        block("FINAL(context)"),
    ]
    async with playing(own_server.url, *replies) as (rlm, endpoint):
        run = asyncio.create_task(rlm.acompletion("What?", "text"))
        await until(lambda: asked(endpoint) >= 2)
        own_server.kill()
        await asyncio.to_thread(own_server.start)
        answer = await asyncio.wait_for(run, 60)
        assert answer.text == "text"
        assert "the gateway has it no longer" in answer.messages[-2]["content"]
        assert len(endpoint.requests) == 5


async def test_a_run_whose_gateway_is_gone_for_good_fails_with_the_reason(own_server, monkeypatch):
    monkeypatch.setattr(transport.GatewayTransport.__init__, "__kwdefaults__", {"patience": 1.0, "v1": True})
    replies = [block("llm_query('a')\nimport time\ntime.sleep(60)")] * 3
    async with playing(own_server.url, *replies) as (rlm, endpoint):
        run = asyncio.create_task(rlm.acompletion("What?", "text"))
        await until(lambda: asked(endpoint) >= 1)
        own_server.kill()
        answer = await asyncio.wait_for(run, 60)
        assert answer.status == "failed"
        assert own_server.url in answer.reason
        assert asked(endpoint) == 1


# The lease -------------------------------------------------------------------------------------------


async def test_a_kernel_whose_host_is_gone_goes_away_and_one_whose_line_blinked_does_not(
    server, kernel, line
):
    async with open_remote(f"http://127.0.0.1:{line.port}", name=kernel, lease=3.0) as repl:
        await repl.run("kept = 1")
        await broken(line, 1.0)
        # Longer than the lease, and the kernel hears of us all the time.
        result = await repl.run("import time\ntime.sleep(4)\nkept")
        assert (result.lost, result.outputs[-1].text) == ("", "1")
        (id_,) = server.kernels()
        line.cut()
        await until(lambda: id_ not in server.kernels())
        line.heal()
        result = await asyncio.wait_for(repl.run("kept"), 30)
        assert result.status == "died"


# Who may ----------------------------------------------------------------------------------------------


async def test_a_wrong_token_is_refused_before_anything_is_spent(any_server):
    async with playing(any_server.url, gateway_token="canary-wrong-token") as (rlm, endpoint):
        with pytest.raises(ConfigError, match="refuses the token") as caught:
            await rlm.acompletion("What?", "text")
        assert "canary" not in f"{caught.value} {caught.value.hint}"
        assert endpoint.requests == []


async def test_no_gateway_is_told_before_anything_is_spent(own_server):
    own_server.kill()
    async with playing(own_server.url) as (rlm, endpoint):
        with pytest.raises(ConfigError, match="no usable reply from the gateway"):
            await rlm.acompletion("What?", "text")
        assert endpoint.requests == []


async def test_what_answers_may_be_no_gateway():
    async with ScriptedServer({}) as endpoint, playing(endpoint.base_url) as (rlm, _):
        with pytest.raises(ConfigError, match=r"refuses the request|is no Jupyter server"):
            await rlm.acompletion("What?", "text")


async def test_a_kernelspec_that_there_is_not(any_server):
    async with playing(any_server.url, kernel_name="cobol") as (rlm, _):
        with pytest.raises(ConfigError, match="no kernelspec named 'cobol'") as caught:
            await rlm.acompletion("What?", "text")
        assert "python3" in caught.value.hint


async def test_a_kernel_that_can_not_start(own_server):
    spec = own_server.folder / "data" / "kernels" / "broken" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-c", "raise SystemExit('no such package')", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Broken", "language": "python"}))
    async with playing(own_server.url, *["```repl\nFINAL(1)\n```"] * 9, kernel_name="broken") as (rlm, _):
        answer = await asyncio.wait_for(rlm.acompletion("What?", "text"), 60)
        assert answer.status == "failed"
        assert "the kernel ended while the gateway" in answer.reason
    assert own_server.kernels() == []


async def test_health(any_server):
    health = await Gateway(any_server.url, TOKEN).health_check()
    assert "python3" in health.kernelspecs
    assert health.default == "python3"
    with pytest.raises(KernelStartError, match="refuses the token"):
        await Gateway(any_server.url, "canary-wrong-token").health_check()


async def test_the_token_is_in_no_url_log_trace_or_kernel(any_server, any_kernel, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    steal = block(
        "import os\nfound = repr(dict(os.environ)) + repr(globals())\nprint(found)\n"
        "llm_query(found)\nFINAL(1)"
    )
    events = []
    async with playing(any_server.url, steal, kernel_name=any_kernel) as (rlm, endpoint):
        answer = await rlm.acompletion("What?", "text", readers=[events.append], save=tmp_path / "run.jsonl")
        assert answer
        assert TOKEN not in repr(rlm._backend._own)
        assert all(TOKEN not in json.dumps(dict(each.body)) for each in endpoint.requests)
    assert TOKEN not in (tmp_path / "run.jsonl").read_text()
    assert TOKEN not in repr(events) + caplog.text + repr(answer)
    assert TOKEN not in any_server.log


def test_a_certificate_nobody_vouches_for_is_refused(request, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=gateway",
            ),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    options = [f"--KernelGatewayApp.certfile={certificate}", f"--KernelGatewayApp.keyfile={key}"]
    python = python_of("kernel-gateway", request.config.cache)
    server = Server("kernel-gateway", python, tmp_path, *options, scheme="https").start()
    try:
        with pytest.raises(KernelStartError, match="is not trusted"):
            asyncio.run(Gateway(server.url, TOKEN).health_check())
        check = (
            "import asyncio, sys\n"
            "from rlm_kernel.repl.gateway.address import Gateway\n"
            "print(asyncio.run(Gateway(*sys.argv[1:]).health_check()).default)"
        )
        done = subprocess.run(
            [sys.executable, "-c", check, server.url, TOKEN],
            env={**os.environ, "SSL_CERT_FILE": os.fspath(certificate)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "python3\n", done.stderr
    finally:
        server.stop()
