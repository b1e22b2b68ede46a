"""A run under way: looked at, talked to, paused, approved, stopped; and hooks beside it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from decimal import Decimal

import pytest
from test_runs import block, kernels, said

from rlm_kernel import RLM, Budget, ScriptedModel
from rlm_kernel.errors import ConfigError, InputError
from rlm_kernel.models.prices import Price
from rlm_kernel.runs.steering import Refusal

PRICED = {"*": Price(Decimal(1000), Decimal(1000))}


class Gate:
    """A root that waits before its turn until it is let go."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, request):
        self.asked.set()
        await self.go.wait()
        return self.replies.pop(0)


async def test_a_message_is_taken_up_before_the_next_turn():
    gate = Gate(block("1"), block("FINAL(2)"))
    run = RLM(model=ScriptedModel(gate)).start("What?", "text")
    await gate.asked.wait()
    assert run.status == "running"
    assert run.answer is None
    run.say("Look at the end, too.")
    gate.go.set()
    answer = await run
    assert answer.text == "2"
    assert "A message from the user: Look at the end, too." in said(answer)[1]
    assert (run.done, run.status, run.answer) == (True, "answered", answer)
    assert run.calls == 2
    assert run.usage.total_tokens == answer.usage.total_tokens
    with pytest.raises(InputError, match="over"):
        run.say("too late")


async def test_a_message_may_come_before_the_first_turn_and_too_late():
    events = []
    run = RLM(model=ScriptedModel([block("1"), block("FINAL(2)")])).start(
        "What?", "text", readers=[events.append]
    )
    run.say("early")
    answer = await run
    assert "A message from the user: early" in said(answer)[0]
    gate = Gate(block("FINAL(1)"))
    run = RLM(model=ScriptedModel(gate)).start("What?", "text", readers=[events.append])
    await gate.asked.wait()
    run.say("ignored")
    gate.go.set()
    await run
    assert "the run ended before your last message was taken up" in [
        e.text for e in events if e.type == "notice"
    ]


async def test_a_cell_of_the_user_runs_before_the_next_turn():
    gate = Gate(block("x = 1"), block("FINAL(x)"))
    run = RLM(model=ScriptedModel(gate)).start("What?", "text")
    await gate.asked.wait()
    run.execute("x = 40 + 2\nx")
    gate.go.set()
    answer = await run
    assert answer.value == 42
    assert "the user ran this cell in your REPL:\nx = 40 + 2\nx\n\nREPL output:\n42" in said(answer)[1]


async def test_pause_and_resume():
    events = []
    gate = Gate(block("1"), block("FINAL(2)"))
    run = RLM(model=ScriptedModel(gate), budget=Budget(seconds=60)).start("What?", "text")
    run.subscribe(events.append)
    paused = asyncio.Event()
    run.subscribe(lambda event: paused.set() if "paused" in getattr(event, "text", "") else None)
    await gate.asked.wait()
    gate.go.set()
    run.pause()
    await paused.wait()
    assert run.status == "paused"
    calls = run.calls
    run.say("while you wait")
    run.resume()
    answer = await run
    assert calls == 1
    assert "while you wait" in said(answer)[1]
    assert events[0].type == "run_started"
    assert [each.state for each in events if each.type == "notice" and each.state] == ["paused", "running"]


async def test_time_stands_still_while_a_person_is_waited_for():
    rlm = RLM(
        model=ScriptedModel([block("1"), block("FINAL(budget()['seconds'])")]),
        budget=Budget(seconds=60),
        approve=lambda approval: time.sleep(0.4) or True,
        approve_cells=True,
    )
    answer = await rlm.acompletion("What?", "text")
    assert answer.value > 60 - answer.seconds + 0.7


async def test_cancelling_gives_what_there_is():
    before = kernels()
    entered = asyncio.Event()
    rlm = RLM(
        model=ScriptedModel([block("answer['content'] = 'half'"), block("import time; time.sleep(60)")])
    )
    run = rlm.start("What?", "text")
    run.subscribe(lambda event: entered.set() if getattr(event, "code", "").startswith("import") else None)
    await entered.wait()
    run.cancel()
    answer = await run
    assert (answer.status, answer.text, answer.iterations) == ("cancelled", "half", 2)
    assert kernels() == before
    run.cancel()


async def test_a_run_cancelled_before_it_began():
    run = RLM(model=ScriptedModel([])).start("What?", "text")
    run.cancel()
    assert (await run).status == "cancelled"


async def test_who_is_cancelled_while_waiting_leaves_the_run_alone():
    gate = Gate(block("FINAL(2)"))
    run = RLM(model=ScriptedModel(gate)).start("What?", "text")
    waiting = asyncio.ensure_future(asyncio.wait_for(run, 0.01))
    with pytest.raises(TimeoutError):
        await waiting
    with pytest.raises(InputError, match="this thread's event loop"):
        run.wait()
    gate.go.set()
    assert (await run).text == "2"


def test_without_a_loop_the_run_is_in_the_background():
    asked, go = threading.Event(), threading.Event()

    async def reply(request):
        asked.set()
        await asyncio.to_thread(go.wait)
        return block("FINAL(1)") if len(request.messages) > 3 else block("1")

    with RLM(model=ScriptedModel(reply)) as rlm:
        run = rlm.start("What?", "text")
        assert asked.wait(30)
        with pytest.raises(TimeoutError):
            run.wait(0.01)
        run.say("hello")
        go.set()
        answer = run.wait(30)
    assert "hello" in said(answer)[1]
    assert "LiveRun answered" in repr(run)


async def test_what_a_run_raises_reaches_who_waits():
    class Broken(ScriptedModel):
        async def reply(self, request):
            raise ZeroDivisionError

    run = RLM(model=Broken([])).start("What?", "text")
    with pytest.raises(ZeroDivisionError):
        await run
    assert run.status == "failed"


# Approvals ------------------------------------------------------------------------------------------


async def test_a_cell_is_approved_refused_or_edited():
    asked = []
    verdicts = iter([True, Refusal("that deletes things"), False, "x = 'edited'", True])

    async def approve(approval):
        asked.append(approval)
        return next(verdicts)

    events = []
    rlm = RLM(
        model=ScriptedModel(
            [
                block("x = 1"),
                block("x = 'refused'") + "\n" + block("x = 'behind'"),
                block("x = 'refused too'"),
                block("x = 'original'"),
                block("FINAL(x)"),
            ]
        ),
        approve=approve,
        approve_cells=True,
        readers=[events.append],
    )
    answer = await rlm.acompletion("What?", "text")
    assert answer.text == "edited"
    assert [each.code for each in asked] == [
        "x = 1", "x = 'refused'", "x = 'refused too'", "x = 'original'", "FINAL(x)"
    ]  # fmt: skip
    assert {(each.kind, each.depth, each.block) for each in asked} == {("cell", 0, 1)}
    told = said(answer)
    assert "the user did not let block 1 run: that deletes things. Nothing behind it ran" in told[2]
    assert "the user did not let block 1 run. " in told[3]
    assert "the user edited block 1 before it ran. It ran as:\nx = 'edited'" in told[4]
    assert [record.code for record in answer.repl_history] == ["x = 1", "x = 'edited'", "FINAL(x)"]
    assert [event.code for event in events if event.type == "cell_started"][1] == "x = 'edited'"


async def test_children_are_asked_for_too():
    asked = []

    def reply(request):
        child = "Code asked it" in request.messages[0]["content"]
        return block("FINAL('c')") if child else block("FINAL(rlm_query('Sub?', 'part'))")

    def approve(approval):
        asked.append((approval.depth, approval.code))
        return True

    rlm = RLM(model=ScriptedModel(reply), max_depth=2, approve=approve, approve_cells=True)
    assert (await rlm.acompletion("What?", "text")).text == "c"
    assert asked == [(0, "FINAL(rlm_query('Sub?', 'part'))"), (1, "FINAL('c')")]


async def test_a_price_is_approved_step_by_step():
    asked = []
    verdicts = iter([True, Refusal("dear enough")])

    def approve(approval):
        asked.append(approval.cost_usd)
        return next(verdicts)

    rlm = RLM(model=ScriptedModel([block("1")] * 20, prices=PRICED), approve=approve, approve_above_usd=3.0)
    answer = await rlm.acompletion("What?", "text")
    assert answer.status == "over_budget"
    assert "going on was not approved: dear enough" in answer.reason
    assert len(asked) == 2
    assert 3 < asked[0] < 6 <= asked[1] or asked[1] - asked[0] >= 3 or asked[1] > 6
    assert asked[1] == answer.usage.cost_usd


async def test_an_approval_that_fails_ends_the_run():
    def approve(approval):
        raise ZeroDivisionError

    model = ScriptedModel([block("1")])
    with pytest.raises(ZeroDivisionError):
        await RLM(model=model, approve=approve, approve_cells=True).acompletion("What?", "text")
    with pytest.raises(InputError, match="approve= returned 7"):
        await RLM(
            model=ScriptedModel([block("1")]), approve=lambda approval: 7, approve_cells=True
        ).acompletion("What?", "text")


async def test_status_tells_that_somebody_is_waited_for():
    waiting, go = asyncio.Event(), asyncio.Event()

    async def approve(approval):
        waiting.set()
        await go.wait()
        return True

    rlm = RLM(model=ScriptedModel([block("FINAL(1)")]), approve=approve, approve_cells=True)
    run = rlm.start("What?", "text")
    await waiting.wait()
    assert run.status == "waiting"
    go.set()
    assert (await run).text == "1"


@pytest.mark.parametrize(
    "options",
    [
        {"approve_cells": True},
        {"approve": print},
        {"approve": print, "approve_above_usd": 1.0},
        {"hooks": {"no_such_event": print}},
        {"hooks": {"notice": 3}},
        {"compact_at": 85},
        {"lazy_above": -1},
    ],
)
def test_settings_that_contradict_each_other_are_refused(options):
    with pytest.raises(ConfigError):
        RLM(model=ScriptedModel([]), **options)


# Hooks ----------------------------------------------------------------------------------------------


async def test_hooks_by_type_sync_and_async_in_order():
    seen, late = [], []

    async def slow(event):
        await asyncio.sleep(0)
        late.append(event.seq)

    async def reader(event):
        late.append(event.type)

    rlm = RLM(
        model=ScriptedModel([block("1"), block("FINAL(2)")]),
        hooks={"cell_finished": [lambda event: seen.append(event.status)], "*": slow},
        readers=[reader],
    )
    assert await rlm.acompletion("What?", "text")
    assert seen == ["ok", "ok"]
    numbers = [each for each in late if isinstance(each, int)]
    assert numbers == list(range(len(numbers)))
    assert late[-1] == "run_finished"


async def test_a_failing_hook_is_told_of_once_and_breaks_nothing(caplog):
    def broken(event):
        raise RuntimeError("sync hook")

    async def broken_later(event):
        if event.type == "cell_started":
            raise asyncio.CancelledError
        raise RuntimeError("async hook")

    events = []
    rlm = RLM(
        model=ScriptedModel([block("1"), block("2"), block("FINAL(3)")]),
        hooks={"*": [broken, broken_later]},
        readers=[events.append],
    )
    with caplog.at_level(logging.WARNING):
        assert await rlm.acompletion("What?", "text")
    notices = [event.text for event in events if event.type == "notice"]
    assert sum("sync hook" in text and "async hook" not in text for text in notices) == 1
    assert sum("async hook" in text for text in notices) == 1
    assert len(caplog.records) == 2
    assert caplog.records[0].exc_info
    assert events[-1].type == "run_finished"
    assert [event.seq for event in events] == list(range(len(events)))


async def test_a_slow_hook_is_told_of():
    events = []
    rlm = RLM(
        model=ScriptedModel([block("FINAL(3)")]),
        hooks={"cell_started": lambda event: time.sleep(0.15)},
        readers=[events.append],
    )
    assert await rlm.acompletion("What?", "text")
    assert any("in which the run stood still" in event.text for event in events if event.type == "notice")


async def test_an_async_hook_that_never_ends_is_dropped(monkeypatch, caplog):
    monkeypatch.setattr("rlm_kernel.hooks.DRAIN_SECONDS", 0.1)

    async def hang(event):
        await asyncio.Event().wait()

    rlm = RLM(model=ScriptedModel([block("FINAL(3)")]), hooks={"*": hang})
    assert await rlm.acompletion("What?", "text")
    assert "were dropped" in caplog.text
