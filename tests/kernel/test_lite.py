"""The repl `lite` over a bridge without a page, whose kernels are processes with the real guest."""

from __future__ import annotations

import asyncio

import pytest
from page import Page

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.context import Context
from rlm_kernel.errors import ConfigError, KernelStartError
from rlm_kernel.repl.base import LLMQuery
from rlm_kernel.repl.lite.bridge import Bridge, bridge
from rlm_kernel.repl.lite.files import PIECE_BYTES
from rlm_kernel.repl.lite.slots import Slots


async def _no_calls(call):
    raise AssertionError(f"not asked for: {call}")


async def _run(session, code, *, on_call=_no_calls, timeout=60.0):
    result = await session.execute(code, timeout=timeout, on_call=on_call)
    return result, "".join(each.text for each in result.outputs)


async def test_contexts_calls_and_outputs_pass_through():
    large = "ä" * (PIECE_BYTES + 1)
    async with Page() as page:
        session = page.session()
        contexts = [Context.of("context", large), Context.of("table", {"a": [1, 2]})]
        info = await session.start(contexts)
        assert info.backend == "lite"
        assert info.capabilities == {"control": False, "buffers": False}
        result, text = await _run(session, "print(len(context), table)\nprint('a', 1)")
        assert text == f"{len(large)} {{'a': [1, 2]}}\na 1\n"
        assert [each.kind for each in result.outputs] == ["stdout"], "pieces of one stream are one output"

        async def answer(call):
            assert isinstance(call, LLMQuery)
            return [prompt.upper() for prompt in call.prompts]

        result, text = await _run(
            session, "print(llm_query('a'), llm_query_batched(['b', 'c']))", on_call=answer
        )
        assert text == "A ['B', 'C']\n"
        result, _ = await _run(session, "FINAL({'n': 1})")
        assert result.final is not None
        assert result.final.value == {"n": 1}
        await session.close()
        assert not page.kernels


async def test_an_error_has_the_name_that_every_kernel_gives_it():
    async with Page() as page:
        session = page.session()
        await session.start([])
        result, _ = await _run(session, "x = 1\n1 / 0")
        assert result.status == "error"
        assert [each.name for each in result.outputs if each.kind == "error"] == ["ZeroDivisionError"]
        assert result.variables == ("x",)
        await session.close()


async def test_a_bare_input_is_refused_and_asks_nobody():
    async with Page() as page:
        session = page.session()
        await session.start([])
        _, text = await _run(session, "input('name? ')")
        assert "nobody to answer" in text
        await session.close()


async def test_a_cell_past_its_time_ends_the_kernel_and_a_fresh_one_has_the_context():
    hang = "```repl\nx = 1\nwhile True: pass\n```"
    look = "```repl\nprint('x' in globals(), len(context))\n```"
    model = ScriptedModel([hang, look, "```repl\nFINAL(len(context))\n```"])
    async with Page() as page:
        async with RLM(model=model, repl=page.session, cell_timeout=1.0) as rlm:
            answer = await rlm.acompletion("How long?", "abc" * 1000)
        assert answer.value == 3000
        told = str(model.requests[1].messages[-1]["content"])
        assert "your variables, functions and imports are gone, the context is loaded again" in told
        assert "False 3000" in str(model.requests[2].messages[-1]["content"])
        assert [each["op"] for each in page.asked if each["op"] != "send"].count("start") == 2
        assert not page.kernels


async def test_a_kernel_that_the_page_loses_is_replaced():
    model = ScriptedModel(
        [
            "```repl\nimport os\nos._exit(1)\n```",
            "```repl\nprint(len(context))\n```",
            "```repl\nFINAL(1)\n```",
        ]
    )
    async with Page() as page:
        async with RLM(model=model, repl=page.session) as rlm:
            answer = await rlm.acompletion("How long?", "abc")
        assert answer.value == 1
        assert "its worker has ended" in str(model.requests[1].messages[-1]["content"])


async def test_a_cancelled_run_leaves_no_kernel():
    async with Page() as page:
        async with RLM(model=ScriptedModel(["```repl\nwhile True: pass\n```"]), repl=page.session) as rlm:
            started = asyncio.Event()
            task = asyncio.ensure_future(
                rlm.acompletion(
                    "?", "abc", readers=[lambda e: started.set() if e.type == "cell_started" else None]
                )
            )
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not page.kernels


async def test_children_have_kernels_while_their_parent_waits_and_never_too_many():
    def write(request):
        text = str(request.messages[1]["content"])
        turns = sum(each["role"] == "assistant" for each in request.messages)
        if "Question: child" in text:
            return "```repl\nprint(context)\n```" if not turns else "```repl\nFINAL(context * 2)\n```"
        ask = "found = rlm_query_batched([(f'child {n}', str(n)) for n in range(4)])\nprint(found)"
        return f"```repl\n{ask}\n```" if not turns else "```repl\nFINAL(','.join(found))\n```"

    slots = Slots(2)
    async with Page() as page:
        async with RLM(model=ScriptedModel(write), repl=lambda: page.session(slots), max_depth=2) as rlm:
            answer = await rlm.acompletion("root", "abc")
        assert answer.text == "00,11,22,33"
        assert page.most == 3, "the parent, which waits, and two at work"


async def test_a_late_answer_is_not_taken_for_another():
    """A reply to what was asked before is dropped by the page's side of stdin; here the session is asked."""
    async with Page() as page:
        session = page.session()
        await session.start([])
        stale = {
            "channel": "stdin",
            "header": {"msg_id": "old", "msg_type": "input_request"},
            "parent_header": {"msg_id": "an earlier cell"},
            "metadata": {},
            "content": {"prompt": '{"rlm": 1, "id": "x", "op": "llm_query", "prompt": "?"}'},
        }
        (kernel,) = page.kernels
        page.tell(op="deliver", kernel=kernel, message=stale)
        page.tell(op="deliver", kernel="a stranger", message=stale)
        page.tell(op="deliver", kernel=kernel, message={"channel": "iopub"})
        _, text = await _run(session, "print(1)")
        assert text == "1\n"
        await session.close()


# The bridge -------------------------------------------------------------------------------------------


async def test_a_lost_hello_is_asked_for_again():
    async with Page(deaf=2) as page:
        await page.bridge()
        assert [each["op"] for each in page.asked] == ["hello"] * 3


async def test_a_page_without_the_extension_is_told_of():
    page = Page(deaf=1000)
    with pytest.raises(KernelStartError, match="did not answer") as caught:
        await Bridge(page, lambda: None).meet(0.05)
    assert "@rlm-kernel/labextension" in caught.value.hint


async def test_another_version_is_refused():
    page = Page(version=99)
    with pytest.raises(ConfigError, match="99"):
        await Bridge(page, lambda: None).meet(5.0)


async def test_a_kernel_that_does_not_start_says_why():
    class Broken(Page):
        async def _start(self, kernel):
            self.tell(op="ended", kernel=kernel, reason="no memory")

    slots = Slots(1)
    async with Broken() as page:
        for _ in range(2):
            with pytest.raises(KernelStartError, match="no memory"):
                await page.session(slots).start([])


async def test_elsewhere_than_in_a_page_there_is_no_such_repl():
    with pytest.raises(ConfigError, match="in the browser"):
        await bridge()
    async with RLM(model=ScriptedModel(["FINAL(1)"]), repl="lite") as rlm:
        with pytest.raises(ConfigError, match="in the browser"):
            await rlm.acompletion("?", "abc")


async def test_the_last_to_wait_is_the_first_to_have_a_place():
    slots = Slots(1)
    await slots.take()
    order = []

    async def take(name):
        await slots.take()
        order.append(name)

    tasks = [asyncio.ensure_future(take(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    slots.resume()
    slots.give()
    for _ in range(2):
        slots.give()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["c", "a"]
