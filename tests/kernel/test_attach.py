"""A run in a kernel that someone has open: what it finds, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from gateways import TOKEN, Server, free_port, python_of, until
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from kernels import Repl
from notebooks import Endpoint, Notebook

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.context import Context
from rlm_kernel.errors import ConfigError, KernelError, KernelInterruptedError, KernelStartError
from rlm_kernel.models.server import ScriptedServer
from rlm_kernel.repl.attach import connection_file
from rlm_kernel.repl.attach.connection_file import FileTransport
from rlm_kernel.repl.attach.session import AttachedSession
from rlm_kernel.repl.attach.target import KernelOnFile
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.rest import Rest

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="kernels are signalled"),
]
ROOT = Path(__file__).parents[2]
# All that a run could leave behind, as the user's own code sees it.
STATE = """\
import builtins, getpass, gc, json, sys, threading
from concurrent.futures import ThreadPoolExecutor
def _state(ip=get_ipython()):
    hidden = ("_state", "_dh", "_oh", "In", "Out", "_exit_code")
    named = [n for n in ip.user_ns if n not in hidden and not n.startswith("_i")]
    names = sorted(n for n in named if not n[1:].isdigit())
    return json.dumps({
        "names": names,
        "modules": [n for n in sys.modules if n.startswith("rlm")],
        "threads": sorted(t.name for t in threading.enumerate() if "Garbage" not in repr(type(t))),
        "control": sorted(n for n in ip.kernel.control_handlers if n.startswith("rlm")),
        "events": {e: [repr(f) for f in fs] for e, fs in ip.events.callbacks.items()},
        "transformers": [repr(f) for f in ip.input_transformers_cleanup],
        "stdout": [sorted(vars(s)) for s in (sys.stdout, sys.stderr)],
        "writes": [repr(s.write).partition(" at ")[0] for s in (sys.stdout, sys.stderr)],
        "hook": sorted(set(vars(ip.displayhook)) - {"_", "__", "___"}),
        "publisher": sorted(vars(ip.display_pub)),
        "shell": sorted(n for n in vars(ip) if n in ("_showtraceback", "_tee", "ask_exit")),
        "colors": ip.colors,
        "sleep": ip.kernel._execute_sleep,
        "input": repr(getpass.getpass),
        "start": [repr(threading.Thread.start), repr(ThreadPoolExecutor.submit)],
        "sys": [n for n in dir(sys) if n.startswith("last_")],
        "count": len(ip.user_ns["_oh"]),
        "service": hasattr(ip.kernel, "_rlm_service"),
    })
"""


class User:
    """Somebody with a kernel, and a front end of their own."""

    def __init__(self, manager, client):
        self.manager = manager
        self.client = client
        self.path = Path(manager.connection_file)

    async def run(self, code, timeout=60):
        """Execute a cell of the user's; return its reply and what it showed."""
        shown = []

        def show(message):
            content = message["content"]
            shown.append(content.get("text") or content.get("data", {}).get("text/plain", ""))

        reply = await self.client._async_execute_interactive(
            code, output_hook=show, timeout=timeout, allow_stdin=False
        )
        return reply["content"], "".join(shown)

    async def value(self, code):
        reply, shown = await self.run(code)
        assert reply["status"] == "ok", reply
        return shown

    async def state(self):
        _, shown = await self.run("print(_state())")
        return json.loads(shown)


@asynccontextmanager
async def a_user(folder, **options):
    manager = AsyncKernelManager(connection_file=os.fspath(Path(folder, "kernel-of-user.json")), **options)
    await manager.start_kernel(stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield User(manager, client)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
        manager.context.term()


@pytest.fixture
async def user(tmp_path):
    async with a_user(tmp_path) as user:
        await user.run(STATE)
        yield user


@asynccontextmanager
async def attached(user, *contexts, **options):
    session = AttachedSession(FileTransport(user.path), **options)
    session.told = []
    session.tell = session.told.append
    try:
        await session.start([Context.of(name, value) for name, value in contexts])
        yield Repl(session)
    finally:
        await session.close()


async def test_the_kernel_is_as_it_was(user):
    await user.run("made")
    await user.value("'shown'")
    await user.run(
        "context = 'mine'; answer = {'content': 'mine', 'ready': True}; df = [1]; llm_query = 7; x = 1; _ = 5"
    )
    before = await user.state()
    async with attached(user, ("context", "theirs"), ("extra", [1, 2])) as repl:
        assert await repl.value("context, extra, df, llm_query('q')") == (
            "('theirs', [1, 2], [1], 'reply to q')"
        )
        assert (
            await repl.value("import math\ndf.append(2)\nx = 'new'; del df\nmade = 3\n'shown'") == "'shown'"
        )
        # Between two cells of the run, the user has what is theirs.
        assert await user.value("context, answer['content'], df, llm_query, x, _") == (
            "('mine', 'mine', [1, 2], 7, 1, 5)"
        )
        assert "NameError" in (await user.run("made"))[0]["ename"]
        await user.run("new_of_user = 1; df = 'later'")
        # And the run what is the run's.
        result = await repl.run("x, made, math.pi > 3, new_of_user, 'df' in globals(), answer['ready']")
        assert result.outputs[-1].text == "('new', 3, True, 1, False, False)"
        assert set(result.variables) >= {"x", "made"}
        assert "new_of_user" not in result.variables
        result = await repl.run("1/0")
        assert result.outputs[-1].name == "ZeroDivisionError"
        result = await repl.run("answer['content'] = made; answer['ready'] = True")
        assert result.final.value == 3
        assert (await repl.run("!echo from a process")).outputs[-1].text.strip() == "from a process"
        code = (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(4) as pool: FINAL(list(pool.map(llm_query, 'abcd')))"
        )
        assert (await repl.run(code)).final.value == [f"reply to {each}" for each in "abcd"]
        assert await repl.value("await allm_query('q')") == "'reply to q'"
    await user.run("del new_of_user; df = [1, 2]")
    assert {**await user.state(), "count": 0} == {**before, "count": 0}
    assert await user.value("context, answer['content'], df, llm_query, x, _") == (
        "('mine', 'mine', [1, 2], 7, 1, 5)"
    )
    shown = await user.value("print('out')\n!echo process\n!echo again")
    assert shown.split() == ["out", "process", "again"]


@asynccontextmanager
async def busy(user, folder):
    """Let the user's kernel run a cell of theirs, until the block ends or `go` is called."""
    begun, go = folder / "begun", folder / "go"
    code = (
        f"import os, time\nopen({os.fspath(begun)!r}, 'w').close()\n"
        f"while not os.path.exists({os.fspath(go)!r}): time.sleep(0.01)\ndone = 1"
    )
    cell = asyncio.create_task(user.run(code))
    await until(begun.exists)
    try:
        yield cell, go.touch
    finally:
        go.touch()
        assert (await cell)[0]["status"] == "ok"


async def test_a_users_cell_is_waited_for_and_no_time_of_the_cells(user, tmp_path, monkeypatch):
    monkeypatch.setattr("rlm_kernel.repl.attach.session.BUSY_SECONDS", 0.6)
    async with attached(user) as repl, busy(user, tmp_path) as (_, go):
        cell = asyncio.create_task(repl.run("1 + 1", timeout=0.5))
        await until(lambda: any("busy" in each for each in repl.session.told))
        go()
        result = await cell
        assert (result.status, result.outputs[-1].text) == ("ok", "2")


async def test_a_kernel_that_stays_busy_is_left_alone(user, tmp_path, monkeypatch):
    monkeypatch.setattr("rlm_kernel.repl.attach.session.BUSY_SECONDS", 0.2)
    async with busy(user, tmp_path):
        with pytest.raises(KernelError, match=r"busy with something of its user's for 0\.5 s"):
            async with attached(user, patience=0.5):
                raise AssertionError("it is busy")
    state = await user.state()
    assert (state["modules"], state["control"]) == ([], [])
    assert await user.value("done") == "1"


async def test_a_cell_that_waits_behind_the_users_is_withdrawn(user, tmp_path, monkeypatch):
    async with attached(user) as repl:
        async with busy(user, tmp_path):

            async def at_once():
                """Send it although the kernel is busy, as it happens when the user is quicker."""

            monkeypatch.setattr(repl.session, "_turn", at_once)
            before = repl.session._place.last_cell
            cell = asyncio.create_task(repl.run("ran = 1; import os; os.environ['RAN'] = '1'"))
            await until(lambda: repl.session._place.last_cell != before)
            cell.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cell
            await repl.session.close()
        # What was withdrawn has its turn, does nothing, and the guest is gone behind it.
        assert await user.value("done, 'RAN' in os.environ, 'ran' in globals()") == "(1, False, False)"
        assert (await user.state())["modules"] == []


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "llm_query('q')", "await allm_query('q')", "import time; time.sleep(60)"],
)
async def test_a_cell_past_its_time_is_interrupted_and_the_kernel_goes_on(user, code):
    await user.run("mine = 1")
    async with attached(user) as repl:
        await repl.run("kept = 1")
        repl.delay = 60
        result = await repl.run(code, timeout=0.5)
        assert (result.status, result.lost) == ("timed_out", "")
        repl.delay = 0
        assert await repl.value("kept, mine, llm_query('next')") == "(1, 1, 'reply to next')"
    assert await user.value("mine, 'kept' in globals()") == "(1, False)"


async def test_a_cell_that_no_interrupt_stops_goes_on_and_is_given_back_when_it_ends(user):
    code = (
        "import signal, time\nold = signal.signal(signal.SIGINT, signal.SIG_IGN)\nhers = 2\ntime.sleep(5)\n"
        "signal.signal(signal.SIGINT, old)"
    )
    await user.run("hers = 1")
    with pytest.raises(KernelError, match="is not killed"):
        async with attached(user) as repl:
            await repl.run(code, timeout=0.5)
    assert await user.value("hers, 'old' in globals()") == "(1, False)"
    state = await user.state()
    assert (state["modules"], state["control"], state["service"]) == ([], [], False)


async def test_the_users_interrupt_ends_the_run_in_words(user):
    async with attached(user) as repl:
        cell = asyncio.create_task(repl.run("llm_query('q'); import time; time.sleep(60)"))
        await repl.called.wait()
        await asyncio.sleep(0.3)
        await user.manager.interrupt_kernel()
        with pytest.raises(KernelInterruptedError):
            await asyncio.wait_for(cell, 30)
    assert (await user.state())["modules"] == []


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_a_kernel_that_its_user_restarts_or_loses(user, how):
    async with attached(user) as repl:
        cell = asyncio.create_task(repl.run("llm_query('q'); import time; time.sleep(60)"))
        await repl.called.wait()
        if how == "restart":
            await user.manager.restart_kernel(now=True)
        else:
            await user.manager.signal_kernel(signal.SIGKILL)
        with pytest.raises(KernelError, match="is gone: its process ended, or was restarted"):
            await asyncio.wait_for(cell, 30)
        assert not repl.session.alive


async def test_one_run_at_a_time(user, monkeypatch):
    monkeypatch.setattr("rlm_kernel.repl.attach.session.HANDOVER_SECONDS", 1.0)
    async with attached(user) as repl:
        with pytest.raises(KernelStartError, match="another run is attached"):
            async with attached(user):
                raise AssertionError("it is taken")
        assert await repl.value("llm_query('q')") == "'reply to q'"
    async with attached(user) as repl:
        assert await repl.value("llm_query('q')") == "'reply to q'"


async def test_the_guest_leaves_when_its_host_is_gone(user):
    await user.run("mine = 1")
    code = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from rlm_kernel.repl.attach.connection_file import FileTransport\n"
        "from rlm_kernel.repl.attach.session import AttachedSession\n"
        "async def main():\n"
        "    session = AttachedSession(FileTransport(Path(sys.argv[1])), lease=2.0)\n"
        "    await session.start([])\n"
        "    async def none(call): return []\n"
        "    code = 'mine = 2; print(1); import time; time.sleep(600)'\n"
        "    tell = lambda output: print('there', flush=True)\n"
        "    await session.execute(code, timeout=None, on_call=none, on_output=tell)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, user.path),
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert (await process.stdout.readline()).strip() == b"there"
    process.kill()
    await process.wait()
    assert await user.value("mine") == "1"
    state = await user.state()
    assert (state["modules"], state["control"], state["threads"].count("rlm-lease")) == ([], [], 0)


async def test_a_cell_of_the_users_is_never_interrupted(user, tmp_path):
    async with attached(user) as repl:
        await repl.run("kept = 1")
        async with busy(user, tmp_path) as (cell, _):
            await repl.session.interrupt()
            assert await repl.session.settle()
            # It has come, and done nothing.
            await repl.session._answer_to("control", "kernel_info_request", {})
            assert not cell.done()
        assert await repl.value("kept") == "1"


# Runs -------------------------------------------------------------------------------------------------


def block(code):
    return f"```repl\n{code}\n```"


@asynccontextmanager
async def playing(repl, *replies, **options):
    said = iter(replies)
    models = {
        "root": ScriptedModel(lambda request: next(said), name="root"),
        "sub": ScriptedModel(lambda request: "reply", name="sub"),
    }
    async with (
        ScriptedServer(models) as endpoint,
        RLM("root", "sub", base_url=endpoint.base_url, repl=repl, **options) as rlm,
    ):
        yield rlm


async def test_a_run_over_a_connection_file(user):
    await user.run("rows = [1, 2, 3]")
    events = []
    replies = [block("total = sum(rows); print(total, llm_query(context))"), block("FINAL([total, context])")]
    async with playing(f"attach:{user.path}", *replies) as rlm:
        answer = await rlm.acompletion("What?", "text", readers=[events.append])
    assert answer.value == [6, "text"]
    assert any(event.type == "notice" and "stay changed" in event.text for event in events)
    (started,) = [event for event in events if event.type == "kernel_started"]
    assert started.backend == "attach"
    assert await user.value("rows, 'total' in globals()") == "([1, 2, 3], False)"
    assert await user.value("get_ipython().execution_count > 0, len(Out) <= 1") == "(True, True)"


async def test_a_run_that_the_user_interrupts_is_cancelled(user):
    async with playing(KernelOnFile(user.path), block("print(1); import time; time.sleep(60)")) as rlm:
        printed = asyncio.Event()
        run = asyncio.create_task(
            rlm.acompletion("What?", "text", readers=[lambda e: e.type == "cell_output" and printed.set()])
        )
        await printed.wait()
        await user.manager.interrupt_kernel()
        answer = await asyncio.wait_for(run, 30)
    assert (answer.status, "interrupted by its user" in answer.reason) == ("cancelled", True)
    assert (await user.state())["modules"] == []


async def test_a_cancelled_run_leaves_the_kernel_as_it_was(user):
    before = await user.state()
    async with playing(KernelOnFile(user.path), block("print(1); import time; time.sleep(60)")) as rlm:
        printed = asyncio.Event()
        run = asyncio.create_task(
            rlm.acompletion("What?", "text", readers=[lambda e: e.type == "cell_output" and printed.set()])
        )
        await printed.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert await user.state() == before


async def test_from_the_command_line(user, tmp_path):
    (tmp_path / "notes.txt").write_text("some text")
    await user.run("rows = [1, 2, 3]")
    models = {"root": ScriptedModel(lambda request: block("FINAL([context, sum(rows)])"), name="root")}
    async with ScriptedServer(models) as endpoint:
        command = [sys.executable, "-m", "rlm_kernel.cli", "run", "--model", "root", "--no-save", "--json"]
        process = await asyncio.create_subprocess_exec(
            *(
                *command,
                "--repl",
                f"attach:{user.path.name.removesuffix('.json')}",
                "--context",
                "notes.txt",
                "?",
            ),
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.fspath(ROOT),
                "JUPYTER_RUNTIME_DIR": os.fspath(user.path.parent),
                "OPENAI_BASE_URL": endpoint.base_url,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
    assert process.returncode == 0, error
    assert json.loads(out)["value"] == ["some text", 6]


# A kernel on a server ---------------------------------------------------------------------------------


@asynccontextmanager
async def on_a_server(kind, request, folder):
    """A server, and somebody with a kernel there, who reaches it by a connection file."""
    server = Server(kind, python_of(kind, request.config.cache), folder).start()
    try:
        async with Rest(Gateway(server.url, TOKEN)) as rest:
            kernel = await rest.start({})
            client = AsyncKernelClient(
                connection_file=os.fspath(folder / "runtime" / f"kernel-{kernel}.json")
            )
            client.load_connection_file()
            # On a loaded machine a heart may beat late, which is taken for its death.
            client.start_channels(hb=False)
            await client.wait_for_ready(timeout=60)
            user = User(client, client)
            await user.run(STATE)
            yield server, rest, kernel, user
            client.stop_channels()
    finally:
        server.stop()


@pytest.mark.parametrize("kind", ["jupyter-server"])
async def test_a_run_in_a_kernel_of_a_server(kind, request, tmp_path):
    async with on_a_server(kind, request, tmp_path) as (server, rest, kernel, user):
        await user.run("rows = [1, 2, 3]; context = 'mine'")
        before = await user.state()
        replies = [
            block("total = sum(rows); print(total, llm_query(context))"),
            block("while True: pass"),
            block("FINAL([total, context])"),
        ]
        target = f"attach:{server.url}/api/kernels/{kernel}"
        async with playing(target, *replies, gateway_token=TOKEN, cell_timeout=2) as rlm:
            answer = await rlm.acompletion("What?", "text " * 1_000_000)
            assert (answer.status, answer.value[0], len(answer.value[1])) == ("answered", 6, 5_000_000)
        assert await user.state() == before
        assert await user.value("rows, context, 'total' in globals()") == "([1, 2, 3], 'mine', False)"
        assert server.kernels() == [kernel]
        assert TOKEN not in server.log

        async with playing(target, gateway_token="canary-wrong-token") as rlm:
            with pytest.raises(ConfigError, match="refuses the token"):
                await rlm.acompletion("What?", "text")
        async with playing(f"{target}0", gateway_token=TOKEN) as rlm:
            with pytest.raises(ConfigError, match="has no kernel"):
                await rlm.acompletion("What?", "text")

        async with playing(
            target, block("print(1); import time; time.sleep(60)"), gateway_token=TOKEN
        ) as rlm:
            printed = asyncio.Event()
            run = asyncio.create_task(
                rlm.acompletion(
                    "What?", "text", readers=[lambda e: e.type == "cell_output" and printed.set()]
                )
            )
            await printed.wait()
            await rest._ask("POST", "kernels", kernel, "restart")
            answer = await asyncio.wait_for(run, 60)
            # The server interrupts what runs before it restarts the kernel.
            assert answer.status in ("failed", "cancelled")
            assert "is gone" in answer.reason or "interrupted by its user" in answer.reason
        assert server.kernels() == [kernel]


# What can't be used -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "names no kernel"),
        ("/nowhere/kernel-1.json", "no connection file /nowhere/kernel-1.json"),
        ("not-there", "no kernel 'not-there'"),
        ("https://host/api/kernels/1?token=canary-0123", "no kernel's"),
        ("https://user:canary-0123@host/api/kernels/1", "more than an address"),
        ("https://host/tree", "no kernel's"),
        ("http://example.com/api/kernels/1", "plain http"),
    ],
)
async def test_what_is_no_kernel_is_refused_before_anything_is_spent(target, message, monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", os.fspath(tmp_path))
    with pytest.raises(ConfigError, match=message) as caught:
        async with playing(f"attach:{target}") as rlm:
            await rlm.acompletion("What?", "text")
    assert "canary" not in f"{caught.value} {caught.value.hint}"


async def test_a_name_for_two_kernels(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", os.fspath(tmp_path))
    for name in ("kernel-12.json", "kernel-13.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="'kernel-1' stands for 2 kernels"):
        RLM("m", base_url="http://127.0.0.1:9/v1", repl="attach:kernel-1")


async def test_a_file_that_leads_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(connection_file, "ANSWER_SECONDS", 0.5)
    stale = tmp_path / "kernel-stale.json"
    ports = {f"{name}_port": free_port() for name in ("shell", "iopub", "stdin", "control", "hb")}
    known = {"transport": "tcp", "ip": "127.0.0.1", "key": "k", "signature_scheme": "hmac-sha256", **ports}
    for text in (json.dumps(known), "{}", "nothing"):
        stale.write_text(text)
        session = AttachedSession(FileTransport(stale))
        with pytest.raises(KernelStartError, match=r"no kernel answers|no connection file that"):
            await session.start([])
        await session.close()


async def test_a_kernel_of_another_language(tmp_path):
    program = tmp_path / "echo_kernel.py"
    program.write_text(
        "from ipykernel.kernelbase import Kernel\nfrom ipykernel.kernelapp import IPKernelApp\n"
        "class Echo(Kernel):\n"
        "    implementation = 'echo'; implementation_version = '1'; banner = ''\n"
        "    language_info = {'name': 'echo', 'mimetype': 'text/plain', 'file_extension': '.txt'}\n"
        "    async def do_execute(self, code, silent, *args, **kwargs):\n"
        "        raise SystemExit('nothing may be executed here')\n"
        "IPKernelApp.launch_instance(kernel_class=Echo)\n"
    )
    spec = tmp_path / "kernels" / "echo" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, os.fspath(program), "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Echo", "language": "echo"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", os.fspath(tmp_path))
        async with a_user(tmp_path, kernel_name="echo") as user:
            with pytest.raises(KernelStartError, match=r"runs echo \(echo\)"):
                async with attached(user):
                    raise AssertionError("it is no Python")


# From another notebook --------------------------------------------------------------------------------


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@contextmanager
def notebook(endpoint, folder, **variables):
    folder.mkdir()
    opened = Notebook("python3", {**endpoint.environment(), **variables}, folder)
    try:
        yield opened
    finally:
        opened.close()


def test_from_another_notebook(endpoint, tmp_path):
    with notebook(endpoint, tmp_path / "theirs") as theirs, notebook(endpoint, tmp_path / "mine") as mine:
        theirs.run("old, new = 'abc', 'abcd'")
        mine.run("%load_ext rlm_kernel")
        for _ in range(2):
            mine.run(f"%rlm -q --repl attach:{theirs.manager.connection_file} What?")
            assert mine.value("_rlm.text") == "'old is abc, new is abcd'"
            # A front end sees the run's outputs as well, and passes over what is none of its own.
            shown = theirs.run("old, new, 'kept' in globals()").outputs("execute_result")
            assert shown[-1]["data"]["text/plain"] == "('abc', 'abcd', False)"
        mine.run("%rlm -q --continue What?")
        assert mine.value("_rlm.text") == "'old is abc, new is abcd'"
        cell = mine.send(f"%rlm --repl attach:{mine.manager.connection_file} What?").ended()
        assert "that is the kernel which asks" in cell.failed()[1][0]


def test_a_gateway_by_option(endpoint, request, tmp_path):
    server = Server("kernel-gateway", python_of("kernel-gateway", request.config.cache), tmp_path).start()
    try:
        with notebook(endpoint, tmp_path / "mine", RLM_GATEWAY_TOKEN=TOKEN) as mine:
            mine.run("%load_ext rlm_kernel\nold = 'abc'")
            mine.run(f"%rlm -q --repl gateway --gateway-url {server.url} --kernel-name python3 What? -c old")
            assert mine.value("_rlm.text") == "'old is abc'"
            assert TOKEN not in json.dumps([each["content"] for each in mine.heard], default=str)
    finally:
        server.stop()
