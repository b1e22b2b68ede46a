"""No attack of the WebAssembly sandbox's corpus gets out of it, and after each the next cell runs."""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
import shutil
import sys
from contextlib import ExitStack

import corpus
import pytest
import runner
import wasm_corpus
from runner import BOUND_SECONDS, Host, Target, attack
from wasm_corpus import ATTACKS, PYODIDE

HAS_DENO = importlib.util.find_spec("deno") is not None or shutil.which("deno") is not None
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the WebAssembly sandbox runs on Linux and macOS"),
    pytest.mark.skipif(not HAS_DENO, reason="the extra pyodide (Deno) is not installed"),
]

# Of the native corpus, what is done to the sandbox alone.
INSIDE = {
    "fill the disk",  # its files are in its memory, and count there
    "type into the terminal",  # there is none: it is refused with another error
}


async def through(attacks, prelude, monkeypatch):
    """Run attacks on one sandbox after the other; return how those that got through did."""
    from rlm_kernel.repl.pyodide.transport import PyodideTransport, make_ready

    make_ready()
    key = f"sk-canary-{secrets.token_hex(8)}"
    limits = {"RLM_PYODIDE_HEAP_MIB": "256", "RLM_PYODIDE_MEMORY_MIB": "700"}
    # Even where the kernel's own process has a key.
    env = {"OPENAI_API_KEY": key, **limits}
    monkeypatch.setitem(runner.TRANSPORTS, PYODIDE, lambda: PyodideTransport(env=env))
    monkeypatch.setattr(runner, "PRELUDE", prelude)
    found = {}
    with ExitStack() as stack:
        host = Host(stack, key)
        target = Target(PYODIDE, host.facts(str(host.folder)))
        try:
            for each in attacks:
                how = await asyncio.wait_for(attack(host, target, each), each.seconds + BOUND_SECONDS)
                if how:
                    found[each.name] = how
            if not await target.works():
                await target.open()
            assert await target.works()
        finally:
            await target.close()
    return found


@pytest.mark.parametrize("goal", sorted({each.goal for each in ATTACKS}))
async def test_nothing_gets_out(goal, monkeypatch):
    attacks = [each for each in ATTACKS if each.goal == goal]
    assert await through(attacks, wasm_corpus.PRELUDE, monkeypatch) == {}


async def test_nothing_of_the_native_corpus_gets_out(monkeypatch):
    found = await through(corpus.ATTACKS, corpus.PRELUDE, monkeypatch)
    assert {name: how for name, how in found.items() if name not in INSIDE} == {}
