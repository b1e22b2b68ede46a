"""Runs in the user's own shell: in a real ipykernel, and in IPython's shell without one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from jupyter_client import KernelManager

from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

ROOT = Path(__file__).parents[2]
KEY = "sk-canary-shell-0123456789"
HELPERS = """
import asyncio, signal, sys, threading, time
from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.repl.shell import Shell

def block(code):
    return "```repl\\n" + code + "\\n```"

def played(*codes, sub=lambda request: "<" + request.messages[-1]["content"][:40] + ">", **options):
    root = ScriptedModel([block(code) for code in codes], name="root")
    return RLM(model=root, sub_model=ScriptedModel(sub, name="sub"), **{"repl": "shell", **options})

def shown(answer, turn=-1):
    return "".join(output.text for output in answer.repl_history[turn].outputs)
"""


class Notebook:
    """A kernel, and a client that runs cells in it as a frontend does."""

    def __init__(self, environment):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def begin(self, code):
        return self.client.execute(code)

    def end(self, request, timeout=60):
        """Return (status, text) of what was begun: all that the user is shown."""
        texts = []
        while True:
            message = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                texts.append(content["text"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                texts.append(content["data"].get("text/plain", ""))
            elif message["msg_type"] == "error":
                texts.append(f"{content['ename']}: {content['evalue']}")
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
        while True:
            reply = self.client.get_shell_msg(timeout=timeout)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]["status"], "".join(texts)

    def run(self, code):
        status, text = self.end(self.begin(code))
        assert status == "ok", text
        return text

    def until(self, folder, name):
        """Wait until a cell has made the file of this name."""
        deadline = time.monotonic() + 30
        while not (folder / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def answer_over_http(request):
    if len(request.messages) < 4:
        return "```repl\nrows = context.execute('select count(*) from t').fetchone()\n```"
    return "```repl\nFINAL(f'{rows[0]} rows, ' + llm_query('say hello'))\n```"


@pytest.fixture(scope="module")
def served():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    models = {
        "root": ScriptedModel(answer_over_http, name="root"),
        "sub": ScriptedModel(lambda request: "hello", name="sub"),
    }
    server = ScriptedServer(models, api_key=KEY)
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(30)
    yield server
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def notebook(served):
    notebook = Notebook(
        {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": served.base_url,
            "OPENAI_API_KEY": KEY,
            "PYTHONWARNINGS": "error::ResourceWarning",
        }
    )
    notebook.run(HELPERS + "\n_ = played('FINAL(1)').completion('q', 'said once')")
    yield notebook
    notebook.close()


# What a run finds, and leaves -------------------------------------------------------------------------


def test_a_run_over_an_open_connection_asks_an_endpoint(notebook):
    text = notebook.run(
        "import sqlite3\n"
        "db = sqlite3.connect(':memory:')\n"
        "_ = db.execute('create table t(a)'); _ = db.executemany('insert into t values (?)', [(1,), (2,)])\n"
        "with RLM(model='root', sub_model='sub', repl='shell') as rlm:\n"
        "    answer = rlm.completion('How many?', db)\n"
        "print(answer.status, answer)"
    )
    assert text == "answered 2 rows, hello\n"


def test_names_of_the_user_are_shadowed_inside_and_untouched_outside(notebook):
    notebook.run("context, answer, FINAL, limit, mine = 'mine', 'my answer', 'my final', 3, 'user'")
    text = notebook.run(
        "found = played('mine = limit + len(context)\\ndef twice(n):\\n    return n * 2 * limit\\n"
        "answer[\"content\"] = mine', 'FINAL([mine, twice(2), _rlm_ns.mine, sorted(SHOW_VARS().split())[0]])'"
        ").completion('q', 'four')\n"
        "print(found.value, context, answer, FINAL, mine, limit, _rlm_ns, _rlm_ns.mine, _rlm_ns.twice(1))"
    )
    assert text == (
        "[7, 12, 7, 'function'] mine my answer my final user 3 <variables of the model: mine, twice> 7 6\n"
    )
    assert notebook.run("print([name for name in dir() if 'llm' in name or name == 'twice'])") == "[]\n"


def test_shared_variables_stay_and_the_names_of_the_repl_do_not(notebook):
    notebook.run("context, answer, kept = 'mine', 'my answer', [1]")
    text = notebook.run(
        'found = played(\'kept.append(len(context)); made = 5; answer["content"] = "draft"\','
        " 'answer[\"ready\"] = True', share=True).completion('q', 'four')\n"
        "print(found.status, found, kept, made, context, answer, 'llm_query' in globals())"
    )
    assert text == "answered draft [1, 4] 5 mine my answer False\n"


def test_a_large_array_is_not_copied(notebook):
    text = notebook.run(
        "import numpy, resource\n"
        "big = numpy.ones(300_000_000, dtype='uint8')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = played('same = context is big\\nFINAL([same, int(context.sum())])').completion('q', big)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "print(found.value, grown < 100_000 or grown)\ndel big"
    )
    assert text == "[True, 300000000] True\n"


def test_outputs_are_captured_cut_and_given_back(notebook):
    text = notebook.run(
        'code = \'\'\'import subprocess, sys\nprint("out"); print("err", file=sys.stderr)\n'
        'subprocess.run(["echo", "from a subprocess"])\nfrom IPython.display import display, HTML\n'
        "display(HTML(\"<b>bold</b>\"))\n6 * 7'''\n"
        "found = played(code, 'print(\"x\" * 10**6)', '1 +', 'raise ValueError(\"no\")', '7;', 'FINAL(_)')"
        ".completion('q', 'c')\n"
        "print(found.value, sorted((each.kind, each.text[:30]) for each in found.repl_history[0].outputs))\n"
        "print([len(shown(found, 1)), found.repl_history[2].outputs[-1].name, shown(found, 3)[-14:]])"
    )
    first, second = text.splitlines()
    assert first == (
        "42 [('display', '<IPython.core.display.HTML obj'), ('result', '42'), ('stderr', 'err\\n'), "
        "('stdout', 'from a subprocess\\n'), ('stdout', 'out\\n')]"
    )
    assert second.endswith("'SyntaxError', 'ValueError: no']")
    assert int(second[1:].split(",")[0]) < 20_100


def test_the_user_sees_outputs_if_asked(notebook):
    text = notebook.run(
        "_ = played('print(\"seen\"); 6 * 7', 'FINAL(1)', repl=Shell(show=True)).completion('q', 'c')"
    )
    assert text == "seen\n42"


def test_cells_await_and_threads_ask(notebook):
    code = repr(
        "both = await asyncio.gather(allm_query('a'), allm_query('b'))\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n    more = list(pool.map(llm_query, 'cd'))\n"
        "print('main')\nthread = threading.Thread(target=print, args=('thread',))\n"
        "thread.start(); thread.join()\n"
        "[*both, *more, *llm_query_batched(['e', 'f'])]"
    )
    text = notebook.run(
        f"found = played({code}, 'FINAL(_)').completion('q', 'c')\nprint(found.value, shown(found, 0))"
    )
    assert text.startswith("['<a>', '<b>', '<c>', '<d>', '<e>', '<f>'] main\nthread\n[")
    awaited = notebook.run(
        f"found = await played({code}, 'FINAL(_)').acompletion('q', 'c')\nprint(found.value)"
    )
    assert awaited == "['<a>', '<b>', '<c>', '<d>', '<e>', '<f>']\n"


def test_awaited_runs_leave_the_loop_to_others(notebook):
    text = notebook.run(
        "seen = []\n"
        "async def tick():\n    while len(seen) < 3:\n        seen.append(1)\n"
        "        print('user')\n        await asyncio.sleep(0.01)\n"
        "ticking = asyncio.create_task(tick())\n"
        "found = await played('while len(seen) < 3:\\n    await asyncio.sleep(0.01)\\nprint(len(seen))',"
        " 'FINAL(1)').acompletion('q', 'c')\n"
        "print(shown(found, 0), found.status)"
    )
    assert text == "user\nuser\nuser\n3\n answered\n"


def test_what_the_user_deletes_is_gone(notebook):
    text = notebook.run(
        "import gc, weakref\n"
        "class Big:\n    pass\n"
        "big = Big()\nseen = weakref.ref(big)\n"
        "found = played('n = 1\\ncontext', '1/0', 'FINAL([n, twice(4)])', tools={'twice': lambda n: 2 * n})"
        ".completion('q', big)\n"
        "del big; _ = gc.collect()\nprint(found.value, seen() is None, _rlm_ns)"
    )
    assert text == "[1, 8] True <variables of the model: n>\n"


def test_events_stream_and_live_runs_and_sessions_work(notebook):
    text = notebook.run(
        "types = [event.type async for event in played('FINAL(1)').stream('q', 'c')]\n"
        "print(types[0], types[-1])\n"
        "run = played('n = len(context)', 'FINAL(n)').start('q', 'c')\nprint((await run).value)\n"
        "print(played('n = len(context)', 'FINAL(n)').start('q', 'c').wait().value)\n"
        "async def ask():\n    async with played('n = len(context)\\nFINAL(n)', 'FINAL([n, len(context_0)])')"
        ".session('abc') as session:\n        first = await session.aask('one')\n"
        "        return first.value, (await session.aask('two', 'zz')).value\nprint(await ask())\n"
        "with played('n = 5\\nFINAL(n)', 'FINAL(n)').session('abc') as session:\n"
        "    print(session.ask('one').value, session.ask('two').value)"
    )
    assert text == "run_started run_finished\n1\n1\n(3, [3, 3])\n5 5\n"


def test_children_have_kernels_of_their_own(notebook):
    text = notebook.run(
        "import os\n"
        "root = ScriptedModel([block('FINAL([os.getpid(), rlm_query(\"who\", [1, 2])])')], name='root')\n"
        "child = ScriptedModel([block('import os\\nFINAL([os.getpid(), context])')], name='child')\n"
        "events = []\n"
        "with RLM(model=[root, child], repl='shell', max_depth=2, spare_kernels=0) as rlm:\n"
        "    found = rlm.completion('q', 'c', readers=[events.append])\n"
        "mine, child = found.value[0], eval(found.value[1])\n"
        "print(mine == os.getpid(), child[0] != mine, child[1],"
        " [event.backend for event in events if event.type == 'kernel_started'])"
    )
    assert text == "True True [1, 2] ['shell', 'local']\n"


# Interrupts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["while True: pass", "time.sleep(60)", "await asyncio.sleep(60)", "llm_query('x')"]
)
@pytest.mark.parametrize("call", ["{}.completion('q', 'c')", "await {}.acompletion('q', 'c')"])
def test_a_cell_past_its_time_is_interrupted(notebook, code, call):
    rlm = f"played('kept = 1', {code!r}, 'FINAL(kept)', cell_timeout=0.3, sub=slow)"
    text = notebook.run(
        "async def slow(request):\n    await asyncio.sleep(60)\n"
        f"found = {call.format(rlm)}\n"
        "print(found.value, [each.status for each in found.repl_history],"
        " 'the time limit; your variables are kept' in str(found.messages[-2]))\n"
        "print('still here')"
    )
    assert text == "1 ['ok', 'timed_out', 'ok'] True\nstill here\n"


@pytest.mark.parametrize("call", ["{}.completion('q', 'c')", "await {}.acompletion('q', 'c')"])
def test_the_users_interrupt_ends_the_run(notebook, call, tmp_path):
    there = str(tmp_path / "there")
    code = f"open({there!r}, 'w').close()\ntry:\n    time.sleep(60)\nexcept BaseException:\n    pass"
    rlm = f"played({code!r}, 'FINAL(1)', readers=[events.append])"
    request = notebook.begin(f"events = []\nkept = 'kept'\n{call.format(rlm)}")
    notebook.until(tmp_path, "there")
    notebook.manager.interrupt_kernel()
    status, text = notebook.end(request)
    assert status == "error"
    assert text.startswith(("KeyboardInterrupt", "CancelledError"))
    assert notebook.run("print(kept, events[-1].type, events[-1].status)") == "kept run_finished cancelled\n"


def test_a_cell_that_swallows_interrupts_fails_the_run_and_leaves_the_kernel(notebook):
    code = (
        "end = time.monotonic() + 2.8\nwhile time.monotonic() < end:\n    try:\n        time.sleep(0.1)\n"
        "    except KeyboardInterrupt:\n        pass\n"
    )
    text = notebook.run(
        f"found = played({code!r}, 'FINAL(1)', cell_timeout=0.2).completion('q', 'c')\n"
        "print(found.status, '|', found.reason)\nprint(played('FINAL(2)').completion('q', 'c'))"
    )
    warned, outcome, after = text.splitlines()
    assert warned == "rlm-kernel: a cell of the model can't be stopped: it did not react to an interrupt"
    assert outcome.startswith("failed | the cell can't be stopped")
    assert "repl='local' kills such cells" in outcome
    assert after == "2"


# Other shells -----------------------------------------------------------------------------------------


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", HELPERS + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_shell_without_a_kernel():
    done = python(
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "ip = InteractiveShell.instance()\n"
        "places = ('user_ns', 'user_module', 'displayhook', 'display_pub', 'events', 'display_trap',"
        " 'loop_runner', '_showtraceback')\n"
        "def state():\n    mine = [getattr(ip, name) for name in places]\n"
        "    handler = signal.getsignal(signal.SIGINT)\n"
        "    return mine, handler, sys.stdout, sys.stderr, sys.displayhook, threading.Thread.start\n"
        "before = state()\n"
        "code = 'print(await allm_query(\"a\"))\\n!echo shell\\n%who_ls\\nexit()\\n_'\n"
        "ip.user_ns['rlm'] = played(code, 'FINAL(1)')\n"
        'ip.run_cell(\'found = rlm.completion("q", "c")\')\n'
        "found = ip.user_ns['found']\n"
        "print(found.status, state() == before, [shown(found, 0)])\n"
        "print(played('FINAL(len(context))').completion('q', 'outside of a cell'))"
    )
    assert done.returncode == 0, done.stderr
    status, same, rest = done.stdout.splitlines()[0].split(" ", 2)
    assert (status, same) == ("answered", "True")
    assert "<a>\\nshell" in rest
    assert "exit: the REPL goes on" in rest
    assert done.stdout.splitlines()[1] == "17"
    assert done.stderr.count("runs what the model writes in this process") == 1


def test_without_a_shell_nothing_is_spent():
    done = python(
        "from rlm_kernel.errors import ConfigError\n"
        "rlm = played('FINAL(1)')\n"
        "try:\n    rlm.completion('q', 'c')\n"
        "except ConfigError as error:\n    print(error, '|', error.hint)\n"
        "try:\n    RLM(model=ScriptedModel([]), share=True)\nexcept ConfigError as error:\n    print(error)"
    )
    assert done.stdout == (
        "repl='shell' runs cells in an IPython shell, and this process has none | use it in a notebook or in "
        "ipython, or take repl='local'\nshare=True has no meaning without repl='shell'\n"
    )
