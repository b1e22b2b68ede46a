"""``repl="pyodide"``: the same engine, wire and guest as `local`, with Python in WebAssembly."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import psutil
import pytest
from wasm import needs_deno, open_sandbox

from rlm_kernel import RLM
from rlm_kernel.context import Context
from rlm_kernel.errors import ConfigError
from rlm_kernel.models.scripted import ScriptedModel

pytestmark = needs_deno


@pytest.fixture
async def repl():
    async with open_sandbox(("context", "one\ntwo\nthree")) as repl:
        yield repl


async def test_cells_and_calls_are_those_of_any_kernel(repl):
    assert await repl.value("context.split()") == "['one', 'two', 'three']"
    assert await repl.value("llm_query_batched(['a', 'fail'])") == (
        "['reply to a', [call failed, model: the model refused]]"
    )
    assert await repl.value("rlm_query('q', 'z' * 9_000_000)[1] == repr('z' * 9_000_000)") == "True"
    assert await repl.value("budget()['calls']") == "7"
    result = await repl.run("kept = [1]\nprint('seen')\nFINAL({'a': kept})")
    assert result.final.value == {"a": [1]}
    assert result.variables == ("kept",)
    assert [(each.kind, each.text) for each in result.outputs] == [("stdout", "seen\n")]


async def test_tracebacks_show_the_lines_of_the_cell_and_no_others(repl):
    await repl.run("def broken():\n    return 1 / 0")
    result = await repl.run("x = 1\n\nbroken()")
    lines = result.outputs[-1].text.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "Cell In[2]", line 3, in <module>'
    assert '  File "Cell In[1]", line 2, in broken' in lines
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "rlm" not in result.outputs[-1].text


async def test_awaited_calls_are_in_flight_together(repl):
    # Long enough for the last to be sent on a busy machine before the first has its answer.
    repl.delay = 1.0
    code = "import asyncio\n(await asyncio.gather(*[allm_query(str(n)) for n in range(20)]))[::19]"
    assert await repl.value(code) == "['reply to 0', 'reply to 19']"
    assert repl.most_in_flight == 20


async def test_a_pool_of_threads_works_in_turn_where_there_are_none(repl):
    code = (
        "from concurrent.futures import ThreadPoolExecutor\nlist(ThreadPoolExecutor(4).map(llm_query, 'abc'))"
    )
    assert await repl.value(code) == "['reply to a', 'reply to b', 'reply to c']"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\ntime.sleep(100)",
        "import asyncio\nawait asyncio.sleep(100)",
        "llm_query('slow')",
        "import asyncio\nawait asyncio.gather(*[allm_query('slow') for _ in range(5)])",
    ],
)
async def test_a_cell_past_its_time_is_interrupted_and_its_late_answer_dropped(repl, code):
    await repl.run("kept = 5")
    repl.delay = 100.0
    result = await repl.run(code, timeout=0.5)
    assert (result.status, result.lost) == ("timed_out", "")
    # A call is cancelled first: that may be what the cell hears of.
    assert result.outputs[-1].name in ("KeyboardInterrupt", "CallFailed")
    assert not [each.text for each in result.outputs if each.kind == "stderr"]
    repl.delay = 0.0
    assert await repl.value("kept, llm_query('next')") == "(5, 'reply to next')"


async def test_no_interrupt_is_lost(repl):
    """Python empties the place where interrupts are noted each time that it looks."""
    for _ in range(80):
        began = asyncio.Event()
        cell = asyncio.create_task(
            repl.run(
                "print('began', flush=True)\nwhile True: pass",
                on_output=lambda output, began=began: began.set(),
            )
        )
        await began.wait()
        await asyncio.sleep(0.01)
        await repl.session.interrupt()
        result = await cell
        assert (result.status, result.outputs[-1].name) == ("error", "KeyboardInterrupt")


async def test_an_interrupt_before_the_kernel_begins_is_made_again(repl):
    await repl.run("kept = 5")
    await repl.run("1/0")
    result = await repl.run("while True: pass", timeout=0.001)
    assert (result.status, result.lost) == ("timed_out", "")
    assert await repl.value("kept") == "5"


async def test_an_interrupt_after_the_code_is_not_the_end_of_python(repl):
    """It comes in a step of the agent's own, while the error of a cell that awaited is told."""
    code = """
import asyncio, functools, signal
class Late(Exception):
    __str__ = staticmethod(functools.partial(signal.raise_signal, signal.SIGINT))
kept = 5
await asyncio.sleep(0)
raise Late
"""
    result = await repl.run(code)
    assert (result.status, result.outputs[-1].name) == ("error", "Late")
    assert await repl.value("kept, llm_query('next')") == "(5, 'reply to next')"


async def test_contexts_of_all_kinds_arrive_whole():
    values = {
        "text": "caf\u00e9 \u4e2d\u6587 \ud800" * 2_000_000,
        "raw": os.urandom(5_000_000),
        "rows": [{"n": n, "s": "x" * 20} for n in range(20_000)],
        "table": {f"k{n}": (n, None, 1.5) for n in range(1000)},
    }
    async with open_sandbox(*values.items()) as repl:
        for name, value in values.items():
            assert (
                await repl.value(f"len({name}), type({name}).__name__")
                == f"({len(value)}, {type(value).__name__!r})"
            )
        assert await repl.value("import hashlib; hashlib.sha256(raw).hexdigest()") == repr(
            __import__("hashlib").sha256(values["raw"]).hexdigest()
        )
        assert await repl.value("text == 'caf\\u00e9 \\u4e2d\\u6587 \\ud800' * 2_000_000") == "True"
        assert await repl.value("rows[-1]['n'], table['k999']") == "(19999, (999, None, 1.5))"
        assert await repl.value("import os; os.listdir('/contexts')") == "[]"


@pytest.mark.parametrize("widest", ["z", "\u00ff", "\uffff", "\udfff", "\U0010ffff"])
async def test_a_large_text_is_the_same_over_there(widest):
    # Its characters are written into Python's memory: the text must be as if Python had made it.
    text = "0123456789" * 450_000 + widest + "\0 end"
    async with open_sandbox(("context", text)) as repl:
        made = f"made = '0123456789' * 450_000 + {widest!a} + '\\0 end'"
        await repl.run(made)
        assert await repl.value("context == made, hash(context) == hash(made), len(context)") == str(
            (True, True, len(text))
        )
        assert await repl.value("context.isascii(), ascii(context[-8:]), context.find('end')") == str(
            (text.isascii(), ascii(text[-8:]), text.find("end"))
        )
        assert await repl.value("import sys; sys.getsizeof(context) == sys.getsizeof(made)") == "True"
        same = "context.encode('utf-8', 'surrogatepass') == made.encode('utf-8', 'surrogatepass')"
        assert await repl.value(same) == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
async def test_100_mb_of_context_take_less_than_560_mb_beside_the_caller():
    text = ("lorem ipsum dolor sit amet, consectetur " * 250)[:10_000] * 10_000
    async with open_sandbox(("context", text)) as repl:
        assert await repl.value("len(context), context.count('dolor')") == f"({10**8}, {text.count('dolor')})"
        root = psutil.Process(repl.session._transport._process.pid)
        peaks = [
            Path(f"/proc/{each.pid}/status").read_text() for each in [root, *root.children(recursive=True)]
        ]
    kib = sum(int(re.search(r"VmHWM:\s+(\d+)", each)[1]) for each in peaks)
    assert kib * 1024 < 560_000_000


async def test_a_further_context_takes_its_place(repl):
    await repl.session.load([Context.of("context", "second")], {"context": "context_0"})
    assert await repl.value("context, context_0[:3]") == "('second', 'one')"


async def test_the_end_of_a_sandbox_is_told_with_its_cause(repl):
    result = await repl.run("import os\nos.abort()")
    assert result.status == "died"
    assert "the sandbox ended: Python could not go on: unreachable" in result.lost
    assert not repl.session.alive


async def test_one_that_ends_between_two_cells_is_noticed(repl):
    process = repl.session._transport._process
    [child] = [each for each in psutil.Process(process.pid).children() if "deno" in each.name()]
    child.kill()
    await asyncio.wait_for(process.wait(), 10)
    assert not repl.session.alive


async def test_sandboxes_of_one_snapshot_draw_other_numbers():
    drawn = []
    for _ in range(2):
        async with open_sandbox() as repl:
            drawn.append(
                await repl.value(
                    "import random, uuid; random.random(), uuid.uuid4().hex, random.getrandbits(64)"
                )
            )
    assert drawn[0] != drawn[1]
    assert not set(drawn[0].split(", ")) & set(drawn[1].split(", "))


async def test_input_between_descriptors_and_streams_is_kept_in_bounds(repl):
    result = await repl.run("import os\nos.write(1, b'by descriptor')\nos.write(2, b'x' * 3_000_000)")
    texts = {each.kind: each.text for each in result.outputs}
    assert "by descriptor" in texts["stdout"]
    assert len(texts["stderr"]) < 25_000


def test_a_scripted_run_is_answered():
    context = "\n".join(f"line {n}: apples" for n in range(3000))
    models = {
        "model": ScriptedModel("map_reduce", name="root"),
        "sub_model": ScriptedModel("reader", name="sub"),
    }
    with RLM(repl="pyodide", spare_kernels=0, **models) as rlm:
        answer = rlm.completion("How often is 'apples' there?", context)
    assert answer.status == "answered"
    assert "3000" in answer.text
    assert answer.total_calls > 1


async def test_the_pool_hands_out_each_sandbox_once(monkeypatch):
    from rlm_kernel.repl import pool as pools
    from rlm_kernel.repl.pyodide.transport import pyodide_session

    monkeypatch.setattr(pools, "FILL_DELAY_SECONDS", 0.0)
    pool = pools.Pool(pyodide_session, size=1)
    first = pool.take()
    try:
        await pool._filling
        second = pool.take()
        assert second.alive
        await second.start([Context.of("context", "x")])
        assert second is not first
        assert second not in pool._spares
        await second.close()
    finally:
        await first.close()
        await pool.close()


def test_no_windows(monkeypatch):
    from rlm_kernel.repl.pyodide import transport

    monkeypatch.setattr(transport.sys, "platform", "win32")
    with pytest.raises(ConfigError, match="Linux and macOS"):
        transport.make_ready.__wrapped__()
