"""Cells that run too long, and kernels that end."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from kernels import Repl, open_repl

from rlm_kernel.context import Context
from rlm_kernel.errors import ContextError, KernelStartError
from rlm_kernel.repl.local import LocalTransport
from rlm_kernel.repl.session import JupyterSession
from rlm_kernel.repl.supervisor import Supervisor


@pytest.mark.parametrize("code", ["import time\ntime.sleep(60)", "while True: pass"], ids=["sleep", "loop"])
async def test_a_cell_past_its_limit_is_interrupted_and_its_state_kept(repl, code):
    await repl.run("kept = 1")
    result = await repl.run(code, timeout=0.5)
    assert (result.status, result.lost) == ("timed_out", "")
    assert result.outputs[-1].name == "KeyboardInterrupt"
    assert await repl.value("kept") == "1"


async def test_an_interrupt_that_was_for_nothing_is_made_again():
    class Late(LocalTransport):
        interrupts = 0

        async def interrupt(self):
            # The first as if the kernel had not begun with the cell.
            self.interrupts += 1
            if self.interrupts > 1:
                await super().interrupt()

    session = JupyterSession(Late())
    try:
        await session.start([])
        repl = Repl(session)
        await repl.run("kept = 1")
        result = await repl.run("while True: pass", timeout=0.5)
        assert (result.status, result.lost) == ("timed_out", "")
        assert await repl.value("kept") == "1"
    finally:
        await session.close()


@pytest.mark.parametrize("by", ["limit", "hand"])
async def test_an_interrupt_that_comes_before_the_code_costs_nothing(by):
    slow = """\
handlers = get_ipython().kernel.shell_handlers
execute = handlers["execute_request"]
async def slowly(stream, ident, parent):
    if parent["content"]["code"] == "late":
        import time; time.sleep(60)
    await execute(stream, ident, parent)
handlers["execute_request"] = slowly
kept = 1"""
    async with open_repl() as repl:
        await repl.run(slow)
        # As if this were the first cell.
        repl.session._along = [(Context.of("context", "the text"), b"the text")]
        if by == "hand":
            asyncio.get_running_loop().call_later(
                0.3, lambda: asyncio.ensure_future(repl.session.interrupt())
            )
        result = await repl.run("late", timeout=0.3 if by == "limit" else None)
        assert (result.status, result.lost) == ("timed_out" if by == "limit" else "error", "")
        assert await repl.value("kept, context") == "(1, 'the text')"
        assert not repl.session._along


async def test_a_cell_that_ignores_interrupts_is_killed(repl):
    result = await repl.run(
        "while True:\n    try:\n        import time; time.sleep(60)\n    except BaseException:\n        pass",
        timeout=0.5,
    )
    assert result.status == "timed_out"
    assert "did not react to an interrupt" in result.lost
    assert not repl.session.alive


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os\nos._exit(3)", "exited with code 3"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
    ],
    ids=["exit", "segfault"],
)
async def test_death_is_seen(repl, code, cause):
    result = await repl.run(code)
    assert result.status == "died"
    assert cause in result.lost


async def test_a_kernel_whose_outputs_do_not_come_is_refused(monkeypatch):
    class Deaf(LocalTransport):
        async def open(self, on_message, on_death):
            return await super().open(
                lambda message: None if message.channel == "iopub" else on_message(message), on_death
            )

    monkeypatch.setattr("rlm_kernel.repl.session.HEAR_SECONDS", 0.5)
    session = JupyterSession(Deaf())
    try:
        with pytest.raises(KernelStartError, match=r"none of its outputs came within 0\.5 s"):
            await session.start([])
    finally:
        await session.close()


async def test_a_kernel_is_waited_for_whose_outputs_begin_to_come_late(monkeypatch):
    class Late(LocalTransport):
        def _connect(self, manager):
            super()._connect(manager)
            # As if the kernel's socket had not been there when this one was to be connected.
            iopub, url = self._sockets["iopub"], manager._make_url("iopub")
            iopub.disconnect(url)
            asyncio.get_running_loop().call_later(0.5, iopub.connect, url)

    monkeypatch.setattr("rlm_kernel.repl.session.HEAR_SECONDS", 20)
    session = JupyterSession(Late())
    try:
        await session.start([])
        assert await Repl(session).value("1") == "1"
    finally:
        await session.close()


async def test_cancelling_a_cell_leaves_no_call_behind():
    async with open_repl() as repl:
        repl.delay = 60
        task = asyncio.create_task(repl.run("llm_query('q')"))
        await repl.called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert repl.in_flight == 0


async def no_calls(call):
    raise AssertionError(call)


async def test_the_supervisor_replaces_a_kernel_and_loads_the_context_again():
    events = []
    supervisor = Supervisor(
        lambda: JupyterSession(LocalTransport()),
        [Context.of("context", "the text")],
        on_start=lambda info, seconds, again: events.append(("start", again)),
        on_loss=lambda kernel, cause: events.append(("loss", cause)),
    )
    try:
        await supervisor.execute("mine = 1", timeout=30, on_call=no_calls)
        result = await supervisor.execute("import os; os._exit(1)", timeout=30, on_call=no_calls)
        assert "variables, functions and imports are gone" in result.lost
        result = await supervisor.execute("context, 'mine' in globals()", timeout=30, on_call=no_calls)
        assert result.outputs[-1].text == "('the text', False)"
        assert events == [
            ("start", False),
            ("loss", "The kernel ended: its process exited with code 1."),
            ("start", True),
        ]
    finally:
        await supervisor.close()


async def test_an_unknown_kernelspec_is_named():
    session = JupyterSession(LocalTransport("no-such-kernel"))
    with pytest.raises(KernelStartError, match="no kernelspec named 'no-such-kernel'"):
        await session.start([])


async def test_a_kernel_that_ends_while_starting_tells_what_it_printed(tmp_path, monkeypatch):
    spec = {
        "argv": [sys.executable, "-c", "raise SystemExit('broken on purpose')", "{connection_file}"],
        "display_name": "Broken",
        "language": "python",
    }
    (tmp_path / "kernels" / "broken").mkdir(parents=True)
    (tmp_path / "kernels" / "broken" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    session = JupyterSession(LocalTransport("broken"))
    try:
        with pytest.raises(KernelStartError) as caught:
            await session.start([])
    finally:
        await session.close()
    assert "exited with code 1" in str(caught.value)
    assert "broken on purpose" in caught.value.hint


async def test_a_context_that_the_kernel_cannot_load_is_the_contexts_fault(monkeypatch):
    session = JupyterSession(LocalTransport())
    context = Context.of("context", "text")

    async def truncated(self, context):
        return context.name, "list", self._log  # not JSON lines

    monkeypatch.setattr(LocalTransport, "share", truncated)
    try:
        with pytest.raises(ContextError, match="could not load context"):
            await session.start([context])
    finally:
        await session.close()
