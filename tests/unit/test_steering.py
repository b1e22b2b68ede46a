"""A person who is waited for costs no time of the run's budget."""

import asyncio

import pytest

from rlm_kernel.errors import BudgetExceededError
from rlm_kernel.ledger import Budget, Ledger
from rlm_kernel.runs.steering import Approval, Refusal, Steering


def approval(cost=None):
    return Approval("cell", "r1", 0, 1, cost, "x = 1", 1)


async def test_the_clock_stops_and_goes_on():
    async def approve(_):
        await asyncio.sleep(0.5)
        return True

    ledger = Ledger(Budget(seconds=0.3))
    steering = Steering(approve, cells=True)
    steering.ledger = ledger
    approved = []

    async def run():
        async with asyncio.timeout(ledger.seconds_left) as steering.clock:
            approved.extend(await asyncio.gather(*(steering.approved_cell(approval()) for _ in range(3))))
            assert steering.state == "running"
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await run()
    assert approved == ["x = 1"] * 3
    with pytest.raises(BudgetExceededError):
        ledger.check()


def test_a_ledger_stands_still_until_the_last_one_is_done():
    now = [0.0]
    ledger = Ledger(Budget(seconds=10), clock=lambda: now[0])
    first, second = ledger.stopped(), ledger.stopped()
    now[0] = 1.0
    first.__enter__()
    now[0] = 2.0
    second.__enter__()
    now[0] = 3.0
    first.__exit__(None, None, None)
    assert ledger.seconds == 1.0
    now[0] = 5.0
    second.__exit__(None, None, None)
    assert (ledger.seconds, ledger.seconds_left) == (1.0, 9.0)
    now[0] = 6.0
    assert ledger.seconds == 2.0


async def test_one_person_is_asked_one_thing_at_a_time():
    open_questions, most = [], []

    async def approve(each):
        open_questions.append(each)
        most.append(len(open_questions))
        await asyncio.sleep(0)
        open_questions.remove(each)
        return Refusal("no")

    steering = Steering(approve, cells=True)
    verdicts = await asyncio.gather(*(steering.approved_cell(approval()) for _ in range(5)))
    assert verdicts == [Refusal("no")] * 5
    assert set(most) == {1}


async def test_without_an_approver_nothing_is_asked():
    steering = Steering()
    assert await steering.approved_cell(approval()) == "x = 1"
    await steering.approve_cost(approval(10**6))
