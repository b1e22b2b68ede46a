"""Kernels that come from the fork server are as good as fresh ones, and come without it too."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kernels import open_repl

from rlm_kernel.repl import forkserver

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is a fork server on Linux only")


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kernel_of(repl):
    return repl.session._transport._process.pid


def server_pid():
    return forkserver._server._process.pid


@pytest.fixture
def own_server(monkeypatch):
    """Let this test have a server of its own, to do with as it likes."""
    monkeypatch.setattr(forkserver, "_server", None)
    monkeypatch.setattr(forkserver.atexit, "register", lambda function: None)
    yield
    forkserver._end()


async def test_kernels_come_from_one_server():
    async with open_repl() as one, open_repl() as two, open_repl(fork=False) as three:
        assert parent(parent(kernel_of(one))) == parent(parent(kernel_of(two))) == server_pid()
        assert parent(parent(kernel_of(three))) == os.getpid()


async def test_the_server_has_one_thread_and_no_key(monkeypatch, own_server):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-server")
    async with open_repl():
        server = Path(f"/proc/{server_pid()}")
        assert len(os.listdir(server / "task")) == 1
        assert b"canary" not in (server / "environ").read_bytes()


LOOK = """\
import gc, os, signal, sys, threading
ip, app = get_ipython(), get_ipython().parent.parent
# The second is the debugger's, which is not imported in forks.
NOT_HERE = ("IPYTHONDIR", "PYDEVD_USE_FRAME_EVAL")
here = lambda path: os.path.relpath(path, os.environ["IPYTHONDIR"])
{
    "modules": sorted(name for name in sys.modules if name.startswith("rlm_kernel")),
    "folder": (os.getcwd(), ip.starting_dir),
    "path": sys.path,
    "environment": {name: value for name, value in os.environ.items() if name not in NOT_HERE},
    "signals": [str(signal.getsignal(each)) for each in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)],
    "collected": gc.isenabled(),
    "session": os.getsid(0) == os.getpid(),
    "profile": [here(each) for each in (ip.ipython_dir, ip.profile_dir.location, app.profile_dir.location)],
    "made": sorted(os.listdir(ip.profile_dir.location)),
    "magics": {kind: sorted(each) for kind, each in ip.magics_manager.lsmagic().items()},
    "extensions": sorted(ip.extension_manager.loaded),
    "hidden": sorted(set(ip.user_ns_hidden) - {"ip", "app", "here", "NOT_HERE"}),
    "names": sorted(set(ip.user_ns) - {"ip", "app", "here", "NOT_HERE"}),
    "settings": sorted(str(each) for each in ip.config.items() if each[0] != "IPKernelApp"),
    "main": sys.modules["__main__"].__dict__ is ip.user_ns,
    "types": [type(each).__name__ for each in (sys.stdout, sys.stderr, sys.displayhook, ip, ip.displayhook)],
    "count": ip.execution_count,
    "history": ip.history_manager.enabled,
    "excepthook": sys.excepthook.__qualname__,
    "threads": sorted(each.name for each in threading.enumerate() if not each.name.startswith("Thread-")),
    "debugger": ip.kernel.kernel_info.get("debugger"),
    "supported": sorted(ip.kernel.kernel_info.get("supported_features", [])),
    "program": os.path.basename(sys.argv[0]),
    "options": sys.argv[3:],
}"""
# What only others than the host would have: see `rlm_kernel.kernels.forked`.
LEFT_OUT = ("threads", "debugger", "supported", "program")


async def test_a_fork_is_like_a_fresh_kernel(tmp_path):
    seen = {}
    for fork in (True, False):
        async with open_repl(fork=fork, cwd=tmp_path, env={"EXTRA": "given"}) as repl:
            assert await repl.value("type(get_ipython().kernel).__name__") == repr(
                "ForkedKernel" if fork else "IPythonKernel"
            )
            seen[fork] = eval(await repl.value(LOOK))
    one, other = seen[True], seen[False]
    assert one["threads"] == ["Control", "IOPub", "MainThread"]
    for name in LEFT_OUT:
        del one[name], other[name]
    assert one == other
    assert one["folder"] == (str(tmp_path), str(tmp_path))
    assert one["environment"]["EXTRA"] == "given"


async def test_a_kernel_with_settings_of_its_own_is_made_from_scratch(tmp_path):
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "first.py").write_text("from_startup = 1")
    async with open_repl(env={"IPYTHONDIR": str(tmp_path)}) as one, open_repl(env={"HOME": "/"}) as two:
        assert parent(parent(kernel_of(one))) == parent(parent(kernel_of(two))) == server_pid()
        assert await one.value("from_startup") == "1"
        assert await two.value("get_ipython().home_dir") == "'/'"
        for repl in (one, two):
            assert await repl.value("type(get_ipython().kernel).__name__") == "'IPythonKernel'"
            assert "MainThread" in await repl.value("import threading; threading.enumerate()")


@pytest.mark.parametrize(
    "spoil",
    [
        "import ipykernel.kernelapp, ipykernel.control; del ipykernel.control.ControlThread",
        "from ipykernel.kernelapp import IPKernelApp; IPKernelApp.exec_lines = ['import threading']",
        "import IPython.core.shellapp as at; at.SYSTEM_CONFIG_DIRS = [FOLDER]",
    ],
    ids=["another ipykernel", "code in the machine's settings", "a file that the machine's settings run"],
)
async def test_where_no_kernel_can_be_half_made_each_is_made_from_scratch(
    spoil, own_server, monkeypatch, tmp_path
):
    (tmp_path / "startup").mkdir()
    (tmp_path / "startup" / "first.py").write_text("raise SystemExit")
    spoil = spoil.replace("FOLDER", repr(str(tmp_path)))
    command = forkserver.python_command

    def spoilt(*arguments):
        *head, code = command(*arguments)[: -len(arguments) + 1]
        return [*head, f"{spoil}\n{code}", *arguments[1:]]

    monkeypatch.setattr(forkserver, "python_command", spoilt)
    async with open_repl() as repl:
        assert parent(parent(kernel_of(repl))) == server_pid()
        assert await repl.value("type(get_ipython().kernel).__name__") == "'IPythonKernel'"
    assert "kernels are made from scratch" in forkserver._server.last_words()


async def test_forks_share_no_name_and_no_folder():
    async with open_repl() as one, open_repl() as two:
        code = "ip = get_ipython(); ip.kernel.ident, ip.kernel.session.session, ip.ipython_dir"
        first, second = [eval(await repl.value(code)) for repl in (one, two)]
    assert not set(first) & set(second)


async def test_a_fork_has_no_descriptors_of_the_server():
    code = "import os; [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')[:-1]]"
    count = {}
    for fork in (True, False):
        async with open_repl(), open_repl(fork=fork) as repl:
            links = eval(await repl.value(code))
        assert not [link for link in links if "pidfd" in link]
        count[fork] = len([link for link in links if link.startswith("socket:")])
    assert count[True] <= count[False]


async def test_forks_draw_different_random_numbers():
    async with open_repl() as one, open_repl() as two:
        code = "import random, uuid; random.random(), uuid.uuid4().hex, get_ipython().kernel.session.session"
        first, second = [eval(await repl.value(code)) for repl in (one, two)]
    assert not set(first) & set(second)


async def test_the_debugger_is_left_out_but_can_be_imported():
    pytest.importorskip("debugpy")
    async with open_repl() as repl:
        assert await repl.value("import sys; 'debugpy' in sys.modules") == "False"
        assert await repl.value("import debugpy; debugpy.__name__") == "'debugpy'"


async def test_an_environment_that_a_fork_cannot_have_gets_a_process_of_its_own(tmp_path):
    (tmp_path / "only_here.py").write_text("found = 1")
    async with open_repl(env={"PYTHONPATH": str(tmp_path)}) as repl:
        assert parent(parent(kernel_of(repl))) == os.getpid()
        assert await repl.value("import only_here; only_here.found") == "1"


@pytest.mark.parametrize("way", ["killed", "broken"])
async def test_without_a_server_kernels_start_all_the_same(way, own_server, monkeypatch, caplog):
    if way == "killed":
        async with open_repl() as before:
            server = server_pid()
            os.kill(server, signal.SIGKILL)
            # Its kernels are not its own.
            assert await before.value("1") == "1"
    else:
        monkeypatch.setattr(forkserver, "python_command", lambda *_: [sys.executable, "-c", "1/0"])
    for _ in range(2):
        async with open_repl() as repl:
            assert parent(parent(kernel_of(repl))) == os.getpid()
            assert await repl.value("1") == "1"
    if way == "broken":
        (record,) = caplog.records
        assert "ZeroDivisionError" in record.getMessage()


async def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("RLM_FORK_SERVER", "0")
    async with open_repl() as repl:
        assert parent(parent(kernel_of(repl))) == os.getpid()


async def test_two_loops_share_it():
    results = []

    async def one():
        async with open_repl() as repl:
            results.append((parent(parent(kernel_of(repl))), await repl.value("40 + 2")))

    threads = [threading.Thread(target=asyncio.run, args=(one(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    await one()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert results == [(server_pid(), "42")] * 3


async def test_a_start_that_is_cancelled_leaves_nothing(own_server):
    from rlm_kernel.repl.local import LocalTransport
    from rlm_kernel.repl.session import JupyterSession

    session = JupyterSession(LocalTransport())
    task = asyncio.create_task(session.start([]))
    while forkserver._server is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await session.close()
    # The next request is served after the cancelled one.
    async with open_repl() as repl:
        assert parent(parent(kernel_of(repl))) == server_pid()
        guards = Path(f"/proc/{server_pid()}/task/{server_pid()}/children")
        while len(guards.read_text().split()) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_the_server_ends_with_its_process():
    code = (
        "import sys\nfrom rlm_kernel.repl import forkserver\n"
        "print(forkserver.shared({'PATH': '/usr/bin:/bin'})._process.pid, flush=True)\nsys.stdin.read()"
    )
    for ending in ("exit", "kill"):
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:
            server = os.pidfd_open(int(process.stdout.readline()))
            process.kill() if ending == "kill" else process.stdin.close()
            process.wait()
        import select

        assert select.select([server], [], [], 10)[0], ending
        os.close(server)


def test_kernels_that_were_asked_for_in_vain_leave_no_folder(tmp_path):
    code = (
        "import asyncio, os, signal\n"
        "from rlm_kernel.repl.local import LocalTransport\n"
        "async def main():\n"
        "    # The server takes longer than this to import what it needs.\n"
        "    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGKILL)\n"
        "    await LocalTransport().open(lambda message: None, lambda cause: None)\n"
        "asyncio.run(main())"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, check=False)
    assert ended.returncode == -signal.SIGKILL
    end = time.monotonic() + 30
    while os.listdir(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert os.listdir(tmp_path) == []
