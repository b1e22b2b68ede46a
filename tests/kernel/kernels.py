"""Real kernels for the tests of this folder."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from rlm_kernel.context import Context
from rlm_kernel.errors import CallError
from rlm_kernel.repl.base import BudgetQuery, LLMQuery
from rlm_kernel.repl.bootstrap import GuestSettings
from rlm_kernel.repl.local import LocalTransport
from rlm_kernel.repl.session import JupyterSession


class Repl:
    """A started session, and a handler of its calls that answers at once and remembers them."""

    def __init__(self, session):
        self.session = session
        self.calls = []
        self.called = asyncio.Event()
        self.delay = 0.0
        self.in_flight = 0
        self.most_in_flight = 0

    async def answer(self, call):
        self.calls.append(call)
        self.called.set()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.in_flight -= 1
        if isinstance(call, BudgetQuery):
            return [{"usd": None, "calls": 7}]
        if isinstance(call, LLMQuery):
            return [self.reply(prompt) for prompt in call.prompts]
        return [(query, None if context is None else repr(context.value)) for query, context in call.items]

    @staticmethod
    def reply(prompt):
        if "fail" in str(prompt):
            return CallError("the model refused", kind="model")
        return f"reply to {prompt}"

    async def run(self, code, timeout=30.0, on_output=None):
        return await self.session.execute(code, timeout=timeout, on_call=self.answer, on_output=on_output)

    async def value(self, code):
        """The shown value of a cell that must succeed."""
        result = await self.run(code)
        assert result.status == "ok", [output.text for output in result.outputs]
        return "".join(output.text for output in result.outputs if output.kind == "result")


@asynccontextmanager
async def open_repl(*contexts, settings=None, along_bytes=0, **options):
    session = JupyterSession(LocalTransport(**options), settings or GuestSettings(), along_bytes=along_bytes)
    try:
        await session.start([Context.of(name, value) for name, value in contexts])
        yield Repl(session)
    finally:
        await session.close()
