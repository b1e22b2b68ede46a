"""The native sandbox: ordinary kernels in it, for this package and any Jupyter client, or none at all."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import client
import pytest
from kernels import Repl

from rlm_kernel import RLM
from rlm_kernel.context import Context
from rlm_kernel.errors import ConfigError, KernelStartError
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.repl.sandbox.cgroup import Cgroup, available
from rlm_kernel.repl.sandbox.limits import SandboxLimits
from rlm_kernel.repl.sandbox.machine import machine
from rlm_kernel.repl.sandbox.transport import Sandbox, SandboxTransport
from rlm_kernel.repl.session import JupyterSession

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
IS_ROOT = os.geteuid() == 0

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the native sandbox needs Linux"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]


@asynccontextmanager
async def open_sandbox(*contexts, limits=None, env=None):
    session = JupyterSession(SandboxTransport(limits, env=env))
    try:
        await session.start(contexts)
        yield Repl(session)
    finally:
        await session.close()


LOOPBACK = """
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).send(b"")
"""
ORDINARY = [
    ("context, len(more), llm_query('q')", "('one\\ntwo', 3000000, 'reply to q')"),
    ("import numpy, pandas; int(pandas.DataFrame({'a': numpy.arange(4)}).a.sum())", "6"),
    ("import subprocess; subprocess.run('echo hi', shell=True, capture_output=True).stdout", "b'hi\\n'"),
    ("from multiprocessing import Pool\nwith Pool(2) as pool: print(pool.map(abs, [-1]))", ""),
    ("import threading; t = threading.Thread(target=int); t.start(); t.join(); 'joined'", "'joined'"),
    (
        "import asyncio; await asyncio.gather(allm_query('a'), allm_query('b'))",
        "['reply to a', 'reply to b']",
    ),
    ("import tempfile; tempfile.TemporaryFile().write(b'abc')", "3"),
    (
        "import getpass, os; getpass.getuser(), os.path.expanduser('~'), os.getcwd()",
        "('rlm', '/home/rlm', '/home/rlm')",
    ),
    (LOOPBACK, "0"),
    ("sorted(os.listdir('/rlm'))", "['group', 'passwd', 'rlm_sandbox']"),
    ("os.environ['GIVEN'], 'OPENAI_API_KEY' in os.environ", "('yes', False)"),
]


async def test_ordinary_work_goes_on(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-sandbox")
    contexts = [Context.of("context", "one\ntwo"), Context.of("more", "abc" * 1_000_000)]
    async with open_sandbox(*contexts, env={"GIVEN": "yes"}) as repl:
        for code, shown in ORDINARY:
            assert (code, await repl.value(code)) == (code, shown)
        status = dict(
            line.split(":\t")
            for line in eval(await repl.value("open('/proc/self/status').read()")).splitlines()
        )
        assert status["CapBnd"] == "0" * 16
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert int(status["Uid"].split()[0]) != 0


async def test_a_lazy_context_is_read_where_it_lies():
    context = replace(Context.of("context", "needle " + "hay " * 100_000), lazy=True)
    async with open_sandbox(context) as repl:
        assert await repl.value("type(context).__name__, context[:6]") == "('LazyText', 'needle')"


async def test_a_cell_is_interrupted_and_a_kernel_that_dies_is_seen():
    async with open_sandbox() as repl:
        result = await repl.run("while True: pass", timeout=0.5)
        assert (result.status, result.lost) == ("timed_out", "")
        assert await repl.value("1") == "1"
        result = await repl.run("import os; os._exit(3)")
        assert result.status == "died"
        assert "exited with code 3" in result.lost


async def test_a_run_in_the_sandbox_with_spare_kernels(tmp_path):
    (tmp_path / "notes.txt").write_text("alpha\nbeta\n")

    def reply(request):
        if "lines" in str(request.messages[-1]) and len(request.messages) > 2:
            return "FINAL_VAR(lines)"
        code = "import os\nlines = len(context.splitlines()), os.path.exists('/rlm')\nprint('lines', lines)"
        return f"```repl\n{code}\n```"

    events = []
    model = ScriptedModel(reply, name="m")
    async with RLM(model, repl="sandbox", spare_kernels=1, readers=[events.append]) as rlm:
        for _ in range(2):
            answer = await rlm.acompletion("How many?", tmp_path / "notes.txt")
            assert (answer.status, answer.text) == ("answered", "(2, True)"), answer.reason
    assert {event.backend for event in events if hasattr(event, "backend")} == {"sandbox"}


async def test_limits_of_the_callers_own():
    limits = SandboxLimits(memory=256, open_files=200, processes=100)
    async with RLM(ScriptedModel("map_reduce"), repl=Sandbox(limits)) as rlm:
        assert rlm._backend.name == "sandbox"
    async with open_sandbox(limits=limits) as repl:
        assert await repl.value("import resource as r; r.getrlimit(r.RLIMIT_NOFILE)") == "(200, 200)"
        result = await repl.run("x = bytearray(300 << 20)")
        assert "MemoryError" in result.outputs[-1].text
        holds = repl.session._transport._manager.provisioner.holds
    assert set(holds) == set(available())
    with pytest.raises(ConfigError, match="memory is 0"):
        SandboxLimits(memory=0)


def test_control_groups_hold_and_go():
    group = Cgroup.create(SandboxLimits(memory=64, processes=20).tree)
    try:
        assert set(group.holds) == set(available())
        for folder in group.folders:
            child = subprocess.Popen(["sleep", "100"])
            (folder / "cgroup.procs").write_text(str(child.pid))
            assert str(child.pid) in (folder / "cgroup.procs").read_text().split()
            child.kill()
            child.wait()
    finally:
        group.remove()
    assert not any(folder.exists() for folder in group.folders)
    # One whose owner is gone is removed by whoever comes next.
    for parent in {folder.parent for folder in group.folders}:
        (parent / "rlm-999999999-1").mkdir()
    Cgroup.create(SandboxLimits().tree).remove()
    assert not any((folder.parent / "rlm-999999999-1").exists() for folder in group.folders)


def test_nothing_is_left_when_the_orchestrator_is_killed():
    code = """
import asyncio, sys
from rlm_kernel.repl.sandbox.transport import SandboxTransport
from rlm_kernel.repl.session import JupyterSession
async def main():
    session = JupyterSession(SandboxTransport())
    await session.start([])
    print(session._transport._process.pid, session._transport.folder, flush=True)
    await session.execute("import os\\nos.fork(); os.setsid()\\nwhile True: pass", timeout=None, on_call=None)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as process:
        pid, folder = process.stdout.readline().split()
        assert os.path.isdir(folder)
        end = os.pidfd_open(int(pid))
        process.kill()
    with os.fdopen(end):
        assert select.select([end], [], [], 30)[0]
    guards = subprocess.run(
        ["pgrep", "-f", folder], capture_output=True, text=True, check=False
    ).stdout.split()
    for guard in guards:
        try:
            select.select([os.pidfd_open(int(guard))], [], [], 30)
        except ProcessLookupError:
            continue
    assert not os.path.exists(folder)


def run_client(script, folder, *words, kernel="rlm-sandbox"):
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *words],
        env=client.environment(folder, kernel),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_any_jupyter_client_can_use_it(tmp_path):
    done = run_client("sandbox_client.py", tmp_path)
    assert done.stdout == "all of it\n", done.stderr


def test_it_is_a_jupyter_kernel_by_jupyters_own_tests(tmp_path):
    done = run_client("conformance.py", tmp_path, "rlm-sandbox")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "executed 13, skipped 0", done.stdout + done.stderr


_LOSE_CAPABILITIES = """
import ctypes, os, sys
from rlm_kernel.kernels import confine
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and confine._drop_capabilities(libc)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_TRY = """
import asyncio
from rlm_kernel import RLM
from rlm_kernel.models.scripted import ScriptedModel
asked = []
def reply(request):
    asked.append(request)
    return "FINAL(1)"
try:
    RLM(ScriptedModel(reply), repl="sandbox").completion("q", "context")
except Exception as error:
    print(type(error).__name__, "|", error, "|", error.hint, "|", len(asked))
else:
    print("it started")
"""


def refusal(*before, **environment):
    """Try a run where there can't be a sandbox, and return what it says."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [*before, sys.executable, "-c", _TRY],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder, "HOME": folder, **environment},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    kind, message, hint, asked = (
        done.stdout.split(" | ") if " | " in done.stdout else (done.stdout + done.stderr, "", "", "")
    )
    assert kind == "SandboxUnavailableError"
    # Nothing was spent.
    assert asked.strip() == "0"
    return message, hint


def test_it_is_refused_without_bubblewrap(tmp_path):
    message, hint = refusal(PATH=str(tmp_path))
    assert "no program `bwrap`" in message
    assert "apt-get install bubblewrap" in hint


def test_it_is_refused_with_an_old_bubblewrap(tmp_path):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho bubblewrap 0.4.1\n")
    (tmp_path / "bwrap").chmod(0o755)
    message, _ = refusal(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert "needs bubblewrap 0.8 or newer, and this is 0.4.1" in message


@pytest.mark.skipif(not IS_ROOT, reason="only root can be root without capabilities")
def test_it_is_refused_to_root_without_capabilities():
    message, hint = refusal(sys.executable, "-c", _LOSE_CAPABILITIES)
    assert "root without CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_NET_ADMIN, CAP_SYS_ADMIN" in message
    assert "ordinary user" in hint


@pytest.mark.skipif(not IS_ROOT, reason="only root can forbid user namespaces to others")
def test_it_is_refused_where_user_namespaces_are():
    sys.path.insert(0, str(ROOT / "tests" / "attacks"))
    from ordinary import as_nobody

    inner = ["bwrap", "--unshare-user", "--disable-userns", "--dev-bind", "/", "/"]
    message, hint = refusal(*as_nobody(), *inner)
    assert "the sandbox can't be made here" in message
    assert "namespace" in hint


async def test_a_command_that_is_no_python_module_is_refused():
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    from rlm_kernel.repl.sandbox.provisioner import SandboxProvisioner

    manager = AsyncKernelManager()
    spec = manager._kernel_spec = KernelSpec(argv=["/bin/sh", "{connection_file}"], metadata={})
    manager.provisioner = SandboxProvisioner(kernel_id="x", kernel_spec=spec, parent=manager)
    try:
        with pytest.raises(KernelStartError, match="python -m MODULE"):
            await manager.start_kernel()
    finally:
        await manager.cleanup_resources()


def test_this_machine_has_a_sandbox():
    assert machine().as_root == IS_ROOT
    for flag in ("net", "pid", "ipc", "uts"):
        assert f"--unshare-{flag}" in machine().flags
