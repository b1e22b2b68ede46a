"""Calls from cells, over Jupyter's own channels."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from kernels import Repl, open_repl

from rlm_kernel.repl.base import LLMQuery, RLMQuery
from rlm_kernel.repl.bootstrap import GuestSettings
from rlm_kernel.repl.local import LocalTransport
from rlm_kernel.repl.session import JupyterSession

# One pixel.
PNG = (
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360000002000001e5274de80000000049454e44ae426082"
)
WITHOUT_CONTROL = GuestSettings(control=False)


async def test_a_call_and_a_batch_in_order(repl):
    assert await repl.value("llm_query('one')") == "'reply to one'"
    assert await repl.value("llm_query_batched([f'p{i}' for i in range(3)])") == (
        "['reply to p0', 'reply to p1', 'reply to p2']"
    )
    assert repl.calls[1] == LLMQuery(("p0", "p1", "p2"), batched=True)


async def test_options_travel(repl):
    await repl.run("llm_query('q', model='big', schema={'type': 'object'})")
    assert repl.calls == [LLMQuery(("q",), model="big", schema={"type": "object"})]


async def test_a_failed_call_raises_and_a_failed_slot_is_a_typed_false_object(repl):
    result = await repl.run("llm_query('fail')")
    assert (result.outputs[-1].name, result.outputs[-1].value) == (
        "CallFailed",
        "[call failed, model: the model refused]",
    )
    shown = await repl.value(
        "r = llm_query_batched(['a', 'fail', 'b'])\n"
        "[type(x).__name__ for x in r], r[1].kind, [x for x in r if x]"
    )
    assert shown == "(['str', 'CallFailed', 'str'], 'model', ['reply to a', 'reply to b'])"


async def test_long_and_odd_texts_arrive_whole(repl):
    await repl.run(
        "llm_query('x' * 3_000_000)\nllm_query('\\ud800 \\U0001f600 \\x00')\n"
        "llm_query_batched(['y' * 100_000] * 3)"
    )
    first, second, third = repl.calls
    assert first.prompts == ("x" * 3_000_000,)
    assert second.prompts == ("\ud800 \U0001f600 \x00",)
    assert third.prompts == ("y" * 100_000,) * 3


async def test_an_image_in_a_prompt_becomes_a_part(repl):
    await repl.run(
        "from rlm_guest.image import Image\n"
        f"llm_query(['what is it?', Image(bytes.fromhex('{PNG}'), 'image/png')])"
    )
    (prompt,) = repl.calls[0].prompts
    url = "data:image/png;base64," + base64.b64encode(bytes.fromhex(PNG)).decode()
    assert prompt == [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


@pytest.mark.parametrize("size", [10, 300_000, 9_000_000], ids=["inline", "one piece", "pieces"])
async def test_a_sub_context_goes_up_as_buffers(repl, size):
    assert await repl.value(f"rlm_query('q', 'z' * {size})[1] == repr('z' * {size})") == "True"
    (call,) = repl.calls
    assert isinstance(call, RLMQuery)
    assert f"{size:,}" in call.items[0][1].info().description


async def test_children_take_structured_contexts_and_none(repl):
    shown = await repl.value("[list(x) for x in rlm_query_batched([('a', {'k': (1, 2)}), ('b', None), 'c'])]")
    assert shown == "[['a', \"{'k': (1, 2)}\"], ['b', None], ['c', None]]"
    assert await repl.value("recursive_lm('q', [1])") == "['q', '[1]']"


async def test_wrong_arguments_raise_in_the_cell_and_never_reach_the_host(repl):
    for code, name in [
        ("llm_query(3)", "TypeError"),
        ("llm_query_batched('one text')", "TypeError"),
        ("rlm_query_batched([('q',)])", "TypeError"),
        ("rlm_query('q', object())", "EncodeError"),
    ]:
        result = await repl.run(code)
        assert result.outputs[-1].name == name, code
    assert repl.calls == []


async def test_an_empty_batch_asks_nothing(repl):
    assert await repl.value("llm_query_batched([]), rlm_query_batched([])") == "([], [])"
    assert repl.calls == []


async def test_budget(repl):
    assert await repl.value("budget()['calls']") == "7"


@pytest.mark.parametrize(
    ("settings", "together"), [(GuestSettings(), 8), (WITHOUT_CONTROL, 1)], ids=["control", "stdin"]
)
async def test_threads_are_answered(settings, together):
    async with open_repl(settings=settings) as repl:
        repl.delay = 0.1
        shown = await repl.value(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(8) as pool:\n"
            "    replies = list(pool.map(llm_query, [f't{i}' for i in range(8)]))\n"
            "replies == [f'reply to t{i}' for i in range(8)]"
        )
    assert shown == "True"
    assert repl.most_in_flight == together


async def test_tasks_are_answered_concurrently_and_out_of_order(repl):
    release = asyncio.Event()
    plain = repl.answer

    async def answer(call):
        if call.prompts == ("slow",):
            await release.wait()
        else:
            release.set()
        return await plain(call)

    repl.answer = answer
    shown = await repl.value(
        "import asyncio\nawait asyncio.gather(allm_query('slow'), allm_query('fast'), arlm_query_batched([]))"
    )
    assert shown == "['reply to slow', 'reply to fast', []]"


async def test_the_main_thread_can_ask_while_others_wait(repl):
    repl.delay = 0.05
    shown = await repl.value(
        "import threading\nout = []\n"
        "threads = [threading.Thread(target=lambda: out.append(llm_query('t'))) for _ in range(4)]\n"
        "for t in threads: t.start()\n"
        "mine = llm_query('m')\n"
        "for t in threads: t.join()\n"
        "mine, len(out)"
    )
    assert shown == "('reply to m', 4)"


async def test_a_thread_left_behind_gets_no_answer(repl):
    await repl.run(
        "import threading, time\nout = []\ngo = threading.Event()\n"
        "def later():\n    go.wait()\n"
        "    try: llm_query('late')\n"
        "    except Exception as e: out.append(e)\n"
        "thread = threading.Thread(target=later); thread.start()"
    )
    shown = await repl.value("go.set(); thread.join(); out[0].kind")
    assert shown == "'cancelled'"
    assert repl.calls == []


async def test_a_pool_of_an_earlier_cell_works_for_later_ones(repl):
    await repl.run(
        "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\n"
        "list(pool.map(llm_query, 'ab'))"
    )
    assert await repl.value("list(pool.map(llm_query, 'cd'))") == "['reply to c', 'reply to d']"


async def test_a_call_that_waits_in_a_thread_when_its_cell_ends_is_cancelled(repl):
    repl.delay = 60
    await repl.run(
        "import threading\nout = []\n"
        "def ask():\n    try: llm_query('q')\n    except Exception as e: out.append(e)\n"
        "thread = threading.Thread(target=ask); thread.start()\n"
        "import time\ntime.sleep(0.3)"
    )
    assert repl.in_flight == 0
    assert await repl.value("thread.join(); out[0].kind") == "'cancelled'"


async def test_a_pool_of_an_earlier_cell_works_for_a_thread_of_a_later_one(repl):
    await repl.run(
        "from concurrent.futures import ThreadPoolExecutor\nimport threading\n"
        "pool = ThreadPoolExecutor(1)\npool.submit(llm_query, 'a').result()"
    )
    shown = await repl.value(
        "out = []\n"
        "thread = threading.Thread(target=lambda: out.append(pool.submit(llm_query, 'b').result()))\n"
        "thread.start(); thread.join(); out"
    )
    assert shown == "['reply to b']"


async def test_a_thread_that_waits_on_stdin_does_not_hold_up_the_end_of_its_cell():
    async with open_repl(settings=WITHOUT_CONTROL) as repl:
        repl.delay = 60
        result = await repl.run(
            "import threading, time\nout = []\n"
            "def ask():\n    try: llm_query('q')\n    except Exception as e: out.append(e)\n"
            "thread = threading.Thread(target=ask); thread.start()\ntime.sleep(0.2)"
        )
        assert result.status == "ok"
        assert len(repl.calls) == 1
        repl.delay = 0
        assert await repl.value("thread.join(); out[0].kind, llm_query('next')") == (
            "('cancelled', 'reply to next')"
        )


async def test_a_task_left_behind_neither_asks_nor_blocks_the_kernel(repl):
    await repl.run(
        "import asyncio\nout = []\n"
        "async def later():\n"
        "    await asyncio.sleep(0.05)\n"
        "    try: llm_query('late')\n"
        "    except Exception as e: out.append(e)\n"
        "task = asyncio.create_task(later())"
    )
    # A message to the kernel, handled between cells, after the task.
    await asyncio.sleep(0.3)
    assert await repl.value("await task; out[0].kind") == "'cancelled'"
    assert repl.calls == []


async def test_a_task_cancelled_at_once_is_abandoned_on_the_host(repl):
    asked = []

    async def answer(call):
        asked.append((call.prompts[0], repl.in_flight))
        return await Repl.answer(repl, call)

    repl.answer = answer
    repl.delay = 60
    result = await repl.run(
        "import asyncio\n"
        "task = asyncio.create_task(allm_query('unwanted'))\nawait asyncio.sleep(0)\ntask.cancel()\n"
        "await asyncio.wait([task, asyncio.create_task(allm_query('after'))], timeout=1)\nNone"
    )
    assert result.status == "ok"
    assert asked[-1] == ("after", 0)


async def test_a_batch_larger_than_a_message_arrives_whole(repl):
    assert await repl.value("len(llm_query_batched(['z' * 16_000] * 4_500))") == "4500"
    assert set(repl.calls[0].prompts) == {"z" * 16_000}


async def test_a_prompt_larger_than_a_message_is_refused_in_the_cell(repl):
    result = await repl.run("llm_query('x' * 70_000_000)")
    assert result.outputs[-1].value.startswith("[call failed, bad_request: too large: 70,000,000 bytes")
    assert await repl.value("llm_query('q')") == "'reply to q'"


async def test_a_forked_process_is_told_to_use_threads(repl):
    shown = await repl.value(
        "import os\nr, w = os.pipe()\nchild = os.fork()\n"
        "if child == 0:\n"
        "    try: llm_query('q')\n"
        "    except Exception as e: os.write(w, str(e).encode())\n"
        "    os._exit(0)\n"
        "_ = os.waitpid(child, 0)\nos.read(r, 1000).decode()"
    )
    assert "use threads, not processes" in shown


async def test_a_late_answer_is_never_taken_for_the_next_one(repl):
    """An interrupted call is answered after all; the next call must not get that answer."""
    plain = repl.answer
    late = asyncio.Event()

    async def answer(call):
        if call.prompts == ("first",):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                late.set()
        return await plain(call)

    repl.answer = answer
    result = await repl.run("llm_query('first')", timeout=0.5)
    assert result.status == "timed_out"
    assert late.is_set()
    assert await repl.value("llm_query('second')") == "'reply to second'"


async def test_an_abandoned_call_is_cancelled_on_the_host(repl):
    repl.delay = 60
    result = await repl.run(
        "import signal, threading\n"
        "threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()\n"
        "try:\n    llm_query('q')\n"
        "except KeyboardInterrupt:\n    pass\n"
        "import time; time.sleep(0.5)\n'went on'"
    )
    assert result.outputs[-1].text == "'went on'"
    assert repl.in_flight == 0


async def test_forged_envelopes_are_refused_and_do_no_harm(repl):
    attempts = [
        "not json",
        "[]",
        json.dumps({"rlm": 1, "id": "x", "op": "no such op"}),
        json.dumps({"rlm": 2, "id": "x", "op": "budget"}),
        json.dumps({"rlm": 1, "id": "y" * 1000, "op": "budget"}),
        json.dumps({"rlm": 1, "id": "x", "op": "llm_query", "prompt": {"$frame": 99}}),
        json.dumps(
            {"rlm": 1, "id": "x", "op": "rlm_query", "item": {"query": "q", "context": {"blob": "b"}}}
        ),
        json.dumps({"rlm": 1, "id": "x", "op": "cell", "final": "text", "variables": 3}),
        "[" * 100_000,
    ]
    for text in attempts:
        result = await repl.run(
            "import rlm_guest\nhost = rlm_guest.cells._REPL.host\n"
            f"host._stdin.tell({text!r}, host.cell)\n'still here'"
        )
        assert result.outputs[-1].text == "'still here'", text
    assert repl.calls == []
    assert await repl.value("llm_query('q')") == "'reply to q'"


async def test_a_bare_input_request_is_answered_empty(repl):
    assert await repl.value("get_ipython().kernel.raw_input('name? ')") == "''"


async def test_a_kernel_that_is_quicker_than_the_connection_to_it_starts_all_the_same():
    class Late(LocalTransport):
        def _connect(self, manager):
            super()._connect(manager)
            stdin, url = self._sockets["stdin"], manager._make_url("stdin")
            stdin.disconnect(url)
            asyncio.get_running_loop().call_later(0.5, stdin.connect, url)

    session = JupyterSession(Late())
    try:
        info = await session.start([])
        assert info.capabilities["control"]
        assert await Repl(session).value("llm_query('q')") == "'reply to q'"
    finally:
        await session.close()
