"""What code in a kernel can't get at: keys and processes that are not its own."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from kernels import open_repl

from rlm_kernel.kernels.confine import PROTECTIONS, landlock_abi

FOLDER = Path(__file__).parent
PACKAGE = FOLDER.parents[1]
CANARY = "sk-canary-77b1f8"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are confined on Linux only")
landlock = pytest.mark.skipif(landlock_abi() < 6, reason="this Linux has no Landlock of ABI 6")

# To Linux, root without capabilities is like an ordinary user; for where such a one can't run this Python.
_LOSE_CAPABILITIES = """
import ctypes, os, sys
from rlm_kernel.kernels import confine
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and confine._drop_capabilities(libc)
os.execvp(sys.argv[1], sys.argv[1:])
"""
_BECOME_NOBODY = """
import os, sys
user = int(sys.argv[1])
os.setgroups([]); os.setgid(user); os.setuid(user)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _as_user(user):
    """Return what to put before a command so that it runs as ``user``."""
    if user == "self":
        return []
    nobody = [sys.executable, "-c", _BECOME_NOBODY, str(pwd.getpwnam("nobody").pw_uid)]
    can = subprocess.run(
        [*nobody, sys.executable, "-c", "import ipykernel"], capture_output=True, check=False, cwd="/"
    )
    return nobody if can.returncode == 0 else [sys.executable, "-c", _LOSE_CAPABILITIES]


@landlock
@pytest.mark.parametrize("user", ["self", "ordinary"] if os.geteuid() == 0 else ["self"])
@pytest.mark.parametrize("fork", [True, False], ids=["forked", "started"])
def test_a_kernel_finds_no_key_and_reaches_no_process(user, fork, tmp_path):
    arguments = {"fork": fork, "cell": (FOLDER / "snoop.py").read_text()}
    # The shell is an ancestor that has the key as well; what follows keeps it from becoming the orchestrator.
    command = [sys.executable, str(FOLDER / "orchestrator.py"), json.dumps(arguments)]
    shell = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    tmp_path.chmod(0o777)
    with (
        subprocess.Popen(
            [*_as_user(user), *shell],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENAI_API_KEY": CANARY, "PYTHONPATH": str(PACKAGE), "TMPDIR": str(tmp_path)},
            text=True,
        ) as process,
        socket.socket(socket.AF_UNIX) as server,
    ):
        server.bind(f"\0rlm-test-{process.pid}")
        server.listen()
        facts = json.loads(process.stdout.readline())
        shown = json.loads(process.stdout.readline())
        process.stdin.close()
    assert facts["shell"] == process.pid
    assert len(facts["tree"]) == (5 if fork else 4)
    assert set(facts["holds"]) == set(PROTECTIONS)
    assert shown == ["{}"]
    assert process.returncode == 0


@landlock
def test_the_attempts_succeed_where_nothing_hinders_them():
    """An attempt that never works would prove nothing."""
    code = "import runpy, sys\nprint(runpy.run_path(sys.argv[1], {'facts': eval(sys.argv[2])})['found'])"
    with subprocess.Popen(["sleep", "100"]) as victim:
        facts = {"orchestrator": victim.pid, "shell": victim.pid, "tree": [], "folders": []}
        done = subprocess.run(
            [sys.executable, "-c", code, str(FOLDER / "snoop.py"), repr(facts)],
            env={**os.environ, "OPENAI_API_KEY": CANARY},
            capture_output=True,
            check=False,
            text=True,
        )
        victim.kill()
    assert done.returncode == 0, done.stderr
    for attempt in ("environ of", "maps of", "descriptors of", "signal to", "stop of"):
        assert f"{attempt} {victim.pid}" in done.stdout
    for attempt in ("own environment", "own first environment", "own memory"):
        assert attempt in done.stdout


ORDINARY = [
    ("import subprocess; subprocess.run(['echo', 'hi'], capture_output=True).stdout", "b'hi\\n'"),
    ("p = subprocess.Popen(['sleep', '99']); p.terminate(); p.wait()", "-15"),
    ("from multiprocessing import Pool\nwith Pool(2) as pool: print(pool.map(abs, [-1]))", ""),
    ("import os; os.mkdir('a'); open('b', 'w').close(); os.rename('b', 'a/b'); os.listdir('a')", "['b']"),
    ("import tempfile; tempfile.TemporaryFile().write(b'abc')", "3"),
    ("import threading; t = threading.Thread(target=int); t.start(); t.join(); 'joined'", "'joined'"),
    ("import asyncio; await asyncio.to_thread(int)", "0"),
    ("import sys; sys.stdout.isatty()", "False"),
    ("open('/proc/self/environ').close(); os.listdir('/proc/self/fd') != []", "True"),
]


@pytest.mark.parametrize("fork", [True, False], ids=["forked", "started"])
async def test_ordinary_work_goes_on(fork):
    async with open_repl(fork=fork) as repl:
        for code, shown in ORDINARY:
            assert (code, await repl.value(code)) == (code, shown)


async def test_a_cell_can_do_without_confinement():
    def privileges(status):
        return status.split("NoNewPrivs:")[1].split()[0]

    async with open_repl(confined=False) as repl:
        assert repl.session._transport.holds == ()
        status = await repl.value("open('/proc/self/status').read()")
        assert privileges(eval(status)) == privileges(Path("/proc/self/status").read_text())


async def test_another_kernel_cannot_listen_in():
    async with open_repl(("context", "secret")) as victim, open_repl() as other:
        folder = victim.session._transport.folder
        shown = await other.value(f"import os\n[n for n in os.listdir({folder!r}) if n.startswith('k')]")
        assert shown == "[]"
        assert await victim.value("context, llm_query('q')") == "('secret', 'reply to q')"
