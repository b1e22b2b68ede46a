"""Kernels that come from the fork server are as good as fresh ones, and come without it too."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
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


async def test_a_fork_is_like_a_fresh_kernel(tmp_path):
    code = (
        "import gc, os, signal, sys, threading\n"
        "sorted(name for name in sys.modules if name.startswith('rlm_kernel')), os.getcwd(), sys.argv[0], "
        "int(signal.getsignal(signal.SIGCHLD)), gc.isenabled(), threading.active_count(), sys.path[0], "
        "os.getsid(0) == os.getpid(), os.environ.get('EXTRA')"
    )
    seen = {}
    for fork in (True, False):
        async with open_repl(fork=fork, cwd=tmp_path, env={"EXTRA": "given"}) as repl:
            seen[fork] = eval(await repl.value(code))
    # A program is run by its path, a module of that name is what was forked.
    assert os.path.basename(seen[False][2]) == "ipykernel_launcher.py"
    assert seen[True][2] == "ipykernel_launcher"
    assert seen[True][:2] + seen[True][3:] == seen[False][:2] + seen[False][3:]
    assert seen[True][1] == str(tmp_path)


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
