"""No process of a kernel outlives it, or whoever started it, whatever the processes do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kernels import open_repl

from rlm_kernel.kernels.guard import descendants
from rlm_kernel.repl.process import start_guarded

FOLDER = Path(__file__).parent
PACKAGE = FOLDER.parents[1]
GONE_SECONDS = 5.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no guards on Windows")
subreaper = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")

# Forks twice, leaves the session, ignores what can be ignored, and tells its pid.
DAEMON = """
import os, signal, sys, time
def daemon(work):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    with open("daemon.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("daemon.new", "daemon")
    work()
    os._exit(0)
def wait():
    time.sleep(1000)
def move():
    while True:
        time.sleep(0.01)
        if os.fork():
            os._exit(0)
"""
HOLD_THE_GIL = "import ctypes\nctypes.PyDLL(None).sleep(1000)"


def running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def until(condition, seconds=30.0):
    """Wait for what must come; how long it takes is not what is tested."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)
    return value


def pid_in(file):
    return int(file.read_text()) if file.exists() else None


@asynccontextmanager
async def guarded(*argv, cwd, confined=True):
    with open(cwd / "log", "wb") as log:
        process = start_guarded(
            argv,
            cwd=str(cwd),
            env={"PATH": os.environ["PATH"]},
            log=log.fileno(),
            confined=confined,
            folder=str(cwd / "own"),
        )
    try:
        assert await process.started()
        yield process
    finally:
        process.kill()
        await asyncio.wait_for(process.wait(), 10)


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -SEGV $$", -signal.SIGSEGV), ("kill -KILL $$", -signal.SIGKILL)],
)
async def test_the_end_is_told_as_it_was(command, code, tmp_path):
    async with guarded("sh", "-c", command, cwd=tmp_path) as process:
        await process.wait()
    assert process.returncode == code


async def test_a_program_that_is_not_there_is_named(tmp_path):
    async with guarded("no-such-program", cwd=tmp_path) as process:
        await process.wait()
    assert process.returncode == 1
    assert "no-such-program could not be started: No such file" in (tmp_path / "log").read_text()


async def test_signals_reach_the_group_and_not_the_guard(tmp_path):
    script = "trap 'exit 7' INT; echo up > up; while :; do sleep 0.01; done"
    async with guarded("sh", "-c", script, cwd=tmp_path) as process:
        await asyncio.to_thread(until, (tmp_path / "up").exists)
        await process.signal(signal.SIGINT)
        await process.wait()
    assert process.returncode == 7


@subreaper
@pytest.mark.parametrize("work", ["wait", "move"])
@pytest.mark.parametrize("end", ["kernel", "host"])
async def test_daemons_go_with_the_kernel(work, end, tmp_path):
    awaited = "daemon" if end == "kernel" else "never"
    code = f"{DAEMON}\ndaemon({work})\nwhile not os.path.exists({awaited!r}): time.sleep(0.005)"
    async with guarded(sys.executable, "-c", code, cwd=tmp_path) as process:
        daemon = await asyncio.to_thread(until, lambda: pid_in(tmp_path / "daemon"))
        if end == "host":
            assert work == "move" or running(daemon)
            process.kill()
        await process.wait()
    assert not running(daemon)
    # What moves on has another pid by now: it is known by its folder.
    assert processes_in(tmp_path) == []


def processes_in(folder):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.append(int(pid))
        except OSError:
            continue
    return found


@subreaper
async def test_the_guard_takes_leave_of_orphans(tmp_path):
    async with guarded("sh", "-c", "(sh -c 'exit 0' &) ; echo $$ > up; sleep 100", cwd=tmp_path) as process:
        await asyncio.to_thread(until, (tmp_path / "up").exists)
        guard = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
        await asyncio.to_thread(until, lambda: len(descendants(guard)) == 2)


@subreaper
async def test_the_kernel_ends_with_its_guard(tmp_path):
    async with guarded("sleep", "1000", cwd=tmp_path) as process:
        guard = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(guard, signal.SIGKILL)
        await process.wait()
        await asyncio.to_thread(until, lambda: not running(process.pid))
    assert process.returncode is None


@subreaper
@pytest.mark.parametrize("copy", [False, True], ids=["alone", "with a copy"])
@pytest.mark.parametrize("fork", [True, False], ids=["forked", "started"])
def test_nothing_survives_an_orchestrator_that_is_killed(fork, copy, tmp_path):
    """Its kernel holds the GIL and has left a daemon; a copy of it still has all its descriptors."""
    arguments = {"fork": fork, "copy": copy, "cwd": str(tmp_path)}
    arguments["cell"] = f"{DAEMON}\ndaemon(wait)\nopen('held', 'w').close()\n{HOLD_THE_GIL}"
    with subprocess.Popen(
        [sys.executable, str(FOLDER / "orchestrator.py"), json.dumps(arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    ) as process:
        folders = json.loads(process.stdout.readline())["folders"]
        daemon = until(lambda: pid_in(tmp_path / "daemon"))
        until((tmp_path / "held").exists)
        tree = descendants(process.pid)
        assert daemon in tree
        copies = tree[:0]
        if copy:
            copies = [pid for pid in tree if b"orchestrator" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            assert len(copies) == 1
        process.kill()
        process.wait()
        until(lambda: not any(running(pid) for pid in tree if pid not in copies), GONE_SECONDS)
        until(lambda: not any(map(os.path.exists, folders)), GONE_SECONDS)
        assert all(map(running, copies))


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "started"])
async def test_closing_kills_what_a_cell_left_behind(fork, tmp_path):
    async with open_repl(fork=fork, cwd=tmp_path) as repl:
        await repl.run(f"{DAEMON}\ndaemon(wait)")
        daemon = await asyncio.to_thread(until, lambda: pid_in(tmp_path / "daemon"))
        kernel = repl.session._transport._process.pid
        assert running(daemon)
    assert not running(daemon)
    assert not running(kernel)


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "started"])
@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os\nos._exit(3)", "exited with code 3"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
    ],
    ids=["exit", "segfault"],
)
async def test_the_model_is_told_how_its_kernel_ended(fork, code, cause):
    async with open_repl(fork=fork) as repl:
        result = await repl.run(code)
    assert result.status == "died"
    assert cause in result.lost


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "started"])
async def test_interrupts_reach_the_cell(fork):
    async with open_repl(fork=fork) as repl:
        result = await repl.run("while True: pass", timeout=0.3)
        assert (result.status, result.lost) == ("timed_out", "")
        for code in (
            "import subprocess; subprocess.run(['sleep', '60'])",
            "import asyncio; await asyncio.sleep(60)",
        ):
            result = await repl.run(code, timeout=0.3)
            assert (result.status, result.lost) == ("timed_out", "")
        assert await repl.value("'still here'") == "'still here'"
