"""The kernel that the REPL classes of `compat` share, driven from code that is not async."""

from __future__ import annotations

import contextvars
import gc
import threading
import time
from contextlib import suppress

import psutil
import pytest

from rlm_kernel.compat.cells import Cells, in_thread
from rlm_kernel.context import Context
from rlm_kernel.errors import KernelError
from rlm_kernel.repl.base import ToolCall
from rlm_kernel.repl.bootstrap import GuestSettings


async def no_calls(call):
    return ["an answer"]


@pytest.fixture
def cells():
    made = Cells(no_calls, cell_timeout=30.0)
    yield made
    made.close()


def shown(result):
    assert result.status == "ok", result
    return "".join(output.text for output in result.outputs)


def test_values_travel_as_json_and_others_as_text(cells):
    result = cells.run("n, pair, odd, big = 1, (1, 2), {1}, 'x' * 30_000\nimport math\ndef f(): pass")
    values = cells.values(result.variables)
    assert (values["n"], values["pair"], values["odd"]) == (1, [1, 2], "{1}")
    assert len(values["big"]) == 1000
    assert values["f"].startswith("<function f")
    assert "math" not in values
    assert shown(cells.run("[name for name in globals() if name.startswith('_rlm')]")) == "[]"


def test_contexts_are_loaded_at_the_start_and_later(cells):
    cells.start([Context.of("one", [1, 2])])
    cells.start([Context.of("two", "second"), Context.of("one", "again")])
    assert shown(cells.run("one, two")) == "('again', 'second')"


def test_without_names_a_cell_has_its_own_answer_and_the_hosts_functions():
    asked = []

    async def answer(call):
        asked.append(call)
        return [7]

    cells = Cells(answer, settings=GuestSettings(names=False), tools=[("ask", "Ask the host.")])
    assert shown(
        cells.run("answer = 'mine'\nask(1, n=2), 'FINAL' in globals(), 'llm_query' in globals()")
    ) == ("(7, False, False)")
    assert shown(cells.run("answer")) == "'mine'"
    assert cells.run("answer = {'content': 'x', 'ready': True}").final is None
    assert asked == [ToolCall("ask", (1,), {"n": 2})]
    cells.close()


def test_a_second_cell_at_once_and_a_closed_kernel_are_refused(cells):
    entered = threading.Event()

    async def answer(call):
        entered.set()
        return ["late"]

    slow = Cells(answer)
    thread = threading.Thread(target=lambda: slow.run("llm_query('x'); import time; time.sleep(1)"))
    thread.start()
    assert entered.wait(30)
    with pytest.raises(KernelError, match="another cell is running"):
        slow.run("1")
    thread.join()
    slow.close()
    slow.close()
    with pytest.raises(KernelError, match="was closed"):
        slow.run("1")
    cells.run("import os; os._exit(1)")
    assert not cells.alive
    assert cells.values(["x"]) == {}


def test_a_forgotten_kernel_ends():
    cells = Cells(no_calls)
    process = psutil.Process(int(shown(cells.run("import os; os.getpid()"))))
    del cells
    gc.collect()
    deadline = time.monotonic() + 30
    with suppress(psutil.NoSuchProcess):
        while process.status() != "zombie" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.status() == "zombie"


async def test_calls_on_the_host_run_in_the_callers_context():
    variable = contextvars.ContextVar("variable", default="outer")
    context = contextvars.copy_context()
    context.run(variable.set, "inner")

    async def later():
        return variable.get()

    def leaving():
        raise SystemExit(3)

    assert await in_thread(context, variable.get) == "inner"
    assert await in_thread(context, later) == "inner"
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        await in_thread(context, leaving)
