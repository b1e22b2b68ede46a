"""Several questions over one context and one kernel."""

from __future__ import annotations

import asyncio
import os
import signal
from decimal import Decimal

import pytest
from test_runs import block, kernels, said

from rlm_kernel import RLM, Budget, ScriptedModel
from rlm_kernel.errors import ConfigError, InputError
from rlm_kernel.messages import message_text
from rlm_kernel.models.prices import Price
from rlm_kernel.repl.local import LocalTransport


def play(*replies, events=None, **options):
    """An `RLM` whose root replies one after the other, question by question."""
    root = ScriptedModel(list(replies), name="root", prices={"*": Price(Decimal(1), Decimal(2))})
    return RLM(model=root, readers=[] if events is None else [events.append], **options)


async def test_kernel_variables_and_history_stay():
    events = []
    rlm = play(
        block("mine = context.upper(); FINAL(mine)"),
        block(
            "FINAL([mine, history[0]['question'], history[0]['value'], history[0]['status'], len(history)])"
        ),
        block("FINAL([each['answer'] for each in history])"),
        events=events,
    )
    async with rlm.session("text") as session:
        first = await session.aask("One?")
        second = await session.aask("Two?")
        third = await session.aask("Three?")
    assert first.text == "TEXT"
    assert second.value == ["TEXT", "One?", "TEXT", "answered", 1]
    assert third.value == ["TEXT", second.text]
    assert [entry["question"] for entry in session.history] == ["One?", "Two?", "Three?"]
    assert "asked: 'One?', answered: 'TEXT'" in said(second)[0]
    assert "still there: mine" in said(second)[0]
    assert "Earlier" not in said(first)[0]
    runs = [event for event in events if event.type == "run_started"]
    assert len({run.run for run in runs}) == 3
    assert {run.session for run in runs} == {session.id}
    assert sum(event.type == "kernel_started" for event in events) == 1
    assert session.usage.total_tokens == sum(each.usage.total_tokens for each in (first, second, third))


async def test_the_newest_context_is_context_and_older_ones_are_numbered():
    rlm = play(
        block("FINAL(context)"),
        block("FINAL([context, context_0])"),
        block("FINAL([context, context_0, context_1])"),
        block("FINAL([context, context_0, context_1, extra, 'extra_0' in globals()])"),
        block("FINAL([extra, extra_0])"),
    )
    async with rlm.session("one") as session:
        assert (await session.aask("?")).text == "one"
        second = await session.aask("?", "two")
        assert second.value == ["two", "one"]
        assert "variables `context`, `context_0`" in message_text(second.messages[0])
        assert [
            line.split(",")[0] for line in said(second)[0].splitlines() if line.startswith("context")
        ] == [
            "context: str",
            "context_0: str",
        ]
        assert (await session.aask("?", "three")).value == ["three", "one", "two"]
        assert (await session.aask("?", contexts={"extra": "x"})).value == ["three", "one", "two", "x", False]
        assert (await session.aask("?", contexts={"extra": "y"})).value == ["y", "x"]
        assert session.contexts == ("extra", "context", "context_0", "context_1", "extra_0")


async def test_an_answer_is_not_that_of_the_question_before():
    rlm = play(
        block("answer['content'] = 'one'; answer['ready'] = True"),
        block("kept = dict(answer)"),
        "I can't tell.",
        max_iterations=1,
    )
    async with rlm.session("text") as session:
        assert (await session.aask("?")).text == "one"
        answer = await session.aask("?")
    assert (answer.status, answer.text) == ("exhausted", "I can't tell.")


async def test_a_session_may_begin_without_a_context():
    rlm = play(block("mine = 5"), "FINAL(mine)", block("FINAL([mine, context])"))
    async with rlm.session() as session:
        assert (await session.aask("?")).value == 5
        assert (await session.aask("?", "text")).value == [5, "text"]


async def test_a_kernel_lost_between_questions_is_replaced_and_the_model_told():
    events = []
    rlm = play(
        block("mine = 1; FINAL(mine)"),
        block("FINAL([context, context_0, 'mine' in globals(), len(history)])"),
        events=events,
    )
    async with rlm.session("one") as session:
        assert (await session.aask("?")).value == 1
        process = session._standing.repl._session._transport._process
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.wait_for(process.wait(), 30)
        answer = await session.aask("?", "two")
    assert answer.value == ["two", "one", False, 1]
    assert "the kernel was lost since the last question" in said(answer)[0]
    assert "still there" not in said(answer)[0]
    assert [event.again for event in events if event.type == "kernel_started"] == [False, True]
    lost = next(event for event in events if event.type == "kernel_lost")
    assert lost.run == next(event.run for event in events if event.type == "kernel_started" and event.again)


async def test_a_question_that_was_stopped_in_a_cell_leaves_a_free_kernel():
    entered = asyncio.Event()

    def watch(event):
        if event.type == "cell_output":
            entered.set()

    rlm = play(
        block("mine = 1"),
        block("print('in', flush=True)\nwhile True: pass"),
        block("FINAL(mine)"),
        block("FINAL('again')"),
    )
    async with rlm.session("text") as session:
        task = asyncio.create_task(session.aask("?", readers=[watch]))
        await asyncio.wait_for(entered.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await session.aask("?")).value == 1
        assert (await session.aask("?")).text == "again"
    assert [entry["answer"] for entry in session.history] == ["1", "again"]


async def test_a_context_whose_loading_was_stopped_is_loaded_again(monkeypatch):
    sharing = asyncio.Event()

    async def share(self, context):
        sharing.set()
        await asyncio.Event().wait()

    rlm = play(block("mine = 1; FINAL(mine)"), block("1"), block("FINAL([context, context_0])"))
    async with rlm.session("one") as session:
        assert (await session.aask("?")).value == 1
        with monkeypatch.context() as patch:
            patch.setattr(LocalTransport, "share", share)
            task = asyncio.create_task(session.aask("?", "two"))
            await asyncio.wait_for(sharing.wait(), 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        answer = await session.aask("?")
    assert answer.value == ["two", "one"]
    assert "the kernel was lost since the last question" in said(answer)[0]


async def test_a_cell_that_can_not_be_stopped_costs_its_kernel_only():
    rlm = play(
        block("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"),
        block("FINAL(context)"),
        budget=Budget(seconds=1.5),
    )
    async with rlm.session("text") as session:
        assert (await session.aask("?")).status == "timed_out"
        answer = await session.aask("?")
        assert (answer.text, answer.status) == ("text", "answered")


async def test_questions_asked_at_once_wait_for_each_other():
    rlm = play(*[block("n = globals().get('n', 0) + 1; FINAL(n)")] * 4)
    async with rlm.session() as session:
        answers = await asyncio.gather(*(session.aask(f"{n}?") for n in range(4)))
    assert [answer.value for answer in answers] == [1, 2, 3, 4]


async def test_the_budget_is_each_questions_and_the_sessions():
    rlm = play(*[block("1")] * 9, budget=Budget(calls=2))
    async with rlm.session("text", budget=Budget(calls=3)) as session:
        first = await session.aask("?")
        assert (first.status, first.total_calls) == ("over_budget", 2)
        second = await session.aask("?")
        assert (second.status, second.total_calls) == ("over_budget", 1)
        third = await session.aask("?")
        assert (third.status, third.total_calls) == ("over_budget", 0)
        assert third.reason == "of the session, the budget of 3 calls reached: 3 spent"
    with pytest.raises(ConfigError, match="can't be held"):
        RLM(model=ScriptedModel([])).session(budget=Budget(usd=1))


async def test_closing_frees_the_kernel():
    before = kernels()
    rlm = play(block("FINAL(1)"), spare_kernels=0)
    session = rlm.session("text")
    await session.aask("?")
    await session.aclose()
    await session.aclose()
    assert kernels() == before
    with pytest.raises(InputError, match="closed"):
        await session.aask("?")


def test_synchronous_sessions():
    with play(block("mine = 2; FINAL(1)"), block("FINAL(mine)")) as rlm, rlm.session("text") as session:
        assert session.ask("?").value == 1
        assert session.start("?").wait(30).value == 2
        with pytest.raises(InputError, match="another event loop"):
            asyncio.run(session.aask("?"))


async def test_what_can_not_be_used_is_refused_and_changes_nothing():
    seen = block("FINAL([context, 'context_0' in globals()])")
    rlm = play(block("FINAL(context)"), seen, seen)
    async with rlm.session("one") as session:
        for query, options in [(" ", {}), ("?", {"context": ""}), ("?", {"contexts": {"history": "x"}})]:
            with pytest.raises(InputError):
                await session.aask(query, **options)
        assert (await session.aask("?")).text == "one"
        assert (await session.aask("?")).value == ["one", False]
        # Contexts that came with a question that can't be asked go with it, whatever was done by then.
        with pytest.raises(InputError):
            await session.aask(" ", "two")
        assert session.contexts == ("context",)
        assert (await session.aask("?")).value == ["one", False]


async def test_a_direct_call_takes_no_question_of_a_session():
    rlm = play(block("mine = 1; FINAL(mine)"), block("FINAL(mine)"), direct_below=10_000)
    async with rlm.session("text") as session:
        assert not (await session.aask("?")).direct
        assert (await session.aask("?")).value == 1
