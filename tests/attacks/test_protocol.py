"""Whatever a cell says to its host, answers, budgets, files and other sessions are as the host has them."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys

import pytest
import wasm_corpus
from corpus import ATTACKS as NATIVE
from protocol_corpus import ATTACKS, CALLS, HOSTILE_CONTEXT, LOCAL, PRELUDE, PYODIDE, SANDBOX
from test_wasm import HAS_DENO

from rlm_kernel import RLM, Budget, ScriptedModel

needs = {
    SANDBOX: pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    PYODIDE: pytest.mark.skipif(not HAS_DENO, reason="the extra pyodide (Deno) is not installed"),
}
BACKENDS = [LOCAL, pytest.param(SANDBOX, marks=needs[SANDBOX]), pytest.param(PYODIDE, marks=needs[PYODIDE])]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sandboxes run on Linux and macOS")
HONEST = "Say what only the host knows."


def block(code):
    return f"```repl\n{code}\n```"


class Judge:
    """Models of one backend, which see all that reaches a model, and what of the host must stay as it is."""

    def __init__(self, folder, repl):
        self.nonce = secrets.token_hex(8)
        self.marker = secrets.token_hex(8)
        self.key = f"sk-canary-{secrets.token_hex(8)}"
        self.secret, self.target = folder / "secret", folder / "target"
        self.secret.write_text(self.key)
        self.target.write_text("as it was")
        self.replies = []
        self.root = ScriptedModel(
            lambda request: self.replies.pop(0) if self.replies else "Done.", name="root"
        )
        self.sub = ScriptedModel(
            lambda request: self.nonce if HONEST in str(request.messages[-1]) else "no", name="sub"
        )
        self.rlm = RLM(
            model=self.root,
            sub_model=self.sub,
            repl=repl,
            budget=Budget(calls=CALLS),
            cell_timeout=20,
            max_iterations=3,
        )
        self.facts = {"marker": self.marker, "secret": str(self.secret), "target": str(self.target)}

    async def ask(self, session, *codes):
        self.replies = [block(code) for code in codes]
        before = len(self.root.requests), len(self.sub.requests)
        answer = await asyncio.wait_for(session.aask("What?"), 120)
        roots, subs = len(self.root.requests) - before[0], len(self.sub.requests) - before[1]
        return answer, roots, subs

    async def wrong(self, session, other, each):
        """Return what an attack has done that it must not; empty where nothing."""
        then = "FINAL('over')" if each.goal == "budget" else f"FINAL(llm_query({HONEST!r}))"
        answer, roots, subs = await self.ask(session, PRELUDE + each.code, then)
        spoken = str([*self.root.requests, *self.sub.requests]) + answer.text
        if self.key in spoken:
            return "a file of the host was read"
        if self.target.read_text() != "as it was":
            return "a file of the host was changed"
        if roots + subs > CALLS:
            return f"{roots + subs} calls, of {CALLS}"
        if answer.total_calls < roots + subs:
            return f"{answer.total_calls} calls were counted, {roots + subs} made"
        if each.goal in ("text", "names") and answer.text != self.nonce:
            return f"{answer.status}: {answer.text[:200]!r} is not the host's"
        if each.goal == "text" and subs != 1:
            return f"{subs} calls, of one that was made"
        beside, _, _ = await self.ask(other, f"FINAL(llm_query({HONEST!r}) + context)")
        if beside.text != f"{self.nonce}beside":
            return f"another session says {beside.status}, {beside.text[:200]!r}"
        return ""


@pytest.mark.parametrize("repl", BACKENDS)
async def test_the_host_decides(repl, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-of-the-environment")
    judge = Judge(tmp_path, repl)
    wrong = {}
    context = {"context": HOSTILE_CONTEXT.format(marker=judge.marker), "facts": judge.facts}
    async with judge.rlm.session("beside") as other, judge.rlm.session(contexts=context) as session:
        for each in ATTACKS:
            if found := await judge.wrong(session, other, each):
                wrong[each.name] = found
    assert wrong == {}


def test_names_are_unique_in_all_corpora():
    for attacks in (ATTACKS, NATIVE, wasm_corpus.ATTACKS):
        assert len({each.name for each in attacks}) == len(attacks)
