"""Spare kernels: prepared ahead, handed out once, bounded, and gone with what they belong to."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from kernels import Repl

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.context import Context
from rlm_kernel.repl import pool as module
from rlm_kernel.repl.local import local_session
from rlm_kernel.repl.pool import Pool


@pytest.fixture
async def pool(monkeypatch):
    monkeypatch.setattr(module, "FILL_DELAY_SECONDS", 0.01)
    pool = Pool(local_session, size=2)
    yield pool
    await pool.close()


async def filled(pool):
    while len(pool) < pool.size:  # noqa: ASYNC110  what ends it is another process
        await asyncio.sleep(0.02)


async def used(session, text):
    """Start a session, return its process and what it sees of ``text`` and of earlier users."""
    await session.start([Context.of("context", text)])
    shown = await Repl(session).value(
        "import os\nseen = 'mine' in globals()\nmine = 1\nos.getpid(), context, seen"
    )
    return eval(shown)


async def test_spares_are_handed_out_once_and_replaced(pool):
    first = pool.take()
    assert len(pool) == 0
    await filled(pool)
    sessions = [first, pool.take(), pool.take(), pool.take()]
    try:
        seen = [await used(session, f"text {number}") for number, session in enumerate(sessions)]
        assert len({pid for pid, _, _ in seen}) == 4
        assert [(text, early) for _, text, early in seen] == [(f"text {n}", False) for n in range(4)]
    finally:
        for session in sessions:
            await session.close()
    await filled(pool)


async def test_a_spare_that_died_is_not_handed_out(pool):
    await pool.take().close()
    await filled(pool)
    for spare in pool._spares:
        os.kill(spare._transport._process.pid, signal.SIGKILL)
    while len(pool):  # noqa: ASYNC110  what ends it is another process
        await asyncio.sleep(0.02)
    session = pool.take()
    try:
        assert (await used(session, "text"))[1] == "text"
    finally:
        await session.close()


async def test_spares_go_away_when_idle(monkeypatch):
    monkeypatch.setattr(module, "FILL_DELAY_SECONDS", 0.01)
    pool = Pool(local_session, size=1, idle=1.5)
    await pool.take().close()
    await filled(pool)
    async with asyncio.timeout(30):
        while len(pool):  # noqa: ASYNC110  what ends it is a timer
            await asyncio.sleep(0.05)


async def test_closing_the_last_user_closes_the_spares(monkeypatch):
    monkeypatch.setattr(module, "FILL_DELAY_SECONDS", 0.01)
    model = ScriptedModel(lambda request: "```repl\nFINAL(context)\n```")
    one, two = RLM(model=model), RLM(model=model, spare_kernels=1)
    await one.acompletion("What?", "text")
    await two.acompletion("What?", "text")
    (pool,) = one._backend._pools
    await filled(pool)
    await one.aclose()
    assert len(pool) == 2
    await two.aclose()
    assert len(pool) == 0


async def test_no_spares_when_none_are_wanted():
    rlm = RLM(model=ScriptedModel(lambda request: "```repl\nFINAL(context)\n```"), spare_kernels=0)
    assert await rlm.acompletion("What?", "text")
    assert rlm._backend._pools == []


SCRIPT = """
import os, time
from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.repl import pool
pool.FILL_DELAY_SECONDS = 0.01
rlm = RLM(model=ScriptedModel(lambda request: "```repl\\nFINAL(1)\\n```"))
rlm.completion("What?", "text")
spares = rlm._backend._pools[0]
while len(spares) < 2: time.sleep(0.05)
print(*[spare._transport._process.pid for spare in spares._spares], flush=True)
END
"""


@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), 9)"], ids=["exit", "_exit", "kill"])
def test_spares_go_away_with_the_process(end):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT.replace("END", end)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr == ""
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < deadline, "a spare kernel outlived its process"
        time.sleep(0.05)
