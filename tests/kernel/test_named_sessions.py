"""Named sessions: what is still there when another process asks on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import stat
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from gateways import TOKEN, Server, offer_pyodide, open_remote, python_of, until

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.errors import ConfigError, InputError
from rlm_kernel.messages import message_text
from rlm_kernel.models.server import ScriptedServer
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.deliveries import Deliveries
from rlm_kernel.repl.gateway.named_session import NamedTransport
from rlm_kernel.repl.gateway.rest import Rest

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="the gateways' processes are ended as groups"),
]
ROOT = Path(__file__).parents[2]


def block(code):
    return f"```repl\n{code}\n```"


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    python = python_of("kernel-gateway", request.config.cache)
    server = Server("kernel-gateway", python, tmp_path_factory.mktemp("named")).start()
    yield server
    server.stop()


@pytest.fixture(params=["python3", "rlm-pyodide"])
def spec(request, server):
    """The name of a kernelspec of `server`."""
    if request.param == "rlm-pyodide":
        offer_pyodide(server, request.getfixturevalue("spec_folder"))
    return request.param


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("RLM_STATE_DIR", os.fspath(tmp_path / "state"))
    return tmp_path / "state" / "sessions"


@asynccontextmanager
async def playing(server, *replies, events=None, **options):
    """An RLM over ``server`` whose root replies one after the other."""
    root = ScriptedModel(list(replies), name="root")
    options = {"gateway_url": server.url, "gateway_token": TOKEN, "spare_kernels": 0, **options}
    async with RLM(root, repl="gateway", readers=[] if events is None else [events.append], **options) as rlm:
        yield rlm


async def ended(server, kernel):
    async with Rest(Gateway(server.url, TOKEN)) as rest:
        await rest.delete(kernel)


def record_of(state, name="research"):
    return json.loads((state / name / "record.json").read_text())


def first_message(answer):
    return message_text(answer.messages[1])


def notices(events):
    return [event.text for event in events if event.type == "notice"]


async def test_kernel_variables_contexts_and_history_outlive_their_process(server, state, spec, monkeypatch):
    brought = []

    async def put(self, what, *args, **options):
        brought.append(what)
        return await original(self, what, *args, **options)

    original = Deliveries.put
    monkeypatch.setattr(Deliveries, "put", put)
    text = "ünï " * 2_000_000
    async with (
        playing(server, block("mine = len(context); FINAL(mine)"), kernel_name=spec) as rlm,
        rlm.session(text, name="research") as session,
    ):
        first = await session.aask("How long?")
    assert first.value == 8_000_000
    kernel = record_of(state)["kernel"]
    assert kernel in server.kernels()

    events = []
    said = block("FINAL([mine, len(context), history[0]['answer'], len(history), answer['content']])")
    async with (
        playing(server, said, events=events, kernel_name=spec) as rlm,
        # The same context again is no other one, and is not loaded again.
        rlm.session(text, name="research") as session,
    ):
        assert session.contexts == ("context",)
        second = await session.aask("And now?")
        assert len(session.history) == 2
    assert second.value == [8_000_000, 8_000_000, "8000000", 1, ""]
    assert brought.count("context") == 1
    assert "still there: mine" in first_message(second)
    assert "asked: 'How long?'" in first_message(second)
    (started,) = [event for event in events if event.type == "kernel_started"]
    assert record_of(state)["kernel"] == kernel
    assert notices(events) == []
    assert started.run

    said = block("FINAL([context, context_0[:3], mine, len(history), history[-1]['value'][0]])")
    async with (
        playing(server, said, kernel_name=spec) as rlm,
        rlm.session("more", name="research") as session,
    ):
        third = await session.aask("With that?")
        assert third.value == ["more", "ünï", 8_000_000, 2, 8_000_000]
        assert set(session.contexts) == {"context", "context_0"}
    await ended(server, kernel)


@pytest.mark.parametrize("kind", ["jupyter-server", "enterprise-gateway"])
async def test_other_servers_keep_a_session_too(request, state, tmp_path, kind):
    server = Server(kind, python_of(kind, request.config.cache), tmp_path).start()
    try:
        async with (
            playing(server, block("mine = 1; FINAL(context)")) as rlm,
            rlm.session("text", name="research") as session,
        ):
            assert (await session.aask("One?")).value == "text"
        kernel = record_of(state)["kernel"]
        async with (
            playing(server, block("FINAL([mine, context])")) as rlm,
            rlm.session(name="research") as session,
        ):
            assert (await session.aask("Two?")).value == [1, "text"]
        assert record_of(state)["kernel"] == kernel
        assert server.kernels() == [kernel]
    finally:
        server.stop()


async def take_for_idle(server, kernel):
    """Have a server believe that a busy kernel is idle: it does when one has answered on control."""

    class Visitor(NamedTransport):
        async def _start(self, rest):
            return self.left

    visitor = Visitor(Gateway(server.url, TOKEN), kernel)
    await visitor.open(lambda message: None, lambda cause: None)
    visitor.send("control", "rlm_compare", {"have": []})
    async with Rest(Gateway(server.url, TOKEN)) as rest, asyncio.timeout(60):
        while await rest.state(kernel) != "idle":  # noqa: ASYNC110  another process's
            await asyncio.sleep(0.05)
    await visitor.close()


async def test_a_process_that_was_killed_left_everything(server, state, tmp_path, spec):
    program = tmp_path / "orchestrator.py"
    program.write_text(
        "import sys, time\nfrom rlm_kernel import RLM, ScriptedModel\n"
        "said = ['```repl\\nkept = context.upper(); FINAL(kept)\\n```', "
        "'```repl\\nllm_query(\"q\"); print(1)\\n```']\n"
        "def sub(request):\n    print('asked', flush=True)\n    time.sleep(600)\n"
        "rlm = RLM(ScriptedModel(said, name='root'), ScriptedModel(sub, name='sub'), repl='gateway')\n"
        "session = rlm.session('text', name='research')\n"
        "session.ask('One?')\nsession.ask('Two?')\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, program),
        env={
            **os.environ,
            "PYTHONPATH": os.fspath(ROOT),
            "RLM_GATEWAY_URL": server.url,
            "RLM_GATEWAY_TOKEN": TOKEN,
            "RLM_KERNEL_NAME": spec,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert await process.stdout.readline() == b"asked\n"
    async with playing(server) as rlm:
        with pytest.raises(ConfigError, match=f"in use by process {process.pid}"):
            rlm.session(name="research")
    process.kill()
    await process.wait()
    await take_for_idle(server, record_of(state)["kernel"])
    async with (
        playing(server, block("FINAL([kept, context, len(history)])")) as rlm,
        rlm.session(name="research") as session,
    ):
        answer = await session.aask("Three?")
    assert answer.value == ["TEXT", "text", 1]
    await ended(server, record_of(state)["kernel"])


@pytest.mark.parametrize(
    ("spec", "how"),
    [*(("python3", how) for how in ("ended", "restarted", "died")), ("rlm-pyodide", "restarted")],
    indirect=["spec"],
)
async def test_a_kernel_that_is_gone_is_replaced_and_that_is_told(server, state, spec, how):
    async with (
        playing(server, block("mine = 1; FINAL(context)"), kernel_name=spec) as rlm,
        rlm.session("text", name="research") as session,
    ):
        await session.aask("One?")
    kernel = record_of(state)["kernel"]
    async with Rest(Gateway(server.url, TOKEN)) as rest:
        if how == "ended":
            await rest.delete(kernel)
        elif how == "restarted":
            await rest._ask("POST", "kernels", kernel, "restart")
        else:
            os.kill(int(await pid_of(server, kernel)), 9)
    events = []
    said = block("FINAL(['mine' in globals(), context, len(history)])")
    async with (
        playing(server, said, events=events, kernel_name=spec) as rlm,
        rlm.session(name="research") as session,
    ):
        answer = await session.aask("Two?")
    assert answer.value == [False, "text", 1]
    assert "the kernel was lost since the last question" in first_message(answer)
    assert "still there" not in first_message(answer)
    (told,) = notices(events)
    assert re.search("kernel of the session 'research' is gone: .*; its variables are lost", told)
    fresh = record_of(state)["kernel"]
    assert fresh != kernel
    assert kernel not in server.kernels()
    await ended(server, fresh)


async def pid_of(server, kernel):
    """The process of a kernel, which has its connection file on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"kernel-{kernel}.json".encode() in path.read_bytes():
                return path.parent.name
        except OSError:
            continue
    raise AssertionError("no such process")


async def test_the_kernel_ends_when_nobody_comes(server, state, spec, monkeypatch):
    monkeypatch.setattr("rlm_kernel.repl.gateway.named.LEAST_IDLE_SECONDS", 0.1)
    async with playing(server, block("FINAL(1)"), kernel_name=spec) as rlm:
        async with rlm.session("text", name="research", idle=1.5) as session:
            assert await session.aask("One?")
        kernel = record_of(state)["kernel"]
        assert kernel in server.kernels()
        await until(lambda: kernel not in server.kernels())


async def test_one_at_a_time(server, state):
    async with playing(server, block("FINAL(1)")) as rlm:
        async with rlm.session("text", name="research"):
            with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
                rlm.session(name="research")
            async with rlm.session("text", name="other"):
                pass
        async with rlm.session(name="research") as session:
            assert await session.aask("One?")
    await ended(server, record_of(state)["kernel"])


async def test_what_is_recorded_is_the_users_alone_and_holds_no_token(server, state):
    async with (
        playing(server, block("FINAL(1)"), api_key="sk-canary-named-0123") as rlm,
        rlm.session("text", name="research") as session,
    ):
        await session.aask("One?")
    folder = state / "research"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert not any(b"canary" in each.read_bytes() for each in files)
    await ended(server, record_of(state)["kernel"])


async def test_a_cell_that_kills_the_kernel_of_a_session(server, state):
    replies = [
        block("mine = 1\nprint(1)"),
        block("import os; os._exit(1)"),
        block("FINAL('mine' in globals())"),
    ]
    async with playing(server, *replies) as rlm:
        async with rlm.session("text", name="research") as session:
            answer = await session.aask("One?")
            assert answer.value is False
            kernel = record_of(state)["kernel"]
        assert server.kernels() == [kernel]
    await ended(server, kernel)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "x" * 65, "a b", "a."])
async def test_names_that_no_session_has(server, name):
    async with playing(server) as rlm:
        with pytest.raises(InputError, match="can't be the name of a session"):
            rlm.session("text", name=name)


async def test_what_can_not_be_named(server, state):
    async with RLM(ScriptedModel([], name="root")) as rlm:
        with pytest.raises(ConfigError, match="outlive this process"):
            rlm.session("text", name="research")
    async with playing(server) as rlm:
        with pytest.raises(InputError, match="for named sessions"):
            rlm.session("text", idle=100)
        with pytest.raises(InputError, match="too short"):
            rlm.session("text", name="research", idle=1)
        rlm.session("text", name="research").close()
        (state / "research" / "record.json").write_text('{"version": 1}')
        with pytest.raises(InputError, match="can't be read"):
            rlm.session(name="research")
    async with playing(server) as rlm:
        await rlm.session("text", name="second").aclose()
    async with playing(server, gateway_url="http://127.0.0.1:9") as rlm:
        with pytest.raises(InputError, match=r"not on http://127\.0\.0\.1:9"):
            rlm.session(name="second")


# From the command line -------------------------------------------------------------------------------


async def command(folder, server, *args, base_url="", **variables):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rlm_kernel.cli", *args),
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.fspath(ROOT),
            "RLM_REPL": "gateway",
            "RLM_GATEWAY_URL": server.url,
            "RLM_GATEWAY_TOKEN": TOKEN,
            "OPENAI_BASE_URL": base_url,
            **variables,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert TOKEN.encode() not in out + error
    return process.returncode, out.decode(), error.decode()


async def test_sessions_of_the_command_line(server, state, tmp_path):
    (tmp_path / "notes.txt").write_text("some text")

    def answer(request):
        first = "One?" in message_text(request.messages[1]).rpartition("Question:")[2]
        return block("mine = len(context); FINAL(mine)" if first else "FINAL([mine, context])")

    code, out, _ = await command(tmp_path, server, "sessions", "list")
    assert (code, "no named sessions" in out) == (0, True)
    async with ScriptedServer({"root": ScriptedModel(answer, name="root")}) as endpoint:
        run = ("run", "--model", "root", "--no-save", "--quiet", "--session", "research")
        url = endpoint.base_url
        asked = (*run, "--context", "notes.txt", "One?")
        assert await command(tmp_path, server, *asked, base_url=url) == (0, "9\n", "")
        assert await command(tmp_path, server, *run, "Two?", base_url=url) == (0, "[9, 'some text']\n", "")
    code, out, _ = await command(tmp_path, server, "sessions", "list")
    assert code == 0
    assert re.search(rf"research +idle +\d+ s ago +2 +context +{server.url}", out)
    code, out, _ = await command(tmp_path, server, "sessions", "show", "research")
    assert (code, "variables: mine" in out, "asked: One?\n  answered: 9" in out) == (0, True, True)
    code, out, _ = await command(tmp_path, server, "sessions", "show", "research", "--json")
    assert json.loads(out)["state"] == "idle"
    kernel = record_of(state)["kernel"]
    code, out, error = await command(
        tmp_path, server, "sessions", "stop", "research", RLM_GATEWAY_TOKEN="wrong"
    )
    assert (code, "refuses the token" in error, kernel in server.kernels()) == (6, True, True)
    # The token is for the server that it came with, and for no other.
    elsewhere = {"RLM_GATEWAY_URL": "https://other.example"}
    code, out, _ = await command(tmp_path, server, "sessions", "list", **elsewhere)
    assert (code, "unknown" in out) == (0, True)
    code, out, error = await command(tmp_path, server, "sessions", "stop", "research", **elsewhere)
    assert (code, "not sent to http://127.0.0.1:" in error) == (2, True)
    assert kernel in server.kernels()
    code, out, _ = await command(tmp_path, server, "sessions", "stop", "research")
    assert (code, out) == (0, "research has ended\n")
    assert kernel not in server.kernels()
    assert not (state / "research").exists()
    code, _, error = await command(tmp_path, server, "sessions", "show", "research")
    assert (code, "there is no session named 'research'" in error) == (2, True)


async def test_a_session_whose_gateway_is_gone_can_be_forgotten(server, state, tmp_path):
    async with playing(server, block("FINAL(1)")) as rlm, rlm.session("text", name="research") as session:
        assert await session.aask("One?")
    kernel = record_of(state)["kernel"]
    path = state / "research" / "record.json"
    path.write_text(json.dumps({**record_of(state), "url": "http://127.0.0.1:9"}))
    code, out, _ = await command(tmp_path, server, "sessions", "list")
    assert (code, "unknown" in out) == (0, True)
    for url, expected in (("http://127.0.0.1:9", 6), (server.url, 2)):
        asked = ("sessions", "stop", "research")
        code, _, error = await command(tmp_path, server, *asked, RLM_GATEWAY_URL=url)
        assert (code, "--force" in error, path.exists()) == (expected, True, True)
    code, _, _ = await command(tmp_path, server, "sessions", "stop", "--force", "research")
    assert (code, path.exists()) == (0, False)
    await ended(server, kernel)


async def test_a_gateway_that_is_away_loses_nothing(server, state):
    async with playing(server, block("FINAL(1)")) as rlm, rlm.session("text", name="research") as session:
        assert await session.aask("One?")
    kernel = record_of(state)["kernel"]
    path = state / "research" / "record.json"
    path.write_text(json.dumps({**record_of(state), "url": "http://127.0.0.1:9"}))
    async with (
        playing(server, gateway_url="http://127.0.0.1:9") as rlm,
        rlm.session("more", name="research") as session,
    ):
        with pytest.raises(ConfigError, match="no usable reply"):
            await session.aask("Two?", contexts={"other": "text"})
        assert set(session.contexts) == {"context", "context_0"}
    assert record_of(state)["kernel"] == kernel
    assert kernel in server.kernels()
    await ended(server, kernel)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux counts acknowledgements")
async def test_the_system_gives_a_silent_line_up(server):
    async with open_remote(server.url) as repl:
        line = repl.session._link._connection._socket
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
