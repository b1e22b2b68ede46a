"""What model-written code can do to its kernel: each ends in a next turn, with the context back.

The bound of a run here is its cell limit, the 2 s of grace, and the start of a fresh kernel; the tests allow
a generous multiple of it.
"""

from __future__ import annotations

import asyncio
import resource
import time

import pytest

from rlm_kernel import RLM, ScriptedModel

CELL_TIMEOUT = 2.0
BOUND = 30.0


def block(code):
    return f"```repl\n{code}\n```"


async def survive(code, check="[context, llm_query('q'), 'kept' in globals()]", **options):
    """Run ``code`` between two ordinary cells; return the value after it, and what was said of it."""
    root = ScriptedModel([block("kept = 1"), block(code), block(f"FINAL({check})")])
    rlm = RLM(
        model=root,
        sub_model=ScriptedModel(lambda request: "reply"),
        cell_timeout=options.pop("cell_timeout", CELL_TIMEOUT),
        **options,
    )
    started = time.monotonic()
    answer = await asyncio.wait_for(rlm.acompletion("What?", "the context"), BOUND)
    assert answer, answer.reason
    assert time.monotonic() - started < BOUND
    return answer.value, root.requests[2].messages[-1]["content"]


KEPT = ["the context", "reply", True]
LOST = ["the context", "reply", False]

DIES = {
    "exit": ("import os\nos._exit(3)", "exited with code 3"),
    "segfault": ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
    "abort": ("import os\nos.abort()", "SIGABRT"),
    "killed": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
}


@pytest.mark.parametrize("name", DIES)
async def test_death(name):
    code, cause = DIES[name]
    value, told = await survive(code)
    assert value == LOST
    assert cause in told
    assert "the context is loaded again" in told


STOPPED = {
    "loop": "while True: pass",
    "sleep": "import time\ntime.sleep(600)",
    "call that hangs": "import socket\na, b = socket.socketpair()\na.recv(1)",
    "backtracking": "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    "async": "import asyncio\nawait asyncio.sleep(600)",
}


@pytest.mark.parametrize("name", STOPPED)
async def test_a_cell_that_an_interrupt_stops_keeps_its_state(name):
    value, told = await survive(STOPPED[name])
    assert value == KEPT
    assert "time limit" in told


STUBBORN = {
    "swallows KeyboardInterrupt": """
import time
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass""",
    "swallows BaseException": """
while True:
    try:
        while True: pass
    except BaseException:
        pass""",
    "ignores SIGINT": """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True: time.sleep(1)""",
    "holds the interpreter": "import ctypes\nctypes.PyDLL(None).sleep(600)",
    "blocks signals": """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
while True: time.sleep(1)""",
}


@pytest.mark.parametrize("name", STUBBORN)
async def test_a_cell_that_no_interrupt_stops_is_killed(name):
    value, told = await survive(STUBBORN[name])
    assert value in (LOST, KEPT)
    assert "time limit" in told
    if value == LOST:
        assert "did not react to an interrupt" in told


HARMLESS = {
    "sys.exit": "import sys\nsys.exit(3)",
    "exit": "exit()",
    "input": "input('name?')",
    "recursion": "def f(): return f()\nf()",
    "fork": "import os\nif os.fork() == 0:\n    os._exit(0)",
    "fork that goes on": "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n    os._exit(0)",
    "deleted folder": "import os, shutil\nshutil.rmtree(os.getcwd())",
    "moved away": "import os\nos.chdir('/')",
    "names overwritten": "context = llm_query = FINAL = answer = None",
    "names deleted": "del context, llm_query, FINAL",
    "json patched": "import json\njson.loads = json.dumps = None",
    "print patched": "import builtins\nbuiltins.print = None",
    "stdout closed": "import sys\nsys.stdout.close()",
    "stdout replaced": "import sys\nsys.stdout = None",
    "descriptors closed": "import os\nos.close(1)\nos.close(2)",
    "hooks removed": "hooks = get_ipython().events.callbacks\nfor name in hooks: hooks[name] = []",
    "namespace cleared": "globals().clear()",
    "reset": "%reset -f",
    "guest removed": "import sys\nfor n in list(sys.modules):\n    if 'rlm_guest' in n: del sys.modules[n]",
    "guest broken": "import rlm_guest\nrlm_guest.cells._REPL.__class__ = object",
    "memory hog": "def hog():\n    a = []\n    while True: a.append(bytearray(10**9))\nhog()",
    "memory hog that stays": "hog = []\nwhile True: hog.append(bytearray(10**9))",
    "busy threads": """
import threading
def spin():
    while True: pass
for _ in range(2): threading.Thread(target=spin, daemon=True).start()""",
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_must_not_end_a_run(name):
    value, _ = await survive(HARMLESS[name], cell_timeout=5)
    assert value[:2] == ["the context", "reply"]


async def test_threads_left_behind_go_on_calling_in_vain():
    code = """
import threading, time
def again():
    while True:
        try: llm_query('again')
        except Exception: pass
threading.Thread(target=again, daemon=True).start()
time.sleep(0.3)"""
    sub = ScriptedModel(lambda request: "reply")
    root = ScriptedModel([block(code), block("import time; time.sleep(1)"), block("FINAL(1)")])
    answer = await RLM(model=root, sub_model=sub).acompletion("What?", "text")
    assert answer.value == 1
    turns = [message["content"] for message in answer.messages if message["role"] == "user"]
    assert len(turns) == 3
    # Only the first cell's calls were answered and billed.
    assert answer.total_calls == 3 + len(sub.requests)
    before = len(sub.requests)
    await asyncio.sleep(0.2)
    assert len(sub.requests) == before


FLOODS = {
    "one print of a gigabyte": "print('x' * 10**9)",
    "many small prints": "for i in range(700_000): print(i)",
    "a subprocess": "import os\n_ = os.system('head -c 200000000 /dev/zero')",
    "stderr": "import sys\nfor i in range(200_000): print(i, file=sys.stderr)",
    "displays": "for i in range(20_000): display(i)",
    "an enormous value": "'x' * 10**9",
    "an enormous error": "raise ValueError('x' * 10**8)",
}


@pytest.mark.parametrize("name", FLOODS)
async def test_floods_stay_in_the_kernel(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value, told = await survive(FLOODS[name], cell_timeout=25)
    assert value[:2] == ["the context", "reply"]
    assert len(told) < 70_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


async def test_the_loop_is_not_held_up_by_a_flood():
    longest = 0.0

    async def heartbeat():
        nonlocal longest
        while True:
            then = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - then)

    beating = asyncio.create_task(heartbeat())
    await survive("for i in range(300_000): print(i)", cell_timeout=25)
    beating.cancel()
    assert longest < 2.0


async def test_fifty_runs_at_once_do_not_mix():
    async def one(number):
        root = ScriptedModel(
            [block(f"mine = {number}\nr = llm_query('{number}')"), block("FINAL([mine, r, context])")]
        )
        sub = ScriptedModel(lambda request: request.messages[0]["content"])
        return (await RLM(model=root, sub_model=sub).acompletion("What?", f"context {number}")).value

    values = await asyncio.gather(*(one(number) for number in range(50)))
    assert values == [[n, str(n), f"context {n}"] for n in range(50)]
